"""One open video file, decoded forwards through PyAV; damaged data is noted and skipped."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tce.video.base import (
    DEFAULT_FPS,
    VideoMissing,
    VideoUnreadable,
    max_pixels,
    require_pixels,
    require_regular_file,
)
from tce.video.container import OPEN_OPTIONS, declared_end, ends_abruptly, gif_size, refusal
from tce.video.pool_worker import heartbeat

MAX_THREADS = 8  # more gain nothing below 4K, and each holds a frame in flight
_MAX_RESTARTS = 10
_EXPECTED = "a video that FFmpeg reads"
_HIGHEST_PLAUSIBLE_FPS = 1000.0

# Containers whose packets hold one frame each and carry its true presentation time.
_RELIABLE_CONTAINERS = ("mov,mp4", "matroska", "flv", "gif", "nut")
# Codecs that put several frames, half a frame or a hidden one into a packet, in these containers too.
_UNRELIABLE_CODECS = {"vp8", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2", "wmv3", "vc1", "theora"}


class Decoder:
    """The packets and frames of a file's first video stream.

    Args:
        path: the file.
        threads: decoding threads; 0 for one a core, at most 8.

    Attributes:
        trust_timestamps: whether each packet holds one frame and carries its presentation time.
        damage: the first error, in FFmpeg's words; empty if none. Errors before the first key frame are no
            damage, since recordings often begin in mid-scene.
        leading_error: the first error of that kind.
        corrupt_frames: frames and packets that are marked as damaged, but were decoded.
        ends_abruptly: whether the file is shorter than its container declares.

    Raises:
        VideoMissing: the path does not exist.
        VideoUnreadable: no regular file, no video stream in it, one of unknown codec, or frames of more
            pixels than `max_pixels`.
    """

    def __init__(self, path: Path, threads: int = 0):
        self.path = path
        self.damage = ""
        self.corrupt_frames = 0
        self.leading_error = ""
        self._since_key = -1  # packets since the first key frame; -1 before it
        self._container = _open(path)
        try:
            self._stream = _video_stream(self._container, path)
        except VideoUnreadable:
            self._container.close()
            raise
        context = self._stream.codec_context
        self._threads = threads or min(os.cpu_count() or 1, MAX_THREADS)
        self._sought: int | None = None
        context.thread_count = self._threads
        context.thread_type = "AUTO" if self._threads > 1 else "SLICE"
        context.options = {"max_pixels": str(max_pixels())}  # for frames that grow in mid-stream
        self.trust_timestamps = has_reliable_timestamps(self._stream)
        self.ends_abruptly = ends_abruptly(path, self._stream)

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return self._stream.codec.canonical_name  # "av1", not the "libdav1d" that decodes it

    @property
    def rate(self) -> float:
        """Average frames per second as the file declares them; 25 where it declares none."""
        return declared_rate(self._stream)

    @property
    def declared_frames(self) -> int:
        """Number of frames by the header, or duration times frame rate; 0 if it declares neither."""
        if self._container.format.name != "avi" and self._stream.frames:  # AVI counts empty chunks too
            return self._stream.frames
        end = declared_end(self._stream)
        return round(end * self.rate) if end is not None else 0

    @property
    def base(self) -> Fraction:
        """Seconds a unit of the timestamps."""
        return self._stream.time_base or Fraction(1, 1000)

    def is_truncated(self, duration: float) -> bool:
        """Whether the file ends abruptly and frames are missing because of that.

        A file that lacks only the index at its end has lost no frame.

        Args:
            duration: seconds from the first frame decoded to the end of the last.
        """
        if not self.ends_abruptly:
            return False
        end = declared_end(self._stream)
        if end is None or self.corrupt_frames:  # the last packet may be cut in two
            return True
        start = max(0.0, float((self._stream.start_time or 0) * self.base))
        return start + duration < end - 0.5 / self.rate

    def seek(self, stamp: int) -> None:
        """Seek to the key frame at or before `stamp`; containers may land elsewhere.

        Raises:
            av.FFmpegError: the container cannot seek.
        """
        self._sought = stamp
        self._container.seek(stamp, stream=self._stream, backward=True)

    def packets(self) -> Iterator[Packet]:
        """The stream's packets in the file's order; at the end the empty one that flushes the decoder."""
        packets = self._demuxed()
        # FFmpeg passes the half of a NUT packet on as a whole one; the decoder fills the rest with memory.
        is_cut_nut = self.ends_abruptly and self._container.format.name == "nut"
        return _without_last(packets) if is_cut_nut else packets

    def _demuxed(self) -> Iterator[Packet]:
        for _ in range(_MAX_RESTARTS):
            try:
                for packet in self._container.demux(self._stream):
                    heartbeat()  # reading an hour's recording takes longer than the time limit for a frame
                    yield packet
                return
            except av.FFmpegError as error:  # most containers resynchronise behind the damage
                self._note(error)
        yield Packet()  # flush: the frames that the decoder still holds are good

    def frames(self, on_packet: Callable[[Packet], None] | None = None) -> Iterator[VideoFrame]:
        """Frames in presentation order; those that cannot be decoded are left out.

        Args:
            on_packet: called with each packet before it is decoded.
        """
        decode = self._stream.codec_context.decode
        expected = decoded = 0
        whole = True
        for packet in self.packets():
            if on_packet is not None:
                on_packet(packet)
            if self._since_key >= 0 or packet.is_keyframe:
                self._since_key += 1
                self.corrupt_frames += packet.is_corrupt
                expected += bool(packet.size and not packet.is_discard)
            try:
                for frame in decode(packet if packet.size else None):
                    self.corrupt_frames += frame.is_corrupt
                    decoded += 1
                    yield frame
            except av.FFmpegError as error:
                self._note(error)
                whole = bool(packet.size)
        if self._threads > 1 and not (whole and (decoded >= expected or not self.trust_timestamps)):
            yield from self._remaining(decoded)

    def _remaining(self, decoded: int) -> Iterator[VideoFrame]:
        """The frames after the first `decoded`, which other threads held when one met damage at the end.

        PyAV cannot fetch them any more, so the file is decoded again by one thread.
        """
        with Decoder(self.path, threads=1) as single:
            if self._sought is not None:
                single.seek(self._sought)
            yield from itertools.islice(single.frames(), decoded, None)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note(self, error: av.FFmpegError) -> None:
        text = error.strerror or str(error)
        # Decoding threads report an error some packets late.
        if self._since_key < self._threads:
            self.leading_error = self.leading_error or text
        else:
            self.damage = self.damage or text


def has_reliable_timestamps(stream: VideoStream) -> bool:
    """Whether this container and codec keep to one frame a packet, with its presentation time."""
    codec, container = stream.codec_context.name, stream.container.format.name
    if codec in _UNRELIABLE_CODECS or (codec == "mpeg4" and not container.startswith("mov,mp4")):
        return False
    return container.startswith(_RELIABLE_CONTAINERS)


def declared_rate(stream: VideoStream) -> float:
    """Average frames per second as the file declares them; 25 where it declares none, or an absurd number.

    The average of an AVI file counts its empty chunks too, and where there is no average, FFmpeg's guess may
    be no more than the number of timestamps a second: then the codec's own rate is taken.
    """
    average = float(stream.average_rate or 0)
    guess = float(stream.guessed_rate or 0)
    ticks = 1 / float(stream.time_base) if stream.time_base else 0.0
    coded = float(getattr(stream.codec_context, "framerate", None) or 0)
    if stream.container.format.name == "avi":
        rate = guess or average
    else:
        rate = average or (coded if guess == ticks and coded else guess)
    if rate <= _HIGHEST_PLAUSIBLE_FPS:
        return rate if rate > 0 else DEFAULT_FPS
    seconds = float((stream.duration or 0) * (stream.time_base or 0))
    counted = stream.frames / seconds if stream.frames > 1 and seconds > 0 else 0.0
    # A rate that merely repeats the unit of time needs a second witness: high-speed cameras have one.
    witnesses = (coded, counted) if rate == ticks else (rate,)
    return rate if any(abs(witness - rate) < 0.1 * rate for witness in witnesses) else DEFAULT_FPS


def _without_last(packets: Iterable[Packet]) -> Iterator[Packet]:
    """The packets without the last one that holds data."""
    held: Packet | None = None
    for packet in packets:
        if packet.size == 0:
            yield packet
            continue
        if held is not None:
            yield held
        held = packet


def _open(path: Path) -> InputContainer:
    require_regular_file(path)
    options = {**OPEN_OPTIONS, "max_pixels": str(max_pixels())}
    # "file:" keeps FFmpeg from reading a name such as "rtsp:a.mp4" as an address.
    try:
        return av.open(f"file:{path}", options=options, metadata_errors="replace")
    except FileNotFoundError as error:
        raise VideoMissing(str(path), "a video file", "nothing there", "check the path") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        found, fix = refusal(path)
        found = found or getattr(error, "strerror", None) or str(error)
        raise VideoUnreadable(str(path), _EXPECTED, found, fix) from error


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    # FFmpeg lists the cover picture of a song as a video stream.
    streams = [stream for stream in container.streams if not stream.disposition & Disposition.attached_pic]
    for stream in streams:
        if isinstance(stream, VideoStream):
            if stream.codec_context is None:  # its header is damaged, or this FFmpeg lacks the decoder
                raise VideoUnreadable(str(path), "a video that FFmpeg decodes", "a stream of unknown codec")
            # FFmpeg does not report a size that lies above its own limit, which is set in `_open`.
            height, width = stream.codec_context.height, stream.codec_context.width
            require_pixels(*((height, width) if height else gif_size(path)), str(path), VideoUnreadable)
            return stream
    kinds = sorted({stream.type for stream in streams})
    if kinds and set(kinds) <= {"audio", "subtitle"}:
        found = f"{' and '.join(kinds)} only"
    else:
        found = "no video stream: cut short before its index, or not a video"
    raise VideoUnreadable(str(path), _EXPECTED, found)
