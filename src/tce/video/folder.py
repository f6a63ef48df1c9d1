"""Still images as a video: a folder of them, or one file that holds one or several."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tce.video.base import (
    DEFAULT_FPS,
    FrameError,
    Frames,
    Image,
    Video,
    VideoError,
    VideoMissing,
    VideoTruncated,
    VideoUnreadable,
)

if TYPE_CHECKING:
    from PIL import Image as Pictures

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
PAGED_SUFFIXES = frozenset((".tif", ".tiff", ".webp", ".png"))
"""Suffixes of image files that can hold several pictures."""

_DIGITS = re.compile(r"(\d+)")
_TIME_OF_DAY = re.compile(  # 2024-01-31, 20240131_120059, 12-00-59, 1h20m30s: their fields count on together
    r"(?<!\d)(\d{4}([-_.])\d\d\2\d\d|\d{8}[-_T]?\d{6}|\d\d([-_.:])\d\d\3\d\d|\d+h\d+m\d+s?)(?!\d)"
)
_TIME = "\0"  # stands for one; no file name holds it
_NUMBERED = re.compile(r"(.*?)(\d+|\0)([^\d\0]*)", re.DOTALL)
_ENDS_IN_NUMBER = re.compile(r"(.*?)\d+(\.[^.\d]+)", re.DOTALL)
_FLOW = re.compile(r"(^|[^a-z])(opt(ical)?_?)?flow([^a-z]|$)")  # TSN's and MMAction's flow_x_00001.jpg


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image; hidden files do not count."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which frame2 comes before frame10."""
    parts = [part for part in _DIGITS.split(name) if part]
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
    return [*key, (2, 0, name)]  # the name itself decides between 7 and 07


def name_series(names: Sequence[str]) -> dict[str, list[str]]:
    """File names by the pattern around their last number, such as `cam1_*`; those without a number under "".

    Dates and times of day count as one number. Suffixes belong to the pattern where two files differ in
    nothing else, as `1.jpg` and its mask `1.png`.
    """
    pattern = _pattern_of_all(names)
    if pattern:
        return {pattern: list(names)}
    stems = [os.path.splitext(name) for name in names]
    is_clash = len({stem for stem, _ in stems}) < len(stems)
    series: dict[str, list[str]] = {}
    for name, (stem, suffix) in zip(names, stems, strict=True):
        match = _NUMBERED.fullmatch(_TIME_OF_DAY.sub(_TIME, stem))
        pattern = f"{match[1]}*{match[3]}{suffix.lower() if is_clash else ''}" if match else ""
        series.setdefault(pattern.replace(_TIME, "*"), []).append(name)
    return series


def _pattern_of_all(names: Sequence[str]) -> str:
    """`frame*` where all names are one text, a number and one suffix, as nearly always; quick to check."""
    match = _ENDS_IN_NUMBER.fullmatch(names[0]) if names else None
    if match is None:
        return ""
    prefix, suffix = match[1], match[2]
    start, end = len(prefix), -len(suffix)
    if all(
        name.startswith(prefix) and name.endswith(suffix) and name[start:end].isdecimal() for name in names
    ):
        return f"{prefix}*"
    return ""


def several_videos(names: Sequence[str]) -> dict[str, list[str]]:
    """The series of a folder's images if they are several videos, such as two cameras' frames; else nothing.

    They are if at least two series have two images each; the directions of optical flow count as one. Single
    images of other names, such as a cover, make no second video.
    """
    series = {
        pattern: own
        for pattern, own in name_series(names).items()
        if pattern and len(own) > 1 and not _FLOW.search(pattern.lower())
    }
    return series if len(series) > 1 else {}


