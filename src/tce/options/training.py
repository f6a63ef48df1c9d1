"""The options that all training shares: optimiser, schedule, run folder, hardware.

Flags, `--help`, recipes and `options.json` all come from the dataclasses here and in `pretrain` and
`finetune`, which extend them. Importing them costs no torch.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.constructors import PrimitiveConstructorSpec

from tce.errors import OptionError
from tce.options.checks import FromZero, Momentum, Positive, Seed, TwoOrMore, check_fields
from tce.recipes import recipe_text

# Several epochs as words, or as the 2020 release wrote them: 350,400.
Epochs = Annotated[
    tuple[int, ...],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[INT ...]",
        instance_from_str=lambda words: tuple(int(epoch) for word in words for epoch in word.split(",")),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(epoch, int) for epoch in value),
        str_from_instance=lambda value: [str(epoch) for epoch in value],
    ),
]


@dataclass(frozen=True)
class OptimOptions:
    """Optimizer and learning rate."""

    epochs: Positive = 100
    """Passes over the clips."""
    batch_size: TwoOrMore = 64
    """Clips per batch."""
    accumulate: Positive = 1
    """Batches whose gradients are averaged for one step: a larger batch in the same memory."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd with momentum (paper), or adamw, for transformers."""
    lr: FromZero = 0.06
    """Highest learning rate; not scaled with the batch size."""
    schedule: Literal["one-cycle", "cosine", "step", "constant"] = "one-cycle"
    """Learning rate: rises and falls (one-cycle), falls (cosine), drops at --lr-decay-epochs (step), or stays
    (constant)."""
    warm_up: FromZero = 0.0
    """Epochs in which the rate rises from 0 before a cosine, step or constant schedule."""
    lr_decay_epochs: Epochs = ()
    """Epochs at which --schedule step lowers the rate."""
    lr_decay_rate: float = 0.1
    """Factor of the rate at each of --lr-decay-epochs."""
    momentum: Momentum = 0.9
    """Momentum of SGD."""
    weight_decay: FromZero = 1e-4
    """Factor of the weights that is added to their gradient, or with adamw subtracted from them."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.schedule == "step" and not self.lr_decay_epochs:
            raise OptionError(
                "--lr-decay-epochs", expected="one epoch or more for --schedule step", found="none"
            )
        if self.schedule == "one-cycle" and self.warm_up:
            raise OptionError(
                "--warm-up",
                expected="0 for --schedule one-cycle, which warms up itself",
                found=f"{self.warm_up:g}",
            )
        if self.warm_up >= self.epochs:
            raise OptionError(
                "--warm-up", expected=f"fewer than --epochs {self.epochs}", found=f"{self.warm_up:g}"
            )


@dataclass(frozen=True)
class RunOptions:
    """Run folder, checkpoints and hardware; of these, only --seed changes what is learned."""

    recipe: str = "default"
    """Named defaults that flags override."""
    show: bool = False
    """Print the recipe with a reason for every value, and exit."""
    force: bool = False
    """Replace the run in the run folder."""
    seed: Seed = 0
    """Seed of frame choice, augmentation, negatives and initial weights."""
    workers: Positive = 1
    """Threads that decode frames; the results do not depend on their number."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto: a GPU if there is one."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of the network's passes; auto measures both and takes the faster one."""
    compile: bool = False
    """Use torch.compile: a slower start, faster steps on GPUs."""
    deterministic: bool = False
    """Use only GPU kernels whose results repeat bit for bit, which are slower."""
    checkpoint_minutes: FromZero = 10.0
    """Minutes between checkpoints, the most that a crash loses; 0: after every step."""
    keep: Positive = 1
    """Checkpoints to keep, the latest included."""
    max_steps: Positive | None = None
    """Stop at this step of the run, with a checkpoint to resume from; schedules still extend to --epochs."""
    log_steps: Positive = 10
    """Steps between rows of log.csv, which hold means since the previous row."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def stops_on_warning(self) -> bool:
        """Whether a warning of the task ends the run."""
        return False

    def validation_interval(self, epochs: int) -> int:
        """Epochs between validations in a run of `epochs`; 0: none."""
        return max(1, epochs // 10)


def require_used_decay(options: OptimOptions, command: str, recipe: str) -> None:
    """Refuse a decay that the schedule ignores, unless it is the recipe's own.

    Args:
        options: optimizer and schedule.
        command: the command's name.
        recipe: the named recipe.

    Raises:
        OptionError: `--lr-decay-epochs` or `--lr-decay-rate` without `--schedule step`.
    """
    if options.schedule == "step":
        return
    own = tomllib.loads(recipe_text(command, recipe)).get("optim", {})
    for name in ("lr_decay_epochs", "lr_decay_rate"):
        value, default = getattr(options, name), getattr(OptimOptions, name)
        usual = own.get(name, default)
        if value not in (default, tuple(usual) if isinstance(usual, list) else usual):
            raise OptionError(
                "--" + name.replace("_", "-"),
                expected="--schedule step, since other schedules ignore it",
                found=f"--schedule {options.schedule}",
                fix="add --schedule step",
            )
