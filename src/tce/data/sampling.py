"""Which frames of a clip: pairs, stacks, segments and test positions.

Every draw is a pure function of (seed, epoch, sample), see `tce.rng`.

All positions are 0-based frame numbers. One rule for short clips holds everywhere: what would lie beyond the
last frame is the last frame, repeated.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tce.errors import OptionError
from tce.rng import uniform

Whole = NDArray[np.int64]

TEST_CLIPS = 19  # stacks a clip in the released test
TEST_SPAN = 9  # frames that the released test keeps free at the end
LONGEST = 2**52  # frames: what whole numbers and floats both hold
STACK = 6  # frames a stack: five differences

# Independent streams of one sample's randomness; others may use any number from 16 up.
ANCHOR, DISTANCE, DIRECTION, STACK_START, SEGMENT = range(5)


def positive_pairs(
    lengths: ArrayLike,
    seed: int,
    epoch: int,
    samples: ArrayLike,
    low: float = 1,
    high: float = 1,
    unit: Literal["frames", "seconds"] = "frames",
    fps: ArrayLike | None = None,
) -> Whole:
    """An anchor and a positive neighbour of each clip (paper, section 3.1).

    The anchor is uniform over the whole clip and the distance uniform over the window. Both directions are
    equally likely; a positive that would lie outside the clip is taken on the other side, so the first and
    the last frame are anchors as often as any other. If neither side is long enough, the distance is that of
    the longer side; it is 0, the anchor twice, only in a clip of one frame.

    Args:
        lengths: frames a clip, int [B].
        seed: the run's seed.
        epoch: pass over the data.
        samples: sample numbers int64 [B].
        low: shortest distance, at least one frame.
        high: longest distance.
        unit: what `low` and `high` count; "seconds" means the same for clips of any frame rate.
        fps: frames per second of the clips, float [B]; needed for seconds.

    Returns:
        int64 [B, 2]: anchor and positive.

    Raises:
        OptionError: a window that is empty or begins at 0, or seconds without `fps`.
    """
    if not 0 < low <= high:
        raise OptionError("positive distance", "0 < low <= high", f"{low} to {high}")
    if unit == "seconds" and fps is None:
        raise OptionError("positive distance", "frame rates for a distance in seconds", "none")
    length = np.asarray(lengths, np.int64)  # [B]
    scale = np.asarray(fps, np.float64) if unit == "seconds" and fps is not None else np.ones(len(length))
    nearest = np.clip(np.rint(low * scale), 1, LONGEST).astype(np.int64)  # [B]
    farthest = np.clip(np.rint(high * scale), nearest, LONGEST).astype(np.int64)

    anchor = _below(length, uniform(seed, epoch, samples, ANCHOR, 1)[:, 0])
    distance = nearest + _below(farthest - nearest + 1, uniform(seed, epoch, samples, DISTANCE, 1)[:, 0])
    forward = uniform(seed, epoch, samples, DIRECTION, 1)[:, 0] < 0.5
    after, before = length - 1 - anchor, anchor  # frames on either side
    distance = np.minimum(distance, np.maximum(after, before))
    forward = np.where(distance > after, False, np.where(distance > before, True, forward))
    return np.stack([anchor, anchor + np.where(forward, distance, -distance)], axis=1)


def stacks(
    lengths: ArrayLike, seed: int, epoch: int, samples: ArrayLike, count: int = STACK, every: int = 1
) -> Whole:
    """One stack of consecutive frames of each clip, from a random start: int64 [B, count].

    Args:
        lengths: frames a clip, int [B].
        seed: the run's seed.
        epoch: pass over the data.
        samples: sample numbers int64 [B].
        count: frames a stack.
        every: distance between a stack's frames.
    """
    length = np.asarray(lengths, np.int64)
    starts = np.maximum(1, length - (count - 1) * every)  # [B] possible starts
    first = _below(starts, uniform(seed, epoch, samples, STACK_START, 1)[:, 0])
    return stack_at(length, first, count, every)


def stack_at(lengths: ArrayLike, first: ArrayLike, count: int = STACK, every: int = 1) -> Whole:
    """`count` frames from `first` on; beyond the clip's end its last frame: int64 [..., count]."""
    frames = np.asarray(first, np.int64)[..., None] + np.arange(count) * every
    return np.minimum(frames, np.asarray(lengths, np.int64)[..., None] - 1)


def test_positions(n: int, count: int = TEST_CLIPS, span: int = TEST_SPAN) -> Whole:
    """Where the stacks of the released test start: int64 [count].

    Counted from 1, position i is 1 + i * (max(0, n - span) // count); here from 0. A clip shorter than
    `span + count` frames is tested `count` times from its first frame.

    Args:
        n: frames of the clip.
        count: positions.
        span: frames kept free at the end.
    """
    return np.arange(count, dtype=np.int64) * (max(0, n - span) // count)


test_positions.__test__ = False  # type: ignore[attr-defined]  # its name is the field's, not pytest's


def segments(
    lengths: ArrayLike, count: int, seed: int, epoch: int, samples: ArrayLike, span: int = 1
) -> Whole:
    """One random position in each of `count` equal segments of each clip (as in TSN): int64 [B, count].

    In a clip with fewer frames than segments, neighbouring segments share a frame.

    Args:
        lengths: frames a clip, int [B].
        count: segments.
        seed: the run's seed.
        epoch: pass over the data.
        samples: sample numbers int64 [B].
        span: frames from each position on that must lie within the clip, where it is long enough.
    """
    starts = np.maximum(1, np.asarray(lengths, np.int64) - (span - 1))[:, None]  # [B, 1] possible positions
    edges = starts * np.arange(count + 1) // count  # [B, count + 1]
    first, width = edges[:, :-1], np.maximum(1, np.diff(edges, axis=1))
    return first + _below(width, uniform(seed, epoch, samples, SEGMENT, count))


def spread(n: int, count: int) -> Whole:
    """`count` positions spread over a clip of `n` frames, the middles of equal parts: int64 [count]."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * n // (2 * count)


def whole(n: int, every: int = 1) -> Whole:
    """Every `every`-th frame of a clip of `n` frames: int64 [ceil(n / every)]."""
    return np.arange(0, n, every, dtype=np.int64)


def _below(limit: Whole, share: NDArray[np.float64]) -> Whole:
    """A whole number in [0, limit) for each share in [0, 1)."""
    return np.minimum((share * limit).astype(np.int64), limit - 1)  # the product may round up to the limit
