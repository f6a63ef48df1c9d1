"""What is known of a container format beyond FFmpeg's: which are safe to open, and where a file should end.

FFmpeg opens playlists and scripts (HLS, DASH, concat, image sequences), which make it read other files or
addresses. A file from a stranger must not do that, so only formats that keep their data in the one file are
opened, and no protocol but "file". References of QuickTime files to other files are not followed, which is
FFmpeg's default.
"""

from __future__ import annotations

import contextlib
import os
from functools import lru_cache
from pathlib import Path
from typing import IO

import av
from av.video.stream import VideoStream

from tce.video.pool_worker import heartbeat

_VIDEO_FORMATS = (
    "mov matroska avi mpeg mpegts mpegvideo m4v asf flv live_flv kux ogg gif apng webp_anim mxf gxf dv nut "
    "ivf yuv4mpegpipe h261 h263 h264 hevc vvc evc av1 obu vc1 vc1test cavsvideo avs avs2 avs3 dirac dnxhd "
    "mjpeg mjpeg_2000 mpjpeg smjpeg jpegxl_anim avif rm ivr swf wtv dhav nsv nuv lxf lmlm4 mtv mv mvi pva "
    "pmp ty vivo roq smk bink flic film_cpk iv8 ingenient cine cdxl ea idcin 4xm anm bfi bethsoftvid c93 jv "
    "mm moflex mods paf rl2 siff smush sol thp tiertexseq tmv txd usm vmd wc3movie wsvqa xmv yop"
)
# They hold no video; opened all the same, since "audio only" explains more than a refusal.
_AUDIO_FORMATS = "wav w64 mp3 aac ac3 eac3 flac aiff au amr caf tta wv ape dts opus"
_IMAGE_FORMATS = (
    "png_pipe jpeg_pipe jpegls_pipe jpegxl_pipe j2k_pipe bmp_pipe webp_pipe tiff_pipe gif_pipe pam_pipe "
    "pbm_pipe pgm_pipe ppm_pipe pgmyuv_pipe pfm_pipe dpx_pipe exr_pipe hdr_pipe psd_pipe qoi_pipe sgi_pipe "
    "sunrast_pipe pcx_pipe dds_pipe image2"
)
OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(f"{_VIDEO_FORMATS} {_AUDIO_FORMATS} {_IMAGE_FORMATS}".split()),
    "pattern_type": "none",  # image2 then opens the file of this name, not a sequence such as frame%d.jpg
}

_OTHER_FILES = (  # what such files begin with
    (b"#EXTM3U", "a playlist (HLS, .m3u8)"),
    (b"ffconcat version", "a playlist (FFmpeg's concat script)"),
    (b"<MPD", "a playlist (DASH manifest)"),
    (b"<asx", "a playlist (ASX)"),
    (b"[playlist]", "a playlist (PLS)"),
    (b"[Reference]", "a playlist (ASX)"),
    (b"v=0", "a session description (SDP)"),
)
_SNIFFED_BYTES = 4096
_EBML_HEADER, _SEGMENT = 0x1A45DFA3, 0x18538067  # Matroska's element names
_NUT_INDEX = 0x4E58DD672F23E64E


def refusal(path: Path) -> tuple[str, str]:
    """Why FFmpeg refuses a file, by its first bytes, and what to do; empty where they do not show it."""
    try:
        with open(path, "rb") as file:
            data = file.read(_SNIFFED_BYTES)
    except OSError as error:
        return error.strerror or str(error), ""
    if not data:
        return "an empty file", ""
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, name in _OTHER_FILES:
        if start.startswith(magic) or (start.startswith(b"<?xml") and magic[:1] == b"<" and magic in start):
            return f"{name}, which refers to other files", "give the video files themselves"
    if all(byte in b"\t\n\f\r\x1b" or byte >= 32 for byte in data):
        return "text", ""
    return "", ""


def gif_size(path: Path) -> tuple[int, int]:
    """Height and width that a GIF's header declares; 0, 0 for another file."""
    with open(path, "rb") as file:
        header = file.read(10)
    if not header.startswith(b"GIF8"):
        return 0, 0
    return int.from_bytes(header[8:10], "little"), int.from_bytes(header[6:8], "little")


