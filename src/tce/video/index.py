"""Which frames a video file holds, when each is shown, and how a decoder reaches one.

Most containers carry each frame's presentation time in its packet, so the index is read without decoding.
Others mislead (H.264 in AVI, packed B-frames, fields in packets of their own, hidden frames): such a file is
decoded once, and a checksum of each frame verifies that a later seek arrives at the same picture.
"""

from __future__ import annotations

import heapq
import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from numpy.typing import NDArray

from tce.video.base import FrameError
from tce.video.decoder import Decoder

_CHECKED_ROWS = 4  # every fourth row: still no two frames of real footage alike, at a quarter of the time

_WORTH_SEEKING = 8  # frames; a seek empties the decoder, so a shorter way is decoded through


@dataclass(frozen=True)
class FrameIndex:
    """The frames of one file in presentation order.

    Attributes:
        stamps: int64 [n] presentation times in units of the stream, increasing; 0, 1, 2, ... where the file
            has none that increase.
        keys: int64 [k] stamps of the key frames, increasing; empty where seeking is not possible.
        times: float64 [n] seconds since the first frame.
        checks: uint32 [n] checksums of the frames, where the file had to be decoded to be counted; else None.
        skipped_leading: frames at the start that decode, but do not count (see `FrameCounter`).
    """

    stamps: NDArray[np.int64]
    keys: NDArray[np.int64]
    times: NDArray[np.float64]
    checks: NDArray[np.uint32] | None = None
    skipped_leading: int = 0

    def __len__(self) -> int:
        return len(self.stamps)

    def find(self, stamp: int | None) -> int | None:
        """The number of the frame with this presentation time, or None."""
        if stamp is None:
            return None
        place = int(np.searchsorted(self.stamps, stamp))
        return place if place < len(self.stamps) and self.stamps[place] == stamp else None


class FrameCounter:
    """Numbers the frames of a pass from the start of a file, and builds its index on the way.

    With `trust_timestamps`, a frame's number is the count of packets to be shown before it, so a frame that
    cannot be decoded leaves a gap and shifts no other. Otherwise frames are counted as they come. Frames
    shown before the first key frame lack what they refer to, and do not count.

    Args:
        trust_timestamps: whether packets hold one frame each with its presentation time; given up at the
            first that does not.
        no_keyframes: whether the file has no key frames (intra refresh), so that all frames count.

    Attributes:
        trust_timestamps: as above, at this point of the pass.
        missing: frames that were declared by a packet, but not decoded.
    """

    def __init__(self, trust_timestamps: bool, no_keyframes: bool = False):
        self.trust_timestamps = trust_timestamps and not no_keyframes
        self._no_keyframes = no_keyframes
        self._skipped_leading = 0
        self.missing = 0
        self._count = 0
        self._whole = True  # every frame was counted by the rule that holds now
        self._due: list[int] = []  # heap: stamps of packets whose frame is still to come
        self._begin: int | None = None  # stamp of the first key frame
        self._stamps: list[int] = []
        self._keys: list[int] = []
        self._decoding_times: list[int | None] = []  # one a packet
        self._seen: list[tuple[int | None, bool, int]] = []

    def on_packet(self, packet: Packet) -> None:
        """Note a packet as it goes into the decoder."""
        if packet.size == 0:
            return
        self._decoding_times.append(packet.dts)
        if not self.trust_timestamps:
            return
        stamp = packet.pts
        if stamp is None:
            self._lose_trust()
            return
        if self._begin is None and packet.is_keyframe:
            self._begin = stamp
        if self._begin is None or stamp < self._begin or packet.is_discard:
            return  # discarded: decoded because others refer to it, but hidden by an edit list
        if packet.is_keyframe:
            self._keys.append(stamp)
        self._stamps.append(stamp)
        heapq.heappush(self._due, stamp)

    def number(self, frame: VideoFrame) -> int | None:
        """The frame's number; None for a frame that does not count."""
        stamp = frame.pts
        if self.trust_timestamps and stamp is None:
            self._lose_trust()
        if not self.trust_timestamps:
            is_key = frame.key_frame or frame.pict_type == PictureType.I
            if not (self._seen or self._no_keyframes or is_key):
                self._skipped_leading += 1
                return None
            self._seen.append((stamp, bool(frame.key_frame), checksum(frame)))
        else:
            assert stamp is not None
            while self._due and self._due[0] < stamp:
                heapq.heappop(self._due)
                self._count += 1
                self.missing += 1
            if not self._due or self._due[0] != stamp:
                return None
            heapq.heappop(self._due)
        self._count += 1
        return self._count - 1

    def close(self) -> None:
        """Count frames that are still due as missing: no more will come."""
        if self.trust_timestamps:
            self.missing += len(self._due)
        self._due.clear()

    def index(self, base: Fraction, rate: float) -> FrameIndex | None:
        """The index after a complete pass; None if packets turned out to mislead."""
        if not self._whole:
            return None
        if self.trust_timestamps:
            return index_of_packets(self._stamps, self._keys, base)
        # One packet a frame, whatever their order: then the decoding times are the frames' times, sorted.
        one_each = len(self._decoding_times) == len(self._seen) + self._skipped_leading
        decoding_times = self._decoding_times[self._skipped_leading :] if one_each else []
        return index_of_frames(self._seen, base, rate, self._skipped_leading, decoding_times)

    def _lose_trust(self) -> None:
        self.trust_timestamps = False
        self._whole = self._count == 0


