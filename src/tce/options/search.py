"""Options of `tce search`. Importing them costs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from tce.errors import OptionError
from tce.options.checks import FromZero, Positive, check_fields

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class SearchOptions:
    """What is searched for, where, and how the results are shown."""

    db: str
    """Database that `tce index` made."""
    video: str | None = None
    """Query: a video file or a folder of frames, all of it unless --at or --from and --to are given."""
    at: FromZero | None = None
    """Query with the one frame of --video at this time, in seconds."""
    from_: Annotated[FromZero | None, arg(name="from")] = None
    """Query with the part of --video from this time on, in seconds."""
    to: FromZero | None = None
    """Query with the part of --video before this time, in seconds."""
    image: str | None = None
    """Query: an image file."""
    frame: str | None = None
    """Query: an indexed frame, as VIDEO:SECONDS, where VIDEO is a path or its last part; needs no network."""
    ckpt: str | None = None
    """Which network's index, where the database has several; the query's network is the index's own."""
    top: Positive = 10
    """How many moments to return."""
    any_order: bool = False
    """Let the frames of the query occur in any order; by default they match as a sequence."""
    exclude_same_video: bool = False
    """Leave out the video that the query comes from."""
    label: tuple[str, ...] = ()
    """Search only clips with one of these labels."""
    path: tuple[str, ...] = ()
    """Search only videos whose path matches one of these patterns, such as "*/cam2/*"."""
    group: tuple[str, ...] = ()
    """Search only clips of these groups."""
    from_time: FromZero | None = None
    """Search only the part of each video from this time on, in seconds."""
    to_time: FromZero | None = None
    """Search only the part of each video before this time, in seconds."""
    csv: str | None = None
    """Table of the moments to write, .csv."""
    sheet: str | None = None
    """Contact sheet of the best frames to write (.png, .jpg, .webp)."""
    page: str | None = None
    """HTML page to write, whose previews play the videos from the disk."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        for name in ("label", "path", "group"):
            if isinstance(getattr(self, name), str):  # as from Python
                object.__setattr__(self, name, (getattr(self, name),))
        check_fields(self)
        given = [flag for flag in ("video", "image", "frame") if getattr(self, flag) is not None]
        if len(given) > 1:
            found = " and ".join(f"--{flag}" for flag in given)
            raise OptionError("the query", "one of --video, --image and --frame", found)
        self._check_times()
        check_suffixes(self.csv, self.sheet, self.page)

    def require_given(self) -> None:
        """Check that there is a query; from Python it may be an array.

        Raises:
            OptionError: none is given.
        """
        if self.video is None and self.image is None and self.frame is None:
            raise OptionError("the query", "one of --video, --image and --frame", "none")

    def _check_times(self) -> None:
        times = [
            flag
            for flag, value in (("--at", self.at), ("--from", self.from_), ("--to", self.to))
            if value is not None
        ]
        if times and self.video is None:
            raise OptionError(times[0], "--video, whose time it is", "none", "give --video")
        if self.at is not None and len(times) > 1:
            raise OptionError("--at", "no --from or --to beside it", " ".join(times[1:]))
        spans = (
            ("--from", self.from_, "--to", self.to),
            ("--from-time", self.from_time, "--to-time", self.to_time),
        )
        for first, start, last, end in spans:
            if start is not None and end is not None and not start < end:
                raise OptionError(last, f"more than {first} {start:g}", f"{end:g}")


def check_suffixes(csv: str | None, sheet: str | None, page: str | None) -> None:
    """Check the names of the table, the contact sheet and the page.

    Raises:
        OptionError: another ending than theirs.
    """
    for flag, value, suffixes in (
        ("--csv", csv, (".csv",)),
        ("--sheet", sheet, PICTURES),
        ("--page", page, (".html", ".htm")),
    ):
        if value is not None and not value.lower().endswith(suffixes):
            raise OptionError(flag, f"a name ending in {', '.join(suffixes)}", repr(value))
