"""Options of `tce check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from tce.options.checks import AboveZero, Positive, check_fields


@dataclass(frozen=True)
class CheckOptions:
    """What to check."""

    footage: Annotated[Positional[str], arg(metavar="FOOTAGE_OR_COLLECTION")]
    """A video, a folder of videos or frame folders at any depth, or a collection."""
    deep: bool = False
    """Decode every frame; otherwise the first, middle and last of each clip."""
    lists: str | None = None
    """The dataset's lists: clips that they name and the footage lacks are reported too."""
    split: str = "01"
    """Which of the lists' splits."""
    workers: Positive | None = None
    """Decoding processes; by default one a core."""
    timeout: AboveZero = 60.0
    """Seconds without an answer after which a file counts as hanging."""

    def __post_init__(self) -> None:
        check_fields(self)
