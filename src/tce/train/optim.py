"""The learning rate of a step, and the optimiser."""

from __future__ import annotations

import math
from typing import Any

import torch

from tce.options.training import OptimOptions

ONE_CYCLE_RISE = 0.3  # share of the steps in which the rate rises
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1e-4  # of the highest rate


def learning_rate(step: int, total: int, steps_per_epoch: int, options: OptimOptions) -> float:
    """Rate of a step, a pure function of its number.

    one-cycle and cosine depend on the length of the whole run: a run that is resumed with more epochs goes on
    along the longer run's curve, which is higher at that step. step and constant do not.

    Args:
        step: steps done before.
        total: steps in all.
        steps_per_epoch: steps in an epoch.
        options: schedule, highest rate, warm-up.
    """
    if options.schedule == "one-cycle":
        rise = ONE_CYCLE_RISE * total
        if step < rise:
            return options.lr * _ease(ONE_CYCLE_START, 1.0, step / rise)
        return options.lr * _ease(1.0, ONE_CYCLE_END, (step - rise) / (total - rise))
    warm = options.warm_up * steps_per_epoch
    if step < warm:
        return options.lr * min(1.0, (step + 1) / warm)
    if options.schedule == "cosine":
        return options.lr * _ease(1.0, 0.0, (step - warm) / (total - warm))
    if options.schedule == "step":
        drops = sum(step >= epoch * steps_per_epoch for epoch in options.lr_decay_epochs)
        return options.lr * options.lr_decay_rate**drops
    return options.lr


def _ease(start: float, end: float, share: float) -> float:
    """From start to end along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Give what the optimiser keeps for a weight the weight's own memory order, which fused kernels rely on.

    A state may come from a run with another one (`--channels-last`); read in the wrong order, it would move
    every weight by another's momentum.
    """
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def make_optimizer(parameters: Any, options: OptimOptions) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW over the parameters, its arithmetic in one kernel a step."""
    if options.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=options.lr,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            fused=True,
        )
    return torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay, fused=True)
