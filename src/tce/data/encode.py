"""One clip of footage to its encoded frames, in chunks; runs in a decoding child process."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from tce.data.segment import frame_range
from tce.video.base import FrameError, VideoTruncated, VideoUnreadable
from tce.video.image import (
    check_whole,
    decode,
    encode_jpeg,
    image_size,
    is_jpeg,
    read_file,
    reduce_to,
    reduced_size,
)
from tce.video.pool_worker import heartbeat

if TYPE_CHECKING:
    from tce.options.pack import PackOptions
    from tce.video.base import Video

DEFAULT_SIDE = 256
"""Short side to which videos are reduced by default, pixels; it serves crops of 224."""

BATCH = 16  # frames decoded at a time: few enough that they are still in the cache when they are encoded
CHUNK_BYTES = 8 << 20  # of encoded frames sent to the parent at a time
_ROUNDING = 1e-6  # seconds


@dataclass(frozen=True)
class Encoding:
    """How frames are chosen and encoded; the fields are those of `PackOptions`.

    Attributes:
        short_side: pixels; None is `DEFAULT_SIDE` for videos and "as it is" for JPEG folders, 0 "as it is".
        quality: JPEG quality, 1 to 100.
        every: keep every n-th frame.
        fps: keep so many frames a second.
        keep_damaged: keep the good frames of damaged footage.
    """

    short_side: int | None = None
    quality: int = 90
    every: int | None = None
    fps: float | None = None
    keep_damaged: bool = False

    @classmethod
    def of(cls, options: PackOptions) -> Encoding:
        """The part of `tce pack`'s options that a decoding process needs."""
        return cls(options.short_side, options.quality, options.every, options.fps, options.keep_damaged)

    @property
    def video_side(self) -> int:
        """Short side for videos in pixels, 0 for any."""
        return DEFAULT_SIDE if self.short_side is None else self.short_side


@dataclass(frozen=True)
class Job:
    """What to encode.

    Attributes:
        path: a video file or a frame folder.
        encoding: how.
        start: seconds since the first frame from which on frames belong to the clip; None for the beginning.
        end: seconds before which they do; None for the end.
    """

    path: str
    encoding: Encoding
    start: float | None = None
    end: float | None = None

    def __str__(self) -> str:
        return self.path


@dataclass
class FrameChunk:
    """Some encoded frames of a clip in their order, n of them.

    Attributes:
        data: the frames' bytes, concatenated.
        ends: int64 [n + 1], offsets of the frames' bytes in `data`, and its length.
        checksums: uint32 [n], CRC-32 of each frame's bytes.
        times: float64 [n], seconds since the clip's first frame.
    """

    data: bytes
    ends: np.ndarray
    checksums: np.ndarray
    times: np.ndarray

    def __len__(self) -> int:
        return len(self.checksums)


@dataclass(frozen=True)
class Summary:
    """What is known of a clip once all its frames are encoded.

    Attributes:
        frames: how many.
        bytes: of the encoded frames.
        fps: encoded frames a second.
        size: height and width of the first frame, pixels.
        content_hash: SHA-256 of the footage.
        modified: when the footage was last changed, nanoseconds since 1970.
        damage: what was wrong with footage of which the good frames were kept, else empty.
    """

    frames: int
    bytes: int
    fps: float
    size: tuple[int, int]
    content_hash: str
    modified: int
    damage: str = ""


def encode_clip(job: Job) -> Iterator[FrameChunk | Summary]:
    """Decode a clip and encode the frames wanted.

    Yields:
        the frames in chunks, then the summary.

    Raises:
        VideoError: the footage is damaged (unless `keep_damaged` and some frames are good), missing or empty.
    """
    return _encode_folder(job) if os.path.isdir(job.path) else _encode_video(job)


def _encode_video(job: Job) -> Iterator[FrameChunk | Summary]:
    from tce.video.open_video import open_video

    encoding = job.encoding
    buffer = FrameBuffer()
    with open_video(job.path, threads=1) as video:
        try:
            for indices, frames in _wanted(video, job):
                for index, frame in zip(indices.tolist(), frames, strict=True):
                    buffer.write(index, encode_jpeg(reduce_to(frame, encoding.video_side), encoding.quality))
                buffer.size = buffer.size or reduced_size(frames.shape[1:3], encoding.video_side)
                if buffer.pending > CHUNK_BYTES:
                    yield buffer.chunk(video.times(buffer.indices))
                heartbeat()
        except VideoTruncated as error:
            if not (encoding.keep_damaged and buffer.frames):
                raise
            buffer.damage = str(error)
        if not buffer.frames:
            raise VideoUnreadable(job.path, "frames", "none")
        if buffer.pending:
            yield buffer.chunk(video.times(buffer.indices))
        rate = video.fps
    modified = modified_at(job.path)
    yield buffer.summary(rate, encoding, file_hash(job.path, os.path.getsize(job.path), modified), modified)


def _encode_folder(job: Job) -> Iterator[FrameChunk | Summary]:
    """JPEG files go in byte for byte, unless they have to be reduced; other images are encoded."""
    from tce.video.folder import FrameFolder

    folder, buffer, digest = FrameFolder(job.path), FrameBuffer(), hashlib.sha256()
    numbers = chosen(folder, job)
    for count, number in enumerate(numbers.tolist()):
        name = folder.names[number]
        try:
            data, image, size = _read_frame(os.path.join(job.path, name), job.encoding)
        except FrameError as error:
            if not job.encoding.keep_damaged:
                raise
            buffer.damage = buffer.damage or f"{name}: {error.found}"
            continue
        digest.update(name.encode() + b"\0" + data)
        buffer.write(number, image)
        buffer.size = buffer.size or size
        if buffer.pending > CHUNK_BYTES:
            yield buffer.chunk(folder.times(buffer.indices))
        if count % BATCH == 0:
            heartbeat()
    if not buffer.frames:
        raise VideoUnreadable(job.path, "images that can be read", f"none ({buffer.damage})")
    if buffer.pending:
        yield buffer.chunk(folder.times(buffer.indices))
    yield buffer.summary(folder.fps, job.encoding, digest.hexdigest(), modified_at(job.path))


