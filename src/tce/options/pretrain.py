"""The options of pre-training: what is learned from, by which method, how fast, and where it is written.

Importing them costs no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, arg

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
    """What is pulled together and what is pushed apart (paper, section 3)."""

    positives: Literal["neighbour", "same"] = "neighbour"
    """An anchor's positive: a neighbouring frame of its clip (paper), or the same frame (SimCLR)."""
    window: float = 16
    """Farthest a neighbour may be from the anchor, in --window-unit; half a second of most footage."""
    window_from: float = 1
    """Nearest a neighbour may be, in --window-unit; at least one frame, or the pair would be one frame."""
    window_unit: Literal["frames", "seconds"] = "frames"
    """Unit of --window; seconds where clips differ in frame rate."""
    loss: Literal["nce", "infonce", "ntxent"] = "ntxent"
    """nce (paper) and infonce take negatives from the memory bank, ntxent from the batch."""
    temperature: float = 0.07
    """Divides every cosine similarity; 0.07 as in the paper."""
    negatives: int | None = None
    """K, bank rows per anchor; unset: an eighth of the clips, at most 8192 (paper). Never more than N - 1."""
    mining: Literal["curriculum", "random", "all"] = "curriculum"
    """Which rows: the most similar below a rising threshold (paper), random ones, or every row (infonce)."""
    threshold_low: float | None = None
    """Threshold at the first step; unset: the scale's end (-1, quantile 0), where negatives are random."""
    threshold_high: float = 1.0
    """Threshold the curriculum rises towards: 1 lets everything pass."""
    threshold_rate: float = 5.0
    """Speed of the rise: threshold = low + (high - low)(1 - exp(-rate t)), t the share of training done."""
    threshold_by: Literal["similarity", "quantile"] = "similarity"
    """A cosine (paper), or a quantile of each anchor's similarities, which cosines cannot outrun."""
    fill_bank: bool = True
    """Whether one pass over the clips fills the bank before training; --no-fill-bank starts it random, as
    released."""
    constant_z: Literal["estimated", "first-step"] = "estimated"
    """NCE's constant Z: estimated on random rows of the filled bank, or set by the first step (released)."""
    bank_momentum: float = 0.0
    """Share of a row's old value kept when its clip comes by again; 0 replaces it (paper)."""
    own_row_positive: Literal["no", "also", "only"] = "no"
    """The clip's own old row as a positive beside the fresh one, or instead of it: holds drift back."""
    momentum_encoder: float = 0.0
    """Share kept of a slow copy of the encoder that makes positives and rows, e.g. 0.99; 0: no copy."""
    exclude_same_source: bool = False
    """Never take another piece of the same recording as a negative."""
    views: Literal["separate", "joint"] = "joint"
    """Anchors, positives, rotated frames: a pass and batch statistics each (paper), or all in one pass."""
    rotation: float = 0.0
    """Weight of the loss for telling how far a third view was rotated; 1 in the paper, 0: no such view."""

    def __post_init__(self) -> None:
        check_choices(self)
        at_least("--negatives", self.negatives, 1)
        within("--temperature", self.temperature, 1e-4, 100)
        within("--bank-momentum", self.bank_momentum, 0, 0.999999)
        within("--momentum-encoder", self.momentum_encoder, 0, 0.999999)
        at_least("--rotation", self.rotation, 0)
        at_least("--threshold-rate", self.threshold_rate, 0)
        if not self.window_from > 0:
            raise OptionError("--window-from", expected="more than 0", found=f"{self.window_from:g}")
        if self.momentum_encoder and self.own_row_positive == "only":
            raise OptionError(
                "--momentum-encoder", expected="a positive frame to embed", found="--own-row-positive only"
            )
        if not math.isfinite(self.window):
            raise OptionError("--window", expected="a number", found=f"{self.window:g}")
        if not self.window >= self.window_from:
            raise OptionError(
                "--window", expected=f"at least --window-from {self.window_from:g}", found=f"{self.window:g}"
            )
        if self.lowest_threshold > self.threshold_high:
            raise OptionError(
                "--threshold-low",
                expected=f"at most --threshold-high {self.threshold_high:g}",
                found=f"{self.lowest_threshold:g}",
            )
        if self.threshold_by == "quantile":
            within("--threshold-low", self.lowest_threshold, 0, 1)
            within("--threshold-high", self.threshold_high, 0, 1)
        for flag, given in self._needs_bank().items():
            if given and not self.uses_bank:
                raise OptionError(
                    flag,
                    expected="a loss with a memory bank",
                    found="--loss ntxent",
                    fix="use --loss nce or infonce",
                )
        for flag, given in self._needs_curriculum().items():
            if given and self.mining != "curriculum":
                raise OptionError(flag, expected="--mining curriculum", found=f"--mining {self.mining}")
        if self.mining == "all" and self.loss == "nce":
            raise OptionError("--mining all", expected="--loss infonce", found="--loss nce")
        if self.mining == "all" and self.negatives is not None:
            raise OptionError(
                "--negatives", expected="no number beside --mining all", found=str(self.negatives)
            )
        if self.constant_z == "first-step" and self.loss != "nce":
            raise OptionError("--constant-z first-step", expected="--loss nce", found=f"--loss {self.loss}")
        if self.loss == "nce":
            within("--temperature", self.temperature, 0.002, 100)  # exp(1 / 0.002) is near the largest number

    @property
    def uses_bank(self) -> bool:
        """Whether negatives come from the memory bank."""
        return self.loss != "ntxent"

    @property
    def lowest_threshold(self) -> float:
        """The threshold at the first step."""
        if self.threshold_low is not None:
            return self.threshold_low
        return 0.0 if self.threshold_by == "quantile" else -1.0

    def _needs_bank(self) -> dict[str, bool]:
        return {
            "--negatives": self.negatives is not None,
            "--mining": self.mining != "curriculum",
            "--bank-momentum": self.bank_momentum > 0,
            "--own-row-positive": self.own_row_positive != "no",
            "--no-fill-bank": not self.fill_bank,
            **self._needs_curriculum(),
        }

    def _needs_curriculum(self) -> dict[str, bool]:
        by_quantile = self.threshold_by == "quantile"
        return {
            "--threshold-by": by_quantile,
            "--threshold-low": self.lowest_threshold != (0.0 if by_quantile else -1.0),
            "--threshold-high": self.threshold_high != 1.0,
            "--threshold-rate": self.threshold_rate != 5.0,
        }


