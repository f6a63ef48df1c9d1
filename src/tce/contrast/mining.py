"""Negative mining: for every anchor the hardest rows of the bank below the curriculum's threshold."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tce.contrast.cosines import Cosines, Matrix, Product, rows_in_block
from tce.contrast.random_fill import draw_seed, fill
from tce.contrast.topk import best_below
from tce.errors import OptionError

QUANTILE_ROWS = 4096  # the quantile's error is then under 1 % of the rows


class Mined(NamedTuple):
    """Negatives of a batch of anchors."""

    ids: Tensor
    """Row numbers, int64 [B, k]: the mined ones, then the random ones."""
    cosine: Tensor
    """Cosine of the anchor with each of them, [B, k], without gradient."""
    hard: Tensor
    """How many were mined, int64 [B]; the other k - hard are random."""
    absent: Tensor | None = None
    """Entries of `cosine` that are padding, bool, where another process holds some of the rows."""

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

    def barred(self, own: Tensor) -> Tensor:
        """The rows of each anchor's source, int64 [B, m]: the own row first, and again as padding."""
        source = self.number[own]
        place = torch.arange(int(self.size[source].max()), device=own.device)
        rows = self.rows[(self.start[source, None] + place).clamp(max=len(self.rows) - 1)]
        rows = torch.where(place < self.size[source, None], rows, own[:, None])
        return torch.cat([own[:, None], rows], dim=1)


Exclude = Sources | Tensor | None


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


def mine_negatives(
    similarity: Tensor,
    own: Tensor,
    threshold: float | Tensor,
    k: int,
    generator: torch.Generator | None = None,
    exclude: Exclude = None,
) -> Tensor:
    """The ids of `mine`, int64 [B, k]."""
    return mine(similarity, own, threshold, k, generator, exclude).ids


@torch.no_grad()
def mine(
    similarity: Tensor,
    own: Tensor,
    threshold: float | Tensor,
    k: int,
    generator: torch.Generator | None = None,
    exclude: Exclude = None,
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
        exclude: rows that are nobody's negative: bool [B, N]; or `Sources`, or the source of each row as
            int64 [N]: rows of the own row's source are left out.
        first_anchor: number of the first anchor in the global batch, so that several processes draw what one
            would.

    Raises:
        OptionError: k > N - 1, or an anchor whose every row is excluded.
    """
    block = rows_in_block(len(own), own.device)
    return _mine(Matrix(similarity), own, threshold, k, generator, exclude, first_anchor, block)


@torch.no_grad()
def mine_blockwise(
    vectors: Tensor,
    rows: Tensor,
    own: Tensor,
    threshold: float | Tensor,
    k: int,
    generator: torch.Generator | None = None,
    exclude: Exclude = None,
    first_anchor: int = 0,
    block: int | None = None,
    room: Tensor | None = None,
) -> Mined:
    """`mine` on the product of unit vectors [B, D] and rows [N, D], in bounded memory.

    The product is kept as a whole up to 2^26 cosines, and else a block at a time. `MemoryBank` states the
    bytes.

    Args:
        vectors: float32 [B, D].
        rows: float32 [N, D].
        own: as in `mine`.
        threshold: as in `mine`.
        k: as in `mine`.
        generator: as in `mine`.
        exclude: as in `mine`.
        first_anchor: as in `mine`.
        block: rows in a block; None takes as many as make 16 MiB on a CPU, 1 GiB on a GPU.
        room: memory for the cosines that is used again.

    Raises:
        OptionError: as in `mine`.
    """
    cosines = Product(vectors, rows, room)
    block = block or rows_in_block(len(own), own.device)
    return _mine(cosines, own, threshold, k, generator, exclude, first_anchor, block)


def mine_negatives_blockwise(
    vectors: Tensor,
    rows: Tensor,
    own: Tensor,
    threshold: float | Tensor,
    k: int,
    generator: torch.Generator | None = None,
    exclude: Exclude = None,
    block: int | None = None,
) -> Tensor:
    """The ids of `mine_blockwise`, int64 [B, k]."""
    return mine_blockwise(vectors, rows, own, threshold, k, generator, exclude, block=block).ids


def _mine(
    cosines: Cosines,
    own: Tensor,
    threshold: float | Tensor,
    k: int,
    generator: torch.Generator | None,
    exclude: Exclude,
    first_anchor: int,
    block: int,
) -> Mined:
    check_k(k, cosines.size)
    seed = draw_seed(generator)
    barred = barred_rows(own, exclude)
    best = best_below(cosines, as_column(threshold, len(own), cosines), barred, k, block)
    if bool((best.found == k).all()):
        return Mined(best.ids, best.cosine, best.found)
    fill(best.ids, best.found, barred, cosines.size, seed, first_anchor)
    return Mined(best.ids, cosines.at(best.ids), best.found)


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


def as_column(threshold: float | Tensor, anchors: int, cosines: Cosines) -> Tensor:
    """A threshold for all, or one an anchor, as [B, 1]."""
    column = torch.as_tensor(threshold, dtype=cosines.dtype, device=cosines.device)
    return column.reshape(-1, 1).expand(anchors, 1)


def barred_rows(own: Tensor, exclude: Exclude) -> Tensor:
    """Rows that may not be an anchor's negative, int64 [B, m]: the own row first, and again as padding."""
    if exclude is None:
        return own[:, None]
    if isinstance(exclude, Tensor) and exclude.dtype != torch.bool:
        exclude = Sources(exclude)
    if isinstance(exclude, Sources):
        return exclude.barred(own)
    anchor, row = exclude.nonzero(as_tuple=True)
    count = exclude.sum(dim=1)
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[anchor]
    barred = own[:, None].repeat(1, 1 + int(count.max()))
    barred[anchor, 1 + place] = row
    return barred
