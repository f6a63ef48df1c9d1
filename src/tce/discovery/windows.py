"""Windows of embeddings: what is seen around each frame, and how it changes there.

A window is described by three blocks: the mean of its frames, the mean of its second half less that of its
first half (the direction of change), and the standard deviation of each direction (the amount of change,
whatever its phase: a repeated motion keeps it constant). Sums run along the video, so that time and memory
are linear in its frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError

Floats = NDArray[np.floating[Any]]
Vectors = NDArray[np.float32]

MOST_FRAME_DIRECTIONS = 24  # of the frames' principal components
MOST_WINDOW_DIRECTIONS = 16  # of the windows'
MOST_FITTED = 50_000  # frames or windows that a fit looks at; the others are projected
MOST_LAGS = 5_000  # frames over which autocorrelation is summed
LEAST_CORRELATION = 0.05
BLOCK_ROWS = 50_000  # frames that are projected at a time


@dataclass(frozen=True)
class WindowSpace:
    """From embeddings to descriptions of windows, fitted once and then kept.

    Attributes:
        seconds: length of a window.
        frame_mean: [D], subtracted from embeddings.
        frame_basis: [D, d], the frames' principal directions.
        scale: [3 d], divides the three blocks of a window's description.
        window_mean: [3 d], subtracted from the scaled description.
        window_basis: [3 d, w], the windows' principal directions.
    """

    seconds: float
    frame_mean: NDArray[np.float64]
    frame_basis: NDArray[np.float64]
    scale: NDArray[np.float64]
    window_mean: NDArray[np.float64]
    window_basis: NDArray[np.float64]

    def describe(self, vectors: Floats, spans: Sequence[slice], rates: Sequence[float]) -> Vectors:
        """Descriptions of the windows around all frames.

        Args:
            vectors: [N, D] embeddings.
            spans: the rows of each video.
            rates: frames a second of each video.

        Returns:
            float32 [N, w].
        """
        found = np.empty((len(vectors), self.window_basis.shape[1]), np.float32)
        reduced = _project(vectors, self.frame_mean, self.frame_basis)
        for rows, rate in zip(spans, rates, strict=True):
            blocks = window_blocks(reduced[rows], half_width(self.seconds, rate))
            found[rows] = (blocks / self.scale - self.window_mean) @ self.window_basis
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `of` takes, for a file."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def of(cls, arrays: dict[str, NDArray[Any]]) -> WindowSpace:
        """The space out of what `arrays` gave."""
        known: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls)}
        return cls(**(known | {"seconds": float(arrays["seconds"])}))


def half_width(seconds: float, rate: float) -> int:
    """Frames on each side of a window's middle one; at least one."""
    return max(1, round(seconds * rate / 2))


def fit_windows(
    vectors: Floats,
    spans: Sequence[slice],
    rates: Sequence[float],
    seconds: float,
    change: float,
    seed: int = 0,
) -> tuple[WindowSpace, Vectors]:
    """Fit the directions of frames and of windows.

    Args:
        vectors: [N, D] embeddings.
        spans: the rows of each video.
        rates: frames a second of each video.
        seconds: length of a window.
        change: weight of the two blocks that describe change, against 1 for the mean.
        seed: which frames and windows are looked at, where there are more than `MOST_FITTED`.

    Returns:
        the space, and the descriptions float32 [N, w].

    Raises:
        TceError: all frames are equal.
    """
    fitted = _some_rows(len(vectors), seed)
    sample = np.asarray(vectors[fitted], np.float64)
    frame_mean = sample.mean(axis=0)
    if np.abs(sample - frame_mean).max() < 1e-6:
        raise TceError(
            "behaviours",
            "frames that differ",
            f"{len(vectors)} equal embeddings",
            "give other footage or --ckpt",
        )
    frame_basis = _principal(sample - frame_mean, MOST_FRAME_DIRECTIONS)
    reduced = _project(vectors, frame_mean, frame_basis)
    size = frame_basis.shape[1]
    blocks = np.empty((len(vectors), 3 * size), np.float32)
    for rows, rate in zip(spans, rates, strict=True):
        blocks[rows] = window_blocks(reduced[rows], half_width(seconds, rate))
    sample = np.asarray(blocks[fitted], np.float64)
    scale = np.concatenate(
        [
            np.full(size, _length(sample[:, part]) / weight if weight else np.inf)
            for part, weight in zip(_parts(size), (1.0, change, change), strict=True)
        ]
    )
    sample /= scale
    window_mean = sample.mean(axis=0)
    window_basis = _principal(sample - window_mean, MOST_WINDOW_DIRECTIONS)
    space = WindowSpace(seconds, frame_mean, frame_basis, scale, window_mean, window_basis)
    for first in range(0, len(blocks), BLOCK_ROWS):
        part = slice(first, first + BLOCK_ROWS)
        blocks[part, : window_basis.shape[1]] = (blocks[part] / scale - window_mean) @ window_basis
    return space, np.ascontiguousarray(blocks[:, : window_basis.shape[1]])


