"""The options of pre-training: what is learned from, by which method, how fast, and where it is written.

Importing them costs no torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from tyro.conf import Positional, Suppress, arg

from tce.errors import OptionError
from tce.options.checks import (
    AboveZero,
    FromZero,
    Momentum,
    NotNegative,
    Pixels,
    Positive,
    Range,
    Share,
    TwoOrMore,
    check_crops,
    check_fields,
)
from tce.options.training import OptimOptions, RunOptions

METHOD_OF_LOSS = {"ntxent": "simclr", "nce": "tce"}
TCE_FIELDS = (
    *("negatives", "threshold_by", "threshold_low", "threshold_high", "threshold_rate"),
    *("constant_z", "own_row_positive", "rotation"),
)
LEAST_TEMPERATURE = 1e-4
LEAST_TCE_TEMPERATURE = 0.002  # exp(1 / 0.002) is near the largest number


@dataclass(frozen=True)
class DataOptions:
    """Training clips."""

    data: Annotated[Positional[str], arg(metavar="DATA")] = ""
    """Folder of videos or frame folders (any depth), or a collection made by `tce pack`."""
    lists: str | None = None
    """Folder of UCF101-style lists; with it, only the train clips of --split are used."""
    split: str | None = None
    """Number of the split whose train clips are used, e.g. 01; by default 01 with
    --lists, else every clip."""
    frame_size: Pixels | None = None
    """Side of the loaded frames in pixels before augmentation; by default 8/7 of --image-size,
    which leaves room for crops."""
    resize: Literal["squash", "center-crop", "squash-nearest"] = "squash"
    """How frames become square: squash the whole frame, or crop its centre; squash-nearest: as released."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ModelOptions:
    """The frame encoder."""

    model: str | None = None
    """resnet18, 34, 50, 101 or 152; lite0 or lite2; hf:FOLDER_OR_NAME for a transformers model;
    package.module:callable; by default that of --start, or resnet18."""
    weights: Annotated[str | None, arg(aliases=["--start"])] = None
    """Network to start from: lite2, lite0, hf:NAME, a run folder or a checkpoint in any known format; by
    default random weights."""
    embedding_size: TwoOrMore = 128
    """Numbers in an embedding; 128 as in the paper."""
    head: Literal["linear", "mlp"] = "linear"
    """Projection from features to embedding: one layer (paper) or two (SimCLR)."""
    image_size: Pixels = 112
    """Side of the network's input in pixels; 224 in the paper, 112 for a quarter of the work."""
    freeze: str | None = None
    """Freeze the network up to and including this layer, e.g. layer2; by default all is trained."""
    keep_statistics: bool | None = None
    """Leave batch norm's statistics as they are; by default from lite2 and lite0, which were trained on far
    larger batches."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ContrastOptions:
    """Positives and negatives."""

    method: Literal["tce", "simclr", "moco"] = "simclr"
    """Source of the negatives: a mined memory bank (tce, the paper), the batch (simclr), a queue (moco)."""
    positives: Literal["neighbour", "same"] = "neighbour"
    """An anchor's positive: a neighbouring frame of its clip (paper), or the same frame (SimCLR, MoCo)."""
    window: float = 16
    """Largest distance of a neighbour from the anchor, in --window-unit; half a second of most videos."""
    window_from: AboveZero = 1
    """Smallest distance of a neighbour, in --window-unit; at least one frame."""
    window_unit: Literal["frames", "seconds"] = "frames"
    """Unit of --window; use seconds where clips differ in frame rate."""
    temperature: Annotated[float, Range(LEAST_TEMPERATURE, 100)] = 0.07
    """Temperature T, by which cosine similarities are divided; 0.07 in the paper."""
    batch_groups: Share = 0.0
    """Share of the batches whose clips are all of one --group, so that telling groups apart does not help."""
    group: str | None = None
    """Groups for --batch-groups: "group" (the lists' or table's column), "recording", "folder", or a pattern
    such as _(p[0-9]+)_ for the clip's id."""
    exclude_same_source: bool = False
    """Never take another piece of the same recording as a negative."""
    views: Literal["separate", "joint"] = "joint"
    """Pass anchors, positives and rotated frames each on their own (paper), or jointly."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not math.isfinite(self.window):
            raise OptionError("--window", expected="a number", found=f"{self.window:g}")
        if not self.window >= self.window_from:
            raise OptionError(
                "--window", expected=f"at least --window-from {self.window_from:g}", found=f"{self.window:g}"
            )
        if self.batch_groups and self.group is None:
            raise OptionError(
                "--batch-groups", expected="--group as well", found="none", fix="add --group group"
            )
        if self.method == "tce" and self.temperature < LEAST_TCE_TEMPERATURE:
            raise OptionError(
                "--temperature",
                expected=f"at least {LEAST_TCE_TEMPERATURE:g} with --method tce",
                found=f"{self.temperature:g}",
            )


@dataclass(frozen=True)
class TCEOptions:
    """The paper's method: memory bank, mining curriculum, NCE loss, rotation task (--method tce)."""

    negatives: Positive | None = None
    """K, negatives of an anchor; by default an eighth of the clips, at most 8192 (paper)."""
    threshold_by: Literal["similarity", "quantile"] = "similarity"
    """Mine below a rising cosine (paper), or below a rising quantile of each anchor's cosines."""
    threshold_low: Suppress[float | None] = None
    """Threshold at the first step; None: the scale's end (-1, quantile 0), where negatives are random."""
    threshold_high: Suppress[float] = 1.0
    """Threshold the curriculum rises towards: 1 lets every row pass."""
    threshold_rate: Suppress[FromZero] = 5.0
    """Speed of the rise: threshold = low + (high - low)(1 - exp(-rate t)), t the share of training done."""
    constant_z: Literal["estimated", "first-step"] = "estimated"
    """NCE's constant Z: fill the bank, then estimate Z on its rows; or start random and set Z in the first
    step, as the released code did."""
    own_row_positive: Literal["no", "also"] = "no"
    """Use the clip's own row in the bank as a positive too, which slows drift."""
    rotation: FromZero = 0.0
    """Weight of the rotation task's loss; 1 in the paper, 0: no rotated view."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.lowest_threshold > self.threshold_high:
            raise OptionError(
                "threshold_low",
                expected=f"at most threshold_high {self.threshold_high:g}",
                found=f"{self.lowest_threshold:g}",
            )
        if self.threshold_by == "quantile":
            self._require_quantiles()

    def _require_quantiles(self) -> None:
        for name, value in (("low", self.lowest_threshold), ("high", self.threshold_high)):
            if not 0 <= value <= 1:
                expected = "from 0 to 1 with --threshold-by quantile"
                raise OptionError(f"threshold_{name}", expected, f"{value:g}")

    @property
    def lowest_threshold(self) -> float:
        """The threshold at the first step."""
        if self.threshold_low is not None:
            return self.threshold_low
        return 0.0 if self.threshold_by == "quantile" else -1.0

    @property
    def fills_bank(self) -> bool:
        """Whether one pass over the clips fills the bank before training; otherwise it starts random."""
        return self.constant_z == "estimated"


@dataclass(frozen=True)
class MoCoOptions:
    """Momentum contrast (--method moco)."""

    momentum_encoder: Momentum = 0.99
    """Share of the momentum encoder's old weights that each step keeps."""
    queue: TwoOrMore | None = None
    """Keys in the queue; by default one for each clip, at most 65536."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class AugmentOptions:
    """Augmentation of a pair's two frames."""

    crops: Literal["shared", "independent"] = "independent"
    """One random crop for the pair (paper), or one for each frame, so that places do not identify clips."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest share of the frame's area in a crop; 1 1 takes the whole frame (as released)."""
    crop_ratio: Suppress[tuple[float, float]] = (0.75, 1.333)
    """Narrowest and widest crop, width over height."""
    flip: Share = 0.5
    """Probability of mirroring the pair; both frames, since a mirrored motion is another motion."""
    grey: Share = 0.5
    """Probability, per frame, of replacing all channels by one random channel (paper: channel-split grey)."""
    brightness: Suppress[Share] = 0.5
    """Largest relative change of brightness, drawn per frame."""
    color_contrast: Suppress[Share] = 0.5
    """Largest relative change of contrast, drawn per frame."""
    saturation: Suppress[Share] = 0.5
    """Largest relative change of saturation, drawn per frame."""
    hue: Suppress[Annotated[float, Range(0, 0.5)]] = 0.25
    """Largest shift of hue as a share of the colour circle, drawn per frame."""
    blur: Share = 0.0
    """Probability, per frame, of Gaussian blur; 0.5 in SimCLR."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_crops(self.crop_scale, self.crop_ratio)


@dataclass(frozen=True)
class PretrainOptimOptions(OptimOptions):
    """Optimizer and learning rate."""

    epochs: Positive = 100
    """Passes over the clips, one anchor of each. May be raised with --resume: one-cycle and cosine schedules
    and the mining threshold then follow the longer run's curve."""
    backbone_lr: FromZero | None = None
    """Factor of the backbone's learning rate; by default 0.1 from lite2, lite0 or hf:, else 1."""
    batch_size: TwoOrMore = 64
    """Clips per batch over all processes; the last incomplete batch of an epoch is dropped."""
    lr_decay_rate: Suppress[float] = 0.1
    """Factor of the rate at each of --lr-decay-epochs."""
    momentum: Suppress[Momentum] = 0.9
    """Momentum of SGD."""


