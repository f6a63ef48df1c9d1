"""The action classifier: a backbone and a linear layer, on RGB frames or on stacks of differences."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tce.errors import OptionError, TceError
from tce.model.backbone import OWN, build_backbone, freeze_until
from tce.model.encoder import FrameEncoder, seeded
from tce.model.preprocess import IMAGENET_MEAN, IMAGENET_STD, check_input, normalise, resize_frames, to_tensor


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything needed to build a classifier again and to feed it.

    Attributes:
        architecture: a ResNet's name, `hf:NAME` or `package.module:callable`.
        num_classes: numbers in its output.
        differences: frame differences in a stack, each of 3 channels; 0: a single RGB frame.
        classes: the classes' names in the order of the output; empty where unknown.
        feature_size: numbers in a feature vector, F.
        dropout: share of features dropped before the last layer while training.
        image_size: side of the square input in pixels.
        mean: per-channel mean of the frames, of pixels in [0, 1].
        std: per-channel standard deviation.
        resize: how frames become squares: "squash" (the paper's) or "center-crop".
        network: what a backbone other than our ResNets is built from.
        provenance: where the weights come from; free, JSON types.
    """

    architecture: str = "resnet18"
    num_classes: int = 101
    differences: int = 5
    classes: tuple[str, ...] = ()
    feature_size: int = 512
    dropout: float = 0.0
    image_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: str = "squash"
    network: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_input(self.image_size, self.mean, self.std, self.resize)
        if self.num_classes < 1 or len(self.classes) not in (0, self.num_classes):
            found = (
                f"{self.num_classes} for {len(self.classes)} names" if self.classes else str(self.num_classes)
            )
            raise OptionError("num_classes", expected="at least 1, and one for each class name", found=found)
        if self.differences < 0:
            raise OptionError("differences", expected="0 (RGB) or more", found=str(self.differences))
        if not 0 <= self.dropout < 1:
            raise OptionError("--dropout", expected="at least 0 and below 1", found=str(self.dropout))


def frames_to_differences(frames: Tensor) -> Tensor:
    """Consecutive normalised frames -> their differences, the earlier less the later.

    Args:
        frames: float [B, T, 3, H, W] (T = 6 in the paper).

    Returns:
        float [B, 3(T-1), H, W]; channels 3i to 3i+2 are frame i minus frame i+1 (paper, section 4.1).
    """
    plain = frames.device.type != "cpu" or frames.dtype != torch.float32  # products may be rounded there
    if plain or torch.jit.is_tracing():
        return (frames[:, :-1] - frames[:, 1:]).flatten(1, 2)
    # One product subtracts and puts a pixel's channels side by side, as networks read them on a CPU.
    planes = frames.flatten(1, 2).flatten(2)  # [B, 3T, HW]
    with torch.autocast("cpu", enabled=False):
        pixels = planes.mT @ difference_matrix(frames.shape[1])  # [B, HW, 3(T-1)]
    return pixels.unflatten(1, frames.shape[3:]).permute(0, 3, 1, 2)


def difference_matrix(count: int) -> Tensor:
    """What the channels of `count` frames side by side are multiplied by for their differences.

    Returns:
        [3 count, 3 (count - 1)], of 1, -1 and 0: the earlier frame less the later one.
    """
    earlier = torch.eye(3 * count)[:, : 3 * (count - 1)]
    return earlier - earlier.roll(3, dims=0)


