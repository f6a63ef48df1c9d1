"""The memory bank, one unit vector for every training video; and the queue of keys of MoCo."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tce.contrast.mining import Excluded, Mined, mine, quantile_threshold, sample_stride
from tce.contrast.topk import Product, workspace_size
from tce.errors import OptionError

DENSE = 8  # fetching a row by number costs a CPU about as much as eight in a dense product
DENSE_ELSEWHERE = 2**28  # weights, 1 GiB


class MemoryBank(nn.Module):
    """One unit vector a video, replaced by the video's embedding whenever the video was trained on.

    Rows are gone through in blocks, so that neither the [B, N] cosines of a large bank nor an array of
    B x k x D numbers ever exists; docs/pretraining.md states the bytes.

    Args:
        size: number of rows N, the videos of the training set.
        dim: embedding size D.
        generator: draws the first rows, uniform on the sphere; None uses torch's global state.

    Raises:
        OptionError: a bank of fewer than two rows.
    """

    rows: Tensor  # [N, D], unit

    def __init__(self, size: int, dim: int, generator: torch.Generator | None = None):
        super().__init__()
        if size < 2 or dim < 1:
            raise OptionError(
                "memory bank", expected="at least 2 clips (an anchor and a negative)", found=f"{size} x {dim}"
            )
        self._workspace = torch.empty(0)
        self.register_buffer("rows", F.normalize(torch.randn(size, dim, generator=generator), dim=1))

    def __len__(self) -> int:
        return len(self.rows)

    def similarity(self, vectors: Tensor) -> Tensor:
        """Cosine of unit vectors [B, D] with every row, float32 [B, N], also under autocast."""
        with torch.autocast(vectors.device.type, enabled=False):
            return vectors.float() @ self.rows.T

    def negatives(
        self,
        vectors: Tensor,
        instance_ids: Tensor,
        threshold: float | Tensor,
        k: int,
        generator: torch.Generator | None = None,
        excluded: Excluded = None,
        first_anchor: int = 0,
    ) -> Mined:
        """Mine for unit vectors [B, D], see `mine`; the cosines carry the gradient back to the vectors."""
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = vectors.float()
            product = Product(vectors.detach(), self.rows, self._workspace_for(len(vectors)))
            mined = mine(product, instance_ids, threshold, k, generator, excluded, first_anchor)
            return mined._replace(cosine=_Take.apply(vectors, self.rows, mined.ids, mined.cosine))

    def _workspace_for(self, anchors: int) -> Tensor:
        """Memory for a step's cosines, kept from step to step."""
        needed = workspace_size(anchors, len(self.rows), self.rows.device)
        if self._workspace.device != self.rows.device or len(self._workspace) < needed:
            self._workspace = self.rows.new_empty(needed)
        return self._workspace

    @torch.no_grad()
    def quantile(self, vectors: Tensor, share: float) -> Tensor:
        """For each vector the cosine below which this share of the rows lies, [B]: `quantile_threshold`."""
        rows = self.rows[:: sample_stride(len(self.rows))]
        return quantile_threshold(vectors.float() @ rows.T, share)

    @torch.no_grad()
    def update(self, ids: Tensor, vectors: Tensor) -> None:
        """Replace the rows of these videos; of a video that is in the batch twice the last vector wins.

        Does nothing in evaluation mode.

        Args:
            ids: row numbers, int64 [B].
            vectors: embeddings [B, D], normalised again here.
        """
        if not self.training:
            return
        kept = last_occurrence(ids)  # [U]
        self.rows[ids[kept]] = F.normalize(vectors[kept].to(self.rows), dim=1)


class KeyQueue(nn.Module):
    """The latest keys of the momentum encoder, oldest replaced first (He et al. 2020, MoCo).

    Args:
        size: number of keys.
        dim: embedding size D.
        generator: draws the first keys, uniform on the sphere; None uses torch's global state.
    """

    keys: Tensor  # [size, D], unit
    ids: Tensor  # clips the keys belong to, int64 [size]; -1 for the random ones
    position: Tensor  # where the next key goes, int64 scalar

    def __init__(self, size: int, dim: int, generator: torch.Generator | None = None):
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim, generator=generator), dim=1))
        self.register_buffer("ids", torch.full((size,), -1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.keys)

    @torch.no_grad()
    def update(self, ids: Tensor, keys: Tensor) -> None:
        """Replace the oldest keys by those of the clips `ids` [B], [B, D]; of more than fit, by the last."""
        ids, keys = ids[-len(self) :], keys[-len(self) :]
        places = (self.position + torch.arange(len(ids), device=ids.device)) % len(self)
        self.keys[places], self.ids[places] = F.normalize(keys.to(self.keys), dim=1), ids
        self.position.copy_((self.position + len(ids)) % len(self))


def last_occurrence(ids: Tensor) -> Tensor:
    """Positions of the last occurrence of each value in `ids` [B], ascending, int64 [U].

    An indexed assignment with doubles leaves the winner open (on a GPU it varies from run to run), so doubles
    are taken out first.
    """
    values, order = torch.sort(ids, stable=True)
    last = torch.ones_like(values, dtype=torch.bool)
    last[:-1] = values[1:] != values[:-1]
    return order[last].sort().values


class _Take(torch.autograd.Function):
    """Known cosines [B, k] of vectors [B, D] with rows[ids]; their gradient is a weighted sum of rows."""

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
