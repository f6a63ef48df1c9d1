"""A fitted map on disk: what later frames need to be placed on it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.embedding.embedding_file import check_embeddings, read_arrays
from tce.errors import TceError
from tce.io import atomic
from tce.visualize.reduce import PERPLEXITY, fit_tsne, principal_components

FORMAT = "tce map 1"
PLACE_PERPLEXITY = 5  # openTSNE's advice for placing points on a map
PLACE_STEPS = 100
LEAST = 10  # frames of a map that others can be placed on
ARRAYS = {"points": 2, "reduced": 2, "mean": 1, "components": 2}


@dataclass
class FittedMap:
    """A t-SNE map and what it was fitted to.

    Attributes:
        points: float64 [N, 2], the map.
        reduced: float32 [N, d], the frames' embeddings after PCA.
        mean: [D], of the embeddings.
        components: [D, d], PCA's axes.
        perplexity: effective number of neighbours it was fitted with.
        weights: what embedded the frames, in words.
        videos: how many they came from.
    """

    points: NDArray[np.float64]
    reduced: NDArray[np.float32]
    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    perplexity: float
    weights: str = ""
    videos: int = 1

    @classmethod
    def fit(
        cls, vectors: Any, pca_threshold: float, weights: str = "", videos: int = 1, **tsne: Any
    ) -> FittedMap:
        """Fit a map to embeddings [N, D].

        Args:
            vectors: the embeddings.
            pca_threshold: share of the variance that PCA keeps.
            weights: what embedded them.
            videos: how many they came from.
            **tsne: further arguments of `fit_tsne`.

        Raises:
            TceError: bad embeddings, one frame only, or an option out of range.
        """
        vectors = check_embeddings(vectors)
        mean, components, _ = principal_components(vectors, pca_threshold)
        reduced = _reduce(vectors, mean, components)
        points = np.asarray(fit_tsne(reduced, pca=False, **tsne), np.float64)
        perplexity = tsne.get("perplexity") or min(PERPLEXITY, max(1.0, (len(points) - 1) / 3))
        return cls(points, reduced, mean, components, perplexity, weights, videos)

    def place(self, vectors: Any, seed: int = 0) -> NDArray[np.float64]:
        """Where other frames lie on the map, whose own points stay: [n, 2] for embeddings [n, D].

        Raises:
            TceError: embeddings of another size than the map's, or bad ones.
        """
        vectors = check_embeddings(vectors)
        if vectors.shape[1] != len(self.mean):
            raise TceError(
                "--map",
                f"embeddings of {len(self.mean)} numbers, as the map's ({self.weights})",
                f"{vectors.shape[1]} numbers",
                "use the same --ckpt, or another file for a new map",
            )
        from openTSNE import TSNEEmbedding
        from openTSNE.affinity import PerplexityBasedNN

        reduced = _reduce(vectors, self.mean, self.components).astype(np.float64)
        scale = max(float(np.abs(self.reduced).max()), 1e-12)
        state = seed % 2**32
        perplexity = min(self.perplexity, (len(self.reduced) - 1) / 3)
        affinities = PerplexityBasedNN(self.reduced / scale, perplexity, n_jobs=1, random_state=state)
        fitted = TSNEEmbedding(self.points, affinities, random_state=state, negative_gradient_method="bh")
        near = min(PLACE_PERPLEXITY, (len(self.reduced) - 1) / 3)
        return np.array(fitted.transform(reduced / scale, perplexity=near, n_iter=PLACE_STEPS), np.float64)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz file without pickled objects."""
        about = {
            "format": FORMAT,
            "perplexity": self.perplexity,
            "weights": self.weights,
            "videos": self.videos,
        }
        arrays = {name: getattr(self, name) for name in ARRAYS} | {
            name: np.array(value) for name, value in about.items()
        }
        with atomic(path) as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FittedMap:
        """Read what `save` wrote.

        Raises:
            TceError: another or a damaged file.
        """
        arrays = read_arrays(Path(path))
        expected = "a map that `tce tsne --map` wrote"
        if str(arrays.get("format", "")) != FORMAT:
            raise TceError(
                f"--map {path}", expected, f"arrays named {', '.join(sorted(arrays)[:6]) or 'nothing'}"
            )
        try:
            found = {name: arrays[name] for name in ARRAYS}
            about = float(arrays["perplexity"]), str(arrays["weights"]), int(arrays["videos"])
        except (KeyError, TypeError, ValueError) as error:
            raise TceError(f"--map {path}", expected, f"a damaged one ({error})", "fit it again") from error
        bad = [name for name, dims in ARRAYS.items() if found[name].ndim != dims or not _finite(found[name])]
        rows, size = len(found["points"]), len(found["mean"])
        fits = not bad and found["points"].shape == (rows, 2) and len(found["reduced"]) == rows
        fits = fits and found["components"].shape == (size, found["reduced"].shape[1])
        if not fits or rows < LEAST or not 1 <= about[0] <= rows:
            raise TceError(f"--map {path}", expected, "arrays that do not fit together", "fit it again")
        return cls(**found, perplexity=about[0], weights=about[1], videos=about[2])


def _finite(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f" and bool(np.isfinite(array).all())


def _reduce(vectors: Any, mean: NDArray[np.float64], components: NDArray[np.float64]) -> NDArray[np.float32]:
    return ((np.asarray(vectors, np.float64) - mean) @ components).astype(np.float32)
