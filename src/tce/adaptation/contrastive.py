"""Contrastive adaptation: the last blocks of a frozen network learn that frames of one clip belong together.

First a small head learns on the frozen features, then the last blocks with it: two frames of a clip are a
positive pair, the batch's other clips are the negatives (NT-Xent; Chen et al., 2020). Batch-norm statistics
stay those of the start, all is float32, and the trunk's activations come out of a file, so that a step costs
a pass of the last blocks alone. The head is dropped afterwards, and the linear map is fitted to the features.

Every step is a pure function of seed, step and state, so an interrupted training resumes bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tce.adaptation.activations import ActivationCache, CachedPiece
from tce.adaptation.linear import ROUNDING
from tce.contrast.losses import NTXent
from tce.errors import TceError
from tce.model.encoder import seeded
from tce.model.partition import LastBlocks

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

HEAD_WIDTH, HEAD_SIZE = 512, 128
TEMPERATURE = 0.2
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 0.01
HEAD_STEPS = 40  # with the backbone frozen, before the steps that are counted
DEFAULT_STEPS = 160
PAIRS = 96  # in a batch
LEAST_PIECES = 8  # in a batch, or there is too little to tell apart
DECAY = 2  # one of so many parts of the steps has the full rate, the others fall to 0 along a cosine
PASS_ROWS = 64  # rows of a pass without gradients


@dataclass(frozen=True)
class Pairs:
    """A batch.

    Attributes:
        first: rows of one frame of each clip, [B].
        second: rows of another frame of the same clip, [B].
        mask: pieces of one recording that are too near to be each other's negatives, [B, B].
    """

    first: Ints
    second: Ints
    mask: Bools


class PairSampler:
    """Draws pairs of frames of a clip; what a step gets depends on seed and step only.

    Args:
        pieces: of which some have two frames within their horizon.
        groups: the group of each piece, where batches are to be drawn from one group; or None.
        seed: of the draws.
        size: pairs in a batch.

    Raises:
        TceError: too few pieces.
    """

    def __init__(self, pieces: Sequence[CachedPiece], groups: Sequence[str] | None, seed: int, size: int):
        able = [number for number, piece in enumerate(pieces) if len(_near(piece)[0])]
        self.pieces = [pieces[number] for number in able]
        self.seed, self.size = seed, size
        names = ["" if groups is None else groups[number] for number in able]
        self.members = [
            np.array([number for number, name in enumerate(names) if name == group])
            for group in sorted(set(names))
        ]
        self.members = [rows for rows in self.members if len(rows) >= LEAST_PIECES]
        if not self.members:
            raise TceError(
                "--method contrastive",
                expected=f"{LEAST_PIECES} clips or pieces of recordings or more"
                + (" in a group" if groups is not None else ""),
                found=str(len(able)),
                fix="use --method linear",
            )
        clips = {clip: number for number, clip in enumerate(dict.fromkeys(p.clip for p in self.pieces))}
        self._clip = np.array([clips[piece.clip] for piece in self.pieces])
        self._start = np.array([piece.time[0] for piece in self.pieces])
        self._end = np.array([piece.time[-1] for piece in self.pieces])
        self._horizon = np.array([piece.horizon or 0.0 for piece in self.pieces])

    def __call__(self, step: int) -> Pairs:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        sizes = np.array([len(rows) for rows in self.members])
        members = self.members[rng.choice(len(sizes), p=sizes / sizes.sum())]
        chosen = rng.choice(members, min(self.size, len(members)), replace=False)
        rows = []
        for number in chosen:
            piece = self.pieces[number]
            first, second = _near(piece)
            pair = rng.integers(len(first))
            swap = rng.integers(2)
            rows.append(
                [piece.first + (first, second)[swap][pair], piece.first + (second, first)[swap][pair]]
            )
        both = np.array(rows, np.int64)
        return Pairs(both[:, 0], both[:, 1], self._too_near(chosen))

    def _too_near(self, chosen: Ints) -> Bools:
        same = self._clip[chosen][:, None] == self._clip[chosen]
        gap = self._start[chosen][:, None] - self._end[chosen]
        return same & (np.maximum(gap, gap.T) <= self._horizon[chosen])


def _near(piece: CachedPiece) -> tuple[Ints, Ints]:
    """Positions of all pairs of frames within the horizon, the earlier ones first."""
    first, second = np.triu_indices(len(piece), 1)
    if piece.horizon is not None:
        near = piece.time[second] - piece.time[first] <= piece.horizon * (1 + ROUNDING)
        first, second = first[near], second[near]
    return first, second


@dataclass(frozen=True)
class Budget:
    """How long the last blocks are trained.

    Attributes:
        steps: their number; None where the clock decides.
        seconds: of the steps together; used where `steps` is None.
    """

    steps: int | None = DEFAULT_STEPS
    seconds: float = math.inf


def rate_factor(step: int, steps: int | None) -> float:
    """Share of the learning rate at a step: 1 in the first half, then falling to 0 along a cosine.

    The first half does not depend on the number of steps, so that the clock can decide it on the way.

    Args:
        step: steps done before.
        steps: of the whole training; None while it is not known.
    """
    if steps is None or step < steps // DECAY:
        return 1.0
    start = steps // DECAY
    return (1 + math.cos(math.pi * (step - start) / (steps - start))) / 2


@dataclass
class ContrastiveTraining:
    """The training of a network's last blocks.

    Attributes:
        last: the blocks; their weights are trained in place.
        cache: activations that they read.
        sampler: chooses the batches.
        budget: when to end.
        seed: of the head's weights.
        step: steps done, the head's own included.
        steps: of the last blocks' training; None until the clock has decided.
        seconds: spent on the head's own steps, and on those of the last blocks.
        losses: of every step.
    """

    last: LastBlocks
    feature_size: int
    cache: ActivationCache
    sampler: PairSampler
    budget: Budget
    seed: int = 0
    head_steps: int = HEAD_STEPS
    learning_rate: float = LEARNING_RATE
    step: int = 0
    steps: int | None = None
    seconds: tuple[float, float] = (0.0, 0.0)
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        device = next(self.last.parameters()).device
        with seeded(self.seed):
            self.head = nn.Sequential(
                nn.Linear(self.feature_size, HEAD_WIDTH), nn.ReLU(), nn.Linear(HEAD_WIDTH, HEAD_SIZE)
            ).to(device)
        self.last.eval().requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            [*self.head.parameters(), *self.last.parameters()], self.learning_rate, weight_decay=WEIGHT_DECAY
        )
        self.loss = NTXent(TEMPERATURE)
        self.steps = self.budget.steps
        self._rows = self.cache.map()
        self._device = device

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self.steps is not None and self.step >= self.head_steps + self.steps

    @property
    def total(self) -> int | None:
        """All steps, the head's own included; None until the clock has decided."""
        return None if self.steps is None else self.head_steps + self.steps

    @property
    def trained(self) -> int:
        """Steps of the last blocks done."""
        return max(0, self.step - self.head_steps)

    def advance(self) -> float:
        """Do one step; its loss."""
        started = time.monotonic()
        warm = self.step < self.head_steps
        self._decide()
        pairs = self.sampler(self.step)
        factor = 1.0 if warm else rate_factor(self.trained, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(pairs, warm)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        spent = time.monotonic() - started
        head, blocks = self.seconds
        self.seconds = (head + spent, blocks) if warm else (head, blocks + spent)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TceError(
                "--method contrastive",
                expected="a finite loss",
                found=f"{value} at step {self.step}",
                fix="use --method linear, or check the start's weights",
            )
        self.losses.append(value)
        return value

    def _decide(self) -> None:
        """Fix the number of steps once half of the time is spent: the second half takes as many."""
        head, blocks = self.seconds
        if self.steps is None and self.trained and head + DECAY * blocks >= self.budget.seconds:
            self.steps = DECAY * self.trained

    def _loss(self, pairs: Pairs, warm: bool) -> Tensor:
        rows = np.concatenate([pairs.first, pairs.second])
        order = np.argsort(rows, kind="stable")  # the disk reads forward
        values = np.empty((len(rows), self.cache.size), np.float32)
        values[order] = self._rows[rows[order]]
        activations = torch.from_numpy(values).to(self._device)
        with torch.set_grad_enabled(not warm):
            features = self.last(activations)
        vectors = functional.normalize(self.head(features), dim=1)
        v, p = vectors.split(len(pairs.first))
        return self.loss(v, p, torch.from_numpy(pairs.mask).to(self._device))

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs."""
        return {
            "step": self.step,
            "steps": self.steps,
            "seconds": list(self.seconds),
            "losses": list(self.losses),
            "last": self.last.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state.

        Raises:
            RuntimeError, ValueError, KeyError: another network's state.
        """
        self.last.load_state_dict(state["last"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
        head, blocks = state["seconds"]
        self.seconds = (float(head), float(blocks))
        self.steps = self.budget.steps if state["steps"] is None else int(state["steps"])
        self.losses = list(state["losses"])


@torch.inference_mode()
def features_of(last: LastBlocks, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Activations [n, size] -> features [n, F]."""
    device = next(last.parameters()).device
    parts = [rows[first : first + PASS_ROWS] for first in range(0, len(rows), PASS_ROWS)]
    found = [last(torch.from_numpy(np.array(part)).to(device)).float().cpu().numpy() for part in parts]
    return np.concatenate(found)
