"""Options of `tce demo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tce.options.checks import Positive, Range, Seed, check_fields


@dataclass(frozen=True)
class DemoOptions:
    """Where the demo writes and how long it learns."""

    out: str = "demo"
    """Folder for everything the demo makes; what an earlier demo left there is replaced."""
    seconds: Annotated[float, Range(1)] = 90.0
    """Wall-clock seconds of pre-training, whatever number of steps that is on this machine."""
    epochs: Positive | None = None
    """Passes over the training clips; by default as many as fit into --seconds."""
    seed: Seed = 0
    """Decides clips, weights and training."""
    workers: Positive = 2
    """Decoding threads."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        check_fields(self)
