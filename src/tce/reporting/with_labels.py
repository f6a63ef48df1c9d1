"""Figures with labels: kNN, few labelled clips, a linear classifier, and what is confused with what."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tce.data.splits import subtract_group_means
from tce.errors import TceError
from tce.evaluation.fewshot import centroid_scores, draw_order, possible_shots
from tce.evaluation.metrics import top_k
from tce.evaluation.probes import DEFAULT_PENALTY, fit_linear, knn_scores, unit_rows

if TYPE_CHECKING:
    from tce.data.catalog import Catalog

log = logging.getLogger("tce.reporting")

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

FOLDS = 5
SHOTS = (1, 2, 5, 10, 20)
DRAWS = 20
TEMPERATURE = 0.07


@dataclass
class LabelSplit:
    """Which labelled clips are tested with which.

    Attributes:
        folds: pairs of training and test clips, numbers of clips; each clip is tested once at most.
        words: how they were chosen.
        classes: names of the classes that occur.
        labels: [n] class of every clip, -1 where unknown.
        notes: what a reader must know.
    """

    folds: list[tuple[Ints, Ints]]
    words: str
    classes: list[str]
    labels: Ints
    notes: list[str] = field(default_factory=list)

    @property
    def tested(self) -> Ints:
        """Numbers of all tested clips, fold by fold."""
        return np.concatenate([test for _, test in self.folds])


def split_labels(catalog: Catalog, given: bool, seed: int) -> LabelSplit | str:
    """Training and test clips: the lists' split, or whole groups held out in turn.

    Args:
        catalog: the clips that were seen.
        given: the lists (or a packed collection) may say which clips train and test.
        seed: of the folds.

    Returns:
        The split, or why there can be none, in words.
    """
    labels, known = _dense(catalog)
    if not known:
        return (
            "the clips have no classes: give --lists, or put the clips of each class in a folder of its name"
        )
    if len(known) < 2:
        return f"all labelled clips are of one class, {known[0]!r}"
    splits = catalog.splits
    train = np.flatnonzero((splits == "train") & (labels >= 0))
    test = np.flatnonzero((splits == "test") & (labels >= 0))
    if not len(test):
        test = np.flatnonzero((splits == "val") & (labels >= 0))
    if given and len(train) and len(test):
        notes = []
        unseen = np.setdiff1d(labels[test], labels[train])
        if len(unseen):
            notes.append(f"{len(unseen)} classes of the test clips have no training clips")
        return LabelSplit([(train, test)], "the lists' training and test clips", known, labels, notes)
    return _cross_validated(catalog, labels, known, seed)


def _dense(catalog: Catalog) -> tuple[Ints, list[str]]:
    """Class numbers without holes, and the names of those that occur."""
    used = sorted(set(catalog.labels[catalog.labels >= 0].tolist()))
    place = {label: number for number, label in enumerate(used)}
    labels = np.array([place.get(label, -1) for label in catalog.labels.tolist()], np.int64)
    return labels, [catalog.classes[label] for label in used]


def _cross_validated(catalog: Catalog, labels: Ints, classes: list[str], seed: int) -> LabelSplit | str:
    """Whole groups held out in turn; recordings, where the groups are too few for that."""
    labelled = np.flatnonzero(labels >= 0)
    for names, word in ((catalog.groups, "groups"), (catalog.sources, "recordings")):  # noqa: B007
        own = np.unique(names[labelled].astype(str), return_inverse=True)[1]
        each = [len(np.unique(own[labels[labelled] == label])) for label in range(len(classes))]
        several = sum(count > 1 for count in each)
        if several >= 2:
            break
    else:
        return "no two classes have two recordings each, so that a class cannot be told from its recording"
    kept = labelled[np.isin(labels[labelled], [label for label, count in enumerate(each) if count > 1])]
    count = max(2, min(FOLDS, min(count for count in each if count > 1)))
    folds = _group_folds(labels[kept], own[np.isin(labelled, kept)], count, seed)
    notes = []
    if several < len(classes):
        notes.append(f"left out: {len(classes) - several} classes that one of the {word} alone shows")
    pairs = [(kept[folds != fold], kept[folds == fold]) for fold in range(count)]
    pairs = [(train, test) for train, test in pairs if len(train) and len(test)]
    words = f"{len(pairs)} times, whole {word} held out in turn"
    return LabelSplit(pairs, words, classes, labels, notes)


def _group_folds(labels: Ints, groups: Ints, count: int, seed: int) -> Ints:
    """The fold of each clip: groups stay whole, classes are spread over the folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.zeros(len(labels), np.int64)
    cutter = StratifiedGroupKFold(count, shuffle=True, random_state=seed % (1 << 32))
    for fold, (_, test) in enumerate(cutter.split(np.zeros(len(labels)), labels, groups)):
        found[test] = fold
    return found


