"""A folder of images as a video."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.video.base import (
    DEFAULT_FPS,
    FrameError,
    Frames,
    Image,
    Video,
    VideoMissing,
    VideoTruncated,
    VideoUnreadable,
)

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))

_DIGITS = re.compile(r"(\d+)")
_NUMBERED = re.compile(r"(.*?)(\d+)\D*")
_FLOW = re.compile(r"(^|[^a-z])(opt(ical)?_?)?flow([^a-z]|$)")  # TSN's and MMAction's flow_x_00001.jpg


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image; hidden files do not count."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which frame2 comes before frame10."""
    parts = [part for part in _DIGITS.split(name) if part]
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
    return [*key, (2, 0, name)]  # the name itself decides between 7 and 07


def name_series(names: Iterable[str]) -> dict[str, list[str]]:
    """File names by what stands before their last number; those without a number under ""."""
    series: dict[str, list[str]] = {}
    for name in names:
        match = _NUMBERED.fullmatch(os.path.splitext(name)[0])
        series.setdefault(match[1] if match else "", []).append(name)
    return series


def without_flow(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """A folder's frames, and the optical flow that some datasets keep beside them (`flow_x_00001.jpg`).

    A folder of nothing but optical flow keeps it.

    Args:
        names: the folder's images.

    Returns:
        names of the frames, and names of the flow images.
    """
    flow = {
        name for prefix, own in name_series(names).items() if _FLOW.search(prefix.lower()) for name in own
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
        """Always 0: images are turned as they are decoded."""
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
    return without_flow(names)[0]
