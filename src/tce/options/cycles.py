"""Options of `tce cycles`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg

from tce.errors import OptionError
from tce.options.checks import AboveZero, Range, check_fields
from tce.options.network import NetworkOptions

PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp")


@dataclass(frozen=True)
class CyclesOptions:
    """One video, and which periods count as repetition."""

    video: Annotated[Positional[str], arg(metavar="VIDEO")]
    """A video file, a folder of frames, or embeddings of one video (tce embed)."""
    network: NetworkOptions = field(default_factory=lambda: NetworkOptions(ckpt="lite2"))
    """The network and how it runs."""
    output: str | None = None
    """Picture to write: self-similarity, period and count over time."""
    csv: str | None = None
    """Table to write, .csv: time, period, confidence and count of every frame looked at."""
    fps: AboveZero = 15.0
    """Frames a second to embed, the nearest in time; a period needs four of them."""
    shortest: AboveZero = 0.3
    """Shortest period in seconds."""
    longest: AboveZero = 4.0
    """Longest period in seconds; the video must show two of them."""
    threshold: Annotated[float, Range(0, 1)] = 0.3
    """Least correlation between one repetition and the next, from 0 to 1; below it nothing is counted."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.video:
            raise OptionError("VIDEO", expected="a path", found="none")
        if not self.shortest < self.longest:
            raise OptionError("--longest", f"more than --shortest {self.shortest:g}", f"{self.longest:g}")
        if self.output is not None and not self.output.lower().endswith(PICTURES):
            raise OptionError("--output", f"a name ending in {', '.join(PICTURES)}", repr(self.output))
        if self.csv is not None and not self.csv.lower().endswith(".csv"):
            raise OptionError("--csv", "a name ending in .csv", repr(self.csv))
