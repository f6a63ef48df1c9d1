"""Which network embeds the frames, and how it runs: shared by the commands that embed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tce.options.checks import Positive, Seed, check_fields

RANDOM = "random"  # in place of a checkpoint, in every command: an untrained network
RANDOM_MODEL = "resnet50"  # the 2020 release's default network


@dataclass(frozen=True)
class NetworkOptions:
    """Network, and how it runs."""

    ckpt: str | None = None
    """Checkpoint in any known format, a run folder, lite2, lite0 or hf:NAME; by default an untrained
    network, as with `random`."""
    model: str | None = None
    """resnet18, 34, 50, 101, 152, hf:FOLDER_OR_NAME or package.module:callable; by default
    that of --ckpt."""
    output_size: Positive | None = None
    """Numbers in an embedding of a network with random weights; by default its features, without a head."""
    image_size: Positive | None = None
    """Side of the network's input in pixels; by default the size that it was trained with."""
    batch_size: Positive = 64
    """Frames a forward pass: limits the memory, hardly changes the speed."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:1."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of the network's passes; auto measures both and takes the faster one."""
    engine: Literal["auto", "torch", "onnxruntime"] = "auto"
    """What runs the backbone; auto measures PyTorch and ONNX Runtime and takes the faster one."""
    layer: Literal["features", "embedding"] | None = None
    """Vectors to write: embedding or backbone features; by default the embedding if it was trained."""
    center: str | None = None
    """Subtract the mean of each group's frames: "recording" (each video), "folder" (the video's folder),
    "group" (as in v_NAME_g01_c01), or a pattern such as _(p[0-9]+)_ for its path. Groups must not
    be classes."""
    seed: Seed = 0
    """Seed of random weights, of the map of `tce tsne`, and of the clusters of `tce discover`."""

    def __post_init__(self) -> None:
        check_fields(self)
