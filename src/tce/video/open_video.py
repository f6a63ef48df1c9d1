"""Open a video file, a folder of images or an image file as a `Video`."""

from __future__ import annotations

import os
from pathlib import Path

from tce.video.base import Video, require_regular_file

__all__ = ["open_video"]


def open_video(path: str | os.PathLike[str], threads: int = 0) -> Video:
    """Open a video file, a folder of images or an image file. It is read on the first access.

    Args:
        path: a file in any container format that FFmpeg reads, a folder that holds images, or an image file.
        threads: decoding threads; 0 for one a core, at most 8.

    Raises:
        VideoMissing: the path does not exist.
        VideoUnreadable: the path is neither a regular file nor a folder.
    """
    target = Path(path)
    from tce.video.folder import IMAGE_SUFFIXES, FrameFolder, ImageFile

    if target.is_dir():
        return FrameFolder(target)
    require_regular_file(target, "a video file or a folder of images")
    if target.suffix.lower() in IMAGE_SUFFIXES:
        return ImageFile(target)
    from tce.video.file import VideoFile

    return VideoFile(target, threads)
