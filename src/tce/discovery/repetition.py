"""Repeated motion out of self-similarity: its period over time, and a count.

A motion that repeats itself after P frames makes frames t and t + P alike. For every lag the squared distance
of such pairs is averaged around t and compared with that of all pairs around t: 1 where each repetition
equals the one before, 0 where it is like any other moment. The period is the shortest lag with a peak nearly
as high as the best one (a multiple of the period is a peak as well), smoothed over time by Viterbi's
algorithm. The count is the sum over time of 1 / period, where the peak is high enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEARLY = 0.8  # a shorter lag's peak counts from this share of the best one on
DIRECTIONS = 12  # principal components that are compared
TREND_PERIODS = 1.5  # of the longest period: a slower drift is subtracted
JUMP = 4.0  # price of a doubled period from one frame to the next, against 1 for a full peak
PERIODS_AVERAGED = 1.0  # on each side, over which distances of a lag are averaged


@dataclass(frozen=True)
class Repetition:
    """Repetition of one video.

    Attributes:
        period: float64 [n], frames; NaN where nothing repeats.
        confidence: float64 [n], correlation of one repetition with the next, at most 1.
        count: float64 [n], repetitions up to each frame.
        similarity: float64 [n, L], the same for every lag.
        lags: int64 [L], frames.
    """

    period: Floats
    confidence: Floats
    count: Floats
    similarity: Floats
    lags: NDArray[np.int64]

    @property
    def total(self) -> float:
        """Repetitions of the whole video."""
        return float(self.count[-1])


def find_repetition(
    vectors: NDArray[np.floating[Any]], shortest: int, longest: int, threshold: float
) -> Repetition:
    """Find repeated motion.

    Args:
        vectors: [n, D], one a frame at a constant rate.
        shortest: frames of the shortest period, at least 2.
        longest: frames of the longest; at most n / 2.
        threshold: least correlation at which repetitions are counted.
    """
    rows = _flattened(np.asarray(vectors, np.float64), round(TREND_PERIODS * longest))
    lags = np.arange(max(1, shortest // 2), longest + 2)
    similarity = np.stack([_lag_similarity(rows, int(lag)) for lag in lags], axis=1)
    period, confidence = _track(similarity, lags, shortest, longest)
    repeats = confidence >= threshold
    period = np.where(repeats, period, np.nan)
    count = np.cumsum(np.where(repeats, 1 / np.nan_to_num(period, nan=np.inf), 0.0))
    return Repetition(period, confidence, count, similarity, lags)


def _flattened(rows: Floats, width: int) -> Floats:
    """The main directions of the rows, without what drifts slower than a window."""
    centred = rows - rows.mean(axis=0)
    if centred.shape[1] > DIRECTIONS:
        _, _, directions = np.linalg.svd(centred, full_matrices=False)
        centred = centred @ directions[:DIRECTIONS].T
    return centred - _moving_mean(centred, width)


def _moving_mean(rows: Floats, half: int) -> Floats:
    """Mean over `half` rows on both sides, fewer at the ends."""
    sums = np.concatenate([np.zeros((1, *rows.shape[1:])), np.cumsum(rows, axis=0)])
    place = np.arange(len(rows))
    low, high = np.maximum(place - half, 0), np.minimum(place + half + 1, len(rows))
    width = (high - low).reshape(-1, *[1] * (rows.ndim - 1))
    return np.asarray((sums[high] - sums[low]) / width)


def _lag_similarity(rows: Floats, lag: int) -> Floats:
    """1 less the mean squared distance of frames `lag` apart around each frame, over twice the variance."""
    half = max(1, round(PERIODS_AVERAGED * lag))
    distance = ((rows[lag:] - rows[:-lag]) ** 2).sum(axis=1)
    power = (rows**2).sum(axis=1)
    both = power[lag:] + power[:-lag]
    ratio = _moving_mean(distance, half) / np.maximum(_moving_mean(both, half), 1e-12)
    # A pair belongs to the moment in its middle; beyond the first and last pair their values hold.
    place = np.clip(np.arange(len(rows)) - lag // 2, 0, len(ratio) - 1)
    return 1 - ratio[place]


def _track(similarity: Floats, lags: NDArray[np.int64], shortest: int, longest: int) -> tuple[Floats, Floats]:
    """The period and its peak's height over time: peaks close to the highest, joined without jumps."""
    inner = similarity[:, 1:-1]
    peak = (inner >= similarity[:, :-2]) & (inner > similarity[:, 2:])
    allowed = (lags[1:-1] >= shortest) & (lags[1:-1] <= longest)
    # A true period is preceded by a lag at which the motion is unlike itself.
    dip = np.minimum.accumulate(similarity, axis=1)[:, 1:-1]
    height = np.where(peak & allowed, inner - np.maximum(dip, 0), 0.0).clip(0)
    best = height.max(axis=1, keepdims=True)
    score = np.where((height > 0) & (height >= NEARLY * best), 1.0, 0.0) * best
    first = score.argmax(axis=1)  # the shortest lag among the nearly best
    emission = 0.5 * height
    emission[np.arange(len(first)), first] = best[:, 0]
    logs = np.log(lags[1:-1])
    moves = JUMP * np.abs(logs[:, None] - logs[None]) / np.log(2)
    total = emission[0].copy()
    back = np.zeros(emission.shape, np.int32)
    for row in range(1, len(emission)):
        ways = total[:, None] - moves
        back[row] = ways.argmax(axis=0)
        total = ways[back[row], np.arange(len(total))] + emission[row]
    path = np.empty(len(emission), np.int64)
    path[-1] = int(total.argmax())
    for row in range(len(emission) - 1, 0, -1):
        path[row - 1] = back[row, path[row]]
    at = np.arange(len(path))
    return _refined(similarity, lags, path + 1), np.maximum(inner[at, path], 0) * (best[:, 0] > 0)


def _refined(similarity: Floats, lags: NDArray[np.int64], place: NDArray[np.int64]) -> Floats:
    """The peak's place between lags: the top of the parabola through it and its neighbours."""
    at = np.arange(len(place))
    left, middle, right = (similarity[at, place + step] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(bend < -1e-12, 0.5 * (left - right) / np.where(bend < -1e-12, bend, -1.0), 0.0)
    return np.asarray(lags[place] + np.clip(shift, -0.5, 0.5))
