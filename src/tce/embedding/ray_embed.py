"""Embeddings of many videos on a Ray cluster; see `tce.scale.ray_map`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.embedding.embed import Embedded
from tce.options.network import NetworkOptions
from tce.progress import Progress
from tce.scale.ray_map import ray_map
from tce.video.base import Video

Small = Callable[[NDArray[np.uint8]], bytes]
OpenEncoder = Callable[[NetworkOptions], tuple[Any, str]]  # `tce.embedding.embed_command.open_encoder`


@dataclass
class EmbedTask:
    """Embeds some videos; a `tce.scale.ray_map.Task`.

    Attributes:
        open_encoder: opens the network; an importable function.
        network: the network and how it runs.
        every: take every n-th frame.
        small: makes the small picture of a frame that is returned too; None: none.
    """

    open_encoder: OpenEncoder
    network: NetworkOptions
    every: int
    small: Small | None = None

    def open(self) -> None:
        """Load the network, and start the processes that decode."""
        from tce.embedding.embed import decoding_pool

        self._encoder, _ = self.open_encoder(self.network)
        self._pool = decoding_pool(1)

    def run(self, items: Sequence[str | Video]) -> list[tuple[Embedded | Exception, list[bytes]]]:
        """Each video's embeddings, or its error; and its small pictures."""
        from tce.embedding.embed import embed_videos

        network = self.network
        pictures: list[list[bytes]] = [[] for _ in items]

        def on_frames(number: int, frames: NDArray[np.uint8]) -> None:
            if self.small is not None:
                pictures[number] += [self.small(frame) for frame in frames]

        outcomes = embed_videos(
            items,
            self._encoder,
            network.batch_size,
            network.image_size,
            network.device,
            network.precision,
            self.every,
            engine=network.engine,
            layer=network.layer or "embedding",
            pool=self._pool,
            unit=network.center is None,
            on_frames=on_frames,
        )
        return [(outcome, pictures[number]) for number, outcome in outcomes]


def ray_embed_videos(
    videos: Sequence[str | Video],
    open_encoder: OpenEncoder,
    network: NetworkOptions,
    every: int,
    address: str,
    progress: Progress | None = None,
    small: Small | None = None,
) -> Iterator[tuple[int, Embedded | Exception, list[bytes]]]:
    """As `tce.embedding.embed.embed_videos`, by the workers of a Ray cluster.

    Args:
        videos: paths, or videos that can be pickled.
        open_encoder: opens the network in each worker; an importable function.
        network: the network and how it runs; on a GPU each worker takes one.
        every: take every n-th frame.
        address: see `tce.scale.ray_map.ray_map`.
        progress: counts frames.
        small: makes a small picture of a frame; importable, as it is pickled.

    Yields:
        position in `videos`, its embeddings or its error, and its small pictures; in order.

    Raises:
        TceError: no Ray, or no cluster.
    """
    # A worker may have another working folder.
    if network.ckpt is not None and os.path.exists(network.ckpt):
        network = dataclasses.replace(network, ckpt=os.path.abspath(network.ckpt))
    videos = [os.path.abspath(video) if isinstance(video, str) else video for video in videos]
    gpus = 1.0 if network.device.startswith("cuda") else 0.0
    results: Iterator[Any] = ray_map(
        EmbedTask(open_encoder, network, every, small), videos, address, gpus=gpus
    )
    for number, (outcome, pictures) in enumerate(results):
        if progress is not None and isinstance(outcome, Embedded):
            progress.update(len(outcome.frame))
        yield number, outcome, pictures
