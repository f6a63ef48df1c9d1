"""The rules by which clips and frames are chosen: pairs, stacks, segments, test positions, a run's batches.

Every draw is a pure function of (seed, epoch, sample), see `tce.rng`.

All positions are 0-based frame numbers. One rule for short clips holds everywhere: what would lie beyond the
last frame is the last frame, repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tce.data.loader import PlannedBatch
from tce.errors import OptionError, TceError
from tce.options.pretrain import ContrastOptions, PretrainOptimOptions
from tce.rng import permutation, uniform

Whole = NDArray[np.int64]

TEST_CLIPS = 19  # stacks a clip in the released test
TEST_SPAN = 9  # frames that the released test keeps free at the end
LONGEST = 2**52  # frames: what whole numbers and floats both hold
STACK = 6  # frames a stack: five differences

FILL_EPOCH = 2**31 - 1  # the epoch of the pass that fills the bank, which no training epoch reaches

# Independent streams of one sample's randomness; others may use any number from 16 up.
ANCHOR, DISTANCE, DIRECTION, STACK_START, SEGMENT = range(5)
CLASSES = 203  # the order of the classes in a balanced epoch


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


class PairPlan:
    """Every batch of a run, in order: a sequence of (clips int64 [b], frames int64 [b, F]).

    An epoch takes each clip once, in an order of its own, and drops the last incomplete batch. Batch and
    frames are pure functions of seed, epoch and clip. F is 2, anchor and positive, or 1 with
    `--positives same`.

    Args:
        lengths: frames of each clip, int64 [N].
        fps: their frame rates, float64 [N].
        contrast: how positives are chosen.
        optim: batch size, accumulation and epochs.
        seed: of all draws.
        rank: which contiguous block of each batch is wanted.
        processes: number of blocks.
        groups: the group of each clip, for `contrast.batch_groups`.

    Raises:
        TceError: fewer than two clips, or none with two frames where neighbours are wanted.
        OptionError: more clips in a step than there are, a batch that the processes cannot share equally, or
            no group that fills a batch.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        fps: np.ndarray,
        contrast: ContrastOptions,
        optim: PretrainOptimOptions,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        groups: Sequence[str] | None = None,
    ):
        self.lengths = lengths
        self.fps = fps
        self.contrast = contrast
        self.optim = optim
        self.seed = seed
        clips, batch = len(lengths), optim.batch_size
        if clips < 2:
            raise TceError(
                "training clips",
                expected="at least two, as each clip is compared with others",
                found=str(clips),
                fix="add clips, or cut long videos into clips with `tce pack --clip-seconds 10`",
            )
        if contrast.positives == "neighbour" and lengths.max() < 2:
            raise OptionError(
                "--positives neighbour",
                expected="clips of two frames or more",
                found=f"{clips} clips of one frame",
                fix="use --positives same",
            )
        if batch * optim.accumulate > clips:
            flag = "--batch-size" if optim.accumulate == 1 else "--batch-size x --accumulate"
            raise OptionError(
                flag, expected=f"at most the {clips} clips", found=str(batch * optim.accumulate)
            )
        if batch % processes:
            raise OptionError(
                "--batch-size", expected=f"a multiple of the {processes} processes", found=str(batch)
            )
        self.per_epoch = clips // batch // optim.accumulate * optim.accumulate
        self._block = slice(rank * (batch // processes), (rank + 1) * (batch // processes))
        numbers = _group_numbers(groups, contrast.batch_groups, batch)
        self._order = lru_cache(maxsize=2)(lambda epoch: self._ordered(epoch, numbers))

    def __len__(self) -> int:
        return self.per_epoch * self.optim.epochs

    def __getitem__(self, position: int) -> PlannedBatch:
        epoch, place = divmod(position, self.per_epoch)
        start = place * self.optim.batch_size
        clips = self._order(epoch)[start : start + self.optim.batch_size][self._block]
        return PlannedBatch(clips, self.frames(clips, epoch), epoch)

    def _ordered(self, epoch: int, groups: np.ndarray | None) -> np.ndarray:
        order = permutation(self.seed, epoch, len(self.lengths))
        if groups is None:
            return order
        blocks = group_batches(order, groups, self.optim.batch_size, self.contrast.batch_groups)
        return np.concatenate([blocks[place] for place in permutation(self.seed, epoch, len(blocks))])

    def frames(self, clips: np.ndarray, epoch: int) -> np.ndarray:
        """Frames of some clips in an epoch, int64 [b, F]."""
        options = self.contrast
        pairs = positive_pairs(
            self.lengths[clips],
            self.seed,
            epoch,
            clips,
            options.window_from,
            options.window,
            options.window_unit,
            self.fps[clips],
        )
        return pairs[:, :1] if options.positives == "same" else pairs


def group_batches(order: np.ndarray, groups: np.ndarray, batch: int, share: float) -> list[np.ndarray]:
    """An epoch's batches, of which a share has clips of one group only; every clip occurs at most once.

    Groups give as many whole batches as they have clips for; where these are fewer than the share, all of
    them are taken, and the other batches are mixed.

    Args:
        order: the clips in random order, int64 [N].
        groups: number of each clip's group, int64 [N].
        batch: clips a batch.
        share: of the batches.

    Returns:
        N // batch arrays int64 [batch]: first those of one group each.
    """
    count = len(order) // batch
    single = []
    for group in groups[order][np.sort(np.unique(groups[order], return_index=True)[1])]:
        members = order[groups[order] == group]
        single += [members[start : start + batch] for start in range(0, len(members) - batch + 1, batch)]
    single = sorted(single, key=lambda clips: int(np.flatnonzero(order == clips[0])[0]))
    single = single[: round(share * count)]
    rest = order[~np.isin(order, np.concatenate([*single, order[:0]]))]
    return single + [rest[start * batch : (start + 1) * batch] for start in range(count - len(single))]


def _group_numbers(groups: Sequence[str] | None, share: float, batch: int) -> np.ndarray | None:
    """The groups as numbers; None where batches are drawn from all clips."""
    if groups is None or not share:
        return None
    _, numbers, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if sizes.max() < batch:
        raise OptionError(
            "--batch-groups",
            expected=f"a group of {batch} clips, as --batch-size says, or more",
            found=f"{sizes.max()} in the largest",
            fix="lower --batch-size, or name larger groups",
        )
    return numbers


class FillPlan:
    """One pass over all clips, to fill the bank: batches of the run's size, the last one overlapping.

    Args:
        pairs: the run's plan, which chooses the frames.
        processes: number of blocks.
        rank: which block of each batch is wanted.
    """

    def __init__(self, pairs: PairPlan, rank: int = 0, processes: int = 1):
        self.pairs = pairs
        self.rank = rank
        self.processes = processes

    def __len__(self) -> int:
        return -(-len(self.pairs.lengths) // self.pairs.optim.batch_size)

    def __getitem__(self, position: int) -> PlannedBatch:
        size = self.pairs.optim.batch_size
        start = min(position * size, len(self.pairs.lengths) - size)  # a small batch has poor statistics
        part = size // self.processes
        clips = np.arange(start + self.rank * part, start + (self.rank + 1) * part)
        return PlannedBatch(clips, self.pairs.frames(clips, FILL_EPOCH)[:, :1], FILL_EPOCH)


class StackPlan:
    """The batches of a run, in order, with frames int64 [b, segments * span].

    An epoch takes every clip once in a shuffled order or, balanced, as many draws with every class equally
    often. The last batch of an epoch may be smaller; a single clip is dropped: batch statistics need two.
    Batch and frames are pure functions of seed, epoch and clip.

    Args:
        rows: the training clips, rows of the store, [N].
        labels: class of each of them, [N].
        lengths: frames of each of them, [N].
        batch_size: clips in a batch.
        epochs: passes over the clips.
        span: consecutive frames of a sample.
        parts: samples of a clip, one from each of as many equal parts.
        balanced: draw every class, not every clip, equally often.
        accumulate: batches in a step; an epoch has whole steps.
        seed: of all random draws.

    Raises:
        TceError: fewer than two clips.
    """

    def __init__(
        self,
        rows: Whole,
        labels: Whole,
        lengths: Whole,
        batch_size: int,
        epochs: int,
        span: int,
        parts: int = 1,
        balanced: bool = False,
        accumulate: int = 1,
        seed: int = 0,
    ):
        if len(rows) < 2:
            raise TceError("the training clips", expected="at least 2", found=str(len(rows)))
        self.rows = rows
        self.labels = labels
        self.lengths = lengths
        self.batch_size = batch_size
        self.epochs = epochs
        self.span = span
        self.parts = parts
        self.balanced, self.seed = balanced, seed
        whole, rest = divmod(len(rows), batch_size)
        batches = whole + (rest > 1)
        self.per_epoch = max(batches // accumulate, 1) * accumulate
        self._batches = batches
        self._order = lru_cache(maxsize=2)(self._make_order)

    def __len__(self) -> int:
        return self.per_epoch * self.epochs

    def __getitem__(self, position: int) -> PlannedBatch:
        epoch, place = divmod(position, self.per_epoch)
        order, first = (
            self._order(epoch),
            place % self._batches * self.batch_size,
        )  # too few fill a step twice
        part = slice(first, first + self.batch_size)
        members = order[part]
        samples = self.rows[members]  # keys of the random draws
        if self.balanced:  # a different key where a clip is drawn again
            samples = samples + (occurrences(order)[part] << 32)
        return PlannedBatch(self.rows[members], self.frames(members, samples, epoch), epoch, samples)

    def frames(self, members: Whole, samples: Whole, epoch: int) -> Whole:
        """Frames of some clips in an epoch, int64 [b, parts * span]."""
        lengths = self.lengths[members]
        if self.parts == 1:
            return stacks(lengths, self.seed, epoch, samples, self.span)
        first = segments(lengths, self.parts, self.seed, epoch, samples, self.span)  # [b, parts]
        index = stack_at(np.broadcast_to(lengths[:, None], first.shape), first, self.span)
        return index.reshape(len(members), -1)

    def _make_order(self, epoch: int) -> Whole:
        order = permutation(self.seed, epoch, len(self.rows))
        return balance(order, self.labels, self.seed, epoch) if self.balanced else order


def balance(order: Whole, labels: Whole, seed: int, epoch: int) -> Whole:
    """As many draws as there are clips, every class as often as any other (give or take one).

    Within a class clips come in the given order and repeat, so that none is drawn twice before all are drawn
    once; the order of the classes is shuffled.

    Args:
        order: the clips in random order, [N].
        labels: class of every clip, [N].
        seed: of the order of the classes.
        epoch: likewise.

    Returns:
        [N] clips.
    """
    classes = np.unique(labels)
    n = len(order)
    # Which classes get the remaining draws differs from epoch to epoch.
    order_of_classes = np.resize(classes[permutation(seed, epoch + (1 << 32), len(classes))], n)
    order_of_classes = order_of_classes[
        np.argsort(uniform(seed, epoch, np.arange(n), CLASSES, 1)[:, 0], kind="stable")
    ]
    drawn = np.empty(n, np.int64)
    for label in classes:
        members = order[labels[order] == label]
        places = np.flatnonzero(order_of_classes == label)
        drawn[places] = np.resize(members, len(places))
    return drawn


def occurrences(order: Whole) -> Whole:
    """How often each entry has occurred before in the order, [N]."""
    by_clip = np.argsort(order, kind="stable")
    first = np.flatnonzero(np.diff(order[by_clip], prepend=-1))
    count = np.empty(len(order), np.int64)
    count[by_clip] = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    return count
