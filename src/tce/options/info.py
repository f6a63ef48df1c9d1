"""Options of `tce info`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from tce.errors import OptionError


@dataclass(frozen=True)
class InfoOptions:
    """What is looked at, and which pictures are drawn of it."""

    path: Annotated[Positional[str], arg(metavar="PATH")]
    """A checkpoint, run folder, collection, folder of footage, file of embeddings, or video."""
    sheet: str | None = None
    """Contact sheet to write (.png, .jpg, .webp) of a dataset, a collection or a video."""
    curves: str | None = None
    """Where a run's curves are drawn, a .png; unset: curves.png in its folder."""
    lists: str | None = None
    """Folder of the dataset's lists, for labels, splits and what is missing."""
    split: str = "01"
    """Which split of the lists."""
    probe: int = 200
    """Most clips of a dataset that are opened to tell lengths, rates and sizes; 0 opens none."""
    workers: int = 2
    """Processes that open them."""

    def __post_init__(self) -> None:
        if self.probe < 0:
            raise OptionError("--probe", "0 or more", str(self.probe))
        if self.workers < 1:
            raise OptionError("--workers", "1 or more", str(self.workers))
        if self.curves is not None and not self.curves.lower().endswith(".png"):
            raise OptionError("--curves", "a name ending in .png", repr(self.curves))
