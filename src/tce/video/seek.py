"""Any frame of a video file by its number, exactly: seek to a key frame, then decode up to it."""

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
    """Decodes the frames of one file in any order, quickest where they are asked for in order.

    A seek is never believed: the frame must arrive with its own time stamp (and, in a file whose stamps are
    not to be trusted, with its own picture), or decoding begins at an earlier key frame, at last at the
    beginning.

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
        self._next = len(index) + 1  # the number that `_ahead` gives next
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
        """Numbered frames in order, from `start` on or the first after it that decodes."""
        key = self._key_before(start)
        for begin in dict.fromkeys((key, self._key_before(key - 1), 0)):
            ahead = self._decode_from(begin)
            first = next((item for item in ahead if item[0] >= start), None)
            if first is not None and first[0] == start:
                break
        return itertools.chain([first] if first is not None else [], ahead)

    def close(self) -> None:
        """Let go of the file."""
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
            if number is not None and number >= key and not frame.is_corrupt and self._same(number, frame):
                yield number, frame

    def _from_beginning(self, decoder: Decoder) -> Iterator[tuple[int, VideoFrame]]:
        if self._index.checks is not None:
            counted = itertools.islice(decoder.frames(), self._index.lead, None)
            yield from itertools.islice(enumerate(counted), len(self._index))
            return
        for frame in decoder.frames():
            number = self._index.find(frame.pts)
            if number is not None:
                yield number, frame

    def _same(self, number: int, frame: VideoFrame) -> bool:
        checks = self._index.checks
        return checks is None or int(checks[number]) == checksum(frame)
