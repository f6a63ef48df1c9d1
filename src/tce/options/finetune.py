"""The options of fine-tuning: clips, network, augmentation, optimiser, run. Importing them costs no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from tce.errors import OptionError
from tce.options.checks import (
    FromZero,
    NotNegative,
    Pixels,
    Positive,
    Range,
    Seed,
    Share,
    TwoOrMore,
    check_crops,
    check_fields,
    labels_amount,
)
from tce.options.training import OptimOptions, RunOptions

LISTS_FOLDER = "UCF_list"  # the 2020 release's place for the lists

# `--resume` alone means the run in --savedir; with a path, the checkpoint there.
Resume = Annotated[
    str | None,
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[CHECKPOINT]",
        instance_from_str=lambda words: words[0] if words else "",
        is_instance=lambda value: value is None or isinstance(value, str),
        str_from_instance=lambda value: [value] if value else [],
    ),
]


@dataclass(frozen=True)
class FinetuneDataOptions:
    """Clips and their division into training, validation and test clips."""

    data: str | None = None
    """Folder of videos or frame folders (any depth), or a collection; by default the environment variable
    TCE_UCF101 (TCE_ and the name of --dataset)."""
    lists: str | None = None
    """Folder of the dataset's lists; by default the variable TCE_UCF101_LISTS, else the folder UCF_list.
    Without lists, classes are folders, and 30% of each class's clips, whole groups, are the test clips."""
    split: str = "01"
    """Split of the lists; several as 01,02,03, or `all`: a run each in --savedir/splitNN, and the mean."""
    dataset: str = "ucf101"
    """Dataset whose environment variables are read."""
    labels: str | None = None
    """Labels to train with: a share of each class as 10%, or a number as 5/class; by default all."""
    held_out: Annotated[float, Range(0, 0.5)] = 0.1
    """Share of the training clips to hold out for validation, in whole groups. The network that does best on
    them is kept if they are 100 or more, else the last epoch's. 0: train on all clips."""
    balanced: bool = False
    """Draw every class equally often instead of every clip once an epoch."""
    max_missing: Share = 0.05
    """Largest share of the listed clips that may be missing from the footage."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.labels is not None:
            labels_amount(self.labels)

    @property
    def footage(self) -> str:
        """Path of the footage.

        Raises:
            OptionError: neither the flag nor the environment variable is set.
        """
        variable = f"TCE_{self.dataset.upper()}"
        found = self.data or os.environ.get(variable)
        if not found:
            raise OptionError("--data", expected=f"a folder, or the variable {variable}", found="neither")
        return found

    @property
    def lists_folder(self) -> str | None:
        """Folder of the lists, or None for a dataset without any."""
        found = self.lists or os.environ.get(f"TCE_{self.dataset.upper()}_LISTS")
        if not found and self.dataset == "ucf101" and any(Path(LISTS_FOLDER).glob("trainlist*.txt")):
            return LISTS_FOLDER
        return found


@dataclass(frozen=True)
class FinetuneModelOptions:
    """The classifier."""

    model: str | None = None
    """resnet18, 34, 50, 101 or 152; hf:FOLDER_OR_NAME; package.module:callable; by default that of
    --weights, or resnet18."""
    weights: Annotated[str | None, arg(aliases=["--start"])] = None
    """Network to start from: lite2, lite0, hf:NAME, a run folder or a checkpoint in any known format; by
    default random weights."""
    input: Literal["differences", "rgb"] = "differences"
    """Stacks of five frame differences (paper), or RGB frames."""
    segments: Positive = 1
    """Samples of a clip in a training step, one from each of as many parts; their scores are summed."""
    image_size: Pixels | None = None
    """Side of the network's input in pixels; by default that of --weights, or 224 (paper)."""
    resize: Literal["squash", "center-crop"] = "squash"
    """How frames become square: squash the whole frame (paper), or crop its centre."""
    freeze: str | None = None
    """Freeze the backbone up to and including this layer, such as layer2; all: train the classifier only."""
    cached_samples: NotNegative | None = None
    """For --freeze all without augmentation: compute the features of as many evenly spread samples of a clip
    once, and train on them in seconds; 0: pass new frames through the network in each epoch. By default 8
    from lite2, lite0 or hf:, else 0."""
    dropout: Annotated[float, Range(0, 0.99)] = 0.0
    """Probability of dropping a feature before the classifier in training."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def differences(self) -> int:
        """Frame differences in a stack; 0 for RGB."""
        return 5 if self.input == "differences" else 0


@dataclass(frozen=True)
class FinetuneAugmentOptions:
    """Augmentation of the training samples; the same for all frames of a sample, which keeps their motion."""

    crop_scale: tuple[float, float] = (0.4, 1.0)
    """Smallest and largest share of the frame's area in a crop; 1 1 takes the whole frame (paper)."""
    crop_ratio: tuple[float, float] = (0.75, 1.333)
    """Narrowest and widest crop, width over height."""
    flip: Share = 0.5
    """Probability of mirroring; use 0 if classes differ in left and right."""
    color: Share = 0.0
    """Largest relative change of brightness, contrast and saturation; the hue shifts by half of it."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_crops(self.crop_scale, self.crop_ratio)

    @property
    def crops(self) -> bool:
        """Whether frames are cropped."""
        return self.crop_scale != (1.0, 1.0)

    @property
    def none(self) -> bool:
        """Whether there is no augmentation."""
        return not self.crops and not self.flip and not self.color


@dataclass(frozen=True)
class FinetuneOptimOptions(OptimOptions):
    """Optimizer and learning rate."""

    epochs: Positive = 60
    """Passes over the training clips."""
    batch_size: TwoOrMore = 32
    """Clips per batch; an epoch's last batch may be smaller."""
    lr: FromZero = 0.05
    """Highest learning rate; not scaled with the batch size."""
    layer_decay: Annotated[float, Range(1e-3, 1)] = 1.0
    """Factor of the learning rate from each stage of the backbone to the one before it; below 1 preserves
    what was pre-trained."""
    head_lr: FromZero = 1.0
    """Factor of the classifier's learning rate; its weights start at random and may need a larger one."""
    backbone_lr: FromZero | None = None
    """Factor of the backbone's learning rate; by default 0.1 from lite2, lite0 or hf:, else 1."""
    head_epochs: NotNegative | None = None
    """Epochs in which only the classifier is trained, at the start; by default a tenth of --epochs from
    lite2, lite0 or hf:, else 0."""
    label_smoothing: Annotated[float, Range(0, 0.9)] = 0.0
    """Share of the target that is spread over all classes, against overconfidence."""


