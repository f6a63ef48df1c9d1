"""Options of `tce pack` and `tce check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from tce.errors import OptionError
from tce.options.checks import AboveZero, NotNegative, Positive, Range, check_fields


@dataclass(frozen=True)
class PackOptions:
    """Videos to pack, and how."""

    footage: Annotated[Positional[tuple[str, ...]], arg(metavar="FOOTAGE...")]
    """Video files, or folders of videos or frame folders (any depth)."""
    out: str
    """Folder of the collection to write; repeat an interrupted command to resume it."""
    lists: str | None = None
    """Folder of the dataset's lists (UCF101, HMDB51, Kinetics, SSv2, CSV, Parquet), for labels and splits."""
    split: str = "01"
    """Split of the lists that fills the column `split`."""
    short_side: NotNegative | None = None
    """Shorter side of the frames in pixels: larger frames are reduced, smaller ones never enlarged; 0 keeps
    all sizes. By default videos are reduced to 256, enough for crops of 224, and JPEG files are copied."""
    quality: Annotated[int, Range(1, 100)] = 90
    """JPEG quality, 1 to 100; at 90 a frame of 340x256 takes about 8 KB."""
    every: Positive | None = None
    """Keep every n-th frame."""
    fps: AboveZero | None = None
    """Keep this many frames a second, the nearest in time, so that all clips have the same frame rate."""
    clip_seconds: AboveZero | None = None
    """Cut videos into clips of this many seconds; by default each video is one clip."""
    split_scenes: bool = False
    """Cut videos where the scene changes, before --clip-seconds (needs the extra `tce-video[scenes]`)."""
    keep_damaged: bool = False
    """Keep the frames of a damaged video that can be decoded; by default the clip is left out."""
    keep_going: bool = False
    """Continue even if none of the first 20 clips can be decoded; by default packing stops."""
    add: bool = False
    """Add videos to a collection that was made from others."""
    replace: bool = False
    """Pack clips again that failed, are damaged in the collection, or have changed since."""
    only: tuple[str, ...] = ()
    """Pack only the clips with these ids; with --replace, pack them again in any case."""
    workers: Positive | None = None
    """Decoding processes; by default one a core."""
    timeout: AboveZero = 60.0
    """Seconds without a decoded frame after which a file is given up."""
    dry_run: bool = False
    """Write nothing; print the number of clips, and the size and time that they would take."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.every is not None and self.fps is not None:
            raise OptionError(
                "--every and --fps", expected="one of them", found="both", fix="leave one of them out"
            )
        if not self.footage:
            raise OptionError("FOOTAGE", expected="at least one file or folder", found="none")
