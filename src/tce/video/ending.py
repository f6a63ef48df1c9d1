"""Whether a video file ends before its own header says that it should."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from av.video.stream import VideoStream

_EBML_HEADER, _SEGMENT = 0x1A45DFA3, 0x18538067  # Matroska's element names


def is_cut_short(path: Path, stream: VideoStream) -> bool:
    """Whether the file is shorter than its container states.

    MP4 tells where each frame lies, AVI and Matroska tell their length. Other containers promise nothing, and
    nor do files whose writer never came back to fill the length in: those are taken to be whole.

    Args:
        path: the file.
        stream: its open video stream.
    """
    try:
        size = os.path.getsize(path)
        container = stream.container.format.name
        if container.startswith("mov,mp4"):
            return _end_of_samples(stream) > size
        with open(path, "rb") as file:
            if container == "avi":
                return _end_of_riff(file) > size
            if container.startswith("matroska"):
                return _end_of_segment(file) > size
    except (OSError, ValueError):
        pass
    return False


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
    """A number whose leading zero bits tell how many bytes follow; None where all its bits say "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        raise ValueError("no size")
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else value
