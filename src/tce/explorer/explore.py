"""The command `tce explore`: frames, their map and their pictures into one page."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from tce.embedding.embed_command import counted, report_skipped
from tce.errors import OptionError, TceError
from tce.explorer.colour_columns import frame_columns
from tce.explorer.map_layout import cluster, lay_out, nearest_frames, reduce
from tce.explorer.page import PageColumn, PageMap, PageVideo, build_page, category, sprite_sheets
from tce.explorer.sampled_clips import (
    TIME_TOLERANCE,
    ClipJob,
    SampledClip,
    Sampler,
    choose_clips,
    choose_interval,
    clip_seconds,
    clips_of,
)
from tce.io import atomic, require_writable
from tce.options.explore import DEFAULT_FRAMES, ExploreOptions
from tce.progress import Progress
from tce.video.pool import DecodePool
from tce.visualize.plots import PictureResult
from tce.visualize.table_columns import TableColumns

if TYPE_CHECKING:
    from tce.embedding.embedding_file import Embeddings
    from tce.explorer.frame_embedder import FrameEmbedder

log = logging.getLogger("tce.explore")

EMBEDDING_SUFFIXES = (".npz", ".parquet", ".npy", ".pkl", ".pickle")
SIDES = ((10_000, 64), (30_000, 48))  # up to so many frames, pictures of this side
SMALLEST_SIDE = 32
MOST_COLOURS = 20
UNPLAYABLE = (".avi", ".flv", ".wmv", ".mpg", ".mpeg", ".vob", ".rm", ".rmvb", ".mxf", ".dv", ".y4m", ".nut")


@dataclass
class Explored:
    """The frames of a page.

    Attributes:
        clips: in order, each with its frames.
        vectors: of each network [N, D].
        names: of the networks.
        skipped: name and reason of each clip left out.
        side: longer side of the pictures.
    """

    clips: list[SampledClip]
    vectors: list[NDArray[np.floating[Any]]]
    names: list[str]
    skipped: dict[str, str] = field(default_factory=dict)
    side: int = 0


def explore(options: ExploreOptions) -> PictureResult:
    """Write a page that shows the frames of videos on a map and plays them (`tce explore`).

    Raises:
        TceError: an output that cannot be written, no frame that can be decoded, fewer than three frames,
            frames that are all equal, or embeddings that do not match their footage.
    """
    output = require_writable(options.output)
    if options.parquet is not None:
        require_writable(options.parquet, "--parquet")
    table = TableColumns.read(options.table) if options.table is not None else None
    stored = os.path.isfile(options.footage) and options.footage.lower().endswith(EMBEDDING_SUFFIXES)
    found = _from_embeddings(options) if stored else _from_footage(options)
    reduced = [reduce(vectors) for vectors in found.vectors]
    counts = [len(clip.frame) for clip in found.clips]
    owner = np.repeat(np.arange(len(counts)), counts)
    maps = [_map(rows, owner, name, options) for rows, name in zip(reduced, found.names)]
    columns = frame_columns(found.clips, owner, table)
    time = np.concatenate([clip.time for clip in found.clips])
    columns.append(PageColumn("time", "number", _since_start(found.clips)))
    if table is None or "cluster" not in table.names:
        groups = cluster(reduced[0], options.clusters, options.seed)
        columns.append(_in_order(category("cluster", [f"cluster {one + 1}" for one in groups.tolist()])))
    if columns[0].name == "video" and len(found.clips) > MOST_COLOURS:  # too many to tell apart
        columns.insert(0, columns.pop())
    elif len(found.clips) == 1:
        columns.sort(key=lambda column: column.name != "time")
    sheets = sprite_sheets([clip.pictures for clip in found.clips], counts, found.side)
    copies = _copies(found.clips, options) if options.embed_video else {}
    title = options.title or Path(os.path.abspath(options.footage)).name
    shown = counted([clip.name for clip in found.clips])
    frames = np.concatenate([clip.frame for clip in found.clips])
    text = build_page(
        title,
        maps,
        [_page_video(clip, output, copies.get(clip.name)) for clip in found.clips],
        frames,
        time,
        columns,
        sheets,
        found.side,
        f"{len(owner):,} frames of {shown} · {' and '.join(found.names)}",
    )
    with atomic(output, "w") as file:
        file.write(text)
    if options.parquet is not None:
        from tce.explorer.point_table import write_points

        write_points(options.parquet, found.clips, maps[0], columns, reduced[0])
    return _result(options, found, len(owner))


def _result(options: ExploreOptions, found: Explored, frames: int) -> PictureResult:
    size = os.path.getsize(options.output)
    text = (
        f"{options.output}: {frames:,} frames of {counted([clip.name for clip in found.clips])}"
        f" ({' and '.join(found.names)}), {size / 1e6:.1f} MB; open it in a browser"
    )
    figures = {
        "output": options.output,
        "frames": frames,
        "videos": len(found.clips),
        "networks": found.names,
        "skipped": found.skipped,
        "bytes": size,
        "pictures": found.side,
    }
    if options.parquet is not None:
        text += f"\n{options.parquet}: the same frames as a table"
        figures["parquet"] = options.parquet
    return PictureResult(text + report_skipped(found.skipped), figures, options.output)


def _from_footage(options: ExploreOptions) -> Explored:
    """Sample, decode and embed the frames of videos or of a collection.

    Raises:
        TceError: none can be read.
    """
    from tce.data.collection import is_collection
    from tce.data.open_data import find_data

    data = find_data(options.footage, options.lists, options.split)
    catalog, most = data.catalog, options.max_frames or DEFAULT_FRAMES
    # Frame folders are read as videos are, in child processes.
    store = data.store if is_collection(options.footage) else None
    rows = choose_clips(len(catalog), most)
    if len(rows) < len(catalog):
        log.warning(
            "%d of %d clips, one frame each: raise --max-frames to show more", len(rows), len(catalog)
        )
        catalog = catalog.select(rows)
        store = store.select(rows) if store is not None else None
    clips = clips_of(catalog, by_id=store is not None)
    with DecodePool(options.workers or max(1, min(4, (os.cpu_count() or 1) // 2))) as pool:
        # A path that is gone by now is reported by its decoder.
        jobs = [ClipJob(str(path), clip.start, clip.end) for path, clip in zip(catalog.paths, clips)]
        if store is not None:
            seconds = (store.lengths / store.fps).tolist()
        else:
            seconds = [out if isinstance(out, float) else 0.0 for _, out in pool.map(clip_seconds, jobs)]
        interval = choose_interval(seconds, options.fps, most)
        expected = max(len(clips), round(sum(seconds) / interval))
        side = _side(options, expected)
        embedders, names = _open_networks(options, expected)

        def embed(frames: NDArray[np.uint8]) -> None:
            for one in embedders:
                one.add(frames)

        def drop(count: int) -> None:
            for one in embedders:
                one.drop(count)

        with Progress(expected, "embedding", "frame") as progress:
            sampler = Sampler(side, embed, drop, progress.update)
            if store is not None:
                sampler.read_store(clips, store, interval)
            else:
                jobs = [ClipJob(job.path, job.start, job.end, interval, side) for job in jobs]
                sampler.read_files(clips, jobs, pool)
        vectors = [one.vectors() for one in embedders]
    _require_some(sampler, options.footage)
    return Explored(sampler.clips, list(vectors), names, sampler.skipped, side)


def _require_some(sampler: Sampler, footage: str) -> None:
    for reason in sampler.skipped.values():
        log.warning("skipped: %s", reason)
    if not sampler.clips:
        reason = next(iter(sampler.skipped.values()))
        raise TceError(footage, "frames that can be decoded", f"none; the first reason: {reason}")


def _side(options: ExploreOptions, frames: int) -> int:
    if options.thumbnail is not None:
        return options.thumbnail
    return next((side for most, side in SIDES if frames <= most), SMALLEST_SIDE)


def _open_networks(options: ExploreOptions, frames: int) -> tuple[list[FrameEmbedder], list[str]]:
    from tce.embedding.embed_command import open_encoder
    from tce.explorer.frame_embedder import FrameEmbedder
    from tce.options.network import NetworkOptions

    embedders, names = [], []
    for ckpt in (options.ckpt, options.compare):
        if ckpt is None:
            continue
        encoder, name = open_encoder(NetworkOptions(ckpt=ckpt, image_size=options.image_size))
        embedders.append(
            FrameEmbedder(
                encoder,
                options.image_size,
                options.batch_size,
                options.device,
                options.precision,
                options.engine,
                frames,
            )
        )
        names.append(name)
    return embedders, names


def _from_embeddings(options: ExploreOptions) -> Explored:
    """Frames with vectors that were embedded before; their pictures come from the footage, if it is there.

    Raises:
        TceError: embeddings that cannot be read, or that do not match their footage or one another.
    """
    from tce.embedding.embedding_file import load_embeddings

    found = [load_embeddings(options.footage)]
    names = [Path(options.footage).stem]
    if options.compare is not None:
        if not options.compare.lower().endswith(EMBEDDING_SUFFIXES):
            raise OptionError("--compare", "embeddings of the same frames, as FOOTAGE is", options.compare)
        found.append(load_embeddings(options.compare))
        names.append(Path(options.compare).stem)
        _require_same_frames(found[0], found[1], options)
    first = found[0]
    rows = choose_clips(len(first), options.max_frames or len(first))
    video = np.full(len(first), "video", object) if first.video is None else first.video.astype(object)
    frame = first.frame if first.frame is not None else np.arange(len(first))
    time = first.time if first.time is not None else frame.astype(np.float64)
    video, frame, time = video[rows], frame[rows], time[rows]
    order = _by_video(video)
    clips = _embedded_clips(video[order], frame[order], time[order], options.footage)
    side = _side(options, len(order))
    skipped = _read_pictures(clips, side, options) if side else {}
    shown = side if any(clip.pictures is not None for clip in clips) else 0
    return Explored(clips, [one.vectors[rows][order] for one in found], names, skipped, shown)


def _by_video(video: NDArray[np.object_]) -> NDArray[np.int64]:
    """The order in which a video's frames follow one another, videos as they first appear."""
    number = {name: place for place, name in enumerate(dict.fromkeys(video.tolist()))}
    return np.argsort([number[name] for name in video.tolist()], kind="stable")


