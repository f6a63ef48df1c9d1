"""Options of `tce index`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg

from tce.errors import OptionError
from tce.options.checks import AboveZero, Positive, Range, check_fields
from tce.options.network import RANDOM, NetworkOptions


@dataclass(frozen=True)
class IndexOptions:
    """Which footage is indexed, by which network, and which of its frames."""

    footage: Annotated[Positional[tuple[str, ...]], arg(metavar="FOOTAGE...")]
    """Video files, folders of videos or of frame folders at any depth, or a collection."""
    db: str
    """Folder of the database; repeating the command adds new videos, or resumes an interrupted one."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    """The network and how it runs."""
    every: Positive | None = None
    """Index every n-th frame; by default as the index was made, at first every frame."""
    fps: AboveZero | None = None
    """Index this many frames a second instead, the nearest in time; by default as the index was made."""
    lists: str | None = None
    """The dataset's lists (UCF101, Kinetics, CSV or Parquet): labels and groups of the clips."""
    split: str = "01"
    """Which of the lists' splits."""
    thumbnail: Annotated[int, Range(16, 256)] = 64
    """Longer side in pixels of the small pictures that contact sheets and pages show."""
    ray: str | None = None
    """Embed on a Ray cluster: local (processes of this machine), auto (the running cluster that it belongs
    to), or an address. This process alone writes the index."""

    def __post_init__(self) -> None:
        if isinstance(self.footage, str):  # as from Python
            object.__setattr__(self, "footage", (self.footage,))
        check_fields(self)
        if not self.footage:
            raise OptionError("FOOTAGE", expected="at least one file or folder", found="none")
        if self.every is not None and self.fps is not None:
            raise OptionError(
                "--every and --fps", expected="one of them", found="both", fix="leave one of them out"
            )
        if self.network.ckpt is None:
            raise OptionError(
                "--ckpt",
                expected=f"a checkpoint, a run folder, lite2 or {RANDOM}",
                found="none",
                fix="--ckpt lite2 needs no training",
            )
