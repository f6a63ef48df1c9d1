"""Learning-rate schedules, the optimizer and its state."""

from __future__ import annotations

import math
from typing import Any

import torch

from tce.options.training import OptimOptions

ONE_CYCLE_RISE = 0.3  # share of the steps in which the rate rises
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1e-4  # of the highest rate


def learning_rate(step: int, total: int, steps_per_epoch: int, options: OptimOptions) -> float:
    """Learning rate of a step, a pure function of its number.

    one-cycle and cosine depend on the length of the run: resumed with more epochs, it continues on the longer
    run's curve, which is higher at that step. step and constant do not.

    Args:
        step: steps done before.
        total: steps of the whole run.
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
    """Value at a share of the way from start to end along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Restore momentum and the like from a state dict; the hyperparameters stay the optimizer's own.

    Args:
        optimizer: as `make_optimizer` returns it.
        saved: what its `state_dict` returned in an earlier process.

    Raises:
        ValueError: the state is another optimizer's or another network's.
    """
    own = optimizer.state_dict()
    sizes = [[len(group["params"]) for group in each["param_groups"]] for each in (own, saved)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"groups of {sizes[1]} parameters, expected {sizes[0]}")
    optimizer.load_state_dict({"state": saved["state"], "param_groups": own["param_groups"]})
    adaptive = isinstance(optimizer, torch.optim.AdamW)
    needed = ("step", "exp_avg", "exp_avg_sq") if adaptive else ("momentum_buffer",)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state is None and optimizer.state and group.get("momentum"):
                # A parameter that never had a gradient; fused SGD wants a buffer for all or for none.
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            elif state is not None and not all(isinstance(state.get(name), torch.Tensor) for name in needed):
                raise ValueError(f"the state of a weight lacks one of {', '.join(needed)}")
    match_memory_format(optimizer)


def match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer's state of each weight the weight's own memory format, which fused kernels rely on.

    A state may come from a run in another format (`--channels-last`); read in the wrong order, it would move
    every weight by another's momentum.

    Raises:
        ValueError: a tensor of the state has neither the weight's shape nor a single element.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if not isinstance(value, torch.Tensor):
                continue
            if value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            elif value.numel() != 1:
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}, its weight {tuple(parameter.shape)}"
                )


def make_optimizer(parameters: Any, options: OptimOptions) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW over the parameters, fused."""
    if options.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=options.lr,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            fused=True,
        )
    return torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay, fused=True)
