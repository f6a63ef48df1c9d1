"""Options of `tce demo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tce.options.checks import Positive, Range, Seed, check_fields


@dataclass(frozen=True)
class DemoOptions:
    """Output and training time."""

    out: str = "demo"
    """Folder to write to; an earlier demo's files there are replaced."""
    seconds: Annotated[float, Range(1)] = 90.0
    """Seconds of learning: adaptation, then pre-training in steps that depend on the machine."""
    epochs: Positive | None = None
    """Passes over the training clips; by default as many as fit into --seconds."""
    seed: Seed = 0
    """Seed of clips, weights and training."""
    workers: Positive = 2
    """Decoding threads."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        check_fields(self)
