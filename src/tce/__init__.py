"""Temporally Coherent Embeddings: frame embeddings from unlabelled video, and what people do with them.

The names below are imported on first use, so that `import tce` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "TceError": "tce.errors",
    "VideoError": "tce.video.base",
    "Video": "tce.video.base",
    "open_video": "tce.video.open_video",
    "FrameEncoder": "tce.model.encoder",
    "Classifier": "tce.model.classifier",
    "classifier_from_encoder": "tce.model.classifier",
    "load_encoder": "tce.model.checkpoint",
    "load_classifier": "tce.model.checkpoint",
    "embed": "tce.embed",
    "fit_pca": "tce.visualize.reduce",
    "fit_tsne": "tce.visualize.reduce",
    "pretrain": "tce.train.pretrain",
    "PretrainOptions": "tce.options.pretrain",
    "finetune": "tce.train.finetune",
    "FinetuneOptions": "tce.options.finetune",
}
_SUBPACKAGES = {
    "contrast",
    "data",
    "embedding",
    "evaluation",
    "model",
    "options",
    "train",
    "video",
    "visualize",
}
__all__ = ["__version__", *sorted(_HOMES), *sorted(_SUBPACKAGES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        # Store it: `tce.embed` is the function, though a module of the same name exists.
        value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return value
    if name in _SUBPACKAGES:
        return importlib.import_module(f"tce.{name}")
    raise AttributeError(f"module 'tce' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
