"""The command `tce index`: which videos are new, changed or gone; embed them; write their frames."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tce.data.collection import is_collection
from tce.data.encode import modified_at
from tce.embedding.embed import Embedded, decoding_pool, embed_videos
from tce.embedding.embed_command import open_encoder
from tce.errors import OptionError, TceError
from tce.io import Result
from tce.options.index import IndexOptions
from tce.progress import Progress
from tce.retrieval.centering import center_groups, centered_alone, fingerprint, group_of_clips
from tce.retrieval.frame_table import FrameRows, IndexSettings, VideoRecord, list_indexes
from tce.retrieval.index_writer import IndexWriter
from tce.retrieval.sampled_video import CollectionClip, SampledVideo
from tce.video.base import Video
from tce.video.image import encode_jpeg
from tce.video.open_video import StreamJob, estimated_length
from tce.video.pool import DecodePool

if TYPE_CHECKING:
    from tce.data.catalog import Catalog
    from tce.model.encoder import FrameEncoder

log = logging.getLogger("tce.index")

MOST_OPENED = 100  # videos whose lengths are read for the progress bar
THUMBNAIL_QUALITY = 80


def index(options: IndexOptions) -> Result:
    """Bring an index up to date with footage (`tce index`).

    Raises:
        TceError: a database that cannot be written, a network that cannot be read, no footage, options at
            odds with the index that is there, or no video that can be read.
    """
    found = find_footage(options)
    encoder, weights = open_encoder(options.network)
    settings = settings_for(encoder, options)
    footage = found(settings)
    with IndexWriter(options.db, settings) as writer:
        changes = _compare(writer, footage)
        for name in changes.gone:
            log.info("removed, it is no longer there: %s", name)
        writer.remove(changes.gone)
        writer.relabel(changes.relabelled)
        try:
            skipped = _embed(writer, encoder, options, changes.todo)
        except KeyboardInterrupt:
            writer.commit()
            done = sum(piece.record.video in writer.videos for piece in footage)
            raise KeyboardInterrupt(
                f"interrupted: {done} of {len(footage)} videos are indexed; the same command resumes"
            ) from None
        writer.commit()
        center_groups(writer)
        if not writer.videos:
            reason = next(iter(skipped.values()))
            raise TceError(f"none of {len(skipped)} videos could be read; the first: {reason}")
        kind = writer.finish()
        return _result(options, writer, changes, skipped, weights, kind)


@dataclass(frozen=True)
class Footage:
    """One video to index: what is known of it, and how its frames are had."""

    record: VideoRecord
    video: Video


@dataclass
class Changes:
    """How footage differs from an index.

    Attributes:
        todo: new and changed videos.
        new: how many of them are new.
        gone: indexed videos of the same sources that are no longer there.
        relabelled: videos whose labels or groups changed, as they are now.
        unchanged: how many stay as they are.
    """

    todo: list[Footage] = field(default_factory=list)
    new: int = 0
    gone: list[str] = field(default_factory=list)
    relabelled: list[VideoRecord] = field(default_factory=list)
    unchanged: int = 0


def settings_for(encoder: FrameEncoder, options: IndexOptions) -> IndexSettings:
    """The settings of the index of this network: those that are stored, else the options'.

    Raises:
        OptionError: an option at odds with the index that is there.
    """
    from tce.model.checkpoint import tensors_hash
    from tce.model.checkpoint_reader import start_name

    network = options.network
    layer = network.layer or encoder.default_layer
    ckpt = network.ckpt
    kept = {
        "ckpt": os.path.abspath(ckpt) if ckpt and not start_name(ckpt) and os.path.exists(ckpt) else ckpt,
        "model": network.model,
        "output_size": network.output_size,
        "image_size": network.image_size or encoder.image_size,
        "seed": network.seed,
    }
    new = IndexSettings(
        hash=tensors_hash(encoder.state_dict()),
        layer=layer,
        size=encoder.embedding_size if layer == "embedding" else encoder.feature_size,
        network=kept,
        center=network.center,
        every=None if options.fps is not None else options.every or 1,
        fps=options.fps,
    )
    stored = next((one for one in list_indexes(options.db) if one.name == new.name), None)
    if stored is None:
        return new
    wanted: list[tuple[str, Any, Any]] = [
        ("--image-size", network.image_size, stored.network.get("image_size")),
        ("--center", network.center, stored.center),
        ("--every", options.every, stored.every),
        ("--fps", options.fps, stored.fps),
    ]
    for flag, given, has in wanted:
        if given is not None and given != has:
            raise OptionError(
                flag,
                f"{has}, as the index was made" if has is not None else "none: the index was made without it",
                str(given),
                "leave it out, or name another --db",
            )
    return stored


def find_footage(options: IndexOptions) -> Any:
    """Find the footage; nothing is decoded.

    Returns:
        a function from the index's settings to the list of `Footage`.

    Raises:
        TceError: nothing there, or a video named twice.
    """
    found: list[tuple[str, Any, Catalog]] = []
    for place in options.footage:
        if is_collection(place):
            from tce.data.open_data import open_store

            store = open_store(place, options.lists, options.split)
            found.append((os.path.abspath(place), store, store.catalog))
        else:
            from tce.data.read_catalog import read_catalog

            catalog = read_catalog(os.path.abspath(place), options.lists, options.split)
            for reason in catalog.skipped:
                log.warning("left out: %s", reason)
            found.append((os.path.abspath(place), None, catalog))

    def footage(settings: IndexSettings) -> list[Footage]:
        pieces = [
            piece
            for source, store, catalog in found
            for piece in (
                _of_videos(source, catalog, settings)
                if store is None
                else _of_collection(source, store, settings)
            )
        ]
        return list({piece.record.video: piece for piece in pieces}.values())

    return footage


def _of_videos(source: str, catalog: Catalog, settings: IndexSettings) -> list[Footage]:
    groups = group_of_clips(catalog, settings.center)
    pieces = []
    for clip, group in zip(catalog, groups, strict=True):
        span = "" if clip.start is None and clip.end is None else f"#{clip.start or 0:g}-{_end(clip.end)}"
        record = VideoRecord(
            video=clip.path + span,
            path=clip.path,
            offset=0.0,  # times are those of the file, also for a piece of it
            source=source,
            key=_key(clip.path),
            label=clip.label,
            group=clip.group,
            recording=clip.source,
            center_group=group,
        )
        try:
            video = SampledVideo(clip.path, settings.every, settings.fps, clip.start, clip.end)
        except TceError as error:  # gone since it was listed
            log.warning("skipped: %s", error)
            continue
        pieces.append(Footage(record, video))
    return pieces


def _of_collection(source: str, store: Any, settings: IndexSettings) -> list[Footage]:
    groups = group_of_clips(store.catalog, settings.center)
    hashes = store.content_hashes
    pieces = []
    for row, (clip, group) in enumerate(zip(store.catalog, groups, strict=True)):
        record = VideoRecord(
            video=os.path.join(source, clip.id),
            path=clip.path,
            offset=clip.start or 0.0,
            source=source,
            key=f"{hashes[row]} {store.lengths[row]}",
            label=clip.label,
            group=clip.group,
            recording=clip.source,
            center_group=group,
        )
        video = CollectionClip(source, store.version, row, settings.every, settings.fps)
        pieces.append(Footage(record, video))
    return pieces


def _end(end: float | None) -> str:
    return "" if end is None else f"{end:g}"


def _key(path: str) -> str:
    """Changes when a file does, or a frame folder's images."""
    try:
        size = len(os.listdir(path)) if os.path.isdir(path) else os.path.getsize(path)
        return f"{size} {modified_at(path)}"
    except OSError:
        return ""


