"""Example clips of each behaviour: the most typical ones, from different recordings, as sheet and film."""

from __future__ import annotations

import itertools
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tce.discovery.behaviour_model import BehaviourModel
from tce.discovery.recordings import RecordedFrames, Recording
from tce.discovery.segment_table import Bout, BoutTable
from tce.errors import TceError
from tce.io import atomic
from tce.progress import Progress

log = logging.getLogger("tce.discover")

FOLDER = "examples"
CLIP_SECONDS = 3.0  # an example lasts at most so long
FPS = 12  # of the film
SIDE = 176  # pixels, a cell of the film
GAP = 6
COLUMNS = 5
STILLS = 5  # of an example on the sheet
BACKGROUND = 24  # grey level around the pictures

Image = NDArray[np.uint8]  # [H, W, 3] RGB


@dataclass(frozen=True)
class Example:
    """One example clip.

    Attributes:
        recording: number of its recording.
        start: seconds.
        end: seconds.
        typical: mean typicality of its most typical window, higher is more typical.
    """

    recording: int
    start: float
    end: float
    typical: float


def choose_examples(
    model: BehaviourModel, table: BoutTable, windows: NDArray[np.float32], frames: RecordedFrames, count: int
) -> list[list[Example]]:
    """The examples of each behaviour, the most typical first.

    Each round takes the best remaining bout of every recording (group, where there are groups), the most
    typical first, so that different recordings come before second clips of one.

    Args:
        model: whose clusters the windows belong to.
        table: the bouts.
        windows: [N, w].
        frames: the recordings.
        count: examples a behaviour.
    """
    found = []
    for number, behaviour in enumerate(model.behaviours):
        by_recording: dict[int, list[Example]] = defaultdict(list)
        for bout in table.bouts:
            if bout.behaviour == number:
                by_recording[bout.recording] += _examples_of(bout, behaviour.clusters, model, windows, frames)
        for own in by_recording.values():
            own.sort(key=lambda one: -one.typical)
        chosen: list[Example] = []
        turn = 0
        while len(chosen) < count and any(len(own) > turn for own in by_recording.values()):
            chosen += sorted(
                (own[turn] for own in by_recording.values() if len(own) > turn), key=lambda one: -one.typical
            )
            turn += 1
        found.append(chosen[:count])
    return found


def _examples_of(
    bout: Bout,
    clusters: Sequence[int],
    model: BehaviourModel,
    windows: NDArray[np.float32],
    frames: RecordedFrames,
) -> list[Example]:
    """The most typical stretch of a bout; of a long one, several that do not overlap."""
    rows = frames.spans[bout.recording]
    part = slice(rows.start + bout.segment.first, rows.start + bout.segment.stop)
    typical = np.max([model.clusters.typicality(windows[part], one) for one in clusters], axis=0)
    time = frames.time[part]
    length = max(CLIP_SECONDS, model.space.seconds)
    pieces = max(1, int(bout.seconds / length))
    edges = np.linspace(0, len(typical), pieces + 1).astype(int)
    found = []
    for first, stop in itertools.pairwise(edges):
        best = int(first + typical[first:stop].argmax())
        inset = min(model.space.seconds / 2, bout.seconds / 6)  # windows at the edges see what is beside
        low, high = (
            (bout.start + inset, bout.end - inset)
            if pieces == 1
            else (float(time[first]), bout.end if stop == len(time) else float(time[stop]))
        )
        middle = float(time[best])
        start = min(max(low, middle - length / 2), max(low, high - length))
        found.append(Example(bout.recording, start, min(high, start + length), float(typical[best])))
    return found


def write_examples(
    folder: Path,
    table: BoutTable,
    examples: Sequence[Sequence[Example]],
    names: Sequence[str],
    workers: int | None,
) -> dict[str, str]:
    """Write examples/NAME.png (stills of each example) and examples/NAME.mp4 (all playing) of each behaviour.

    Footage that is gone is left out with a warning.

    Returns:
        the film of each behaviour by its key, where one was written.
    """
    target = folder / FOLDER
    pictures = _read([one for own in examples for one in own], table.recordings, workers)
    written: dict[str, str] = {}
    place = 0
    for number, own in enumerate(examples):
        clips = [
            (one, shown)
            for one, shown in zip(own, pictures[place : place + len(own)], strict=True)
            if shown is not None
        ]
        place += len(own)
        if not clips:
            continue
        key = table.behaviours[number].key
        stem = f"{number + 1:02d}_cluster_{key}"
        labels = [
            f"{os.path.basename(table.recordings[one.recording].name)}, {one.start:.1f} s" for one, _ in clips
        ]
        shown = [images for _, images in clips]
        _sheet(target / f"{stem}.png", names[number], shown, labels)
        _film(target / f"{stem}.mp4", shown, [one.end - one.start for one, _ in clips])
        written[key] = str(target / f"{stem}.mp4")
    return written


