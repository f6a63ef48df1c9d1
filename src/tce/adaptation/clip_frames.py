"""The frames of clips that the adaptation looks at: decoded once, at the network's size.

A short clip gives frames spread evenly over it. A long recording gives frames at a low rate, in pieces, so
that what happens at different times is not averaged away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from tce.data.sampling import spread
from tce.errors import TceError

if TYPE_CHECKING:
    from tce.data.catalog import Catalog
    from tce.data.frame_store import FrameStore
    from tce.video.pool import DecodePool

Frames = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Resize = Literal["squash", "center-crop"]

LONG_SECONDS = 10.0  # a clip up to this length is one thing; a longer recording is cut into pieces
LONG_HORIZON = 1.0  # seconds within which frames of a long recording count as the same thing
MOST_PIECES = 250  # of one recording: an hour at two frames a second
CROP_MARGIN = 256 / 224  # short side before a centre crop, as a multiple of the crop


@dataclass(frozen=True)
class FrameSampling:
    """Which frames of a clip.

    Attributes:
        frames_per_clip: of a short clip, and of each piece of a long recording.
        fps: frames a second; None: two in a horizon, and frames spread evenly over short clips.
        horizon: seconds; None: the whole of a short clip, `LONG_HORIZON` in a long recording.
    """

    frames_per_clip: int = 8
    fps: float | None = None
    horizon: float | None = None

    def pieces(self, count: int, fps: float) -> tuple[list[Ints], float | None]:
        """Positions of the frames, piece by piece, and the horizon that holds for them in seconds.

        Args:
            count: frames of the clip, at least 1.
            fps: its frames a second.
        """
        seconds, wanted = count / fps, self.frames_per_clip
        horizon = self.horizon
        if horizon is None and seconds > LONG_SECONDS:
            horizon = max(LONG_HORIZON, 1 / fps)  # of time-lapse footage, neighbouring frames
        if self.fps is None and (horizon is None or seconds <= horizon):
            return [spread(count, min(wanted, count))], None
        rate = self.fps if self.fps is not None else 2 / (horizon or seconds)
        step = max(1, round(fps / rate))
        taken = np.arange((count - 1) % step // 2, count, step, dtype=np.int64)
        if horizon is None:  # a short clip at the rate asked for
            return [taken], None
        starts = range(0, len(taken), wanted)
        parts = [taken[start : start + wanted] for start in starts]
        if len(parts) > 1 and len(parts[-1]) < 2:  # one frame alone shows no change
            parts[-2:] = [np.concatenate(parts[-2:])]
        kept = spread(len(parts), min(MOST_PIECES, len(parts)))
        return [parts[number] for number in kept], horizon


@dataclass
class FramePiece:
    """Frames of a clip or of a part of it, in order of time.

    Attributes:
        frames: uint8 [n, size, size, 3].
        time: [n], seconds.
        horizon: see `tce.adaptation.linear.Piece`.
    """

    frames: Frames
    time: Floats
    horizon: float | None


@dataclass(frozen=True)
class FrameJob:
    """What a decoding process reads.

    Attributes:
        path: a video file or a frame folder.
        start: seconds where the clip begins; None for the beginning.
        end: seconds where it ends; None for the end.
        sampling: which frames.
        size: side of the square in pixels.
        resize: how frames become squares.
    """

    path: str
    start: float | None
    end: float | None
    sampling: FrameSampling
    size: int
    resize: Resize

    def __str__(self) -> str:
        return self.path


def read_pieces(job: FrameJob) -> Iterator[FramePiece]:
    """Decode a clip's frames; runs in a decoding child process.

    Raises:
        VideoError: the footage cannot be decoded.
    """
    from tce.data.segment import frame_range
    from tce.video.open_video import open_video

    with open_video(job.path, threads=1) as video:
        first, stop = frame_range(video, job.start, job.end)
        positions, horizon = job.sampling.pieces(stop - first, video.fps)
        for part in positions:
            frames = video.frames(part + first)
            yield FramePiece(
                np.stack([to_square(frame, job.size, job.resize) for frame in frames]),
                video.times(part + first),
                horizon,
            )


def to_square(frame: Frames, size: int, resize: Resize) -> Frames:
    """A frame uint8 [H, W, 3] as a square [size, size, 3].

    Args:
        frame: RGB.
        size: pixels.
        resize: "squash" ignores the aspect; "center-crop" scales the short side to 256/224 of the size and
            cuts the middle out.
    """
    height, width = frame.shape[:2]
    if resize == "center-crop":
        short = round(size * CROP_MARGIN)
        scale = short / min(height, width)
        frame = _resized(frame, max(short, round(height * scale)), max(short, round(width * scale)))
        top, left = (frame.shape[0] - size) // 2, (frame.shape[1] - size) // 2
        return np.ascontiguousarray(frame[top : top + size, left : left + size])
    return _resized(frame, size, size)


def _resized(frame: Frames, height: int, width: int) -> Frames:
    if frame.shape[:2] == (height, width):
        return frame
    # Averaging areas keeps a reduced image free of aliases; it cannot enlarge.
    smaller = height <= frame.shape[0] and width <= frame.shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(frame, (width, height), interpolation=how)  # type: ignore[return-value]


def decode_clips(
    catalog: Catalog,
    rows: Sequence[int],
    sampling: FrameSampling,
    size: int,
    resize: Resize,
    pool: DecodePool,
) -> Iterator[tuple[int, Iterator[FramePiece]]]:
    """Each clip's pieces out of its video file or frame folder, in the order of `rows`.

    Args:
        catalog: the clips.
        rows: which of them.
        sampling: which frames.
        size: side of the frames in pixels.
        resize: how frames become squares.
        pool: child processes that decode.

    Yields:
        a row, and its pieces, which raise a VideoError where the footage is bad.
    """
    clips = (catalog[row] for row in rows)
    jobs = (FrameJob(clip.path, clip.start, clip.end, sampling, size, resize) for clip in clips)
    for row, (_, pieces) in zip(rows, pool.stream(read_pieces, jobs), strict=True):
        yield row, pieces


def stored_clips(
    store: FrameStore, rows: Sequence[int], sampling: FrameSampling, size: int, resize: Resize, workers: int
) -> Iterator[tuple[int, Iterator[FramePiece]]]:
    """Each clip's pieces out of a collection; as `decode_clips`.

    Args:
        store: the clips.
        rows: which of them.
        sampling: which frames.
        size: side of the frames in pixels.
        resize: how frames become squares.
        workers: decoding threads.
    """
    from tce.data.loader import Loader

    plans = [sampling.pieces(int(store.lengths[row]), float(store.fps[row])) for row in rows]
    plan = [(np.array([row]), part[None]) for row, (parts, _) in zip(rows, plans) for part in parts]
    with Loader(store, plan, (size, size), resize, workers) as loader:
        batches = iter(loader)
        for row, (parts, horizon) in zip(rows, plans):
            own = islice(batches, len(parts))
            yield row, _loaded(own, store.catalog.ids, float(store.fps[row]), horizon)
            for _ in own:  # what was left after a piece that could not be read
                pass


def _loaded(
    batches: Iterator[Any], names: np.ndarray, fps: float, horizon: float | None
) -> Iterator[FramePiece]:
    for batch in batches:
        if not batch.ok[0]:
            raise TceError(f"{names[batch.clips[0]]}, {batch.errors[0]}")
        yield FramePiece(np.asarray(batch.frames[0]), batch.index[0] / fps, horizon)
