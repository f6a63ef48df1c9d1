"""Negative mining: for every anchor the hardest rows of the bank below the curriculum's threshold."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tce.errors import OptionError


class Mined(NamedTuple):
    """Negatives of a batch of anchors."""

    ids: Tensor
    """Row numbers, int64 [B, k], ascending: the mined ones, then the random ones."""
    qualifying: Tensor
    """How many rows lay below the threshold, int64 [B]; min(qualifying, k) of `ids` are mined."""

    @property
    def hard_share(self) -> float:
        """Share of the negatives that were mined and not drawn at random, in [0, 1]."""
        k = self.ids.shape[1]
        return float(self.qualifying.clamp(max=k).float().mean()) / k


def curriculum_threshold(t: float, low: float = -1.0, high: float = 1.0, rate: float = 5.0) -> float:
    """Mining threshold at the share `t` of the training steps: low + (high - low)(1 - exp(-rate t))."""
    return low + (high - low) * -math.expm1(-rate * t)


def quantile_threshold(similarity: Tensor, share: float, sample: int = 4096) -> Tensor:
    """Each anchor's cosine below which the given share of the bank lies, [B].

    Cosines of one network crowd together (around 0.75 early in training), so a threshold in cosine crosses
    all of them at once; one by rank does not. Estimated on at most `2 sample` evenly spaced rows.

    Args:
        similarity: cosines [B, N].
        share: in [0, 1].
        sample: number of rows that are enough.
    """
    stride = max(1, similarity.shape[1] // sample)
    return torch.quantile(similarity.detach()[:, ::stride].float(), min(max(share, 0.0), 1.0), dim=1)


def mine_negatives(
    similarity: Tensor,
    own: Tensor,
    threshold: float | Tensor,
    k: int,
    generator: torch.Generator | None = None,
    exclude: Tensor | None = None,
    first_anchor: int = 0,
) -> Tensor:
    """The ids of `mine`, int64 [B, k]."""
    return mine(similarity, own, threshold, k, generator, exclude, first_anchor).ids


@torch.no_grad()
def mine(
    similarity: Tensor,
    own: Tensor,
    threshold: float | Tensor,
    k: int,
    generator: torch.Generator | None = None,
    exclude: Tensor | None = None,
    first_anchor: int = 0,
) -> Mined:
    """The k rows with the highest cosine strictly below the threshold, for all anchors at once.

    Too few below it: random rows fill up, drawn with replacement from those at or above the threshold; never
    the own row, a mined or an excluded one. (Where the exclusions leave no such row, mined ones repeat.)

    Args:
        similarity: cosine of each anchor with each row, [B, N].
        own: each anchor's own row, int64 [B].
        threshold: one for all, or one an anchor [B].
        k: number of negatives, at most N - 1.
        generator: moved on by one draw a call, whatever the batch; None uses torch's global state.
        exclude: rows that are nobody's negative, bool [B, N]; or the source recording of each row, int64
            [N]: rows of the own row's source are left out.
        first_anchor: number of the first anchor in the global batch, so that several processes draw what one
            would.

    Raises:
        OptionError: k > N - 1, or an anchor whose every row is excluded.
    """
    check_k(k, similarity.shape[1])
    below = similarity < _column(threshold, similarity)  # [B, N]
    barred = barred_rows(own, exclude)
    below.scatter_(1, barred, False)
    masked = similarity.masked_fill(~below, -math.inf)
    values, ids = masked.topk(k, dim=1, sorted=False)
    qualifying = below.sum(dim=1)
    absent = similarity.shape[1]  # sorts behind every row
    ids = ids.masked_fill(values == -math.inf, absent).sort(dim=1).values
    return fill(ids, qualifying, barred, similarity.shape[1], generator, first_anchor)


def check_k(k: int, size: int) -> None:
    """Refuse more negatives than there are other rows.

    Raises:
        OptionError: k is not in 1 .. size - 1.
    """
    if not 1 <= k <= size - 1:
        raise OptionError(
            "--negatives",
            expected=f"1 to {size - 1} (a bank of {size} rows, the own one left out)",
            found=str(k),
            fix="use fewer negatives",
        )


def _column(threshold: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(threshold, dtype=like.dtype, device=like.device).reshape(-1, 1)


def barred_rows(own: Tensor, exclude: Tensor | None) -> Tensor:
    """Rows that may not be an anchor's negative, int64 [B, m]: distinct but for the own one, the padding."""
    own = own[:, None]  # [B, 1]
    if exclude is None:
        return own
    if exclude.dtype != torch.bool:
        exclude = exclude == exclude[own]  # [B, N]
    exclude = exclude.scatter(1, own, False)
    anchor, row = exclude.nonzero(as_tuple=True)
    count = exclude.sum(dim=1)
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[anchor]
    barred = own.repeat(1, 1 + int(count.max()))
    barred[anchor, 1 + place] = row
    return barred


def fill(
    ids: Tensor, qualifying: Tensor, barred: Tensor, size: int, generator: torch.Generator | None, first: int
) -> Mined:
    """Draw random rows for the slots beyond the mined ones.

    The u-th row that is not taken is u plus the number of taken rows before it; taken rows are known and
    sorted, so no pass over the bank and no rejection is needed.

    Args:
        ids: mined rows, int64 [B, k], ascending, `size` in empty slots.
        qualifying: rows below the threshold, int64 [B].
        barred: `barred_rows`, [B, m].
        size: number of rows N.
        generator: as in `mine`.
        first: number of the first anchor in the global batch.
    """
    seed = torch.randint(2**62, (1,), generator=generator, device=_device_of(generator)).to(ids.device)
    batch, k = ids.shape
    doubles = torch.ones_like(barred, dtype=torch.bool)
    doubles[:, 0] = False
    extra = barred.masked_fill(doubles & (barred == barred[:, :1]), size)  # padding out of the way
    taken = torch.cat([ids, extra], dim=1).sort(dim=1).values  # [B, k + m], distinct, then `size`
    free = size - (taken < size).sum(dim=1, keepdim=True)  # [B, 1]
    slots = torch.arange(k, device=ids.device)
    anchors = torch.arange(first, first + batch, device=ids.device)[:, None]
    draw = (uniform(seed, anchors * k + slots) * free).long()  # [B, k]
    shifted = (taken - torch.arange(taken.shape[1], device=ids.device)).masked_fill(taken == size, size)
    draw += torch.searchsorted(shifted, draw, right=True)
    return Mined(torch.where(ids < size, ids, draw), qualifying)


def _device_of(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def uniform(seed: Tensor, counter: Tensor) -> Tensor:
    """Random float64 in [0, 1), a pure function of a seed [1] and counters (the SplitMix64 mixer)."""
    x = (counter + 1) * -0x61C8864680B583EB + seed
    x = (x ^ _shift(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shift(x, 27)) * -0x6B2FB644ECCEEE15
    return _shift(x ^ _shift(x, 31), 11).double() * 2.0**-53


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, which torch only has as an arithmetic one."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