@dataclass(frozen=True)
class FinetuneRunOptions(RunOptions):
    """Run folder, checkpoints and hardware; of these, only --seed changes what is learned."""

    savedir: Annotated[str, arg(aliases=["--out"])] = ""
    """Run folder to write: options, logs, checkpoints, model.safetensors, result.json and predictions
    (required)."""
    recipe: str = "default"
    """Named defaults that flags override: default, linear, paper-2020-diff or paper-2021-rgb."""
    evaluate: bool = False
    """Test only: the checkpoint of --resume, or that in --savedir, at its own image size."""
    resume: Resume = None
    """Without a path, resume the run in --savedir; with a path, that run's folder or training state, or a
    fine-tuning file of 2020."""
    validate_epochs: Positive | None = None
    """Epochs between validations; by default 20 validations a run."""
    test_looks: bool = False
    """Test at every validation too, and report the best epoch on the test clips (as the paper does), which is
    optimistic."""
    seed: Seed = 0
    """Seed of frame choice, augmentation, held-out clips and initial weights."""
    workers: Positive = 2
    """Threads that decode frames; the results do not depend on their number."""
    progress: bool = False
    """Accepted for 2020 command lines; progress is always shown."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume is not None and self.force:
            raise OptionError("--resume and --force", expected="one of them", found="both")

    def validation_interval(self, epochs: int) -> int:
        """Epochs between validations in a run of `epochs`."""
        return self.validate_epochs or max(1, epochs // 20)


@dataclass(frozen=True)
class FinetuneOptions:
    """All options of `tce finetune`."""

    data: FinetuneDataOptions = field(default_factory=FinetuneDataOptions)
    model: FinetuneModelOptions = field(default_factory=FinetuneModelOptions)
    augment: FinetuneAugmentOptions = field(default_factory=FinetuneAugmentOptions)
    optim: FinetuneOptimOptions = field(default_factory=FinetuneOptimOptions)
    run: FinetuneRunOptions = field(default_factory=FinetuneRunOptions)
