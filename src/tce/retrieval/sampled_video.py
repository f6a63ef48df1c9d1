"""Some frames of a video, or of a clip of a collection, as a video of their own; decoded in child processes.

Both classes pickle as what they were made of, so that a child process opens them itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tce.data.encode import Encoding, Job, chosen
from tce.data.segment import frame_range
from tce.video.base import Frames, Image, Indices, Video, VideoUnreadable
from tce.video.image import decode
from tce.video.open_video import open_video

if TYPE_CHECKING:
    from tce.data.collection import Collection

_BATCH = 16  # frames of a collection read at a time


class SampledVideo(Video):
    """The frames of a video that an index takes of it, in order. Frame numbers are those of the file.

    Args:
        path: a video file, a folder of images, or an image.
        every: take every n-th frame.
        fps: take so many frames a second instead, the nearest in time, none twice.
        start: seconds from which on; None for the beginning.
        end: seconds before which; None for the end.
        at: take only the frame shown at this time, in seconds.
    """

    kind: Literal["file", "folder", "image"] = "file"

    def __init__(
        self,
        path: str,
        every: int | None = None,
        fps: float | None = None,
        start: float | None = None,
        end: float | None = None,
        at: float | None = None,
    ):
        self.path = Path(path)
        self._made_of = (path, every, fps, start, end, at)
        self._every, self._fps, self._start, self._end, self._at = every or 1, fps, start, end, at
        self._video = open_video(path, threads=1)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of

    def __len__(self) -> int:
        return len(self._numbers())

    @property
    def fps(self) -> float:
        """Average frames per second of the file."""
        return self._video.fps

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._video.size

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return self._video.codec

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise by which stored frames are rotated."""
        return self._video.rotation

    def estimated_length(self) -> int:
        """About how many frames are taken."""
        if self._at is not None:
            return 1
        frames, rate = self._video.estimated_length(), self._video.fps
        if self._start is not None or self._end is not None:
            end = frames / rate if self._end is None else self._end
            frames = min(frames, max(1, round((end - (self._start or 0.0)) * rate)))
        if self._fps is not None:
            return max(1, min(frames, math.ceil(frames / rate * self._fps)))
        return -(-frames // self._every)

    def times(self, indices: Iterable[int] | None = None) -> NDArray[np.float64]:
        """Presentation times in seconds, of all frames taken or of frames of the file."""
        return self._video.times(self._numbers() if indices is None else indices)

    def frames(self, indices: Iterable[int]) -> Frames:
        """Frames of the file by number."""
        return self._video.frames(indices)

    def close(self) -> None:
        """Close the file."""
        self._video.close()

    def _images(self, start: int, stop: int | None, step: int) -> Iterator[tuple[int, Image]]:
        assert (start, stop, step) == (0, None, 1), "what is taken was said when it was made"
        if self._at is None and self._fps is None and self._start is None and self._end is None:
            yield from self._video.each(
                step=self._every
            )  # needs no times, which some files give only decoded
            return
        numbers = self._numbers()
        wanted = set(numbers.tolist())
        for number, image in self._video.each(int(numbers[0]), int(numbers[-1]) + 1):
            if number in wanted:
                yield number, image

    def _numbers(self) -> Indices:
        """Which frames of the file are taken, int64 [n]."""
        if self._at is not None:
            times = self._video.times()
            shown = float(np.median(np.diff(times))) if len(times) > 1 else math.inf
            if self._at > times[-1] + shown:
                raise VideoUnreadable(
                    str(self.path), f"a frame at {self._at:g} s", f"an end at {times[-1]:g} s"
                )
            return np.array([np.argmin(np.abs(times - self._at))], np.int64)
        encoding = Encoding(every=None if self._fps is not None else self._every, fps=self._fps)
        if self._fps is None:
            first, stop = frame_range(self._video, self._start, self._end)
            return np.arange(first, stop, self._every, dtype=np.int64)
        return chosen(self._video, Job(str(self.path), encoding, self._start, self._end))


@functools.lru_cache(maxsize=1)
def _collection(path: str, version: tuple[int, int]) -> Collection:
    from tce.data.collection import open_collection

    return open_collection(path, version)


class CollectionClip(Video):
    """A clip of a collection; frame numbers are its positions there.

    Args:
        path: the collection.
        version: its tables' versions, see `Collection.version`.
        clip: row of the clip.
        every: take every n-th frame.
        fps: take so many frames a second instead.
    """

    kind: Literal["file", "folder", "image"] = "file"

    def __init__(
        self,
        path: str,
        version: tuple[int, int],
        clip: int,
        every: int | None = None,
        fps: float | None = None,
    ):
        self.path = Path(path)
        self._made_of = (path, version, clip, every, fps)
        self._clip, self._every, self._fps = clip, every or 1, fps

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of

    @property
    def _store(self) -> Collection:
        return _collection(self._made_of[0], tuple(self._made_of[1]))

    def __len__(self) -> int:
        return len(self._numbers())

    @property
    def fps(self) -> float:
        """Frames per second that are stored."""
        return float(self._store.fps[self._clip]) or 1.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self._store.sizes[self._clip].tolist()
        return height, width

    @property
    def codec(self) -> str:
        """The stored image format."""
        return "jpeg"

    @property
    def rotation(self) -> int:
        """Stored frames are upright."""
        return 0

    def times(self, indices: Iterable[int] | None = None) -> NDArray[np.float64]:
        """Seconds since the clip's first frame, at the stored rate."""
        numbers = self._numbers() if indices is None else np.asarray(list(indices))
        return np.asarray(numbers / self.fps, np.float64)

    def frames(self, indices: Iterable[int]) -> Frames:
        """Frames by position, uint8 [n, H, W, 3]."""
        from tce.video.image import resize_to

        numbers = self._checked(indices)
        images = self._store.read(np.full(len(numbers), self._clip), numbers)
        pixels = []
        for number, image in zip(numbers.tolist(), images):
            if not isinstance(image, bytes):
                raise VideoUnreadable(
                    f"{self.path}, clip {self._clip}, frame {number}", "an image", str(image)
                )
            pixels.append(resize_to(decode(image, str(self.path)), self.size))
        return np.stack(pixels)

    def _checked(self, indices: Iterable[int]) -> Indices:
        return np.asarray(list(indices), np.int64)

    def _images(self, start: int, stop: int | None, step: int) -> Iterator[tuple[int, Image]]:
        assert (start, stop, step) == (0, None, 1), "what is taken was said when it was made"
        numbers = self._numbers()
        for first in range(0, len(numbers), _BATCH):
            part = numbers[first : first + _BATCH]
            yield from zip(part.tolist(), self.frames(part))

    def _numbers(self) -> Indices:
        count = int(self._store.lengths[self._clip])
        if self._fps is None:
            return np.arange(0, count, self._every, dtype=np.int64)
        grid = np.arange(0, max(count - 0.5, 0.5) / self.fps, 1 / self._fps)
        return np.unique(np.minimum(np.rint(grid * self.fps), count - 1).astype(np.int64))
