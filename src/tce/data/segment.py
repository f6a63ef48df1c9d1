"""Long recordings cut into clips: at changes of scene, into pieces of a length, or both."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tce.errors import OptionError, TceError
from tce.progress import Progress
from tce.video.base import DEFAULT_FPS, FrameError, Video, VideoError, VideoTruncated
from tce.video.open_video import open_video
from tce.video.pool_worker import heartbeat

if TYPE_CHECKING:
    from tce.data.catalog import Catalog
    from tce.options.pack import PackOptions
    from tce.video.pool import DecodePool

Range = tuple[float, float]  # start and end in seconds since the first frame; the end is not included

_DETECTION_WIDTH = 256  # pixels; PySceneDetect itself scales down to about this before it compares frames
_SHORTEST_SCENE = 1.0  # seconds
_ROUNDING = 1e-6  # seconds; far below any frame's duration, far above float64's error over days
_SECONDS_BETWEEN_WRITES = 10.0


def cut(
    path: str | os.PathLike[str],
    clip_seconds: float | None = None,
    scenes: bool = False,
    threads: int = 0,
) -> list[Range]:
    """Where to cut a recording into clips.

    Scenes are cut first and no clip goes over a scene's end. Pieces have `clip_seconds` each; what is left at
    the end becomes a piece of its own if it is at least half as long, and else belongs to the piece before.
    Without either option the whole recording is one clip.

    Args:
        path: a video or frame folder.
        clip_seconds: length of the pieces.
        scenes: cut at changes of scene (PySceneDetect's content detector); decodes the whole recording.
        threads: decoding threads; 0 for one a core.

    Returns:
        start and end of each clip in seconds since the first frame, in order and without gaps.

    Raises:
        VideoError: the video cannot be read.
        OptionError: `clip_seconds` is not above 0.
        TceError: PySceneDetect is not installed.
    """
    if clip_seconds is not None and not clip_seconds > 0:
        raise OptionError("--clip-seconds", "a length above 0", str(clip_seconds))
    with open_video(path, threads) as video:
        starts = _scene_starts(video) if scenes else []
        times = video.times()
        edges = [0.0, *(float(times[frame]) for frame in starts), _end(times)]
    return [piece for start, end in pairwise(edges) for piece in _pieces(start, end, clip_seconds)]


def frame_range(video: Video, start: float | None, end: float | None) -> tuple[int, int]:
    """The frames shown from `start` on and before `end`: the first, and the one after the last.

    Args:
        video: the recording.
        start: seconds since its first frame; None or NaN for the beginning.
        end: seconds; None or NaN for the end.

    Raises:
        FrameError: no frame is shown in that time.
    """
    times = video.times()
    first = 0 if start is None or np.isnan(start) else int(np.searchsorted(times, start - _ROUNDING))
    stop = len(times) if end is None or np.isnan(end) else int(np.searchsorted(times, end - _ROUNDING))
    if first >= stop:
        raise FrameError(
            str(video.path),
            f"frames between {start or 0:g} and {'the end' if end is None else f'{end:g}'} s",
            f"none; it lasts {_end(times):g} s",
        )
    return first, stop


def _end(times: np.ndarray) -> float:
    """When the recording ends, in seconds, if its last frame is shown as long as the median one."""
    shown = float(np.median(np.diff(times))) if len(times) > 1 else 1 / DEFAULT_FPS
    return float(times[-1]) + shown


def _pieces(start: float, end: float, seconds: float | None) -> list[Range]:
    if seconds is None:
        return [(start, end)]
    count = max(1, int((end - start + _ROUNDING) / seconds + 0.5))
    edges = [start + piece * seconds for piece in range(count)] + [end]
    return list(pairwise(edges))


def _scene_starts(video: Video) -> list[int]:
    """The first frames of all scenes but the first."""
    try:
        from scenedetect import ContentDetector, FrameTimecode
    except ImportError as error:
        fix = "install the extra: pip install 'tce-video[scenes]'"
        raise TceError("cutting by scenes", "PySceneDetect", "not installed", fix) from error
    import cv2

    detector = ContentDetector(min_scene_len=max(1, round(_SHORTEST_SCENE * video.fps)))
    height, width = video.size
    size = (min(width, _DETECTION_WIDTH), max(1, height * min(width, _DETECTION_WIDTH) // width))
    cuts: list[int] = []
    try:
        for indices, frames in video.stream():
            heartbeat()
            for index, frame in zip(indices, frames):
                small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
                # PySceneDetect counts frames; true times come from the video, whose rate may vary.
                at = FrameTimecode(int(index), video.fps)
                cuts += [cut.frame_num for cut in detector.process_frame(at, small[..., ::-1])]
    except VideoTruncated:
        pass  # reported when the clips are packed; what decodes is cut
    return sorted({frame for frame in cuts if 0 < frame < len(video)})


@dataclass(frozen=True)
class CutJob:
    """A recording to cut, see `cut`.

    Attributes:
        path: a video file or a frame folder.
        seconds: length of the pieces; None for whole scenes.
        scenes: cut where the scene changes.
    """

    path: str
    seconds: float | None
    scenes: bool

    def __str__(self) -> str:
        return self.path


def find_cuts(job: CutJob) -> list[tuple[float, float | None]]:
    """Start and end of the pieces in seconds, the last one open; runs in a decoding child process.

    Raises:
        VideoError: the video cannot be decoded.
        TceError: PySceneDetect is not installed.
    """
    pieces: list[tuple[float, float | None]] = list(cut(job.path, job.seconds, job.scenes, threads=1))
    return [*pieces[:-1], (pieces[-1][0], None)]


def cut_catalog(catalog: Catalog, options: PackOptions, out: Path, pool: DecodePool) -> Catalog:
    """The catalog with long recordings cut as the options ask.

    Clips that a list has cut already stay as they are, and so do videos that cannot be decoded. The cuts are
    stored in `out/cuts.json`, since finding them can take as long as decoding everything.

    Raises:
        TceError: PySceneDetect is not installed.
    """
    if options.clip_seconds is None and not options.split_scenes:
        return catalog
    from tce.io import write_json

    path = out / "cuts.json"
    kept = _read_cuts(path)
    clips = list(catalog)
    keys = [_cut_key(clip.path) for clip in clips]
    todo = [
        row
        for row, clip in enumerate(clips)
        if clip.start is None and clip.end is None and kept.get(clip.id, {}).get("key") != keys[row]
    ]
    jobs = [CutJob(clips[row].path, options.clip_seconds, options.split_scenes) for row in todo]
    written = time.monotonic()
    with Progress(len(clips), "finding cuts", "clip", done=len(clips) - len(todo)) as progress:
        for row, (_, pieces) in zip(todo, pool.map(find_cuts, jobs), strict=True):
            if isinstance(pieces, TceError) and not isinstance(pieces, VideoError):
                raise pieces
            # A video that fails here fails again when it is packed, and is reported then.
            kept[clips[row].id] = {"key": keys[row], "pieces": [] if isinstance(pieces, TceError) else pieces}
            progress.update()
            if time.monotonic() - written > _SECONDS_BETWEEN_WRITES:
                write_json(path, kept)
                written = time.monotonic()
    if todo:
        write_json(path, kept)
    return catalog.cut([_ranges(kept.get(clip.id, {}).get("pieces", [])) for clip in clips])


def _ranges(pieces: list[tuple[float, float | None]]) -> list[tuple[float, float]]:
    return [(start, math.nan if end is None else end) for start, end in pieces]


def _read_cuts(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _cut_key(path: str) -> list[int]:
    """What changes when the file does."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
