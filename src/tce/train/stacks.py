"""The clips and frames of every batch of a fine-tuning run, and their augmentation."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tce.data.loader import PlannedBatch
from tce.data.sampling import segments, stack_at, stacks
from tce.errors import TceError
from tce.model.preprocess import normalise
from tce.options.finetune import FinetuneAugmentOptions
from tce.options.pretrain import AugmentOptions
from tce.rng import permutation, uniform
from tce.train.augment import Augmentation, Draws, crop_boxes

Ints = npt.NDArray[np.int64]

# Streams of the counter-based generator; those below 16 belong to the choice of frames.
CROP, FLIP, COLOR, CLASSES = 200, 201, 202, 203


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
        rows: Ints,
        labels: Ints,
        lengths: Ints,
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
        members, samples = self._members(place, epoch), self.samples(position)
        return PlannedBatch(self.rows[members], self.frames(members, samples, epoch), epoch, samples)

    def samples(self, position: int) -> Ints:
        """Keys of a batch's random draws, [b]: its clips, with a different key where one is drawn again."""
        epoch, place = divmod(position, self.per_epoch)
        order = self._order(epoch)
        members = self._members(place, epoch)
        if not self.balanced:
            return self.rows[members]
        start = place % self._batches * self.batch_size
        return self.rows[members] + (occurrences(order)[start : start + len(members)] << 32)

    def _members(self, place: int, epoch: int) -> Ints:
        # Fewer batches than a step accumulates: the epoch repeats to fill the step.
        start = place % self._batches * self.batch_size
        return self._order(epoch)[start : start + self.batch_size]

    def frames(self, members: Ints, samples: Ints, epoch: int) -> Ints:
        """Frames of some clips in an epoch, int64 [b, parts * span]."""
        lengths = self.lengths[members]
        if self.parts == 1:
            return stacks(lengths, self.seed, epoch, samples, self.span)
        first = segments(lengths, self.parts, self.seed, epoch, samples, self.span)  # [b, parts]
        index = stack_at(np.broadcast_to(lengths[:, None], first.shape), first, self.span)
        return index.reshape(len(members), -1)

    def _make_order(self, epoch: int) -> Ints:
        order = permutation(self.seed, epoch, len(self.rows))
        return balance(order, self.labels, self.seed, epoch) if self.balanced else order


def balance(order: Ints, labels: Ints, seed: int, epoch: int) -> Ints:
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


def occurrences(order: Ints) -> Ints:
    """How often each entry has occurred before in the order, [N]."""
    by_clip = np.argsort(order, kind="stable")
    first = np.flatnonzero(np.diff(order[by_clip], prepend=-1))
    count = np.empty(len(order), np.int64)
    count[by_clip] = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    return count


class StackAugmentation:
    """Normalised frames with random crop, mirroring and colour, the same for all frames of a sample.

    Args:
        options: kinds and strengths.
        size: side of the result in pixels.
        mean: per-channel mean, of pixels in [0, 1].
        std: per-channel standard deviation.
    """

    def __init__(
        self,
        options: FinetuneAugmentOptions,
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        self.options = options
        self.mean = mean
        self.std = std
        planar = torch.contiguous_format  # the layout that differences are computed in
        self._augment = Augmentation(AugmentOptions(), size, mean, std, memory_format=planar)

    def __call__(self, frames: Tensor, samples: Ints, epoch: int, seed: int) -> Tensor:
        """Normalised frames float32 [B F, 3, h, w], sample by sample.

        Args:
            frames: uint8 [B, F, H, W, 3], on the device that computes.
            samples: keys of the random draws, [B].
            epoch: of the random draws.
            seed: of the random draws.
        """
        flat = frames.flatten(0, 1)  # [B F, H, W, 3]
        if self.options.none:
            return normalise(flat.permute(0, 3, 1, 2), self.mean, self.std)
        options, count = self.options, len(samples)
        crop = uniform(seed, epoch, samples, CROP, 4)
        color = uniform(seed, epoch, samples, COLOR, 4)
        strength = options.color * np.array([1, 1, 1, 0.5])
        draws = Draws(
            boxes=crop_boxes(crop, flat.shape[1:3], options.crop_scale, options.crop_ratio),
            flip=uniform(seed, epoch, samples, FLIP, 1)[:, 0] < options.flip,
            channel=np.full(count, -1),
            factors=(2 * color - 1) * strength + np.array([1, 1, 1, 0]),
            sigma=np.zeros(count),
        )
        each_frame = np.repeat(np.arange(count), frames.shape[1])
        return self._augment.apply(
            flat, Draws(**{name: value[each_frame] for name, value in vars(draws).items()})
        )
