"""Every figure of the report: each network on the same clips, and its difference to the start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tce.evaluation.metrics import confusion, mean_interval
from tce.evaluation.probes import unit_rows
from tce.reporting.candidates import UNTRAINED, Candidate
from tce.reporting.label_free import (
    GroupRecall,
    Motion,
    Retrieval,
    group_recall,
    held_out_halves,
    motion_of,
)
from tce.reporting.verdict import (
    CEILING,
    KEEP,
    LEAST_RECORDINGS,
    Difference,
    Verdict,
    collapse,
    difference,
    difference_words,
    verdict,
)
from tce.reporting.with_labels import (
    LabelFigures,
    LabelSplit,
    centred,
    clip_vectors,
    confused_pairs,
    label_figures,
)

if TYPE_CHECKING:
    from tce.data.catalog import Catalog

log = logging.getLogger("tce.reporting")

Interval = tuple[float, float]
Ints = npt.NDArray[np.int64]
KNN, RETRIEVAL = "kNN accuracy", "frames that find their own clip"
SEEN_ENOUGH = (
    0.05  # share of the clips that a run has seen, from which its figures without labels are flattered
)


@dataclass
class Looked:
    """The footage as it was seen.

    Attributes:
        catalog: the clips that could be read.
        owners: [P] the clip of each piece.
        folds: [P] the fold in which a piece is compared.
        groups: of each clip, where groups are named.
        pictures: [P] a small JPEG of each piece.
        frames: how many frames were seen.
    """

    catalog: Catalog
    owners: Ints
    folds: Ints
    groups: list[str] | None
    pictures: list[bytes]
    frames: int

    @property
    def recordings(self) -> list[str]:
        """Of each clip."""
        return [str(name) for name in self.catalog.sources]

    @property
    def piece_recordings(self) -> list[str]:
        """Of each piece."""
        names = self.recordings
        return [names[owner] for owner in self.owners]


@dataclass
class Network:
    """A network's figures.

    Attributes:
        name: unique.
        role: "start", "adapted", "run", "untrained" or "centred".
        facts: what it is; empty for a centred one.
        retrieval: without labels.
        motion: in time.
        group: whether clips find their group.
        labels: with labels.
        against: figure -> difference to the start.
        verdict: of the first figure; None for the start and the untrained one.
        hint: the flags with which other commands use it.
    """

    name: str
    role: str
    facts: dict[str, Any] = field(default_factory=dict)
    retrieval: Retrieval | None = None
    motion: Motion | None = None
    group: GroupRecall | None = None
    labels: LabelFigures | None = None
    against: dict[str, Difference] = field(default_factory=dict)
    verdict: Verdict | None = None
    hint: str = ""


@dataclass
class Compared:
    """All of it.

    Attributes:
        networks: the start first, the untrained one last.
        split: of the labelled clips; None without labels.
        measure: the figure that the verdicts follow from.
        recordings: of the footage.
        why_no_labels: in words, where there is no split.
        limits: what this footage cannot tell.
        cautions: what a reader must know of the figures.
    """

    networks: list[Network]
    split: LabelSplit | None
    measure: str
    recordings: int
    why_no_labels: str = ""
    limits: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)

    @property
    def start(self) -> Network:
        """The start."""
        return self.networks[0]

    @property
    def judged(self) -> list[Network]:
        """The networks that have a verdict, the first of which heads the report."""
        return [one for one in self.networks if one.verdict is not None]


def compare_networks(
    candidates: Sequence[Candidate],
    looked: Looked,
    split: LabelSplit | str,
    k: int,
    seed: int,
    group: str | None = None,
) -> Compared:
    """Measure every candidate, and compare it with the first, the start.

    Args:
        candidates: the start first; with their vectors.
        looked: the footage.
        split: of the labelled clips, or why there is none.
        k: neighbours that vote.
        seed: of draws, halves and the bootstrap.
        group: what names the groups.
    """
    labelled = split if isinstance(split, LabelSplit) else None
    networks = []
    for candidate in candidates:
        log.info("comparing: %s", candidate.name)
        networks += _measure(candidate, looked, labelled, k, seed, group)
    order = {"start": 0, "adapted": 1, "run": 2, "centred": 3, UNTRAINED: 4}
    networks.sort(key=lambda one: order[one.role])
    found = Compared(networks, labelled, KNN if labelled else RETRIEVAL, len(set(looked.recordings)))
    found.why_no_labels = split if isinstance(split, str) else ""
    for one in networks[1:]:
        _against(one, found, looked, seed)
    for one in networks:
        _judge(one, found)
    return found


def _measure(
    one: Candidate, looked: Looked, split: LabelSplit | None, k: int, seed: int, group: str | None
) -> list[Network]:
    """A candidate's figures, and those of its vectors less their group's mean."""
    clips = len(looked.catalog)
    fair = one.held if one.role == "adapted" else one.pieces
    network = Network(one.name, one.role, one.facts)
    network.hint = f"--ckpt {one.source}" if one.source else ""
    if fair:
        network.retrieval = held_out_halves(fair, looked.folds)
        network.motion = motion_of(fair, looked.piece_recordings, seed)
    if not one.pieces:
        return [network]
    vectors = clip_vectors(one.pieces, looked.owners, clips, one.unit)
    if looked.groups is not None:
        rows = unit_rows(vectors)
        network.group = group_recall(rows, looked.groups, looked.recordings, k, seed)
    if split is None:
        return [network]
    groups = [str(name) for name in looked.catalog.groups]
    network.labels = label_figures(vectors, split, groups, k, seed)
    if looked.groups is None or one.role == UNTRAINED:
        return [network]
    raw = clip_vectors(one.pieces, looked.owners, clips, unit=False)
    less = Network(f"{one.name}, centred", "centred", {"of": one.name})
    less.hint = f"{network.hint} --center {group}"
    rows = centred(raw, looked.groups)
    less.labels = label_figures(rows, split, groups, k, seed, everything=False)
    less.group = group_recall(unit_rows(rows), looked.groups, looked.recordings, k, seed)
    return [network, less]


def _against(one: Network, found: Compared, looked: Looked, seed: int) -> None:
    """The network's differences to the start."""
    start = found.start
    if one.labels is not None and start.labels is not None and found.split is not None:
        tested = [looked.recordings[n] for n in found.split.tested]
        pairs = {KNN: (start.labels.knn, one.labels.knn)}
        if one.labels.linear is not None and start.labels.linear is not None:
            pairs["linear classifier"] = (start.labels.linear, one.labels.linear)
        for shot in one.labels.few:
            pairs[few_name(shot)] = (start.labels.few[shot].mean(axis=0), one.labels.few[shot].mean(axis=0))
        for name, (before, after) in pairs.items():
            _put(one, name, difference(before, after, tested, seed))
    if one.retrieval is not None and start.retrieval is not None:
        names = looked.piece_recordings
        _put(one, RETRIEVAL, difference(start.retrieval.found, one.retrieval.found, names, seed))
        found_more = difference(start.retrieval.separation, one.retrieval.separation, names, seed)
        _put(one, "separation", found_more)


