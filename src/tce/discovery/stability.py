"""Whether clusters come back: fits with other seeds, and on halves of the recordings.

Each refit labels the same windows as the result. The adjusted Rand index compares the whole; a cluster's
figure is its Jaccard similarity with the cluster of the refit that is most like it, averaged over refits
(Hennig, Cluster-wise assessment of cluster stability, 2007), where values below 0.6 count as unstable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.discovery.behaviour_model import Behaviour, BehaviourModel
from tce.discovery.clusters import Method, fit_clusters
from tce.discovery.recordings import RecordedFrames
from tce.errors import TceError

UNSTABLE = 0.6
MOST_COMPARED = 20_000  # windows that are compared
BLOCK_SECONDS = 10.0  # of one recording, blocks of this length make up its halves

Ints = NDArray[np.int64]


@dataclass
class Stability:
    """Labels of some windows by the result and by its refits.

    Attributes:
        windows: float32 [M, w], those that are compared.
        seeds: int16 [R, M], by fits with other seeds.
        halves: int16 [H, M], by fits on halves.
    """

    windows: NDArray[np.float32]
    seeds: NDArray[np.int16]
    halves: NDArray[np.int16]

    def figures(self, model: BehaviourModel) -> dict[str, Any]:
        """Adjusted Rand index over seeds and halves, and a figure for each behaviour."""
        from sklearn.metrics import adjusted_rand_score

        labels = self._labels(model)
        clusters = self.cluster_labels(model)
        found: dict[str, Any] = {"behaviours": {}}
        for name, refits in (("seeds", self.seeds), ("halves", self.halves)):
            scores = [float(adjusted_rand_score(clusters, row)) for row in refits]
            found[name] = float(np.mean(scores)) if scores else None
        for number, behaviour in enumerate(model.behaviours):
            own = labels == number
            by = {
                name: float(np.mean([_similarity(own, row, len(behaviour.clusters) > 1) for row in refits]))
                for name, refits in (("seeds", self.seeds), ("halves", self.halves))
                if len(refits)
            }
            by["stable"] = min(by.values(), default=1.0) >= UNSTABLE
            found["behaviours"][behaviour.key] = by
        return found

    def cluster_labels(self, model: BehaviourModel) -> Ints:
        """Each compared window's cluster."""
        return np.asarray(model.clusters.log_likelihoods(self.windows).argmax(axis=1))

    def _labels(self, model: BehaviourModel) -> Ints:
        owner = np.empty(len(model.clusters), np.int64)
        for number, behaviour in enumerate(model.behaviours):
            owner[list(behaviour.clusters)] = number
        return owner[self.cluster_labels(model)]


def _similarity(own: NDArray[np.bool_], refit: NDArray[np.int16], merged: bool) -> float:
    """Jaccard similarity with the most similar cluster of a refit; of a merged behaviour, with several."""
    if not own.any():
        return 0.0
    best, union = 0.0, np.zeros(len(own), bool)
    for number in np.unique(refit):
        other = refit == number
        best = max(best, float((own & other).sum() / (own | other).sum()))
        if 2 * (own & other).sum() > other.sum():
            union |= other
    return max(best, float((own & union).sum() / (own | union).sum())) if merged else best


def check_stability(
    model: BehaviourModel,
    windows: NDArray[np.float32],
    frames: RecordedFrames,
    method: Method,
    count: int,
    overlap: float,
    refits: int,
    seed: int,
) -> Stability:
    """Fit again with other seeds, and on both halves of the recordings in several random ways.

    Args:
        model: the result.
        windows: [N, w] of all recordings.
        frames: their recordings and times.
        method: as the result was fitted.
        count: how many clusters were fitted.
        overlap: as for `fit_clusters`.
        refits: how many of each kind.
        seed: decides seeds and halves.
    """
    rng = np.random.default_rng([seed, 7])
    rows = np.arange(len(windows))
    if len(rows) > MOST_COMPARED:
        rows = np.sort(rng.choice(len(rows), MOST_COMPARED, replace=False))
    compared = windows[rows]
    parts = halving_parts(frames)
    seeds, halves = [], []
    for number in range(refits):
        # HDBSCAN has no seed: its fits differ in the windows they look at.
        sample = (
            windows
            if method != "hdbscan"
            else windows[np.sort(rng.choice(len(windows), max(1, 4 * len(windows) // 5), replace=False))]
        )
        seeds.append(_labels(sample, compared, method, count, overlap, seed + number + 1))
        chosen = rng.permutation(int(parts.max()) + 1)
        first = np.isin(parts, chosen[: (len(chosen) + 1) // 2])
        for half in (first, ~first):
            if half.any():
                halves.append(_labels(windows[half], compared, method, count, overlap, seed + number + 1))
    shape = (0, len(rows))
    return Stability(
        compared,
        np.array([row for row in seeds if row is not None], np.int16).reshape(-1, shape[1]),
        np.array([row for row in halves if row is not None], np.int16).reshape(-1, shape[1]),
    )


def _labels(
    sample: NDArray[np.float32],
    compared: NDArray[np.float32],
    method: Method,
    count: int,
    overlap: float,
    seed: int,
) -> Ints | None:
    """Labels of the compared windows by a fit to a sample; None where it is too small to fit."""
    try:
        fit = fit_clusters(sample, method, count, count, overlap, seed)
    except TceError:
        return None
    return np.asarray(fit.clusters.log_likelihoods(compared).argmax(axis=1))


def halving_parts(frames: RecordedFrames) -> Ints:
    """What halves are made of, a number for each window: recordings, or blocks of a single one."""
    if len(frames.spans) > 1:
        return np.repeat(np.arange(len(frames.spans)), [rows.stop - rows.start for rows in frames.spans])
    time = frames.time - frames.time[0]
    seconds = min(BLOCK_SECONDS, float(time[-1]) / 4) or 1.0
    return np.unique((time // seconds).astype(np.int64), return_inverse=True)[1]


def unstable(figures: dict[str, Any], behaviour: Behaviour) -> bool:
    """Whether a behaviour did not come back."""
    found = figures.get("behaviours", {}).get(behaviour.key)
    return found is not None and not found["stable"]
