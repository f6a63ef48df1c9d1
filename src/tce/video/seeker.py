"""Frames of a video file by number, exactly: seek to a key frame, then decode up to the wanted frame."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from tce.video.base import FrameError
from tce.video.decoder import Decoder
from tce.video.index import FrameIndex, checksum

_WORTH_SEEKING = 8  # frames; a seek empties the decoder, so a shorter way is decoded through


class Seeker:
    """Decodes the frames of one file in any order, fastest where they are asked for in order.

    The result of a seek is verified: the frame must arrive with its own timestamp (and, in a file whose
    timestamps mislead, with its own picture). Otherwise decoding starts at an earlier key frame, and finally
    at the beginning, as in `Video.stream`; so both give the same frames of a damaged file.

    Args:
        path: the file.
        index: its frames.
        threads: decoding threads; 0 for one a core.
    """

    def __init__(self, path: Path, index: FrameIndex, threads: int = 0):
        self._path, self._index, self._threads = path, index, threads
        self._keys = np.searchsorted(index.stamps, index.keys)  # frame numbers of the key frames
        self._decoder: Decoder | None = None
        self._ahead: Iterator[tuple[int, VideoFrame]] = iter(())
        self._next = len(index) + 1  # the number that `_ahead` yields next
        self._last: tuple[int, VideoFrame] | None = None

    def frame(self, number: int) -> VideoFrame:
        """The frame of that number.

        Raises:
            FrameError: it cannot be decoded.
        """
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        if not self._next <= number < self._next + _WORTH_SEEKING:
            key = self._key_before(number)
            if number < self._next or key > self._next:
                self._ahead = self.walk(number)
        for at, frame in self._ahead:
            self._last, self._next = (at, frame), at + 1
            if at == number:
                return frame
            if at > number:
                break
        found = self.damage or "damaged or missing data"
        raise FrameError(f"frame {number} of {self._path}", "a frame that decodes", found)

    @property
    def damage(self) -> str:
        """The first error since the file was last opened, in FFmpeg's words."""
        return self._decoder.damage if self._decoder is not None else ""

    def walk(self, start: int) -> Iterator[tuple[int, VideoFrame]]:
        """Numbered frames from `start` on, in order, without those that cannot be decoded."""
        for attempt in range(3):
            key = self._key_before(start)
            begin = (key, self._key_before(key - 1), 0)[attempt]
            for number, frame in self._decode_from(begin):
                if number > start and begin:
                    break  # a gap, perhaps only because of the seek
                if number >= start:
                    yield number, frame
                    start = number + 1
            if begin == 0 or start >= len(self._index):
                return

    def close(self) -> None:
        """Close the file."""
        if self._decoder is not None:
            self._decoder.close()
        self._decoder, self._last, self._ahead = None, None, iter(())
        self._next = len(self._index) + 1

    def _key_before(self, number: int) -> int:
        place = int(np.searchsorted(self._keys, number, side="right"))
        return int(self._keys[place - 1]) if place else 0

    def _decode_from(self, key: int) -> Iterator[tuple[int, VideoFrame]]:
        if key == 0 or self._decoder is None:
            if self._decoder is not None:
                self._decoder.close()
            self._decoder = Decoder(self._path, self._threads)
        if key == 0:
            yield from self._from_beginning(self._decoder)
            return
        try:
            self._decoder.seek(int(self._index.stamps[key]))
        except av.FFmpegError:
            return
        for frame in self._decoder.frames():
            number = self._index.find(frame.pts)
            # Frames shown before the key frame refer to others that were not decoded.
            if number is not None and number >= key and not frame.is_corrupt and self._is_same(number, frame):
                yield number, frame

    def _from_beginning(self, decoder: Decoder) -> Iterator[tuple[int, VideoFrame]]:
        if self._index.checks is not None:
            counted = itertools.islice(decoder.frames(), self._index.skipped_leading, None)
            yield from itertools.islice(enumerate(counted), len(self._index))
            return
        for frame in decoder.frames():
            number = self._index.find(frame.pts)
            if number is not None:
                yield number, frame

    def _is_same(self, number: int, frame: VideoFrame) -> bool:
        checks = self._index.checks
        return checks is None or int(checks[number]) == checksum(frame)
