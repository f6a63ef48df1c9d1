"""The `Video` interface and the errors that reading a video can raise.

Every error names the path, what was expected and what was found. Errors survive pickling, so that a child
process can send them to its parent.
"""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from tce.errors import OptionError, TceError

DEFAULT_FPS = 25.0  # where nothing states a rate; FFmpeg assumes the same for image sequences
MAX_BATCH_BYTES = 256 << 20  # of one batch of `Video.stream`

MAX_PIXELS = 89_478_485
"""Pixels that a frame may declare: Pillow's limit for images, 268 MB as RGB; `TCE_MAX_PIXELS` changes it."""

Image = NDArray[np.uint8]  # [H, W, 3] RGB
Frames = NDArray[np.uint8]  # [n, H, W, 3] RGB
Indices = NDArray[np.int64]  # [n]


class VideoError(TceError):
    """A video that cannot be used; the base class of the errors below."""


class VideoMissing(VideoError):
    """The path does not exist."""


class VideoUnreadable(VideoError):
    """The path exists, but is not a video: text, zero bytes, audio only, a damaged header, a named pipe."""


class VideoTruncated(VideoError):
    """Fewer frames decode than the file declares: it is cut short or damaged.

    `Video.stream` raises it only after it has yielded every frame that decodes.
    """


class FrameError(VideoError):
    """One frame cannot be read: its index lies outside the video, or its data is damaged."""


class VideoTimeout(VideoError):
    """Decoding made no progress within the time limit."""


class DecoderCrashed(VideoError):
    """The decoding process died: a fault inside the decoder, or out of memory."""


