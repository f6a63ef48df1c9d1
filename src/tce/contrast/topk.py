"""The k highest cosines below a ceiling, exactly, for many anchors at once.

A plain top-k over [B, N] is what mining spends its time in, so there are two ways to the same set:

- `best_by_topk` runs on any device; on a GPU its radix select is as fast as reading the matrix.
- `best_by_pool` is for the CPU. A sample of the rows gives a floor that about 1.3 k of an anchor's rows
  exceed. One comparison finds them, and only they are sorted out. Where the sample misled (fewer than k
  turn up), the anchor is done again without a floor: the sample changes the time, never the result.

Both walk over blocks of rows, so that the [B, N] matrix need not exist.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = {"cpu": 2**22}  # cosines looked at together: 16 MiB stay in a CPU's cache
BLOCK_ELSEWHERE = 2**28  # 1 GiB, few kernels
WHOLE = 2**26  # cosines kept as a whole where they are no more than that: 256 MiB
SAMPLE = 4096  # rows that the floor is estimated on: its error then is some 8 % of k
DENSE = 4  # k is not small beside N from N / 4 on: sorting the few above a floor out saves nothing
SIGMAS = 4.0  # a floor that is too high costs a second pass, once in 30,000 anchors


class Cosines(Protocol):
    """Cosines of B anchors with N rows, of which only a part need exist at a time."""

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
        workspace: memory for the cosines that is used again, float32 [n], or None. Fresh memory costs a CPU
            as much time as the product: the system hands it out page by page, each filled with zeros first.
    """

    def __init__(self, vectors: Tensor, rows: Tensor, workspace: Tensor | None = None):
        self.vectors = vectors
        self.rows = rows
        self.size = len(rows)
        self.dtype, self.device = rows.dtype, rows.device
        self.whole = len(vectors) * len(rows) <= WHOLE
        self.workspace = vectors.new_empty(0) if workspace is None else workspace

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
        """Gathered from the whole, or made again a few anchors at a time.

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
        if len(self.workspace) < needed:
            self.workspace = self.vectors.new_empty(needed)
        return self.workspace[:needed].view(len(self.vectors), columns)


def rows_in_block(anchors: int, device: torch.device) -> int:
    """How many rows' cosines with so many anchors are looked at together."""
    return max(1, BLOCK.get(device.type, BLOCK_ELSEWHERE) // max(1, anchors))


def workspace_size(anchors: int, rows: int, device: torch.device) -> int:
    """How many cosines `Product` keeps."""
    return anchors * (rows if anchors * rows <= WHOLE else min(rows, rows_in_block(anchors, device)))


class Best(NamedTuple):
    """The best rows of each anchor: in ascending order on a CPU or where slots are empty, else in any."""

    cosine: Tensor
    """float [B, k]; -inf in the empty slots, which come last."""
    ids: Tensor
    """int64 [B, k]; N (the number of rows) in the empty slots."""
    found: Tensor
    """Slots that are not empty, int64 [B]."""


def best_below(cosines: Cosines, ceiling: Tensor, excluded: Tensor, k: int, block: int) -> Best:
    """The at most k rows of highest cosine strictly below the ceiling that are not excluded.

    Args:
        cosines: gives the cosines [B, N].
        ceiling: of each anchor, [B, 1].
        excluded: row numbers that are left out, int64 [B, m]; numbers outside 0 .. N - 1 are ignored.
        k: number wanted.
        block: rows looked at together.
    """
    select = best_by_pool if excluded.device.type == "cpu" else best_by_topk
    return select(cosines, ceiling, excluded, k, min(block, cosines.size))


def best_by_topk(cosines: Cosines, ceiling: Tensor, excluded: Tensor, k: int, block: int) -> Best:
    """`best_below` by top-k of each block, joined with the best so far."""
    size = cosines.size
    best = ceiling.new_empty(len(ceiling), 0)
    ids = excluded.new_empty(len(ceiling), 0)
    for start in range(0, size, block):
        stop = min(start + block, size)
        part = cosines(slice(start, stop))  # [B, n]
        left_out = columns_of(excluded, start, stop)
        part = part.masked_fill(~(part < ceiling) | left_out, -math.inf)  # a NaN is below nothing
        values, columns = part.topk(min(k, stop - start), dim=1, sorted=False)
        best, ids = torch.cat([best, values], dim=1), torch.cat([ids, columns + start], dim=1)
        if best.shape[1] > k:
            best, columns = best.topk(k, dim=1, sorted=False)
            ids = ids.gather(1, columns)
    found = (best > -math.inf).sum(dim=1)
    missing = k - ids.shape[1]
    if missing or bool((found < k).any()):
        ids, order = ids.masked_fill(best == -math.inf, size).sort(dim=1)
        ids, best = (
            pad(ids, (0, missing), value=size),
            pad(best.gather(1, order), (0, missing), value=-math.inf),
        )
    return Best(best, ids, found)


def columns_of(rows: Tensor, start: int, stop: int) -> Tensor:
    """Which of the rows start .. stop each anchor names in `rows` [B, m], bool [B, stop - start]."""
    named = torch.zeros(len(rows), stop - start + 1, dtype=torch.bool, device=rows.device)
    inside = (rows >= start) & (rows < stop)
    named.scatter_(1, torch.where(inside, rows - start, stop - start), True)
    return named[:, :-1]


def best_by_pool(cosines: Cosines, ceiling: Tensor, excluded: Tensor, k: int, block: int) -> Best:
    """`best_below` by a floor from a sample and a pool of the rows above it."""
    size, left_out = cosines.size, excluded.numpy()
    top = ceiling.numpy()
    floor = sampled_floor(cosines, top, k)
    if block >= size and (floor == -math.inf).all():
        return _best_of_all(cosines(slice(0, size)).numpy(), top, left_out, k)
    while True:
        pool = _Pool(len(top), k, floor)
        for start in range(0, size, block):
            stop = min(start + block, size)
            pool.add(cosines(slice(start, stop)).numpy(), start, top, left_out)
        pool.trim()
        misled = (pool.used < k) & (floor[:, 0] > -math.inf)
        if not misled.any():
            return pool.best(size)
        floor[misled] = -math.inf


def sampled_floor(cosines: Cosines, ceiling: np.ndarray, k: int) -> np.ndarray:
    """A cosine that very likely k rows reach, few more, of those below the ceiling; [B, 1], maybe -inf."""
    size = cosines.size
    stride = size // SAMPLE
    if stride < 2 or k * DENSE > size:
        return np.full_like(ceiling, -math.inf)
    wanted = k / stride
    rank = math.ceil(wanted + SIGMAS * math.sqrt(wanted)) + 1
    sample = cosines(slice(0, size, stride)).numpy()
    sample = np.where(sample < ceiling, sample, -math.inf).astype(sample.dtype, copy=False)
    return np.partition(sample, -rank, axis=1)[:, -rank, None]


class _Pool:
    """Candidates of every anchor, side by side in one matrix, cut back to the best k when it is full."""

    def __init__(self, anchors: int, k: int, floor: np.ndarray):
        self.k, self.floor = k, floor.copy()
        self.cosine = np.empty((anchors, 2 * k), floor.dtype)
        self.ids = np.empty((anchors, 2 * k), np.int64)
        self.used = np.zeros(anchors, np.int64)

    def add(self, cosine: np.ndarray, start: int, ceiling: np.ndarray, excluded: np.ndarray) -> None:
        """Take in the rows from `start` on whose cosine [B, n] lies between floor and ceiling."""
        chosen = cosine >= self.floor
        chosen &= cosine < ceiling
        _leave_out(chosen, excluded, start)
        found, count = _positions(chosen)
        self._make_space(count)
        place = _run_places(_row_starts(self.cosine) + self.used, count)
        column = found - np.repeat(_row_starts(cosine), count)
        self.cosine.reshape(-1)[place] = _flat(cosine)[column + np.repeat(_line_starts(cosine), count)]
        self.ids.reshape(-1)[place] = column + start
        self.used += count

    def _make_space(self, count: np.ndarray) -> None:
        if (self.used + count).max() > self.cosine.shape[1]:
            self.trim()
        more = int((self.used + count).max()) - self.cosine.shape[1]
        if more > 0:  # without a floor a block may hold more than k
            self.cosine = np.pad(self.cosine, ((0, 0), (0, more)))
            self.ids = np.pad(self.ids, ((0, 0), (0, more)))

    def trim(self) -> None:
        """Keep each anchor's best k."""
        width = int(self.used.max())
        if width <= self.k:
            return
        cosine = self.cosine[:, :width]
        cosine[np.arange(width) >= self.used[:, None]] = -math.inf
        keep, cut = _keep_best(cosine, self.k)
        found, self.used = _positions(keep)
        kept = found + np.repeat(_row_starts(self.cosine) - _row_starts(cosine), self.used)
        place = _run_places(_row_starts(self.cosine), self.used)
        for table in (self.cosine.reshape(-1), self.ids.reshape(-1)):
            table[place] = table[kept]
        self.floor = np.maximum(self.floor, cut)

    def best(self, size: int) -> Best:
        """What is left after `trim`."""
        cosine, ids = self.cosine[:, : self.k].copy(), self.ids[:, : self.k].copy()
        empty = np.arange(self.k) >= self.used[:, None]
        cosine[empty], ids[empty] = -math.inf, size
        return Best(*map(torch.from_numpy, (cosine, ids, self.used)))


def _best_of_all(cosine: np.ndarray, ceiling: np.ndarray, excluded: np.ndarray, k: int) -> Best:
    """`best_below` where all cosines [B, N] are here and k is not small beside N."""
    keep = cosine < ceiling
    _leave_out(keep, excluded, 0)
    crowded = np.count_nonzero(keep, axis=1) > k  # the others take all that is below
    if crowded.any():
        some = slice(None) if crowded.all() else crowded  # a slice copies nothing
        keep[some], _ = _keep_best(np.where(keep[some], cosine[some], cosine.dtype.type(-math.inf)), k)
    found, count = _positions(keep)
    slots = np.arange(k) < count[:, None]
    values = np.full(slots.shape, -math.inf, cosine.dtype)
    values[slots] = cosine.reshape(-1)[found]
    found -= np.repeat(_row_starts(cosine), count)
    ids = np.full(slots.shape, cosine.shape[1])
    ids[slots] = found
    return Best(*map(torch.from_numpy, (values, ids, count)))


def _keep_best(cosine: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Which entries [B, n] are their row's best k, never -inf, of ties the first; and the cut."""
    at = cosine.shape[1] - k
    cut = np.partition(cosine, at, axis=1)[:, at, None]  # [B, 1]
    keep = cosine >= np.maximum(cut, np.finfo(cosine.dtype).min)
    count = np.count_nonzero(keep, axis=1)
    if count.max() > k:
        tied = keep & (cosine == cut)
        spare = k - (count - np.count_nonzero(tied, axis=1))
        keep &= ~tied | (tied.cumsum(axis=1) <= spare[:, None])
    return keep, cut


def _leave_out(chosen: np.ndarray, excluded: np.ndarray, start: int) -> None:
    """Take excluded rows [B, m] out of `chosen` [B, n], whose columns are the rows from `start` on."""
    anchor, column = np.nonzero((excluded >= start) & (excluded < start + chosen.shape[1]))
    chosen[anchor, excluded[anchor, column] - start] = False


def _positions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat positions of the true entries of [B, n], and how many each row has, [B]."""
    found = np.flatnonzero(mask)
    return found, np.diff(np.searchsorted(found, np.arange(len(mask) + 1) * mask.shape[1]))


def _run_places(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, ... (counts[0] numbers), then those of starts[1], and so on."""
    return np.arange(counts.sum()) + np.repeat(starts - (counts.cumsum() - counts), counts)


def _row_starts(table: np.ndarray) -> np.ndarray:
    return np.arange(table.shape[0]) * table.shape[1]


def _flat(table: np.ndarray) -> np.ndarray:
    """The memory a matrix lies in, as one line; `_line_starts` is where its rows begin."""
    span = (len(table) - 1) * (table.strides[0] // table.itemsize) + table.shape[1]
    return np.lib.stride_tricks.as_strided(table, (span,), (table.itemsize,))


def _line_starts(table: np.ndarray) -> np.ndarray:
    return np.arange(table.shape[0]) * (table.strides[0] // table.itemsize)
