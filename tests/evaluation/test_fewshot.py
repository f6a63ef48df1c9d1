"""Few-shot accuracy: slow loops, scikit-learn's optimum, and the command from clips to picture."""

import json
from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tce.errors import OptionError, TceError
from tce.evaluation.compare import compare
from tce.evaluation.evaluate import evaluate
from tce.evaluation.fewshot import (
    DRAWS,
    centroid_scores,
    draw_order,
    logistic_scores,
    possible_shots,
)
from tce.evaluation.metrics import mean_interval
from tce.evaluation.probes import unit_rows
from tce.options.compare import CompareOptions
from tce.options.evaluate import EvaluateOptions
from tce.rng import uniform


def some(rng, n, d, classes):
    labels = np.arange(n) % classes
    return (rng.normal(size=(n, d)) + rng.normal(size=(classes, d))[labels]).astype(np.float32), labels


def test_a_draw_takes_clips_of_each_class_by_their_random_numbers():
    labels = np.array([2, 0, 0, 2, 1, 0, 2, 2, 0])
    for draw in range(3):
        place = draw_order(labels, 7, draw)
        keys = [float(uniform(7, draw, np.array([clip]), DRAWS, 1)[0, 0]) for clip in range(len(labels))]
        for clip, label in enumerate(labels):
            before = [i for i in range(len(labels)) if labels[i] == label and keys[i] < keys[clip]]
            assert place[clip] == len(before)
        assert Counter(labels[place < 2].tolist()) == {0: 2, 1: 1, 2: 2}
    assert not np.array_equal(draw_order(labels, 7, 0), draw_order(labels, 7, 1))
    assert not np.array_equal(draw_order(labels, 7, 0), draw_order(labels, 8, 0))


def test_every_clip_is_drawn_equally_often():
    labels = np.zeros(5, np.int64)
    drawn = sum((draw_order(labels, 0, draw) < 2).astype(int) for draw in range(2000))
    assert np.abs(drawn / 2000 - 2 / 5).max() < 0.05


def test_centroids_equal_a_loop():
    rng = np.random.default_rng(0)
    rows, labels = some(rng, 12, 5, 3)
    labels = labels + (labels > 1)  # class 2 has no clips
    queries, _ = some(rng, 7, 5, 3)
    queries, rows = unit_rows(queries), unit_rows(rows)
    scores = centroid_scores(queries, rows, labels, 4)
    for query in range(7):
        for label in (0, 1, 3):
            mean = sum(rows[i].astype(float) for i in range(12) if labels[i] == label)
            assert scores[query, label] == pytest.approx(
                queries[query] @ mean / np.linalg.norm(mean), abs=1e-5
            )
        assert scores[query, 2] == -np.inf


@pytest.mark.parametrize("clips", [9, 90])
def test_logistic_regression_is_scikit_learns_optimum(clips):
    """Nine clips of 40 numbers: the fit in the clips' span; ninety: in all numbers."""
    rng = np.random.default_rng(1)
    rows, labels = some(rng, clips, 40, 3)
    queries, _ = some(rng, 20, 40, 3)
    rows, queries = ((side - rows.mean(axis=0)) / rows.std() for side in (rows, queries))
    penalty = 0.01
    scores = logistic_scores(queries, rows, labels, 3, penalty, "cpu")
    theirs = LogisticRegression(C=1 / (2 * penalty * clips), tol=1e-8, max_iter=10000).fit(rows, labels)
    ours = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        ours / ours.sum(axis=1, keepdims=True), theirs.predict_proba(queries), atol=6e-3
    )


def test_classes_that_cannot_give_as_many_are_named():
    labels = np.repeat([0, 1, 2, 3], [1, 3, 9, 9])
    kept, notes = possible_shots(labels, ["ant", "bee", "cow", "doe"], (10, 1, 2, 5))
    assert kept == (1, 2, 5)
    assert notes == [
        "2 a class: 1 of 4 classes have fewer training clips: ant (1); they give all they have",
        "5 a class: 2 of 4 classes have fewer training clips: ant (1), bee (3); they give all they have",
        "10 a class: 4 of 4 classes have fewer training clips: ant (1), bee (3), cow (9), doe (9); left out",
    ]
    with pytest.raises(TceError, match=r"--shots 10.*found 10 a class: 4 of 4 .*give smaller numbers"):
        possible_shots(labels, ["ant", "bee", "cow", "doe"], (10,))


