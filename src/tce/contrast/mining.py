"""Negative mining: for every anchor the hardest rows of the bank below the curriculum's threshold.

Where too few rows lie below it, random rows fill the other places.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tce.contrast.topk import Cosines, Matrix, best_below, rows_in_block
from tce.errors import OptionError

QUANTILE_ROWS = 4096  # the quantile's error is then under 1 % of the rows

SLOTS = 2**16  # filled together on a CPU: what its cache holds
LIST_RATIO = 4  # bank to draws an anchor up to which free rows are listed
BITS = 31  # of a draw: rows differ in probability by less than N / 2^31


class Mined(NamedTuple):
    """Negatives of a batch of anchors."""

    ids: Tensor
    """Row numbers, int64 [B, k]: the mined ones, then the random ones."""
    cosine: Tensor
    """Cosine of the anchor with each of them, [B, k]."""
    hard: Tensor
    """How many were mined, int64 [B]; the other k - hard are random."""

    @property
    def hard_share(self) -> Tensor:
        """Share of all negatives that were mined, scalar in [0, 1]."""
        return self.hard.float().mean() / self.ids.shape[1]


class Sources:
    """Which rows are pieces of the same recording, so that they are kept out of each other's negatives.

    Args:
        numbers: a number for each row's source recording, int64 [N].
    """

    def __init__(self, numbers: Tensor):
        _, self.number = numbers.unique(return_inverse=True)
        self.rows = self.number.argsort(stable=True)
        self.size = self.number.bincount()
        self.start = self.size.cumsum(0) - self.size

    def rows_of(self, instance_ids: Tensor) -> Tensor:
        """The rows of each anchor's source, int64 [B, m]: the own row first, and again as padding."""
        source = self.number[instance_ids]
        place = torch.arange(int(self.size[source].max()), device=instance_ids.device)
        rows = self.rows[(self.start[source, None] + place).clamp(max=len(self.rows) - 1)]
        rows = torch.where(place < self.size[source, None], rows, instance_ids[:, None])
        return torch.cat([instance_ids[:, None], rows], dim=1)


Excluded = Sources | Tensor | None


def curriculum_threshold(t: float, low: float = -1.0, high: float = 1.0, rate: float = 5.0) -> float:
    """Mining threshold at the share `t` of the training steps: low + (high - low)(1 - exp(-rate t))."""
    return low + (high - low) * -math.expm1(-rate * t)


def quantile_threshold(similarity: Tensor, share: float) -> Tensor:
    """Threshold of each anchor below which the given share of the bank's rows lies, float32 [B].

    Cosines of one network crowd together (around 0.75 early in training), so a threshold in cosine crosses
    all of them at once; one by rank does not. Estimated on `QUANTILE_ROWS` to twice as many evenly spaced
    rows where there are more.

    With n sampled rows in ascending order and r = round(share n), it is the midpoint of the r-th and the
    next cosine: a threshold equal to a row's own cosine would mine that row or not by the last bit of a
    product, which differs between processors and batch sizes.

    Args:
        similarity: cosines [B, N].
        share: in [0, 1]; 0 lets no row pass (-inf), 1 lets every row pass (+inf).
    """
    sample = similarity.detach()[:, :: sample_stride(similarity.shape[1])].float()  # [B, n]
    rank = round(share * sample.shape[1])
    if not 0 < rank < sample.shape[1]:
        return sample.new_full((len(sample),), -math.inf if rank <= 0 else math.inf)
    return sample.sort(dim=1).values[:, rank - 1 : rank + 1].mean(dim=1)


