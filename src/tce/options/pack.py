"""Options of `tce pack` and `tce check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from tce.errors import OptionError
from tce.options.checks import AboveZero, NotNegative, Positive, Range, check_fields


@dataclass(frozen=True)
class PackOptions:
    """What goes into a collection, and how."""

    footage: Annotated[Positional[tuple[str, ...]], arg(metavar="FOOTAGE...")]
    """Video files, or folders of videos or of frame folders, at any depth."""
    out: str
    """Folder of the collection; repeating an interrupted command resumes it."""
    lists: str | None = None
    """The dataset's lists (UCF101, HMDB51, Kinetics, SSv2, CSV or Parquet): labels and splits."""
    split: str = "01"
    """Which of the lists' splits fills the column `split`."""
    short_side: NotNegative | None = None
    """Shorter side of the frames in pixels: larger ones are reduced, smaller ones never enlarged; 0 keeps all
    as they are. By default videos are reduced to 256, which serves crops of 224; JPEG files are copied."""
    quality: Annotated[int, Range(1, 100)] = 90
    """JPEG quality, 1 to 100; 90 looks like the original at about 8 KB a frame of 340x256."""
    every: Positive | None = None
    """Keep every n-th frame."""
    fps: AboveZero | None = None
    """Keep this many frames a second (the nearest in time, none twice): clips of any rate become alike."""
    clip_seconds: AboveZero | None = None
    """Cut footage into clips of this many seconds; long recordings would otherwise be one clip each."""
    split_scenes: bool = False
    """Cut footage where the scene changes (needs the extra `tce-video[scenes]`); before --clip-seconds."""
    keep_damaged: bool = False
    """Keep the frames that decode of damaged footage, rather than leave the clip out."""
    keep_going: bool = False
    """Pack what decodes even if none of the first 20 clips does; packing would stop there."""
    add: bool = False
    """Add footage to a collection that was made from other footage."""
    replace: bool = False
    """Pack again what failed, is damaged in the collection, or has changed since it was packed."""
    only: tuple[str, ...] = ()
    """Only these clips, by their ids; with --replace they are packed again whatever their state."""
    workers: Positive | None = None
    """Decoding processes; by default one a core."""
    timeout: AboveZero = 60.0
    """Seconds without a decoded frame after which a file counts as hanging."""
    dry_run: bool = False
    """Write nothing; print how many clips there are, and the size and time they would take."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.every is not None and self.fps is not None:
            raise OptionError(
                "--every and --fps", expected="one of them", found="both", fix="leave one of them out"
            )
        if not self.footage:
            raise OptionError("FOOTAGE", expected="at least one file or folder", found="none")
