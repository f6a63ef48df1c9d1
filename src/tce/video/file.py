"""A video file as a `Video`: frames by exact number, as RGB arrays."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from tce.video.base import (
    Frames,
    Image,
    Video,
    VideoTruncated,
    VideoUnreadable,
    require_pixels,
    require_regular_file,
)
from tce.video.decoder import Decoder
from tce.video.index import FrameCounter, FrameIndex, Seeker

log = logging.getLogger("tce.video")

_FIXED_POINT_ONE = 1 << 16  # display matrices hold 16.16 fixed-point numbers


class VideoFile(Video):
    """A video file; see `Video` for the interface.

    Frames are numbered in presentation order, from the first key frame on, since frames before it cannot be
    decoded. Frames hidden by an edit list do not count. `len` is the number of frames that the packets
    declare where the container's timestamps are reliable, else the number of frames that decode.

    Attributes:
        corrupt_frames: frames and packets that are marked as damaged, but were decoded, in the last complete
            `stream`.
    """

    kind = "file"

    def __init__(self, path: str | os.PathLike[str], threads: int = 0):
        self.path = Path(path)
        self.corrupt_frames = 0
        self._threads = threads
        self._header: _Header | None = None
        self._index: FrameIndex | None = None
        self._seeker: Seeker | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return VideoFile, (self.path, self._threads)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def fps(self) -> float:
        """Average frames per second, as the file declares them."""
        return self._first.rate

    @property
    def size(self) -> tuple[int, int]:
        return self._first.converter.size

    @property
    def codec(self) -> str:
        return self._first.codec

    @property
    def rotation(self) -> int:
        return self._first.converter.rotation.quarters * 90

    @property
    def index(self) -> FrameIndex:
        """Which frames there are, and when; read on first use, or built by a complete `stream`."""
        if self._index is None:
            status = require_regular_file(self.path)
            self._index = _index_of(self.path, self._threads, status.st_size, status.st_mtime_ns)
        return self._index

    def estimated_length(self) -> int:
        """Number of frames in the file's header, or duration times frame rate; `len` where it states none."""
        return self._first.frames or len(self)

    def times(self, indices: Iterable[int] | None = None) -> NDArray[np.float64]:
        """Presentation times in seconds since the first frame; see `Video.times`."""
        if indices is None:
            return self.index.times.copy()
        return self.index.times[self._checked(indices)]

    def frames(self, indices: Iterable[int]) -> Frames:
        """The frames with these indices; see `Video.frames`."""
        wanted = self._checked(indices)  # [n]
        converter = self._first.converter
        out = np.empty((len(wanted), *converter.size, 3), np.uint8)
        if self._seeker is None:
            self._seeker = Seeker(self.path, self.index, self._threads)
        order = np.argsort(wanted, kind="stable")
        for before, place in zip([-1, *order[:-1]], order):
            if before >= 0 and wanted[before] == wanted[place]:
                out[place] = out[before]
            else:
                out[place] = converter.to_rgb(self._seeker.frame(int(wanted[place])))
        return out

    def _images(self, start: int, stop: int | None, step: int) -> Iterator[tuple[int, Image]]:
        frames = self._from_beginning(stop) if start == 0 else self._from_middle(start, stop)
        for number, frame in frames:
            if (number - start) % step == 0:
                yield number, self._first.converter.to_rgb(frame)

    def close(self) -> None:
        """Close the file; the next access reopens it."""
        if self._seeker is not None:
            self._seeker.close()

    @property
    def _first(self) -> _Header:
        if self._header is None:
            with Decoder(self.path, self._threads) as decoder:
                frame = next(decoder.frames(), None)
                if frame is None:
                    raise _nothing_decodes(self.path, decoder)
                self._header = self._header_of(decoder, frame)
        return self._header

    def _header_of(self, decoder: Decoder, frame: VideoFrame) -> _Header:
        require_pixels(frame.height, frame.width, str(self.path), VideoUnreadable)
        return _Header(decoder.rate, decoder.codec, decoder.declared_frames, RgbConverter(frame))

    def _from_beginning(
        self, stop: int | None, no_keyframes: bool = False
    ) -> Iterator[tuple[int, VideoFrame]]:
        """One pass that needs no index, and leaves one behind if it reaches the end."""
        trust = self._index is None or self._index.checks is None
        with Decoder(self.path, self._threads) as decoder:
            counter = FrameCounter(decoder.trust_timestamps and trust, no_keyframes)
            decoded = skipped = 0
            for frame in decoder.frames(counter.on_packet):
                number = counter.number(frame)
                if number is None:
                    skipped += 1
                    continue
                if self._header is None:
                    self._header = self._header_of(decoder, frame)
                if stop is None or number < stop:
                    decoded += 1
                    yield number, frame
                if stop is not None and number >= stop - 1:
                    if counter.missing:
                        raise self._truncated(decoded, counter.missing, decoder.damage)
                    return
            if not decoded and skipped and not no_keyframes:
                yield from self._from_beginning(stop, no_keyframes=True)
                return
            counter.close()
            self.corrupt_frames = decoder.corrupt_frames
            if self.corrupt_frames:
                log.warning("%s: some frames are damaged, but were decoded", self.path)
            if self._index is None:
                self._index = counter.index(decoder.base, decoder.rate)
            if not decoded:
                raise _nothing_decodes(self.path, decoder)
            truncated = decoder.ends_abruptly and decoder.is_truncated(
                self.index.times[-1] + 1 / decoder.rate
            )
            if counter.missing or decoder.damage or truncated:
                raise self._truncated(decoded, counter.missing, decoder.damage)

    def _from_middle(self, start: int, stop: int | None) -> Iterator[tuple[int, VideoFrame]]:
        end = len(self) if stop is None else min(stop, len(self))
        seeker = Seeker(self.path, self.index, self._threads)
        try:
            decoded = 0
            for number, frame in seeker.walk(start) if start < end else ():
                if number < end:
                    decoded += 1
                    yield number, frame
                if number >= end - 1:
                    break
            if decoded < end - start:
                raise self._truncated(decoded, end - start - decoded, seeker.damage)
        finally:
            seeker.close()

    def _truncated(self, decoded: int, missing: int, damage: str) -> VideoTruncated:
        if missing:
            expected, found = f"{decoded + missing} frames", f"{decoded} that decode"
        else:
            expected, found = "a complete file", f"{decoded} frames, then damage or the end"
        return VideoTruncated(str(self.path), expected, f"{found} ({damage})" if damage else found)


