import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tce.errors import TceError
from tce.evaluation import probes
from tce.evaluation.fewshot import logistic_scores
from tce.evaluation.probes import (
    DEFAULT_PENALTY,
    center_and_scale,
    fit_linear,
    knn_scores,
    nearest,
    retrieve,
    unit_rows,
)


def blobs(seed, per_class=40, classes=4, dim=8, noise=0.8):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    labels = np.repeat(np.arange(classes), per_class)
    return (centres[labels] + noise * rng.normal(size=(len(labels), dim))).astype("f4"), labels


def test_knn_votes_as_written_out():
    rows, labels = blobs(0, per_class=10)
    queries, _ = blobs(1, per_class=3)
    rows, queries = unit_rows(rows), unit_rows(queries)
    scores = knn_scores(queries, rows, labels, 5, k=7, temperature=0.1)
    assert scores.shape == (12, 5)
    for q, query in enumerate(queries):
        near = sorted(((float(query @ row), label) for row, label in zip(rows, labels)), reverse=True)[:7]
        votes = {}
        for similarity, label in near:
            votes[label] = votes.get(label, 0) + np.exp((similarity - near[0][0]) / 0.1)
        for label in range(4):
            similar = np.mean([float(query @ row) for row, own in zip(rows, labels) if own == label])
            expected = votes.get(label, similar - 2)  # without a vote: behind all, by mean similarity
            assert scores[q, label] == pytest.approx(expected, rel=1e-4)
        assert scores[q, 4] == -np.inf, "a class without training clips is never named"


def test_knn_survives_a_tiny_temperature_and_few_rows():
    rows, labels = blobs(0, per_class=2)
    scores = knn_scores(unit_rows(rows), unit_rows(rows), labels, 4, k=500, temperature=1e-4)
    assert (scores.argmax(axis=1) == labels).all()


def test_linear_probe_finds_the_optimum_of_scikit_learn():
    features, labels = blobs(0)
    stretch = np.array([5, 1, 1, 1, 0.2, 1, 1, 1], "f4")  # stays: all dimensions get one factor
    features, test = features * stretch + 5, blobs(1)[0] * stretch + 5
    probe = fit_linear(features, labels, np.arange(len(labels)).astype(str), 4, penalty=1e-2)
    centred = features - features.mean(axis=0)
    scale = np.sqrt((centred.astype("f8") ** 2).mean())
    oracle = LogisticRegression(C=1 / (2 * 1e-2 * len(labels)), tol=1e-8, max_iter=5000)
    oracle.fit(centred / scale, labels)
    expected = oracle.predict_log_proba((test - features.mean(axis=0)) / scale)
    logits = probe.scores(test).astype("f8")
    found = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=5e-3)


def of_two_people(seed, dims=300, noise=0.02):
    """Two people's clips: 8 strong directions tell the class, many weak ones only the person's recording."""
    sides = []
    for person in (0, 1):
        strong, labels = blobs(seed + person, noise=0.4)
        offset = np.random.default_rng([seed, person]).normal(size=(4, dims))  # one recording a class
        wobble = 0.3 * np.random.default_rng([seed, person, 1]).normal(size=(len(labels), dims))
        sides.append((np.hstack([strong, noise * (offset[labels] + wobble)]).astype("f4"), labels))
    return sides


def test_weak_dimensions_that_tell_the_recording_do_not_rule_the_probes():
    (train, labels), (test, own) = of_two_people(3)
    groups = ["one person"] * len(labels)
    deviations = train.std(axis=0)

    def accuracy(scores):
        return (scores.argmax(axis=1) == own).mean()

    probe = fit_linear(train, labels, groups, 4)
    assert accuracy(probe.scores(test)) > 0.95
    standardised = fit_linear(train / deviations, labels, groups, 4)
    assert accuracy(standardised.scores(test / deviations)) < 0.7, "the case is one that fails that way"
    mean, scale = center_and_scale(train)
    few = np.concatenate([np.flatnonzero(labels == label)[:2] for label in range(4)])
    rows, queries = (scale * (side - mean) for side in (train, test))
    assert accuracy(logistic_scores(queries, rows[few], labels[few], 4, DEFAULT_PENALTY, "cpu")) > 0.9


