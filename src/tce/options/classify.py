"""Options of `tce classify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tce.options.checks import Pixels, Positive, check_fields


@dataclass(frozen=True)
class ClassifyOptions:
    """Which videos are classified by which network."""

    video: Annotated[Positional[str], arg(metavar="VIDEO")]
    """Video file, folder of frames, or folder of videos (any depth)."""
    ckpt: str
    """Fine-tuned classifier in any known format, or a run folder of `tce finetune`."""
    model: str | None = None
    """Network's name, checked against the file."""
    classes: str | None = None
    """File of class names, one a line or as UCF101's classInd.txt; for checkpoints that lack them."""
    top: Positive = 5
    """Classes to print and to draw."""
    samples: Positive = 64
    """Samples of each video, evenly spaced."""
    output: str | None = None
    """Picture of the classes along time, or a .csv with a row for each video and the probability of every
    class; by default NAME.classes.png of a video, NAME.classes.csv of a folder, in the current folder."""
    crop: Literal["squash", "center-crop"] | None = None
    """How frames become square; by default as the checkpoint was trained."""
    image_size: Pixels | None = None
    """Side of the network's input in pixels; by default the size that the checkpoint was trained with."""
    batch_size: Positive = 32
    """Samples in a pass of the network."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of the network's passes; auto measures both and takes the faster one."""

    def __post_init__(self) -> None:
        check_fields(self)