class Video(ABC):
    """Frames by index or in order, from a video file or a folder of images.

    Opening is lazy: the file is read on the first access. A video pickles as its path and is reopened where
    it is unpickled. All frames have the size of the first one: later frames of another size, after a change
    of resolution or in a folder of mixed images, are resized to it (bilinear, without keeping the aspect
    ratio). Alpha is dropped, and pixels are treated as square. Not thread-safe: use one object per thread.

    Attributes:
        path: the file or folder.
        kind: "file", "folder" or "image" (one image file, which may hold several pictures).
    """

    path: Path
    kind: Literal["file", "folder", "image"]

    @abstractmethod
    def __len__(self) -> int:
        """Exact number of frames."""

    @property
    @abstractmethod
    def fps(self) -> float:
        """Average frames per second."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, after rotation."""

    @property
    @abstractmethod
    def codec(self) -> str:
        """FFmpeg's name of the codec, or the image format."""

    @property
    @abstractmethod
    def rotation(self) -> int:
        """Degrees counter-clockwise by which stored frames are rotated: 0, 90, 180 or 270."""

    def estimated_length(self) -> int:
        """Number of frames that the file declares, found quickly: for progress bars."""
        return len(self)

    @abstractmethod
    def times(self, indices: Iterable[int] | None = None) -> NDArray[np.float64]:
        """Presentation times in seconds since the first frame, of all frames or of `indices`.

        Raises:
            FrameError: an index lies outside the video.
        """

    @abstractmethod
    def frames(self, indices: Iterable[int]) -> Frames:
        """The frames with these indices, in the given order; duplicates are allowed.

        Args:
            indices: frame numbers, 0-based.

        Returns:
            uint8 [n, H, W, 3], RGB.

        Raises:
            FrameError: an index lies outside the video, or that frame cannot be decoded.
        """

    def stream(
        self, batch: int = 64, start: int = 0, stop: int | None = None, step: int = 1
    ) -> Iterator[tuple[Indices, Frames]]:
        """Frames in order, in batches, in bounded memory: the fastest way to read a video.

        Args:
            batch: frames a batch. The last batch may be smaller, and so is every batch that would take more
                than 256 MiB.
            start: first frame.
            stop: frame before which to stop; None for the end.
            step: take every step-th frame.

        Yields:
            frame indices int64 [n] and frames uint8 [n, H, W, 3].

        Raises:
            VideoTruncated: after all frames that decode, if the file declares more of them, ends early or
                is damaged.
        """
        assert batch > 0 and start >= 0 and step > 0
        numbers: list[int] = []
        out: Frames | None = None
        truncated: VideoTruncated | None = None
        images = self._images(start, stop, step)
        while True:
            try:
                number, image = next(images)
            except StopIteration:
                break
            except VideoTruncated as error:  # frames decoded before it are yielded first
                truncated = error
                break
            if out is None:
                out = np.empty((max(1, min(batch, MAX_BATCH_BYTES // image.size)), *image.shape), np.uint8)
            out[len(numbers)] = image
            numbers.append(number)
            if len(numbers) == len(out):
                yield np.array(numbers, np.int64), out
                numbers, out = [], None
        if out is not None:
            yield np.array(numbers, np.int64), out[: len(numbers)]
        if truncated is not None:
            raise truncated

    def each(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[tuple[int, Image]]:
        """Frames in order, one at a time; saves the copy into a batch that `stream` makes.

        Args:
            start: first frame.
            stop: frame before which to stop; None for the end.
            step: take every step-th frame.

        Yields:
            frame index, and frame uint8 [H, W, 3], contiguous; it may be read-only.

        Raises:
            VideoTruncated: see `stream`.
        """
        assert start >= 0 and step > 0
        for number, image in self._images(start, stop, step):
            yield number, np.ascontiguousarray(image)

    @abstractmethod
    def _images(self, start: int, stop: int | None, step: int) -> Iterator[tuple[int, Image]]:
        """What `each` yields, with any strides."""

    def close(self) -> None:  # noqa: B027 (a folder keeps no file open)
        """Close the file; the next access reopens it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def _checked(self, indices: Iterable[int]) -> Indices:
        wanted = np.asarray(list(indices) if not isinstance(indices, np.ndarray) else indices)
        if wanted.size == 0:
            return np.zeros(0, np.int64)
        if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer):
            raise FrameError(
                str(self.path), "a list of whole frame numbers", f"{wanted.dtype} {list(wanted.shape)}"
            )
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(outside):
            raise FrameError(f"frame {outside[0]} of {self.path}", f"0 to {len(self) - 1}", str(outside[0]))
        return wanted.astype(np.int64)


def require_regular_file(path: str | os.PathLike[str], expected: str = "a video file") -> os.stat_result:
    """The file's status, if it is a regular file or a link to one. Nothing is opened.

    Opening a named pipe waits for a writer, and reading some devices never ends.

    Raises:
        VideoMissing: the path does not exist, or is a link to nothing.
        VideoUnreadable: something else is at the path: a named pipe, a device, a socket, a folder.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        link = f"a link to {os.readlink(path)}, which does not exist" if os.path.islink(path) else ""
        found = link or "nothing there" if isinstance(error, FileNotFoundError) else error.strerror
        raise VideoMissing(str(path), expected, found or str(error), "check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise VideoUnreadable(str(path), expected, _kind_of_file(status.st_mode))
    return status


def _kind_of_file(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def max_pixels() -> int:
    """Pixels that a frame or image may declare: `MAX_PIXELS`, or the environment variable `TCE_MAX_PIXELS`.

    Raises:
        OptionError: the variable is not a number above 0.
    """
    given = os.environ.get("TCE_MAX_PIXELS")
    if given is None:
        return MAX_PIXELS
    if not given.isdecimal() or int(given) == 0:
        raise OptionError("TCE_MAX_PIXELS", expected="a number of pixels above 0", found=repr(given))
    return int(given)


def require_pixels(height: int, width: int, name: str, kind: type[VideoError] = FrameError) -> None:
    """Check the size that an image or video declares, before memory is allocated for it.

    Args:
        height: of a frame, in pixels.
        width: of a frame, in pixels.
        name: what the error calls the file.
        kind: class of the error.

    Raises:
        FrameError: more than `max_pixels()`.
    """
    if height * width > max_pixels():
        raise too_many_pixels(f"{width} x {height}", name, kind)


def too_many_pixels(found: str, name: str, kind: type[VideoError] = FrameError) -> VideoError:
    """The error of an image or video of more than `max_pixels()`; `found` is its size."""
    fix = "set the environment variable TCE_MAX_PIXELS to allow more"
    return kind(name, f"at most {max_pixels():,} pixels a frame", found, fix)
