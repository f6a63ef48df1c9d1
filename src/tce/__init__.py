"""Temporally Coherent Embeddings: frame embeddings from unlabelled video, and what people do with them.

The names below are imported on first use, so that `import tce` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "TceError": "tce.errors",
    "VideoError": "tce.video.source",
    "Video": "tce.video.source",
    "open_video": "tce.video.source",
    "FrameEncoder": "tce.model.encoder",
    "Classifier": "tce.model.classifier",
    "classifier_from_encoder": "tce.model.classifier",
    "load_encoder": "tce.model.checkpoint",
    "load_classifier": "tce.model.checkpoint",
    "embed": "tce.embed",
    "fit_pca": "tce.view.reduce",
    "fit_tsne": "tce.view.reduce",
    "pretrain": "tce.train.pretrain",
    "PretrainOptions": "tce.train.pretrain_options",
    "finetune": "tce.train.finetune",
    "FinetuneOptions": "tce.train.finetune_options",
}
_SUBPACKAGES = {"contrast", "video", "collection", "model", "train", "evaluate", "view"}
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
