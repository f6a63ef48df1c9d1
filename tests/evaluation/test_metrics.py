import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tce.evaluation.metrics import (
    bootstrap_interval,
    chance_recall,
    confusion,
    mean_interval,
    per_class,
    top_k,
)


@given(arrays(np.float32, (6, 5), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])), st.integers(1, 5))
def test_top_k_equals_a_stable_sort(scores, k):
    labels = np.arange(6) % 5
    for clip, found in enumerate(top_k(scores, labels, k)):
        ranked = sorted(range(5), key=lambda c: (-scores[clip, c], c))
        assert found == (labels[clip] in ranked[:k])


def test_top_1_agrees_with_argmax_and_unproposed_classes_never_count():
    scores = np.array([[1, 1, 0], [-np.inf, 3, -np.inf], [np.nan, 0, 0]], "f4")
    labels = np.array([0, 0, 0])
    assert top_k(scores, labels, 1).tolist() == [True, False, False]
    assert top_k(scores, labels, 3).tolist() == [True, False, False]


def test_confusion_and_classes_without_clips():
    labels, predictions = np.array([0, 0, 2, 2]), np.array([0, 2, 2, 1])
    assert confusion(labels, predictions, 3).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 1]]
    clips, share = per_class(labels, labels == predictions, 3)
    assert clips.tolist() == [2, 0, 2] and share[0] == share[2] == 0.5 and math.isnan(share[1])


def test_interval_is_over_recordings_not_clips():
    # Two recordings, one all right and one all wrong: however many clips, next to nothing is known.
    values, recordings = [1] * 500 + [0] * 500, ["a"] * 500 + ["b"] * 500
    assert bootstrap_interval(values, recordings) == (0.0, 1.0)
    low, high = bootstrap_interval(values, np.arange(1000))
    assert 0.46 < low < 0.48 and 0.52 < high < 0.54


def test_interval_approaches_the_normal_one():
    values = np.random.default_rng(0).normal(3, 2, size=4000)
    low, high = bootstrap_interval(values, np.arange(4000))
    half = 1.96 * values.std() / math.sqrt(4000)
    assert low == pytest.approx(values.mean() - half, abs=half / 8)
    assert high == pytest.approx(values.mean() + half, abs=half / 8)


def test_one_recording_has_no_interval():
    assert bootstrap_interval([1, 0, 1], ["a"] * 3) is None
    assert mean_interval([[1, 0]], [["a", "a"]]) is None


def test_pairing_takes_the_clips_difficulty_out():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=200)
    first, second = difficulty, difficulty + 0.1 + rng.normal(scale=0.01, size=200)
    interval = bootstrap_interval(second - first, np.arange(200))
    assert 0.09 < interval[0] < interval[1] < 0.11


def test_mean_over_splits_draws_a_recording_into_all_of_them():
    # The same clips in both splits: the mean says no more than one split does.
    values, recordings = np.random.default_rng(0).integers(0, 2, 300), np.arange(300)
    assert mean_interval([values, values], [recordings, recordings]) == pytest.approx(
        bootstrap_interval(values, recordings), abs=1e-9
    )
    apart = mean_interval([values, values], [recordings, recordings + 300])
    width = apart[1] - apart[0]
    single = bootstrap_interval(values, recordings)
    assert width == pytest.approx((single[1] - single[0]) / math.sqrt(2), rel=0.1)


def test_chance_of_recall_equals_random_orders():
    labels, queries = np.array([0] * 6 + [1] * 3 + [2]), np.array([0, 1, 1, 3])
    rng = np.random.default_rng(0)
    for k in (1, 3, 9):
        orders = [rng.permutation(labels)[:k] for _ in range(4000)]
        found = np.mean([[query in order for query in queries] for order in orders])
        assert chance_recall(queries, labels, k) == pytest.approx(found, abs=0.02)
    assert chance_recall(np.array([0]), labels, 5) == 1, "5 of 10 with 6 of the class cannot all miss"
