"""Accuracy from scores (top-k, per class, confusion), chance levels, bootstrap intervals; metrics as text.

Clips cut from one recording resemble each other, so they are not independent trials: an interval draws whole
recordings with replacement, never single clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Interval = tuple[float, float]

RESAMPLES = 2000
LEVEL = 0.95

LABELS = {
    "top1": "top-1",
    "top5": "top-5",
    "neighbour": "distance of neighbours in time",
    "within": "distance within a clip",
    "across": "distance across recordings",
    "smoothness": "smoothness (1 - neighbour/across)",
    "curvature": "curvature along time (degrees)",
    "tau": "Kendall's tau across clips of a class",
    "phase_r2": "phase progression (R2)",
    "alignment": "alignment of neighbours",
    "uniformity": "uniformity",
    "effective_rank": "effective rank",
    "class_knn": "class, all votes",
    "class_knn_other_groups": "class, votes of other groups",
    "group_knn": "group",
    "group_minus_class": "group less class (1: groups only)",
}
FEWSHOT = {"centroid": "nearest centroid", "logistic": "logistic regression"}
PERCENT = ("top1", "top5", "recall", "chance", "class_knn", "group_knn", *FEWSHOT)


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
    """How many clips of class i (row) were predicted as class j (column), [C, C]."""
    return np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)


def per_class(labels: Ints, correct: Bools, classes: int) -> tuple[Ints, Floats]:
    """Clips of each class, [C], and the share that is correct, [C] (NaN for a class without clips)."""
    clips = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels, weights=correct.astype(np.float64), minlength=classes)
    return clips, np.divide(hits, clips, out=np.full(classes, np.nan), where=clips > 0)


def chance_recall(query_labels: Ints, labels: Ints, k: int) -> float:
    """Expected recall at k of a random order of the gallery.

    A query whose class has n of the N gallery clips misses all of them with probability
    C(N - n, k) / C(N, k).

    Args:
        query_labels: [Q].
        labels: [N] of the gallery.
        k: at most N.
    """
    size = len(labels)
    classes, queries = np.unique(query_labels, return_counts=True)
    own = np.array([(labels == label).sum() for label in classes])  # gallery clips of each class
    drawn = np.arange(k)
    miss = np.clip((size - own[:, None] - drawn) / (size - drawn), 0, None).prod(axis=1)  # [classes]
    return float(np.average(1 - miss, weights=queries))


def bootstrap_interval(
    values: npt.ArrayLike, recordings: npt.ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """The 95% percentile interval of the mean of `values`, recordings drawn with replacement.

    A recording carries all its clips, so a resample's mean is over a varying number of clips.

    Args:
        values: [N] one value a clip, such as 0/1 for wrong/right, or a difference of two networks.
        recordings: [N] each clip's recording, of any type that sorts.
        resamples: number of bootstrap samples.
        seed: of the draws.

    Returns:
        Lower and upper end, or None for fewer than two recordings.
    """
    return mean_interval([values], [recordings], seed, resamples)


def mean_interval(
    values: Sequence[npt.ArrayLike],
    recordings: Sequence[npt.ArrayLike],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """The 95% interval of the mean over splits of each split's mean.

    A recording that is in several splits' test sets is drawn into all of them together. Where values are
    given for several random draws (of training clips), draws are resampled independently of recordings
    (Owen, 2007), so that the interval covers both.

    Args:
        values: for each split, one value a clip [n], or one for each draw and clip [draws, n].
        recordings: for each split, each clip's recording.
        seed: of the draws.
        resamples: number of bootstrap samples.

    Returns:
        Lower and upper end, or None for fewer than two recordings.
    """
    names = np.unique(np.concatenate([np.asarray(split) for split in recordings]))
    count = len(names)
    if count < 2:
        return None
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    redraw = np.random.default_rng([seed, 1])
    means = []
    for split, named in zip(values, recordings, strict=True):
        group = np.searchsorted(names, np.asarray(named))
        clips = np.bincount(group, minlength=count).astype(np.float64)
        each = np.atleast_2d(np.asarray(split, np.float64))  # [draws, n]
        sums = np.stack([np.bincount(group, weights=row, minlength=count) for row in each])
        if len(each) > 1:
            again = redraw.multinomial(len(each), np.full(len(each), 1 / len(each)), size=resamples)
            total = (drawn * (again @ sums / len(each))).sum(axis=1)
        else:
            total = drawn @ sums[0]
        counted = drawn @ clips
        means.append(np.divide(total, counted, out=np.full(resamples, np.nan), where=counted > 0))
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(np.mean(means, axis=0), [tail, 1 - tail])
    return float(low), float(high)


def is_share(metric: str) -> bool:
    """Whether a metric is a share, printed in percent."""
    return metric.startswith(PERCENT)


def label(metric: str) -> str:
    """A metric's name in tables and pictures."""
    method, at, shots = metric.partition("@")
    if at and method in FEWSHOT:
        return f"{FEWSHOT[method]}, {shots} a class"
    return LABELS.get(metric, metric.replace("recall@", "R@"))


def flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics without nesting: recall's become recall@1 and so on; details by class are left out."""
    simple: dict[str, Any] = {}
    for name, value in metrics.items():
        if name == "recall":
            simple |= {f"recall@{k}": share for k, share in value.items()}
        elif not isinstance(value, dict):
            simple[name] = value
    return simple


def number(metric: str, value: float | None) -> str:
    """A metric's value as text."""
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:.1%}" if is_share(metric) else f"{value:.3g}"


def format_interval(metric: str, ends: Sequence[float] | None) -> str:
    """Both ends of an interval as text."""
    return "-" if ends is None else f"{number(metric, ends[0])} to {number(metric, ends[1])}"
