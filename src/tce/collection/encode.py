"""One clip of footage -> its encoded frames; runs in a decoding child, or in a thread for JPEG folders."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np

from tce.collection.folders import read_file
from tce.collection.image import decode, image_size
from tce.video.errors import FrameError, VideoError, VideoTruncated, VideoUnreadable

BATCH = 32  # frames decoded at a time
SPOOL_BYTES = 32 << 20  # a clip larger than this goes through a file: it would have to be held several times
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"


@dataclass(frozen=True)
class Encoding:
    """How frames are chosen and encoded; the fields are those of `PackOptions`.

    Attributes:
        short_side: pixels; None is `DEFAULT_SIDE` for videos and "as it is" for JPEG folders, 0 "as it is".
    """

    short_side: int | None = None
    quality: int = 90
    every: int | None = None
    fps: float | None = None
    keep_damaged: bool = False


DEFAULT_SIDE = 256
"""Short side to which videos are reduced by default, pixels; it serves crops of 224."""


@dataclass(frozen=True)
class Job:
    """What to encode.

    Attributes:
        path: a video file or a frame folder.
        encoding: how.
        start: seconds since the first frame from which on frames belong to the clip; None for the beginning.
        end: seconds before which they do; None for the end.
        spool: folder for the frames of clips too large for memory.
    """

    path: str
    encoding: Encoding
    start: float | None = None
    end: float | None = None
    spool: str | None = None


@dataclass
class Encoded:
    """A clip's encoded frames, n of them, one behind the other in `data` or in the file `spooled`.

    Attributes:
        ends: int64 [n + 1], where each frame's bytes begin, and the last one's end.
        checksums: uint32 [n], CRC-32.
        times: float64 [n], seconds since the clip's first frame.
        fps: frames a second of these frames.
        size: height and width of the first frame, pixels.
        content_hash: SHA-256 of the footage.
        modified: nanoseconds since 1970.
        damage: what was wrong with footage of which the good frames were kept, else empty.
    """

    data: bytes = b""
    spooled: str | None = None
    ends: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    checksums: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint32))
    times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    fps: float = 0.0
    size: tuple[int, int] = (0, 0)
    content_hash: str = ""
    modified: int = 0
    damage: str = ""

    def __len__(self) -> int:
        return len(self.checksums)


def encode_clip(job: Job) -> Encoded:
    """Decode a clip and encode the frames wanted.

    Raises:
        VideoError: the footage is damaged (unless `keep_damaged` and some frames are good), missing or empty.
    """
    return encode_folder(job) if os.path.isdir(job.path) else encode_video(job)


def encode_video(job: Job) -> Encoded:
    """`encode_clip` for a video file."""
    from tce.video.source import open_video

    encoding = job.encoding
    side = DEFAULT_SIDE if encoding.short_side is None else encoding.short_side
    sink = _Sink(job.spool)
    numbers: list[np.ndarray] = []
    with open_video(job.path, threads=1) as video:
        frames = _wanted(video, job)
        try:
            for indices, pixels in frames:
                numbers.append(indices)
                for image in pixels:
                    sink.write(_jpeg(_reduce(image, side), encoding.quality))
                    sink.size = sink.size or _reduced(pixels.shape[1:3], side)
        except VideoTruncated as error:
            if not (encoding.keep_damaged and numbers):
                raise
            sink.damage = str(error)
        if not numbers:
            raise VideoUnreadable(job.path, "frames", f"none {_between(job)}")
        times = video.times(np.concatenate(numbers))
        rate = video.fps
    encoded = sink.close()
    encoded.times = times - times[0]
    encoded.fps = _rate(encoded.times, rate, encoding)
    encoded.modified = modified_at(job.path)
    encoded.content_hash = _file_hash(job.path, os.path.getsize(job.path), encoded.modified)
    return encoded


def encode_folder(job: Job) -> Encoded:
    """`encode_clip` for a frame folder: JPEG files byte for byte, unless they have to be reduced."""
    from tce.video.folder import FrameFolder

    encoding = job.encoding
    folder = FrameFolder(job.path)
    numbers = _chosen(folder.times(), job)
    if len(numbers) == 0:
        raise VideoUnreadable(job.path, "frames", f"none {_between(job)}")
    sink, digest = _Sink(job.spool), hashlib.sha256()
    kept = []
    for number in numbers.tolist():
        path = os.path.join(job.path, folder.names[number])
        try:
            data = read_file(path)
            image, size = _checked_image(data, encoding)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if not encoding.keep_damaged:
                raise FrameError(path, "an image", reason) from error
            sink.damage = sink.damage or f"{folder.names[number]}: {reason}"
            continue
        digest.update(folder.names[number].encode("utf-8", "surrogateescape") + b"\0" + data)
        sink.write(image)
        sink.size = sink.size or size
        kept.append(number)
    if not kept:
        raise VideoUnreadable(job.path, "images that can be read", f"none ({sink.damage})")
    encoded = sink.close()
    times = folder.times(np.array(kept, dtype=np.int64))
    encoded.times = times - times[0]
    encoded.fps = _rate(encoded.times, folder.fps, encoding)
    encoded.content_hash, encoded.modified = digest.hexdigest(), modified_at(job.path)
    return encoded


def modified_at(path: str) -> int:
    """When footage was last changed, nanoseconds since 1970; the newest file's time for a frame folder.

    Raises:
        OSError: it cannot be looked at.
    """
    newest = os.stat(path).st_mtime_ns
    if os.path.isdir(path):
        with os.scandir(path) as entries:
            newest = max([newest, *(entry.stat().st_mtime_ns for entry in entries)])
    return newest


def _wanted(video, job: Job) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # type: ignore[no-untyped-def]
    """Frames of the clip in batches: (indices int64 [n], uint8 [n, H, W, 3])."""
    encoding = job.encoding
    if job.start is None and job.end is None and encoding.fps is None:
        yield from video.stream(BATCH, step=encoding.every or 1)
        return
    times = video.times()
    if encoding.fps is None:
        first, last = np.searchsorted(times, [job.start or 0.0, math.inf if job.end is None else job.end])
        yield from video.stream(BATCH, int(first), int(last), encoding.every or 1)
        return
    numbers = _chosen(times, job)
    for begin in range(0, len(numbers), BATCH):
        part = numbers[begin : begin + BATCH]
        yield part, video.frames(part)


def _chosen(times: np.ndarray, job: Job) -> np.ndarray:
    """int64 [n]: which frames of footage with these presentation times are wanted."""
    first, last = np.searchsorted(times, [job.start or 0.0, math.inf if job.end is None else job.end])
    numbers = np.arange(first, last, dtype=np.int64)
    if job.encoding.every is not None:
        return numbers[:: job.encoding.every]
    if job.encoding.fps is None or len(numbers) == 0:
        return numbers
    own = times[numbers]
    grid = own[0] + np.arange(math.floor((own[-1] - own[0]) * job.encoding.fps + 1e-6) + 1) / job.encoding.fps
    after = np.clip(np.searchsorted(own, grid), 1, max(len(own) - 1, 1))
    if len(own) == 1:
        return numbers
    nearest = np.where(grid - own[after - 1] <= own[after] - grid, after - 1, after)
    return numbers[np.unique(nearest)]


def _rate(times: np.ndarray, footage_rate: float, encoding: Encoding) -> float:
    """Frames a second of the chosen frames."""
    if len(times) > 1 and times[-1] > 0:
        return (len(times) - 1) / float(times[-1])
    return encoding.fps or footage_rate / (encoding.every or 1)


def _between(job: Job) -> str:
    if job.start is None and job.end is None:
        return "in it"
    return f"between second {job.start or 0:g} and {'the end' if job.end is None else format(job.end, 'g')}"


def _checked_image(data: bytes, encoding: Encoding) -> tuple[bytes, tuple[int, int]]:
    """The bytes to store of an image file, and their height and width.

    A JPEG's header and end are looked at but its pixels are not decoded, which would cost ten times the copy.

    Raises:
        ValueError: not an image, or cut short.
    """
    if not data:
        raise ValueError("an empty file")
    side = encoding.short_side or 0
    if data[:3] == _JPEG_START:
        size = image_size(data)
        if _JPEG_END not in data[-64:] and _JPEG_END not in data[-4096:]:
            raise ValueError("cut short: a JPEG without its end")
        if not 0 < side < min(size):
            return data, size
    image = _reduce(decode(data), side)
    return _jpeg(image, encoding.quality), image.shape[:2]  # type: ignore[return-value]


def _reduced(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width after `_reduce`."""
    height, width = size
    if not 0 < side < min(height, width):
        return height, width
    scale = side / min(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _reduce(image: np.ndarray, side: int) -> np.ndarray:
    """The image with its short side reduced to `side`; smaller ones and side 0 stay."""
    size = _reduced(image.shape[:2], side)
    if size == image.shape[:2]:
        return image
    import cv2

    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)  # averages: no aliasing


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    import simplejpeg

    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="420")