@dataclass(frozen=True)
class AugmentOptions:
    """How the two frames of a pair are made to differ in what does not matter."""

    crops: Literal["shared", "independent"] = "independent"
    """One random crop for the pair (paper), or one for each frame, which keeps place from naming the clip."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest share of the frame's area in a crop; 1 1 takes the whole frame (as released)."""
    crop_ratio: tuple[float, float] = (0.75, 1.333)
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
    jitter: Literal["linear", "released"] = "linear"
    """One colour matrix a frame, clipped once; or the released code's four steps, HSV hue: far slower."""
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
    """Passes over the clips, one anchor of each. May be raised on --resume: step and constant schedules go on
    as if planned so, one-cycle and cosine jump to the longer run's curve, as the mining threshold does."""
    batch_size: int = 64
    """Clips per batch over all processes; the last incomplete batch of an epoch is dropped."""
    chunks: int = 1
    """Parts in which a batch passes the network, each normalised by itself, as that many processes would."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("--chunks", self.chunks, 1)
        if self.batch_size % self.chunks or self.batch_size // self.chunks < 2:
            raise OptionError(
                "--chunks",
                expected=f"a divisor of --batch-size {self.batch_size}, leaving two clips or more",
                found=str(self.chunks),
            )


@dataclass(frozen=True)
class PretrainRunOptions(RunOptions):
    """Where and how it runs; none of these changes what is learned, except --seed."""

    out: str = ""
    """The run folder: options, logs, checkpoints, model.safetensors and result.json."""
    recipe: str = "default"
    """Named defaults that flags override: default, quick or paper-kinetics400."""
    resume: bool = False
    """Go on with the run in --out from its latest checkpoint, or start it where there is none."""
    channels_last: bool = True
    """Whether images lie in the memory order in which convolutions are fastest."""
    bank: Literal["copies", "sharded"] = "copies"
    """With several processes: a whole memory bank in each, or its rows divided among them."""
    sync_bn: bool = False
    """With several GPUs: batch statistics over all of them."""
    monitor_epochs: int | None = None
    """Epochs between looks at the embeddings (kNN, rank); unset: ten looks a run. 0: none."""
    monitor_clips: int = 1000
    """Most clips a look takes, to bound its time."""
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
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    optim: PretrainOptimOptions = field(default_factory=PretrainOptimOptions)
    run: PretrainRunOptions = field(default_factory=PretrainRunOptions)

    def __post_init__(self) -> None:
        frame = self.data.frame_size
        if frame is not None and frame < self.model.image_size:
            raise OptionError(
                "--frame-size", expected=f"at least --image-size {self.model.image_size}", found=str(frame)
            )
        if self.run.bank == "sharded" and not self.contrast.uses_bank:
            raise OptionError("--bank sharded", expected="a loss with a memory bank", found="--loss ntxent")

    @property
    def frame_size(self) -> int:
        """Side of the loaded frames in pixels."""
        return self.data.frame_size or round(self.model.image_size * 8 / 7)
