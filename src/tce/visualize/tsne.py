"""The t-SNE picture or film of videos (`tce tsne`), end to end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tce.data.find_clips import VIDEO_SUFFIXES
from tce.embedding.embed_command import counted, find_videos, gather, open_encoder, report_skipped
from tce.embedding.embedding_file import Embeddings, load_embeddings, save_embeddings
from tce.errors import OptionError, TceError
from tce.io import Result, require_writable
from tce.options.tsne import TsneOptions
from tce.progress import Progress
from tce.video.open_video import open_isolated
from tce.visualize.film import FILMS, FRAMES_PER_SECOND, save_film
from tce.visualize.plots import PICTURES, require_picture, save_map
from tce.visualize.reduce import Floats, fit_tsne

log = logging.getLogger("tce.visualize")


def tsne(options: TsneOptions) -> Result:
    """Embed videos, or take embeddings, reduce them to a map and draw it as a picture or a film.

    Raises:
        TceError: an output that cannot be written, bad input, or too few frames for a map.
    """
    output = require_output(options.output, options.vid)
    if options.save_embeddings is not None:
        require_writable(options.save_embeddings, "--save-embeddings")
    skipped: dict[str, str] = {}
    if options.embeddings is not None:
        stored, weights = load_embeddings(options.embeddings), Path(options.embeddings).name
        videos = list(dict.fromkeys(stored.video.tolist())) if stored.video is not None else []
    else:
        names = find_videos(options.input)
        if options.vid and len(names) > 1:
            raise OptionError(
                "--vid",
                "one video",
                f"{len(names)} in {options.input[0]}",
                "leave --vid out to draw them all",
            )
        encoder, weights = open_encoder(options.network)
        gathered = gather(names, encoder, options.network, options.every, partial=options.save_embeddings)
        stored, videos, skipped = gathered.stored, gathered.videos, gathered.skipped
        if options.save_embeddings is not None:
            save_embeddings(options.save_embeddings, stored)

    points = _map(stored.vectors, options)
    figures = {
        "output": str(output),
        "frames": len(points),
        "videos": len(videos) or 1,
        "skipped": skipped,
        "weights": weights,
        "seed": options.network.seed,
    }
    if options.vid:
        save_film(output, points, _frames(videos[0], options.every, len(points)))
        figures["fps"] = FRAMES_PER_SECOND
    else:
        figures["colour"] = save_map(
            output, points, _names(stored), stored.time, _title(stored, videos, weights)
        )
    shown = counted(videos) if videos else "one video"
    text = f"{output}: {len(points)} frames of {shown} ({weights})" + report_skipped(skipped)
    return Result(text, figures)


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


def _map(embeddings: Floats, options: TsneOptions) -> NDArray[np.float64]:
    if len(embeddings) == 1:
        raise TceError("t-SNE", "two frames or more", "one", "give a longer video, or a smaller --every")
    with Progress(options.iterations, "t-SNE", "step") as progress:
        return np.asarray(
            fit_tsne(
                embeddings,
                pca_threshold=options.pca_threshold,
                num_iterations=options.iterations,
                seed=options.network.seed,
                perplexity=options.perplexity,
                callback=lambda done, total: progress.update(done - progress.done),
            )
        )


def _names(stored: Embeddings) -> list[str] | None:
    return stored.video.tolist() if stored.video is not None else None


def _title(stored: Embeddings, videos: list[str], weights: str) -> str:
    what = Path(videos[0]).name if len(videos) == 1 else counted(videos) if videos else "one video"
    return f"{len(stored.vectors)} frames of {what} · {weights}"


def _frames(name: str, every: int, count: int) -> Iterator[NDArray[np.uint8]]:
    """The video's frames one by one, decoded ahead of whoever draws them."""
    with open_isolated(name) as video, Progress(count, "film", "frame") as progress:
        for _, frames in video.stream(batch=32, step=every):
            for frame in frames:
                yield frame
                progress.update()
