"""Options of `tce demo`."""

from __future__ import annotations

from dataclasses import dataclass

from tce.options.checks import at_least, check_seed


@dataclass(frozen=True)
class DemoOptions:
    """Where the demo writes and how long it learns."""

    out: str = "demo"
    """Folder for everything the demo makes; what an earlier demo left there is replaced."""
    seconds: float = 90.0
    """Wall-clock seconds of pre-training, whatever number of steps that is on this machine."""
    epochs: int | None = None
    """Passes over the training clips; by default as many as fit into --seconds."""
    seed: int = 0
    """Decides clips, weights and training."""
    workers: int = 2
    """Decoding threads."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        at_least("--seconds", self.seconds, 1)
        at_least("--epochs", self.epochs, 1)
        at_least("--workers", self.workers, 1)
        check_seed(self.seed)
