"""Options of `tce subset`. Importing them costs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from tce.options.checks import NotNegative, Positive, Seed, check_fields
from tce.options.search import check_suffixes


@dataclass(frozen=True)
class SubsetOptions:
    """Which frames are chosen out of an index, and what is written."""

    db: Annotated[Positional[str], arg(metavar="DB")]
    """Database that `tce index` made."""
    size: Positive
    """How many diverse frames to choose: each next one is the farthest from those chosen."""
    per_video: Positive | None = None
    """Most diverse frames of one video; by default there is no limit."""
    outliers: NotNegative = 12
    """How many outliers to list: frames least like their nearest ones in other videos."""
    typical: NotNegative = 12
    """How many typical frames to list: the middle of each of so many clusters, the largest first."""
    ckpt: str | None = None
    """Which network's index, where the database has several."""
    csv: str | None = None
    """List of the frames to write, .csv."""
    sheet: str | None = None
    """Contact sheet of the frames to write (.png, .jpg, .webp)."""
    seed: Seed = 0
    """Seed of the clusters."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_suffixes(self.csv, self.sheet, None)
