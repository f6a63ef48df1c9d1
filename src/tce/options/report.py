"""Options of `tce report`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tce.errors import OptionError
from tce.options.checks import AboveZero, Pixels, Positive, Seed, TwoOrMore, check_fields


@dataclass(frozen=True)
class ReportOptions:
    """Videos, networks and the report's folder."""

    footage: Annotated[Positional[str], arg(metavar="FOOTAGE")] = ""
    """Folder of videos or frame folders (any depth), one video, or a collection made by `tce pack`."""
    out: str = ""
    """Folder to write: report.html, report.md, report.json, the features seen (so that an interrupted or
    repeated report continues), and the adapted network."""
    ckpt: tuple[str, ...] = ()
    """Networks to compare with the start: run folders or checkpoints; without any, the start is adapted to
    the footage as `tce adapt` does."""
    names: tuple[str, ...] = ()
    """Their names in the report; by default those of their folders."""
    start: str | None = None
    """Network to compare with: lite2, lite0, hf:NAME or a checkpoint; by default what the first --ckpt was
    adapted from, else lite2."""
    lists: str | None = None
    """The dataset's lists, a folder or a table: labels and splits. Without them, classes are the names of the
    sub-folders."""
    split: str = "01"
    """Split of the lists: the first figure's training and test clips."""
    no_labels: bool = False
    """Use no labels: for sub-folders that are not classes."""
    group: str | None = None
    """What each clip shows or was filmed by (a person, a camera): "group" (the lists' or table's column),
    "recording", "folder", or a pattern such as _(p[0-9]+)_ for the clip's id. Shows the shortcut, and what
    subtracting each group's mean brings. Groups must not be classes."""
    max_clips: TwoOrMore = 2000
    """Most clips to look at, spread evenly over the footage."""
    frames_per_clip: TwoOrMore = 8
    """Frames of a clip, evenly spaced; of a long recording, frames of each piece."""
    image_size: Pixels | None = None
    """Side of every network's input in pixels; by default the size that each was trained with."""
    k: Positive = 20
    """Neighbours that vote in the figures with labels."""
    seed: Seed = 0
    """Seed of the untrained network, of labelled clips, of halves and of the bootstrap."""
    batch_size: Positive = 32
    """Frames a forward pass."""
    workers: Positive | None = None
    """Decoding processes; by default one a core."""
    timeout: AboveZero = 60.0
    """Seconds without a decoded frame after which a file is given up."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    engine: Literal["auto", "torch", "onnxruntime"] = "auto"
    """What runs the networks; auto measures PyTorch and ONNX Runtime and takes the faster one."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of PyTorch's passes; auto measures both and takes the faster one."""

    def __post_init__(self) -> None:
        for name in ("ckpt", "names"):
            if isinstance(getattr(self, name), str):  # as from Python
                object.__setattr__(self, name, (getattr(self, name),))
        check_fields(self)
        for flag, given in (("FOOTAGE", self.footage), ("--out", self.out)):
            if not given:
                raise OptionError(flag, expected="a path", found="none")
        if self.names and len(self.names) != len(self.ckpt):
            raise OptionError("--names", f"{len(self.ckpt)}, one for each --ckpt", str(len(self.names)))
        if self.no_labels and self.lists is not None:
            raise OptionError("--no-labels", "no --lists", "both", "leave one of them out")