def index_of_packets(stamps: Sequence[int], keys: Sequence[int], base: Fraction) -> FrameIndex | None:
    """The index from the packets' presentation times, or None if two of those are equal.

    Args:
        stamps: presentation times of the packets that count, in any order.
        keys: presentation times of those that hold a key frame.
        base: seconds a unit of those times.
    """
    ordered = np.unique(np.array(stamps, np.int64))
    if len(ordered) == 0 or len(ordered) != len(stamps):
        return None
    return FrameIndex(ordered, np.unique(np.array(keys, np.int64)), _seconds(ordered, base))


def index_of_frames(
    seen: Sequence[tuple[int | None, bool, int]],
    base: Fraction,
    rate: float,
    skipped_leading: int = 0,
    decoding_times: Sequence[int | None] = (),
) -> FrameIndex:
    """The index from the decoded frames, with times from the first of these sources that is usable.

    1. Presentation times that increase.
    2. Presentation times of which some are equal, since the container rounds them to a unit longer than a
       frame (2,000 frames a second in milliseconds): spread evenly.
    3. Decoding times, where presentation times are out of order (H.264 in AVI).
    4. Frame number over frame rate.

    Args:
        seen: of each frame its presentation time, whether it is a key frame, and its checksum.
        base: seconds a unit of the times.
        rate: frames per second where the times are unusable.
        skipped_leading: frames before these that do not count.
        decoding_times: of each frame's packet in the file's order, if there is one a frame.
    """
    checks = np.array([check for _, _, check in seen], np.uint32)
    stamps = _all_known([stamp for stamp, _, _ in seen])
    if stamps is not None and (stamps[1:] > stamps[:-1]).all():
        keys = stamps[np.array([key for _, key, _ in seen], bool)]
        return FrameIndex(stamps, keys, _seconds(stamps, base), checks, skipped_leading)
    decoded = _all_known(decoding_times) if len(decoding_times) == len(seen) else None
    if stamps is not None and (stamps[1:] >= stamps[:-1]).all() and stamps[-1] > stamps[0]:
        times = _spread(stamps, base, rate)
    elif decoded is not None and (decoded[1:] > decoded[:-1]).all():
        times = _seconds(decoded, base)
    else:
        times = np.arange(len(seen)) / rate
    count = np.arange(len(seen), dtype=np.int64)
    return FrameIndex(count, np.zeros(0, np.int64), times, checks, skipped_leading)


def checksum(frame: VideoFrame) -> int:
    """Adler-32 of every fourth row of a frame's first plane, without the padding at the rows' ends."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    bits = sum(part.bits for part in frame.format.components if part.plane == 0)
    width = min(plane.line_size, plane.width * max(1, bits // 8))
    return zlib.adler32(rows[::_CHECKED_ROWS, :width].tobytes())


def _all_known(stamps: Sequence[int | None]) -> NDArray[np.int64] | None:
    known = [stamp for stamp in stamps if stamp is not None]
    return np.array(known, np.int64) if known and len(known) == len(stamps) else None


def _spread(stamps: NDArray[np.int64], base: Fraction, rate: float) -> NDArray[np.float64]:
    """Seconds since the first frame, from times that were rounded so coarsely that some are equal.

    A constant rate is taken where it agrees with every rounded time; else the frames of one time are spread
    evenly over the time until the next.
    """
    unit = float(base)
    exact = np.arange(len(stamps)) / rate
    if (np.abs(exact / unit - (stamps - stamps[0])) <= 1).all():
        return exact
    distinct, counts = np.unique(stamps, return_counts=True)
    lengths = np.append(np.diff(distinct), 1)  # the last one lasts one unit
    place = np.concatenate([np.arange(count) / count for count in counts])
    return (np.repeat(distinct - distinct[0], counts) + place * np.repeat(lengths, counts)) * unit


def _seconds(stamps: NDArray[np.int64], base: Fraction) -> NDArray[np.float64]:
    if len(stamps) == 0:
        return np.zeros(0)
    # Multiplied before divided: exact for the whole numbers in question.
    return (stamps - stamps[0]) * float(base.numerator) / float(base.denominator)


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
        self._path = path
        self._index = index
        self._threads = threads
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
        for trial in range(3):
            key = self._key_before(start)
            begin = (key, self._key_before(key - 1), 0)[trial]
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
        self._decoder = None
        self._last = None
        self._ahead = iter(())
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
