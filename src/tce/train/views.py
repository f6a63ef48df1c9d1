"""The network's passes over the views of a batch, and the slow copy that follows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tce.model.encoder import FrameEncoder


class Views(nn.Module):
    """The network's passes over a batch's views: joint or one a view, whole or in chunks.

    Args:
        encoder: the network.
        joint: all views in one pass, which share batch statistics, or one pass each (paper).
        chunks: parts of the batch that pass one after the other, each with its own batch statistics.
    """

    def __init__(self, encoder: FrameEncoder, joint: bool, chunks: int):
        super().__init__()
        self.encoder, self.joint, self.chunks = encoder, joint, chunks

    def forward(self, views: Tensor, turned: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Unit embeddings [B, V, D] of views [B, V, 3, h, w], and rotation scores [B, 4] of `turned`."""
        done = [
            self._chunk(*part)
            for part in zip(
                views.chunk(self.chunks),
                turned.chunk(self.chunks) if turned is not None else [None] * self.chunks,
                strict=True,
            )
        ]
        vectors = torch.cat([vectors for vectors, _ in done])
        return vectors, None if turned is None else torch.cat([scores for _, scores in done])

    def _chunk(self, views: Tensor, turned: Tensor | None) -> tuple[Tensor, Any]:
        count = views.shape[1]
        if self.joint:
            images = views.flatten(0, 1)  # [b V, 3, h, w]
            if turned is not None:
                images = torch.cat([images, turned])
            features = self.encoder.features(images)  # [b V (+ b), F]
            last = features[len(views) * count :]
            vectors = self.encoder.project(features[: len(views) * count])
            vectors = vectors.unflatten(0, (len(views), count))  # [b, V, D]
        else:
            passes = [self.encoder.project(self.encoder.features(view)) for view in views.unbind(1)]
            vectors = torch.stack(passes, dim=1)  # [b, V, D]
            last = vectors if turned is None else self.encoder.features(turned)
        return vectors, None if turned is None else self.encoder.rotation_logits(last)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, keep: float) -> None:
    """Move a slow copy towards its original: slow = keep slow + (1 - keep) fast, buffers aside.

    Args:
        slow: the copy (momentum encoder; He et al. 2020).
        fast: the original, of the same shape.
        keep: share kept of the old value.
    """
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1.0 - keep)
