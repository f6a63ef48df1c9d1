"""Smooth segments: the best way through cluster scores with a price of change and a shortest duration.

It is Viterbi's algorithm for a hidden Markov model whose states are left with equal probability for every
other state, extended by a shortest stay: the best way that ends at frame t in cluster k either goes on with
k, or began k `shortest` frames ago after the best way that ended there in another cluster. Both are known,
so that time is linear in frames and clusters.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOOR = 0.02  # share of a window's probability that belongs to all clusters alike: bounds what one can say


@dataclass(frozen=True)
class Segment:
    """A stretch of one video in one cluster.

    Attributes:
        first: its first frame's position in the video.
        stop: the position after its last frame.
        cluster: number.
        confidence: mean probability of the cluster over its windows, from 0 to 1.
    """

    first: int
    stop: int
    cluster: int
    confidence: float


def frame_scores(probabilities: NDArray[np.floating[Any]], overlap: float) -> NDArray[np.float64]:
    """What each frame says for each cluster, [n, K].

    Args:
        probabilities: [n, K] of the window around each frame.
        overlap: frames a window; neighbouring windows share them, so each counts for its share only.
    """
    clusters = probabilities.shape[1]
    return np.log((1 - FLOOR) * np.asarray(probabilities, np.float64) + FLOOR / clusters) / max(overlap, 1.0)


def best_path(scores: NDArray[np.float64], price: float, shortest: int) -> NDArray[np.int64]:
    """The sequence of clusters with the highest sum of scores less the price of its changes.

    Args:
        scores: [n, K], n at least 1.
        price: of a change of cluster.
        shortest: frames of a stay at least; a shorter video has one cluster throughout.

    Returns:
        int64 [n].
    """
    count, clusters = scores.shape
    sums = np.concatenate([np.zeros((1, clusters)), np.cumsum(scores, axis=0)])  # [n + 1, K]
    shortest = max(1, shortest)
    if clusters == 1 or count < 2 * shortest:
        return np.full(count, int(sums[-1].argmax()), np.int64)
    best = np.full((count + 1, clusters), -np.inf)  # best[t]: of the first t frames, by their last cluster
    origin = np.full((count + 1, clusters), -1, np.int32)  # the cluster before a stay that began here
    best[shortest] = sums[shortest]
    numbers = np.arange(clusters)
    for end in range(shortest + 1, count + 1):
        best[end] = best[end - 1] + scores[end - 1]
        before = best[end - shortest]
        if end < 2 * shortest:
            continue
        first = int(before.argmax())
        others = before.copy()
        others[first] = -np.inf
        second = int(others.argmax())
        source = np.where(numbers == first, second, first)
        began = before[source] - price + sums[end] - sums[end - shortest]
        better = began > best[end]
        best[end, better] = began[better]
        origin[end, better] = source[better]
    path = np.empty(count, np.int64)
    end, cluster = count, int(best[count].argmax())
    while end > 0:
        if origin[end, cluster] < 0:
            path[end - 1] = cluster
            end -= 1
        else:
            path[end - shortest : end] = cluster
            end, cluster = end - shortest, int(origin[end, cluster])
    return path


def segments_of(path: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> list[Segment]:
    """The stretches of equal clusters in one video.

    Args:
        path: int64 [n].
        probabilities: [n, K].
    """
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    return [
        Segment(first, stop, int(path[first]), float(probabilities[first:stop, path[first]].mean()))
        for first, stop in itertools.pairwise(edges)
    ]


def change_price(bout: float, clusters: int) -> float:
    """The price of a change in a hidden Markov model whose stays last `bout` frames on average."""
    stay = max(1e-9, 1 - 1 / max(bout, 1.001))
    return float(np.log(stay) - np.log((1 - stay) / max(1, clusters - 1)))