def sample_stride(size: int) -> int:
    """Every how many-th of the rows a quantile is estimated on."""
    return max(1, size // QUANTILE_ROWS)


@torch.no_grad()
def mine(
    similarity: Tensor | Cosines,
    instance_ids: Tensor,
    threshold: float | Tensor,
    k: int,
    generator: torch.Generator | None = None,
    excluded: Excluded = None,
    first_anchor: int = 0,
    block: int | None = None,
) -> Mined:
    """The k rows with the highest cosine strictly below the threshold, for each anchor (paper, section 3).

    Too few below it: random rows fill up, drawn with replacement from those at or above the threshold; never
    the anchor's own row, a mined or an excluded one. (Where the exclusions leave no such row, mined ones
    repeat.)

    Args:
        similarity: cosine of each anchor with each row, [B, N]; or what makes it a block of rows at a time.
        instance_ids: each anchor's own row, int64 [B].
        threshold: one for all, or one an anchor [B].
        k: number of negatives, at most N - 1.
        generator: moved on by one draw a call, whatever the batch; None uses torch's global state.
        excluded: rows that are nobody's negative: bool [B, N]; or `Sources`: rows of the own row's source.
        first_anchor: number of the first anchor in the whole batch, so that several processes draw what one
            would.
        block: rows looked at together; None takes as many as make 16 MiB on a CPU, 1 GiB on a GPU.

    Returns:
        Row numbers and cosines (without gradient) of the negatives.

    Raises:
        OptionError: k > N - 1, or an anchor whose every row is excluded.
    """
    cosines = Matrix(similarity) if isinstance(similarity, Tensor) else similarity
    if not 1 <= k <= cosines.size - 1:
        raise OptionError(
            "--negatives",
            expected=f"1 to {cosines.size - 1} (a bank of {cosines.size} rows without the anchor's own)",
            found=str(k),
            fix="use fewer negatives",
        )
    seed = draw_seed(generator)
    out = excluded_rows(instance_ids, excluded)
    block = block or rows_in_block(len(instance_ids), instance_ids.device)
    column = torch.as_tensor(threshold, dtype=cosines.dtype, device=cosines.device).reshape(-1, 1)
    best = best_below(cosines, column.expand(len(instance_ids), 1), out, k, block)
    if bool((best.found == k).all()):
        return Mined(best.ids, best.cosine, best.found)
    random_fill(best.ids, best.found, out, cosines.size, seed, first_anchor)
    return Mined(best.ids, cosines.at(best.ids), best.found)


def excluded_rows(instance_ids: Tensor, excluded: Excluded) -> Tensor:
    """Rows that may not be an anchor's negative, int64 [B, m]: the own row first, and again as padding."""
    if excluded is None:
        return instance_ids[:, None]
    if isinstance(excluded, Sources):
        return excluded.rows_of(instance_ids)
    anchor, row = excluded.nonzero(as_tuple=True)
    count = excluded.sum(dim=1)
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[anchor]
    rows = instance_ids[:, None].repeat(1, 1 + int(count.max()))
    rows[anchor, 1 + place] = row
    return rows


def draw_seed(generator: torch.Generator | None) -> int:
    """One draw, from which all random rows of a call follow."""
    device = torch.device("cpu") if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


def random_fill(
    ids: Tensor, hard: Tensor, excluded: Tensor, size: int, seed: int, first_anchor: int = 0
) -> None:
    """Put random rows, with replacement, into the empty slots; they are neither excluded nor mined already.

    An anchor for which no such row is left gets mined ones again.

    Args:
        ids: mined rows, int64 [B, k], then `size` in the empty slots, which are written to.
        hard: how many were mined, int64 [B].
        excluded: rows that may not be drawn, int64 [B, m]: the own one first, and again as padding.
        size: number of rows N.
        seed: what the draws follow from, together with the anchor's number and the slot's.
        first_anchor: number of the first anchor in the global batch.

    Raises:
        OptionError: an anchor whose every row is excluded.
    """
    together = max(1, SLOTS // ids.shape[1]) if ids.device.type == "cpu" else max(1, len(ids))
    for i in range(0, len(ids), together):
        part = slice(i, i + together)
        _fill_slots(ids[part], hard[part, None], excluded[part], size, seed, first_anchor + i)


def _fill_slots(ids: Tensor, hard: Tensor, excluded: Tensor, size: int, seed: int, first_anchor: int) -> None:
    """`fill` for a few anchors of which `hard` [S, 1] are mined."""
    k, least, most = ids.shape[1], int(hard.min()), int(hard.max())
    if least == k:
        return
    slots = torch.arange(least, k, device=ids.device)  # those before are full in every anchor
    anchors = torch.arange(first_anchor, first_anchor + len(ids), device=ids.device)
    draw = random_bits(anchors[:, None] * k + slots, seed)  # [S, k - least]
    taken = torch.cat([ids[:, :most], _distinct(excluded, size)], dim=1)
    free = size - (taken < size).sum(dim=1, keepdim=True)  # [S, 1]
    again = ids.gather(1, (draw * hard) >> BITS) if bool((free == 0).any()) else None
    draw *= free
    draw >>= BITS
    rows = nth_free(taken, draw, size)
    if again is not None:
        if bool((free + hard == 0).any()):
            raise OptionError(
                "--exclude-same-source",
                expected="clips of two recordings or more",
                found="a clip whose every possible negative is of its own recording",
            )
        rows = torch.where(free > 0, rows, again)
    empty = ids[:, least:]
    if least == most:
        empty.copy_(rows)
    else:
        torch.where(slots < hard, empty, rows, out=empty)


def nth_free(taken: Tensor, n: Tensor, size: int) -> Tensor:
    """The n-th (from 0) of the rows that are not taken, int64 [S, r].

    It is n plus the number of taken rows before it. Those are known, so that neither a pass over the bank nor
    a rejection is needed; only where the bank is hardly larger than the number of draws, a list of all free
    rows is cheaper than a binary search a draw.

    Args:
        taken: distinct row numbers in any order, `size` as padding, [S, m].
        n: [S, r], below the number of free rows (any number where there are none); maybe overwritten.
        size: number of rows.
    """
    if n.device.type == "cpu" and size <= LIST_RATIO * n.shape[1]:
        free = np.ones((len(n), size + 1), bool)
        np.put_along_axis(free, taken.numpy(), False, axis=1)
        free[:, size] = True  # so that no list is empty
        start = np.arange(len(n))[:, None] * (size + 1)
        rows = np.flatnonzero(free)
        n += torch.from_numpy(np.searchsorted(rows, start))
        drawn = rows.take(n.numpy(), mode="clip")  # "clip" spares a check
        drawn -= start
        return torch.from_numpy(drawn)
    taken = taken.sort(dim=1).values
    before = taken - torch.arange(taken.shape[1], device=taken.device)  # free rows before each taken one
    return n + torch.searchsorted(torch.where(taken < size, before, size), n, right=True)


def random_bits(counter: Tensor, seed: int) -> Tensor:
    """`BITS` bits, a pure function of counters (int64, overwritten) and a seed: the top of SplitMix64."""
    counter *= -0x61C8864680B583EB
    counter += seed
    _mix(counter, 30)
    counter *= -0x40A7B892E31B1A47
    _mix(counter, 27)
    counter *= -0x6B2FB644ECCEEE15
    counter >>= 64 - BITS
    counter &= 2**BITS - 1
    return counter


def _mix(x: Tensor, bits: int) -> None:
    """`x ^= x >> bits` on unsigned numbers: torch only shifts arithmetically."""
    shifted = x >> bits
    shifted &= 2 ** (64 - bits) - 1
    x ^= shifted


def _distinct(excluded: Tensor, size: int) -> Tensor:
    """Barred rows with the padding (the own row, again) replaced by `size`."""
    again = excluded == excluded[:, :1]
    again[:, 0] = False
    return excluded.masked_fill(again, size)