def few_name(shot: int) -> str:
    """How the report names accuracy with so many labelled clips a class."""
    return f"{shot} labelled clip{'s' * (shot != 1)} a class"


def _put(one: Network, name: str, found: Difference | None) -> None:
    if found is not None:
        one.against[name] = found


def _judge(one: Network, found: Compared) -> None:
    """The network's verdict, by the first figure."""
    if one.role in ("start", UNTRAINED):
        return
    start, moved = found.start.motion, one.motion
    collapsed = ""
    if start is not None and moved is not None:
        collapsed = collapse(
            moved.figures.get("effective_rank"),
            start.figures.get("effective_rank"),
            moved.figures.get("across"),
            start.figures.get("across"),
        )
    flattered = found.split is None and one.facts.get("seen", 0.0) > SEEN_ENOUGH
    if flattered:
        share = f"{one.facts['seen']:.0%}"
        one.verdict = Verdict(
            "too little", f"cannot be told without labels: it has seen {share} of these clips", "give labels"
        )
        return
    one.verdict = verdict(
        one.against.get(found.measure), found.recordings, collapsed, labelled=found.split is not None
    )
    if one.role == "adapted" and one.facts["numbers"] is None and found.recordings >= LEAST_RECORDINGS:
        apart = one.against.get(RETRIEVAL)
        words = "" if apart is None else f" ({difference_words(apart)})"
        text = f"no difference seen: not better on held-out clips{words}, so that tce adapt keeps the start"
        one.verdict = Verdict("none", text, KEEP)