def without_flow(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """A folder's frames, and the optical flow that some datasets keep beside them (`flow_x_00001.jpg`).

    A folder of nothing but optical flow keeps it.

    Args:
        names: the folder's images.

    Returns:
        names of the frames, and names of the flow images.
    """
    flow = {
        name for pattern, own in name_series(names).items() if _FLOW.search(pattern.lower()) for name in own
    }
    if not flow or len(flow) == len(names):
        return list(names), []
    return [name for name in names if name not in flow], [name for name in names if name in flow]


class ImageSequence(Video):
    """Still images as the frames of a video; see `Video` for the interface.

    All frames have the size of the first image that decodes; others are resized to it.
    """

    _size: tuple[int, int] | None = None

    @abstractmethod
    def _decode(self, number: int) -> Image:
        """One image uint8 [H, W, 3] at its own size.

        Raises:
            FrameError: it cannot be decoded.
        """

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the first image that decodes."""
        if self._size is None:
            self._size = self._first_size()
        return self._size

    @property
    def rotation(self) -> int:
        """Always 0: images are rotated as they are decoded."""
        return 0

    def frames(self, indices: Iterable[int]) -> Frames:
        """Exactly the frames asked for; see `Video.frames`."""
        wanted = self._checked(indices)  # [n]
        out = np.empty((len(wanted), *self.size, 3), np.uint8)
        for place, number in enumerate(wanted):
            out[place] = self._frame(int(number))
        return out

    def _images(self, start: int, stop: int | None, step: int) -> Iterator[tuple[int, Image]]:
        wanted = range(start, len(self) if stop is None else min(stop, len(self)), step)
        damaged: list[FrameError] = []
        for number in wanted:
            try:
                yield number, self._frame(number)
            except FrameError as error:
                damaged.append(error)
        if damaged:
            found = f"{len(wanted) - len(damaged)} that decode (first: {damaged[0]})"
            raise VideoTruncated(str(self.path), f"{len(wanted)} frames", found)

    def _first_size(self) -> tuple[int, int]:
        errors = []
        for number in range(len(self)):
            try:
                height, width = self._decode(number).shape[:2]
                return height, width
            except FrameError as error:
                errors.append(error)
        raise VideoUnreadable(str(self.path), "images that decode", f"none (first: {errors[0]})")

    def _frame(self, number: int) -> NDArray[np.uint8]:
        from tce.video.image import resize_to

        return resize_to(self._decode(number), self.size)


class FrameFolder(ImageSequence):
    """A folder of images; see `Video` for the interface.

    Frames are the folder's images in natural order (frame2 before frame10), whatever number they begin with;
    missing numbers are no missing frames. Other files are ignored, and so is optical flow beside the frames.

    Args:
        path: the folder.
        fps: frames per second, which images do not state.
    """

    kind = "folder"

    def __init__(self, path: str | os.PathLike[str], fps: float = DEFAULT_FPS):
        self.path = Path(path)
        self._fps = fps
        self._names: list[str] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameFolder, (self.path, self._fps)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def names(self) -> list[str]:
        """File names of the frames, in order."""
        if self._names is None:
            self._names = _list_images(self.path)
        return self._names

    @property
    def fps(self) -> float:
        """Frames per second as given; 25 by default."""
        return self._fps

    @property
    def codec(self) -> str:
        """The format of the first image, by its suffix."""
        suffix = os.path.splitext(self.names[0])[1][1:].lower()
        return {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)

    def times(self, indices: Iterable[int] | None = None) -> NDArray[np.float64]:
        """Frame number divided by frames per second; see `Video.times`."""
        wanted = np.arange(len(self), dtype=np.int64) if indices is None else self._checked(indices)
        return wanted / self._fps

    def _decode(self, number: int) -> Image:
        from tce.video.image import read_image

        return read_image(self.path / self.names[number])


def _list_images(folder: Path) -> list[str]:
    try:
        names = sorted(filter(is_image, os.listdir(folder)), key=natural_key)
    except OSError as error:
        kind = VideoMissing if isinstance(error, FileNotFoundError) else VideoUnreadable
        raise kind(str(folder), "a folder of images", error.strerror or str(error)) from error
    if not names:
        raise VideoUnreadable(str(folder), "a folder of images (.jpg, .png, ...)", "no images in it")
    frames, _ = without_flow(names)
    series = several_videos(frames)
    if series:
        found = ", ".join(f"{len(own)} named {pattern}" for pattern, own in list(series.items())[:3])
        raise VideoUnreadable(
            str(folder),
            "the frames of one video",
            found + (", ..." if len(series) > 3 else ""),
            "put each series of images into a folder of its own",
        )
    return frames


class ImageFile(ImageSequence):
    """An image file; see `Video` for the interface.

    Its frames are the pictures in the file. Smaller copies of a picture in a TIFF do not count. Animations
    state how long each picture is shown; the pages of a TIFF count as 25 a second.

    Args:
        path: the file.
    """

    kind = "image"

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._picture: Pictures.Image | None = None
        self._pages: list[int] = []
        self._shown: NDArray[np.float64] | None = None  # seconds of each frame

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageFile, (self.path,)

    def __len__(self) -> int:
        self._open()
        return len(self._pages)

    @property
    def fps(self) -> float:
        """Average pictures per second; 25 where the file does not state how long they are shown."""
        seconds = float(self._seconds().sum())
        return len(self) / seconds if seconds > 0 else DEFAULT_FPS

    @property
    def codec(self) -> str:
        """The image format: "png", "tiff", "webp", "jpeg", ..."""
        name = (self._open().format or "image").lower()
        return "jpeg" if name == "mpo" else name

    def times(self, indices: Iterable[int] | None = None) -> NDArray[np.float64]:
        """When each picture appears; see `Video.times`."""
        times = np.concatenate([[0.0], np.cumsum(self._seconds())[:-1]])
        return times if indices is None else times[self._checked(indices)]

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        if self._picture is not None:
            self._picture.close()
            self._picture = None

    def _open(self) -> Pictures.Image:
        from tce.video.image import open_picture, page_numbers, read_file

        if self._picture is None:
            try:
                data = read_file(self.path)
            except OSError as error:
                kind = VideoMissing if isinstance(error, FileNotFoundError) else VideoUnreadable
                raise kind(str(self.path), "an image", error.strerror or str(error)) from error
            try:
                self._picture = open_picture(data, str(self.path))
            except FrameError as error:
                raise VideoUnreadable(*error.args) from error
            self._pages = page_numbers(self._picture)
        return self._picture

    def _seconds(self) -> NDArray[np.float64]:
        """How long each picture is shown, in seconds [n]."""
        if self._shown is None:
            self._shown = np.full(len(self), 1 / DEFAULT_FPS)
            if len(self) > 1 and self._open().format != "TIFF":
                for number in range(len(self)):
                    picture = self._seek(number)
                    self._shown[number] = picture.info.get("duration", 0) / 1000 or 1 / DEFAULT_FPS
        return self._shown

    def _seek(self, number: int) -> Pictures.Image:
        from tce.video.image import require_pixels

        picture = self._open()
        try:
            picture.seek(self._pages[number])
            require_pixels(picture.height, picture.width, str(self.path))
            picture.load()
        except FrameError:
            raise
        except Exception as error:  # Pillow raises whatever its plug-ins do
            found = str(error) or type(error).__name__
            raise FrameError(f"picture {number} of {self.path}", "an image", found) from error
        return picture

    def _decode(self, number: int) -> Image:
        from tce.video.image import picture_to_rgb, read_image

        if len(self) == 1:
            return read_image(self.path)
        return picture_to_rgb(self._seek(number), str(self.path))


def holds_several(path: str) -> bool:
    """Whether an image file holds several pictures; false for one that cannot be opened."""
    if os.path.splitext(path)[1].lower() not in PAGED_SUFFIXES:
        return False
    try:
        with ImageFile(path) as file:
            return len(file) > 1
    except VideoError:
        return False