@dataclass(frozen=True)
class Rotation:
    """How stored frames are turned for display: mirrored left to right first, then rotated.

    Attributes:
        quarters: quarter turns counter-clockwise, 0 to 3.
        mirrored: whether left and right are swapped.
    """

    quarters: int = 0
    mirrored: bool = False

    def __call__(self, image: Image) -> Image:
        """The image [H, W, 3] as it is displayed; a view."""
        if self.mirrored:
            image = image[:, ::-1]
        return np.rot90(image, self.quarters) if self.quarters else image


def rotation_of(frame: VideoFrame) -> Rotation:
    """The rotation in the frame's display matrix, to the nearest quarter turn."""
    data = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]  # keys are of this type
    if data is None:
        return Rotation()
    # Displayed (x, y) = stored (x, y) times [[a, b], [c, d]], y pointing down.
    matrix = np.frombuffer(bytes(data), np.int32)[:9].reshape(3, 3)[:2, :2].astype(np.float64)
    matrix /= _FIXED_POINT_ONE
    mirrored = bool(np.linalg.det(matrix) < 0)
    if mirrored:
        matrix = np.diag([-1.0, 1.0]) @ matrix
    angle = np.degrees(np.arctan2(-matrix[0, 1], matrix[0, 0]))
    return Rotation(int(np.rint(angle / 90)) % 4, mirrored)


class RgbConverter:
    """Converts decoded frames to RGB arrays, all in the size and rotation of the first.

    Args:
        first: the frame that sets size and rotation.
    """

    def __init__(self, first: VideoFrame):
        self.rotation = rotation_of(first)
        self._width, self._height = first.width, first.height
        self._reformatter = VideoReformatter()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as displayed."""
        if self.rotation.quarters % 2:
            return self._width, self._height
        return self._height, self._width

    def to_rgb(self, frame: VideoFrame) -> Image:
        """The frame as RGB, uint8 [H, W, 3]: a view of memory of its own, with any strides."""
        # One thread: swscale sets its thread pool up for each frame, which costs more than the conversion.
        converted = self._reformatter.reformat(frame, self._width, self._height, "rgb24", threads=1)
        plane = converted.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(self._height, plane.line_size)
        return self.rotation(rows[:, : self._width * 3].reshape(self._height, self._width, 3))


@dataclass(frozen=True)
class _Header:
    rate: float
    codec: str
    frames: int
    converter: RgbConverter


def _nothing_decodes(path: Path, decoder: Decoder) -> VideoUnreadable:
    return VideoUnreadable(str(path), "frames that decode", decoder.damage or decoder.leading_error or "none")


@lru_cache(maxsize=32)  # clips cut out of one long recording share its index
def _index_of(path: Path, threads: int, size: int, mtime: int) -> FrameIndex:
    with Decoder(path, threads) as decoder:
        counter = FrameCounter(decoder.trust_timestamps)
        if decoder.trust_timestamps:
            for packet in decoder.packets():
                counter.on_packet(packet)
            index = counter.index(decoder.base, decoder.rate) if counter.trust_timestamps else None
            if index is not None:
                return index
    for no_keyframes in (False, True):
        with Decoder(path, threads) as decoder:
            counter = FrameCounter(trust_timestamps=False, no_keyframes=no_keyframes)
            for frame in decoder.frames(counter.on_packet):
                counter.number(frame)
            index = counter.index(decoder.base, decoder.rate)
            if index is not None and len(index):
                return index
    raise _nothing_decodes(path, decoder)
