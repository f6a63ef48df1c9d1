"""Exact nearest neighbours by cosine or dot product, in bounded memory near the speed of the product."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from tce.errors import TceError

Rows = npt.NDArray[np.float32] | torch.Tensor

BLOCK_QUERIES = 1024
BLOCK_ROWS = 4096  # 1024 x 4096 similarities are 16 MB: scanned while still in the cache
GROUP = 64


def nearest(
    queries: Rows, rows: Rows, k: int, device: torch.device | str = "cpu"
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The k rows with the highest dot product for every query, best first.

    Similarities are made block by block and never kept. Nearly all of them lie below the query's k-th best
    so far, so each block is only reduced to the maximum of every group of 64, and groups that pass are
    looked at again: that costs about a tenth of the product, where a top-k would cost as much as the product.
    Equal similarities come in any order.

    Args:
        queries: [Q, D].
        rows: [N, D]; a memory map is read block by block.
        k: neighbours wanted, at most N.
        device: where the product runs.

    Returns:
        Similarities [Q, k] and row numbers [Q, k].

    Raises:
        TceError: k is below 1 or above N, or the dimensions differ.
    """
    if not 1 <= k <= len(rows):
        raise TceError("neighbours", expected=f"k between 1 and the {len(rows)} rows", found=f"k = {k}")
    if queries.shape[1] != rows.shape[1]:
        raise TceError(
            "neighbours",
            expected="queries and rows of one dimension",
            found=f"{queries.shape[1]} and {rows.shape[1]}",
        )
    similarity = np.empty((len(queries), k), np.float32)
    index = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), BLOCK_QUERIES):
        block = slice(start, start + BLOCK_QUERIES)
        best = _Best(_tensor(queries[block], device), k)
        for first in range(0, len(rows), max(BLOCK_ROWS, k)):
            best.see(_tensor(rows[first : first + max(BLOCK_ROWS, k)], device), first)
        similarity[block], index[block] = best.finish()
    return similarity, index


def _tensor(rows: Rows, device: torch.device | str) -> torch.Tensor:
    return torch.as_tensor(rows).to(device=device, dtype=torch.float32)


class _Best:
    """The k best rows seen so far for one block of queries.

    Rows that pass the threshold wait in a list and are merged when they are as many as the best themselves;
    until then the threshold is a little too low, which lets a few more pass but loses none.
    """

    def __init__(self, queries: torch.Tensor, k: int):
        self.queries, self.k = queries, k
        self.similarity = torch.empty(len(queries), 0, device=queries.device)  # [q, k] once a block is seen
        self.index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        self.waiting: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # query, similarity, row
        self.passed = 0
        self.product = torch.empty(0, device=queries.device)

    @torch.no_grad()
    def see(self, rows: torch.Tensor, first: int) -> None:
        """Take a block of rows [n, D] into account, the first of them numbered `first`."""
        q, n = len(self.queries), len(rows)
        if self.product.shape != (q, n):
            self.product = torch.empty(q, n, device=rows.device)
        torch.mm(self.queries, rows.t(), out=self.product)  # [q, n]
        if self.similarity.shape[1] < self.k:
            self._start(first)
        else:
            self._scan(first)
        if self.passed > q * self.k:
            self._merge()

    def _start(self, first: int) -> None:
        found, index = self.product.topk(min(self.k, self.product.shape[1]), dim=1)
        self.similarity = torch.cat([self.similarity, found], dim=1)
        self.index = torch.cat([self.index, index + first], dim=1)
        if self.similarity.shape[1] > self.k:
            self.similarity, order = self.similarity.topk(self.k, dim=1)
            self.index = self.index.gather(1, order)
        self.similarity, order = self.similarity.sort(dim=1, descending=True)
        self.index = self.index.gather(1, order)

    def _scan(self, first: int) -> None:
        q, n = self.product.shape
        threshold = self.similarity[:, -1:]  # [q, 1]
        whole = n // GROUP * GROUP
        if whole:
            # Group j holds columns j, j + width, ...: the maximum then runs over the slow axis, vectorised.
            groups = self.product[:, :whole].view(q, GROUP, whole // GROUP)
            query, group = _where(groups.amax(dim=1), threshold)  # [hits] each
            found = groups[query, :, group]  # [hits, GROUP]
            hit, member = _where(found, threshold[query])
            self._keep(query[hit], found[hit, member], group[hit] + member * (whole // GROUP) + first)
        if whole < n:
            rest = self.product[:, whole:]
            query, column = _where(rest, threshold)
            self._keep(query, rest[query, column], column + whole + first)

    def _keep(self, query: torch.Tensor, similarity: torch.Tensor, index: torch.Tensor) -> None:
        if len(query):
            self.waiting.append((query, similarity, index))
            self.passed += len(query)

    def _merge(self) -> None:
        q, k = self.similarity.shape
        owner = torch.arange(q, device=self.index.device).repeat_interleave(k)
        query = torch.cat([owner, *(waiting[0] for waiting in self.waiting)])
        similarity = torch.cat([self.similarity.flatten(), *(waiting[1] for waiting in self.waiting)])
        index = torch.cat([self.index.flatten(), *(waiting[2] for waiting in self.waiting)])
        order = _order(query, similarity)
        starts = torch.bincount(query, minlength=q).cumsum(0).roll(1)
        starts[0] = 0
        chosen = order[starts[:, None] + torch.arange(k, device=order.device)]  # [q, k]
        self.similarity, self.index = similarity[chosen], index[chosen]
        self.waiting, self.passed = [], 0

    def finish(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Similarities [q, k] and row numbers [q, k], best first."""
        self._merge()
        return self.similarity.cpu().numpy(), self.index.cpu().numpy()


def _where(values: torch.Tensor, threshold: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of `values` [n, m] above `threshold` [n, 1]; on a CPU NumPy finds them much faster."""
    if values.is_cuda:
        row, column = (values > threshold).nonzero(as_tuple=True)
        return row, column
    flat = np.flatnonzero(values.numpy() > threshold.numpy())
    return torch.from_numpy(flat // values.shape[1]), torch.from_numpy(flat % values.shape[1])


def _order(query: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
    """The order by query, then by falling similarity, in one sort of whole numbers."""
    bits = similarity.view(torch.int32)
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # orders as the floats do
    key = query * 2**32 - rising.to(torch.int64)
    return key.argsort() if key.is_cuda else torch.from_numpy(np.argsort(key.numpy()))
