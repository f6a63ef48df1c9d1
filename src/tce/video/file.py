"""A video file as a source of frames, exact by index."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from tce.video.base import VideoMissing, VideoTruncated, VideoUnreadable
from tce.video.decoder import Decoder
from tce.video.index import FrameIndex, Ledger
from tce.video.open_video import Frames, Image, Video
from tce.video.pool_worker import alive
from tce.video.seek import Seeker
from tce.video.to_rgb import Painter

log = logging.getLogger("tce.video")


class VideoFile(Video):
    """A video file; see `Video` for the interface.

    Frames are numbered in the order in which they are shown, from the first key frame on, since what comes
    before it cannot be decoded. Frames that an edit list hides do not count. `len` counts what the file
    promises: frames in its packets where those tell, else frames that decode.

    Attributes:
        concealed: signs of damage that cost no frame, in the last whole `stream`: frames and packets that are
            marked as damaged, but were given all the same.
    """

    kind = "file"

    def __init__(self, path: str | os.PathLike[str], threads: int = 0):
        self.path = Path(path)
        self.concealed = 0
        self._threads = threads
        self._facts: _Facts | None = None
        self._index: FrameIndex | None = None
        self._seeker: Seeker | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return VideoFile, (self.path, self._threads)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def fps(self) -> float:
        """Average frames per second, as the file states them."""
        return self._first.rate

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, after rotation."""
        return self._first.painter.size

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return self._first.codec

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise by which stored frames are turned: 0, 90, 180 or 270."""
        return self._first.painter.turn.quarters * 90

    @property
    def index(self) -> FrameIndex:
        """Which frames there are, and when; read on first use, or seen on a whole `stream`."""
        if self._index is None:
            self._index = _index_of(self.path, self._threads, *_identity(self.path))
        return self._index

    def times(self, indices: Iterable[int] | None = None) -> NDArray[np.float64]:
        """Presentation times in seconds since the first frame; see `Video.times`."""
        if indices is None:
            return self.index.times.copy()
        return self.index.times[self._checked(indices)]

    def frames(self, indices: Iterable[int]) -> Frames:
        """Exactly the frames asked for; see `Video.frames`."""
        wanted = self._checked(indices)  # [n]
        painter = self._first.painter
        out = np.empty((len(wanted), *painter.size, 3), np.uint8)
        if self._seeker is None:
            self._seeker = Seeker(self.path, self.index, self._threads)
        order = np.argsort(wanted, kind="stable")
        for before, place in zip([-1, *order[:-1]], order):
            if before >= 0 and wanted[before] == wanted[place]:
                out[place] = out[before]
            else:
                out[place] = painter.paint(self._seeker.frame(int(wanted[place])))
        return out

    def _images(self, start: int, stop: int | None, step: int) -> Iterator[tuple[int, Image]]:
        frames = self._from_beginning(stop) if start == 0 else self._from_middle(start, stop)
        for number, frame in frames:
            if (number - start) % step == 0:
                yield number, self._first.painter.paint(frame)

    def close(self) -> None:
        """Let go of the open file; the next question opens it again."""
        if self._seeker is not None:
            self._seeker.close()

    @property
    def _first(self) -> _Facts:
        if self._facts is None:
            with Decoder(self.path, self._threads) as decoder:
                frame = next(decoder.frames(), None)
                if frame is None:
                    raise _nothing_decodes(self.path, decoder)
                self._facts = _Facts(decoder.rate, decoder.codec, Painter(frame))
        return self._facts

    def _from_beginning(self, stop: int | None, keyless: bool = False) -> Iterator[tuple[int, VideoFrame]]:
        """One pass that needs no index, and leaves one behind if it reaches the end."""
        honest = self._index is None or self._index.checks is None
        with Decoder(self.path, self._threads) as decoder:
            ledger = Ledger(decoder.honest and honest, keyless)
            got = passed = 0
            for frame in decoder.frames(ledger.sent):
                number = ledger.number(frame)
                if number is None:
                    passed += 1
                    continue
                if self._facts is None:
                    self._facts = _Facts(decoder.rate, decoder.codec, Painter(frame))
                if stop is None or number < stop:
                    got += 1
                    yield number, frame
                if stop is not None and number >= stop - 1:
                    if ledger.missing:
                        raise self._truncated(got, ledger.missing, decoder.damage)
                    return
            if not got and passed and not keyless:
                yield from self._from_beginning(stop, keyless=True)
                return
            ledger.close()
            self.concealed = decoder.concealed
            if self.concealed:
                log.warning("%s: some frames are damaged, but shown all the same", self.path)
            if self._index is None:
                self._index = ledger.index(decoder.base, decoder.rate)
            if not got:
                raise _nothing_decodes(self.path, decoder)
            if ledger.missing or decoder.damage or decoder.cut_short:
                raise self._truncated(got, ledger.missing, decoder.damage)

    def _from_middle(self, start: int, stop: int | None) -> Iterator[tuple[int, VideoFrame]]:
        end = len(self) if stop is None else min(stop, len(self))
        seeker = Seeker(self.path, self.index, self._threads)
        try:
            got = 0
            for number, frame in seeker.walk(start) if start < end else ():
                if number < end:
                    got += 1
                    yield number, frame
                if number >= end - 1:
                    break
            if got < end - start:
                raise self._truncated(got, end - start - got, seeker.damage)
        finally:
            seeker.close()

    def _truncated(self, got: int, missing: int, damage: str) -> VideoTruncated:
        if missing:
            expected, found = f"{got + missing} frames", f"{got} that decode"
        else:
            expected, found = "the whole of it", f"{got} frames, then damage or the end"
        return VideoTruncated(str(self.path), expected, f"{found} ({damage})" if damage else found)


@dataclass(frozen=True)
class _Facts:
    rate: float
    codec: str
    painter: Painter


def _nothing_decodes(path: Path, decoder: Decoder) -> VideoUnreadable:
    return VideoUnreadable(str(path), "frames that decode", decoder.damage or decoder.excuse or "none")


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise VideoMissing(str(path), "a video file", error.strerror or "nothing there") from error
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=32)  # clips cut out of one long recording share its index
def _index_of(path: Path, threads: int, size: int, mtime: int) -> FrameIndex:
    with Decoder(path, threads) as decoder:
        ledger = Ledger(decoder.honest)
        if decoder.honest:
            for packet in decoder.packets():
                ledger.sent(packet)
                alive()  # an hour's recording takes longer than a decoder is given for a frame
            index = ledger.index(decoder.base, decoder.rate) if ledger.honest else None
            if index is not None:
                return index
    for keyless in (False, True):
        with Decoder(path, threads) as decoder:
            ledger = Ledger(honest=False, keyless=keyless)
            for frame in decoder.frames():
                ledger.number(frame)
                alive()
            index = ledger.index(decoder.base, decoder.rate)
            if index is not None and len(index):
                return index
    raise _nothing_decodes(path, decoder)
