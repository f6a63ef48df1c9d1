"""Pictures of the report: a map of the clips for each network, and what each network finds alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tce.evaluation.probes import unit_rows
from tce.reporting.candidates import UNTRAINED, Candidate
from tce.reporting.comparison import Compared, Looked

Ints = npt.NDArray[np.int64]

MOST_POINTS = 800  # of a map
COLOURS = 10
QUERIES, NEIGHBOURS = 5, 4
LEAST_MAPPED = 8


@dataclass
class Alike:
    """A piece and what a network finds nearest to it.

    Attributes:
        query: number of the piece.
        nearest: network's name -> numbers of pieces, the nearest first.
    """

    query: int
    nearest: dict[str, list[int]]


@dataclass
class Pictures:
    """What the page draws of the footage itself.

    Attributes:
        shown: numbers of the pieces on the maps.
        maps: network's name -> points [n, 2].
        kinds: [n] colour of each point, -1 for none.
        legend: names of the colours.
        coloured_by: in words.
        alike: some pieces with their nearest ones.
    """

    shown: Ints
    maps: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    kinds: list[int] = field(default_factory=list)
    legend: list[str] = field(default_factory=list)
    coloured_by: str = ""
    alike: list[Alike] = field(default_factory=list)


def make_pictures(candidates: Sequence[Candidate], found: Compared, looked: Looked, seed: int) -> Pictures:
    """Lay out the maps and search the neighbours of some pieces, chosen at random.

    Args:
        candidates: the networks, with vectors.
        found: their figures.
        looked: the footage.
        seed: of the choice of pieces and of the maps.
    """
    count = len(looked.owners)
    rng = np.random.default_rng([seed, 7])
    shown = np.sort(rng.permutation(count)[:MOST_POINTS])
    pictures = Pictures(shown)
    pictures.kinds, pictures.legend, pictures.coloured_by = _colours(found, looked, shown)
    drawn = [one for one in candidates if one.pieces and one.role != UNTRAINED][:2]
    for one in drawn:
        means = np.stack([unit_rows(rows).mean(axis=0) for rows in one.pieces]).astype(np.float32)
        if len(shown) >= LEAST_MAPPED:
            pictures.maps[one.name] = _layout(means[shown], seed)
        _search(pictures, one.name, unit_rows(means), looked, rng.spawn(1)[0] if not pictures.alike else None)
    return pictures


def _layout(rows: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float64]:
    from tce.visualize.reduce import fit_tsne

    return np.asarray(fit_tsne(rows, seed=seed, num_iterations=400))


def _colours(found: Compared, looked: Looked, shown: Ints) -> tuple[list[int], list[str], str]:
    """A colour for each point: its class, else its group, else its recording; the commonest ten."""
    owners = looked.owners[shown]
    if found.split is not None:
        labels = found.split.labels
        names = [found.split.classes[labels[n]] if labels[n] >= 0 else "" for n in owners]
        word = "class"
    elif looked.groups is not None:
        names, word = [looked.groups[n] for n in owners], "group"
    else:
        names, word = [looked.recordings[n] for n in owners], "recording"
    counts = Counter(name for name in names if name)
    legend = sorted(name for name, _ in counts.most_common(COLOURS))
    place = {name: number for number, name in enumerate(legend)}
    more = f"; the {COLOURS} commonest of {len(counts)}, the others grey" if len(counts) > COLOURS else ""
    return [place.get(name, -1) for name in names], legend, word + more


def _search(
    pictures: Pictures,
    name: str,
    rows: npt.NDArray[np.float32],
    looked: Looked,
    rng: np.random.Generator | None,
) -> None:
    """The nearest pieces of other recordings (of other clips or times, where there is one recording)."""
    recordings = np.asarray(looked.piece_recordings, str)
    several = len(set(recordings)) > NEIGHBOURS
    if rng is not None:
        queries = np.sort(rng.permutation(len(rows))[:QUERIES])
        pictures.alike = [Alike(int(query), {}) for query in queries]
    for one in pictures.alike:
        similarity = rows @ rows[one.query]
        apart = recordings == recordings[one.query] if several else np.arange(len(rows)) == one.query
        similarity[apart] = -np.inf
        order = np.argsort(-similarity, kind="stable")[:NEIGHBOURS]
        one.nearest[name] = [int(n) for n in order if np.isfinite(similarity[n])]
