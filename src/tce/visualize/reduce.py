"""From embeddings to a map: PCA to the dimensions that matter, then t-SNE to two."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from tce.embedding.embedding_file import check_embeddings
from tce.errors import OptionError, TceError

log = logging.getLogger("tce.visualize")

PERPLEXITY = 30.0
LARGE, LARGE_EXAGGERATION = 100_000, 4.0
EXAGGERATED_ITERATIONS = 250  # t-SNE's early phase, in which the clusters find their places
ROWS_PER_BLOCK = 8192  # bounds the float64 copies PCA makes
FEW_FOR_TREES = 5000  # frames up to which Barnes-Hut trees are faster than interpolation by FFT
INITIAL_SPREAD = 1e-4  # t-SNE starts from a tiny picture, so that the first steps can rearrange it

Floats = NDArray[np.floating[Any]]
Initialization = Literal["pca", "random"]


def fit_pca(
    input_data: Any,
    num_dims: int = 0,
    threshold: float = 0.85,
    max_error: float = 0.05,
    debug: bool = False,
) -> Floats:
    """Project embeddings on the fewest principal components that keep `threshold` of their variance.

    Args:
        input_data: [N, D] array or tensor.
        num_dims: number of components instead; 0 lets `threshold` decide.
        threshold: share of the variance to keep, in (0, 1].
        max_error: accepted for the 2020 signature; the number of components is exact, not searched for.
        debug: say how many components keep how much.

    Returns:
        Array [N, d], columns by falling variance; signs are fixed, so equal input gives equal output.

    Raises:
        TceError: bad embeddings (see `check_embeddings`), or a number of components or share out of range.
    """
    data = check_embeddings(input_data)
    most = min(data.shape)
    if not 0 <= num_dims <= most:
        raise OptionError(
            "num_dims", f"0 to {most} for embeddings of shape {list(data.shape)}", str(num_dims)
        )
    if not 0 < threshold <= 1:
        raise OptionError("threshold", "a share of the variance in (0, 1]", str(threshold))

    mean, components, share = principal_components(data, threshold, num_dims)
    reduced = np.empty((len(data), components.shape[1]), dtype=data.dtype)
    for rows, centred in _blocks(data, mean):
        reduced[rows] = centred @ components
    log.log(
        logging.INFO if debug else logging.DEBUG,
        "PCA: %d of %d dimensions keep %.3f of the variance",
        *(components.shape[1], data.shape[1], share),
    )
    return reduced


def principal_components(
    data: Floats, threshold: float, num_dims: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The mean [D] of embeddings, the axes [D, d] that keep `threshold` of their variance, and its share.

    Args:
        data: checked embeddings.
        threshold: share of the variance to keep, in (0, 1].
        num_dims: number of axes instead; 0 lets `threshold` decide.
    """
    mean = data.mean(axis=0, dtype=np.float64)
    components, variances = _principal_axes(data, mean)
    total = variances.sum()
    if num_dims == 0:
        kept = np.cumsum(variances) / total if total > 0 else np.ones(1)
        # Rounding may leave the last sum a hair under 1, which must not ask for one component more.
        num_dims = min(int(np.searchsorted(kept, threshold - 1e-12)) + 1, len(kept))
    share = variances[:num_dims].sum() / total if total > 0 else 1.0
    return mean, components[:, :num_dims], float(share)


def _blocks(data: Floats, mean: NDArray[np.float64]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Rows and their centred float64 copies, a block at a time."""
    for start in range(0, len(data), ROWS_PER_BLOCK):
        rows = slice(start, start + ROWS_PER_BLOCK)
        yield rows, data[rows].astype(np.float64) - mean


def _principal_axes(
    data: Floats, mean: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit axes [D, m] and their shares of variance [m], falling, m = min(N, D).

    The smaller of the two Gram matrices is decomposed: D x D for many frames, N x N for few.
    """
    n, d = data.shape
    if n >= d:
        covariance = np.zeros((d, d))
        for _, centred in _blocks(data, mean):
            covariance += centred.T @ centred
        variances, axes = np.linalg.eigh(covariance)  # rising
    else:
        centred = data.astype(np.float64) - mean  # [N, D]
        variances, left = np.linalg.eigh(centred @ centred.T)
        axes = centred.T @ left
        axes /= np.maximum(np.linalg.norm(axes, axis=0), np.finfo(np.float64).tiny)
    variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1]
    # An axis and its negative are equally right; the larger entry positive makes the picture repeatable.
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return axes * np.where(signs == 0, 1, signs), variances


