"""The contrastive losses on cosines: NCE, InfoNCE and NT-Xent; and how embeddings lie on the sphere.

Losses are float32, whatever the autocast. In all of them `mask` marks what is left out: True where a negative
does not count.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Reduction = Literal["mean", "none"]


class ContrastiveLoss(nn.Module):
    """What the losses share.

    Args:
        temperature: T, divides the cosines.
        reduction: "mean" over the batch, or "none".
    """

    def __init__(self, temperature: float = 0.07, reduction: Reduction = "mean"):
        super().__init__()
        self.temperature = temperature
        self.reduction = reduction

    def reduce(self, losses: Tensor) -> Tensor:
        """Losses [B], or their mean: 0 for an empty batch, as one is of which no clip could be read."""
        return losses if self.reduction == "none" else losses.sum() / max(1, len(losses))

    def extra_repr(self) -> str:
        """What it was made with."""
        return f"temperature={self.temperature}"


class NCELoss(ContrastiveLoss):
    """Noise-contrastive estimation with k negatives from a bank of N rows (Tian et al., CMC; TCE, section 3).

    With P(x) = exp(x / T) / Z and c = k / N, an anchor's loss is -log(P(p) / (P(p) + c)) - sum over its
    negatives of log(c / (P(n) + c)). Written with s(x) = x / T - log(Z c) it is softplus(-s(p)) plus the sum
    of softplus(s(n)), which neither overflows nor loses digits.

    `Z` is a constant that belongs to the checkpoint. Set it by `estimate_z` before training; where it is
    not set, the first batch sets it, as the released code does.

    Args:
        k: negatives per anchor.
        size: rows of the bank, N.
        temperature: T.
        reduction: "mean" over the batch, or "none".
    """

    Z: Tensor  # scalar; 0 where it is not known yet

    def __init__(self, k: int, size: int, temperature: float = 0.07, reduction: Reduction = "mean"):
        super().__init__(temperature, reduction)
        self.k, self.size = k, size
        self.register_buffer("Z", torch.zeros((), dtype=torch.float64))  # exp(1 / T) leaves float32 soon
        self._z_known = False

    def forward(self, positive: Tensor, negative: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of the batch, float32: a scalar, or [B] without reduction.

        Args:
            positive: cosine of each anchor with its positive, [B].
            negative: cosines of each anchor with its negatives, [B, k].
            mask: negatives that are left out, bool [B, k].
        """
        if not self.z_known:
            self.estimate_z(positive, negative, mask)
        shift = (self.Z * (self.k / self.size)).log().float()
        noise = F.softplus(negative.float() / self.temperature - shift)  # [B, k]
        if mask is not None:
            noise = noise.masked_fill(mask, 0.0)
        return self.reduce(F.softplus(shift - positive.float() / self.temperature) + noise.sum(dim=1))

    @property
    def chance(self) -> float:
        """Loss where every cosine is the same and Z fits: log(1 + k) + k log(1 + 1 / k)."""
        return math.log1p(self.k) + self.k * math.log1p(1 / self.k)

    @property
    def z_known(self) -> bool:
        """Whether Z is set."""
        self._z_known = self._z_known or float(self.Z) > 0.0  # asks the device only until it is
        return self._z_known

    @torch.no_grad()
    def estimate_z(self, positive: Tensor | None, negative: Tensor, mask: Tensor | None = None) -> float:
        """Set Z to N times the mean of exp(x / T) over the given cosines, and return it.

        Args:
            positive: cosines [B], or None.
            negative: cosines with mined rows (as released) or with random ones, [B, k].
            mask: negatives that are left out, bool [B, k].
        """
        self.Z.copy_(self.size * self._mean_exp(positive, negative, mask))
        self._z_known = True
        return float(self.Z)

    @torch.no_grad()
    def z_ratio(self, positive: Tensor | None, negative: Tensor, mask: Tensor | None = None) -> Tensor:
        """mean(exp(x / T)) N / Z, a scalar: 1 where Z fits these cosines; arguments as for `estimate_z`."""
        return self._mean_exp(positive, negative, mask) * self.size / self.Z

    def _mean_exp(self, positive: Tensor | None, negative: Tensor, mask: Tensor | None) -> Tensor:
        counts = torch.ones_like(negative, dtype=torch.bool) if mask is None else ~mask
        terms = (negative.double() / self.temperature).exp() * counts
        total, count = terms.sum(dim=1), counts.double().sum(dim=1)  # [B]
        if positive is not None:
            total = total + (positive.double() / self.temperature).exp()
            count = count + 1
        return total.sum() / count.sum()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._z_known = False

    def extra_repr(self) -> str:
        """What it was made with."""
        return f"k={self.k}, size={self.size}, {super().extra_repr()}"


class InfoNCE(ContrastiveLoss):
    """Cross-entropy of the positive among itself and the negatives (van den Oord et al. 2018)."""

    def forward(self, positive: Tensor, negative: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of the batch, see `NCELoss.forward`; 0 for an anchor without negatives."""
        positive = positive.float() / self.temperature  # [B]
        negative = negative.float() / self.temperature  # [B, k]
        if mask is not None:
            negative = negative.masked_fill(mask, -torch.inf)
        return self.reduce(torch.logaddexp(positive, negative.logsumexp(dim=1)) - positive)


class NTXent(ContrastiveLoss):
    """Normalised temperature-scaled cross-entropy: InfoNCE over a batch's 2B views (SimCLR, 2020)."""

    def forward(self, v: Tensor, p: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of the batch, the mean of both directions, float32: a scalar, or [B] without reduction.

        Unlike the other losses it takes vectors: the batch's other views are the negatives.

        Args:
            v: unit vectors of the anchors, [B, D].
            p: unit vectors of their positives, [B, D].
            mask: pairs that are not each other's negatives, bool [B, B]; a pair itself never is.
        """
        batch = len(v)
        with torch.autocast(v.device.type, enabled=False):
            views = torch.cat([v, p]).float()  # [2B, D]
            logits = views @ views.T / self.temperature  # [2B, 2B]
        left_out = torch.eye(batch, dtype=torch.bool, device=v.device)
        if mask is not None:
            left_out = left_out | mask
        positive = logits.diagonal(batch)  # [B], v with p
        rest = logits.masked_fill(left_out.repeat(2, 2), -torch.inf).logsumexp(dim=1)  # [2B]
        losses = torch.logaddexp(torch.cat([positive, positive]), rest) - torch.cat([positive, positive])
        return self.reduce(losses.view(2, batch).mean(dim=0))


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
