"""Small copies of clips (H.264) that a page carries in itself; made in decoding child processes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction

from tce.data.segment import frame_range
from tce.video.open_video import open_video

LONGER_SIDE = 320  # pixels
QUALITY = "30"  # x264's crf
CLOCK = 90_000  # ticks a second


@dataclass(frozen=True)
class CopyJob:
    """A clip to copy.

    Attributes:
        path: a video file or frame folder.
        start: seconds where the clip begins; None for the beginning.
        end: seconds where it ends; None for the end.
    """

    path: str
    start: float | None = None
    end: float | None = None

    def __str__(self) -> str:
        return self.path


def small_copy(job: CopyJob) -> tuple[bytes, float]:
    """An MP4 file of a clip with the clip's own times, and the seconds at which its first frame stands.

    Raises:
        VideoError: the footage cannot be decoded.
    """
    import av
    import cv2
    import numpy as np

    buffer = io.BytesIO()
    with (
        open_video(job.path, threads=1) as video,
        av.open(buffer, "w", format="mp4") as container,
    ):
        first, stop = frame_range(video, job.start, job.end)
        times = video.times()
        height, width = video.size
        scale = min(1.0, LONGER_SIDE / max(height, width))
        size = tuple(max(2, round(length * scale / 2) * 2) for length in (width, height))
        rate = Fraction(max(1.0, min(video.fps, 240.0))).limit_denominator(1001)
        options = {"crf": QUALITY, "preset": "veryfast", "threads": "1", "g": "30"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, CLOCK)
        last = -1
        for number, image in video.each(first, stop):
            small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            frame = av.VideoFrame.from_ndarray(small, format="rgb24")
            last = max(last + 1, round((times[number] - times[first]) * CLOCK))
            frame.pts, frame.time_base = last, Fraction(1, CLOCK)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue(), float(times[first])
