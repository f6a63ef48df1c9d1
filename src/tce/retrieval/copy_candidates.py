"""Which pieces of videos might be copies of one another: pieces whose frames' vectors are near.

Videos are cut into pieces of some frames. A piece is compared with every piece of every other video: the mean
over its frames of the highest similarity with a frame of the other. The nearest few are candidates, which
`pixel_match` decides on. The network's vectors find crops, small pictures everything else: a coarse
compression changes a network's vectors more than another take of the scene does. Both are reduced to
`DIMENSIONS` principal components, without which all frames of one network are alike.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from tce.progress import Progress

log = logging.getLogger("tce.index")

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DIMENSIONS = 96
SAMPLE = 20_000  # frames from which the principal components are computed
PIECE = 12  # frames at most
NEAREST = 6  # pieces of other videos that each piece is compared with
MOST_PRODUCTS = 2e10  # of vectors; above it only every n-th frame of a piece asks
_BLOCK_BYTES = 64 << 20  # of similarities at a time


def piece_starts(videos: Ints) -> Ints:
    """First rows of the pieces, int64 [P]; frames of a video are together in `videos` [N].

    A video is cut into equal pieces of at most `PIECE` frames.
    """
    begins = np.flatnonzero(np.append(True, videos[1:] != videos[:-1]))
    ends = np.append(begins[1:], len(videos))
    starts = [
        begin + np.arange(count) * (end - begin) // count
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        for count in [-(-(end - begin) // PIECE)]
    ]
    return np.concatenate(starts).astype(np.int64)


def reduce_vectors(vectors: Floats, other: Floats | None = None) -> tuple[Floats, Floats]:
    """Principal components of vectors [N, D], of length 1, float32 [N, d]; and of others by the same axes."""
    rows = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), SAMPLE)).astype(np.int64))
    sample = vectors[rows].astype(np.float64)
    mean = sample.mean(axis=0)
    values, axes = np.linalg.eigh((sample - mean).T @ (sample - mean))
    kept = axes[:, ::-1][:, : max(1, min(DIMENSIONS, int((values > 1e-9 * values.max()).sum())))]

    def reduced(those: Floats) -> Floats:
        found = (those - mean.astype(np.float32)) @ kept.astype(np.float32)
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9), np.float32)

    own = reduced(vectors)
    return own, own if other is None else reduced(other)


def candidate_pieces(
    vectors: Floats, videos: Ints, sides: Ints | None = None, other: Floats | None = None
) -> Ints:
    """Pairs of pieces of different videos that are near, each once.

    Args:
        vectors: float32 [N, D].
        videos: int64 [N], the video of each row; rows of one are together.
        sides: int64 [N]: with it, only pieces of different sides are compared.
        other: float32 [N, D], what the vectors are compared with in place of themselves: mirrored pictures.

    Returns:
        int64 [C, 2], numbers of pieces as `piece_starts` gives them; the first is the smaller.
    """
    starts = piece_starts(videos)
    owners = videos[starts]
    side = None if sides is None else sides[starts]
    asking, asked_of = reduce_vectors(vectors, other)
    step = max(1, int(np.ceil(len(vectors) ** 2 / MOST_PRODUCTS)))
    if step > 1:
        log.info("%d frames: every %d-th one looks for its like", len(vectors), step)
    ends = np.append(starts[1:], len(vectors))
    found: list[Ints] = []
    at_once = max(1, _BLOCK_BYTES // (4 * len(vectors) * PIECE))
    with Progress(len(starts), "comparing", "piece") as progress:
        for first in range(0, len(starts), at_once):
            pieces = np.arange(first, min(first + at_once, len(starts)))
            asked = [np.arange(starts[piece], ends[piece], step) for piece in pieces]
            similarity = asking[np.concatenate(asked)] @ asked_of.T
            highest = np.maximum.reduceat(similarity, starts, axis=1)  # [asked, P]
            bounds = np.append(0, np.cumsum([len(one) for one in asked]))[:-1]
            counts = np.array([len(one) for one in asked], np.float32)
            near = np.asarray(np.add.reduceat(highest, bounds, axis=0) / counts[:, None], np.float32)
            barred = owners[pieces][:, None] == owners
            if side is not None:
                barred |= side[pieces][:, None] == side
            near[barred] = -np.inf
            found.append(_nearest(near, pieces))
            progress.update(len(pieces))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _nearest(near: Floats, pieces: Ints) -> Ints:
    """The nearest pieces of each, as pairs [n, 2]."""
    count = min(NEAREST, near.shape[1])
    columns = np.argpartition(-near, count - 1, axis=1)[:, :count]
    rows = np.repeat(np.arange(len(near)), count)
    columns = columns.ravel()
    there = np.isfinite(near[rows, columns])
    return np.stack([pieces[rows[there]], columns[there]], axis=1)