def _read(
    examples: Sequence[Example], recordings: Sequence[Recording], workers: int | None
) -> list[Image | None]:
    """The pictures of each example, uint8 [n, h, w, 3]; None where they cannot be had."""
    from tce.explorer.sampled_clips import ClipJob, read_clip
    from tce.video.pool import DecodePool

    found: list[Image | None] = [None] * len(examples)
    files, gone = [], set()
    for number, one in enumerate(examples):
        recording = recordings[one.recording]
        if os.path.exists(recording.path):
            files.append(number)
        elif recording.store:
            found[number] = _from_store(recording, one)
        else:
            gone.add(recording.path)
    if gone:
        log.warning("no examples of %d videos: %s is not there", len(gone), sorted(gone)[0])
    jobs = [
        ClipJob(
            recordings[examples[number].recording].path,
            examples[number].start,
            examples[number].end,
            1 / FPS,
            SIDE,
            whole=False,
        )
        for number in files
    ]
    count = workers or max(1, min(4, (os.cpu_count() or 1) // 2))
    with DecodePool(count) as pool, Progress(len(jobs), "reading examples", "clip") as progress:
        for number, (_, parts) in zip(files, pool.stream(read_clip, jobs), strict=True):
            try:
                shown = [part.pictures for part in parts if part.pictures is not None]
                found[number] = np.concatenate(shown) if shown else None
            except TceError as error:
                log.warning("no example: %s", error)
            progress.update()
    return found


def _from_store(recording: Recording, example: Example) -> Image | None:
    """Pictures out of a collection whose footage is gone."""
    from tce.data.open_data import open_store
    from tce.explorer.sampled_clips import shrink
    from tce.retrieval.sampled_video import CollectionClip

    try:
        store: Any = open_store(recording.store, None, "01")
        row = store.catalog.ids.tolist().index(recording.clip)
        clip = CollectionClip(recording.store, store.version, row)
        step = max(1, round(clip.fps / FPS))
        first, stop = (round((time - recording.offset) * clip.fps) for time in (example.start, example.end))
        rows = np.arange(first, max(first + 1, min(stop, int(store.lengths[row]))), step)
        return shrink(clip.frames(rows), SIDE)
    except (TceError, ValueError) as error:
        log.warning("no example of %s: %s", recording.name, error)
        return None


def _sheet(path: Path, name: str, clips: Sequence[Image], labels: Sequence[str]) -> None:
    """A row of stills for each example, its video and time above it, two examples side by side."""
    from tce.visualize.plots import literal
    from tce.visualize.result_plots import FAINT, INK, new_figure, save, shortened

    columns = 2 if len(clips) > 1 else 1
    rows = -(-len(clips) // columns)
    strips = [
        np.concatenate([_parted(_cell(clip[at], SIDE)) for at in _stills(len(clip))], axis=1)
        for clip in clips
    ]
    figure = new_figure(6.4 * columns, 1.55 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    for number, axes in enumerate(grid.flat):
        axes.axis("off")
        if number < len(clips):
            axes.imshow(strips[number])
            text = f"{number + 1}. {shortened(labels[number], 60)}"
            axes.set_title(literal(text), fontsize=8, color=FAINT, loc="left", pad=3)
    figure.suptitle(literal(f"{name}: most typical first"), fontsize=10, color=INK, x=0.01, ha="left")
    save(figure, path)


def _stills(count: int) -> list[int]:
    return np.linspace(0, count - 1, STILLS).round().astype(int).tolist()


def _cell(image: Image, side: int) -> Image:
    """A picture in the middle of a dark square."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)
    cell = np.full((side, side, 3), BACKGROUND, np.uint8)
    top, left = (side - small.shape[0]) // 2, (side - small.shape[1]) // 2
    cell[top : top + small.shape[0], left : left + small.shape[1]] = small
    return cell


def _parted(cell: Image) -> Image:
    """A still with a white edge, which keeps dark footage's stills apart."""
    return np.pad(cell, ((0, 0), (0, GAP), (0, 0)), constant_values=255)


def _film(path: Path, clips: Sequence[Image], seconds: Sequence[float]) -> None:
    """All examples side by side at their own speed, the shorter ones repeated, as H.264."""
    import av

    columns = min(COLUMNS, len(clips))
    rows = -(-len(clips) // columns)
    height, width = (count * (SIDE + GAP) + GAP for count in (rows, columns))
    steps = [max(1, round(one * FPS)) for one in seconds]
    with atomic(path) as file, av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=Fraction(FPS), options={"crf": "20"})
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        for step in range(max(steps)):
            picture = np.full((stream.height, stream.width, 3), 255, np.uint8)
            for number, clip in enumerate(clips):
                top, left = (GAP + place * (SIDE + GAP) for place in divmod(number, columns))
                shown = clip[(step % steps[number]) * len(clip) // steps[number]]
                picture[top : top + SIDE, left : left + SIDE] = _cell(shown, SIDE)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
