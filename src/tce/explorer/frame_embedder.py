"""Embeds the frames of many clips in full batches, as they arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from tce.model.encoder import FrameEncoder


class FrameEmbedder:
    """Vectors of frames that arrive in parts; a batch may hold frames of several clips.

    Args:
        encoder: the network; it is moved to `device`.
        image_size: side of its input in pixels; None: its own.
        batch_size: frames a forward pass.
        device: "auto", "cpu", "cuda" or "cuda:1".
        precision: "float32", "bf16" or "auto".
        engine: see `tce.model.engine.pick_engine`.
        frames: about how many frames will come.
    """

    def __init__(
        self,
        encoder: FrameEncoder,
        image_size: int | None = None,
        batch_size: int = 32,
        device: str = "auto",
        precision: str = "auto",
        engine: str = "auto",
        frames: int | None = None,
    ):
        from tce.device import choose_precision, pick_device
        from tce.model.engine import pick_engine

        place = pick_device(device)
        encoder.to(place).eval()
        self._encoder, self._size, self._batch = encoder, image_size, batch_size
        self._features: Callable[[Tensor], Tensor] = pick_engine(
            encoder, engine, image_size, choose_precision(precision, place), frames
        )
        self._waiting: list[Tensor] = []  # [n, 3, h, w] each
        self._vectors: list[NDArray[np.float32]] = []  # [n, D] each
        self._keep: list[tuple[int, bool]] = []  # frames in a row, and whether they count

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Take frames uint8 [n, H, W, 3]."""
        import torch

        with torch.inference_mode():
            self._waiting.append(self._encoder.preprocess(frames, self._size))
        self._keep.append((len(frames), True))
        while sum(map(len, self._waiting)) >= self._batch:
            self._forward()

    def drop(self, count: int) -> None:
        """Leave out the last `count` frames, whole parts of `add`."""
        while count > 0:
            last = next(place for place in reversed(range(len(self._keep))) if self._keep[place][1])
            size = self._keep[last][0]
            self._keep[last] = (size, False)
            count -= size

    def vectors(self) -> NDArray[np.float32]:
        """The unit vectors [N, D] of all frames that were not dropped; ends the work."""
        while self._waiting:
            self._forward()
        if not self._vectors:
            return np.zeros((0, 1), np.float32)
        kept = np.repeat([keep for _, keep in self._keep], [size for size, _ in self._keep])
        return np.concatenate(self._vectors)[kept.astype(bool)]

    def _forward(self) -> None:
        import torch

        images = torch.cat(self._waiting)
        batch, rest = images[: self._batch], images[self._batch :]
        self._waiting = [rest] if len(rest) else []
        with torch.inference_mode():
            self._vectors.append(self._encoder.project(self._features(batch)).float().cpu().numpy())
