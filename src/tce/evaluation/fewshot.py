"""Accuracy with few labelled clips of each class: nearest centroid and logistic regression, many draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from tce.errors import TceError
from tce.evaluation.metrics import top_k
from tce.evaluation.probes import DEFAULT_PENALTY, center_and_scale, solve_logistic, unit_rows
from tce.evaluation.protocols import SplitResult
from tce.rng import uniform

if TYPE_CHECKING:
    from tce.data.splits import SplitClips
    from tce.evaluation.protocols import Evaluator

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

DRAWS = 300  # stream of the counter-based generator
NAMED_CLASSES = 5


def fewshot(evaluator: Evaluator, clips: SplitClips) -> SplitResult:
    """Top-1 of nearest centroid and logistic regression for each number of labelled clips a class.

    Training clips are drawn `--draws` times; a larger number of one draw contains the smaller ones. A clip's
    value is the share of the draws in which its class is predicted.
    """
    options = evaluator.options
    both = evaluator.train_test(clips)
    labels, classes = clips.labels[both.train], len(clips.classes)
    shots, caveats = possible_shots(labels, clips.classes, options.shots)
    penalty = DEFAULT_PENALTY if options.penalty is None else options.penalty
    rows, queries = unit_rows(both.train_features), unit_rows(both.test_features)
    own = clips.labels[both.test]
    order = [draw_order(labels, options.seed, draw) for draw in range(options.draws)]
    device = evaluator.network.network.device
    mean, scale = center_and_scale(both.train_features)  # no labels are used
    scaled, scaled_queries = (scale * (side - mean) for side in (both.train_features, both.test_features))
    draws: dict[str, npt.NDArray[np.float64]] = {}
    for shot in shots:
        chosen = [np.flatnonzero(rank < shot) for rank in order]
        centroid = [centroid_scores(queries, rows[part], labels[part], classes) for part in chosen]
        logistic = [
            logistic_scores(scaled_queries, scaled[part], labels[part], classes, penalty, device)
            for part in chosen
        ]
        for name, scores in (("centroid", centroid), ("logistic", logistic)):
            draws[f"{name}@{shot}"] = np.stack([top_k(part, own, 1) for part in scores]).astype(np.float64)
    metrics: dict[str, Any] = {name: float(hits.mean()) for name, hits in draws.items()}
    metrics["over_draws"] = {name: spread(hits) for name, hits in draws.items()}
    settings = {**both.settings, "shots": list(shots), "draws": options.draws, "penalty": penalty}
    del settings["labels"]
    return SplitResult(
        both.test,
        metrics,
        {name: hits.mean(axis=0) for name, hits in draws.items()},
        settings,
        dict.fromkeys(draws, 1 / classes),
        draws=draws,
        reading=_reading(metrics["over_draws"], shots),
        caveats=caveats,
    )


def possible_shots(
    labels: Ints, classes: list[str], shots: tuple[int, ...]
) -> tuple[tuple[int, ...], list[str]]:
    """The numbers of labelled clips that at least half of the classes can give, and what to know of them.

    A class with fewer clips than a number gives all that it has, and is named.

    Args:
        labels: [N] classes of the training clips.
        classes: their names.
        shots: the numbers asked for.

    Raises:
        TceError: no number is possible.
    """
    have = np.bincount(labels, minlength=len(classes))
    kept, caveats = [], []
    for shot in sorted(set(shots)):
        short = np.flatnonzero(have < shot)
        names = ", ".join(f"{classes[label]} ({have[label]})" for label in short[:NAMED_CLASSES])
        names += ", ..." if len(short) > NAMED_CLASSES else ""
        few = f"{shot} a class: {len(short)} of {len(classes)} classes have fewer training clips: {names}"
        if 2 * len(short) > len(classes):
            caveats.append(f"{few}; left out")
            continue
        kept.append(shot)
        if len(short):
            caveats.append(f"{few}; they give all they have")
    if not kept:
        raise TceError(
            f"--shots {' '.join(map(str, shots))}",
            expected="a number of clips that half of the classes have for training",
            found=caveats[0].removesuffix("; left out"),
            fix="give smaller numbers, or another --split",
        )
    return tuple(kept), caveats


def draw_order(labels: Ints, seed: int, draw: int) -> Ints:
    """The place of each clip within its class in a random order, [N]; those below n are the draw's n clips.

    A pure function of seed, draw and the clip's number.

    Args:
        labels: [N].
        seed: of all draws.
        draw: number of the draw.
    """
    keys = uniform(seed, draw, np.arange(len(labels)), DRAWS, 1)[:, 0]
    order = np.lexsort((keys, labels))
    first = np.searchsorted(labels[order], labels[order])
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - first
    return place


def centroid_scores(queries: Floats, rows: Floats, labels: Ints, classes: int) -> Floats:
    """Cosine of each query with the mean of each class's rows, [Q, C]; minus infinity without any.

    Args:
        queries: unit vectors [Q, D].
        rows: unit vectors [N, D].
        labels: [N].
        classes: C.
    """
    scores = np.full((len(queries), classes), -np.inf, np.float32)
    present, number = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(present), rows.shape[1]), np.float32)
    np.add.at(sums, number, rows)
    scores[:, present] = queries @ unit_rows(sums).T
    return scores


def logistic_scores(
    queries: Floats, rows: Floats, labels: Ints, classes: int, penalty: float, device: torch.device | str
) -> Floats:
    """Logits [Q, C] of logistic regression fitted on the rows; minus infinity for classes without any.

    With a penalty the weights are combinations of the rows, so the fit runs in the rows' span: of N numbers
    a row where N is less than D, with the same optimum.

    Args:
        queries: [Q, D].
        rows: [N, D].
        labels: [N].
        classes: C.
        penalty: strength of the squared-weight penalty.
        device: where the fit runs.
    """
    x, asked = (torch.as_tensor(side).to(device) for side in (rows, queries))
    if len(rows) < rows.shape[1]:
        basis = torch.linalg.qr(x.T.double()).Q.float()  # [D, N]
        x, asked = x @ basis, asked @ basis
    present, number = np.unique(labels, return_inverse=True)
    weight, bias = solve_logistic(x, torch.as_tensor(number).to(device), len(present), penalty)
    scores = np.full((len(queries), classes), -np.inf, np.float32)
    scores[:, present] = (asked @ weight.T + bias).cpu().numpy()
    return scores


def spread(hits: npt.NDArray[np.float64]) -> dict[str, float]:
    """How much the accuracy of single draws differs, of hits [draws, n]."""
    each = hits.mean(axis=1)
    return {"sd": float(each.std()), "lowest": float(each.min()), "highest": float(each.max())}


def _reading(over_draws: dict[str, dict[str, float]], shots: tuple[int, ...]) -> str:
    each = ", ".join(f"{100 * over_draws[f'centroid@{shot}']['sd']:.1f} ({shot})" for shot in shots)
    return f"which clips are labelled moves the nearest centroid by {each} points (standard deviation)"
