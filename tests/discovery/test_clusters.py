"""Clusters: densities against SciPy, numbers of clusters, splits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.metrics import adjusted_rand_score

from tce.discovery.clusters import Clusters, fit_clusters, split_cluster
from tce.errors import TceError


def blobs(counts: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]])
    truth = np.repeat(np.arange(len(counts)), counts)
    return (centres[truth] + rng.normal(size=(len(truth), 3))).astype(np.float32), truth


def test_probabilities_are_bayes_rule_with_scipys_densities() -> None:
    rng = np.random.default_rng(0)
    means, variances = rng.normal(size=(3, 2)), rng.uniform(0.5, 2, (3, 2))
    clusters = Clusters(["1", "2", "3"], means, variances, np.array([0.5, 0.3, 0.2]))
    rows = rng.normal(size=(20, 2)).astype(np.float32)
    dense = np.stack(
        [
            weight * multivariate_normal(mean, np.diag(variance)).pdf(rows)
            for mean, variance, weight in zip(means, variances, clusters.weights)
        ],
        axis=1,
    )
    np.testing.assert_allclose(clusters.log_likelihoods(rows), np.log(dense), rtol=1e-5, atol=1e-5)
    expected = dense / dense.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(clusters.probabilities(rows), expected, atol=1e-5)


@pytest.mark.parametrize("method", ["kmeans", "gmm", "hdbscan"])
def test_separate_groups_are_found_with_their_number(method: str) -> None:
    windows, truth = blobs((300, 200, 120))
    fit = fit_clusters(windows, method, None, 8, 4.0)  # type: ignore[arg-type]
    assert len(fit.clusters) == 3
    assert adjusted_rand_score(truth, fit.clusters.probabilities(windows).argmax(axis=1)) > 0.99
    assert fit.clusters.weights.tolist() == sorted(fit.clusters.weights, reverse=True)


def test_a_given_number_is_kept_and_seeds_repeat() -> None:
    windows, _ = blobs((60, 60))
    one, two = (fit_clusters(windows, "kmeans", 5, 12, 1.0, seed=3).clusters for _ in range(2))
    assert len(one) == 5
    np.testing.assert_array_equal(one.means, two.means)


def test_a_split_replaces_one_cluster_by_its_parts() -> None:
    windows, truth = blobs((100, 80, 60))
    fit = fit_clusters(windows, "kmeans", 2, 2, 1.0).clusters
    owner = fit.probabilities(windows).argmax(axis=1)
    mixed = next(at for at in range(2) if len(set(truth[owner == at].tolist())) == 2)
    name = fit.ids[mixed]
    found = split_cluster(fit, name, 2, windows[owner == mixed])
    assert [one for one in found.ids if one.startswith(name)] == [f"{name}a", f"{name}b"]
    assert found.weights.sum() == pytest.approx(1)
    assert adjusted_rand_score(truth, found.probabilities(windows).argmax(axis=1)) > 0.95


def test_what_cannot_be_clustered_is_refused() -> None:
    windows, _ = blobs((20, 20))
    with pytest.raises(
        TceError, match="at most 4, as many as there are windows that do not overlap; found 6"
    ):
        fit_clusters(windows, "kmeans", 6, 12, 10.0)
    with pytest.raises(TceError, match="--method hdbscan; expected two dense clusters or more"):
        fit_clusters(blobs((8,))[0], "hdbscan", None, 12, 1.0)
    with pytest.raises(TceError, match=r"names\.csv"):
        split_cluster(fit_clusters(windows, "kmeans", 2, 2, 1.0).clusters, "9", 2, windows)
