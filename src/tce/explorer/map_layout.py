"""Where the frames lie on the map, which are near each other, and their clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError
from tce.visualize.reduce import PERPLEXITY, fit_pca, fit_tsne

COMPONENTS = 50  # of PCA, before t-SNE and the search for neighbours
MOST_FITTED = 10_000  # frames that t-SNE lays out; the others are placed on their map
PLACE_PERPLEXITY = 5  # openTSNE's advice for placing points on a map
MOST_SEARCHED = 10_000  # frames among which neighbours are searched
BLOCK = 1024  # frames whose similarities to all searched ones are in memory at a time

Floats = NDArray[np.floating[Any]]


def reduce(vectors: Floats) -> NDArray[np.float32]:
    """Embeddings [N, D] by PCA to at most 50 dimensions, float32.

    Raises:
        TceError: fewer than three frames, or all of them equal.
    """
    if len(vectors) < 3:
        raise TceError("a map", "3 frames or more", str(len(vectors)), "give more footage or a higher --fps")
    if np.ptp(vectors, axis=0).max() == 0:
        raise TceError(
            "a map", "frames that differ", f"{len(vectors)} equal embeddings", "give other footage or --ckpt"
        )
    return fit_pca(vectors, num_dims=min(COMPONENTS, *vectors.shape)).astype(np.float32)


def lay_out(
    reduced: NDArray[np.float32],
    seed: int = 0,
    perplexity: float | None = None,
    callback: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Positions [N, 2] on a t-SNE map, both coordinates within 0 and 1, the longer axis across.

    Above `MOST_FITTED` frames a random part of that size is laid out and the others are placed on its map,
    so that the time grows with the number of frames. The same seed gives the same map.

    Args:
        reduced: of `reduce`.
        seed: decides the map.
        perplexity: effective number of neighbours; None: 30, fewer for less than 91 frames.
        callback: as for `tce.fit_tsne`.
    """
    fitted = np.arange(len(reduced))
    if len(reduced) > MOST_FITTED:
        fitted = np.sort(np.random.default_rng(seed).choice(len(reduced), MOST_FITTED, replace=False))
    fit = fit_tsne(reduced[fitted], pca=False, seed=seed, perplexity=perplexity, callback=callback)
    part = np.asarray(fit, np.float64)
    points = np.empty((len(reduced), 2))
    points[fitted] = part
    if len(fitted) < len(reduced):
        others = np.setdiff1d(np.arange(len(reduced)), fitted)
        points[others] = _place(reduced[others], reduced[fitted], part, seed)
    points = np.asarray(fit_pca(points, num_dims=2))  # the longer axis across, as screens are
    low, high = points.min(axis=0), points.max(axis=0)
    return (0.5 + (points - (low + high) / 2) / max((high - low).max(), 1e-12)).clip(0, 1).astype(np.float32)


def _place(
    new: NDArray[np.float32], fitted: NDArray[np.float32], points: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """Places [n, 2] of new frames on the map of the fitted ones, which stay where they are."""
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    state = seed % 2**32
    affinities = PerplexityBasedNN(fitted.astype(np.float64), PERPLEXITY, n_jobs=1, random_state=state)
    tsne_map = TSNEEmbedding(points, affinities, random_state=state, negative_gradient_method="fft")
    return np.array(tsne_map.transform(new.astype(np.float64), perplexity=PLACE_PERPLEXITY, n_iter=100))


def nearest_frames(
    reduced: NDArray[np.float32], video: NDArray[np.int64], count: int, seed: int = 0
) -> NDArray[np.int32]:
    """The nearest frames of each frame, int32 [N, count], nearest first; -1 where there are no more.

    Frames of other videos where there are several, since the frames beside it are nearest to any frame; of
    one video, frames that do not touch it in time. Above `MOST_SEARCHED` frames a random part of that size is
    searched.

    Args:
        reduced: of `reduce`.
        video: [N], number of each frame's video, rising.
        count: how many.
        seed: decides the part that is searched.
    """
    total = len(reduced)
    searched = np.arange(total)
    if total > MOST_SEARCHED:
        searched = np.sort(np.random.default_rng(seed).choice(total, MOST_SEARCHED, replace=False))
    found = np.full((total, count), -1, np.int32)
    if count == 0:
        return found
    several, owners = video[0] != video[-1], video[searched]
    keys, squares = reduced[searched], (reduced[searched] ** 2).sum(axis=1)
    take = min(count, len(searched))
    for begin in range(0, total, BLOCK):
        rows = np.arange(begin, min(total, begin + BLOCK))
        distance = squares[None] - 2 * reduced[rows] @ keys.T  # [rows, searched], less the rows' own squares
        if several:
            first, stop = (np.searchsorted(owners, video[rows], side) for side in ("left", "right"))
            for row, (low, high) in enumerate(zip(first.tolist(), stop.tolist())):
                distance[row, low:high] = np.inf
        else:
            distance[np.abs(rows[:, None] - searched[None]) <= 1] = np.inf
        near = np.argpartition(distance, take - 1, axis=1)[:, :take]
        order = np.take_along_axis(distance, near, axis=1)
        near = np.take_along_axis(near, np.argsort(order, axis=1, kind="stable"), axis=1)
        real = np.isfinite(np.take_along_axis(distance, near, axis=1))
        found[rows, :take] = np.where(real, searched[near], -1)
    return found


def cluster(reduced: NDArray[np.float32], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Clusters of k-means, [N], numbered by falling size."""
    from sklearn.cluster import MiniBatchKMeans

    distinct = min(count, len(np.unique(reduced[:10_000], axis=0)))
    model = MiniBatchKMeans(distinct, random_state=seed % 2**32, n_init=3, batch_size=4096)
    numbers = model.fit_predict(reduced)
    rank = np.argsort(np.argsort(-np.bincount(numbers, minlength=distinct), kind="stable"), kind="stable")
    return rank[numbers]