@dataclass(frozen=True)
class PretrainRunOptions(RunOptions):
    """Run folder, checkpoints and hardware; of these, only --seed changes what is learned."""

    out: str = ""
    """Run folder to write: options, logs, checkpoints, model.safetensors and result.json."""
    recipe: str = "default"
    """Named defaults that flags override: default, quick or paper-kinetics400."""
    resume: bool = False
    """Resume the run in --out from its latest checkpoint, or start it where there is none."""
    channels_last: Suppress[bool] = True
    """Whether images have the memory layout with which convolutions are fastest."""
    sync_bn: bool = False
    """Compute batch statistics over all GPUs."""
    monitor_epochs: NotNegative | None = None
    """Epochs between validations of the embeddings (kNN, rank); by default ten in a run, 0: none."""
    monitor_clips: Suppress[TwoOrMore] = 1000
    """Most clips in a validation, which limits its time."""
    stop_on_collapse: bool = False
    """Stop when the embeddings' effective rank collapses, instead of only warning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.force:
            raise OptionError("--resume and --force", expected="one of them", found="both")

    @property
    def stops_on_warning(self) -> bool:
        """Whether what the task warns of ends the run."""
        return self.stop_on_collapse

    def validation_interval(self, epochs: int) -> int:
        """Epochs between validations in a run of `epochs`; 0: none."""
        return super().validation_interval(epochs) if self.monitor_epochs is None else self.monitor_epochs


@dataclass(frozen=True)
class PretrainOptions:
    """All options of `tce pretrain`."""

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    contrast: ContrastOptions = field(default_factory=ContrastOptions)
    tce: TCEOptions = field(default_factory=TCEOptions)
    moco: MoCoOptions = field(default_factory=MoCoOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    optim: PretrainOptimOptions = field(default_factory=PretrainOptimOptions)
    run: PretrainRunOptions = field(default_factory=PretrainRunOptions)

    def __post_init__(self) -> None:
        frame = self.data.frame_size
        if frame is not None and frame < self.model.image_size:
            raise OptionError(
                "--frame-size", expected=f"at least --image-size {self.model.image_size}", found=str(frame)
            )
        for method in ("tce", "moco"):
            self._require_method(method)

    def require_given(self) -> None:
        """Check that DATA and --out are given, which a recipe alone lacks.

        Raises:
            OptionError: one of them is not.
        """
        for flag, value in (("DATA", self.data.data), ("--out", self.run.out)):
            if not value and not self.run.show:
                raise OptionError(flag, expected="a folder", found="nothing", fix="see tce pretrain --help")

    @property
    def frame_size(self) -> int:
        """Side of the loaded frames in pixels."""
        return self.data.frame_size or round(self.model.image_size * 8 / 7)

    def _require_method(self, method: str) -> None:
        """Refuse an option of a method that is not the chosen one.

        Raises:
            OptionError: naming the first such flag.
        """
        group = getattr(self, method)
        for option in dataclasses.fields(group):
            if self.contrast.method != method and getattr(group, option.name) != option.default:
                raise OptionError(
                    "--" + option.name.replace("_", "-"),
                    expected=f"--method {method}",
                    found=f"--method {self.contrast.method}",
                    fix=f"add --method {method}, or leave it out",
                )


def current_options(record: Mapping[str, Any], out: str) -> Mapping[str, Any]:
    """What a run's options.json holds, in the present groups.

    Args:
        record: the file's content.
        out: the run folder, for the message.

    Raises:
        OptionError: the run's method no longer exists.
    """
    groups = record.get("options", {})
    contrast = groups.get("contrast", {})
    if record.get("command") != "pretrain" or "method" in contrast or "loss" not in contrast:
        return record
    gone = removed_options(groups)
    if gone:
        raise OptionError(
            f"--resume {out}",
            expected="a run of --method tce, simclr or moco",
            found=f"one with {gone[0]}, which this version does not have",
            fix=f"start a new run from its network with --weights {out}",
        )
    method = METHOD_OF_LOSS[contrast["loss"]]
    tce = {name: contrast[name] for name in TCE_FIELDS if name in contrast} if method == "tce" else {}
    return {**record, "options": {**groups, "contrast": {**contrast, "method": method}, "tce": tce}}


def removed_options(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Options of an earlier version, in its groups, that changed what is learned and no longer exist."""
    contrast, augment = groups.get("contrast", {}), groups.get("augment", {})
    loss, mining = contrast.get("loss"), contrast.get("mining", "curriculum")
    used = {
        f"--loss {loss}": loss not in METHOD_OF_LOSS,
        f"--mining {mining}": loss != "ntxent" and mining != "curriculum",
        "--own-row-positive only": contrast.get("own_row_positive") == "only",
        "--momentum-encoder": contrast.get("momentum_encoder", 0) > 0,
        "--bank-momentum": contrast.get("bank_momentum", 0) > 0,
        f"--rotation beside --loss {loss}": loss == "ntxent" and contrast.get("rotation", 0) > 0,
        "--jitter released": augment.get("jitter", "linear") == "released",
        "--chunks": groups.get("optim", {}).get("chunks", 1) > 1,
    }
    return [flag for flag, given in used.items() if given]