def interval_of(values: npt.NDArray[np.float64], recordings: Sequence[str], seed: int) -> Interval | None:
    """The 95% interval of a mean over recordings; of [draws, n], over draws as well. NaN is left out."""
    rows = np.atleast_2d(values)
    known = np.isfinite(rows).all(axis=0)
    if not known.any():
        return None
    names = np.asarray(recordings, str)[known]
    return mean_interval([rows[:, known] if len(rows) > 1 else rows[0, known]], [names], seed)


def confusion_of(one: Network, split: LabelSplit) -> tuple[npt.NDArray[np.int64], list[tuple[str, str, int]]]:
    """The network's confusion matrix by kNN, and its commonest mistakes."""
    assert one.labels is not None
    own = split.labels[split.tested]
    counts = confusion(own, one.labels.predicted, len(split.classes))
    return counts, confused_pairs(own, one.labels.predicted, split.classes)


def note_limits(found: Compared, looked: Looked, why_no_adaptation: str) -> None:
    """Write down what this footage cannot tell, and what a reader must know."""
    limits, cautions, start = found.limits, found.cautions, found.start
    recordings = len(set(looked.recordings))
    if found.split is None:
        limits.append(f"whether classes are told apart: {found.why_no_labels}")
    if why_no_adaptation:
        limits.append(f"what the adaptation brings: {why_no_adaptation}")
    if start.retrieval is None:
        limits.append(
            "whether frames find their own clip: two clips of two frames or more must be held out together"
        )
    if recordings == 1:
        limits.append("how sure a difference is: there is one recording, and its pieces are not independent")
    if looked.groups is None:
        limits.append("whether people or cameras are recognised in place of content: name them with --group")
    elif start.group is None:
        limits.append("whether groups are recognised: no group has two recordings")
    if start.retrieval is not None and np.nanmean(start.retrieval.found) > CEILING:
        cautions.append(
            f"with the start, {np.nanmean(start.retrieval.found):.1%} of the frames find their own clip "
            f"already: "
            "there is little room to be better, and the separation says more"
        )
    _caution_untrained(found)
    for one in found.networks:
        if one.facts.get("seen", 0.0) > SEEN_ENOUGH:
            cautions.append(
                f"{one.name} was trained or adapted on {one.facts['seen']:.0%} of these clips: its figures "
                "without labels are flattered"
            )
    if found.split is not None:
        cautions += found.split.notes
        if any(one.role in ("adapted", "centred") for one in found.networks):
            cautions.append(
                "the adaptation and the groups' means use all clips without labels, the tested ones included"
            )
    elif found.judged:
        cautions.append(
            "without labels the report says whether frames of a clip are recognised, not whether your task "
            "gains: a few labelled clips of each class tell more"
        )


def _caution_untrained(found: Compared) -> None:
    """An untrained network that does as well as the start shows that the figure is about pixels."""
    untrained = next((one for one in found.networks if one.role == UNTRAINED), None)
    if untrained is None:
        return
    apart = untrained.against.get(found.measure)
    if apart is not None and apart.interval is not None and apart.interval[1] >= 0:
        found.cautions.append(
            f"an untrained network reaches {apart.other:.1%} in {found.measure}, the start "
            f"{apart.start:.1%}: "
            "here this figure is not evidence that content is recognised"
        )