class TSNE(BaseEstimator):
    """t-SNE maps by scikit-learn's conventions: `tce.TSNE(perplexity=30).fit_transform(vectors)`.

    Args:
        perplexity: effective number of neighbours; None means 30, fewer for less than 91 rows.
        pca_threshold: share of the variance that PCA keeps first.
        iterations: gradient steps.
        random_state: the same number gives the same map.

    Attributes:
        embedding_: the map of the data last fitted, [N, 2].
    """

    def __init__(
        self,
        perplexity: float | None = None,
        pca_threshold: float = 0.85,
        iterations: int = 500,
        random_state: int = 0,
    ):
        self.perplexity = perplexity
        self.pca_threshold = pca_threshold
        self.iterations = iterations
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> TSNE:
        """Fit a map to vectors X [N, D]; `y` is ignored.

        Raises:
            TceError: bad embeddings, one row only, or a parameter out of range.
        """
        self.embedding_ = fit_tsne(
            X,
            pca_threshold=self.pca_threshold,
            num_iterations=self.iterations,
            seed=self.random_state,
            perplexity=self.perplexity,
        )
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Floats:
        """The map [N, 2] of vectors X [N, D]; errors as of `fit`."""
        return self.fit(X).embedding_


def fit_tsne(
    input_data: Any,
    pca: bool = True,
    pca_threshold: float = 0.85,
    pca_error: float = 0.05,
    pca_num_dims: int = 0,
    num_dims: int = 2,
    num_iterations: int = 500,
    debug: bool = False,
    *,
    seed: int = 0,
    perplexity: float | None = None,
    init: Initialization = "pca",
    exaggeration: float | None = None,
    jobs: int = 1,
    callback: Callable[[int, int], None] | None = None,
) -> Floats:
    """Reduce embeddings to a map by PCA and t-SNE.

    Two or three rows are laid out by their distances alone: t-SNE has no neighbourhoods to work with.
    Embeddings that are all equal fall on one point.

    Args:
        input_data: [N, D] array or tensor, N at least 2.
        pca: reduce by PCA first.
        pca_threshold: share of the variance that PCA keeps.
        pca_error: accepted for the 2020 signature, see `fit_pca`.
        pca_num_dims: number of PCA components instead of a share; 0 lets `pca_threshold` decide.
        num_dims: dimensions of the map, usually 2 or 3.
        num_iterations: gradient steps, the early exaggeration's (half, 250 at most) included.
        debug: say what is done.
        seed: the same seed gives the same map (for the same `jobs`).
        perplexity: effective number of neighbours; None means 30, fewer for less than 91 rows.
        init: where the points start. "pca", the first two principal components, keeps what is far apart far
            apart, and makes maps alike; "random" keeps neighbourhoods only.
        exaggeration: factor on the attraction between neighbours after the early phase. 1 is plain t-SNE; 4
            is near UMAP (Böhm, Berens and Kobak, 2022): denser groups, more of their arrangement. None: 1 up
            to 100,000 rows and 4 above (Kobak and Berens, 2019).
        jobs: threads; sums in another order make another, equally good map.
        callback: called as callback(steps done, steps in all) about every 50 steps.

    Returns:
        Array [N, num_dims], float64.

    Raises:
        TceError: bad embeddings (see `check_embeddings`), one row only, or an option out of range.
    """
    data = check_embeddings(input_data)
    if len(data) == 1:
        raise TceError("embeddings", "two frames or more for a map", "one", "give a longer video")
    if num_dims < 1:
        raise OptionError("num_dims", "1 or more", str(num_dims))
    if num_iterations < 1:
        raise OptionError("num_iterations", "1 or more", str(num_iterations))
    if perplexity is not None and not 1 <= perplexity <= max((len(data) - 1) / 3, 1):
        highest = max((len(data) - 1) / 3, 1)
        raise OptionError("perplexity", f"1 to {highest:.1f} for {len(data)} frames", str(perplexity))

    if init not in ("pca", "random"):
        raise OptionError("init", "pca or random", repr(init))
    if exaggeration is None:
        exaggeration = LARGE_EXAGGERATION if len(data) > LARGE else 1.0
    if not 1 <= exaggeration <= 12:
        raise OptionError("exaggeration", "1 to 12, the early phase's", f"{exaggeration:g}")

    if np.ptp(data, axis=0).max() == 0:
        log.warning("all %d embeddings are equal: the map is a single point", len(data))
        return np.zeros((len(data), num_dims))
    if len(data) < 4:
        return _pad(fit_pca(data, threshold=1.0).astype(np.float64), num_dims)
    if pca:
        data = fit_pca(data, pca_num_dims, pca_threshold, pca_error, debug)
    if perplexity is None:
        perplexity = min(PERPLEXITY, (len(data) - 1) / 3)
    return _tsne(data, num_dims, num_iterations, perplexity, init, exaggeration, seed, jobs, callback, debug)


