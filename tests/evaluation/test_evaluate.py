import csv
import json
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pyarrow as pa
import pytest

from tce.cli import main
from tce.data.catalog import clip_sketch
from tce.data.pack import pack
from tce.data.splits import open_split
from tce.errors import OptionError, TceError
from tce.evaluation.compare import compare
from tce.evaluation.evaluate import evaluate
from tce.evaluation.protocols import SplitResult
from tce.evaluation.report import EvaluatedSplit
from tce.evaluation.result import _of_leaks
from tce.io import unescape_cell
from tce.model.checkpoint import save_model
from tce.model.encoder import build_encoder
from tce.options.checks import split_names
from tce.options.compare import CompareOptions
from tce.options.evaluate import EvaluateOptions
from tce.options.pack import PackOptions
from tce.video.synthetic import make_clips


def options(clips, ckpt, **changes):
    base = {"data": str(clips.footage), "lists": str(clips.lists), "device": "cpu", "samples": 2}
    return EvaluateOptions(ckpt=ckpt, **{**base, **changes})


@pytest.mark.parametrize("protocol", ["frames", "linear", "knn", "retrieval", "coherence"])
def test_each_protocol_says_it_all(data, networks, tmp_path, capsys, protocol):
    ckpt = networks.stacks if protocol == "frames" else networks.encoder
    command = ["evaluate", "--ckpt", ckpt, "--data", str(data.footage), "--lists", str(data.lists)]
    command += ["--protocol", protocol, "--out", str(tmp_path / "out"), "--json", "--device", "cpu"]
    assert main([*command, "--split", "01"]) == 0
    printed = capsys.readouterr().out
    result = json.loads(printed)
    assert result == json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["protocol"] == protocol and result["split"] == "01"
    assert len(result["checkpoint"]["hash"]) == 64 and len(result["data"]["fingerprint"]) >= 32
    assert result["frozen"]["before"] == result["frozen"]["after"] == result["checkpoint"]["hash"]
    assert {"samples"} <= set(result["settings"]) and result["image_size"] == 32 and result["seed"] == 0
    assert result["crop"] in ("squash", "center-crop") and result["versions"]["torch"]
    with open(tmp_path / "out" / "predictions-01.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    held = np.load(tmp_path / "out" / "predictions-01.npz")
    assert [row["id"] for row in rows] == held["id"].tolist()
    if protocol == "coherence":
        assert result["data"]["test_clips"] == 12 and "4 clips were too short" in " ".join(result["notes"])
        assert 0 < result["neighbour"] < result["across"] and result["effective_rank"] > 1
        return
    assert len(rows) == 16 and result["data"]["test_recordings"] == 8
    if protocol == "retrieval":
        assert sorted(map(int, result["recall"])) == [1, 5, 10], "of 16 training clips"
        values = [result["recall"][k] for k in ("1", "5", "10")]
        assert values == sorted(values)
        assert result["chance_levels"]["recall@1"] == pytest.approx(1 / 4)
        picture = "neighbours-01.png"
    else:
        assert 0 <= result["top1"] <= 1 and "top5" not in result, "of four classes it says nothing"
        assert result["chance_levels"] == {"top1": 0.25} and result["chance"] == 0.25
        right = [row["label"] == row["prediction"] for row in rows]
        assert result["top1"] == pytest.approx(np.mean(right))
        low, high = result["intervals"]["top1"]
        assert low <= result["top1"] <= high
        picture = "confusion-01.png"
    image = cv2.imread(str(tmp_path / "out" / picture))
    assert min(image.shape[:2]) > 300 and image.std() > 10


def test_splits_share_features_and_give_means(data, networks, tmp_path, monkeypatch):
    from tce.evaluation.clip_reader import Reader

    passes = []
    original = Reader.outputs
    monkeypatch.setattr(
        Reader, "outputs", lambda self, *rest: passes.append(rest[2]) or original(self, *rest)
    )
    both = evaluate(options(data, networks.encoder, split="1,02", out=str(tmp_path / "both")))
    assert len(passes) == 1, "every clip passes the network once for both splits"
    parts = [both.figures["splits"][name] for name in ("01", "02")]
    assert both.figures["top1"] == pytest.approx(np.mean([part["top1"] for part in parts]))
    alone = evaluate(options(data, networks.encoder, split="02", out=str(tmp_path / "alone")))
    assert alone.figures["top1"] == parts[1]["top1"]
    assert "mean" in both.text and both.figures["intervals"]["top1"] is not None


def test_all_means_each_split_of_the_lists(data, networks, tmp_path):
    every = evaluate(options(data, networks.encoder, split="all", out=str(tmp_path / "all")))
    assert every.figures["split"] == "01,02"
    for split in ("03", "01,02,03"):
        with pytest.raises(
            OptionError, match=r"--split; expected one of 01, 02, the splits of .*; found '03'"
        ):
            evaluate(options(data, networks.encoder, split=split, out=str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()


def test_names_in_predictions_run_no_formulas(data, networks, tmp_path):
    for number, path in enumerate(sorted(data.footage.iterdir())):
        shutil.copytree(path, tmp_path / "footage" / "=-@+"[number % 4] / path.name)
    base = {"lists": None, "data": str(tmp_path / "footage")}
    evaluate(options(data, networks.encoder, out=str(tmp_path / "out"), **base))
    with open(tmp_path / "out/predictions-held-out.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    named = header.index("label"), header.index("id"), header.index("prediction")
    assert rows and all(row[column].startswith("'") for row in rows for column in named)
    held = np.load(tmp_path / "out/predictions-held-out.npz")
    assert [unescape_cell(row[named[1]]) for row in rows] == held["id"].tolist()


def test_every_split_may_have_its_own_network(data, networks, tmp_path):
    for split, seed in (("01", 8), ("02", 9)):
        save_model(tmp_path / f"run-{split}", build_encoder("resnet18", image_size=32, seed=seed))
    own = str(tmp_path / "run-{split}")
    both = evaluate(options(data, own, split="01,02", out=str(tmp_path / "both")))
    hashes = set()
    for split in ("01", "02"):
        alone = evaluate(options(data, own, split=split, out=str(tmp_path / "alone")))
        assert alone.figures["top1"] == both.figures["splits"][split]["top1"]
        hashes.add(alone.figures["checkpoint"]["hash"])
    assert len(hashes) == 2


def test_random_and_classifiers_as_baselines(data, networks, tmp_path):
    random = {"model": "resnet18", "image_size": 32, "split": "01"}
    first = evaluate(options(data, "random", out=str(tmp_path / "a"), **random))
    again = evaluate(options(data, "random", out=str(tmp_path / "b"), **random))
    other = evaluate(options(data, "random", out=str(tmp_path / "c"), seed=1, **random))
    assert first.figures["checkpoint"]["hash"] == again.figures["checkpoint"]["hash"]
    assert first.figures["checkpoint"]["hash"] != other.figures["checkpoint"]["hash"]
    supervised = evaluate(options(data, networks.stacks, protocol="linear", out=str(tmp_path / "d")))
    assert supervised.figures["checkpoint"]["kind"] == "classifier"
    along = evaluate(options(data, networks.stacks, protocol="coherence", out=str(tmp_path / "e")))
    assert along.figures["settings"]["layer"] == "features"


def test_without_lists_whole_recordings_are_held_out(data, networks, tmp_path):
    for path in data.footage.iterdir():
        label = path.name.split("_")[1]
        shutil.copytree(path, tmp_path / "footage" / label / path.name)
    base = {"lists": None, "data": str(tmp_path / "footage")}
    done = evaluate(options(data, networks.encoder, out=str(tmp_path / "out"), **base))
    assert done.figures["split"] == "held-out" and done.figures["data"]["classes"] == 4
    held = np.load(tmp_path / "out" / "predictions-held-out.npz")
    assert len(held["id"]) == 2 * len(set(held["recording"].tolist())), "both pieces of each"
    people = {str(name)[-3:] for name in held["recording"]}
    assert len(held["id"]) == 8 * len(people), "a person's clips of every class"
    other = evaluate(options(data, networks.encoder, out=str(tmp_path / "other"), seed=5, **base))
    assert other.figures["splits"]["held-out"]["clips"] == done.figures["splits"]["held-out"]["clips"]
    for split in ("02", "01,02", "all"):
        with pytest.raises(OptionError, match=r"--split .*; expected .*lists"):
            evaluate(options(data, networks.encoder, split=split, out=str(tmp_path / "none"), **base))


def test_a_result_replaces_no_run_and_leaves_nothing_stale(data, networks, tmp_path):
    out = tmp_path / "out"
    evaluate(options(data, networks.encoder, out=str(out)))
    evaluate(options(data, networks.encoder, protocol="coherence", out=str(out)))
    assert not list(out.glob("confusion-*"))
    assert "top1" not in np.load(out / "predictions-01.npz").files
    (out / "options.json").write_text("{}")
    before = (out / "result.json").read_text()
    with pytest.raises(OptionError, match=r"--out .*; expected a folder of its own .*; found a run"):
        evaluate(options(data, networks.encoder, out=str(out)))
    assert (out / "result.json").read_text() == before


def test_classes_that_only_the_classifier_knows_keep_their_names(data, networks, tmp_path):
    def some(lines):
        return [line for line in lines if line.split("/")[0].split(" ")[-1] in ("Down", "Up")]

    lists = edited(data, tmp_path, trainlist01=some, testlist01=some, classInd=some)
    done = evaluate(options(data, networks.stacks, protocol="frames", lists=lists, out=str(tmp_path / "out")))
    assert done.figures["chance"] == 1 / 4, "of all four that compete"
    held = np.load(tmp_path / "out" / "predictions-01.npz")
    assert held["classes"].tolist() == ["Down", "Up", "Left", "Right"]
    assert (held["classes"][held["scores"].argmax(axis=1)] == held["prediction"]).all()
    whole = evaluate(options(data, networks.stacks, protocol="frames", out=str(tmp_path / "whole")))
    assert whole.figures["top1"] >= 0
    other = np.load(tmp_path / "whole" / "predictions-01.npz")
    kept = np.isin(other["id"], held["id"])
    assert (other["prediction"][kept] == held["prediction"]).all()


def test_leaks_are_reported_along_the_whole_line(data, tmp_path):
    clips = open_split(str(data.footage), tmp_path / "cache", str(data.lists), "01", 0.0)
    outcome = SplitResult(clips.test, {}, {}, {}, neighbours=clips.train[None])

    def reported(provenance):
        network = SimpleNamespace(facts={"provenance": provenance})
        return " ".join(_of_leaks(EvaluatedSplit(network, clips, outcome)))

    ids = clips.store.catalog.ids
    other, own = (
        {"made": "tce finetune", "split": split, "clips": clip_sketch(ids[rows])}
        for split, rows in (("02", clips.test), ("01", clips.train))
    )
    assert reported(own) == reported({}) == ""
    assert "the network was trained on 100% of these test clips, by their names" in reported(other)
    assert "trained on 100% of these test clips" in reported({**own, "weights": {"provenance": other}})
    assert reported({**other, "clips": clip_sketch(["another", "dataset"])}) == ""
    some = {"made": "tce pretrain", "split": None, "clips": clip_sketch(ids[clips.test[:4]])}
    assert "pre-trained, without labels, on 25% of these test clips" in reported(some)
    assert "on split 02, perhaps on these" in reported({"split": "02"}), "a file that does not name its clips"
    clips.store.catalog.__dict__["_groups"] = pa.array(["someone"] * len(clips.store))
    assert "1 groups (people) have clips in both training and test clips" in reported(own)


def test_damaged_clips_are_not_called_short(data, networks, tmp_path):
    shutil.copytree(data.footage, tmp_path / "footage")
    for image in (tmp_path / "footage" / "v_Left_g01_c02").iterdir():
        image.write_bytes(b"")
    base = {"data": str(tmp_path / "footage"), "protocol": "coherence", "out": str(tmp_path / "out")}
    notes = " ".join(evaluate(options(data, networks.encoder, **base)).figures["notes"])
    assert "4 clips were too short" in notes or "3 clips were too short" in notes
    with pytest.raises(TceError, match="choose a smaller --gap"):
        evaluate(options(data, networks.encoder, gap=500, **base))


def test_other_classes_are_reported_before_hours_of_packing(networks, tmp_path):
    made = make_clips(tmp_path, classes=3, per_class=2, frames=7, size=32, groups=2, test_groups=1)
    with pytest.raises(TceError, match="classes"):
        evaluate(
            EvaluateOptions(
                networks.stacks, str(made.videos), "frames", str(made.lists), out=str(tmp_path / "out")
            )
        )
    assert not list(tmp_path.rglob("collection"))


def test_unlabelled_footage_has_a_coherence(data, networks, tmp_path):
    shutil.copytree(data.footage / "v_Up_g04_c02", tmp_path / "footage" / "holiday1")
    shutil.copytree(data.footage / "v_Up_g04_c01", tmp_path / "footage" / "holiday2")
    base = {"lists": None, "data": str(tmp_path / "footage"), "out": str(tmp_path / "out")}
    done = evaluate(options(data, networks.encoder, protocol="coherence", **base))
    assert done.figures["tau"] is None and done.figures["neighbour"] > 0
    with pytest.raises(TceError, match="give --lists, or put the clips of each class in a folder"):
        evaluate(options(data, networks.encoder, **base))


def test_fewer_labels_are_seeded(data, networks, tmp_path):
    done = evaluate(options(data, networks.encoder, labels="1/class", out=str(tmp_path / "out")))
    assert done.figures["settings"]["train"] == 4 and done.figures["settings"]["labels"] == "1/class"


def edited(data, tmp_path, **changes):
    """The lists with some files changed by functions of their lines."""
    shutil.copytree(data.lists, tmp_path / "lists")
    for name, change in changes.items():
        path = tmp_path / "lists" / f"{name}.txt"
        path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))
    return str(tmp_path / "lists")


def test_listed_clips_without_footage(data, networks, tmp_path):
    lists = edited(data, tmp_path, testlist01=lambda lines: [*lines, "Up/v_Up_g09_c01.avi"])
    with pytest.raises(
        TceError, match=r"lacks 1 of the clips .*\(3\.0%\); expected at most 2\.0%.*max-missing"
    ):
        evaluate(options(data, networks.encoder, lists=lists, max_missing=0.02))
    done = evaluate(options(data, networks.encoder, lists=lists, out=str(tmp_path / "out")))
    assert done.figures["splits"]["01"]["missing"] == {
        "clips": 1, "share": pytest.approx(1 / 33), "examples": ["Up/v_Up_g09_c01.avi"],
    }  # fmt: skip
    assert "1 listed clip (3.0%) not found" in done.text


def test_missing_clips_are_reported_before_hours_of_packing(data, networks, tmp_path):
    made = make_clips(tmp_path / "made", classes=2, per_class=6, frames=8, size=32)
    for clip in sorted(made.videos.rglob("*.mp4"))[:6]:
        clip.unlink()
    with pytest.raises(TceError, match=r"lacks 6 of the clips .*\(50\.0%\)"):
        evaluate(
            EvaluateOptions(networks.encoder, str(made.videos), lists=str(made.lists), out=str(tmp_path))
        )
    assert not list(tmp_path.rglob("*.lance"))


def test_a_classifier_needs_no_training_clips(data, networks, tmp_path):
    for clip in data.footage.iterdir():
        if clip.name.split("_")[2] in ("g01", "g02"):  # the test clips of split 01
            shutil.copytree(clip, tmp_path / "footage" / clip.name)
    base = {"data": str(tmp_path / "footage"), "max_missing": 0.5, "out": str(tmp_path / "out")}
    done = evaluate(options(data, networks.stacks, protocol="frames", **base))
    assert done.figures["data"]["test_clips"] == 16 and done.figures["data"]["train_clips"] == 0
    with pytest.raises(TceError, match="0 training clips, 16 test clips"):
        evaluate(options(data, networks.encoder, protocol="knn", **base))


def test_classes_without_clips_keep_their_numbers(data, networks, tmp_path):
    def drop(lines):
        return [line for line in lines if not line.startswith("Left")]

    lists = edited(data, tmp_path, testlist01=drop, trainlist01=drop)
    evaluate(options(data, networks.stacks, protocol="frames", lists=lists, out=str(tmp_path / "out")))
    held = np.load(tmp_path / "out" / "predictions-01.npz")
    assert held["classes"].tolist() == ["Down", "Left", "Right", "Up"] and len(held["id"]) == 12
    whole = evaluate(options(data, networks.stacks, protocol="frames", out=str(tmp_path / "whole")))
    assert whole.figures["data"]["test_clips"] == 16
    all_of_them = np.load(tmp_path / "whole" / "predictions-01.npz")
    kept = np.isin(all_of_them["id"], held["id"])
    np.testing.assert_allclose(all_of_them["scores"][kept], held["scores"], rtol=1e-4, atol=1e-3)


def test_tests_without_labels_give_way_to_validation(data, tmp_path):
    """Something-Something's test clips have no labels: its figures are of the validation clips."""
    titles = sorted(path.name for path in data.footage.iterdir())
    contents = {"labels": {"Up": "0", "Down": "1"}, "train": titles[:4], "validation": titles[4:10]}
    contents["test"] = titles[10:]
    for name, names in contents.items():
        template = {} if name == "test" else {"template": "Up"}
        content = names if name == "labels" else [{"id": title, **template} for title in names]
        (tmp_path / f"something-something-v2-{name}.json").write_text(json.dumps(content))
    clips = open_split(str(data.footage), tmp_path / "cache", str(tmp_path), "01", 0.0)
    assert clips.store.catalog.ids[clips.test].tolist() == titles[4:10] and len(clips.train) == 4


def test_a_packed_split_is_not_taken_for_another(data, networks, tmp_path):
    packed = str(tmp_path / "packed")
    pack(PackOptions(footage=(str(data.footage),), out=packed, lists=str(data.lists), split="01"))
    base = {"data": packed, "out": str(tmp_path / "out")}
    with pytest.raises(OptionError, match=r"--split 02; expected split 01, with which .* give --lists"):
        evaluate(options(data, networks.encoder, lists=None, split="02", **base))
    own = evaluate(options(data, networks.encoder, lists=None, split="1", **base))
    assert own.figures["split"] == "01"
    assert evaluate(options(data, networks.encoder, split="02", **base)).figures["split"] == "02"


def test_bad_lists_are_one_line(data, networks, tmp_path, capsys):
    def fails(lists, *words, ckpt=networks.encoder, protocol="knn"):
        command = ["evaluate", "--ckpt", ckpt, "--data", str(data.footage), "--lists", lists]
        code = main([*command, "--out", str(tmp_path / "out"), "--device", "cpu", "--protocol", protocol])
        error = capsys.readouterr().err.strip().splitlines()
        assert code == 1 and error[-1].startswith("tce: "), error
        assert all(word in error[-1] for word in words), error[-1]

    fails(
        edited(data, tmp_path / "1", testlist01=lambda lines: [*lines, lines[0]]), "v_Down_g01_c01", "twice"
    )
    fails(edited(data, tmp_path / "2", testlist01=lambda lines: []), "0 test clips", "--split")
    unknown = edited(data, tmp_path / "3", classInd=lambda lines: lines[:3])
    fails(unknown, "Up", "class")
    fails(str(data.lists), "an encoder", "tce finetune", protocol="frames")
    more = edited(data, tmp_path / "4", classInd=lambda lines: [*lines, "5 Round"])
    fails(more, "without Round", ckpt=networks.stacks, protocol="frames")


def test_wrong_model_and_outputs(data, networks, tmp_path):
    with pytest.raises(TceError, match="resnet18"):
        evaluate(options(data, networks.encoder, model="resnet50", out=str(tmp_path / "out")))
    (tmp_path / "file").write_text("")
    with pytest.raises(TceError, match="--out"):
        evaluate(options(data, networks.encoder, out=str(tmp_path / "file" / "out")))
    with pytest.raises(TceError, match="which has no embedding"):
        evaluate(options(data, networks.stacks, layer="embedding", out=str(tmp_path / "out")))
    with pytest.raises(OptionError, match=r"--split; expected one of 0?1, 0?2"):
        evaluate(options(data, networks.encoder, split="07", out=str(tmp_path / "out")))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"ckpt": "random"}, "--ckpt random; expected --model"),
        ({"ckpt": "random", "model": "resnet18", "protocol": "frames"}, "tce finetune without --weights"),
        ({"k": 0}, "--k; expected at least 1"),
        ({"temperature": 0.0}, "--temperature"),
        ({"labels": "5%", "protocol": "retrieval"}, "--labels; expected --protocol linear or knn"),
        ({"split": "01,01"}, "--split"),
        ({"labels": "none"}, "--labels; expected a share such as 10%"),
        ({"gap": 3}, "--gap; expected --protocol coherence; found --protocol knn"),
        ({"k": 3, "protocol": "linear"}, "--k; expected --protocol knn"),
        ({"penalty": 0.1}, "--penalty; expected --protocol linear"),
        ({"seed": -1}, "--seed; expected from 0"),
    ],
)
def test_contradictions_name_their_flag(changes, words):
    with pytest.raises(OptionError) as caught:
        EvaluateOptions(**{"ckpt": "c", "data": "d", **changes})
    assert words in str(caught.value)


