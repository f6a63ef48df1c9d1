"""Ways of using a frozen network's features without labels: as they are, centred, adapted, and controls."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tce.adaptation.adapt import choose_map
from tce.adaptation.linear import NO_GROUP, Piece
from tce.adaptation.statistics import FootageStatistics
from tce.data.splits import subtract_group_means
from tce.io import atomic

Rows = npt.NDArray[np.floating[Any]]

DIRECTIONS = 128  # of the controls
LDA_SHRINKAGE = 0.1


@dataclass(frozen=True)
class Footage:
    """Unlabelled clips that something is fitted to.

    Attributes:
        ids: of the clips.
        recordings: the recording of each.
        groups: the person of each, where known.
        pieces: its features.
    """

    ids: Sequence[str]
    recordings: Sequence[str]
    groups: Sequence[str]
    pieces: Sequence[Piece]

    def rows(self, centred: bool) -> tuple[Rows, npt.NDArray[np.int64]]:
        """All frames, less their group's mean if asked for, and the number of each one's clip."""
        clip = np.repeat(np.arange(len(self.pieces)), [len(piece.time) for piece in self.pieces])
        rows = np.concatenate([piece.features for piece in self.pieces])
        if centred:
            rows = subtract_group_means(rows, np.asarray(self.groups)[clip])
        return rows, clip


@dataclass(frozen=True)
class Fitted:
    """An affine map of features, `features @ weight.T + bias`.

    Attributes:
        weight: [D, F]; None: the features as they are.
        bias: [D].
        seconds: that the fit took.
        notes: what is known about it, JSON types.
    """

    weight: Rows | None = None
    bias: Rows | None = None
    seconds: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    def embed(self, features: Rows) -> Rows:
        """Features [n, F] -> embeddings [n, D], not normalised."""
        if self.weight is None or self.bias is None:
            return features
        return features @ self.weight.T + self.bias

    def save(self, path: Path) -> None:
        """Write it to a file."""
        arrays = {} if self.weight is None else {"weight": self.weight, "bias": self.bias}
        with atomic(path) as file:
            np.savez(file, seconds=self.seconds, notes=json.dumps(self.notes), **arrays)

    @classmethod
    def load(cls, path: Path) -> Fitted:
        """What `save` wrote."""
        with np.load(path) as stored:
            weight, bias = (stored.get(name) for name in ("weight", "bias"))
            return cls(weight, bias, float(stored["seconds"]), json.loads(str(stored["notes"])))


@dataclass(frozen=True)
class Method:
    """A way of using features.

    Attributes:
        name: in tables.
        fit: from footage to a map; None uses the features as they are.
        on: "train": fitted to the training clips of a split; "all": to the test clips too, without labels.
        centred: each group's mean is subtracted, when fitted and when evaluated.
    """

    name: str
    fit: Callable[[Footage, bool], Fitted] | None = None
    on: str = "all"
    centred: bool = False


def linear(footage: Footage, centred: bool) -> Fitted:
    """The map of `tce adapt`, with --group where centred; the features where its check keeps the start."""
    started = time.perf_counter()
    statistics = FootageStatistics(footage.pieces[0].features.shape[1], {})
    statistics.place(footage.recordings)
    groups = footage.groups if centred else [NO_GROUP] * len(footage.ids)
    for name, recording, group, piece in zip(
        footage.ids, footage.recordings, groups, footage.pieces, strict=True
    ):
        statistics.add(name, recording, [piece], group)
    statistics.finish()
    found, head = choose_map(statistics)
    assert found.start is not None and found.adapted is not None
    notes = {
        "kept_start": head is None,
        "shrinkage": found.shrinkage,
        "size": statistics.size if head is None else len(head.weight),
        "held_out": len(found.start),
        "start": found.start.share,
        "adapted": found.adapted.share,
        "chance": found.start.chance,
    }
    seconds = time.perf_counter() - started
    if head is None:
        return Fitted(seconds=seconds, notes=notes)
    # As the checkpoint holds it.
    return Fitted(head.weight.astype(np.float32), head.bias.astype(np.float32), seconds, notes)


def pca(footage: Footage, centred: bool) -> Fitted:
    """The control without time: principal components."""
    return _pca(footage, centred, whiten=False)


def whitened_pca(footage: Footage, centred: bool) -> Fitted:
    """The control without time: principal components of unit variance."""
    return _pca(footage, centred, whiten=True)


def _pca(footage: Footage, centred: bool, whiten: bool) -> Fitted:
    from sklearn.decomposition import PCA

    started = time.perf_counter()
    rows, _ = footage.rows(centred)
    fitted = PCA(DIRECTIONS, whiten=whiten, random_state=0).fit(rows)
    return _affine(fitted.transform, rows, started, {})


def discriminant(footage: Footage, centred: bool) -> Fitted:
    """Scikit-learn's discriminant analysis with the clip's number as the class."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    started = time.perf_counter()
    rows, clip = footage.rows(centred)
    fitted = LinearDiscriminantAnalysis(solver="eigen", shrinkage=LDA_SHRINKAGE).fit(rows, clip)
    return _affine(fitted.transform, rows, started, {"shrinkage": LDA_SHRINKAGE})


def _affine(transform: Callable[[Rows], Rows], rows: Rows, started: float, notes: dict[str, Any]) -> Fitted:
    """A library's affine map, shifted so that the mean of the rows goes to 0."""
    seconds = time.perf_counter() - started
    zero = transform(np.zeros((1, rows.shape[1])))
    weight = (transform(np.eye(rows.shape[1])) - zero).T
    return Fitted(weight, -weight @ rows.mean(axis=0), seconds, {"size": len(weight), **notes})


FROZEN = Method("frozen")
CENTRED = Method("frozen, centred", centred=True)
METHODS = (
    FROZEN,
    CENTRED,
    Method("adapted to the training clips", linear, "train"),
    Method("adapted to all clips", linear, "all"),
    Method("adapted to the training clips, centred", linear, "train", centred=True),
    Method("adapted to all clips, centred", linear, "all", centred=True),
    Method("control: PCA, centred", pca, "all", centred=True),
    Method("control: whitened PCA, centred", whitened_pca, "all", centred=True),
)
# Where every clip is of a group of its own, nothing can be centred.
UNCENTRED = (
    FROZEN,
    Method("adapted to the training clips", linear, "train"),
    Method("adapted to all clips", linear, "all"),
    Method("control: PCA", pca, "all"),
    Method("control: whitened PCA", whitened_pca, "all"),
)
PEERS = {
    "gestures": (Method("scikit-learn's LDA, centred", discriminant, "all", centred=True),),
    "fights": (Method("scikit-learn's LDA", discriminant, "all"),),
}