def _tsne(
    data: Floats,
    num_dims: int,
    steps: int,
    perplexity: float,
    init: Initialization,
    exaggeration: float,
    seed: int,
    jobs: int,
    callback: Callable[[int, int], None] | None,
    debug: bool,
) -> NDArray[np.float64]:
    from openTSNE import TSNE  # sklearn and scipy come with it

    early = min(EXAGGERATED_ITERATIONS, steps // 2)
    # openTSNE counts each phase from 1; the calls arrive in order, so a count of calls will do.
    calls = 0

    def advance(step: int, divergence: float, embedding: Any) -> bool:
        nonlocal calls
        calls += 1
        if callback is not None:
            callback(min(calls * 50, steps), steps)
        return False

    # Spectra differ by orders of magnitude between networks; t-SNE's maths is free of scale, its
    # floating point is not.
    scaled = data.astype(np.float64) / np.abs(data).max()
    model = TSNE(
        n_components=num_dims,
        perplexity=perplexity,
        initialization=_start(scaled, num_dims, seed) if init == "pca" else "random",
        exaggeration=None if exaggeration == 1 else exaggeration,
        early_exaggeration_iter=early,
        n_iter=steps - early,
        neighbors="exact" if len(scaled) <= 2000 else "auto",  # exact is also the faster for few
        negative_gradient_method="bh" if num_dims > 2 or len(scaled) <= FEW_FOR_TREES else "fft",
        callbacks=advance,
        callbacks_every_iters=50,
        random_state=seed % 2**32,  # NumPy's older generators take 32 bits
        n_jobs=jobs,
        verbose=debug,
    )
    return np.array(model.fit(scaled), dtype=np.float64)


def _start(data: NDArray[np.float64], num_dims: int, seed: int) -> NDArray[np.float64]:
    """The first principal components, shrunk; jitter parts duplicates and fills missing dimensions."""
    leading = fit_pca(data, num_dims=min(num_dims, *data.shape))  # [N, <= num_dims]
    start = _pad(leading * (INITIAL_SPREAD / leading[:, 0].std()), num_dims)
    return start + np.random.default_rng(seed).normal(scale=INITIAL_SPREAD / 100, size=start.shape)


def _pad(points: NDArray[np.float64], num_dims: int) -> NDArray[np.float64]:
    """Cut or fill [N, d] up with zeros to [N, num_dims]."""
    padded = np.zeros((len(points), num_dims))
    width = min(num_dims, points.shape[1])
    padded[:, :width] = points[:, :width]
    return padded
