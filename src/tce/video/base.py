"""What can be wrong with footage: the VideoError family.

Every error names the path, what was expected and what was found, and survives pickling, so that a decoding
child process can hand it back.
"""

from __future__ import annotations

from tce.errors import TceError


class VideoError(TceError):
    """Footage that cannot be used; the base of the family."""


class VideoMissing(VideoError):
    """There is nothing at the path."""


class VideoUnreadable(VideoError):
    """Something is at the path, but no video: text, zero bytes, audio only, a damaged header."""


class VideoTruncated(VideoError):
    """The file promises more frames than can be decoded: cut short, or damaged in the middle.

    `Video.stream` raises it only after it has handed out every frame that does decode.
    """


class FrameError(VideoError):
    """One frame cannot be had: its index lies outside the video, or its data is damaged."""


class VideoTimeout(VideoError):
    """Decoding took longer than it was given."""


class DecoderCrashed(VideoError):
    """The process that decoded died: a fault inside the decoder, or out of memory."""
