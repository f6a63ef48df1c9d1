"""The memory bank: one unit vector for every training video."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tce.contrast.cosines import room_for
from tce.contrast.loss.reduce import Over
from tce.contrast.mining import (
    Exclude,
    Mined,
    barred_rows,
    mine_blockwise,
    quantile_threshold,
    sample_stride,
)
from tce.contrast.topk import columns_of
from tce.errors import OptionError


class MemoryBank(nn.Module):
    """One unit vector a video, replaced by the video's embedding whenever the video was trained on.

    Memory in bytes, with N rows, B anchors and k negatives: the bank 4 N D; a step of `negatives` and a loss,
    forward and backward, at most 4 C + 100 B k + 2^24 on a CPU, where C is B N up to 2^26 and else 2^22 (and
    4 B N more for the backward pass where N is at most 8 k). There is no B x k x D array at any time.

    Args:
        size: number of rows N, the videos of the training set.
        dim: embedding size D.
        generator: draws the first rows, uniform on the sphere; None uses torch's global state.
        momentum: share of the old row that is kept by `update`, 0 (paper) replaces it, in [0, 1).

    Raises:
        OptionError: a bank of fewer than two rows, or momentum out of range.
    """

    rows: Tensor  # [N, D], unit
    over: Over | None = None
    """What the losses add their sums over negatives up with; a bank in one place needs nothing."""

    def __init__(self, size: int, dim: int, generator: torch.Generator | None = None, momentum: float = 0.0):
        super().__init__()
        if size < 2 or dim < 1:
            raise OptionError(
                "memory bank", expected="at least 2 clips (an anchor and a negative)", found=f"{size} x {dim}"
            )
        if not 0.0 <= momentum < 1.0:
            raise OptionError("--bank-momentum", expected="0 <= momentum < 1", found=str(momentum))
        self.momentum = momentum
        self._room = torch.empty(0)
        self.register_buffer("rows", first_rows(size, dim, generator))

    def __len__(self) -> int:
        """Number of rows N."""
        return len(self.rows)

    def similarity(self, vectors: Tensor) -> Tensor:
        """Cosine of unit vectors [B, D] with every row, float32 [B, N], also under autocast."""
        with torch.autocast(vectors.device.type, enabled=False):
            return vectors.float() @ self.rows.T

    def negatives(
        self,
        vectors: Tensor,
        own: Tensor,
        threshold: float | Tensor,
        k: int,
        generator: torch.Generator | None = None,
        exclude: Exclude = None,
        first_anchor: int = 0,
    ) -> Mined:
        """Mine for unit vectors [B, D]; the cosines carry the gradient back to them. See `mining.mine`.

        The rows are gone through in blocks, so the [B, N] cosines never exist as a whole, and the backward
        pass is a weighted sum of rows.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = vectors.float()
            room = self._room_for(len(vectors))
            mined = mine_blockwise(
                vectors.detach(), self.rows, own, threshold, k, generator, exclude, first_anchor, room=room
            )
            return mined._replace(cosine=take(vectors, self.rows, mined.ids, mined.cosine))

    def take(self, vectors: Tensor, ids: Tensor, similarity: Tensor | None = None) -> Tensor:
        """Cosine of each vector with its own choice of rows, float32 [B, k], differentiable in `vectors`.

        Args:
            vectors: unit vectors [B, D].
            ids: row numbers, int64 [B, k].
            similarity: `similarity(vectors)` where it is known already, [B, N]; no gradient flows through it.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = vectors.float()
            if similarity is None:
                similarity = vectors.detach() @ self.rows.T
            return take(vectors, self.rows, ids, similarity.detach().gather(1, ids))

    def _room_for(self, anchors: int) -> Tensor:
        """Memory for a step's cosines, kept from step to step."""
        needed = room_for(anchors, len(self.rows), self.rows.device)
        if self._room.device != self.rows.device or len(self._room) < needed:
            self._room = self.rows.new_empty(needed)
        return self._room

    def every(self, vectors: Tensor, own: Tensor, exclude: Exclude = None) -> tuple[Tensor, Tensor]:
        """Cosines with all rows, [B, N], and which of them are no negatives: own and excluded ones."""
        cosine = self.similarity(vectors)
        return cosine, columns_of(barred_rows(own, exclude), 0, cosine.shape[1])

    @torch.no_grad()
    def quantile(self, vectors: Tensor, share: float) -> Tensor:
        """For each vector the cosine below which this share of the rows lies, [B]: `quantile_threshold`."""
        rows = self.rows[:: sample_stride(len(self.rows))]
        return quantile_threshold(vectors.float() @ rows.T, share)

    @torch.no_grad()
    def own(self, ids: Tensor) -> Tensor:
        """The rows of these videos, [B, D], a copy."""
        return self.rows[ids]

    @torch.no_grad()
    def drift(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """Cosine of new embeddings [B, D] with their videos' old rows, [B]; low: the bank is stale."""
        return (self.rows[ids] * vectors.float()).sum(dim=1)

    @torch.no_grad()
    def update(self, ids: Tensor, vectors: Tensor, replace: bool = False) -> None:
        """Replace the rows of these videos; of a video that is in the batch twice the last vector wins.

        Does nothing in evaluation mode.

        Args:
            ids: row numbers, int64 [B].
            vectors: embeddings [B, D], normalised again here.
            replace: keep nothing of the old rows, whatever the momentum: they were random.
        """
        if not self.training:
            return
        kept = last_occurrence(ids)  # [U]
        ids, vectors = ids[kept], vectors[kept].to(self.rows)
        if self.momentum and not replace:
            vectors = torch.lerp(vectors, self.rows[ids], self.momentum)
        self.rows[ids] = F.normalize(vectors, dim=1)


def first_rows(
    size: int, dim: int, generator: torch.Generator | None = None, start: int = 0, stop: int | None = None
) -> Tensor:
    """Rows start .. stop of `size` unit vectors drawn uniformly, the same however they are divided."""
    stop = size if stop is None else stop
    rows = torch.empty(stop - start, dim)
    for first in range(0, size, DRAWN_ROWS):
        drawn = torch.randn(min(DRAWN_ROWS, size - first), dim, generator=generator)
        low, high = max(start, first), min(stop, first + len(drawn))
        if low < high:
            rows[low - start : high - start] = F.normalize(drawn[low - first : high - first], dim=1)
    return rows


def last_occurrence(ids: Tensor) -> Tensor:
    """Positions of the last occurrence of each value in `ids` [B], ascending, int64 [U].

    An indexed assignment with doubles leaves the winner open (on a GPU it varies from run to run), so doubles
    are taken out first.
    """
    values, order = torch.sort(ids, stable=True)
    last = torch.ones_like(values, dtype=torch.bool)
    last[:-1] = values[1:] != values[:-1]
    return order[last].sort().values


def take(vectors: Tensor, rows: Tensor, ids: Tensor, cosine: Tensor) -> Tensor:
    """Known cosines [B, k] of vectors [B, D] with rows[ids], made differentiable in the vectors."""
    return _Take.apply(vectors.float(), rows, ids, cosine)


class _Take(torch.autograd.Function):
    """Known cosines of vectors with rows, whose gradient is a weighted sum of those rows."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, rows: Tensor, ids: Tensor, cosine: Tensor) -> Tensor:
        ctx.save_for_backward(rows, ids)
        return cosine.clone()  # an output of its own, not a view of the input

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        rows, ids = ctx.saved_tensors
        return weighted_rows(rows, ids, grads[0]), None, None, None


def weighted_rows(rows: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Sum over j of weights[b, j] rows[ids[b, j]], [B, D], without a [B, k, D] array.

    Either as a dense product with [B, N] weights, or by fetching each row by its number: slow on a GPU, which
    sums the k rows of an anchor one after the other.
    """
    most = DENSE * ids.numel() if ids.device.type == "cpu" else DENSE_ELSEWHERE
    if len(ids) * len(rows) <= most:
        dense = weights.new_zeros(len(ids), len(rows)).scatter_add_(1, ids, weights)  # [B, N]
        return dense @ rows
    return F.embedding_bag(ids, rows, per_sample_weights=weights.contiguous(), mode="sum")


DRAWN_ROWS = 65_536  # drawn together
DENSE = 8  # fetching a row by number costs a CPU about as much as eight in a dense product
DENSE_ELSEWHERE = 2**28  # weights, 1 GiB
