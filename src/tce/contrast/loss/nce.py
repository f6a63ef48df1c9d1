"""Noise-contrastive estimation against rows of the memory bank."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tce.contrast.loss.reduce import Over, weighted_mean


class NCELoss(nn.Module):
    """NCE with k noise samples from a bank of N rows (Tian et al., CMC; TCE section 3).

    With P(x) = exp(x / T) / Z and c = k / N, an anchor's loss is -log(P(p) / (P(p) + c)) - sum over its
    negatives of log(c / (P(n) + c)). Written with s(x) = x / T - log(Z c) it is softplus(-s(p)) plus the sum
    of softplus(s(n)), which neither overflows nor loses digits.

    `Z` is a constant that belongs to the checkpoint. Set it by `estimate_z` before training; where it is
    not set, the first batch sets it as the released code does.

    Args:
        k: negatives an anchor.
        size: rows of the bank N.
        temperature: T.
    """

    Z: Tensor  # scalar; 0 where it is not known yet

    def __init__(self, k: int, size: int, temperature: float = 0.07):
        super().__init__()
        self.k, self.size, self.temperature = k, size, temperature
        self.register_buffer("Z", torch.zeros((), dtype=torch.float64))  # exp(1 / T) leaves float32 soon
        self._z_known = False

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
            absent: entries of `negative` that are padding, bool [B, k].
            over: adds up the sums over negatives where they lie on several processes.
        """
        return weighted_mean(self.per_anchor(positive, negative, weights, absent, over), weights)

    def per_anchor(
        self,
        positive: Tensor,
        negative: Tensor,
        weights: Tensor | None = None,
        absent: Tensor | None = None,
        over: Over | None = None,
    ) -> Tensor:
        """Loss of each anchor, float32 [B]; arguments as in `forward`."""
        if not self.z_known:
            self.estimate_z(positive, negative, weights, absent, over)
        shift = (self.Z * (self.k / self.size)).log().float()
        noise = F.softplus(negative.float() / self.temperature - shift)  # [B, k]
        if absent is not None:
            noise = noise.masked_fill(absent, 0.0)
        noise = noise.sum(dim=1)
        if over is not None:
            noise = over.sum(noise)
        return F.softplus(shift - positive.float() / self.temperature) + noise

    @property
    def z_known(self) -> bool:
        """Whether Z is set."""
        self._z_known = self._z_known or float(self.Z) > 0.0  # asks the device only until it is
        return self._z_known

    @torch.no_grad()
    def estimate_z(
        self,
        positive: Tensor | None,
        negative: Tensor,
        weights: Tensor | None = None,
        absent: Tensor | None = None,
        over: Over | None = None,
    ) -> float:
        """Set Z to N times the mean of exp(x / T) over the given cosines, and return it.

        Args:
            positive: cosines [B], or None.
            negative: cosines with mined rows (as released) or with random ones, [B, k].
            weights: as in `forward`.
            absent: as in `forward`.
            over: as in `forward`.
        """
        self.Z.copy_(self.size * self._mean_exp(positive, negative, weights, absent, over))
        self._z_known = True
        return float(self.Z)

    @torch.no_grad()
    def normalisation(
        self,
        positive: Tensor | None,
        negative: Tensor,
        weights: Tensor | None = None,
        absent: Tensor | None = None,
        over: Over | None = None,
    ) -> Tensor:
        """mean(exp(x / T)) N / Z: scalar, 1 where Z fits these cosines; arguments as in `estimate_z`."""
        return self._mean_exp(positive, negative, weights, absent, over) * self.size / self.Z

    def _mean_exp(
        self,
        positive: Tensor | None,
        negative: Tensor,
        weights: Tensor | None,
        absent: Tensor | None,
        over: Over | None,
    ) -> Tensor:
        present = torch.ones_like(negative, dtype=torch.bool) if absent is None else ~absent
        total = ((negative.double() / self.temperature).exp() * present).sum(dim=1)  # [B]
        count = present.double().sum(dim=1)
        if over is not None:
            total, count = over.sum(total), over.sum(count)
        if positive is not None:
            total = total + (positive.double() / self.temperature).exp()
            count = count + 1
        if weights is not None:
            total, count = total * weights, count * weights
        return total.sum() / count.sum()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._z_known = False

    def extra_repr(self) -> str:
        """Its three numbers."""
        return f"k={self.k}, size={self.size}, temperature={self.temperature}"