def test_linear_probe_does_not_depend_on_scale_shift_or_rotation():
    features, labels = blobs(0)
    test, _ = blobs(1)
    groups = np.arange(len(labels)).astype(str)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0].astype("f4")
    plain = fit_linear(features, labels, groups, 4, penalty=1e-2).scores(test)
    moved = fit_linear(700 * features @ turn + 3, labels, groups, 4, penalty=1e-2)
    np.testing.assert_allclose(moved.scores(700 * test @ turn + 3), plain, atol=2e-2)


def test_penalty_is_chosen_on_recordings_or_not_at_all():
    features, labels = blobs(0, noise=3.0)
    one_each = np.array([f"class{label}" for label in labels])
    assert fit_linear(features, labels, one_each, 4).chosen_on.startswith(
        "default, as there are too few groups"
    )
    many = np.array([f"{label}-{i % 5}" for i, label in enumerate(labels)])
    probe = fit_linear(features, labels, many, 4)
    assert probe.chosen_on == "chosen on held-out groups"
    again = fit_linear(features, labels, many, 4)
    np.testing.assert_array_equal(probe.weight, again.weight)


def test_probe_of_a_class_without_training_clips_and_constant_features():
    features, labels = blobs(0, classes=3)
    features[:, 0] = 7
    probe = fit_linear(features, labels, np.arange(len(labels)).astype(str), 5, penalty=1e-3)
    assert np.isfinite(probe.scores(features)).all()
    assert (probe.scores(features).argmax(axis=1) == labels).mean() > 0.8


def test_recall_as_counted_by_hand():
    rows = unit_rows(np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0]], "f4"))
    labels = np.array([0, 1, 1, 2])
    queries = unit_rows(np.array([[1, 0.01], [0.1, 1], [1, 0]], "f4"))
    got = retrieve(queries, np.array([1, 1, 2]), rows, labels, at=(1, 2, 10))
    assert got.index.tolist() == [[0, 1, 2, 3], [2, 1, 0, 3], [0, 1, 2, 3]]
    assert got.recall == {1: pytest.approx(1 / 3), 2: pytest.approx(2 / 3)}, "10 of 4 rows say nothing"


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(probes, "BLOCK_QUERIES", 7)
    monkeypatch.setattr(probes, "BLOCK_ROWS", 100)


@pytest.mark.parametrize("k", [1, 5, 130])
@pytest.mark.parametrize("order", ["random", "rising", "falling"])
def test_equals_sorting_everything(small_blocks, k, order):
    rng = np.random.default_rng(0)
    queries, rows = rng.normal(size=(23, 16)).astype("f4"), rng.normal(size=(1033, 16)).astype("f4")
    if order != "random":  # every block beats the last, or none does
        rows = rows[np.argsort(rows @ queries[0] * (1 if order == "rising" else -1))]
    similarity, index = nearest(queries, rows, k)
    for q in range(len(queries)):
        exact = [float(np.dot(queries[q].astype("f8"), row)) for row in rows]
        best = sorted(range(len(rows)), key=lambda i: -exact[i])[:k]
        assert index[q].tolist() == best
        np.testing.assert_allclose(similarity[q], [exact[i] for i in best], rtol=1e-5, atol=1e-5)


def test_equal_and_negative_similarities(small_blocks):
    rows = np.repeat(np.array([[-1.0, 0], [-2, 0], [-0.5, 0]], "f4"), 150, axis=0)
    similarity, index = nearest(np.array([[1, 0]], "f4"), rows, 160)
    np.testing.assert_array_equal(similarity[0], [-0.5] * 150 + [-1.0] * 10)
    assert len(set(index[0].tolist())) == 160


def test_reads_a_memory_map_and_halves(tmp_path):
    rows = np.lib.format.open_memmap(tmp_path / "rows.npy", mode="w+", dtype="f2", shape=(300, 4))
    rows[:] = np.random.default_rng(0).normal(size=rows.shape)
    _, index = nearest(torch.as_tensor(np.array(rows[5:6], "f4")) * 100, rows, 3)
    assert index.shape == (1, 3)
    _, whole = nearest(np.array(rows[5:6], "f4"), np.array(rows, "f4"), 3)
    np.testing.assert_array_equal(index, whole)


@pytest.mark.parametrize("k", [0, 4])
def test_refuses_an_impossible_k(k):
    with pytest.raises(TceError, match="k between 1 and the 3 rows"):
        nearest(np.ones((2, 2), "f4"), np.ones((3, 2), "f4"), k)


def test_refuses_other_dimensions():
    with pytest.raises(TceError, match="one dimension"):
        nearest(np.ones((2, 2), "f4"), np.ones((3, 4), "f4"), 1)
