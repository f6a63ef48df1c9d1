"""The t-SNE picture or film of videos (`tce tsne`), end to end."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tce.data.find_clips import VIDEO_SUFFIXES
from tce.embedding.embed_command import counted, find_videos, gather, open_encoder, report_skipped
from tce.embedding.embedding_file import Embeddings, load_embeddings, save_embeddings
from tce.errors import OptionError, TceError
from tce.io import require_writable
from tce.options.tsne import TsneOptions
from tce.progress import Progress
from tce.visualize.film import FILMS
from tce.visualize.fitted_map import LEAST, FittedMap
from tce.visualize.map_plot import map_figure, track_numbers
from tce.visualize.plots import PICTURES, PictureResult, require_picture, save_figure
from tce.visualize.point_colours import choose_colours
from tce.visualize.table_columns import TableColumns

log = logging.getLogger("tce.visualize")

FEWEST = 3  # frames of a map
SAME_TIME = 0.01  # seconds by which a listed clip's rounded ends may miss a frame's time


@dataclass
class Frames:
    """The frames to draw.

    Attributes:
        stored: their embeddings, with video, frame and time where that is known.
        videos: the videos' names.
        weights: what embedded them, in words.
        skipped: videos that could not be read, with the reason.
    """

    stored: Embeddings
    videos: list[str]
    weights: str
    skipped: dict[str, str] = field(default_factory=dict)


def tsne(options: TsneOptions) -> PictureResult:
    """Embed videos, or take embeddings, reduce them to a map and draw it as a picture or a film.

    Raises:
        TceError: an output that cannot be written, bad input, fewer than three frames, or frames that are
            all equal.
    """
    output = require_output(options.output, options.vid)
    for given, flag in ((options.save_embeddings, "--save-embeddings"), (options.map, "--map")):
        if given is not None:
            require_writable(given, flag)
    table = None if options.table is None else TableColumns.read(options.table)
    known = None
    if options.map is not None and os.path.exists(options.map):
        known = FittedMap.load(options.map)
    found = _stored(options) if options.embeddings else _embedded(options)
    colours, tracks = None, None
    if not options.vid:  # before t-SNE, so that a wrong flag costs no time
        labels = None if options.lists is None else _listed_classes(options, found.stored)
        colours = choose_colours(found.stored, options.color_by, labels, table)
        videos = found.stored.video
        tracks = None if videos is None else track_numbers(videos.tolist())
    fitted = known if known is not None else _fit(found, options)
    points = fitted.points if known is None else known.place(found.stored.vectors, options.network.seed)
    background = None if known is None else known.points
    figures: dict[str, Any] = {
        "output": str(output),
        "frames": len(points),
        "videos": len(found.videos) or 1,
        "skipped": found.skipped,
        "weights": found.weights,
        "seed": options.network.seed,
        "theme": options.theme,
    }
    if options.map is not None:
        figures |= {"map": options.map, "placed": known is not None}
    figure = None
    if options.vid:
        from tce.visualize.map_film import write_map_film

        figures |= write_map_film(output, found.stored, points, options, background)
    else:
        assert colours is not None
        figures["colour"] = colours.name
        title = _title(found, known) if options.title is None else options.title
        figure = map_figure(points, colours, title, options.theme, background, tracks)
        save_figure(figure, output)
    if options.map is not None and known is None:
        fitted.save(options.map)
    return PictureResult(_text(figures, found, known, options), figures, str(output), figure)


def _text(figures: dict[str, Any], found: Frames, known: FittedMap | None, options: TsneOptions) -> str:
    shown = counted(found.videos) if found.videos else "one video"
    text = f"{figures['output']}: {figures['frames']} frames of {shown} ({found.weights})"
    if options.vid:
        text += f", {figures['seconds']:.1f} s at {figures['fps']:.4g} frames a second"
    else:
        text += f", coloured by {figures['colour']}"
    if known is not None:
        text += f"\nplaced on {options.map}: {len(known.points)} frames of {known.videos} videos"
        text += f" ({known.weights})"
    elif options.map is not None:
        text += f"\n{options.map}: the fitted map; --map {options.map} places other frames on it"
    return text + report_skipped(found.skipped)


def require_output(given: str, film: bool) -> Path:
    """Where the picture or film goes; a picture with a film's name becomes a .png, with a warning.

    Raises:
        OptionError: a suffix that fits neither.
        TceError: it cannot be written there.
    """
    path = Path(given)
    suffix = path.suffix.lower()
    if film and suffix not in FILMS:
        fix = "leave --vid out for a picture" if suffix in PICTURES else ""
        expected, found = f"a name ending in {', '.join(FILMS)}", suffix or "no suffix"
        raise OptionError(f"--output {given}", expected, found, fix)
    if film:
        return require_writable(path)
    if suffix in VIDEO_SUFFIXES:
        path = path.with_suffix(".png")
        log.warning("without --vid the result is a picture: written to %s", path)
    return require_picture(path)


def _embedded(options: TsneOptions) -> Frames:
    names = find_videos(options.input)
    encoder, weights = open_encoder(options.network)
    gathered = gather(names, encoder, options.network, options.every, partial=options.save_embeddings)
    if options.save_embeddings is not None:
        save_embeddings(options.save_embeddings, gathered.stored)
    return Frames(gathered.stored, gathered.videos, weights, gathered.skipped)


def _stored(options: TsneOptions) -> Frames:
    """The embeddings of all files, one after the other.

    Raises:
        TceError: one cannot be read, or they differ in size.
    """
    parts = [load_embeddings(path) for path in options.embeddings]
    sizes = [part.vectors.shape[1] for part in parts]
    if len(set(sizes)) > 1:
        other = next(row for row, size in enumerate(sizes) if size != sizes[0])
        raise TceError(
            f"--embeddings {options.embeddings[other]}",
            f"{sizes[0]} numbers a frame, as {options.embeddings[0]} has",
            str(sizes[other]),
            "embed all videos with the same network",
        )
    names = [
        np.full(len(part), Path(path).stem) if part.video is None and len(parts) > 1 else part.video
        for part, path in zip(parts, options.embeddings)
    ]
    columns: dict[str, Any] = {}
    for key, values in (
        ("video", names),
        ("frame", [part.frame for part in parts]),
        ("time", [part.time for part in parts]),
    ):
        known = [value for value in values if value is not None]
        columns[key] = np.concatenate(known) if len(known) == len(parts) else None
    stored = Embeddings(np.concatenate([part.vectors for part in parts]), **columns)
    if options.every > 1:
        first = np.arange(len(stored)) if stored.frame is None else stored.frame
        kept = first % options.every == 0
        stored = Embeddings(
            stored.vectors[kept], *(one if one is None else one[kept] for one in columns.values())
        )
    videos = list(dict.fromkeys(stored.video.tolist())) if stored.video is not None else []
    weights = ", ".join(Path(path).name for path in options.embeddings[:3])
    return Frames(stored, videos, weights + (", …" if len(parts) > 3 else ""))


def _fit(found: Frames, options: TsneOptions) -> FittedMap:
    count = len(found.stored)
    if count < FEWEST:
        few = {1: "one", 2: "two"}.get(count, str(count))
        raise TceError("t-SNE", "three frames or more", few, "give a longer video, or a smaller --every")
    if np.ptp(found.stored.vectors, axis=0).max() == 0:
        raise TceError(
            "t-SNE", "frames that differ", f"{count} equal embeddings", "give another video or --ckpt"
        )
    if options.map is not None and count < LEAST:
        raise TceError("--map", f"{LEAST} frames or more", str(count), "give a longer video")
    with Progress(options.iterations, "t-SNE", "step") as progress:
        return FittedMap.fit(
            found.stored.vectors,
            options.pca_threshold,
            weights=found.weights,
            videos=len(found.videos) or 1,
            num_iterations=options.iterations,
            seed=options.network.seed,
            perplexity=options.perplexity,
            init=options.init,
            exaggeration=options.exaggeration,
            callback=lambda done, total: progress.update(done - progress.done),
        )


def _listed_classes(options: TsneOptions, stored: Embeddings) -> list[str | None]:
    """The class of each frame by `--lists`, which may cut clips out of recordings.

    Raises:
        TceError: lists that cannot be read, or that name none of the videos.
    """
    from tce.data.read_catalog import read_catalog

    if stored.video is None:
        raise OptionError("--lists", "embeddings that name their videos", "none")
    names, owner = np.unique(stored.video.astype(str), return_inverse=True)
    places: Sequence[str] = options.input or [
        os.path.commonpath([os.path.dirname(os.path.abspath(n)) for n in names])
    ]
    clips: dict[str, list[tuple[float, float, str]]] = {}
    for place in places:
        for clip in read_catalog(os.path.abspath(place), options.lists, options.split):
            if clip.label is not None and clip.split is not None:
                span = (clip.start or 0.0, np.inf if clip.end is None else clip.end, clip.label)
                clips.setdefault(os.path.realpath(clip.path), []).append(span)
    labels = np.full(len(stored), None, object)
    time = stored.time if stored.time is not None else np.zeros(len(stored))
    for row, name in enumerate(names.tolist()):
        for start, end, label in clips.get(os.path.realpath(name), ()):
            labels[(owner == row) & (time >= start - SAME_TIME) & (time <= end + SAME_TIME)] = label
    if not any(label is not None for label in labels.tolist()):
        raise TceError(f"--lists {options.lists}", "classes of the input's videos", "none of them")
    found: list[str | None] = labels.tolist()
    return found


def _title(found: Frames, known: FittedMap | None) -> str:
    videos = found.videos
    what = Path(videos[0]).name if len(videos) == 1 else counted(videos) if videos else "one video"
    placed = "" if known is None else f" on the map of {known.videos} videos"
    return f"{len(found.stored):,} frames of {what}{placed} · {found.weights}"
