"""Options of `tce classify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tce.errors import OptionError


@dataclass(frozen=True)
class ClassifyOptions:
    """Which video is classified by which network."""

    video: Annotated[Positional[str], arg(metavar="VIDEO")]
    """A video file, or a folder of frames."""
    ckpt: str
    """A fine-tuned classifier in any known format, or a run folder of `tce finetune`."""
    model: str | None = None
    """Network's name, checked against the file."""
    classes: str | None = None
    """File of class names, one a line or as UCF101's classInd.txt; for checkpoints that lack them."""
    top: int = 5
    """How many classes are told."""
    samples: int = 64
    """Samples spread evenly over the video."""
    output: str | None = None
    """Picture of the classes along time; unset: VIDEO's name with .classes.png, in the current folder."""
    crop: Literal["squash", "center-crop"] | None = None
    """How frames become squares; unset: as the checkpoint says."""
    image_size: int | None = None
    """Side of the network's input in pixels; unset: as the checkpoint says."""
    batch_size: int = 32
    """Samples in a pass of the network."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of the network's passes; auto measures both for a moment and takes the faster one."""

    def __post_init__(self) -> None:
        for flag, value in (
            ("--top", self.top),
            ("--samples", self.samples),
            ("--batch-size", self.batch_size),
        ):
            if value < 1:
                raise OptionError(flag, expected="1 or more", found=str(value))
        if self.image_size is not None and self.image_size < 8:
            raise OptionError("--image-size", expected="8 or more", found=str(self.image_size))
