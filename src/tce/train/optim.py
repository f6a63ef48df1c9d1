"""The position of a run, the learning rate there, the optimizer and its state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tce.model.backbone import ExternalBackbone
from tce.model.classifier import Classifier
from tce.options.training import OptimOptions

ONE_CYCLE_RISE = 0.3  # share of the steps in which the rate rises
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1e-4  # of the highest rate


@dataclass(frozen=True)
class TrainProgress:
    """The position of a run.

    Attributes:
        step: steps done before the present one.
        steps_per_epoch: steps in an epoch.
        epochs: epochs in all.
        log_steps: steps between rows of the log.
        validation_interval: epochs between validations, 0 for none.
    """

    step: int
    steps_per_epoch: int
    epochs: int
    log_steps: int = 10
    validation_interval: int = 0

    @property
    def total_steps(self) -> int:
        """Steps in all."""
        return self.steps_per_epoch * self.epochs

    @property
    def epoch(self) -> int:
        """Number of the present step's epoch, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def fraction(self) -> float:
        """Fraction of the training that is done, t in [0, 1)."""
        return self.step / self.total_steps

    @property
    def should_validate(self) -> bool:
        """Whether a validation follows the present step."""
        done = self.step + 1
        if not self.validation_interval:
            return False
        return done == self.total_steps or done % (self.steps_per_epoch * self.validation_interval) == 0

    @property
    def should_log(self) -> bool:
        """Whether a row is logged after the present step."""
        return (
            (self.step + 1) % self.log_steps == 0 or self.step + 1 == self.total_steps or self.should_validate
        )


def learning_rate(progress: TrainProgress, options: OptimOptions) -> float:
    """Learning rate of a step, a pure function of its number.

    one-cycle and cosine depend on the length of the run: resumed with more epochs, it continues on the longer
    run's curve, which is higher at that step. step and constant do not.

    Args:
        progress: the step, and how many there are.
        options: schedule, highest rate, warm-up.
    """
    step, total = progress.step, progress.total_steps
    if options.schedule == "one-cycle":
        rise = ONE_CYCLE_RISE * total
        if step < rise:
            return options.lr * _ease(ONE_CYCLE_START, 1.0, step / rise)
        return options.lr * _ease(1.0, ONE_CYCLE_END, (step - rise) / (total - rise))
    warm = options.warm_up * progress.steps_per_epoch
    if step < warm:
        return options.lr * min(1.0, (step + 1) / warm)
    if options.schedule == "cosine":
        return options.lr * _ease(1.0, 0.0, (step - warm) / (total - warm))
    if options.schedule == "step":
        drops = sum(step >= epoch * progress.steps_per_epoch for epoch in options.lr_decay_epochs)
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


def stage_groups(
    classifier: Classifier, layer_decay: float, head_lr: float, backbone_lr: float = 1.0
) -> list[dict[str, Any]]:
    """The trained parameters by stage of the backbone, with their factor "lr_scale" of the learning rate.

    The last stage has factor `backbone_lr`, each one before it `layer_decay` times the next one's; the
    classifier has `head_lr`. Stages are the backbone's children (of our ResNets: conv1 and bn1, layer1 to
    layer4).

    Args:
        classifier: the parameters' network.
        layer_decay: factor from stage to stage.
        head_lr: factor of the classifier.
        backbone_lr: factor of the backbone's last stage.
    """
    network: nn.Module = classifier.backbone
    network = network.model if isinstance(network, ExternalBackbone) else network
    stages: list[list[nn.Parameter]] = []
    for name, child in network.named_children():
        if name == "bn1" and stages:
            stages[-1] += child.parameters()  # the stem's own
        elif any(True for _ in child.parameters()):
            stages.append(list(child.parameters()))
    own = list(network.parameters(recurse=False))
    if own:
        stages.insert(0, own)
    scales = [backbone_lr * layer_decay ** (len(stages) - 1 - place) for place in range(len(stages))]
    groups = [
        {"params": [p for p in stage if p.requires_grad], "lr_scale": scale}
        for stage, scale in zip(stages, scales, strict=True)
    ]
    groups.append({"params": list(classifier.fc.parameters()), "lr_scale": head_lr})
    return [group for group in groups if group["params"]]
