"""Bulk embeddings: child processes decode the videos while the network works in this one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tce.embedding.embedding_file import Embeddings
from tce.errors import OptionError, TceError
from tce.progress import Progress
from tce.video.base import Video
from tce.video.open_video import FrameChunk, StreamJob, open_video, stream_chunks
from tce.video.pool import DecodePool

if TYPE_CHECKING:
    from torch import Tensor

    from tce.model.encoder import FrameEncoder
    from tce.model.engine import FeatureEngine

MAX_WORKERS = 4  # decoding processes; each holds up to six chunks of `isolated.CHUNK_BYTES`
MAX_THREADS = 8  # of one decoding process
LAYERS = ("features", "embedding")

Frames = NDArray[np.uint8]  # [n, H, W, 3] RGB


@dataclass
class Embedded:
    """One video's embeddings.

    Attributes:
        embeddings: float32 [N, D].
        frame: int64 [N], frame numbers.
        time: float64 [N], seconds since the first frame.
    """

    embeddings: NDArray[np.float32]
    frame: NDArray[np.int64]
    time: NDArray[np.float64]


def embed(
    source: str | os.PathLike[str] | Video | Frames,
    encoder: FrameEncoder,
    batch_size: int = 64,
    image_size: int | None = None,
    device: str = "auto",
    precision: str = "float32",
    every: int = 1,
    engine: str = "torch",
    layer: str = "embedding",
) -> NDArray[np.float32]:
    """Embeddings of a video's frames, in order, in memory that does not grow with its pixels.

    Args:
        source: video file, folder of images, opened video, or frames uint8 [N, H, W, 3], RGB.
        encoder: see `tce.load_encoder`; it is moved to `device`.
        batch_size: frames a forward pass.
        image_size: side of the network's input in pixels; None: the encoder's own.
        device: "auto", "cpu", "cuda" or "cuda:1".
        precision: "float32", "bf16", or "auto": the faster one on this device.
        every: take every n-th frame.
        engine: "torch", "onnxruntime", or "auto": the faster one, see `tce.model.engine.pick_engine`.
        layer: "embedding", or "features": the backbone's, before the head.

    Returns:
        float32 [N, D], a unit vector a frame.

    Raises:
        VideoError: the footage is missing, unreadable or truncated.
        TceError: frames of another shape or type, or an option out of range.
    """
    if isinstance(source, str | os.PathLike):
        source = open_video(source)
    elif not isinstance(source, Video):
        source = _require_frames(np.asarray(source))
    ((_, outcome),) = embed_videos(
        [source], encoder, batch_size, image_size, device, precision, every, engine=engine, layer=layer
    )
    if isinstance(outcome, Exception):
        raise outcome
    return outcome.embeddings


def embed_sources(
    sources: str | os.PathLike[str] | Video | Frames | Sequence[Any], encoder: FrameEncoder, **settings: Any
) -> Embeddings:
    """Embeddings of one or several videos, with video, frame and time; `encoder.embed` calls it.

    Args:
        sources: one of what `embed` takes, or a list of them.
        encoder: see `tce.load_encoder`.
        settings: as for `embed_videos`.

    Raises:
        VideoError: a video is missing, unreadable or truncated.
        TceError: an option out of range.
    """
    several = list(sources) if isinstance(sources, list | tuple) else [sources]
    names: list[str] = []
    videos: list[str | Video | Frames] = []
    for number, source in enumerate(several):
        if isinstance(source, str | os.PathLike):
            videos.append(os.fspath(source))
            names.append(os.fspath(source))
            continue
        videos.append(source if isinstance(source, Video) else _require_frames(np.asarray(source)))
        names.append(str(getattr(source, "path", f"video {number + 1}")))
    found: list[Embedded] = []
    for _, outcome in embed_videos(videos, encoder, **settings):
        if isinstance(outcome, Exception):
            raise outcome
        found.append(outcome)
    owners = np.repeat(np.array(names, str), [len(one.frame) for one in found])
    return Embeddings(
        np.concatenate([one.embeddings for one in found]),
        owners,
        np.concatenate([one.frame for one in found]),
        np.concatenate([one.time for one in found]),
    )


def embed_videos(
    videos: Sequence[str | Video | Frames],
    encoder: FrameEncoder,
    batch_size: int = 64,
    image_size: int | None = None,
    device: str = "auto",
    precision: str = "float32",
    every: int = 1,
    progress: Progress | None = None,
    engine: str = "torch",
    layer: str = "embedding",
    frames: int | None = None,
    pool: DecodePool | None = None,
    unit: bool = True,
    on_frames: Callable[[int, Frames], None] | None = None,
) -> Iterator[tuple[int, Embedded | Exception]]:
    """Embed videos one after the other; a batch may hold frames of several, so short ones cost no more.

    Args:
        videos: paths, opened videos, or frames uint8 [N, H, W, 3] in memory.
        encoder: see `tce.load_encoder`; it is moved to `device`.
        batch_size: frames a forward pass.
        image_size: side of the network's input in pixels; None: the encoder's own.
        device: "auto", "cpu", "cuda" or "cuda:1".
        precision: "float32", "bf16", or "auto": the faster one on this device.
        every: take every n-th frame.
        progress: counts frames.
        engine: as for `embed`.
        layer: as for `embed`.
        frames: how many frames will come, where known: with "auto", a few hundred are not worth a choice.
        pool: processes that decode; None: new ones for this call, as many as the processor serves.
        unit: vectors of length 1; False leaves their length, so that means can be subtracted.
        on_frames: called with a video's position and some of its frames uint8 [n, H, W, 3], in order, before
            they are embedded: for small pictures of them.

    Yields:
        position in `videos` and its embeddings, or the error of that video; in order.
    """
    import torch

    from tce.device import choose_precision, pick_device
    from tce.model.engine import pick_engine

    for name, value in (("batch_size", batch_size), ("every", every)):
        if value < 1:
            raise OptionError(name, "1 or more", str(value))
    own = pool is None
    pool = pool or decoding_pool(len(videos))
    place = pick_device(device)
    precision = choose_precision(precision, place)
    training = encoder.training
    encoder.to(place).eval()
    forward = _forward(encoder, pick_engine(encoder, engine, image_size, precision, frames), layer, unit)
    waiting = _Waiting()
    try:
        for part in _decode(videos, every, batch_size, pool):
            if part.frames is not None:
                if on_frames is not None:
                    on_frames(part.video, part.frames)
                with torch.inference_mode():
                    waiting.add(part, encoder.preprocess(part.frames, image_size))
            else:
                waiting.ended.append(part)
            if waiting.count >= batch_size:
                count = waiting.embed(forward)
                if progress is not None:
                    progress.update(count)
                yield from waiting.finished()
        count = waiting.embed(forward)
        if progress is not None:
            progress.update(count)
        yield from waiting.finished()
    finally:
        encoder.train(training)
        if own:
            pool.close()


def decoding_pool(videos: int) -> DecodePool:
    """Processes that decode this number of videos, while this process computes."""
    return DecodePool(max(1, min(videos, (os.cpu_count() or 1) // 2, MAX_WORKERS)))


def _forward(
    encoder: FrameEncoder, engine: FeatureEngine, layer: str, unit: bool
) -> Callable[[Tensor], Tensor]:
    """From normalised images [B, 3, h, w] to the vectors [B, D] of a layer."""
    import torch
    from torch.nn import functional

    if layer not in LAYERS:
        raise OptionError("--layer", expected=" or ".join(LAYERS), found=repr(layer))

    @torch.inference_mode()
    def forward(images: Tensor) -> Tensor:
        vectors = engine(images)
        if layer == "embedding":
            vectors = encoder.head(vectors).float()
        return functional.normalize(vectors, dim=1) if unit else vectors

    return forward


@dataclass
class _Part:
    """Some frames of a video, or its end: times, or an error."""

    video: int
    index: NDArray[np.int64] | None = None  # [n]
    frames: Frames | None = None
    time: NDArray[np.float64] | None = None  # [N], at the end
    error: Exception | None = None


@dataclass
class _Waiting:
    """Frames that wait for a full batch, and videos that wait for their last vectors."""

    owners: list[int] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)  # [n, 3, h, w] each
    vectors: dict[int, list[Tensor]] = field(default_factory=dict)  # video -> [n, D] each
    index: dict[int, list[NDArray[np.int64]]] = field(default_factory=dict)
    ended: list[_Part] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(map(len, self.images))

    def add(self, part: _Part, images: Tensor) -> None:
        assert part.index is not None
        self.owners.append(part.video)
        self.images.append(images)
        self.index.setdefault(part.video, []).append(part.index)

    def embed(self, forward: Callable[[Tensor], Tensor]) -> int:
        """Run the network on what waits; how many frames that were."""
        import torch

        if not self.images:
            return 0
        counts = [len(images) for images in self.images]
        batch = self.images[0] if len(counts) == 1 else torch.cat(self.images)
        for owner, vectors in zip(self.owners, forward(batch).split(counts)):
            self.vectors.setdefault(owner, []).append(vectors)
        self.owners, self.images = [], []
        return sum(counts)

    def finished(self) -> Iterator[tuple[int, Embedded | Exception]]:
        """The videos whose end was seen; all their frames have been embedded by now."""
        import torch

        for end in self.ended:
            vectors, index = self.vectors.pop(end.video, None), self.index.pop(end.video, None)
            if end.error is not None:
                yield end.video, end.error
                continue
            assert vectors is not None and index is not None and end.time is not None
            found = torch.cat(vectors).float().cpu().numpy()
            yield end.video, Embedded(found, np.concatenate(index), end.time)
        self.ended = []


def _decode(
    videos: Sequence[str | Video | Frames], every: int, batch_size: int, pool: DecodePool
) -> Iterator[_Part]:
    """All frames of all videos in chunks of bounded size, and each video's end."""
    threads = max(1, min(MAX_THREADS, (os.cpu_count() or 1) // pool.workers))
    jobs = (
        StreamJob(video, batch_size, step=every, threads=threads)
        for video in videos
        if not isinstance(video, np.ndarray)
    )
    streams = pool.stream(stream_chunks, jobs)
    try:
        for number, video in enumerate(videos):
            if isinstance(video, np.ndarray):
                index = np.arange(0, len(video), every)
                for start in range(0, len(index), batch_size):
                    rows = index[start : start + batch_size]
                    yield _Part(number, rows, video[rows])
                yield _Part(number, time=index.astype(np.float64))
                continue
            _, parts = next(streams)
            try:
                for part in parts:
                    if isinstance(part, FrameChunk):
                        yield _Part(number, part.indices, part.frames)
                    else:
                        yield _Part(number, time=part)
            except TceError as error:
                yield _Part(number, error=error)
    finally:
        streams.close()


def _require_frames(frames: NDArray[np.generic]) -> Frames:
    """The frames, if they are some images.

    Raises:
        TceError: another shape or type.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or frames.size == 0:
        raise TceError(
            "frames", "uint8 [N, H, W, 3], RGB, N at least 1", f"{frames.dtype} {list(frames.shape)}"
        )
    return frames.astype(np.uint8, copy=False)
