"""Options of `tce demo`."""

from __future__ import annotations

from dataclasses import dataclass

from tce.errors import OptionError
from tce.options.checks import check_seed


@dataclass(frozen=True)
class DemoOptions:
    """Where the demo writes and how long it learns."""

    out: str = "demo"
    """Folder for everything the demo makes; what an earlier demo left there is replaced."""
    epochs: int = 70
    """Passes over the 192 training clips, three steps each; 70 take some 90 seconds on two cores."""
    seed: int = 0
    """Decides clips, weights and training."""
    workers: int = 2
    """Decoding threads."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        for flag, value in (("--epochs", self.epochs), ("--workers", self.workers)):
            if value < 1:
                raise OptionError(flag, "1 or more", str(value))
        check_seed(self.seed)
