"""The frames that a page shows: sampled from clips, decoded in child processes, with small pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from tce.data.sampling import spread
from tce.data.segment import frame_range
from tce.errors import TceError
from tce.video.base import DEFAULT_FPS
from tce.video.open_video import open_video

if TYPE_CHECKING:
    from tce.data.catalog import Catalog
    from tce.data.frame_store import FrameStore
    from tce.video.pool import DecodePool

CHUNK_BYTES = 16 << 20  # of decoded frames that a child process hands over at a time
CHUNK_FRAMES = 32
TIME_TOLERANCE = 0.05  # seconds by which stored times may differ from the footage's

Frames = NDArray[np.uint8]  # [n, H, W, 3] RGB


@dataclass
class SampledClip:
    """One clip of the page and its sampled frames.

    Attributes:
        name: unique name that people read.
        path: how a table names it: the path below the dataset's folder.
        file: where the footage lies; None if it is not there.
        start: seconds where the clip begins in the file; None for the beginning.
        end: seconds where it ends; None for the end.
        columns: what is known of it, such as class and group, as text.
        frame: int64 [n], frame numbers in the file, or in a collection's clip.
        time: float64 [n], seconds in the file.
        pictures: uint8 [n, h, w, 3]; None where there are none.
    """

    name: str
    path: str
    file: str | None
    start: float | None = None
    end: float | None = None
    columns: dict[str, str] = field(default_factory=dict)
    frame: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    time: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    pictures: Frames | None = None


@dataclass(frozen=True)
class ClipJob:
    """What a decoding process reads.

    Attributes:
        path: a video file or frame folder.
        start: seconds where the clip begins; None for the beginning.
        end: seconds where it ends; None for the end.
        interval: seconds between frames.
        side: longer side of the pictures in pixels; 0: none.
        frames: these frame numbers in place of frames at an interval.
        whole: also send the frames themselves, for the network.
    """

    path: str
    start: float | None = None
    end: float | None = None
    interval: float = 0.25
    side: int = 64
    frames: tuple[int, ...] | None = None
    whole: bool = True

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class ClipPart:
    """Some frames of a clip.

    Attributes:
        frame: int64 [n].
        time: float64 [n].
        frames: uint8 [n, H, W, 3]; None where only pictures were asked for.
        pictures: uint8 [n, h, w, 3]; None where none were.
    """

    frame: NDArray[np.int64]
    time: NDArray[np.float64]
    frames: Frames | None
    pictures: Frames | None


def clips_of(catalog: Catalog, by_id: bool) -> list[SampledClip]:
    """The clips of a catalog, without frames yet.

    Args:
        catalog: the clips.
        by_id: whether tables name them by id, as those of a collection, instead of by path.
    """
    clips = []
    for clip in catalog:
        columns = {"class": clip.label, "split": clip.split}
        columns |= {"group": clip.group if clip.group != clip.id else None}
        path = clip.id if by_id else _below(clip.path, catalog.root)
        known = {name: value for name, value in columns.items() if value is not None}
        file = clip.path if os.path.exists(clip.path) else None
        clips.append(SampledClip(clip.id, path, file, clip.start, clip.end, known))
    return clips


def _below(path: str, root: str) -> str:
    inside = os.path.relpath(path, root or ".")
    return (path if inside.startswith("..") else inside).replace(os.sep, "/")


def choose_interval(seconds: Sequence[float], fps: float, most: int) -> float:
    """Seconds between frames: 1 / fps, or more where that would be more than `most` frames in all.

    Args:
        seconds: length of each clip.
        fps: frames a second that are asked for.
        most: about how many frames in all; every clip gives at least one.
    """
    return max(1 / fps, float(np.sum(seconds)) / most)


def sampled_positions(count: int, fps: float, interval: float) -> NDArray[np.int64]:
    """Positions of the frames of a clip, int64 [n], centred; at least one.

    Args:
        count: frames of the clip, at least 1.
        fps: its frames a second.
        interval: seconds between the frames taken.
    """
    step = max(1, round(fps * interval))
    return np.arange((count - 1) % step // 2, count, step, dtype=np.int64)


def clip_seconds(job: ClipJob) -> float:
    """About how long a clip is; runs in a decoding child process.

    Raises:
        VideoError: the footage is missing or unreadable.
    """
    with open_video(job.path, threads=1) as video:
        whole = video.estimated_length() / (video.fps or DEFAULT_FPS)
    return max(0.0, min(whole, job.end if job.end is not None else whole) - (job.start or 0.0))


def read_clip(job: ClipJob) -> Iterator[ClipPart]:
    """Decode a clip's frames in order; runs in a decoding child process.

    Raises:
        VideoError: the footage cannot be decoded, or does not have the frames asked for.
    """
    with open_video(job.path, threads=1) as video:
        if job.frames is not None:
            wanted = np.array(job.frames, np.int64)
        else:
            first, stop = frame_range(video, job.start, job.end)
            wanted = first + sampled_positions(stop - first, video.fps, job.interval)
        height, width = video.size
        size = int(np.clip(CHUNK_BYTES // (height * width * 3), 1, CHUNK_FRAMES))
        for begin in range(0, len(wanted), size):
            rows = wanted[begin : begin + size]
            frames = video.frames(rows)
            pictures = shrink(frames, job.side) if job.side else None
            yield ClipPart(rows, video.times(rows), frames if job.whole else None, pictures)


def shrink(frames: Frames, side: int) -> Frames:
    """Pictures uint8 [n, h, w, 3] of frames [n, H, W, 3]; the longer side has `side` pixels."""
    height, width = frames.shape[1:3]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, size, interpolation=how) for frame in frames])


class Sampler:
    """Reads the sampled frames of clips, hands frames to the networks, and keeps pictures.

    Attributes:
        clips: those that could be read, with their frames.
        skipped: name and reason of the others.

    Args:
        side: longer side of the pictures in pixels; 0: none.
        embed: called with the frames uint8 [n, H, W, 3] of each part, in order; None: no network.
        drop: called with a number of frames, the last ones embedded: their clip failed.
        advance: called with the number of frames that were read.
    """

    def __init__(
        self,
        side: int,
        embed: Callable[[Frames], None] | None,
        drop: Callable[[int], None] = lambda count: None,
        advance: Callable[[int], None] = lambda count: None,
    ):
        self._side, self._embed, self._drop, self._advance = side, embed, drop, advance
        self.clips: list[SampledClip] = []
        self.skipped: dict[str, str] = {}

    def read_files(self, clips: Sequence[SampledClip], jobs: Sequence[ClipJob], pool: DecodePool) -> None:
        """Read clips from their files, decoded in the pool's processes."""
        stream = pool.stream(read_clip, jobs)
        for clip, (_, parts) in zip(clips, stream, strict=True):
            self._keep(clip, parts)

    def read_store(self, clips: Sequence[SampledClip], store: FrameStore, interval: float) -> None:
        """Read clips from a collection, whose rows they are."""
        for row, clip in enumerate(clips):
            self._keep(clip, self._stored(store, row, clip.start or 0.0, interval))

    def _stored(self, store: FrameStore, row: int, start: float, interval: float) -> Iterator[ClipPart]:
        from tce.video.image import decode

        fps = float(store.fps[row])
        positions = sampled_positions(int(store.lengths[row]), fps, interval)
        for begin in range(0, len(positions), CHUNK_FRAMES):
            rows = positions[begin : begin + CHUNK_FRAMES]
            images = []
            for data in store.read(np.full(len(rows), row), rows):
                if isinstance(data, Exception):
                    raise TceError(str(data))
                images.append(decode(data, f"a frame of {store.catalog[row].id}"))
            frames = _stacked(images)
            pictures = shrink(frames, self._side) if self._side else None
            yield ClipPart(rows, start + rows / fps, frames, pictures)

    def _keep(self, clip: SampledClip, parts: Iterator[ClipPart]) -> None:
        found: list[ClipPart] = []
        embedded = 0
        try:
            for part in parts:
                if self._embed is not None and part.frames is not None:
                    self._embed(part.frames)
                    embedded += len(part.frames)
                found.append(replace(part, frames=None))
                self._advance(len(part.frame))
        except TceError as error:
            self._drop(embedded)
            self.skipped[clip.name] = str(error)
            return
        clip.frame = np.concatenate([part.frame for part in found])
        clip.time = np.concatenate([part.time for part in found])
        pictures = [part.pictures for part in found if part.pictures is not None]
        clip.pictures = np.concatenate(pictures) if pictures else None
        self.clips.append(clip)


def _stacked(images: list[Frames]) -> Frames:
    """Images as one array; later ones of another size are resized to the first one's."""
    height, width = images[0].shape[:2]
    same = [
        image if image.shape[:2] == (height, width) else cv2.resize(image, (width, height))
        for image in images
    ]
    return np.stack(same)


def choose_clips(count: int, most: int) -> list[int]:
    """Rows of the clips that are shown: all, or `most` spread evenly over them."""
    return list(range(count)) if count <= most else spread(count, most).tolist()