class Classifier(nn.Module):
    """Calling it maps what `preprocess` gives, float [B, 3 differences or 3, h, w], to logits [B, classes].

    Attributes:
        config: what it is made of.
        backbone: input -> features [B, F].
        fc: features -> logits.
    """

    def __init__(self, config: ClassifierConfig, backbone: nn.Module):
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(config.feature_size, config.num_classes)
        self._frozen: tuple[nn.Module, ...] = ()

    @property
    def num_classes(self) -> int:
        """Numbers in its output."""
        return self.config.num_classes

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.config.image_size

    @property
    def frames_per_sample(self) -> int:
        """Consecutive frames that one input is made of: differences + 1, or a single RGB frame."""
        return self.config.differences + 1

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return self.fc.weight.device

    def forward(self, x: Tensor) -> Tensor:
        """Input [B, 3 differences or 3, h, w] -> logits [B, classes]."""
        return self.fc(self.dropout(self.backbone(x)))

    def features(self, x: Tensor) -> Tensor:
        """Input [B, 3 differences or 3, h, w] -> the backbone's features [B, F]."""
        return self.backbone(x)

    def preprocess(
        self, frames: np.ndarray | Tensor, image_size: int | None = None, resize: str | None = None
    ) -> Tensor:
        """Decoded frames -> what the classifier reads, on its device.

        Args:
            frames: uint8 RGB of any size, NumPy or torch: stacks of consecutive frames
                [B, frames_per_sample, H, W, 3], or [B, H, W, 3] where a sample is one frame.
            image_size: side of the square in pixels; the configuration's by default.
            resize: "squash", "center-crop" or "none" (for frames that have their size already); the
                configuration's by default.

        Returns:
            float32 [B, 3 differences or 3, image_size, image_size].

        Raises:
            TceError: frames of another shape or type.
        """
        count, shape = self.frames_per_sample, tuple(frames.shape)
        if len(shape) == 5 and shape[1] == count:
            frames = frames.reshape(-1, *shape[2:])  # [B T, H, W, 3]
        elif count != 1 or len(shape) != 4:
            raise TceError("frames", expected=f"uint8 [B, {count}, H, W, 3]", found=str(list(shape)))
        pixels = to_tensor(frames, self.device)
        images = resize_frames(pixels, image_size or self.image_size, resize or self.config.resize)
        return self.to_input(normalise(images, self.config.mean, self.config.std))

    def to_input(self, normalised: Tensor) -> Tensor:
        """Normalised frames float [B frames_per_sample, 3, h, w], in order -> what the classifier reads."""
        if self.config.differences == 0:
            return normalised
        return frames_to_differences(normalised.unflatten(0, (-1, self.frames_per_sample)))

    def freeze(self, layer: str | None) -> int:
        """Keep the backbone up to and with `layer` as it is; the same as `FrameEncoder.freeze`."""
        self._frozen = freeze_until(self.backbone, layer)
        self.train(self.training)
        return sum(p.numel() for p in self.backbone.parameters() if not p.requires_grad)

    def train(self, mode: bool = True) -> Classifier:
        """Training or evaluation mode, except that frozen layers stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self


def tile_channels(weight: Tensor, channels: int) -> Tensor:
    """A convolution's kernels [out, 3, kh, kw] repeated over `channels`: channel i is RGB channel i mod 3.

    The values are not divided by the number of repetitions: differences are small, unlike frames.
    """
    repeats = -(-channels // weight.shape[1])
    return weight.repeat(1, repeats, 1, 1)[:, :channels].contiguous()


def _reads_rgb(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1


def widen_input(backbone: nn.Module, channels: int) -> None:
    """Let a backbone of RGB images read `channels` channels, its first convolution tiled over them.

    Raises:
        TceError: no convolution of 3 channels was found in it.
    """
    first = next((item for item in backbone.named_modules() if _reads_rgb(item[1])), None)
    if first is None:
        raise TceError(
            "--model",
            expected="a backbone with a first convolution of 3 channels",
            found=f"none in {type(backbone).__name__}",
            fix="use --input rgb",
        )
    name, convolution = first
    assert isinstance(convolution, nn.Conv2d)
    parent, _, attribute = name.rpartition(".")
    wide = nn.Conv2d(
        channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        convolution.stride,  # type: ignore[arg-type]
        convolution.padding,  # type: ignore[arg-type]
        convolution.dilation,  # type: ignore[arg-type]
        bias=convolution.bias is not None,
        padding_mode=convolution.padding_mode,
        device=convolution.weight.device,
        dtype=convolution.weight.dtype,
    )
    with torch.no_grad():
        wide.weight.copy_(tile_channels(convolution.weight, channels))
        if convolution.bias is not None and wide.bias is not None:
            wide.bias.copy_(convolution.bias)
    setattr(backbone.get_submodule(parent), attribute, wide)
    for module in backbone.modules():  # transformers' models check the number of channels they were made for
        if getattr(module, "num_channels", None) == 3:
            module.num_channels = channels  # type: ignore[assignment]
        if hasattr(module, "in_channels") and not isinstance(module, nn.Conv2d):
            module.in_channels = channels  # type: ignore[assignment]


def classifier_from_encoder(
    encoder: FrameEncoder,
    num_classes: int,
    differences: int = 5,
    classes: tuple[str, ...] | list[str] = (),
    resize: str = "squash",
    image_size: int | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
) -> Classifier:
    """A classifier that starts from an encoder's backbone; the embedding head is dropped.

    Args:
        encoder: where the weights come from.
        num_classes: numbers in its output.
        differences: frame differences in a stack; 0: single RGB frames. The first convolution is tiled over
            the 3 channels of each (paper, section 4.1).
        classes: the classes' names, in order.
        resize: how frames become squares: "squash" or "center-crop".
        image_size: side of the square input in pixels; the encoder's by default.
        dropout: share of features dropped before the last layer while training.
        seed: of the new last layer; None draws from torch's global generator.

    Raises:
        OptionError: fewer than one class, or a count that differs from the names'.
        TceError: a backbone whose first convolution cannot be tiled.
    """
    made_of = encoder.config
    config = ClassifierConfig(
        architecture=made_of.architecture,
        num_classes=num_classes,
        differences=differences,
        classes=tuple(classes),
        feature_size=made_of.feature_size,
        dropout=dropout,
        image_size=image_size or made_of.image_size,
        mean=made_of.mean,
        std=made_of.std,
        resize=resize,
        network=made_of.network,
        provenance=made_of.provenance,
    )
    with seeded(seed):
        if made_of.architecture in OWN:
            backbone: nn.Module = build_backbone(made_of.architecture, 3 * differences or 3)
            weights = encoder.backbone.state_dict()
            wanted = backbone.state_dict()
            for name, value in weights.items():
                if value.shape != wanted[name].shape:  # the first convolution, and nothing else
                    weights[name] = tile_channels(value, wanted[name].shape[1])
            backbone.load_state_dict(weights)
        else:
            backbone = copy.deepcopy(encoder.backbone)
            if differences:
                widen_input(backbone, 3 * differences)
        classifier = Classifier(config, backbone)
    return classifier.to(encoder.device)
