"""The 2020 module: PCA and t-SNE of an array of embeddings."""

import sys
from pathlib import Path

try:
    import tce  # noqa: F401
except ImportError:  # a fresh clone in which nothing was installed but what tce needs
    sys.path.insert(0, str(Path(__file__).parent / "src"))

from tce.visualize.reduce import fit_pca, fit_tsne

__all__ = ["fit_pca", "fit_tsne"]
