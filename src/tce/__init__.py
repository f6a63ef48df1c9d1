"""Temporally Coherent Embeddings: frame embeddings from unlabelled video, and what people do with them.

Every command is a function with flat keywords, such as `tce.pretrain("videos/", out="runs/mine")`. The names
below are imported on first use, so that `import tce` costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "1.0.0"

# Libraries beneath do not report to their makers that they are used, unless the user has decided otherwise.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("DO_NOT_TRACK", "1")

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
    "embed": "tce.embedding.embed",
    "fit_pca": "tce.visualize.reduce",
    "fit_tsne": "tce.visualize.reduce",
    "TSNE": "tce.visualize.reduce",
    "open_index": "tce.retrieval.search_index",
    "AdaptOptions": "tce.options.adapt",
    "PretrainOptions": "tce.options.pretrain",
    "FinetuneOptions": "tce.options.finetune",
    "EvaluateOptions": "tce.options.evaluate",
    "PackOptions": "tce.options.pack",
}
# Commands as functions with flat keywords; `embed` above takes a video and an encoder instead.
_COMMANDS = {
    "adapt",
    "check",
    "classify",
    "compare",
    "convert",
    "cycles",
    "demo",
    "discover",
    "doctor",
    "evaluate",
    "explore",
    "export",
    "finetune",
    "heat",
    "index",
    "info",
    "near_duplicates",
    "pack",
    "pretrain",
    "publish",
    "report",
    "search",
    "subset",
    "tsne",
}
_SUBPACKAGES = {
    "adaptation",
    "contrast",
    "data",
    "diagnosis",
    "discovery",
    "embedding",
    "evaluation",
    "explorer",
    "hub",
    "model",
    "options",
    "publishing",
    "reporting",
    "retrieval",
    "train",
    "video",
    "visualize",
}
__all__ = ["__version__", *sorted({*_HOMES, *_COMMANDS}), *sorted(_SUBPACKAGES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return value
    if name in _COMMANDS:
        value = globals()[name] = importlib.import_module("tce.api").command_function(name)
        return value
    if name in _SUBPACKAGES:
        return importlib.import_module(f"tce.{name}")
    raise AttributeError(f"module 'tce' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