@lru_cache(maxsize=4)  # many clips are cut out of one long recording
def _file_hash(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Sink:
    """Collects encoded frames in memory, and in a file once they are many."""

    def __init__(self, spool: str | None):
        self._spool = spool
        self._parts: list[bytes] = []
        self._pending = 0
        self._lengths: list[int] = []
        self._checksums: list[int] = []
        self._file: IO[bytes] | None = None
        self.size: tuple[int, int] | None = None
        self.damage = ""

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._lengths.append(len(data))
        self._checksums.append(zlib.crc32(data))
        self._pending += len(data)
        if self._pending > SPOOL_BYTES and self._spool is not None:
            self._flush()

    def close(self) -> Encoded:
        spooled = None
        if self._file is not None:
            self._flush()
            spooled = self._file.name
            self._file.close()
        return Encoded(
            data=b"".join(self._parts),
            spooled=spooled,
            ends=np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64),
            checksums=np.array(self._checksums, dtype=np.uint32),
            size=self.size or (0, 0),
            damage=self.damage,
        )

    def _flush(self) -> None:
        if self._file is None:
            self._file = tempfile.NamedTemporaryFile(dir=self._spool, prefix="clip-", delete=False)  # noqa: SIM115
        self._file.write(b"".join(self._parts))
        self._parts, self._pending = [], 0


def delete_spooled(encoded: Encoded) -> None:
    """Remove the file of a spooled clip, once its frames are stored or not wanted."""
    if encoded.spooled is not None:
        Path(encoded.spooled).unlink(missing_ok=True)


__all__ = ["DEFAULT_SIDE", "Encoded", "Encoding", "Job", "VideoError", "delete_spooled", "encode_clip"]
