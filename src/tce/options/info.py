"""Options of `tce info`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from tce.errors import OptionError
from tce.options.checks import NotNegative, Positive, check_fields


@dataclass(frozen=True)
class InfoOptions:
    """Paths to describe, and pictures to draw."""

    path: Annotated[Positional[tuple[str, ...]], arg(metavar="PATH...")]
    """Checkpoints, run folders, results, collections, folders of videos, embeddings, or videos."""
    sheet: str | None = None
    """Contact sheet to write (.png, .jpg, .webp) of a dataset, a collection or a video."""
    curves: str | None = None
    """Picture of a run's curves to write, a .png; by default curves.png in the run folder."""
    lists: str | None = None
    """Folder of the dataset's lists: shows labels, splits and missing clips."""
    split: str = "01"
    """Split of the lists."""
    probe: NotNegative = 200
    """Most clips of a dataset to open for their lengths, frame rates and sizes; 0 opens none."""
    workers: Positive = 2
    """Decoding processes."""

    def __post_init__(self) -> None:
        if isinstance(self.path, str):  # as from Python
            object.__setattr__(self, "path", (self.path,))
        check_fields(self)
        for flag, given in (("--sheet", self.sheet), ("--curves", self.curves), ("--lists", self.lists)):
            if given is not None and len(self.path) > 1:
                raise OptionError(flag, "one PATH", str(len(self.path)), "describe them one at a time")
        if self.curves is not None and not self.curves.lower().endswith(".png"):
            raise OptionError("--curves", "a name ending in .png", repr(self.curves))
