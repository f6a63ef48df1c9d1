"""One open video file, decoded forwards through PyAV; damage is noted and stepped over."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tce.video.base import VideoMissing, VideoUnreadable
from tce.video.ending import is_cut_short
from tce.video.index import packets_tell, stated_rate

MAX_THREADS = 8  # more gain nothing below 4K, and each holds a frame in flight
_RESTARTS = 10
_TEXT = {"tty", "ass", "srt", "webvtt"}  # FFmpeg would draw the text as pictures
_EXPECTED = "a video that FFmpeg reads"


class Decoder:
    """The packets and frames of one file's first real video stream.

    Args:
        path: the file.
        threads: decoding threads; 0 for one a core, at most 8.

    Attributes:
        honest: whether packets tell which frames there are (see `index.packets_tell`).
        damage: the first error, in FFmpeg's words; empty if none. What fails before the first key frame is
            no damage, since recordings often begin in mid-scene.
        excuse: the first error of that kind.
        concealed: signs of damage that cost no frame: frames and packets marked as damaged, but given.

    Raises:
        VideoMissing: nothing is at the path.
        VideoUnreadable: no video is in the file, or one of unknown codec.
    """

    def __init__(self, path: Path, threads: int = 0):
        self.path = path
        self.damage = ""
        self.concealed = 0
        self.excuse = ""
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
        self.honest = packets_tell(self._stream)

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return self._stream.codec.canonical_name  # "av1", not the "libdav1d" that decodes it

    @property
    def rate(self) -> float:
        """Average frames per second, as the file states them."""
        return stated_rate(self._stream)

    @property
    def base(self) -> Fraction:
        """Seconds a unit of the time stamps."""
        return self._stream.time_base or Fraction(1, 1000)

    @property
    def cut_short(self) -> bool:
        """Whether the file ends before its header says that it should."""
        return is_cut_short(self.path, self._stream)

    def seek(self, stamp: int) -> None:
        """Go to the key frame at or before `stamp`; the caller sees where the container really lands.

        Raises:
            av.FFmpegError: the container cannot seek.
        """
        self._sought = stamp
        self._container.seek(stamp, stream=self._stream, backward=True)

    def packets(self) -> Iterator[Packet]:
        """The stream's packets in the file's order; at the end the empty one that flushes the decoder."""
        for _ in range(_RESTARTS):
            try:
                yield from self._container.demux(self._stream)
                return
            except av.FFmpegError as error:  # most containers find their way again behind the damage
                self._note(error)
        yield Packet()  # flush: what the decoder still holds is good

    def frames(self, sent: Callable[[Packet], None] | None = None) -> Iterator[VideoFrame]:
        """Frames as the decoder gives them, in the order in which they are shown; damaged ones are left out.

        Args:
            sent: called with each packet before it is decoded.
        """
        decode = self._stream.codec_context.decode
        due = given = 0
        whole = True
        for packet in self.packets():
            if sent is not None:
                sent(packet)
            if self._since_key >= 0 or packet.is_keyframe:
                self._since_key += 1
                self.concealed += packet.is_corrupt
                due += bool(packet.size and not packet.is_discard)
            try:
                for frame in decode(packet if packet.size else None):
                    self.concealed += frame.is_corrupt
                    given += 1
                    yield frame
            except av.FFmpegError as error:
                self._note(error)
                whole = bool(packet.size)
        if self._threads > 1 and not (whole and (given >= due or not self.honest)):
            yield from self._after(given)

    def _after(self, given: int) -> Iterator[VideoFrame]:
        """The frames after the first `given`, which threads held when one of them met damage at the end.

        PyAV cannot fetch them any more: one thread decodes anew.
        """
        with Decoder(self.path, threads=1) as single:
            if self._sought is not None:
                single.seek(self._sought)
            yield from itertools.islice(single.frames(), given, None)

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _note(self, error: av.FFmpegError) -> None:
        text = error.strerror or str(error)
        # Decoding threads tell of an error some packets late.
        if self._since_key < self._threads:
            self.excuse = self.excuse or text
        else:
            self.damage = self.damage or text


def _open(path: Path) -> InputContainer:
    # "file:" keeps FFmpeg from reading "rtsp:..." or "concat:..." into a name with a colon.
    try:
        container = av.open(f"file:{path}", metadata_errors="replace")
    except FileNotFoundError as error:
        raise VideoMissing(str(path), "a video file", "nothing there", "check the path") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        found = "an empty file" if _is_empty(path) else getattr(error, "strerror", None) or str(error)
        raise VideoUnreadable(str(path), _EXPECTED, found) from error
    if container.format.name in _TEXT:
        container.close()
        raise VideoUnreadable(str(path), _EXPECTED, "text")
    return container


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:
        return False


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    # A song's cover picture is a video stream to FFmpeg.
    streams = [stream for stream in container.streams if not stream.disposition & Disposition.attached_pic]
    for stream in streams:
        if isinstance(stream, VideoStream):
            if stream.codec_context is None:  # its header is damaged, or this FFmpeg lacks the decoder
                raise VideoUnreadable(str(path), "a video that FFmpeg decodes", "a stream of unknown codec")
            return stream
    kinds = sorted({stream.type for stream in streams})
    if kinds and set(kinds) <= {"audio", "subtitle"}:
        found = f"{' and '.join(kinds)} only"
    else:
        found = "no picture: cut short before its index, or no video at all"
    raise VideoUnreadable(str(path), _EXPECTED, found)
