"""The options of pre-training: what is learned from, by which method, how fast, and where it is written.

Importing them costs no torch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, Suppress, arg

from tce.errors import OptionError
from tce.options.checks import at_least, check_choices, check_crops, within
from tce.options.training import OptimOptions, RunOptions


@dataclass(frozen=True)
class DataOptions:
    """Which clips are learned from."""

    data: Annotated[Positional[str], arg(metavar="DATA")] = ""
    """A folder of videos or frame folders (any depth), or a collection made by `tce pack`."""
    lists: str | None = None
    """Folder of UCF101-style lists; with it, only the train clips of --split are used."""
    split: str | None = None
    """Number of the split whose train clips are used, e.g. 01; unset: 01 with --lists, else every clip."""
    frame_size: int | None = None
    """Side of the loaded frames before augmentation, pixels; unset: 8/7 of --image-size, room for crops."""
    resize: Literal["squash", "center-crop", "squash-nearest"] = "squash"
    """How frames become square: squashed, which wastes no pixels, or their centre; nearest: as released."""

    def __post_init__(self) -> None:
        check_choices(self)
        at_least("--frame-size", self.frame_size, 8)


@dataclass(frozen=True)
class ModelOptions:
    """The frame encoder."""

    model: str = "resnet18"
    """resnet18, 34, 50, 101 or 152; hf:FOLDER_OR_NAME for a transformers model; package.module:callable."""
    weights: str | None = None
    """Checkpoint to start from; unset: random weights."""
    embedding_size: int = 128
    """Numbers in an embedding; 128 as in the paper."""
    head: Literal["linear", "mlp"] = "linear"
    """Projection from features to embedding: one layer (paper) or two (SimCLR)."""
    image_size: int = 112
    """Side of the network's input in pixels; 224 in the paper, 112 for a quarter of the work."""
    freeze: str | None = None
    """Parameters up to and including this layer stay as they are, e.g. layer2; unset: all are trained."""

    def __post_init__(self) -> None:
        check_choices(self)
        at_least("--embedding-size", self.embedding_size, 2)
        at_least("--image-size", self.image_size, 8)


@dataclass(frozen=True)
class ContrastOptions:
    """Which frames are pulled together, and against what they are contrasted."""

    method: Literal["tce", "simclr", "moco"] = "simclr"
    """Where negatives come from: a mined memory bank (tce, the paper), the batch (simclr), a queue (moco)."""
    positives: Literal["neighbour", "same"] = "neighbour"
    """An anchor's positive: a neighbouring frame of its clip (paper), or the same frame (SimCLR, MoCo)."""
    window: float = 16
    """Largest distance of a neighbour from the anchor, in --window-unit; half a second of most videos."""
    window_from: float = 1
    """Smallest distance of a neighbour, in --window-unit; at least one frame."""
    window_unit: Literal["frames", "seconds"] = "frames"
    """Unit of --window; use seconds where clips differ in frame rate."""
    temperature: float = 0.07
    """T, divides every cosine similarity; 0.07 in the paper."""
    exclude_same_source: bool = False
    """Never take another piece of the same recording as a negative."""
    views: Literal["separate", "joint"] = "joint"
    """Pass anchors, positives and rotated frames each on their own (paper), or jointly."""

    def __post_init__(self) -> None:
        check_choices(self)
        within("--temperature", self.temperature, 1e-4, 100)
        if not self.window_from > 0:
            raise OptionError("--window-from", expected="more than 0", found=f"{self.window_from:g}")
        if not math.isfinite(self.window):
            raise OptionError("--window", expected="a number", found=f"{self.window:g}")
        if not self.window >= self.window_from:
            raise OptionError(
                "--window", expected=f"at least --window-from {self.window_from:g}", found=f"{self.window:g}"
            )
        if self.method == "tce":
            within("--temperature", self.temperature, 0.002, 100)  # exp(1 / 0.002) is near the largest number