def _compare(writer: IndexWriter, footage: Sequence[Footage]) -> Changes:
    changes, there = Changes(), {piece.record.video for piece in footage}
    sources = {piece.record.source for piece in footage}
    folders = tuple(source + os.sep for source in sources)  # also what was indexed by a folder below
    for piece in footage:
        now, old = piece.record, writer.videos.get(piece.record.video)
        if old is None or old.key != now.key or not now.key:
            changes.todo.append(piece)
            changes.new += old is None
            continue
        changes.unchanged += 1
        names = (now.label, now.group, now.recording, now.source, now.center_group)
        if names[:3] != (old.label, old.group, old.recording):
            changes.relabelled.append(replace(old, label=now.label, group=now.group, recording=now.recording))
    changes.gone = sorted(
        name
        for name, old in writer.videos.items()
        if name not in there and (old.source in sources or name.startswith(folders))
    )
    return changes


def _embed(
    writer: IndexWriter, encoder: FrameEncoder, options: IndexOptions, todo: Sequence[Footage]
) -> dict[str, str]:
    """Embed videos and add them to the index; name and reason of each that cannot be read."""
    if not todo:
        return {}
    skipped: dict[str, str] = {}
    for number, outcome, pictures in _outcomes(writer.settings, encoder, options, todo):
        if isinstance(outcome, Exception):
            skipped[todo[number].record.video] = str(outcome)
            log.warning("skipped: %s", outcome)
        elif len(outcome.frame):
            writer.add(*_rows(todo[number].record, outcome, pictures, writer.settings))
    stale = [name for name in skipped if name in writer.videos]
    writer.remove(stale)  # changed, and no longer readable: what is indexed is not what is there
    return skipped