def _require_same_frames(first: Embeddings, second: Embeddings, options: ExploreOptions) -> None:
    same = len(first) == len(second) and all(
        one is None or two is None or bool(np.array_equal(one, two))
        for one, two in ((first.video, second.video), (first.frame, second.frame))
    )
    if not same:
        raise TceError(
            f"--compare {options.compare}",
            f"the same frames as {options.footage}, {len(first)}",
            f"others, {len(second)}",
            "embed the same videos with the same --every",
        )


def _embedded_clips(
    video: NDArray[np.object_], frame: NDArray[np.int64], time: NDArray[np.float64], file: str
) -> list[SampledClip]:
    from tce.data.catalog import Catalog
    from tce.data.find_clips import label_folders

    names = list(dict.fromkeys(video.tolist()))
    labels, _ = label_folders([os.path.normpath(str(name)) for name in names])
    stems = [str(name) if os.path.isdir(name) else os.path.splitext(str(name))[0] for name in names]
    groups = Catalog(stems if len(set(stems)) == len(stems) else names, names).groups.tolist()
    beside = os.path.dirname(os.path.abspath(file))
    shared = _shared_folder([str(name) for name in names])
    clips = []
    for name, stem, label, group in zip(names, stems, labels, groups):
        rows = np.flatnonzero(video == name)
        places = (str(name), os.path.join(beside, str(name)))
        place = next((path for path in places if os.path.exists(path)), None)
        known = {"class": label, "group": group if group != stem else None}
        columns = {key: value for key, value in known.items() if value is not None and value != name}
        clip = SampledClip(str(name)[shared:], str(name), place, columns=columns)
        clip.frame, clip.time = frame[rows].astype(np.int64), time[rows].astype(np.float64)
        clips.append(clip)
    return clips


