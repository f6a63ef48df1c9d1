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
    """Video, folder of videos or frame folders (any depth), or collection."""
    deep: bool = False
    """Decode every frame; by default the first, middle and last of each clip."""
    lists: str | None = None
    """Folder of the dataset's lists; report listed clips without a video too."""
    split: str = "01"
    """Split of the lists."""
    workers: Positive | None = None
    """Decoding processes; by default one a core."""
    timeout: AboveZero = 60.0
    """Seconds without a decoded frame after which a file is given up."""

    def __post_init__(self) -> None:
        check_fields(self)
