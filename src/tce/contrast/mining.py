"""Negative mining: for every anchor the hardest rows of the bank below the curriculum's threshold."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tce.contrast.random_fill import draw_seed, fill
from tce.contrast.topk import Cosines, Matrix, best_below, rows_in_block
from tce.errors import OptionError

QUANTILE_ROWS = 4096  # the quantile's error is then under 1 % of the rows


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
    fill(best.ids, best.found, out, cosines.size, seed, first_anchor)
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
