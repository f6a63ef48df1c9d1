"""Options of `tce near-duplicates`. Importing them costs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg

from tce.errors import OptionError
from tce.options.checks import AboveZero, Range, check_fields
from tce.options.network import NetworkOptions
from tce.options.search import check_suffixes


@dataclass(frozen=True)
class NearDuplicatesOptions:
    """Where copies are looked for, and how they are shown."""

    footage: Annotated[Positional[tuple[str, ...]], arg(metavar="DB_OR_FOOTAGE...")]
    """A database that `tce index` made, or videos, folders of videos or frame folders, or a collection."""
    against: str | None = None
    """Another database or footage: only pairs of one video of each are looked for."""
    lists: str | None = None
    """The dataset's lists: only pairs across its splits are looked for, leaks from training to test."""
    split: str = "01"
    """Which of the lists' splits."""
    mirror: bool = False
    """Also find copies with left and right exchanged; takes about twice as long."""
    threshold: Annotated[float, Range(0, 1)] = 0.92
    """Least score of a pair: how well the changes of the two pictures correlate."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    """The network that indexes footage; of a database, which network's index."""
    fps: AboveZero | None = None
    """Frames a second that are compared, of footage; unset: 10."""
    db: str | None = None
    """Database to keep the index of the footage in; by default it is removed in the end."""
    csv: str | None = None
    """Table of the pairs to write, .csv."""
    sheet: str | None = None
    """Contact sheet of the pairs to write (.png, .jpg, .webp)."""
    page: str | None = None
    """HTML page to write, which plays both videos of each pair from the disk."""

    def __post_init__(self) -> None:
        if isinstance(self.footage, str):  # as from Python
            object.__setattr__(self, "footage", (self.footage,))
        check_fields(self)
        if not self.footage:
            raise OptionError("DB_OR_FOOTAGE", "a database, or at least one file or folder", "none")
        if self.against is not None and self.lists is not None:
            raise OptionError("--against and --lists", "one of them", "both", "leave one of them out")
        check_suffixes(self.csv, self.sheet, self.page)
