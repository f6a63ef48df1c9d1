"""Which clips make up every batch of a run, and which frames of them are anchor and positive."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tce.data.loader import PlannedBatch
from tce.data.sampling import positive_pairs
from tce.errors import OptionError, TceError
from tce.options.pretrain import ContrastOptions, PretrainOptimOptions
from tce.rng import permutation

FILL_EPOCH = 2**31 - 1  # the epoch of the pass that fills the bank, which no training epoch reaches


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

    Raises:
        TceError: fewer than two clips, or none with two frames where neighbours are wanted.
        OptionError: more clips in a step than there are, or a batch that the processes cannot share equally.
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
    ):
        self.lengths, self.fps, self.contrast, self.optim, self.seed = lengths, fps, contrast, optim, seed
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
        self._order = lru_cache(maxsize=2)(lambda epoch: permutation(seed, epoch, clips))

    def __len__(self) -> int:
        return self.per_epoch * self.optim.epochs

    def __getitem__(self, position: int) -> PlannedBatch:
        epoch, place = divmod(position, self.per_epoch)
        start = place * self.optim.batch_size
        clips = self._order(epoch)[start : start + self.optim.batch_size][self._block]
        return PlannedBatch(clips, self.frames(clips, epoch), epoch)

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


class FillPlan:
    """One pass over all clips, to fill the bank: batches of the run's size, the last one overlapping.

    Args:
        pairs: the run's plan, which chooses the frames.
        processes: number of blocks.
        rank: which block of each batch is wanted.
    """

    def __init__(self, pairs: PairPlan, rank: int = 0, processes: int = 1):
        self.pairs, self.rank, self.processes = pairs, rank, processes

    def __len__(self) -> int:
        return -(-len(self.pairs.lengths) // self.pairs.optim.batch_size)

    def __getitem__(self, position: int) -> PlannedBatch:
        size = self.pairs.optim.batch_size
        start = min(position * size, len(self.pairs.lengths) - size)  # a small batch has poor statistics
        part = size // self.processes
        clips = np.arange(start + self.rank * part, start + (self.rank + 1) * part)
        return PlannedBatch(clips, self.pairs.frames(clips, FILL_EPOCH)[:, :1], FILL_EPOCH)