def test_the_interval_covers_draws_and_recordings():
    rng = np.random.default_rng(2)
    recordings = np.repeat(np.arange(12), [3, 5] * 6)
    hits = (rng.random((6, len(recordings))) < rng.random((6, 1))).astype(float)  # draws differ much
    slow = []
    for _ in range(4000):
        draws, names = rng.integers(0, 6, 6), rng.integers(0, 12, 12)
        clips = np.concatenate([np.flatnonzero(recordings == name) for name in names])
        slow.append(hits[draws][:, clips].mean())
    low, high = mean_interval([hits], [recordings])
    np.testing.assert_allclose([low, high], np.quantile(slow, [0.025, 0.975]), atol=0.03)
    alone = mean_interval([hits.mean(axis=0)], [recordings])
    assert high - low > 1.5 * (alone[1] - alone[0])
    same = np.repeat(hits[:1], 6, axis=0)  # draws that do not matter leave the recordings' interval
    np.testing.assert_allclose(mean_interval([same], [recordings]), mean_interval([hits[0]], [recordings]))


def options(data, networks, out, **flags):
    flags = {"shots": (1, 2, 4), "draws": 3, "samples": 2, "precision": "float32", "device": "cpu", **flags}
    return EvaluateOptions(
        ckpt=networks.encoder,
        data=str(data.footage),
        protocol="fewshot",
        lists=str(data.lists),
        out=str(out),
        **flags,
    )


def test_from_clips_to_result_picture_and_comparison(data, networks, tmp_path):
    result = evaluate(options(data, networks, tmp_path / "one"))
    content = json.loads((tmp_path / "one" / "result.json").read_text())
    assert content["figures"] == [f"{way}@{n}" for n in (1, 2, 4) for way in ("centroid", "logistic")]
    assert content["chance_levels"]["centroid@1"] == 1 / 4
    assert content["settings"]["draws"] == 3 and content["settings"]["shots"] == [1, 2, 4]
    part = content["splits"]["01"]
    columns = result.predictions
    for name in content["figures"]:
        assert content[name] == pytest.approx(columns[name].mean()), "the mean over clips and draws"
        assert set(np.round(3 * columns[name]).tolist()) <= {0, 1, 2, 3}
        spread = part["over_draws"][name]
        assert spread["lowest"] <= content[name] <= spread["highest"]
        low, high = content["intervals"][name]
        assert low <= content[name] <= high
    # Four clips a class are all that there are: no draw differs from another.
    assert part["over_draws"]["centroid@4"]["sd"] == 0
    assert "nearest centroid, 2 a class" in result.text and part["reading"] in result.text
    assert (tmp_path / "one" / "fewshot-01.png").stat().st_size > 10_000
    again = evaluate(options(data, networks, tmp_path / "again"))
    assert again.metrics == result.metrics, "draws are a function of the seed"
    other = evaluate(options(data, networks, tmp_path / "other", seed=1))
    assert other.metrics["centroid@1"] != result.metrics["centroid@1"]
    both = compare(
        CompareOptions(
            runs=(str(tmp_path / "one"), str(tmp_path / "other")),
            names=("a", "b"),
            output=str(tmp_path / "c.png"),
        )
    )
    assert "logistic regression, 4 a class" in both.text and (tmp_path / "c.png").exists()


def test_numbers_of_clips_that_no_one_has(data, networks, tmp_path):
    result = evaluate(options(data, networks, tmp_path / "one", shots=(2, 50)))
    assert "centroid@2" in result.metrics and "centroid@50" not in result.metrics
    note = "50 a class: 4 of 4 classes have fewer training clips: Down (4), Left (4), Right (4), Up (4)"
    assert f"split 01: {note}; left out" in result.figures["notes"]
    with pytest.raises(OptionError, match="--shots; expected at least 1; found 0"):
        options(data, networks, tmp_path, shots=(1, 0))
    with pytest.raises(OptionError, match=r"--draws.*expected --protocol fewshot"):
        EvaluateOptions(ckpt="x", data="y", protocol="knn", draws=3)
