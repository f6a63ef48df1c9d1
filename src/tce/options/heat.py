"""Options of `tce heat`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tce.errors import OptionError
from tce.options.checks import AboveZero, Positive, Range, check_fields
from tce.options.network import NetworkOptions


@dataclass(frozen=True)
class HeatOptions:
    """One video, or two to compare."""

    videos: Annotated[Positional[tuple[str, ...]], arg(metavar="VIDEO")] = ()
    """One video for its self-similarity, two to compare them: files or folders of frames."""
    output: str = ""
    """Picture (.png, .jpg, .pdf, .svg, .webp), or a film of two videos in step (.mp4, .mov, .mkv, .gif)."""
    network: NetworkOptions = field(default_factory=lambda: NetworkOptions(ckpt="lite2"))
    """Network, and how it runs."""
    every: Positive = 1
    """Take every n-th frame; neighbouring frames hardly differ."""
    thumbnails: Annotated[int, Range(0, 24)] = 8
    """Frames shown along each axis; 0 for none."""
    theme: Literal["light", "dark"] = "light"
    """Colours on a light or on a dark ground."""
    title: str | None = None
    """Line above the picture; by default the videos' names, and the network. An empty one leaves it out."""
    fps: AboveZero | None = None
    """Frames a second of the film; by default the first video's own rate."""
    save_embeddings: str | None = None
    """File for the embeddings too, ending in .npz."""

    def __post_init__(self) -> None:
        if len(self.videos) not in (1, 2) or not all(self.videos):
            raise OptionError("VIDEO", "one video or two", str(len([one for one in self.videos if one])))
        if not self.output:
            raise OptionError("--output", "a picture or film to write", "none")
        if self.save_embeddings is not None and not self.save_embeddings.lower().endswith(".npz"):
            raise OptionError("--save-embeddings", "a name ending in .npz", repr(self.save_embeddings))
        check_fields(self)
