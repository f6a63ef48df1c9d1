"""Accuracy from scores: top-k, per class, confusion matrix. Plain NumPy, no network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def top_k(scores: Floats, labels: Ints, k: int) -> Bools:
    """Whether each clip's class is among its k highest scores.

    Equal scores rank by class number, so that `k=1` agrees with `argmax`. A score of minus infinity means
    "not proposed" and never counts, nor does NaN.

    Args:
        scores: [N, C], higher is likelier.
        labels: [N] true classes.
        k: how many classes may be named.

    Returns:
        [N], True where the class is found.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)  # [N, 1]
    earlier = np.arange(scores.shape[1]) < labels[:, None]  # [N, C]
    rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
    return (rank < k) & np.isfinite(own[:, 0])


def confusion(labels: Ints, predictions: Ints, classes: int) -> Ints:
    """How often class i (row) was taken for class j (column), [C, C]."""
    return np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)


def per_class(labels: Ints, correct: Bools, classes: int) -> tuple[Ints, Floats]:
    """Clips of each class, [C], and the share that is correct, [C] (NaN for a class without clips)."""
    clips = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels, weights=correct.astype(np.float64), minlength=classes)
    return clips, np.divide(hits, clips, out=np.full(classes, np.nan), where=clips > 0)
