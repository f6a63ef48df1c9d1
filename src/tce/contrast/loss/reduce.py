"""The mean over a batch in which some slots failed to load."""

from __future__ import annotations

from torch import Tensor


def weighted_mean(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of losses [B] with weights [B] (bool: which slots count); zero when none counts."""
    if weights is None:
        return losses.mean()
    weights = weights.to(losses)
    return (losses * weights).sum() / weights.sum().clamp(min=1e-12)
