"""Bootstrap intervals over recordings.

Clips cut from one recording resemble each other, so they are not independent trials: whole recordings are
drawn again with replacement, never single clips.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tce.errors import TceError

Floats = npt.NDArray[np.float64]
Resampled = TypeVar("Resampled", bound=npt.NDArray[np.float64])

RESAMPLES = 2000
LEVEL = 0.95


def bootstrap_interval(
    values: npt.ArrayLike, recordings: npt.ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """The 95% percentile interval of the mean of `values`, recordings drawn with replacement.

    A recording carries all its clips, so a resample's mean is over a varying number of clips.

    Args:
        values: [N] one figure a clip, such as 0/1 for wrong/right, or a difference of two networks.
        recordings: [N] each clip's recording, of any type that sorts.
        resamples: how many bootstrap samples.
        seed: of the draws.

    Returns:
        Lower and upper end, or None for fewer than two recordings, where nothing can be said.
    """
    figures = np.asarray(values, np.float64)
    names, recording = np.unique(np.asarray(recordings), return_inverse=True)
    groups = len(names)
    if groups < 2:
        return None
    clips = np.bincount(recording, minlength=groups).astype(np.float64)
    sums = np.bincount(recording, weights=figures, minlength=groups)
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    means = (drawn @ sums) / (drawn @ clips)  # [resamples]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def paired_difference(
    first: npt.ArrayLike, second: npt.ArrayLike, recordings: npt.ArrayLike, seed: int = 0
) -> tuple[float, tuple[float, float] | None]:
    """Mean of `second - first` over the same clips, and its 95% interval over recordings.

    Pairing takes the difficulty of the clips out of the difference, so it is far tighter than the
    difference of two separate intervals.

    Raises:
        TceError: the two do not hold the same number of clips.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape:
        raise TceError(
            "paired difference", expected="figures of the same clips", found=f"{a.size} and {b.size}"
        )
    return float((b - a).mean()), bootstrap_interval(b - a, recordings, seed=seed)


def mean_interval(
    values: list[npt.ArrayLike], recordings: list[npt.ArrayLike], seed: int = 0
) -> tuple[float, float] | None:
    """The 95% interval of the mean over splits of each split's mean.

    A recording that is in several splits' test sets is drawn into all of them together.

    Args:
        values: for each split, one figure a clip.
        recordings: for each split, each clip's recording.
        seed: of the draws.

    Returns:
        Lower and upper end, or None for fewer than two recordings.
    """
    names = np.unique(np.concatenate([np.asarray(split) for split in recordings]))
    if len(names) < 2:
        return None
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES
    )
    means = []
    for split, named in zip(values, recordings, strict=True):
        group = np.searchsorted(names, np.asarray(named))
        clips = np.bincount(group, minlength=len(names)).astype(np.float64)
        sums = np.bincount(group, weights=np.asarray(split, np.float64), minlength=len(names))
        counted = drawn @ clips
        means.append(np.divide(drawn @ sums, counted, out=np.full(RESAMPLES, np.nan), where=counted > 0))
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(np.mean(means, axis=0), [tail, 1 - tail])
    return float(low), float(high)
