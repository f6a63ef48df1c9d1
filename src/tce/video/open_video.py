"""A source of frames: any file that FFmpeg reads, or a folder of images, behind one interface."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from tce.video.base import (
    DecoderCrashed,
    FrameError,
    VideoError,
    VideoMissing,
    VideoTimeout,
    VideoTruncated,
    VideoUnreadable,
)

__all__ = [
    "DEFAULT_FPS",
    "DecoderCrashed",
    "FrameError",
    "Video",
    "VideoError",
    "VideoMissing",
    "VideoTimeout",
    "VideoTruncated",
    "VideoUnreadable",
    "open_video",
]

DEFAULT_FPS = 25.0  # where nothing states a rate; FFmpeg assumes the same for image sequences

Image = NDArray[np.uint8]  # [H, W, 3] RGB
Frames = NDArray[np.uint8]  # [n, H, W, 3] RGB
Indices = NDArray[np.int64]  # [n]


class Video(ABC):
    """Frames by index or in order, from a video file or a folder of images.

    Opening reads nothing: the first question that needs the footage opens it. A video pickles as its path and
    is opened anew by whoever unpickles it. All frames have the size of the first: later frames of another
    size, in the middle of a stream or in a folder of mixed images, are resized to it (bilinear, aspect ratio
    not kept). Transparency is dropped, and pixels are taken as square. One thread at a time may ask.

    Attributes:
        path: where the footage is.
        kind: "file" or "folder" or "image" (a single image file, which may hold several pictures).
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
        """FFmpeg's name of the codec, or the images' format."""

    @property
    @abstractmethod
    def rotation(self) -> int:
        """Degrees counter-clockwise by which stored frames are turned: 0, 90, 180 or 270."""

    @abstractmethod
    def times(self, indices: Iterable[int] | None = None) -> NDArray[np.float64]:
        """Presentation times in seconds since the first frame, of all frames or of `indices`.

        Raises:
            FrameError: an index lies outside the video.
        """

    @abstractmethod
    def frames(self, indices: Iterable[int]) -> Frames:
        """Exactly the frames asked for, in the order asked for; duplicates are allowed.

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
        """Frames in order, in batches, in memory that does not grow: the fast path.

        Args:
            batch: frames a batch; the last one may be smaller.
            start: first frame.
            stop: frame before which to stop; None for the end.
            step: take every step-th frame.

        Yields:
            frame indices int64 [n] and frames uint8 [n, H, W, 3].

        Raises:
            VideoTruncated: after all frames that decode, if the file promised more of them, ends too early
                or is damaged.
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
            except VideoTruncated as error:  # what decoded before is handed out first
                truncated = error
                break
            if out is None:
                out = np.empty((batch, *image.shape), np.uint8)
            out[len(numbers)] = image
            numbers.append(number)
            if len(numbers) == batch:
                yield np.array(numbers, np.int64), out
                numbers, out = [], None
        if out is not None:
            yield np.array(numbers, np.int64), out[: len(numbers)]
        if truncated is not None:
            raise truncated

    def each(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[tuple[int, Image]]:
        """Frames in order, one at a time: for work on single frames, which `stream` would copy once more.

        Args:
            start: first frame.
            stop: frame before which to stop; None for the end.
            step: take every step-th frame.

        Yields:
            frame index, and frame uint8 [H, W, 3], contiguous and to keep, but perhaps not to write to.

        Raises:
            VideoTruncated: as `stream` does.
        """
        assert start >= 0 and step > 0
        for number, image in self._images(start, stop, step):
            yield number, np.ascontiguousarray(image)

    @abstractmethod
    def _images(self, start: int, stop: int | None, step: int) -> Iterator[tuple[int, Image]]:
        """What `each` gives, with any strides."""

    def close(self) -> None:  # noqa: B027 (a folder holds nothing open)
        """Let go of the open file; the next question opens it again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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


def open_video(path: str | os.PathLike[str], threads: int = 0) -> Video:
    """Open a video file, a folder of images or an image file, lazily.

    Args:
        path: any file that FFmpeg reads, a folder that holds images, or an image file.
        threads: decoding threads; 0 for one a core, at most 8.

    Raises:
        VideoMissing: nothing is there.
        VideoUnreadable: a named pipe, a device or the like is there.
    """
    target = Path(path)
    if target.is_dir():
        from tce.video.folder import FrameFolder

        return FrameFolder(target)
    if not target.exists():
        raise VideoMissing(
            str(target), "a video file or a folder of images", "nothing there", "check the path"
        )
    if not target.is_file():  # a named pipe or a device would keep the decoder waiting
        raise VideoUnreadable(str(target), "a video file or a folder of images", "not a regular file")
    from tce.video.folder import IMAGE_SUFFIXES

    if target.suffix.lower() in IMAGE_SUFFIXES:
        from tce.video.image_file import ImageFile

        return ImageFile(target)
    from tce.video.file import VideoFile

    return VideoFile(target, threads)
