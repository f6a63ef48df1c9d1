"""Figures that need no labels: frames that find their own clip, coherence in time, rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tce.adaptation.guard import LEAST_CLIPS, coherence_of
from tce.evaluation.coherence import (
    Tracks,
    across_distance,
    curvature,
    neighbour_distance,
    spread,
    within_distance,
)
from tce.evaluation.probes import unit_rows
from tce.evaluation.shortcut import chance_level, knn_hits

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

LEAST_FRAMES = 3  # of a piece, to see a step in time and the next one


@dataclass
class Retrieval:
    """How well first halves find their clip's second half, for each piece.

    Attributes:
        found: [P] share of the first half's frames; NaN for a piece that could not be asked.
        separation: [P] see `tce.adaptation.guard.Coherence`.
        chance: share that random vectors would find.
    """

    found: Values
    separation: Values
    chance: float


def held_out_halves(pieces: Sequence[Rows], folds: Ints) -> Retrieval | None:
    """First halves look for second halves among the pieces of their fold.

    Args:
        pieces: vectors of each piece's frames [n, D].
        folds: [P] the fold of each piece; pieces of one fold compete.

    Returns:
        The figures; None where no fold has two pieces of two frames or more.
    """
    found = np.full(len(pieces), np.nan)
    separation = np.full(len(pieces), np.nan)
    chances: list[float] = []
    for fold in np.unique(folds):
        members = [n for n in np.flatnonzero(folds == fold).tolist() if len(pieces[n]) > 1]
        if len(members) < LEAST_CLIPS:
            continue
        figures = coherence_of([pieces[n] for n in members], lambda rows: rows)
        found[members], separation[members] = figures.found, figures.separation
        chances += [figures.chance] * len(members)
    return Retrieval(found, separation, float(np.mean(chances))) if chances else None


@dataclass
class Motion:
    """How vectors move in time, and how many dimensions they use.

    Attributes:
        figures: `neighbour`, `within`, `across` (mean cosine distances of frames that follow one another, of
            two of one piece, of two of different recordings), `smoothness`, `curvature` (degrees),
            `effective_rank`, `uniformity`; None where this footage cannot give one.
        smooth: [P] 1 - neighbour / across of each piece; NaN where there is none.
    """

    figures: dict[str, float | None] = field(default_factory=dict)
    smooth: Values = field(default_factory=lambda: np.zeros(0))


def motion_of(pieces: Sequence[Rows], recordings: Sequence[str], seed: int) -> Motion:
    """Coherence in time of the sampled frames, collapse and rank.

    Args:
        pieces: vectors of each piece's frames [n, D].
        recordings: of each piece.
        seed: of the rows that uniformity and rank are made of.
    """
    long = [n for n, rows in enumerate(pieces) if len(rows) >= LEAST_FRAMES]
    smooth = np.full(len(pieces), np.nan)
    if not long:
        return Motion({}, smooth)
    units = [unit_rows(pieces[n]) for n in long]
    vectors = np.concatenate(
        [np.stack([rows[:-2], rows[1:-1], rows[2:]], axis=1) for rows in units]
    )  # [M, 3, D]
    counts = np.array([len(rows) - 2 for rows in units])
    clip = np.repeat(np.arange(len(units)), counts)
    tracks = Tracks(vectors, clip, np.zeros(len(clip)))
    owners = [recordings[n] for n in long]
    several = len(set(owners)) > 1
    each = {
        "neighbour": neighbour_distance(tracks),
        "within": within_distance(tracks),
        # Within one recording, its other pieces take the place of other recordings.
        "across": across_distance(tracks, owners if several else np.arange(len(units))),
        "curvature": curvature(tracks),
    }
    figures: dict[str, float | None] = {name: _mean(values) for name, values in each.items()}
    near, far = figures["neighbour"], figures["across"]
    figures["smoothness"] = 1 - near / far if near is not None and far else None
    others = spread(tracks, seed)
    figures |= {name: _finite(others[name]) for name in ("effective_rank", "uniformity")}
    with np.errstate(divide="ignore", invalid="ignore"):
        smooth[long] = np.where(each["across"] > 0, 1 - each["neighbour"] / each["across"], np.nan)
    return Motion(figures, smooth)


@dataclass
class GroupRecall:
    """Whether clips find clips of their own group: a person, a camera, a session.

    Attributes:
        hits: [n] 1 or 0; NaN for a clip whose group has no other recording.
        chance: share that a random order would give.
    """

    hits: Values
    chance: float


def group_recall(
    vectors: Rows, groups: Sequence[str], recordings: Sequence[str], k: int, seed: int
) -> GroupRecall | None:
    """Nearest clips vote for the group, hits of the query's own recording removed.

    Args:
        vectors: unit vectors of clips [n, D].
        groups: of each clip.
        recordings: of each clip.
        k: neighbours that vote.
        seed: of the chance level's draws.

    Returns:
        None where no group has two recordings.
    """
    if len(set(groups)) < 2:
        return None
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    own = np.unique(np.asarray(recordings), return_inverse=True)[1]
    votes = min(k, len(vectors) - 1)
    hits = knn_hits(vectors, group, own, None, votes, 0.07)
    if not np.isfinite(hits).any():
        return None
    return GroupRecall(hits, chance_level(group, own, None, hits, votes, seed))


def _mean(values: npt.NDArray[Any]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