@dataclass(frozen=True)
class TCEOptions:
    """The paper's method: memory bank, mining curriculum, NCE loss, rotation task (--method tce)."""

    negatives: int | None = None
    """K, negatives per anchor; unset: an eighth of the clips, at most 8192 (paper). Never more than N - 1."""
    threshold_by: Literal["similarity", "quantile"] = "similarity"
    """Mine below a rising cosine (paper), or below a rising quantile of each anchor's cosines."""
    threshold_low: Suppress[float | None] = None
    """Threshold at the first step; None: the scale's end (-1, quantile 0), where negatives are random."""
    threshold_high: Suppress[float] = 1.0
    """Threshold the curriculum rises towards: 1 lets every row pass."""
    threshold_rate: Suppress[float] = 5.0
    """Speed of the rise: threshold = low + (high - low)(1 - exp(-rate t)), t the share of training done."""
    constant_z: Literal["estimated", "first-step"] = "estimated"
    """NCE's constant Z: fill the bank, then estimate Z on its rows; or start random and set Z in the first
    step, as the released code did."""
    own_row_positive: Literal["no", "also"] = "no"
    """Take the clip's own old row as a positive beside the neighbour: holds drift back."""
    rotation: float = 0.0
    """Weight of the rotation task's loss; 1 in the paper, 0: no rotated view."""

    def __post_init__(self) -> None:
        check_choices(self)
        at_least("--negatives", self.negatives, 1)
        at_least("--rotation", self.rotation, 0)
        at_least("threshold_rate", self.threshold_rate, 0)
        if self.lowest_threshold > self.threshold_high:
            raise OptionError(
                "threshold_low",
                expected=f"at most threshold_high {self.threshold_high:g}",
                found=f"{self.lowest_threshold:g}",
            )
        if self.threshold_by == "quantile":
            within("threshold_low", self.lowest_threshold, 0, 1)
            within("threshold_high", self.threshold_high, 0, 1)

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

    momentum_encoder: float = 0.99
    """Share of the momentum encoder's old weights that each step keeps."""
    queue: int | None = None
    """Keys in the queue; unset: one for each clip, at most 65536."""

    def __post_init__(self) -> None:
        within("--momentum-encoder", self.momentum_encoder, 0, 0.999999)
        at_least("--queue", self.queue, 2)


@dataclass(frozen=True)
class AugmentOptions:
    """How the two frames of a pair are made to differ in what does not matter."""

    crops: Literal["shared", "independent"] = "independent"
    """One random crop for the pair (paper), or one for each frame, which keeps place from naming the clip."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest share of the frame's area in a crop; 1 1 takes the whole frame (as released)."""
    crop_ratio: Suppress[tuple[float, float]] = (0.75, 1.333)
    """Narrowest and widest crop, width over height."""
    flip: float = 0.5
    """Probability of mirroring; one draw for the pair, since a mirrored motion is another motion."""
    grey: float = 0.5
    """Probability, per frame, of replacing all channels by one random channel (paper: channel-split grey)."""
    brightness: float = 0.5
    """Largest relative change of brightness, drawn per frame."""
    color_contrast: float = 0.5
    """Largest relative change of contrast, drawn per frame."""
    saturation: float = 0.5
    """Largest relative change of saturation, drawn per frame."""
    hue: float = 0.25
    """Largest shift of hue as a share of the colour circle, drawn per frame."""
    blur: float = 0.0
    """Probability, per frame, of Gaussian blur; 0.5 in SimCLR."""

    def __post_init__(self) -> None:
        check_choices(self)
        for flag, value in (("--flip", self.flip), ("--grey", self.grey), ("--blur", self.blur)):
            within(flag, value, 0, 1)
        for flag in ("brightness", "color_contrast", "saturation"):
            within("--" + flag.replace("_", "-"), getattr(self, flag), 0, 1)
        within("--hue", self.hue, 0, 0.5)
        check_crops(self.crop_scale, self.crop_ratio)


@dataclass(frozen=True)
class PretrainOptimOptions(OptimOptions):
    """How the weights are moved."""

    epochs: int = 100
    """Passes over the clips, one anchor of each. May be raised with --resume: one-cycle and cosine schedules
    and the mining threshold then jump to the longer run's curve."""
    batch_size: int = 64
    """Clips per batch over all processes; the last incomplete batch of an epoch is dropped."""


@dataclass(frozen=True)
class PretrainRunOptions(RunOptions):
    """Where and how it runs; none of these changes what is learned, except --seed."""

    out: str = ""
    """The run folder: options, logs, checkpoints, model.safetensors and result.json."""
    recipe: str = "default"
    """Named defaults that flags override: default, quick or paper-kinetics400."""
    resume: bool = False
    """Resume the run in --out from its latest checkpoint, or start it where there is none."""
    channels_last: Suppress[bool] = True
    """Whether images lie in the memory order in which convolutions are fastest."""
    sync_bn: bool = False
    """With several GPUs: batch statistics over all of them."""
    monitor_epochs: int | None = None
    """Epochs between validations of the embeddings (kNN, rank); unset: ten in a run, 0: none."""
    monitor_clips: int = 1000
    """Most clips in a validation, to bound its time."""
    stop_on_collapse: bool = False
    """Stop when the embeddings' effective rank collapses, instead of only warning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("--monitor-epochs", self.monitor_epochs, 0)
        at_least("--monitor-clips", self.monitor_clips, 2)
        if self.resume and self.force:
            raise OptionError("--resume and --force", expected="one of them", found="both")

    @property
    def stops_on_warning(self) -> bool:
        """Whether what the task warns of ends the run."""
        return self.stop_on_collapse

    def validation_interval(self, epochs: int) -> int:
        """Epochs between looks at the embeddings in a run of `epochs`; 0: none."""
        return super().validation_interval(epochs) if self.monitor_epochs is None else self.monitor_epochs


@dataclass(frozen=True)
class PretrainOptions:
    """Everything `tce pretrain` can be told."""

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
