"""Whether one video's pictures are another's: small grey pictures, laid over each other in time and in space.

Vectors of a network, and pictures, are much alike for two takes of one scene. What only a copy shares is how
the picture changes: pixel by pixel, the deviations of the frames from their mean. So two runs of frames are
compared at every offset in time by these deviations, and at the best ones laid over each other by an affine
map (a crop is one) and by fractions of a frame, and compared again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Small = NDArray[np.uint8]  # [n, SIDE, SIDE], grey

SIDE = 32
LEAST_FRAMES = 5  # in common, or all frames of a shorter run
DARK, EVEN = 24.0, 10.0  # grey levels: mean and standard deviation of a row or column of a bar, at most
MOST_BAR = 0.36  # share of the height or width that one bar may take
STILL = 1.5  # grey levels: standard deviation of the changes below which they are noise
STILL_ALIKE = 0.995  # appearance that is asked of still pictures
ALIKE = 0.93  # appearance that is asked of moving ones
_OFFSETS = 2  # that are looked at closely, besides the one at which the pictures fit best
_HOPELESS = 0.35  # correlation of the changes, before any map, below which nothing is looked at closely
_INNER = 3  # pixels at the border that do not count


@dataclass(frozen=True)
class PixelMatch:
    """How two runs of frames fit.

    Attributes:
        score: from 0 to 1: correlation of the changes, or of the pictures where nothing changes.
        shift: frame of the second run less that of the first.
        appearance: mean correlation of the pictures.
        energy: standard deviation of the changes, in grey levels.
        warp: affine map [2, 3] from pixels of the first to those of the second; None for none.
    """

    score: float
    shift: int
    appearance: float
    energy: float
    warp: Floats | None


def small_pictures(frames: Sequence[NDArray[np.uint8]]) -> Small:
    """A video's frames [H, W, 3] as uint8 [n, SIDE, SIDE], grey, without the black bars that all have."""
    grey = [np.asarray(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY), np.uint8) for one in frames]
    sample = grey[:: max(1, len(grey) // 16)]
    alike = len({one.shape for one in sample}) == 1
    top, bottom = _bars(sample, 1) if alike else (0, 0)
    left, right = _bars(sample, 0) if alike else (0, 0)
    inner = [one[top : len(one) - bottom, left : one.shape[1] - right] for one in grey]
    return np.stack(
        [np.asarray(cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8) for one in inner]
    )


def _bars(grey: Sequence[NDArray[np.uint8]], axis: int) -> tuple[int, int]:
    """Rows (axis 1) or columns (axis 0) at both ends that are dark and even in every frame."""
    mean = np.max([one.mean(axis=axis) for one in grey], axis=0)
    deviation = np.max([one.std(axis=axis) for one in grey], axis=0)
    bar = (mean <= DARK) & (deviation <= EVEN)
    if bar.all():
        return 0, 0
    most = int(MOST_BAR * len(bar))
    first, last = int(np.argmin(bar)), int(np.argmin(bar[::-1]))
    # One more at each side: the row between bar and picture is a mixture.
    return (min(first + 1, most) if first > 1 else 0), (min(last + 1, most) if last > 1 else 0)


def descriptors(small: Small) -> Floats:
    """A vector of length 1 for each picture, float32 [n, 256]: it is compared at half the size."""
    return _unit_rows(_coarse(small))


def mirror(small: Small) -> Small:
    """Left and right exchanged."""
    return np.ascontiguousarray(small[:, :, ::-1])


def match_pixels(one: Small, other: Small) -> PixelMatch | None:
    """The best fit of two runs of frames [n, SIDE, SIDE] and [m, SIDE, SIDE]; None where none is likely."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    best: PixelMatch | None = None
    for shift in _likely_shifts(a, b):
        first, count = overlap(len(a), len(b), shift)
        found = _compare(a[first : first + count], b, first + shift, shift)
        if best is None or found.score > best.score:
            best = found
    return best


def overlap(n: int, m: int, shift: int) -> tuple[int, int]:
    """First frame of the first run that the second one covers, and how many."""
    first = max(0, -shift)
    return first, min(n, m - shift) - first


def frame_similarities(one: Small, other: Small, match: PixelMatch) -> tuple[int, Floats]:
    """Correlations of the pictures of two whole videos at a match's offset and map.

    Returns:
        the first frame of the first video, and float32 [count].
    """
    first, count = overlap(len(one), len(other), match.shift)
    a = one[first : first + count].astype(np.float32)
    b = other[first + match.shift : first + match.shift + count].astype(np.float32)
    a, b = _inside(a, _warped(b, match.warp))
    return first, np.asarray((_unit_rows(a) * _unit_rows(b)).sum(axis=1), np.float32)


def _likely_shifts(a: Floats, b: Floats) -> list[int]:
    """The offsets at which the changes fit best, and the one at which the pictures do."""
    least = min(LEAST_FRAMES, len(a), len(b))
    shifts = [shift for shift in range(1 - len(a), len(b)) if overlap(len(a), len(b), shift)[1] >= least]
    one, other = _coarse(a), _coarse(b)
    plain = _along(_unit_rows(one), _unit_rows(other), shifts)
    moved = _along(one - one.mean(axis=0), other - other.mean(axis=0), shifts)
    by_picture = int(np.argmax(plain))
    if moved.max() < _HOPELESS and plain[by_picture] < ALIKE:
        return []
    order = np.argsort(-moved, kind="stable")[:_OFFSETS].tolist()
    return list(dict.fromkeys([*(shifts[place] for place in order), shifts[by_picture]]))


def _along(a: Floats, b: Floats, shifts: Sequence[int]) -> Floats:
    """Correlation of the rows at each offset."""
    products = a @ b.T
    power_a, power_b = (a * a).sum(axis=1), (b * b).sum(axis=1)
    found = []
    for shift in shifts:
        first, count = overlap(len(a), len(b), shift)
        rows = np.arange(first, first + count)
        both = power_a[rows].sum() * power_b[rows + shift].sum()
        found.append(products[rows, rows + shift].sum() / max(np.sqrt(both), 1e-6))
    return np.array(found, np.float32)


def _compare(a: Floats, other: Floats, start: int, shift: int) -> PixelMatch:
    """Frames `a`, and as many of `other` from `start` on."""
    warp = _affine(a.mean(axis=0), other[start : start + len(a)].mean(axis=0))
    low, high = max(0, start - 1), min(len(other), start + len(a) + 1)
    near = _warped(other[low:high], warp)
    rows = np.arange(start - low, start - low + len(a))
    best: PixelMatch | None = None
    for part in (0.0, -0.5, 0.5):
        step = int(np.sign(part))
        inside = (rows + step >= 0) & (rows + step < len(near))
        if inside.sum() < min(len(a), LEAST_FRAMES):
            continue
        kept = rows[inside]
        b = (1 - abs(part)) * near[kept] + abs(part) * near[kept + step]
        found = replace(_fit(*_inside(a[inside], b)), shift=shift, warp=warp)
        if best is None or found.score > best.score:
            best = found
    assert best is not None
    return best


def _fit(a: Floats, b: Floats) -> PixelMatch:
    """Two runs of as many pictures, [n, pixels] each."""
    appearance = float((_unit_rows(a) * _unit_rows(b)).sum(axis=1).mean())
    moved_a, moved_b = (_without_mean(one - one.mean(axis=0)) for one in (a, b))
    both = float((moved_a * moved_a).sum() * (moved_b * moved_b).sum())
    motion = float((moved_a * moved_b).sum()) / max(both**0.5, 1e-6)
    energy = max(float(moved_a.std()), float(moved_b.std()))
    if energy < STILL or len(a) == 1:
        score = appearance if appearance >= STILL_ALIKE else 0.0
    else:
        score = motion if appearance >= ALIKE else 0.0
    return PixelMatch(max(0.0, score), 0, appearance, energy, None)


def _coarse(pictures: NDArray[np.generic]) -> Floats:
    half = pictures.astype(np.float32).reshape(len(pictures), SIDE // 2, 2, SIDE // 2, 2)
    return half.mean(axis=(2, 4)).reshape(len(pictures), -1)


def _without_mean(flat: Floats) -> Floats:
    """Without what changes in all of the picture at once, as its brightness."""
    return flat - flat.mean(axis=1, keepdims=True)


def _unit_rows(flat: Floats) -> Floats:
    flat = _without_mean(flat)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6), np.float32)


def _affine(a: Floats, b: Floats) -> Floats | None:
    """The map from pixels of a to those of b, or None where there is none of a crop's size."""
    warp = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    try:
        cv2.findTransformECC(a, b, warp, cv2.MOTION_AFFINE, stop, None, 3)  # type: ignore[call-overload]
    except cv2.error:  # it does not converge
        return None
    scales, shears = warp[[0, 1], [0, 1]], warp[[0, 1], [1, 0]]
    small = (np.abs(np.log(np.maximum(scales, 0.01))) < 0.3).all() and (np.abs(shears) < 0.1).all()
    return warp if small and (np.abs(warp[:, 2]) < SIDE / 4).all() else None


def _warped(pictures: Floats, warp: Floats | None) -> Floats:
    """Pictures laid over others; what lies outside is far below 0."""
    if warp is None:
        return pictures
    how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderValue": (-1e4,)}
    return np.stack([cv2.warpAffine(one, warp, (SIDE, SIDE), **how) for one in pictures])  # type: ignore[call-overload]


def _inside(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """The pixels that both have in all frames, [n, pixels] each."""
    there = np.asarray((b > -1).all(axis=0))
    there[:_INNER] = there[-_INNER:] = False
    there[:, :_INNER] = there[:, -_INNER:] = False
    if not there.any():
        there[:] = True
    return a[:, there], b[:, there]
