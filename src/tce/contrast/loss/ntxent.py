"""NT-Xent: the other clips of the batch are the negatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tce.contrast.loss.reduce import weighted_mean


class NTXent(nn.Module):
    """Normalised temperature-scaled cross-entropy over the 2B views of a batch (Chen et al. 2020, SimCLR).

    Args:
        temperature: the cosines are divided by it.
    """

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        self.temperature = temperature

    def forward(
        self,
        a: Tensor,
        p: Tensor,
        ids: Tensor | None = None,
        exclude: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Mean loss over both directions, float32 scalar.

        Args:
            a: unit vectors of the anchors, [B, D].
            p: unit vectors of their positives, [B, D].
            ids: clip (or source) of each pair, int64 [B]; equal ones are not each other's negatives.
            exclude: pairs that are not each other's negatives, bool [B, B].
            weights: of the pairs, [B]; bool: which slots count. A pair of weight zero is nobody's negative.
        """
        losses = self.per_pair(a, p, ids, exclude, weights)
        return weighted_mean(losses, weights)

    def per_pair(
        self,
        a: Tensor,
        p: Tensor,
        ids: Tensor | None = None,
        exclude: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Loss of each pair, the mean of its two directions, float32 [B]; arguments as in `forward`."""
        batch = len(a)
        with torch.autocast(a.device.type, enabled=False):
            views = torch.cat([a, p]).float()  # [2B, D]
            logits = views @ views.T / self.temperature  # [2B, 2B]
        left_out = torch.eye(batch, dtype=torch.bool, device=a.device)
        if ids is not None:
            left_out = left_out | (ids[:, None] == ids)
        if exclude is not None:
            left_out = left_out | exclude
        if weights is not None:
            left_out = left_out | (weights == 0)
        positive = logits.diagonal(batch)  # [B], a with p
        rest = logits.masked_fill(left_out.repeat(2, 2), -torch.inf).logsumexp(dim=1)  # [2B]
        losses = torch.logaddexp(torch.cat([positive, positive]), rest) - torch.cat([positive, positive])
        return losses.view(2, batch).mean(dim=0)

    def extra_repr(self) -> str:
        """Its temperature."""
        return f"temperature={self.temperature}"
