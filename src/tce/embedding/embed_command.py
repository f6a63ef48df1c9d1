"""The command `tce embed`: find the videos, open the network, embed, skip what is bad, write the file."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tce.data.catalog import Catalog
from tce.data.splits import group_names, subtract_group_means
from tce.embedding.embed import Embedded, decoding_pool, embed_videos
from tce.embedding.embedding_file import Embeddings, save_embeddings
from tce.errors import OptionError, TceError
from tce.io import Result, require_writable
from tce.options.embed import EmbedOptions
from tce.options.network import RANDOM, RANDOM_MODEL, NetworkOptions
from tce.progress import Progress
from tce.video.open_video import StreamJob, estimated_length, open_video
from tce.video.pool import DecodePool

if TYPE_CHECKING:
    from tce.model.encoder import FrameEncoder

log = logging.getLogger("tce.embed")


def embed_inputs(options: EmbedOptions) -> Result:
    """Embed videos and write embeddings with video, frame and time (`tce embed`).

    Raises:
        TceError: an output that cannot be written, a network that cannot be read, no good video.
    """
    require_writable(options.output)
    names = find_videos(options.input)
    encoder, weights = open_encoder(options.network)
    gathered = gather(names, encoder, options.network, options.every, options.output, options.ray)
    save_embeddings(options.output, gathered.stored)
    count, size = gathered.stored.vectors.shape
    text = (
        f"{options.output}: {count} embeddings of {size} numbers from {counted(gathered.videos)} ({weights})"
    )
    return Result(
        text + report_skipped(gathered.skipped),
        {
            "output": options.output,
            "frames": count,
            "size": size,
            "videos": len(gathered.videos),
            "skipped": gathered.skipped,
            "weights": weights,
            "network": dataclasses.asdict(options.network),
            "every": options.every,
        },
    )


def find_videos(inputs: Sequence[str]) -> list[str]:
    """The videos named by `--input`: files and frame folders themselves, and those in other folders.

    Raises:
        TceError: a path with nothing there, or a folder without footage.
    """
    from tce.data.find_clips import find_clips

    found: list[str] = []
    for given in inputs:
        if os.path.isdir(given):
            videos = find_clips(given)
            here = os.path.abspath(given)
            paths = [os.path.join(videos.root, path) for path in videos.paths]
            # A frame folder keeps the name it was given by.
            found += [given if os.path.abspath(path) == here else path for path in paths]
            for reason in videos.skipped:
                log.warning("left out: %s", reason)
        else:
            if not os.path.lexists(given):  # a wrong name is reported before any work
                open_video(given)
            found.append(given)
    return list(dict.fromkeys(found))


def open_encoder(options: NetworkOptions) -> tuple[FrameEncoder, str]:
    """The network of the options, and a few words on where its weights come from.

    Raises:
        TceError: a checkpoint or model that cannot be read or does not fit the other options.
    """
    from tce.model.checkpoint import load_encoder
    from tce.model.encoder import build_encoder

    model = options.model
    if options.ckpt is not None and options.ckpt != RANDOM:
        encoder = load_encoder(options.ckpt, model)
        size = encoder.embedding_size
        if options.output_size not in (None, size):
            raise OptionError("--output-size", f"{size}, which {options.ckpt} has", str(options.output_size))
        place = Path(options.ckpt).absolute()
        # Every run's network has the same file name; the run's name is used instead.
        name = place.parent.name if place.name == "model.safetensors" else place.name
        if options.ckpt == encoder.config.architecture:
            name = "ImageNet weights"
        return encoder, f"{encoder.config.architecture}, {name}"
    if model is not None and ":" in model:  # such networks bring their own weights
        encoder = build_encoder(model, head="none", image_size=options.image_size, seed=options.seed)
        return encoder, model
    # A random head would only lose what random features still hold.
    size, head = options.output_size or 1, "none" if options.output_size is None else "linear"
    encoder = build_encoder(model or RANDOM_MODEL, size, head, seed=options.seed)
    name = encoder.config.architecture
    if options.ckpt is None:
        log.warning("no --ckpt: %s has random weights (seed %d)", name, options.seed)
    return encoder.eval(), f"{name}, random weights"


@dataclass
class Gathered:
    """What `gather` found.

    Attributes:
        stored: embeddings of all good videos, in order.
        videos: their names.
        skipped: name and reason of each bad one.
        seconds: that it took.
    """

    stored: Embeddings
    videos: list[str]
    skipped: dict[str, str]


def gather(
    names: Sequence[str],
    encoder: FrameEncoder,
    network: NetworkOptions,
    every: int,
    partial: str | None = None,
    ray: str | None = None,
) -> Gathered:
    """Embed the named videos; bad ones among several are skipped and named in the log.

    Args:
        names: paths of videos.
        encoder: the network.
        network: how it runs.
        every: take every n-th frame.
        partial: file that gets the finished videos' embeddings when the work is interrupted.
        ray: address of a Ray cluster that does the work; None: this process.

    Raises:
        TceError: the only video is bad, or all are.
        KeyboardInterrupt: interrupted; its text names what was kept.
    """
    found: list[Embedded] = []
    owners: list[str] = []
    skipped: dict[str, str] = {}
    error: Exception | None = None
    try:
        for number, outcome in _outcomes(names, encoder, network, every, ray):
            if isinstance(outcome, Exception):
                error = outcome
                skipped[names[number]] = str(outcome)
            else:
                found.append(outcome)
                owners.append(names[number])
    except KeyboardInterrupt:
        if found and partial is not None:
            save_embeddings(partial, _joined(found, owners))
            kept = f"{partial} holds {len(found)} of {len(names)} videos"
            raise KeyboardInterrupt(f"interrupted: {kept}") from None
        raise
    if error is not None and not found:
        if len(names) == 1:
            raise error
        reason = next(iter(skipped.values()))
        raise TceError(f"none of {len(names)} videos could be read; the first: {reason}")
    for reason in skipped.values():
        log.warning("skipped: %s", reason)
    stored = _joined(found, owners)
    if network.center is not None:
        stored.vectors = _centred(stored.vectors, owners, [len(one.frame) for one in found], network.center)
    return Gathered(stored, owners, skipped)


def _outcomes(
    names: Sequence[str], encoder: FrameEncoder, network: NetworkOptions, every: int, ray: str | None
) -> Iterator[tuple[int, Embedded | Exception]]:
    """Position and embeddings, or error, of each video, in order."""
    if ray is not None:
        from tce.embedding.ray_embed import ray_embed_videos

        with Progress(None, "embedding", "frame") as progress:
            for number, outcome, _ in ray_embed_videos(names, open_encoder, network, every, ray, progress):
                yield number, outcome
        return
    with decoding_pool(len(names)) as pool:
        total = -(-_length(names[0], pool) // every) if len(names) == 1 else None
        with Progress(total, "embedding", "frame") as progress:
            yield from embed_videos(
                names,
                encoder,
                network.batch_size,
                network.image_size,
                network.device,
                network.precision,
                every,
                progress,
                network.engine,
                network.layer or "embedding",
                total,
                pool,
                unit=network.center is None,
            )


def _centred(
    vectors: NDArray[np.floating[Any]], owners: Sequence[str], counts: Sequence[int], by: str
) -> NDArray[np.float32]:
    """Frames' vectors [N, D] less their group's mean, of length 1."""
    names = list(map(str, owners))
    groups = group_names(Catalog(names, names), by, "--center", several=by != "recording")
    centred = subtract_group_means(vectors, np.repeat(np.array(groups), counts).tolist())
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return (centred / np.maximum(lengths, 1e-12)).astype(np.float32)


def _length(name: str, pool: DecodePool) -> int:
    """Number of frames for the progress bar; 0 where that fails, since decoding reports the reason."""
    ((_, outcome),) = pool.map(estimated_length, [StreamJob(name)])
    return outcome if isinstance(outcome, int) else 0


def _joined(found: Sequence[Embedded], owners: Sequence[str]) -> Embeddings:
    counts = [len(one.frame) for one in found]
    return Embeddings(
        np.concatenate([one.embeddings for one in found]),
        np.repeat(np.array(owners), counts),
        np.concatenate([one.frame for one in found]),
        np.concatenate([one.time for one in found]),
    )


def counted(videos: Sequence[str]) -> str:
    """`1 video` or `3 videos`."""
    return f"{len(videos)} video" + ("s" if len(videos) != 1 else "")


def report_skipped(skipped: dict[str, str]) -> str:
    """A line that counts and names the skipped videos; nothing where there are none."""
    if not skipped:
        return ""
    return f"\nskipped {counted(list(skipped))}: {', '.join(skipped)} (reasons above)"