def modified_at(path: str) -> int:
    """When footage was last changed, nanoseconds since 1970; the newest file's time for a frame folder.

    Raises:
        OSError: it cannot be read.
    """
    newest = os.stat(path).st_mtime_ns
    if os.path.isdir(path):
        with os.scandir(path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # a link that leads nowhere
                    newest = max(newest, entry.stat().st_mtime_ns)
    return newest


def chosen(video: Video, job: Job) -> np.ndarray:
    """Which frames of the footage are wanted, int64 [n].

    With `fps`, the frame nearest to each multiple of 1 / fps since the clip's first one, none twice.

    Raises:
        FrameError: no frame is shown between the clip's start and end.
    """
    first, stop = frame_range(video, job.start, job.end)
    numbers = np.arange(first, stop, job.encoding.every or 1, dtype=np.int64)
    if job.encoding.fps is None or len(numbers) < 2:
        return numbers
    times = video.times(numbers)
    times -= times[0]
    grid = np.arange(math.floor(times[-1] * job.encoding.fps + _ROUNDING) + 1) / job.encoding.fps
    after = np.clip(np.searchsorted(times, grid), 1, len(times) - 1)
    ahead = (times[after] - grid) - (grid - times[after - 1])
    nearest = np.where(ahead >= -_ROUNDING, after - 1, after)  # of two as near, the earlier one
    return numbers[np.unique(nearest)]


@lru_cache(maxsize=4)  # many clips are cut out of one long recording
def file_hash(path: str, size: int, modified: int) -> str:
    """SHA-256 of a file that has this size and time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wanted(video: Video, job: Job) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of the clip in batches: indices int64 [n], pixels uint8 [n, H, W, 3]."""
    every = job.encoding.every or 1
    if job.encoding.fps is not None:
        numbers = chosen(video, job)
        for begin in range(0, len(numbers), BATCH):
            part = numbers[begin : begin + BATCH]
            yield part, video.frames(part)
    elif job.start is None and job.end is None:
        yield from video.stream(BATCH, step=every)  # needs no index, which some files only give when decoded
    else:
        yield from video.stream(BATCH, *frame_range(video, job.start, job.end), every)


def _read_frame(path: str, encoding: Encoding) -> tuple[bytes, bytes, tuple[int, int]]:
    """An image file's bytes, those to store of it, and its size.

    Raises:
        FrameError: it cannot be read, or is no whole image.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise FrameError(path, "an image", error.strerror or str(error)) from error
    return data, *_stored_image(data, encoding, path)


def _stored_image(data: bytes, encoding: Encoding, name: str) -> tuple[bytes, tuple[int, int]]:
    """The bytes to store of an image file, and the height and width that they decode to.

    A JPEG's header and end are read, but its pixels are not decoded: that would take ten times as long.

    Raises:
        FrameError: no image, cut short or too large.
    """
    side = encoding.short_side or 0
    if is_jpeg(data):
        size = image_size(data, name)
        check_whole(data, name)
        if not 0 < side < min(size):
            return data, size
    image = reduce_to(decode(data, name), side)
    return encode_jpeg(image, encoding.quality), (image.shape[0], image.shape[1])


class FrameBuffer:
    """Collects a clip's encoded frames until they make a chunk.

    Attributes:
        frames: frames so far.
        pending: bytes since the last chunk.
        size: height and width of the first frame.
        damage: what was wrong with the first frame that was skipped.
    """

    def __init__(self) -> None:
        self.frames = self.pending = 0
        self.size: tuple[int, int] | None = None
        self.damage = ""
        self._bytes = 0
        self._first = self._last = 0.0  # presentation times
        self._indices: list[int] = []
        self._images: list[bytes] = []

    @property
    def indices(self) -> np.ndarray:
        """int64 [n], the frames' numbers in the footage since the last chunk."""
        return np.array(self._indices, dtype=np.int64)

    def write(self, index: int, image: bytes) -> None:
        """Add one encoded frame."""
        self._indices.append(index)
        self._images.append(image)
        self.pending += len(image)
        self.frames += 1

    def chunk(self, times: np.ndarray) -> FrameChunk:
        """What was written since the last chunk; `times` are its presentation times."""
        if self._bytes == 0:
            self._first = float(times[0])
        self._last = float(times[-1])
        lengths = [len(image) for image in self._images]
        chunk = FrameChunk(
            b"".join(self._images),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.array([zlib.crc32(image) for image in self._images], dtype=np.uint32),
            times - self._first,
        )
        self._bytes += self.pending
        self._indices = []
        self._images = []
        self.pending = 0
        return chunk

    def summary(self, video_fps: float, encoding: Encoding, content_hash: str, modified: int) -> Summary:
        """The clip's facts; `video_fps` is its rate where a single frame shows none."""
        assert self.size is not None
        rate = encoding.fps or video_fps / (encoding.every or 1)
        if self._last > self._first:
            rate = (self.frames - 1) / (self._last - self._first)
        return Summary(self.frames, self._bytes, rate, self.size, content_hash, modified, self.damage)