def _length(block: NDArray[np.float64]) -> float:
    """The root of a block's total variance."""
    return max(float(np.sqrt(block.var(axis=0).sum())), 1e-9)


def _parts(size: int) -> list[slice]:
    return [slice(place * size, (place + 1) * size) for place in range(3)]


def _some_rows(count: int, seed: int) -> NDArray[np.int64]:
    if count <= MOST_FITTED:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, MOST_FITTED, replace=False))


def _principal(centred: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Principal directions [D, d] of centred rows, largest variance first, without those that have none."""
    values, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    order = np.argsort(values)[::-1][:most]
    kept = order[values[order] > max(float(values.max()), 1e-12) * 1e-9]
    chosen = directions[:, kept]
    # The sign is the solver's whim: the largest entry of each direction is made positive.
    return np.asarray(chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(len(kept))]))


def _project(vectors: Floats, mean: NDArray[np.float64], basis: NDArray[np.float64]) -> Vectors:
    found = np.empty((len(vectors), basis.shape[1]), np.float32)
    small, offset = basis.astype(np.float32), (mean @ basis).astype(np.float32)
    for first in range(0, len(vectors), BLOCK_ROWS):
        part = slice(first, first + BLOCK_ROWS)
        found[part] = np.asarray(vectors[part], np.float32) @ small - offset
    return found


def window_blocks(reduced: Floats, half: int) -> NDArray[np.float64]:
    """Mean, change and spread around each frame of one video.

    Args:
        reduced: [n, d], n at least 1.
        half: frames on each side of a window's middle one; windows are cut at the video's ends.

    Returns:
        float64 [n, 3 d].
    """
    count = len(reduced)
    centred = np.asarray(reduced, np.float64)
    sums = np.concatenate([np.zeros((1, centred.shape[1])), np.cumsum(centred, axis=0)])
    squares = np.concatenate([np.zeros((1, centred.shape[1])), np.cumsum(centred**2, axis=0)])
    middle = np.arange(count)
    low, high = np.maximum(middle - half, 0), np.minimum(middle + half + 1, count)

    def mean(
        of: NDArray[np.float64], first: NDArray[np.int64], stop: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        return np.asarray((of[stop] - of[first]) / np.maximum(stop - first, 1)[:, None])

    whole = mean(sums, low, high)
    spread = np.sqrt(np.maximum(mean(squares, low, high) - whole**2, 0))
    change = mean(sums, middle, high) - mean(sums, low, middle + 1)  # both halves hold the middle frame
    return np.concatenate([whole, change, spread], axis=1)


def correlation_frames(windows: Floats, spans: Sequence[slice], overlap: float) -> float:
    """Frames after which windows count as independent: the integrated autocorrelation time within videos.

    Neighbouring windows share frames, and behaviours last: a criterion that takes every window for a new
    observation finds far too many clusters.

    Args:
        windows: [N, w].
        spans: the rows of each video.
        overlap: frames a window, the least value returned.
    """
    longest = max(rows.stop - rows.start for rows in spans)
    lags = np.zeros(min(longest, MOST_LAGS))
    counts = np.zeros(len(lags))
    for rows in spans:
        part = np.asarray(windows[rows], np.float64)
        part = part - part.mean(axis=0)
        own = min(len(part), len(lags))
        size = 1 << (2 * len(part) - 1).bit_length()
        for column in part.T:
            spectrum = np.fft.rfft(column, size)
            lags[:own] += np.fft.irfft(np.abs(spectrum) ** 2, size)[:own]
        counts[:own] += len(part) - np.arange(own)
    if lags[0] <= 0:
        return overlap
    decay = (lags / np.maximum(counts, 1)) / (lags[0] / counts[0])
    ends = np.flatnonzero(decay < LEAST_CORRELATION)
    return max(overlap, float(2 * decay[: ends[0] if len(ends) else len(decay)].sum() - 1))