def test_split_names():
    assert split_names("1") == ("01",) and split_names("all") == ("all",)
    assert split_names("02,3") == ("02", "03") and split_names("held-out") == ("held-out",)


def test_all_protocols_stand_beside_the_untrained_network(data, networks, tmp_path):
    out = tmp_path / "all"
    done = evaluate(options(data, networks.encoder, protocol="all", out=str(out), split="01,02"))
    content = json.loads((out / "result.json").read_text())
    assert content["protocol"] == "all" and [str(path.name) for path in out.rglob("result.json")] == [
        "result.json"
    ]
    assert (
        list(done.results) == list(done.untrained) == ["linear", "knn", "fewshot", "retrieval", "coherence"]
    )
    assert any("frames was skipped" in note for note in content["notes"])
    alone = evaluate(options(data, networks.encoder, split="01,02", out=str(tmp_path / "knn")))
    assert done.results["knn"].top1 == alone.top1 and alone.metrics["top1"] == alone.top1
    cell = content["summary"]["knn"]["top1"]
    assert cell["difference"] == pytest.approx(cell["value"] - cell["untrained"]) and cell["chance"] == 0.25
    assert "untrained" in done.text and "phase progression" in done.text
    chart = str(tmp_path / "c.png")
    compared = compare(CompareOptions((str(out),), output=chart))
    assert len(compared.comparisons) == 5 and set(compared.comparisons[1].metrics["top1"]) == {
        "encoder", "random-resnet18",
    }  # fmt: skip
    assert "<table>" in done._repr_html_() and "<table>" in compared._repr_html_()


