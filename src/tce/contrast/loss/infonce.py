"""InfoNCE: which of the candidates is the positive?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tce.contrast.loss.reduce import Over, weighted_mean


class InfoNCE(nn.Module):
    """Cross-entropy of the positive among itself and the negatives (van den Oord et al. 2018).

    Negatives are mined rows, or all rows of the bank with the own one in `absent`.

    Args:
        temperature: the cosines are divided by it.
    """

    def __init__(self, temperature: float = 0.07):
        super().__init__()
        self.temperature = temperature

    def forward(
        self,
        positive: Tensor,
        negative: Tensor,
        weights: Tensor | None = None,
        absent: Tensor | None = None,
        over: Over | None = None,
    ) -> Tensor:
        """Mean loss of a batch, float32 scalar.

        Args:
            positive: cosine of anchor and positive, [B].
            negative: cosines of anchor and negatives, [B, k].
            weights: of the anchors, [B]; bool: which slots count.
            absent: entries of `negative` that do not count, bool [B, k].
            over: adds up the exponentials where the negatives lie on several processes.
        """
        return weighted_mean(self.per_anchor(positive, negative, absent, over), weights)

    def per_anchor(
        self,
        positive: Tensor,
        negative: Tensor,
        absent: Tensor | None = None,
        over: Over | None = None,
    ) -> Tensor:
        """Loss of each anchor, float32 [B]; arguments as in `forward`."""
        right = positive.float() / self.temperature  # [B]
        wrong = negative.float() / self.temperature  # [B, k]
        if absent is not None:
            wrong = wrong.masked_fill(absent, -torch.inf)
        rest = wrong.logsumexp(dim=1)  # [B]
        if over is not None:
            rest = over.logsumexp(rest)
        return torch.logaddexp(right, rest) - right

    def extra_repr(self) -> str:
        """Its temperature."""
        return f"temperature={self.temperature}"
