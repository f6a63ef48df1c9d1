"""The options of `tce explore`. Importing them costs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tce.errors import OptionError
from tce.options.checks import AboveZero, Pixels, Positive, Range, Seed, check_fields

DEFAULT_FRAMES = 2500  # on two cores about a minute of a small network
PAGES = (".html", ".htm")


@dataclass(frozen=True)
class ExploreOptions:
    """Videos, a collection or embeddings, as one HTML page."""

    footage: Annotated[Positional[str], arg(metavar="FOOTAGE")] = ""
    """Folder of videos or frame folders, one video, a collection, or embeddings (.npz, .parquet)."""
    output: str = ""
    """Page to write, .html; replaced if there. It plays the videos from where they lie relative to it."""
    ckpt: str = "lite2"
    """Network: lite2 or lite0 (ImageNet weights, no training needed), a run, a checkpoint or hf:NAME."""
    compare: str | None = None
    """Second network: its map of the same frames is shown beside the first one's."""
    lists: str | None = None
    """Folder or file of the dataset's lists, which give the classes; by default the folders' names."""
    split: str = "01"
    """Which of the lists' splits."""
    table: str | None = None
    """Table (.csv, .tsv, .parquet) with a column `path` or `video`; the other columns become colours."""
    fps: AboveZero = 4.0
    """Frames a second taken from each video, fewer where that would be more than --max-frames."""
    max_frames: Annotated[int, Range(3)] | None = None
    """About how many frames are taken in all; by default 2500 from videos, every frame of embeddings."""
    thumbnail: Annotated[int, Range(0, 256)] | None = None
    """Longer side of a frame's picture in pixels, 0 for none; by default 64, 48 above 10,000 frames, 32 above
    30,000."""
    embed_video: bool = False
    """Put a small copy (H.264) of every video into the page, which then plays without the footage."""
    parquet: str | None = None
    """Also write the points as a table: x, y, video, frame, time, picture and nearest frames."""
    neighbours: Annotated[int, Range(0, 50)] = 8
    """Nearest frames kept of each frame."""
    clusters: Annotated[int, Range(2, 100)] = 12
    """Clusters of k-means, one of the colours."""
    perplexity: Annotated[float, Range(1)] | None = None
    """How many neighbours each frame tries to keep on the map; by default 30, fewer for few frames."""
    title: str | None = None
    """Title of the page; by default the footage's name."""
    image_size: Pixels | None = None
    """Side of the network's input in pixels; by default the size it was trained for."""
    batch_size: Positive = 32
    """Frames a forward pass."""
    workers: Positive | None = None
    """Decoding processes; by default half the cores, at most 4."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    engine: Literal["auto", "torch", "onnxruntime"] = "auto"
    """What runs the network; auto measures PyTorch and ONNX Runtime and takes the faster one."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of PyTorch's passes; auto measures both for a moment and takes the faster one."""
    seed: Seed = 0
    """Decides the map and the clusters."""

    def __post_init__(self) -> None:
        check_fields(self)
        for flag, given in (("FOOTAGE", self.footage), ("--output", self.output)):
            if not given:
                raise OptionError(flag, expected="a path", found="none")
        if not self.output.lower().endswith(PAGES):
            raise OptionError("--output", "a name ending in .html", repr(self.output))
        if self.parquet is not None and not self.parquet.lower().endswith(".parquet"):
            raise OptionError("--parquet", "a name ending in .parquet", repr(self.parquet))
