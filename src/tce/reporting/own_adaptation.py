"""The start adapted to the footage, as `tce adapt` does it, from features that are there already.

Three things come of it: the map of all clips, which is written as a run; maps that have not seen the
recording they are checked on; and how much maps of different halves of the footage agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tce.adaptation.adapt import choose_map
from tce.adaptation.guard import LEAST_CLIPS, SHRINKAGES, Coherence, Validation, coherence_of
from tce.adaptation.linear import NO_GROUP, Decomposition, LinearMap, Piece, ScatterSums, decompose
from tce.adaptation.statistics import FOLDS, SPLIT, FootageStatistics
from tce.errors import TceError

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]

HALVES = 3  # random halvings of the recordings
NEIGHBOURS = 5


@dataclass
class OwnAdaptation:
    """The adaptation of the start to the footage.

    Attributes:
        statistics: as `tce adapt` keeps them; None where the footage allows no adaptation.
        validation: what it found on held-out clips.
        map: of all clips; None where the start is kept.
        held: each piece's vectors by a map that has not seen its recording, [n, D]; None without such maps.
        why_not: why there is no map or no check, in words; empty where there is.
    """

    statistics: FootageStatistics | None = None
    validation: Validation | None = None
    map: LinearMap | None = None
    held: list[Rows] | None = None
    why_not: str = ""


@dataclass
class Stability:
    """Maps fitted to one random half of the recordings, checked on the other half.

    Attributes:
        gains: of each fit, the share of frames that find their clip, less the start's.
        agreement: share of a piece's nearest pieces that the maps of both halves name alike; a mean.
    """

    gains: list[float] = field(default_factory=list)
    agreement: float | None = None


def adapt_to(
    statistics: FootageStatistics,
    ids: Sequence[str],
    recordings: Sequence[str],
    clips: Sequence[Sequence[Piece]],
    groups: Sequence[str] | None,
) -> OwnAdaptation:
    """Fit the map, and the maps that check it.

    Args:
        statistics: empty.
        ids: of the clips.
        recordings: of each clip.
        clips: each its pieces.
        groups: of each clip, where groups are named.
    """
    statistics.place(recordings)
    for number, (name, recording, pieces) in enumerate(zip(ids, recordings, clips, strict=True)):
        statistics.add(name, recording, pieces, NO_GROUP if groups is None else groups[number])
    statistics.finish()
    if statistics.pieces < 2:
        return OwnAdaptation(why_not="one short clip is too little to adapt to")
    try:
        validation, head = choose_map(statistics)
    except TceError as error:
        return OwnAdaptation(why_not=f"nothing can be fitted to this footage: {error}")
    folds = fold_of_pieces(statistics, recordings, clips)
    held = _held_vectors(statistics, clips, folds, validation)
    why = "" if held is not None else "too few clips to hold any out, so the adaptation cannot be checked"
    return OwnAdaptation(statistics, validation, head, held, why)


def fold_of_pieces(
    statistics: FootageStatistics, recordings: Sequence[str], clips: Sequence[Sequence[Piece]]
) -> Ints:
    """The fold of every piece, in which figures on held-out pieces are made."""
    folds: list[int] = []
    for recording, pieces in zip(recordings, clips, strict=True):
        fold = statistics.fold_of(recording)
        if fold != SPLIT:
            folds += [fold] * len(pieces)
        else:  # as the statistics cut a recording into the folds
            blocks = np.array_split(np.arange(len(pieces)), FOLDS)
            folds += [number for number, block in enumerate(blocks) for _ in block]
    return np.array(folds, np.int64)


def _held_vectors(
    statistics: FootageStatistics, clips: Sequence[Sequence[Piece]], folds: Ints, validation: Validation
) -> list[Rows] | None:
    """Every piece by the map of the other folds, with the shrinkage that the other folds choose."""
    pieces = [np.asarray(piece.features, np.float32) for clip in clips for piece in clip]
    parts: dict[int, Decomposition] = {}
    table: dict[int, list[Coherence]] = {}
    for fold in range(FOLDS):
        others = [sums for number, sums in enumerate(statistics.folds) if number != fold and sums.paired]
        own = [pieces[n] for n in np.flatnonzero(folds == fold) if len(pieces[n]) > 1]
        if not others or len(own) < LEAST_CLIPS:
            return None
        try:
            parts[fold] = decompose(ScatterSums.merged(others))
        except TceError:
            return None
        table[fold] = [
            coherence_of(own, _Whitened(parts[fold].mean, parts[fold].whitening(share)))
            for share in SHRINKAGES
        ]
    found: list[Rows] = [np.empty((0, 0), np.float32)] * len(pieces)
    for fold, part in parts.items():
        rest = [row for number, row in table.items() if number != fold]
        shrinkage = SHRINKAGES[_best(rest)]
        fitted = part.solve(shrinkage, validation.size)
        for number in np.flatnonzero(folds == fold):
            found[number] = fitted(pieces[number]).astype(np.float32)
    return found


@dataclass(frozen=True)
class _Whitened:
    """Features [n, F] less their mean, whitened."""

    mean: npt.NDArray[np.float64]
    matrix: npt.NDArray[np.float64]

    def __call__(self, rows: Rows) -> npt.NDArray[np.float64]:
        return (rows - self.mean) @ self.matrix


def _best(rows: Sequence[Sequence[Coherence]]) -> int:
    ranks = [Coherence.joined([row[column] for row in rows]).rank for column in range(len(rows[0]))]
    return max(range(len(ranks)), key=ranks.__getitem__)


def stability_of(
    recordings: Sequence[str], clips: Sequence[Sequence[Piece]], shrinkage: float, seed: int
) -> Stability:
    """Fit maps to random halves of the recordings (or of one recording's pieces), and check on the rest.

    Args:
        recordings: of each clip.
        clips: each its pieces.
        shrinkage: of the maps.
        seed: of the halves.

    Returns:
        Empty where a half has fewer than two pieces, or nothing can be fitted to it.
    """
    owners = [name for name, clip in zip(recordings, clips, strict=True) for _ in clip]
    pieces = [piece for clip in clips for piece in clip]
    if len(set(owners)) < 2:  # one recording: its pieces are halved
        owners = [str(number) for number in range(len(pieces))]
    names = np.array(sorted(set(owners)))
    found = Stability()
    agreements = []
    for draw in range(HALVES):
        first = set(names[np.random.default_rng([seed, draw]).permutation(len(names))[: len(names) // 2]])
        inside = np.array([owner in first for owner in owners])
        maps = []
        for fit in (inside, ~inside):
            fitted = _fit(pieces, fit, shrinkage)
            test = [
                np.asarray(pieces[n].features) for n in np.flatnonzero(~fit) if len(pieces[n].features) > 1
            ]
            if fitted is None or len(test) < LEAST_CLIPS:
                return Stability()
            maps.append(fitted)
            gain = coherence_of(test, fitted).share - coherence_of(test, lambda rows: rows).share
            found.gains.append(float(gain))
        agreements.append(_agreement(pieces, maps))
    found.agreement = float(np.mean(agreements))
    return found


def _fit(pieces: Sequence[Piece], which: npt.NDArray[np.bool_], shrinkage: float) -> _Whitened | None:
    sums = ScatterSums(np.asarray(pieces[0].features).shape[1])
    for number in np.flatnonzero(which).tolist():
        sums.add([pieces[number]])
    try:
        parts = decompose(sums)
    except TceError:
        return None
    return _Whitened(parts.mean, parts.whitening(shrinkage))


def _agreement(pieces: Sequence[Piece], maps: Sequence[_Whitened]) -> float:
    """Mean overlap of the nearest pieces by two maps."""
    means = np.stack([np.asarray(piece.features, np.float64).mean(axis=0) for piece in pieces])
    k = min(NEIGHBOURS, len(means) - 1)
    chosen = []
    for fitted in maps:
        rows = fitted(means.astype(np.float32))
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        similarity = rows @ rows.T
        np.fill_diagonal(similarity, -np.inf)
        chosen.append(np.argsort(-similarity, axis=1)[:, :k])
    shared = [len(set(a) & set(b)) / k for a, b in zip(*chosen, strict=True)]
    return float(np.mean(shared))
