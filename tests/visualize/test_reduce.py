import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.neighbors import KNeighborsClassifier

import tce
from tce.errors import OptionError, TceError
from tce.visualize.reduce import check_embeddings, fit_pca, fit_tsne


def walk(n: int, dim: int = 64, seed: int = 0) -> np.ndarray:
    """A smooth path on the sphere, as a video's embeddings are: [n, dim]."""
    steps = np.random.default_rng(seed).normal(size=(n, dim))
    path = np.cumsum(steps, axis=0) * 0.1 + steps[0] * 2
    return (path / np.linalg.norm(path, axis=1, keepdims=True)).astype(np.float32)


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (40, 40), (9000, 5)])
@pytest.mark.parametrize("threshold", [0.3, 0.85, 0.99])
def test_pca_keeps_the_fewest_dimensions_that_keep_the_variance(shape, threshold):
    data = np.random.default_rng(1).normal(size=shape) * np.linspace(3, 0.1, shape[1]) + 7
    reference = PCA().fit(data)
    kept = np.cumsum(reference.explained_variance_ratio_)
    reduced = fit_pca(data, threshold=threshold)
    assert reduced.shape == (shape[0], int((kept < threshold).sum()) + 1)
    expected = reference.transform(data)[:, : reduced.shape[1]]
    np.testing.assert_allclose(np.abs(reduced), np.abs(expected), atol=1e-6)


def test_pca_to_a_number_of_dimensions_and_of_low_rank_data():
    data = np.random.default_rng(2).normal(size=(50, 3)) @ np.random.default_rng(3).normal(size=(3, 30))
    assert fit_pca(data, num_dims=7).shape == (50, 7)
    assert fit_pca(data, threshold=1.0).shape == (50, 3)
    np.testing.assert_allclose(distances(fit_pca(data, threshold=1.0)), distances(data), atol=1e-6)
    assert fit_pca(data.astype(np.float32)).dtype == np.float32
    with pytest.raises(OptionError, match="0 to 30"):
        fit_pca(data, num_dims=31)
    with pytest.raises(OptionError, match="share"):
        fit_pca(data, threshold=0)


@pytest.mark.parametrize("num_dims", [2, 3])
@pytest.mark.parametrize("n", [30, 300])
def test_tsne_keeps_neighbours(n, num_dims):
    data = walk(n)
    reduced = fit_tsne(data, num_dims=num_dims)
    assert reduced.shape == (n, num_dims)
    assert trustworthiness(data, reduced, n_neighbors=10) > 0.98


def test_tsne_keeps_classes_apart():
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(5), 40)
    data = rng.normal(size=(5, 32))[labels] + 0.6 * rng.normal(size=(200, 32))
    data = data[:, rng.permutation(32)]
    reduced = fit_tsne(data)
    nearest = KNeighborsClassifier(5).fit(reduced[::2], labels[::2])
    assert nearest.score(reduced[1::2], labels[1::2]) > 0.97


def test_tsne_is_decided_by_its_seed():
    data = walk(60)
    first, again, other = (fit_tsne(data, num_iterations=60, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0


def test_tsne_takes_its_old_positional_arguments_and_tensors():
    torch = pytest.importorskip("torch")
    data = torch.from_numpy(walk(20)).requires_grad_()
    reduced = fit_tsne(data, True, 0.9, 0.05, 4, 3, 100, False)
    assert reduced.shape == (20, 3)
    assert fit_tsne(walk(20), pca=False).shape == (20, 2)


def test_few_rows_keep_their_distances():
    for n in (2, 3):
        data = np.random.default_rng(5).normal(size=(n, 16))
        np.testing.assert_allclose(distances(fit_tsne(data)), distances(data), atol=1e-9)
    for n in (4, 5, 7):
        assert np.isfinite(fit_tsne(walk(n))).all()


def test_equal_rows_fall_on_one_point_and_duplicates_together(caplog):
    assert np.ptp(fit_tsne(np.ones((9, 4))), axis=0).max() == 0
    assert "single point" in caplog.text
    twice = np.repeat(np.random.default_rng(6).normal(size=(2, 8)), 20, axis=0)
    reduced = fit_tsne(twice)
    assert distances(reduced[[0, 1]]).max() < 0.1 < distances(reduced[[0, 20]]).max()


def test_a_straight_line_stays_in_order():
    line = np.linspace(0, 1, 60)[:, None] @ np.ones((1, 8))  # one component: the other one is jitter
    assert trustworthiness(line, fit_tsne(line), n_neighbors=5) > 0.98


def test_scale_does_not_matter():
    data = walk(40).astype(np.float64)
    for scale in (1e-12, 1e12):
        assert trustworthiness(data, fit_tsne(data * scale), n_neighbors=10) > 0.97


def test_callback_counts_up_to_the_end():
    seen = []
    fit_tsne(walk(30), num_iterations=200, callback=lambda done, total: seen.append((done, total)))
    assert seen == [(50, 200), (100, 200), (150, 200), (200, 200)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones(5), r"shape \[5\]"),
        (np.ones((3, 1, 4)), "reshape"),
        (np.full((4, 4), np.nan), "NaN or infinity in 4 of 4 rows, first in row 0"),
        (np.array([[0.0, 1.0], [np.inf, 1.0]]), "in 1 of 2 rows, first in row 1"),
        (np.array([[1, "a"]], dtype=object), "Python objects"),
        (np.array([["a", "b"]]), "type <U1"),
        ([[1, 2], [3]], "different lengths"),
        ([], "nothing"),
        (np.ones((0, 4)), "nothing"),
        (np.ones((4, 0)), "nothing"),
        (np.ones((1, 4)), "two frames or more"),
    ],
)
def test_bad_embeddings_are_reported_in_one_line(data, message):
    with pytest.raises(TceError, match=message) as caught:
        fit_tsne(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"num_dims": 0}, {"num_iterations": 0}, {"perplexity": 50}, {"perplexity": 0.5}]
)
def test_bad_options_name_themselves(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        fit_tsne(walk(30), **options)


def test_integers_become_floats_and_names_are_public():
    assert check_embeddings([[1, 2], [3, 4]]).dtype == np.float64
    assert tce.fit_pca is fit_pca
    assert tce.fit_tsne is fit_tsne