@pytest.mark.parametrize(("ckpt", "protocol"), [("encoder", "knn"), ("stacks", "knn"), ("stacks", "frames")])
def test_both_engines_give_the_same_scores(data, networks, tmp_path, ckpt, protocol):
    done = {}
    for engine in ("torch", "onnxruntime"):
        flags = {
            "engine": engine,
            "precision": "float32",
            "out": str(tmp_path / engine),
            "protocol": protocol,
        }
        done[engine] = evaluate(options(data, getattr(networks, ckpt), **flags))
        assert done[engine].figures["settings"]["engine"] == engine
    scores = [np.load(next((tmp_path / engine).glob("predictions-*.npz")))["scores"] for engine in done]
    np.testing.assert_allclose(*scores, atol=1e-3)
    with pytest.raises(OptionError, match=r"--engine"):
        evaluate(options(data, networks.encoder, engine="tensorrt", out=str(tmp_path / "no")))


def test_a_classifier_and_unlabelled_clips_have_the_protocols_that_fit(data, networks, tmp_path):
    done = evaluate(options(data, networks.stacks, protocol="all", out=str(tmp_path / "a")))
    assert list(done.results) == ["frames", "linear", "knn", "fewshot", "retrieval", "coherence"]
    assert "frames" not in done.untrained, "an untrained classifier guesses: that is chance"
    for name in ("v_Up_g04_c01", "v_Up_g04_c02"):
        shutil.copytree(data.footage / name, tmp_path / "footage" / name.replace("v_Up_", "holiday"))
    base = {"lists": None, "data": str(tmp_path / "footage"), "out": str(tmp_path / "b")}
    assert list(evaluate(options(data, networks.encoder, protocol="all", **base)).results) == ["coherence"]