def ends_abruptly(path: Path, stream: VideoStream) -> bool:
    """Whether the file is shorter than its container declares, or lacks the end of its format.

    MP4 states where each frame lies, AVI and Matroska state their length, and NUT that of each packet. Other
    containers declare nothing, and neither do files whose writer was interrupted before it filled the length
    in: those are taken to be complete.

    Args:
        path: the file.
        stream: its open video stream.
    """
    try:
        status = os.stat(path)
        size = status.st_size
        container = stream.container.format.name
        if container.startswith("mov,mp4"):
            return _end_of_samples(stream) > size
        with open(path, "rb") as file:
            if container == "avi":
                return _end_of_riff(file) > size
            if container.startswith("matroska"):
                return _end_of_segment(file) > size
            if container == "nut":
                if _has_nut_index(file, size):
                    return False
                return _is_last_packet_cut(path, stream.index, status.st_mtime_ns)
    except (OSError, ValueError):
        pass
    return False


def declared_end(stream: VideoStream) -> float | None:
    """When the video ends in seconds, as its header declares it; None if it does not, or by frame (MP4)."""
    container = stream.container
    if container.format.name == "avi" and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.format.name.startswith("matroska") and container.duration:  # type: ignore[attr-defined]
        return float(container.duration / 1e6)  # type: ignore[attr-defined]
    return None


def _end_of_samples(stream: VideoStream) -> int:
    entries = stream.index_entries
    if not len(entries):
        return 0
    last = entries[len(entries) - 1]
    return last.pos + last.size


def _end_of_riff(file: IO[bytes]) -> int:
    size = int.from_bytes(file.read(8)[4:], "little")
    return 0 if size == 0xFFFFFFFF else size + 8


def _end_of_segment(file: IO[bytes]) -> int:
    if _element_name(file) != _EBML_HEADER:
        return 0
    file.seek(_element_size(file) or 0, os.SEEK_CUR)
    if _element_name(file) != _SEGMENT:
        return 0
    size = _element_size(file)
    return 0 if size is None else file.tell() + size


def _element_name(file: IO[bytes]) -> int:
    return int.from_bytes(file.read(4), "big")  # both names in question have four bytes


def _element_size(file: IO[bytes]) -> int | None:
    """A number whose leading zero bits count the bytes that follow; None where all its bits say "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        raise ValueError("no size")
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else value


def _has_nut_index(file: IO[bytes], size: int) -> bool:
    """Whether the file's last packet is an index: its length stands in front of the final checksum."""
    if size < 12:
        return False
    file.seek(size - 12)
    length = int.from_bytes(file.read(8), "big")
    if not 12 < length <= size:
        return False
    file.seek(size - length)
    return int.from_bytes(file.read(8), "big") == _NUT_INDEX


@lru_cache(maxsize=32)  # asked each time a file is opened
def _is_last_packet_cut(path: Path, stream: int, modified: int) -> bool:
    """Whether the last packet of a NUT file without index is of this stream and lacks its end.

    FFmpeg passes such a packet on as a whole one. It declares more bytes than the file has if it grows when
    bytes are appended to the file.

    Args:
        path: the file.
        stream: number of the video stream.
        modified: when the file was changed; for the cache only.
    """
    as_it_is, appended = _packets_of_nut(path, b""), _packets_of_nut(path, bytes(64))
    if not as_it_is:
        return True
    number, (own, length) = len(as_it_is) - 1, as_it_is[-1]
    return own == stream and (number >= len(appended) or appended[number][1] > length)


def _packets_of_nut(path: Path, more: bytes) -> list[tuple[int, int]]:
    """Stream and size of each packet of a NUT file to whose end some bytes were appended."""
    found = []
    with (
        open(path, "rb") as file,
        contextlib.suppress(av.FFmpegError),  # what was appended is no packet
        av.open(_Appended(file, more), "r", format="nut") as container,
    ):
        for packet in container.demux():
            if packet.size:
                found.append((packet.stream_index, packet.size))
            heartbeat()
    return found


class _Appended:
    """A file that can only be read forwards, with bytes behind its end."""

    def __init__(self, file: IO[bytes], more: bytes):
        self._file, self._more = file, more

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if data:
            return data
        more, self._more = self._more, b""
        return more
