"""Random rows for the slots that mining leaves empty."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tce.errors import OptionError

SLOTS = 2**16  # filled together on a CPU: what its cache holds
LIST_RATIO = 4  # bank to draws an anchor up to which free rows are listed
BITS = 31  # of a draw: rows differ in probability by less than N / 2^31


def draw_seed(generator: torch.Generator | None) -> int:
    """One draw, from which all random rows of a call follow."""
    device = torch.device("cpu") if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


def fill(ids: Tensor, hard: Tensor, excluded: Tensor, size: int, seed: int, first_anchor: int = 0) -> None:
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
