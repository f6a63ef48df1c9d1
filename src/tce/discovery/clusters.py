"""Clusters of windows, all kept as one Gaussian each, so that new footage is scored without refitting."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tce.discovery.windows import MOST_FITTED
from tce.errors import TceError

Vectors = NDArray[np.float32]
Method = Literal["gmm", "kmeans", "hdbscan"]

MOST_DENSITY_FITTED = 5_000  # windows that HDBSCAN looks at: its time grows with their square
SMALLEST_SHARE = 0.02  # of those windows: a cluster of HDBSCAN has at least so many
REGULAR = 1e-3  # least variance of a cluster in one direction, as a share of the windows' mean variance
BLOCK_ROWS = 100_000


@dataclass(frozen=True)
class Clusters:
    """Gaussian clusters with independent directions.

    Attributes:
        ids: text that names each cluster in tables: "1", "2", or "2a", "2b" after a split.
        means: [K, w].
        variances: [K, w].
        weights: [K], sum 1.
    """

    ids: list[str]
    means: NDArray[np.float64]
    variances: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, kept: list[int]) -> Clusters:
        """Some of the clusters, in another order and numbered anew."""
        weights = self.weights[kept]
        return Clusters(_numbered(len(kept)), self.means[kept], self.variances[kept], weights / weights.sum())

    def probabilities(self, windows: Vectors) -> Vectors:
        """Each cluster's probability given the window, float32 [N, K]; rows sum to 1."""
        found = np.empty((len(windows), len(self)), np.float32)
        for first in range(0, len(windows), BLOCK_ROWS):
            part = slice(first, first + BLOCK_ROWS)
            scores = self.log_likelihoods(windows[part])
            scores -= scores.max(axis=1, keepdims=True)
            np.exp(scores, out=scores)
            found[part] = scores / scores.sum(axis=1, keepdims=True)
        return found

    def log_likelihoods(self, windows: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Logarithm of weight times density of each cluster, [N, K]."""
        precision = 1 / self.variances  # [K, w]
        rows = np.asarray(windows, np.float64)
        squares = rows**2 @ precision.T - 2 * rows @ (self.means * precision).T
        squares += (self.means**2 * precision).sum(axis=1)
        constant = np.log(self.weights) - 0.5 * np.log(2 * np.pi * self.variances).sum(axis=1)
        return np.asarray(constant - 0.5 * squares)

    def typicality(self, windows: Vectors, cluster: int) -> NDArray[np.float64]:
        """How typical windows are of a cluster: its log density without the weight, [N]."""
        distance = (np.asarray(windows, np.float64) - self.means[cluster]) ** 2 / self.variances[cluster]
        return np.asarray(-0.5 * distance.sum(axis=1))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `of` takes, for a file."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def of(cls, arrays: dict[str, NDArray[Any]]) -> Clusters:
        """The clusters out of what `arrays` gave."""
        known: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls)}
        return cls(**(known | {"ids": [str(name) for name in arrays["ids"].tolist()]}))


@dataclass(frozen=True)
class ClusterFit:
    """Clusters, and how they were chosen.

    Attributes:
        clusters: by falling weight.
        bic: Bayesian information criterion by number of clusters, where several were tried.
        noise: share of windows that HDBSCAN left without a cluster; they count for the most likely one.
    """

    clusters: Clusters
    bic: dict[int, float]
    noise: float = 0.0


def fit_clusters(
    windows: Vectors,
    method: Method,
    count: int | None,
    most: int,
    overlap: float,
    seed: int = 0,
) -> ClusterFit:
    """Fit clusters to windows.

    Args:
        windows: [N, w] of `WindowSpace.describe`.
        method: "gmm" (Gaussian mixture), "kmeans" or "hdbscan".
        count: number of clusters; None: the one with the least Bayesian information criterion.
        most: number of clusters tried at most.
        overlap: windows that share a frame: N windows count as N / overlap independent ones.
        seed: of the starts, and of the windows looked at where there are more than `MOST_FITTED`.

    Raises:
        TceError: more clusters than independent windows, or HDBSCAN finds less than two.
    """
    limit = MOST_DENSITY_FITTED if method == "hdbscan" else MOST_FITTED
    independent = max(1, int(len(windows) / max(overlap, 1.0)))
    if (count or 2) > independent:
        raise TceError(
            f"--clusters {count or 2}",
            f"at most {independent}, as many as there are windows that do not overlap",
            str(count or 2),
            "give more footage, a shorter --window or fewer --clusters",
        )
    chosen = windows
    if len(windows) > limit:
        rows = np.random.default_rng(seed).choice(len(windows), limit, replace=False)
        chosen = windows[np.sort(rows)]
    sample = np.asarray(chosen, np.float64)
    if method == "hdbscan":
        return _fit_density(sample, count)
    tried = [count] if count is not None else list(range(2, min(most, max(2, independent // 4)) + 1))
    fits = {}
    for number in tried:
        found = _fit_mixture(sample, number, seed) if method == "gmm" else _fit_kmeans(sample, number, seed)
        fits[number] = (found, _bic(found, sample, independent, method))
    best = min(fits, key=lambda number: fits[number][1])
    return ClusterFit(_ordered(fits[best][0]), {number: bic for number, (_, bic) in fits.items()})


def _bic(found: Clusters, sample: NDArray[np.float64], independent: int, method: Method) -> float:
    """The criterion for as many independent windows as there are, not for all overlapping ones."""
    scores = found.log_likelihoods(sample)
    top = scores.max(axis=1)
    likelihood = float((top + np.log(np.exp(scores - top[:, None]).sum(axis=1))).mean())
    clusters, size = found.means.shape
    own = 2 * size if method == "gmm" else size
    parameters = clusters * own + clusters - 1 + (method != "gmm")
    return -2 * independent * likelihood + parameters * float(np.log(max(independent, 2)))


def _fit_mixture(sample: NDArray[np.float64], count: int, seed: int) -> Clusters:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    least = REGULAR * float(sample.var(axis=0).mean())
    model = GaussianMixture(
        count, covariance_type="diag", reg_covar=least, n_init=2, max_iter=200, random_state=seed % 2**32
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(sample)
    return Clusters(_numbered(count), model.means_, model.covariances_, model.weights_)


def _fit_kmeans(sample: NDArray[np.float64], count: int, seed: int) -> Clusters:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct windows than clusters
        model = KMeans(count, n_init=4, random_state=seed % 2**32).fit(sample)
    least = REGULAR * float(sample.var(axis=0).mean())
    variance = max(float(model.inertia_) / sample.size, least)
    sizes = np.bincount(model.labels_, minlength=count).clip(1)
    means = np.asarray(model.cluster_centers_, np.float64)
    return Clusters(_numbered(count), means, np.full(means.shape, variance), sizes / sizes.sum())


def _fit_density(sample: NDArray[np.float64], count: int | None) -> ClusterFit:
    from sklearn.cluster import HDBSCAN

    smallest = max(5, round(SMALLEST_SHARE * len(sample)))
    labels = HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(sample)
    names = [name for name in np.unique(labels).tolist() if name >= 0]
    if len(names) < 2:
        raise TceError(
            "--method hdbscan",
            "two dense clusters or more",
            "one" if names else "none",
            "take --method gmm, or another --window",
        )
    if count is not None:  # the largest ones
        names = sorted(names, key=lambda name: -int((labels == name).sum()))[:count]
    least = REGULAR * float(sample.var(axis=0).mean())
    parts = [sample[labels == name] for name in names]
    sizes = np.array([len(part) for part in parts], np.float64)
    found = Clusters(
        _numbered(len(names)),
        np.stack([part.mean(axis=0) for part in parts]),
        np.stack([np.maximum(part.var(axis=0), least) for part in parts]),
        sizes / sizes.sum(),
    )
    return ClusterFit(_ordered(found), {}, float((labels < 0).mean()))


def _numbered(count: int) -> list[str]:
    return [str(number + 1) for number in range(count)]


def _ordered(found: Clusters) -> Clusters:
    """By falling weight, so that cluster 1 is the most frequent one."""
    order = np.argsort(-found.weights, kind="stable")
    return Clusters(_numbered(len(found)), found.means[order], found.variances[order], found.weights[order])


def split_cluster(found: Clusters, name: str, parts: int, windows: Vectors, seed: int = 0) -> Clusters:
    """Replace one cluster by several.

    Args:
        found: the clusters.
        name: id of the one to split; its parts are called name + "a", "b", ...
        parts: how many.
        windows: [n, w] that belong to it.
        seed: of the starts.

    Raises:
        TceError: no such cluster, or fewer windows than parts.
    """
    if name not in found.ids:
        raise TceError("names.csv", f"one of the clusters {', '.join(found.ids)}", repr(name))
    if len(windows) < 2 * parts:
        raise TceError(f"names.csv, cluster {name}", f"{2 * parts} windows to split", str(len(windows)))
    place = found.ids.index(name)
    sample = np.asarray(windows[:: max(1, len(windows) // MOST_FITTED)], np.float64)
    fitted = _ordered(_fit_mixture(sample, parts, seed))
    ids = [f"{name}{chr(ord('a') + number)}" for number in range(parts)]

    def joined(old: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([old[:place], new, old[place + 1 :]])

    return replace(
        found,
        ids=[*found.ids[:place], *ids, *found.ids[place + 1 :]],
        means=joined(found.means, fitted.means),
        variances=joined(found.variances, fitted.variances),
        weights=joined(found.weights, fitted.weights * found.weights[place]),
    )
