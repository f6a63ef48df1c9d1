"""One image file as a video: a single picture, the pages of a TIFF, an animated WebP or PNG."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tce.video.base import DEFAULT_FPS, FrameError, Image, VideoError, VideoMissing, VideoUnreadable
from tce.video.folder import ImageSequence

if TYPE_CHECKING:
    from PIL import Image as Pictures

PAGED_SUFFIXES = frozenset((".tif", ".tiff", ".webp", ".png"))
"""Suffixes of image files that can hold several pictures."""


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
