import csv
import shutil

import cv2
import numpy as np
import pytest

from tce.cli import main
from tce.errors import OptionError, TceError
from tce.evaluation.compare import compare
from tce.evaluation.evaluate import evaluate
from tce.evaluation.metrics import bootstrap_interval
from tce.options.compare import CompareOptions
from tce.options.evaluate import EvaluateOptions


@pytest.fixture(scope="module")
def results(data, networks, tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    base = {"data": str(data.footage), "lists": str(data.lists), "device": "cpu", "samples": 1}
    for name, changes in {
        "trained": {"ckpt": networks.encoder},
        "random": {"ckpt": "random", "model": "resnet18", "image_size": 32, "seed": 7},
        "found": {"ckpt": networks.encoder, "protocol": "retrieval"},
        "both": {"ckpt": networks.encoder, "split": "01,02"},
        "random-both": {"ckpt": "random", "model": "resnet18", "image_size": 32, "split": "01,02"},
    }.items():
        evaluate(EvaluateOptions(out=str(root / name), **{**base, **changes}))
    return root


def test_one_table_one_chart(results, tmp_path, capsys):
    runs = [str(results / name) for name in ("random", "trained", "found")]
    assert main(["compare", *runs, "--output", str(tmp_path / "chart.png")]) == 0
    text = capsys.readouterr().out
    assert "random-resnet18" in text and "encoder" in text and "points" in text and "R@10" in text
    assert cv2.imread(str(tmp_path / "chart.png")).std() > 10
    with open(tmp_path / "chart.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first = np.load(results / "random" / "predictions-01.npz")
    second = np.load(results / "trained" / "predictions-01.npz")
    differences = second["top1"] - first["top1"]
    low, high = bootstrap_interval(differences, first["recording"])
    (row,) = [row for row in rows if row["run"] == "encoder" and row["figure"] == "top1"]
    assert float(row["difference"]) == pytest.approx(differences.mean())
    assert float(row["difference_low"]) == pytest.approx(low)
    assert float(row["difference_high"]) == pytest.approx(high)
    assert [row["difference"] for row in rows if row["run"] == "random-resnet18"] == [""]


def test_means_over_splits_are_compared_split_by_split(results, tmp_path):
    runs = (str(results / "random-both"), str(results / "both"))
    done = compare(CompareOptions(runs, names=("before", "after"), output=str(tmp_path / "c.png")))
    (task,) = done.figures["comparisons"]
    before, after = task["figures"]["top1"]["before"], task["figures"]["top1"]["after"]
    assert after["difference"] == pytest.approx(after["value"] - before["value"])
    assert after["difference_interval"][0] <= after["difference"] <= after["difference_interval"][1]


def test_settings_that_differ_are_reported(data, networks, results, tmp_path):
    base = {"data": str(data.footage), "lists": str(data.lists), "device": "cpu", "samples": 1}
    evaluate(EvaluateOptions(networks.encoder, k=3, crop="ten-crop", out=str(tmp_path / "other"), **base))
    runs = (str(results / "trained"), str(tmp_path / "other"))
    done = compare(CompareOptions(runs, names=("a", "b"), output=str(tmp_path / "c.png")))
    assert "note: crop differs: " in done.text and "note: k differs: 16, 3" in done.text
    assert "samples differs" not in done.text


def test_clips_that_differ_are_another_task(data, networks, results, tmp_path):
    shutil.copytree(data.lists, tmp_path / "lists")
    test = tmp_path / "lists" / "testlist01.txt"
    test.write_text("".join(test.read_text().splitlines(keepends=True)[:-1]))
    base = {"data": str(data.footage), "device": "cpu", "samples": 1}
    evaluate(
        EvaluateOptions(networks.encoder, lists=str(tmp_path / "lists"), out=str(tmp_path / "r"), **base)
    )
    runs = (str(results / "trained"), str(tmp_path / "r"))
    assert len(compare(CompareOptions(runs, output=str(tmp_path / "c.png"))).figures["comparisons"]) == 2


def drawn_panels(patch, *runs, **changes):
    """What `compare` draws of the results."""
    drawn = []
    patch.setattr("tce.evaluation.compare.comparison_picture", lambda path, panels: drawn.extend(panels))
    compare(CompareOptions(tuple(map(str, runs)), **changes))
    return drawn


def test_bars_of_other_units_are_not_per_cent(data, networks, results, tmp_path, monkeypatch):
    base = {"data": str(data.footage), "lists": str(data.lists), "device": "cpu", "protocol": "coherence"}
    evaluate(EvaluateOptions(networks.encoder, out=str(tmp_path / "r"), **base))
    chart = str(tmp_path / "c.png")
    compare(CompareOptions((str(tmp_path / "r"),), metric="curvature", output=chart))
    assert cv2.imread(chart).std() > 5
    with pytest.raises(OptionError, match="--output"):
        compare(CompareOptions((str(tmp_path / "r"),), output=str(tmp_path / "c.xyz")))
    (curvature,) = drawn_panels(monkeypatch, tmp_path / "r", metric="curvature", output=chart)
    assert not curvature.percent and curvature.chance is None
    accuracy, order = drawn_panels(monkeypatch, results / "trained", tmp_path / "r", output=chart)
    assert accuracy.percent and accuracy.chance == 0.25 and "16 clips of 8 recordings" in accuracy.subtitle
    assert order.title.startswith("coherence: Kendall") and not order.percent and order.chance == 0


def test_what_cannot_be_compared_is_reported(results, tmp_path):
    chart = str(tmp_path / "c.png")
    with pytest.raises(TceError, match=r"result\.json, as tce evaluate and tce finetune write it"):
        compare(CompareOptions((str(tmp_path),), output=chart))
    (tmp_path / "result.json").write_text('{"protocol": {"knn": null}}')
    with pytest.raises(TceError, match="evaluate its network first"):
        compare(CompareOptions((str(tmp_path),), output=chart))
    run = str(results / "trained")
    with pytest.raises(OptionError, match="--metric; expected one of top1; found 'top9'"):
        compare(CompareOptions((run,), output=chart, metric="top9"))
    with pytest.raises(OptionError, match="different results, or a name for each"):
        compare(CompareOptions((run, run), names=("a", "a"), output=chart))
    with pytest.raises(OptionError, match="one for each of the 2"):
        CompareOptions((run, run), names=("a",))
