"""How much a frozen network's features know: weighted k nearest neighbours, and a linear classifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tce.evaluation.splits import hold_out
from tce.evaluation.metrics import top_k
from tce.evaluation.neighbours import Rows, nearest

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
DEFAULT_PENALTY = 1e-3


def unit_rows(rows: Floats) -> Floats:
    """Rows [N, D] scaled to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)


def knn_scores(
    queries: Rows,
    rows: Rows,
    labels: Ints,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = "cpu",
) -> Floats:
    """Class scores by weighted k nearest neighbours: each neighbour votes exp(similarity / temperature).

    The protocol of instance discrimination (Wu et al., 2018, section 3.4).

    Args:
        queries: unit vectors [Q, D].
        rows: unit vectors with known class [N, D].
        labels: [N].
        classes: C.
        k: neighbours that vote; all rows where there are fewer.
        temperature: of the votes.
        device: where the products run.

    Returns:
        Scores [Q, C]; minus infinity for a class without a vote.
    """
    similarity, index = nearest(queries, rows, min(k, len(rows)), device)
    # The best neighbour votes 1: dividing all by one number changes no order and never overflows.
    votes = np.exp((similarity - similarity[:, :1]) / temperature).astype(np.float64)
    cell = np.arange(len(votes))[:, None] * classes + labels[index]  # [Q, k]
    scores = np.bincount(cell.ravel(), votes.ravel(), minlength=len(votes) * classes)
    scores = scores.reshape(len(votes), classes)
    return np.where(scores > 0, scores, -np.inf).astype(np.float32)


@dataclass
class LinearProbe:
    """Multinomial logistic regression on standardised features.

    Attributes:
        mean: [D], taken off the features.
        scale: [D], multiplied with them.
        weight: [C, D].
        bias: [C].
        penalty: strength of the squared-weight penalty.
        chosen_on: what the penalty was chosen on: "groups", "pieces" (of groups), or "nothing".
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    penalty: float
    chosen_on: str

    def scores(self, features: Floats) -> Floats:
        """Features [N, D] -> logits [N, C]."""
        x = (torch.as_tensor(features).to(self.mean) - self.mean) * self.scale
        return (x @ self.weight.T + self.bias).cpu().numpy()


def fit_linear(
    features: Floats,
    labels: Ints,
    groups: list[str] | npt.NDArray[np.str_],
    classes: int,
    seed: int = 0,
    penalty: float | None = None,
    device: torch.device | str = "cpu",
) -> LinearProbe:
    """Fit a linear probe by L-BFGS to its one optimum: no learning rate, no epochs, no luck.

    The penalty is chosen among powers of ten on groups held out of the training clips, then everything is
    fitted again with it. Where classes have one recording each, nothing honest can be held out and
    the penalty is `DEFAULT_PENALTY`.

    Args:
        features: [N, D].
        labels: [N].
        groups: [N] the group (person, recording) of each clip.
        classes: C.
        seed: of the clips held out.
        penalty: fixes the strength.
        device: where the fit runs.

    Returns:
        The fitted probe.
    """
    chosen_on = "fixed"
    if penalty is None:
        penalty, chosen_on = _choose_penalty(features, labels, list(groups), classes, seed, device)
    return _fit(features, labels, classes, penalty, chosen_on, device)


def _choose_penalty(
    features: Floats, labels: Ints, groups: list[str], classes: int, seed: int, device: torch.device | str
) -> tuple[float, str]:
    held, way = hold_out(labels, groups, 0.25, seed)
    if "groups" not in way:  # neighbouring pieces of one recording would choose the weakest penalty
        return DEFAULT_PENALTY, "nothing"
    best = (-1.0, DEFAULT_PENALTY)
    for penalty in PENALTIES:
        probe = _fit(features[~held], labels[~held], classes, penalty, way, device)
        right = top_k(probe.scores(features[held]), labels[held], 1).mean()
        best = max(best, (float(right), penalty))  # of equals, the stronger penalty
    return best[1], way


def _fit(
    features: Floats, labels: Ints, classes: int, penalty: float, chosen_on: str, device: torch.device | str
) -> LinearProbe:
    x = torch.as_tensor(features, dtype=torch.float32).to(device)  # [N, D]
    mean, scale = x.mean(dim=0), 1 / x.std(dim=0, correction=0).clamp(min=1e-6)
    x = (x - mean) * scale
    y = torch.as_tensor(labels).to(device)
    weight = torch.zeros(classes, x.shape[1], device=x.device, requires_grad=True)
    bias = torch.zeros(classes, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=200, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(x @ weight.T + bias, y) + penalty * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(objective)
    return LinearProbe(mean, scale, weight.detach(), bias.detach(), penalty, chosen_on)
