"""How embeddings lie on the sphere: alignment, uniformity, effective rank."""

from __future__ import annotations

import math

import torch
from torch import Tensor


@torch.no_grad()
def alignment(a: Tensor, p: Tensor, alpha: float = 2.0) -> Tensor:
    """Mean distance of positive pairs to the power alpha (Wang & Isola 2020): 0 is best.

    Args:
        a: unit vectors [B, D].
        p: their positives [B, D].
        alpha: exponent.
    """
    return (a.float() - p.float()).norm(dim=1).pow(alpha).mean()


@torch.no_grad()
def uniformity(vectors: Tensor, t: float = 2.0) -> Tensor:
    """Log of the mean Gaussian potential of all pairs (Wang & Isola 2020): 0 collapsed, lower is better.

    Args:
        vectors: unit vectors [N, D]; of fewer than two there is no pair, and it is 0.
        t: inverse width of the Gaussian.
    """
    if len(vectors) < 2:
        return vectors.new_zeros((), dtype=torch.float32)
    squared = torch.pdist(vectors.float()).square()  # [N (N - 1) / 2]
    return (-t * squared).logsumexp(dim=0) - torch.log(squared.new_tensor(float(len(squared))))


@torch.no_grad()
def effective_rank(vectors: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values (Roy & Vetterli 2007): 1 to min(N, D).

    Args:
        vectors: [N, D], taken as they are, not centred; NaN where one is not finite.
    """
    if not torch.isfinite(vectors).all():
        return math.nan  # the trainer reports a diverged run; LAPACK would raise here
    singular = torch.linalg.svdvals(vectors.double())
    share = singular / singular.sum().clamp(min=1e-300)
    return float(torch.special.entr(share).sum().exp())
