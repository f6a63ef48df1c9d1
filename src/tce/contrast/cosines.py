"""Cosines of anchors with the rows of a bank, of which only a part need exist at a time."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

BLOCK = {"cpu": 2**22}  # cosines looked at together: 16 MiB stay in a CPU's cache
BLOCK_ELSEWHERE = 2**28  # 1 GiB, few kernels
WHOLE = 2**26  # cosines kept as a whole where they are no more than that: 256 MiB


class Cosines(Protocol):
    """What mining looks at."""

    size: int
    """Number of rows N."""
    dtype: torch.dtype
    device: torch.device

    def __call__(self, part: slice) -> Tensor:
        """Cosines with the rows of a slice, [B, n]; overwritten by the next call."""

    def at(self, ids: Tensor) -> Tensor:
        """Cosines with each anchor's own choice of rows, int64 [B, k] -> [B, k], after all were asked for."""


class Matrix:
    """Cosines that exist, [B, N]."""

    def __init__(self, similarity: Tensor):
        similarity = similarity.detach().contiguous()
        self.similarity = similarity if similarity.dtype.itemsize >= 4 else similarity.float()
        self.size = similarity.shape[1]
        self.dtype, self.device = self.similarity.dtype, similarity.device

    def __call__(self, part: slice) -> Tensor:
        """A view."""
        return self.similarity[:, part]

    def at(self, ids: Tensor) -> Tensor:
        """Gathered."""
        return self.similarity.gather(1, ids)


class Product:
    """Cosines of unit vectors [B, D] with rows [N, D], made a block at a time.

    Args:
        vectors: float32 [B, D].
        rows: float32 [N, D].
        room: memory for the cosines that is used again, float32 [n], or None. Fresh memory costs a CPU as
            much time as the product: the system hands it out page by page, each filled with zeros first.
    """

    def __init__(self, vectors: Tensor, rows: Tensor, room: Tensor | None = None):
        self.vectors, self.rows, self.size = vectors, rows, len(rows)
        self.dtype, self.device = rows.dtype, rows.device
        self.whole = len(vectors) * len(rows) <= WHOLE
        self.room = vectors.new_empty(0) if room is None else room

    def __call__(self, part: slice) -> Tensor:
        """Made in its place, if the whole is kept."""
        start, stop, step = part.indices(self.size)
        rows = self.rows[part]
        if step > 1:
            return self.vectors @ rows.T
        if self.whole:
            return torch.mm(self.vectors, rows.T, out=self._take(self.size)[:, start:stop])
        return torch.mm(self.vectors, rows.T, out=self._take(len(rows)))

    def at(self, ids: Tensor) -> Tensor:
        """Gathered from the whole, or made anew a few anchors at a time.

        Made as a dense product: fetching k rows by number costs as much as some 100 k rows in a product.
        """
        if self.whole:
            return self._take(self.size).gather(1, ids)
        out = self.vectors.new_empty(ids.shape)
        anchors = rows_in_block(self.size, self.device)  # all rows and so many anchors
        for i in range(0, len(ids), anchors):
            here = slice(i, i + anchors)
            torch.gather(self.vectors[here] @ self.rows.T, 1, ids[here], out=out[here])
        return out

    def _take(self, columns: int) -> Tensor:
        needed = len(self.vectors) * columns
        if len(self.room) < needed:
            self.room = self.vectors.new_empty(needed)
        return self.room[:needed].view(len(self.vectors), columns)


def rows_in_block(anchors: int, device: torch.device) -> int:
    """How many rows' cosines with so many anchors are looked at together."""
    return max(1, BLOCK.get(device.type, BLOCK_ELSEWHERE) // max(1, anchors))


def room_for(anchors: int, rows: int, device: torch.device) -> int:
    """How many cosines `Product` keeps."""
    return anchors * (rows if anchors * rows <= WHOLE else min(rows, rows_in_block(anchors, device)))