def _shared_folder(names: Sequence[str]) -> int:
    """Length of the folders that all names begin with: they say nothing on the page."""
    folders = [name.split("/")[:-1] for name in names]
    depth = 0
    while all(len(one) > depth and one[depth] == folders[0][depth] for one in folders):
        depth += 1
    return sum(len(part) + 1 for part in folders[0][:depth])


def _read_pictures(clips: Sequence[SampledClip], side: int, options: ExploreOptions) -> dict[str, str]:
    """Add the frames' pictures to clips whose footage is there.

    Raises:
        TceError: the footage has no such frames, or shows them at other times.
    """
    there = [clip for clip in clips if clip.file is not None]
    if len(there) < len(clips):
        gone = next(clip.name for clip in clips if clip.file is None)
        log.warning(
            "no pictures of %d of %d videos: %s is not there", len(clips) - len(there), len(clips), gone
        )
    jobs = [
        ClipJob(str(clip.file), side=side, frames=tuple(clip.frame.tolist()), whole=False) for clip in there
    ]
    total = sum(len(clip.frame) for clip in there)
    workers = options.workers or max(1, min(4, os.cpu_count() or 1))
    with DecodePool(workers) as pool, Progress(total, "reading pictures", "frame") as progress:
        sampler = Sampler(side, None, advance=progress.update)
        shown = [SampledClip(clip.name, clip.path, clip.file) for clip in there]
        sampler.read_files(shown, jobs, pool)
    if sampler.skipped:
        reason = next(iter(sampler.skipped.values()))
        raise TceError(
            options.footage, "embeddings of the frames of their videos", reason, "embed the videos again"
        )
    for clip, read in zip(there, shown):
        off = np.abs(read.time - clip.time).max()
        if off > TIME_TOLERANCE and not _counts_frames(clip):
            raise TceError(
                options.footage,
                f"the times of the frames of {clip.file}",
                f"times that differ by {off:.2f} s",
                "embed the videos again",
            )
        clip.time, clip.pictures = read.time, read.pictures
    return {}


