"""Contrast over several processes: gathered embeddings, and a bank whose rows are divided among them.

All functions here are called by every process of the group at the same time. Gradients follow one rule: the
objective is the sum of the processes' losses, and the data-parallel wrapper then divides by the number of
processes. So what is trained is the mean of the processes' losses, whether each computes its own share of the
batch or all compute the same loss of the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tce.contrast.cosines import Product, rows_in_block
from tce.contrast.memory_bank import MemoryBank, first_rows, last_occurrence, take
from tce.contrast.mining import (
    Exclude,
    Mined,
    as_column,
    barred_rows,
    check_k,
    quantile_threshold,
    sample_stride,
)
from tce.contrast.random_fill import draw_seed, fill
from tce.contrast.topk import best_below, columns_of


def gather_rows(rows: Tensor, group: Any = None) -> Tensor:
    """The rows [b, ...] of all processes in order of rank, [W b, ...], with gradient.

    Backward adds up what all processes' losses say about this process's rows.

    Args:
        rows: of the same shape in every process.
        group: the processes; None means all. A lone process gets its rows back.
    """
    return rows if _count(group) == 1 else _Gather.apply(rows, group)


def global_mean(values: Tensor, weights: Tensor | None = None, group: Any = None) -> Tensor:
    """This process's part of a weighted mean over the values [b] of all processes.

    The mean over the processes of what this returns is the weighted mean over all values, so that a slot
    counts the same in whichever process it lies.
    """
    weights = torch.ones_like(values) if weights is None else weights.to(values)
    total = _add_up(weights.sum(), group)
    return _count(group) * (values * weights).sum() / total.clamp(min=1e-12)


class Processes:
    """Adds up over the processes of a group; every one of them gets the whole, with gradient.

    Args:
        group: None means all.
    """

    def __init__(self, group: Any = None):
        self.group = group

    def sum(self, part: Tensor) -> Tensor:
        """Sum over the processes, entry by entry."""
        return part if _count(self.group) == 1 else _Sum.apply(part, self.group)

    def logsumexp(self, part: Tensor) -> Tensor:
        """Log of the sum of exponentials over the processes, entry by entry."""
        if _count(self.group) == 1:
            return part
        highest = part.detach().clone()
        dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=self.group)
        highest = highest.clamp(min=torch.finfo(part.dtype).min)  # where no process has any
        total = self.sum((part - highest).exp())
        return highest + total.clamp(min=torch.finfo(part.dtype).tiny).log()

    def __deepcopy__(self, memo: dict[int, Any]) -> Processes:
        return Processes(self.group)  # a group is a handle


class ShardedBank(MemoryBank):
    """A memory bank whose rows are divided among processes, for banks larger than one device.

    Every process is given the whole batch (embeddings by `gather_rows`, row numbers), mines its own rows, and
    the best k of all are taken: scores and ids are exchanged, never rows. Sums over negatives and their
    gradients are computed where the rows lie; pass `absent` and `over` on to the loss. Results equal
    `MemoryBank`'s with the same generators, up to rounding.

    Takes 4 N D / W bytes for the rows and exchanges 12 B k bytes a process and step.

    Args:
        size: number of rows N in all.
        dim: embedding size D.
        generator: as in `MemoryBank`, in the same state in every process.
        momentum: as in `MemoryBank`.
        group: the processes; None means all.
    """

    def __init__(
        self,
        size: int,
        dim: int,
        generator: torch.Generator | None = None,
        momentum: float = 0.0,
        group: Any = None,
    ):
        super().__init__(2, dim, torch.Generator(), momentum)
        count, rank = _count(group), dist.get_rank(group) if _count(group) > 1 else 0
        self.size, self.group, self.over = size, group, Processes(group)
        self.start, self.stop = rank * size // count, (rank + 1) * size // count
        self.rows = first_rows(size, dim, generator, self.start, self.stop)

    def __len__(self) -> int:
        """Number of rows of all processes."""
        return self.size

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
        """Mine for the whole batch; `cosine` and `absent` [B, m] are about this process's rows alone.

        Arguments as in `MemoryBank.negatives`, the same in every process; `ids` and `hard` are global.
        """
        check_k(k, self.size)
        seed = draw_seed(generator)
        barred = barred_rows(own, exclude)
        with torch.autocast(vectors.device.type, enabled=False), torch.no_grad():
            product = Product(vectors.detach().float(), self.rows, self._room_for(len(vectors)))
            ceiling = as_column(threshold, len(own), product)
            block = rows_in_block(len(own), own.device)
            best = best_below(product, ceiling, barred - self.start, k, block)
            ids = self._best_of_all(best.cosine, best.ids, k)
            hard = (ids < self.size).sum(dim=1)
            fill(ids, hard, barred, self.size, seed, first_anchor)
            here, absent = self._here(ids)
            cosine = product.at(here)
        return Mined(ids, take(vectors, self.rows, here, cosine), hard, absent)

    def every(self, vectors: Tensor, own: Tensor, exclude: Exclude = None) -> tuple[Tensor, Tensor]:
        """Cosines with this process's rows, [B, n], and which of them are no negatives."""
        return self.similarity(vectors), columns_of(barred_rows(own, exclude), self.start, self.stop)

    @torch.no_grad()
    def quantile(self, vectors: Tensor, share: float) -> Tensor:
        """As in `MemoryBank`, of the rows of all processes."""
        stride = sample_stride(self.size)
        first = -self.start % stride  # this process's first row in the sample
        rows = self.rows[first::stride]
        sample = vectors.new_zeros(len(vectors), -(-self.size // stride), dtype=torch.float32)
        place = (self.start + first) // stride
        sample[:, place : place + len(rows)] = vectors.float() @ rows.T
        return quantile_threshold(_add_up(sample, self.group), share)

    @torch.no_grad()
    def own(self, ids: Tensor) -> Tensor:
        """The rows of these videos, [B, D], wherever they lie."""
        mine = (ids >= self.start) & (ids < self.stop)
        rows = self.rows.new_zeros(len(ids), self.rows.shape[1])
        rows[mine] = self.rows[ids[mine] - self.start]
        return _add_up(rows, self.group)

    @torch.no_grad()
    def drift(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """As in `MemoryBank`."""
        return (self.own(ids) * vectors.float()).sum(dim=1)

    @torch.no_grad()
    def update(self, ids: Tensor, vectors: Tensor, replace: bool = False) -> None:
        """As in `MemoryBank`, of the whole batch: each process keeps what is its own."""
        kept = last_occurrence(ids)
        kept = kept[(ids[kept] >= self.start) & (ids[kept] < self.stop)]
        super().update(ids[kept] - self.start, vectors[kept], replace)

    @torch.no_grad()
    def whole(self) -> Tensor | None:
        """All rows, [N, D], for a checkpoint that any number of processes can read.

        They are put together in the CPU's memory of the first process, which gets them; the others get None.
        A device never holds more than its own rows and another process's.
        """
        count, rank = _count(self.group), dist.get_rank(self.group) if _count(self.group) > 1 else 0
        whole = torch.empty(self.size, self.rows.shape[1]) if rank == 0 else None
        for other in range(count):
            start, stop = other * self.size // count, (other + 1) * self.size // count
            shard = self.rows if other == rank else self.rows.new_empty(stop - start, self.rows.shape[1])
            if count > 1:
                dist.broadcast(shard, group=self.group, group_src=other)
            if whole is not None:
                whole[start:stop] = shard
        return whole

    @torch.no_grad()
    def load_whole(self, rows: Tensor) -> None:
        """Take this process's share of all rows [N, D]."""
        self.rows.copy_(rows[self.start : self.stop])

    def _best_of_all(self, cosine: Tensor, ids: Tensor, k: int) -> Tensor:
        """The ids [B, k], ascending, of the best rows of all processes; `size` in empty slots."""
        ids = torch.where(ids < len(self.rows), ids + self.start, self.size)
        cosines = _exchange(cosine, self.group)  # W of [B, k]
        numbers = _exchange(ids if self.size > 2**31 - 1 else ids.int(), self.group)
        best = torch.cat(cosines, dim=1).topk(k, dim=1, sorted=False).indices
        return torch.cat(numbers, dim=1).gather(1, best).long().sort(dim=1).values

    def _here(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the ids [B, k] that lie in this process, as local numbers [B, m], and what is padding."""
        mine = (ids >= self.start) & (ids < self.stop)
        count = mine.sum(dim=1, keepdim=True)
        order = mine.byte().argsort(dim=1, descending=True, stable=True)[:, : max(1, int(count.max()))]
        absent = torch.arange(order.shape[1], device=ids.device) >= count
        return (ids.gather(1, order) - self.start).masked_fill_(absent, 0), absent


class _Gather(torch.autograd.Function):
    """All-gather whose backward adds the gradients up and gives each process those of its own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Any) -> Tensor:
        ctx.group, ctx.share = group, len(rows)
        return torch.cat(_exchange(rows, group))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        start = dist.get_rank(ctx.group) * ctx.share
        return _add_up(grads[0], ctx.group)[start : start + ctx.share], None


class _Sum(torch.autograd.Function):
    """All-reduce whose backward is one too: each process's part is in every process's result."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _add_up(part, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _add_up(grads[0], ctx.group), None


def _count(group: Any) -> int:
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def _exchange(tensor: Tensor, group: Any) -> list[Tensor]:
    """The tensors of all processes, in order of rank."""
    if _count(group) == 1:
        return [tensor]
    tensor = tensor.detach().contiguous()
    parts = [torch.empty_like(tensor) for _ in range(_count(group))]
    dist.all_gather(parts, tensor, group=group)
    return parts


def _add_up(tensor: Tensor, group: Any) -> Tensor:
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    if _count(group) > 1:
        dist.all_reduce(total, group=group)
    return total