@dataclass
class LabelFigures:
    """One network's figures on the tested clips, in the order of `LabelSplit.tested`.

    Attributes:
        knn: [n] 1 where the nearest training clips name the class, else 0.
        predicted: [n] the class that they name.
        linear: [n] the same by a linear classifier; None where it was left out.
        few: labelled clips a class -> [draws, n] by the nearest centroid.
    """

    knn: Values
    predicted: Ints
    linear: Values | None
    few: dict[int, Values]


def label_figures(
    vectors: Rows, split: LabelSplit, groups: Sequence[str], k: int, seed: int, everything: bool = True
) -> LabelFigures:
    """All figures of one network.

    Args:
        vectors: of each clip [n, D]: means over its frames, not of unit length.
        split: which clips train and test.
        groups: of each clip; the linear classifier's penalty is chosen on held-out ones.
        k: neighbours that vote.
        seed: of the draws of labelled clips.
        everything: False leaves the linear classifier and few labels out.
    """
    knn, predicted, linear = [], [], []
    few: dict[int, list[Values]] = {shot: [] for shot in common_shots(split)} if everything else {}
    count, labels = len(split.classes), split.labels
    for train, test in split.folds:
        rows, queries = unit_rows(vectors[train]), unit_rows(vectors[test])
        scores = knn_scores(queries, rows, labels[train], count, min(k, len(train)), TEMPERATURE)
        knn.append(top_k(scores, labels[test], 1).astype(np.float64))
        predicted.append(scores.argmax(axis=1))
        for shot, hits in few.items():
            hits.append(_few(queries, labels[test], rows, labels[train], count, shot, seed))
        if everything and len(np.unique(labels[train])) > 1:
            # Choosing the penalty costs seven fits: worth it for one split, too long for several.
            penalty = None if len(split.folds) == 1 else DEFAULT_PENALTY
            own = [str(groups[n]) for n in train]
            probe = fit_linear(vectors[train], labels[train], own, count, seed, penalty)
            linear.append(top_k(probe.scores(vectors[test]), labels[test], 1).astype(np.float64))
    whole = len(linear) == len(split.folds)
    return LabelFigures(
        np.concatenate(knn),
        np.concatenate(predicted),
        np.concatenate(linear) if whole else None,
        {shot: np.concatenate(hits, axis=1) for shot, hits in few.items()},
    )


def common_shots(split: LabelSplit) -> tuple[int, ...]:
    """Numbers of labelled clips that at least half of the classes have for training in every fold."""
    found = set(SHOTS)
    for train, _ in split.folds:
        try:
            found &= set(possible_shots(split.labels[train], split.classes, SHOTS)[0])
        except TceError:
            return ()
    return tuple(sorted(found))


def _few(queries: Rows, own: Ints, rows: Rows, labels: Ints, classes: int, shot: int, seed: int) -> Values:
    hits = []
    for draw in range(DRAWS):
        chosen = np.flatnonzero(draw_order(labels, seed, draw) < shot)
        scores = centroid_scores(queries, rows[chosen], labels[chosen], classes)
        hits.append(top_k(scores, own, 1))
    return np.stack(hits).astype(np.float64)


def clip_vectors(pieces: Sequence[Rows], owners: Ints, clips: int, unit: bool) -> Rows:
    """The mean over each clip's frames, float32 [clips, D].

    Args:
        pieces: vectors of each piece's frames [n, D].
        owners: [P] the clip of each piece.
        clips: how many there are.
        unit: frames count with length 1.
    """
    sums = np.zeros((clips, pieces[0].shape[1]))
    counts = np.zeros(clips)
    for rows, owner in zip(pieces, owners, strict=True):
        sums[owner] += (unit_rows(rows) if unit else rows).sum(axis=0, dtype=np.float64)
        counts[owner] += len(rows)
    return (sums / counts[:, None]).astype(np.float32)


def centred(vectors: Rows, groups: Sequence[str]) -> Rows:
    """Vectors less the mean of their group's clips, float32 [clips, D]."""
    return subtract_group_means(vectors, list(groups)).astype(np.float32)


def confused_pairs(
    labels: Ints, predicted: Ints, classes: Sequence[str], most: int = 5
) -> list[tuple[str, str, int]]:
    """The commonest mistakes: class, what it was taken for, and how many clips."""
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(classes[pairs[0, n]], classes[pairs[1, n]], int(counts[n])) for n in order]


def few_means(few: Mapping[int, Values]) -> dict[int, float]:
    """The mean over draws and clips for each number of labelled clips."""
    return {shot: float(hits.mean()) for shot, hits in few.items()}