def _outcomes(
    settings: IndexSettings, encoder: FrameEncoder, options: IndexOptions, todo: Sequence[Footage]
) -> Iterator[tuple[int, Embedded | Exception, list[bytes]]]:
    """Position, embeddings or error, and small pictures of each video, in order."""
    made: dict[str, Any] = {"layer": settings.layer, "center": settings.center}
    network = replace(options.network, image_size=settings.network["image_size"], **made)
    videos = [piece.video for piece in todo]
    small = partial(thumbnail, side=options.thumbnail)
    if options.ray is not None:
        from tce.embedding.ray_embed import ray_embed_videos

        with Progress(None, "indexing", "frame") as progress:
            yield from ray_embed_videos(videos, open_encoder, network, 1, options.ray, progress, small)
        return
    pictures: dict[int, list[bytes]] = {}

    def on_frames(number: int, frames: NDArray[np.uint8]) -> None:
        pictures.setdefault(number, []).extend(map(small, frames))

    with decoding_pool(len(videos)) as pool:
        total = _estimated_frames(videos, pool)
        with Progress(total, "indexing", "frame") as progress:
            outcomes = embed_videos(
                videos,
                encoder,
                network.batch_size,
                network.image_size,
                network.device,
                network.precision,
                progress=progress,
                engine=network.engine,
                layer=settings.layer,
                frames=total,
                pool=pool,
                unit=network.center is None,
                on_frames=on_frames,
            )
            for number, outcome in outcomes:
                yield number, outcome, pictures.pop(number, [])


def _rows(
    record: VideoRecord, outcome: Embedded, pictures: list[bytes], settings: IndexSettings
) -> tuple[VideoRecord, FrameRows]:
    """A video's rows; centered by its own mean, until all of its group are there."""
    record = replace(record, frames=len(outcome.frame))
    vectors, raw = outcome.embeddings, None
    if settings.center is not None:
        raw = vectors
        vectors = centered_alone(raw)
        record = replace(record, total=raw.sum(axis=0, dtype=np.float64).tolist())
        record = replace(record, centered=fingerprint([record]))
    return record, FrameRows(outcome.frame, outcome.time, vectors, pictures, raw)


def thumbnail(frame: NDArray[np.uint8], side: int) -> bytes:
    """A frame uint8 [H, W, 3] as a small JPEG, its longer side reduced to `side` pixels."""
    import cv2

    height, width = frame.shape[:2]
    if max(height, width) > side:
        scale = side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
    return encode_jpeg(frame, THUMBNAIL_QUALITY)


def _estimated_frames(videos: Sequence[Video], pool: DecodePool) -> int | None:
    """About how many frames will be embedded, from some of the videos."""
    chosen = np.unique(np.linspace(0, len(videos) - 1, min(len(videos), MOST_OPENED)).astype(int)).tolist()
    lengths = [
        outcome
        for _, outcome in pool.map(estimated_length, [StreamJob(videos[row]) for row in chosen])
        if isinstance(outcome, int)
    ]
    return round(len(videos) * sum(lengths) / len(lengths)) if lengths else None


def _result(
    options: IndexOptions,
    writer: IndexWriter,
    changes: Changes,
    skipped: dict[str, str],
    weights: str,
    kind: str,
) -> Result:
    frames = sum(record.frames for record in writer.videos.values())
    read = len(changes.todo) - len(skipped)
    figures = {
        "db": options.db,
        "table": writer.settings.name,
        "videos": len(writer.videos),
        "frames": frames,
        "size": writer.settings.size,
        "added": max(0, changes.new - sum(name not in writer.videos for name in skipped)),
        "embedded": read,
        "removed": changes.gone,
        "unchanged": changes.unchanged,
        "relabelled": len(changes.relabelled),
        "skipped": skipped,
        "search": kind,
        "settings": dataclasses.asdict(writer.settings),
    }
    text = (
        f"{options.db}: {frames:,} frames of {len(writer.videos):,} videos, "
        f"{writer.settings.size} numbers each ({weights}); search: {kind}\n"
        f"{read:,} embedded, {changes.unchanged:,} unchanged, {len(changes.gone):,} removed"
    )
    if skipped:
        more = ", ..." if len(skipped) > 9 else ""
        text += f"\nskipped {len(skipped)}: {', '.join(list(skipped)[:9])}{more} (reasons above)"
    return Result(text, figures)
