"""First, do no harm: a figure without labels, on clips that the adaptation did not see.

Frames of a clip's first half look for the same clip's second half among all held-out clips. Whole recordings
are held out in turn, so the figure is about footage that the map was not fitted on. The shrinkage with which
a fold is checked was chosen on the other folds, so trying several does not flatter the result.

A tie is no reason to change a network: an adaptation is kept only if the 95% interval of its paired
difference to the start, over recordings, lies above zero, and if clips do not stand out less than before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tce.adaptation.linear import Decomposition, LinearMap, ScatterSums, decompose
from tce.errors import TceError

Floats = npt.NDArray[np.float64]
Frames = npt.NDArray[np.float32]  # [n, F]
Embed = Callable[[Frames], npt.NDArray[np.floating]]  # [n, F] -> [n, D], not normalised

SHRINKAGES = (0.9, 0.5, 0.1, 0.02)
UNCHECKED_SHRINKAGE = 0.5  # where clips are too few to choose by: safe from a handful on
SIZES = (128, 256, 512)
CLIPS_PER_DIRECTION = 3  # fewer clips than that for each kept direction: reduction harms
COSINE_ROUNDING = 1e-6  # a spread below it is none
LEAST_CLIPS = 2  # held out in one fold, or there is nothing to confuse a clip with
RESAMPLES, LEVEL = 2000, 0.95  # of the bootstrap over recordings


@dataclass(frozen=True)
class HeldClip:
    """A clip, or a piece of a recording, to check on.

    Attributes:
        frames: its frames' features in order of time, [n, F], n at least 2.
        recording: number of what it was cut from; pieces that resemble each other share it.
    """

    frames: Frames
    recording: int


@dataclass(frozen=True)
class Coherence:
    """How well frames find the rest of their clip.

    Attributes:
        found: [n] for each clip, the share of its first half's frames whose nearest second half is its own.
        separation: [n] for each clip, similarity to its own second half less the mean to others', in
            standard deviations of the latter.
        recording: [n] number of the recording of each clip.
        chance: share that random embeddings would find.
    """

    found: Floats
    separation: Floats
    recording: npt.NDArray[np.int64]
    chance: float

    @property
    def share(self) -> float:
        """Mean of `found` over the clips."""
        return float(self.found.mean())

    def __len__(self) -> int:
        return len(self.found)

    @property
    def rank(self) -> tuple[float, float]:
        """What is compared: the share, and among equals the separation, which has no ceiling."""
        return round(self.share, 9), float(self.separation.mean())

    @staticmethod
    def joined(parts: Sequence[Coherence]) -> Coherence:
        """The figures of several folds together."""
        clips = sum(map(len, parts))
        return Coherence(
            np.concatenate([part.found for part in parts]),
            np.concatenate([part.separation for part in parts]),
            np.concatenate([part.recording for part in parts]),
            sum(part.chance * len(part) for part in parts) / clips,
        )


def coherence_of(clips: Sequence[HeldClip] | Sequence[Frames], embed: Embed) -> Coherence:
    """How well frames of first halves find their clip's second half among those of all `clips`.

    Args:
        clips: two or more; frames alone, [n, F], count as a recording each.
        embed: from features to embeddings; cosine similarity is used.
    """
    held: list[HeldClip] = []
    for number, clip in enumerate(clips):
        held.append(clip if isinstance(clip, HeldClip) else HeldClip(np.asarray(clip), number))
    halves = [len(clip.frames) // 2 for clip in held]
    rows = np.concatenate([clip.frames for clip in held])
    vectors = _unit(embed(rows))
    split = np.split(vectors, np.cumsum([len(clip.frames) for clip in held])[:-1])
    targets = _unit(np.stack([part[half:].mean(axis=0) for part, half in zip(split, halves)]))  # [C, D]
    count = len(held)
    found, separation = np.empty(count), np.empty(count)
    for clip, (part, half) in enumerate(zip(split, halves)):
        similarity = part[:half] @ targets.T  # [half, C]
        own, others = similarity[:, clip], np.delete(similarity, clip, axis=1)
        found[clip] = (own > others.max(axis=1)).mean()
        spread = max(float(others.std()), COSINE_ROUNDING)
        separation[clip] = (own.mean() - others.mean()) / spread
    recording = np.array([clip.recording for clip in held], np.int64)
    return Coherence(found, separation, recording, 1 / count)


def _unit(rows: npt.NDArray[np.floating]) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float64)


@dataclass(frozen=True)
class Comparison:
    """Whether a change of the network improves the figures on the same held-out clips.

    Attributes:
        before: figures of the network as it was.
        after: figures of the changed one.
        share: interval of the difference of the shares.
        separation: interval of the difference of the separations.
    """

    before: Coherence
    after: Coherence
    share: tuple[float, float]
    separation: tuple[float, float]

    @staticmethod
    def of(before: Coherence, after: Coherence) -> Comparison:
        """Compare the figures clip by clip."""
        recordings = before.recording
        if len(np.unique(recordings)) < 2:  # pieces of one recording
            recordings = np.arange(len(recordings))
        return Comparison(
            before,
            after,
            _interval(after.found - before.found, recordings),
            _interval(after.separation - before.separation, recordings),
        )

    @property
    def improves(self) -> bool:
        """Whether more is found beyond chance, and clips stand out no less."""
        return self.share[0] > 0 and self.separation[1] >= 0

    @property
    def reason(self) -> str:
        """Why it is, or is not, an improvement."""
        low, high = self.share
        gain = self.after.share - self.before.share
        text = f"{100 * gain:+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}"
        if low <= 0:
            return text + ", which is not clearly above 0"
        if self.improves:
            return text
        low, high = self.separation
        return text + f", but clips stand out less (separation {low:+.2f} to {high:+.2f})"


def _interval(differences: Floats, recordings: npt.NDArray[np.int64]) -> tuple[float, float]:
    """95% interval of the mean difference, whole recordings drawn with replacement."""
    number = np.unique(recordings, return_inverse=True)[1]
    sums, clips = np.bincount(number, differences), np.bincount(number)
    count = len(clips)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    means = (drawn @ sums) / (drawn @ clips)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Validation:
    """Settings chosen on held-out clips, and the figures there.

    Attributes:
        start: figures of the start's own features; None where clips were too few to hold any out.
        adapted: figures of the adaptation.
        shrinkage: of W and T, chosen.
        size: directions to keep; None for all.
    """

    start: Coherence | None
    adapted: Coherence | None
    shrinkage: float
    size: int | None

    @cached_property
    def comparison(self) -> Comparison | None:
        """The adaptation against the start; None where nothing was held out."""
        if self.start is None or self.adapted is None:
            return None
        return Comparison.of(self.start, self.adapted)

    @property
    def keeps_start(self) -> bool:
        """Whether the adaptation is not clearly better than the start, and is to be dropped."""
        return self.comparison is not None and not self.comparison.improves


def cross_validate(
    folds: Sequence[ScatterSums],
    held: Sequence[Sequence[HeldClip]],
    shrinkages: Sequence[float] = SHRINKAGES,
    sizes: Sequence[int] = SIZES,
    size: int | None = None,
) -> Validation:
    """Choose shrinkage and number of directions, and compare with the start, on clips held out in turn.

    Args:
        folds: sums over the clips of each fold.
        held: some clips of each fold, see `coherence_of`.
        shrinkages: to choose among.
        sizes: numbers of directions to choose among, besides all; a size is looked at where clips are at
            least `CLIPS_PER_DIRECTION` times as many.
        size: fixes the number of directions.

    Raises:
        TceError: footage that nothing can be fitted to, see `decompose`.
    """
    trials = []
    for number, clips in enumerate(held):
        others = [part for place, part in enumerate(folds) if place != number and part.paired]
        if len(clips) >= LEAST_CLIPS and others:
            try:
                trials.append((clips, decompose(ScatterSums.merged(others))))
            except TceError:  # the other folds hold still: only all of them together may have something
                continue
    if not trials:
        return Validation(None, None, UNCHECKED_SHRINKAGE, size)
    start = Coherence.joined([coherence_of(clips, lambda rows: rows) for clips, _ in trials])
    table = [[_figures(clips, parts, share) for share in shrinkages] for clips, parts in trials]
    best = _best(table)
    clips_seen = sum(part.clips for part in folds)
    if size is None:
        wanted = [n for n in sizes if n < folds[0].size and CLIPS_PER_DIRECTION * n <= clips_seen]
        size = _fewest(trials, shrinkages[best], wanted, Coherence.joined([row[best] for row in table]))
    # For each fold the choice of the others; its own, where there is one fold alone.
    chosen = [_best(table[:n] + table[n + 1 :] or table) for n in range(len(table))]
    if size is None:
        adapted = Coherence.joined([row[choice] for row, choice in zip(table, chosen)])
    else:
        maps = [parts.solve(shrinkages[choice], size) for (_, parts), choice in zip(trials, chosen)]
        adapted = Coherence.joined([coherence_of(clips, fit) for (clips, _), fit in zip(trials, maps)])
    return Validation(start, adapted, shrinkages[best], size)


def _figures(clips: Sequence[HeldClip], parts: Decomposition, shrinkage: float) -> Coherence:
    # Distances in all directions need no second decomposition: whitening gives the same cosines.
    whiten = parts.whitening(shrinkage)
    return coherence_of(clips, lambda rows: (rows - parts.mean) @ whiten)


def _best(table: Sequence[Sequence[Coherence]]) -> int:
    """The column that is best over the rows' clips together."""
    columns = [Coherence.joined([row[column] for row in table]).rank for column in range(len(table[0]))]
    return max(range(len(columns)), key=columns.__getitem__)


def _fewest(
    trials: Sequence[tuple[Sequence[HeldClip], Decomposition]],
    shrinkage: float,
    sizes: Sequence[int],
    whole: Coherence,
) -> int | None:
    """The smallest size that finds no less than all directions; None for all."""
    if not sizes:
        return None
    maps: list[LinearMap] = [parts.solve(shrinkage) for _, parts in trials]
    for size in sorted(sizes):
        parts = [coherence_of(clips, fit.first(size)) for (clips, _), fit in zip(trials, maps)]
        if Coherence.joined(parts).share >= whole.share:
            return size
    return None
