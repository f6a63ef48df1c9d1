"""Which frames a video file holds, and when each is shown.

Most containers state every frame's presentation time in its packet, so the index is read without decoding.
Others lie (H.264 in AVI, packed B-frames, fields in packets of their own, hidden frames): there the file is
decoded once, and a checksum of each frame makes sure that a later seek arrives at the very same picture.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from tce.video.open_video import DEFAULT_FPS

# Containers whose packets hold one frame each and carry its true presentation time.
_HONEST_CONTAINERS = ("mov,mp4", "matroska", "flv", "gif", "nut")
# Codecs that put several frames, half a frame or a hidden one into a packet, in these containers too.
_LYING_CODECS = {"vp8", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2", "wmv3", "vc1", "theora"}
_CHECKED_ROWS = 4  # every fourth row: still no two frames of real footage alike, at a quarter of the time


@dataclass(frozen=True)
class FrameIndex:
    """The frames of one file in the order in which they are shown.

    Attributes:
        stamps: int64 [n] presentation times in units of the stream, increasing; counts where there are none.
        keys: int64 [k] stamps of the key frames, increasing; empty where seeking is not possible.
        times: float64 [n] seconds since the first frame.
        checks: uint32 [n] checksums of the frames, where the file had to be decoded to be counted; else None.
        lead: frames at the start that decode, but do not count (see `Ledger`), if the file was decoded.
    """

    stamps: NDArray[np.int64]
    keys: NDArray[np.int64]
    times: NDArray[np.float64]
    checks: NDArray[np.uint32] | None = None
    lead: int = 0

    def __len__(self) -> int:
        return len(self.stamps)

    def find(self, stamp: int | None) -> int | None:
        """The number of the frame that is shown at `stamp`, or None."""
        if stamp is None:
            return None
        place = int(np.searchsorted(self.stamps, stamp))
        return place if place < len(self.stamps) and self.stamps[place] == stamp else None


class Ledger:
    """Numbers the frames of a pass from the start of a file, and draws up its index on the way.

    Where packets tell (`honest`), a frame's number is the count of packets that are to be shown before it, so
    a frame that cannot be decoded leaves a gap and moves no other. Elsewhere frames are counted as they come.
    What is shown before the first key frame lacks what it refers to, and does not count.

    Args:
        honest: whether packets hold one frame each with its true time; given up at the first that does not.
        keyless: whether the file has no key frames (it refreshes the picture bit by bit), so that all count.

    Attributes:
        honest: the same, as it stands.
        missing: promised frames that were passed over.
    """

    def __init__(self, honest: bool, keyless: bool = False):
        self.honest = honest and not keyless
        self._keyless = keyless
        self._lead = 0
        self.missing = 0
        self._count = 0
        self._whole = True  # every frame was seen by the rule that holds now
        self._due: list[int] = []  # heap: stamps of packets whose frame is still to come
        self._begin: int | None = None  # stamp of the first key frame
        self._stamps: list[int] = []
        self._keys: list[int] = []
        self._seen: list[tuple[int | None, bool, int]] = []

    def sent(self, packet: Packet) -> None:
        """Note a packet as it goes into the decoder."""
        if not self.honest or packet.size == 0:
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
        if self.honest and stamp is None:
            self._lose_trust()
        if not self.honest:
            if not (self._seen or self._keyless or frame.key_frame or frame.pict_type == PictureType.I):
                self._lead += 1
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
        """Count what is still due as missing: no more frames will come."""
        if self.honest:
            self.missing += len(self._due)
        self._due.clear()

    def index(self, base: Fraction, rate: float) -> FrameIndex | None:
        """The index after a complete pass; None where packets turned out to mislead."""
        if not self._whole:
            return None
        if self.honest:
            return index_of_packets(self._stamps, self._keys, base)
        return index_of_frames(self._seen, base, rate, self._lead)

    def _lose_trust(self) -> None:
        self.honest = False
        self._whole = self._count == 0


def packets_tell(stream: VideoStream) -> bool:
    """Whether this container and codec keep to one frame a packet, with its true time."""
    codec, container = stream.codec_context.name, stream.container.format.name
    if codec in _LYING_CODECS or (codec == "mpeg4" and not container.startswith("mov,mp4")):
        return False
    return container.startswith(_HONEST_CONTAINERS)


def index_of_packets(stamps: Sequence[int], keys: Sequence[int], base: Fraction) -> FrameIndex | None:
    """The index out of the packets' times, or None where those are not unique.

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
    seen: Sequence[tuple[int | None, bool, int]], base: Fraction, rate: float, lead: int = 0
) -> FrameIndex:
    """The index out of the frames as they were decoded; counts stand in for times that are missing or wrong.

    Args:
        seen: of each frame its presentation time, whether it is a key frame, and its checksum.
        base: seconds a unit of the times.
        rate: frames per second where the times are of no use.
        lead: frames before these that do not count.
    """
    stamps = [stamp for stamp, _, _ in seen if stamp is not None]
    checks = np.array([check for _, _, check in seen], np.uint32)
    if len(stamps) == len(seen) and all(one < two for one, two in pairwise(stamps)):
        known = np.array(stamps, np.int64)
        keys = known[np.array([key for _, key, _ in seen], bool)]
        return FrameIndex(known, keys, _seconds(known, base), checks, lead)
    count = np.arange(len(seen), dtype=np.int64)
    return FrameIndex(count, np.zeros(0, np.int64), count / rate, checks, lead)


def stated_rate(stream: VideoStream) -> float:
    """Average frames per second as the file states them; 25 where it states none, or nonsense."""
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    return rate if 0 < rate <= 1000 else DEFAULT_FPS


def checksum(frame: VideoFrame) -> int:
    """Adler-32 of every fourth row of a frame's first plane, without the padding at the rows' ends."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    bits = sum(part.bits for part in frame.format.components if part.plane == 0)
    width = min(plane.line_size, plane.width * max(1, bits // 8))
    return zlib.adler32(rows[::_CHECKED_ROWS, :width].tobytes())


def _seconds(stamps: NDArray[np.int64], base: Fraction) -> NDArray[np.float64]:
    if len(stamps) == 0:
        return np.zeros(0)
    # Multiplied before divided: exact for the whole numbers in question.
    return (stamps - stamps[0]) * float(base.numerator) / float(base.denominator)