def test_a_picture_that_fails_costs_no_result(data, networks, tmp_path, monkeypatch, caplog):
    def fail(*_):
        assert (tmp_path / "out" / "result.json").exists(), "written before anything is drawn"
        raise ValueError("no such glyph")

    monkeypatch.setattr("tce.evaluation.report.confusion_picture", fail)
    done = evaluate(options(data, networks.encoder, out=str(tmp_path / "out")))
    assert "confusion" not in done.text and "confusion-01.png was not drawn" in caplog.text


def test_an_interrupted_evaluation_says_what_is_written(data, networks, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    base = options(data, networks.encoder, out=str(tmp_path / "new" / "out"))
    monkeypatch.setattr("tce.evaluation.protocols.clip_means", stop)
    with pytest.raises(KeyboardInterrupt, match=r"no result was written to .*out"):
        evaluate(base)
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    monkeypatch.setattr("tce.evaluation.report.confusion_picture", stop)
    with pytest.raises(KeyboardInterrupt, match=r"the result is in .*out, pictures may be missing"):
        evaluate(base)
    assert (tmp_path / "new" / "out" / "result.json").exists()


def test_held_out_clips_of_a_classifier_are_named(data, tmp_path):
    encoder = build_encoder("resnet18", image_size=32, seed=0)
    encoder.config.provenance.update(train_clips=36, held_out_clips=4)
    save_model(tmp_path / "n", encoder)
    notes = evaluate(options(data, str(tmp_path / "n"), out=str(tmp_path / "out"))).figures["notes"]
    assert any("trained on 36 of its 40 training clips; 4 were held out" in note for note in notes)


def test_a_network_in_memory_is_evaluated_and_left_as_it_is(data, tmp_path):
    import tce

    encoder = build_encoder("resnet18", image_size=32, seed=0).train()
    result = tce.evaluate(
        encoder, data.footage, lists=data.lists, protocol="knn", device="cpu", samples=1, out=tmp_path / "out"
    )
    assert 0 <= result.top1 <= 1 and len(result.predictions["id"]) == 16
    assert result.top1 == pytest.approx(np.mean(result.predictions["top1"]))
    assert encoder.training and next(encoder.parameters()).requires_grad
    with pytest.raises(OptionError, match="protocol frames; expected a fine-tuned classifier"):
        tce.evaluate(encoder, data.footage, lists=data.lists, protocol="frames", out=tmp_path / "out")
