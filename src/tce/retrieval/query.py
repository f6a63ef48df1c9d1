"""What is searched for, as vectors of the index's network."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError
from tce.hub.hub_files import offline
from tce.options.network import NetworkOptions
from tce.options.search import SearchOptions
from tce.retrieval.centering import center_query

if TYPE_CHECKING:
    from tce.model.encoder import FrameEncoder
    from tce.retrieval.frame_table import IndexSettings, VideoRecord


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        name: for people.
        path: the file it comes from; None for arrays.
        vectors: float32 [Q, D], unit vectors in the order of time.
    """

    name: str
    path: str | None
    vectors: NDArray[np.float32]


def normalised_query(vectors: NDArray[Any], size: int) -> Query:
    """A query that is vectors already.

    Args:
        vectors: float [Q, D], or [D] for one.
        size: D of the index.

    Raises:
        TceError: another shape, no numbers, or a vector of length 0.
    """
    array = np.atleast_2d(np.asarray(vectors))
    if array.ndim != 2 or array.shape[1] != size or not len(array) or array.dtype.kind != "f":
        raise TceError(
            "the query", f"float [Q, {size}], as the index has", f"{array.dtype} {list(np.shape(vectors))}"
        )
    lengths = np.linalg.norm(array.astype(np.float64), axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise TceError("the query", "finite vectors of a length above 0", "one that is not")
    return Query("vectors", None, (array / lengths).astype(np.float32))


class QueryEncoder:
    """Embeds queries with the network that an index was made with; opens it on first use.

    Args:
        ckpt: the network in place of the one that the index names, for example after it was moved.
        device: where it computes.
    """

    def __init__(self, ckpt: str | None, device: str):
        self._ckpt, self._device = ckpt, device
        self._settings: IndexSettings | None = None

    def hash_for(self, settings: IndexSettings) -> str:
        """The SHA-256 of the network, opened with an index's other options.

        Raises:
            TceError: it cannot be read.
        """
        self._settings = self._settings or settings
        from tce.model.checkpoint import tensors_hash

        return tensors_hash(self._encoder.state_dict())

    @property
    def default_layer(self) -> str:
        """Which of its layers to compare."""
        return self._encoder.default_layer

    @cached_property
    def _encoder(self) -> FrameEncoder:
        from tce.embedding.embed_command import open_encoder

        assert self._settings is not None
        kept = {name: value for name, value in self._settings.network.items() if name != "image_size"}
        options = NetworkOptions(**kept)
        if self._ckpt is not None:
            options = dataclasses.replace(options, ckpt=self._ckpt)
            return open_encoder(options)[0]
        with offline():  # an index may come from a stranger: what it names is not fetched
            return open_encoder(options)[0]

    def embed(
        self,
        options: SearchOptions,
        settings: IndexSettings,
        videos: dict[str, VideoRecord],
        frames: NDArray[np.uint8] | None = None,
    ) -> Query:
        """The query of the options, or of frames uint8 [N, H, W, 3], as vectors.

        Raises:
            TceError: it cannot be read, has no frame, or the network is not the index's any more.
        """
        from tce.embedding.embed import embed_videos

        name, path, source = _source(options, settings, frames)
        if self.hash_for(settings) != settings.hash:
            raise TceError(
                f"network {self._ckpt or settings.network.get('ckpt')}",
                "the weights that the index was made with",
                "others: the file has changed since",
                "make the index again in a new --db, or name the file with the old weights as --ckpt",
            )
        ((_, outcome),) = embed_videos(
            [source],
            self._encoder,
            image_size=settings.network.get("image_size"),
            device=self._device,
            layer=settings.layer,
            unit=settings.center is None,
        )
        if isinstance(outcome, Exception):
            raise outcome
        if not len(outcome.frame):
            raise TceError(f"the query {name}", "at least one frame that decodes", "none")
        vectors = outcome.embeddings
        if settings.center is not None:
            vectors = center_query(vectors, path or "", settings, videos)
        return Query(name, path, vectors)


def _source(
    options: SearchOptions, settings: IndexSettings, frames: NDArray[np.uint8] | None
) -> tuple[str, str | None, Any]:
    """A query's name, its file, and what `embed_videos` takes."""
    from tce.retrieval.sampled_video import SampledVideo

    if frames is not None:
        frames = frames[None] if frames.ndim == 3 else frames
        if frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise TceError("the query", "frames uint8 [N, H, W, 3], RGB", f"uint8 {list(frames.shape)}")
        return f"{len(frames)} frames", None, frames
    if options.image is not None:
        return options.image, os.path.abspath(options.image), SampledVideo(options.image, every=1)
    assert options.video is not None
    span = ""
    if options.at is not None:
        span = f" at {options.at:g} s"
    elif options.from_ is not None or options.to is not None:
        end = "the end" if options.to is None else f"{options.to:g} s"
        span = f" from {options.from_ or 0:g} to {end}"
    video = SampledVideo(options.video, settings.every, settings.fps, options.from_, options.to, options.at)
    return options.video + span, os.path.abspath(options.video), video
