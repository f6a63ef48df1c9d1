"""The options of `tce adapt`; importing them costs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tce.errors import OptionError
from tce.options.checks import AboveZero, Pixels, Positive, Seed, TwoOrMore, check_fields


@dataclass(frozen=True)
class AdaptOptions:
    """Network, videos and run folder."""

    footage: Annotated[Positional[str], arg(metavar="FOOTAGE")] = ""
    """Folder of videos or frame folders (any depth), one video, or a collection made by `tce pack`."""
    out: str = ""
    """Run folder to write: the adapted network (model.safetensors), result.json, and the sums for --add."""
    method: Literal["auto", "linear", "contrastive"] = "auto"
    """linear: a map of the frozen network's features, in closed form; contrastive: its last blocks are
    trained before that, for minutes; auto: linear, and what contrastive would cost is printed."""
    minutes: AboveZero | None = None
    """Minutes that the whole command may take, for contrastive (and auto, which then trains as well); the
    steps that were done are recorded, and --steps repeats them."""
    steps: TwoOrMore | None = None
    """Training steps of the last blocks, for contrastive; by default 160, or as many as --minutes allow."""
    start: str = "lite2"
    """Network to start from: lite2, lite0, hf:NAME, a checkpoint or a run folder."""
    model: str | None = None
    """Network's name, needed where --start is a file with another network's tensors."""
    lists: str | None = None
    """Folder of the dataset's lists; with it, only the train clips of --split are used, without labels."""
    split: str | None = None
    """Number of the split whose train clips are used, e.g. 01; by default 01 with
    --lists, else every clip."""
    group: str | None = None
    """Subtract the mean of each group's clips (a person's, a camera's): "group" (the lists' or table's
    column), "recording", "folder" (the clip's folder), or a pattern such as _(p[0-9]+)_ for the clip's id.
    Groups must not be classes."""
    add: bool = False
    """Add videos to the run in --out; those that it was adapted to are not read again."""
    resume: bool = False
    """Continue an interrupted run in --out."""
    force: bool = False
    """Replace the run in --out."""
    frames_per_clip: TwoOrMore = 8
    """Frames of a clip, evenly spaced; of a long recording, frames of each piece at --fps."""
    fps: AboveZero | None = None
    """Frames a second to take from all videos; by default 2 in a --horizon, from long recordings only."""
    horizon: AboveZero | None = None
    """Farthest in seconds that two frames may be apart to count as the same thing; by default the whole
    clip up to 10 s, 1 s in longer recordings."""
    image_size: Pixels | None = None
    """Side of the network's input in pixels; by default the size that --start was trained with."""
    crop: Literal["squash", "center-crop"] | None = None
    """How frames become square; by default as --start was trained."""
    embedding_size: TwoOrMore | None = None
    """Numbers in an embedding; by default as many as the features have, or fewer where clips are many and
    held-out ones lose nothing."""
    cache_gb: AboveZero = 2.0
    """Disk space in GB for the frozen layers' output while contrastive trains, in --out; of more footage a
    fair sample is trained on."""
    seed: Seed = 0
    """Seed of contrastive's batches and of its head."""
    batch_size: Positive = 32
    """Frames a forward pass."""
    workers: Positive | None = None
    """Decoding processes; by default one a core."""
    timeout: AboveZero = 60.0
    """Seconds without a decoded frame after which a file is given up."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    engine: Literal["auto", "torch", "onnxruntime"] = "auto"
    """What runs the frozen network; auto measures PyTorch and ONNX Runtime and takes the faster one."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of PyTorch's passes; auto measures both and takes the faster one."""

    def __post_init__(self) -> None:
        check_fields(self)
        for flag, given in (("FOOTAGE", self.footage), ("--out", self.out)):
            if not given:
                raise OptionError(flag, expected="a path", found="none")
        if self.add + self.resume + self.force > 1:
            raise OptionError(
                "--add, --resume, --force",
                expected="one of them",
                found="several",
                fix="leave the others out",
            )
        for flag, value in (("--minutes", self.minutes), ("--steps", self.steps)):
            if value is not None and self.method == "linear":
                raise OptionError(
                    flag, expected="--method contrastive", found="--method linear", fix="leave it out"
                )
        if self.minutes is not None and self.steps is not None:
            raise OptionError(
                "--minutes, --steps", expected="one of them", found="both", fix="leave one of them out"
            )
        if self.split is not None and self.lists is None:
            raise OptionError("--split", expected="--lists as well", found="none", fix="add --lists")
