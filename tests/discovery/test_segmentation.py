"""The best path against an exhaustive search, and the price of changes in closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tce.discovery.segmentation import best_path, change_price, frame_scores, segments_of


def runs(path: tuple[int, ...]) -> list[int]:
    return [len(list(group)) for _, group in itertools.groupby(path)]


def value(path: tuple[int, ...], scores: np.ndarray, price: float) -> float:
    changes = sum(one != two for one, two in itertools.pairwise(path))
    return sum(scores[row, cluster] for row, cluster in enumerate(path)) - price * changes


@pytest.mark.parametrize("count", [1, 4, 7, 9])
@pytest.mark.parametrize("shortest", [1, 2, 3])
@pytest.mark.parametrize("clusters", [1, 2, 3])
def test_no_sequence_is_better(count: int, shortest: int, clusters: int) -> None:
    rng = np.random.default_rng([count, shortest, clusters])
    for price in (0.0, 0.7, 3.0):
        scores = rng.normal(size=(count, clusters))
        allowed = [
            path
            for path in itertools.product(range(clusters), repeat=count)
            if len(runs(path)) == 1 or min(runs(path)) >= shortest
        ]
        found = tuple(best_path(scores, price, shortest).tolist())
        assert found in allowed
        best = max(value(path, scores, price) for path in allowed)
        assert value(found, scores, price) == pytest.approx(best)


def test_a_free_path_takes_every_frames_best_cluster() -> None:
    scores = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_array_equal(best_path(scores, 0.0, 1), scores.argmax(axis=1))


def test_the_price_is_the_difference_of_two_log_probabilities() -> None:
    # A stay of 10 frames on average is left with probability 1/10, for each of 4 others with 1/40.
    assert change_price(10, 5) == pytest.approx(math.log(0.9) - math.log(0.1 / 4))


def test_scores_are_bounded_and_shared_by_overlapping_windows() -> None:
    scores = frame_scores(np.array([[1.0, 0.0], [0.5, 0.5]]), 10)
    assert scores[0].tolist() == pytest.approx([math.log(0.99) / 10, math.log(0.01) / 10])
    assert scores[1, 0] == scores[1, 1] == pytest.approx(math.log(0.5) / 10)


def test_segments_cover_the_video_with_their_mean_probability() -> None:
    path = np.array([1, 1, 0, 0, 0, 1])
    probabilities = np.array([[0.2, 0.8], [0.4, 0.6], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.0, 1.0]])
    found = segments_of(path, probabilities)
    assert [(one.first, one.stop, one.cluster) for one in found] == [(0, 2, 1), (2, 5, 0), (5, 6, 1)]
    assert [one.confidence for one in found] == pytest.approx([0.7, 0.7, 1.0])
