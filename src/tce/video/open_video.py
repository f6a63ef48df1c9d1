"""Open a video file, a folder of images or an image file as a `Video`, decoded here or in a child process.

A file that crashes or hangs the decoder of a child process raises an error, and ends nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError
from tce.video.base import Frames, Image, Indices, Video, require_regular_file
from tce.video.pool import DecodePool

TIMEOUT = 60.0  # seconds without a frame
CHUNK_BYTES = 16 << 20  # of decoded frames handed over at a time
_MOST_CHILDREN = 4  # of one video: each stream that is open at the same time needs one


def open_video(path: str | os.PathLike[str], threads: int = 0) -> Video:
    """Open a video file, a folder of images or an image file. It is read on the first access.

    Args:
        path: a file in any container format that FFmpeg reads, a folder that holds images, or an image file.
        threads: decoding threads; 0 for one a core, at most 8.

    Raises:
        VideoMissing: the path does not exist.
        VideoUnreadable: the path is neither a regular file nor a folder.
    """
    target = Path(path)
    from tce.video.folder import IMAGE_SUFFIXES, FrameFolder, ImageFile

    if target.is_dir():
        return FrameFolder(target)
    require_regular_file(target, "a video file or a folder of images")
    if target.suffix.lower() in IMAGE_SUFFIXES:
        return ImageFile(target)
    from tce.video.file import VideoFile

    return VideoFile(target, threads)


def open_isolated(path: str | os.PathLike[str], threads: int = 0, timeout: float = TIMEOUT) -> IsolatedVideo:
    """Open a video that a child process decodes; for files that may crash the decoder or keep it busy.

    Close it, or use it as a context manager, to end the child process.

    Args:
        path: as for `open_video`.
        threads: as for `open_video`.
        timeout: seconds without a frame after which `VideoTimeout` is raised.

    Raises:
        VideoMissing: the path does not exist.
        VideoUnreadable: the path is neither a regular file nor a folder.
    """
    return IsolatedVideo(open_video(path, threads), timeout)


@dataclass(frozen=True)
class FrameChunk:
    """Some frames of a video, as a child process sends them.

    Attributes:
        indices: int64 [n].
        frames: uint8 [n, H, W, 3], RGB.
    """

    indices: Indices
    frames: Frames


@dataclass(frozen=True)
class StreamJob:
    """Frames to decode in order.

    Attributes:
        video: a path, or an opened video (which pickles as its path).
        batch: frames a chunk at most; fewer where they would have more than `CHUNK_BYTES`.
        start: first frame.
        stop: frame before which to stop; None for the end.
        step: take every step-th frame.
        threads: decoding threads for a path.
    """

    video: str | Video
    batch: int = 64
    start: int = 0
    stop: int | None = None
    step: int = 1
    threads: int = 1

    def __str__(self) -> str:
        return str(self.video.path if isinstance(self.video, Video) else self.video)

    def open(self) -> Video:
        """The video, opened in this process."""
        return self.video if isinstance(self.video, Video) else open_video(self.video, self.threads)


def stream_chunks(job: StreamJob) -> Iterator[FrameChunk | NDArray[np.float64]]:
    """Decode a video's frames in order; runs in a child of `DecodePool`.

    Yields:
        the frames in chunks; then the presentation times in seconds of all of them, float64 [N].

    Raises:
        VideoError: the video is missing, unreadable or truncated.
    """
    with job.open() as video:
        height, width = video.size
        batch = int(np.clip(CHUNK_BYTES // (height * width * 3), 1, job.batch))
        seen: list[Indices] = []
        for indices, frames in video.stream(batch, job.start, job.stop, job.step):
            seen.append(indices)
            yield FrameChunk(indices, frames)
        yield video.times(np.concatenate(seen)) if seen else np.zeros(0)


def estimated_length(job: StreamJob) -> int:
    """Number of frames that a video declares, without reading all of it; runs in a child of `DecodePool`.

    Raises:
        VideoError: the video is missing or unreadable.
    """
    with job.open() as video:
        return video.estimated_length()


@dataclass(frozen=True)
class _Question:
    video: Video
    name: str
    argument: Any = None

    def __str__(self) -> str:
        return str(self.video.path)


@dataclass(frozen=True)
class _Header:
    fps: float
    size: tuple[int, int]
    codec: str
    rotation: int


def _answer(question: _Question) -> Any:
    video = _reopened(question.video.path, question.video)
    if question.name == "header":
        return _Header(video.fps, video.size, video.codec, video.rotation)
    if question.name == "times":
        return video.times()
    return video.frames(question.argument)


_opened: dict[Path, Video] = {}


def _reopened(path: Path, video: Video) -> Video:
    """The video of the question before, if it is the same: it knows its index and stands at a frame."""
    if path not in _opened:
        _opened.clear()
        _opened[path] = video
    return _opened[path]


class IsolatedVideo(Video):
    """A video that is decoded in a child process of its own; see `Video` for the interface.

    Besides the errors of other videos, its methods raise `VideoTimeout` if nothing is decoded for `timeout`
    seconds, and `DecoderCrashed` if the child process dies. At most three streams can be open at a time.

    Args:
        video: as `open_video` returns it.
        timeout: seconds without a frame.
    """

    def __init__(self, video: Video, timeout: float = TIMEOUT):
        self.path = video.path
        self.kind: Literal["file", "folder", "image"] = video.kind
        self._video, self._timeout = video, timeout
        self._pool: DecodePool | None = None
        self._known: dict[str, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return IsolatedVideo, (self._video, self._timeout)

    def __len__(self) -> int:
        return len(self._remembered("times"))

    @property
    def fps(self) -> float:
        return float(self._remembered("header").fps)

    @property
    def size(self) -> tuple[int, int]:
        height, width = self._remembered("header").size
        return height, width

    @property
    def codec(self) -> str:
        return str(self._remembered("header").codec)

    @property
    def rotation(self) -> int:
        return int(self._remembered("header").rotation)

    def times(self, indices: Iterable[int] | None = None) -> NDArray[np.float64]:
        """Presentation times in seconds since the first frame; see `Video.times`."""
        times: NDArray[np.float64] = self._remembered("times")
        return times.copy() if indices is None else times[self._checked(indices)]

    def frames(self, indices: Iterable[int]) -> Frames:
        """The frames with these indices; see `Video.frames`."""
        frames: Frames = self._ask("frames", self._checked(indices))
        return frames

    def stream(
        self, batch: int = 64, start: int = 0, stop: int | None = None, step: int = 1
    ) -> Iterator[tuple[Indices, Frames]]:
        """Frames in order, in batches, decoded ahead of the caller; see `Video.stream`."""
        streams = self._children().stream(stream_chunks, [StreamJob(self._video, batch, start, stop, step)])
        try:
            _, parts = next(streams)
            for part in parts:
                if isinstance(part, FrameChunk):
                    yield part.indices, part.frames
        finally:
            streams.close()  # the child stops

    def _images(self, start: int, stop: int | None, step: int) -> Iterator[tuple[int, Image]]:
        for indices, frames in self.stream(16, start, stop, step):
            yield from zip(indices.tolist(), frames)

    def close(self) -> None:
        """End the child process; the next access starts another."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None

    def _children(self) -> DecodePool:
        if self._pool is None:
            self._pool = DecodePool(_MOST_CHILDREN, self._timeout)
        return self._pool

    def _ask(self, name: str, argument: Any = None) -> Any:
        ((_, outcome),) = self._children().map(_answer, [_Question(self._video, name, argument)])
        if isinstance(outcome, TceError):
            raise outcome
        return outcome

    def _remembered(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = self._ask(name)
        return self._known[name]
