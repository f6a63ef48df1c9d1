"""What the losses share: the mean over a batch, and sums over negatives that lie on several processes."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Over(Protocol):
    """Adds up what each process holds of an anchor's negatives; all get the whole, with gradient."""

    def sum(self, part: Tensor) -> Tensor:
        """Sum over the processes, entry by entry."""

    def logsumexp(self, part: Tensor) -> Tensor:
        """Log of the sum of exponentials over the processes, entry by entry."""


def weighted_mean(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of losses [B] with weights [B] (bool: which slots count); zero when none counts."""
    if weights is None:
        return losses.mean()
    weights = weights.to(losses)
    return (losses * weights).sum() / weights.sum().clamp(min=1e-12)
