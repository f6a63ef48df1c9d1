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
    if target.is_dir():
        from tce.video.folder import FrameFolder

        return FrameFolder(target)
    require_regular_file(target, "a video file or a folder of images")
    from tce.video.folder import IMAGE_SUFFIXES

    if target.suffix.lower() in IMAGE_SUFFIXES:
        from tce.video.image_file import ImageFile

        return ImageFile(target)
    from tce.video.file import VideoFile

    return VideoFile(target, threads)