def _counts_frames(clip: SampledClip) -> bool:
    """Whether the embeddings had no times, so that frame numbers stand in their place."""
    return bool(np.array_equal(clip.time, clip.frame.astype(np.float64)))


def _map(
    reduced: NDArray[np.float32], owner: NDArray[np.int64], name: str, options: ExploreOptions
) -> PageMap:
    with Progress(500, f"map of {name}", "step") as progress:
        advance: Callable[[int, int], None] = lambda done, total: progress.update(done - progress.done)  # noqa: E731
        points = lay_out(reduced, options.seed, options.perplexity, advance)
    return PageMap(name, points, nearest_frames(reduced, owner, options.neighbours, options.seed))


def _since_start(clips: Sequence[SampledClip]) -> NDArray[np.float64]:
    return np.concatenate([clip.time - (clip.start or 0.0) for clip in clips])


def _in_order(column: PageColumn) -> PageColumn:
    """A column whose names end in numbers, in the numbers' order."""
    rank = np.argsort([int(name.rpartition(" ")[2]) for name in column.names], kind="stable")
    place = np.empty(len(rank), np.int32)
    place[rank] = np.arange(len(rank))
    return PageColumn(column.name, column.kind, place[column.values], [column.names[row] for row in rank])


def _copies(clips: Sequence[SampledClip], options: ExploreOptions) -> dict[str, tuple[bytes, float]]:
    """Small films of the clips, by name; those that cannot be made are named in the log."""
    from tce.explorer.small_copy import CopyJob, small_copy

    there = [clip for clip in clips if clip.file is not None]
    jobs = [CopyJob(str(clip.file), clip.start, clip.end) for clip in there]
    made: dict[str, tuple[bytes, float]] = {}
    with (
        DecodePool(options.workers or max(1, min(4, os.cpu_count() or 1))) as pool,
        Progress(len(jobs), "copying videos", "video") as progress,
    ):
        for clip, (_, outcome) in zip(there, pool.map(small_copy, jobs)):
            progress.update()
            if isinstance(outcome, Exception):
                log.warning("not in the page: %s", outcome)
            else:
                made[clip.name] = outcome
    return made


def _page_video(clip: SampledClip, page: Path, copy: tuple[bytes, float] | None) -> PageVideo:
    size = None if clip.pictures is None else (clip.pictures.shape[2], clip.pictures.shape[1])
    video = PageVideo(clip.name, clip.path, len(clip.frame), size, None, clip.start, clip.end)
    if copy is not None:
        video.embedded, video.offset = copy
    elif clip.file is not None and os.path.isfile(clip.file):
        video.source = relative_address(clip.file, page)
    return video


def relative_address(file: str, page: Path) -> str | None:
    """A video's address relative to the page; None for formats that no browser plays, and other drives."""
    if file.lower().endswith(UNPLAYABLE):
        return None
    try:
        path = os.path.relpath(os.path.realpath(file), os.path.realpath(page.parent))
    except ValueError:  # another drive
        return None
    return quote(path.replace(os.sep, "/").encode("utf-8", "surrogateescape"), safe="/")
