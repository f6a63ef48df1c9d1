"""Where frames lie, which are near each other, and their clusters, against slow oracles."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from tce.errors import TceError
from tce.explorer import map_layout
from tce.explorer.map_layout import cluster, lay_out, nearest_frames, reduce


def groups(n: int, count: int = 4, dim: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % count
    return (rng.normal(size=(count, dim))[label] * 6 + rng.normal(size=(n, dim))).astype(np.float32), label


def same_label(points: np.ndarray, label: np.ndarray) -> float:
    """Share of the points whose nearest other point has their label."""
    _, near = NearestNeighbors(n_neighbors=2).fit(points).kneighbors(points)
    return float(np.mean(label[near[:, 1]] == label))


def test_the_map_keeps_groups_together_and_fills_its_square() -> None:
    vectors, label = groups(200)
    points = lay_out(reduce(vectors), seed=1)
    assert points.min() >= 0 and points.max() <= 1
    assert np.ptp(points[:, 0]) == pytest.approx(1, abs=1e-5)
    assert np.ptp(points[:, 0]) >= np.ptp(points[:, 1]) * 0.8
    assert same_label(points, label) > 0.98
    assert np.array_equal(points, lay_out(reduce(vectors), seed=1))


def test_frames_beyond_the_fitted_ones_are_placed_among_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_layout, "MOST_FITTED", 200)
    vectors, label = groups(500)
    points = lay_out(reduce(vectors), seed=1)
    assert same_label(points, label) > 0.95
    assert np.array_equal(points, lay_out(reduce(vectors), seed=1))


@pytest.mark.parametrize("several", [True, False])
def test_nearest_frames_are_exact_and_of_other_moments(several: bool) -> None:
    vectors, _ = groups(90)
    video = np.repeat(np.arange(9), 10) if several else np.zeros(90, np.int64)
    found = nearest_frames(vectors, video, 5)
    for row in range(90):
        distance = ((vectors - vectors[row]) ** 2).sum(axis=1)
        near = video == video[row] if several else np.abs(np.arange(90) - row) <= 1
        distance[near] = np.inf
        assert found[row].tolist() == np.argsort(distance)[:5].tolist()


def test_where_there_are_too_few_neighbours_the_rest_is_marked() -> None:
    vectors, _ = groups(5)
    found = nearest_frames(vectors, np.array([0, 0, 0, 0, 1]), 8)
    assert found.shape == (5, 8)
    assert found[0].tolist() == [4] + [-1] * 7
    assert sorted(found[4].tolist()) == [-1] * 4 + [0, 1, 2, 3]


def test_a_part_is_searched_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_layout, "MOST_SEARCHED", 30)
    vectors, _ = groups(90)
    found = nearest_frames(vectors, np.arange(90), 3)
    assert len(np.unique(found)) <= 30 and found.min() >= 0


def test_clusters_are_the_groups_largest_first() -> None:
    vectors, label = groups(300, count=3)
    kept = (label != 2) | (np.arange(300) < 150)  # half of the third group
    vectors, label = vectors[kept], label[kept]
    found = cluster(vectors, 3)
    assert all(len(np.unique(found[label == one])) == 1 for one in range(3))
    assert np.all(np.diff(np.bincount(found)) <= 0)
    assert found[label == 2][0] == 2


def test_too_few_or_equal_frames_have_no_map() -> None:
    with pytest.raises(TceError, match="3 frames or more; found 2"):
        reduce(np.eye(2))
    with pytest.raises(TceError, match="5 equal embeddings"):
        reduce(np.ones((5, 4)))
