"""A folder of images as a source of frames."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.data.find_clips import is_image
from tce.video.base import FrameError, VideoMissing, VideoTruncated, VideoUnreadable
from tce.video.open_video import DEFAULT_FPS, Frames, Image, Video

_DIGITS = re.compile(r"(\d+)")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which frame2 comes before frame10."""
    parts = [part for part in _DIGITS.split(name) if part]
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
    return [*key, (2, 0, name)]  # the name itself decides between 7 and 07


class FrameFolder(Video):
    """A folder of images; see `Video` for the interface.

    Frames are the folder's images in natural order (frame2 before frame10), whatever number they begin with;
    a gap in the numbers is no gap in the frames. Other files are ignored. Orientation tags are not applied:
    frames taken out of a video have none.

    Args:
        path: the folder.
        fps: frames per second, which images do not state.
    """

    kind = "folder"

    def __init__(self, path: str | os.PathLike[str], fps: float = DEFAULT_FPS):
        self.path = Path(path)
        self._fps = fps
        self._names: list[str] | None = None
        self._size: tuple[int, int] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameFolder, (self.path, self._fps)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def names(self) -> list[str]:
        """File names of the frames, in order."""
        if self._names is None:
            self._names = _images(self.path)
        return self._names

    @property
    def fps(self) -> float:
        """Frames per second as given; 25 if nothing was."""
        return self._fps

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the first image that decodes."""
        if self._size is None:
            self._size = self._first_size()
        return self._size

    @property
    def codec(self) -> str:
        """The format of the first image, by its suffix."""
        suffix = os.path.splitext(self.names[0])[1][1:].lower()
        return {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)

    @property
    def rotation(self) -> int:
        """Always 0."""
        return 0

    def times(self, indices: Iterable[int] | None = None) -> NDArray[np.float64]:
        """Frame number over frames per second; see `Video.times`."""
        wanted = np.arange(len(self), dtype=np.int64) if indices is None else self._checked(indices)
        return wanted / self._fps

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
        for name in self.names:
            try:
                height, width = _decode(self.path / name).shape[:2]
                return height, width
            except FrameError as error:
                errors.append(error)
        raise VideoUnreadable(str(self.path), "images that decode", f"none (first: {errors[0]})")

    def _frame(self, number: int) -> NDArray[np.uint8]:
        image = _decode(self.path / self.names[number])
        if image.shape[:2] == self.size:
            return image
        import cv2

        return np.asarray(cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def _images(folder: Path) -> list[str]:
    try:
        names = sorted(filter(is_image, os.listdir(folder)), key=natural_key)
    except OSError as error:
        kind = VideoMissing if isinstance(error, FileNotFoundError) else VideoUnreadable
        raise kind(str(folder), "a folder of images", error.strerror or str(error)) from error
    if not names:
        raise VideoUnreadable(str(folder), "a folder of images (.jpg, .png, ...)", "no images in it")
    return names


def _decode(path: Path) -> NDArray[np.uint8]:
    """RGB [H, W, 3] of an image file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FrameError(str(path), "an image", error.strerror or str(error)) from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] of an encoded image of any format; `name` is what an error calls it.

    Raises:
        FrameError: the data is damaged, cut short or no image.
    """
    import simplejpeg

    if data[:2] == b"\xff\xd8":
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
        except ValueError:
            pass  # CMYK, or damaged: Pillow tells which
    import io

    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith("I;16"):  # Pillow would cut 16 bits off at 255 instead of scaling them
                gray = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(gray[..., None], 3, axis=2)
            return np.array(image.convert("RGB"), np.uint8)
    except UnidentifiedImageError:
        raise FrameError(name, "an image", "other data" if data else "an empty file") from None
    except Exception as error:  # Pillow raises whatever its plug-ins do
        found = str(error) or type(error).__name__
        raise FrameError(name, "an image", found) from error
