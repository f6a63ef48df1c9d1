"""ResNet-18/34/50/101/152 (He et al., 2016) with the parameter names that published checkpoints use."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tce.errors import OptionError


@dataclass(frozen=True)
class Depth:
    """What sets one ResNet apart from another.

    Attributes:
        blocks: residual blocks in each of the four stages.
        bottleneck: 1x1, 3x3, 1x1 blocks (widening four times) instead of two 3x3 convolutions.
    """

    blocks: tuple[int, int, int, int]
    bottleneck: bool


DEPTHS = {
    "resnet18": Depth((2, 2, 2, 2), False),
    "resnet34": Depth((3, 4, 6, 3), False),
    "resnet50": Depth((3, 4, 6, 3), True),
    "resnet101": Depth((3, 4, 23, 3), True),
    "resnet152": Depth((3, 8, 36, 3), True),
}
# The 2020 release lists its deepest model under this name; there never was a ResNet-150.
ALIASES = {"resnet150": "resnet152"}


def canonical_name(name: str) -> str:
    """The name a ResNet goes by here; any other name is handed back as it is."""
    return ALIASES.get(name, name)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """A projection where the block changes shape, else None: the input itself is added."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B, inputs, H, W] -> [B, width, H/stride, W/stride]."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, see the class."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.relu(x + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut: [B, inputs, H, W] -> [B, 4 width, H/stride, W/stride].

    The stride sits on the 3x3 convolution ("v1.5"), as in the published ImageNet weights.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = _conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, see the class."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + shortcut)


class ResNet(nn.Module):
    """A residual network from images to features, or to outputs where it has a last layer `fc`.

    Args:
        depth: its blocks.
        in_channels: channels of the input: 3 for RGB, 15 for a stack of five differences.
        num_outputs: size of a last linear layer `fc`; None leaves the features as they are.

    Attributes:
        feature_size: numbers in the feature vector, F: 512, or 2048 with bottleneck blocks.
    """

    def __init__(self, depth: Depth, in_channels: int = 3, num_outputs: int | None = None):
        super().__init__()
        self.in_channels = in_channels
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        block = Bottleneck if depth.bottleneck else BasicBlock
        channels = 64
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for stage, count in enumerate(depth.blocks):
            width, stride = 64 * 2**stage, 1 if stage == 0 else 2
            blocks: list[nn.Module] = []
            for index in range(count):
                blocks.append(block(channels, width, stride if index == 0 else 1))
                channels = width * block.expansion
            stages[f"layer{stage + 1}"] = nn.Sequential(*blocks)
        self.layer1 = stages["layer1"]
        self.layer2 = stages["layer2"]
        self.layer3 = stages["layer3"]
        self.layer4 = stages["layer4"]
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.feature_size = channels
        self.fc = None if num_outputs is None else nn.Linear(channels, num_outputs)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, in_channels, H, W] to features [B, F], or to `fc`'s outputs."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # [B, 64, H/4, W/4]
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # [B, F, H/32, W/32]
        features = torch.flatten(self.avgpool(x), 1)  # [B, F]
        return features if self.fc is None else self.fc(features)


def resnet(name: str, in_channels: int = 3, num_outputs: int | None = None) -> ResNet:
    """A freshly initialised ResNet.

    Args:
        name: resnet18, resnet34, resnet50, resnet101 or resnet152 (also under the name resnet150).
        in_channels: channels of the input.
        num_outputs: size of the last linear layer `fc`; None leaves it out, and features come out.

    Raises:
        OptionError: another name.
    """
    depth = DEPTHS.get(canonical_name(name))
    if depth is None:
        raise OptionError("--model", expected=", ".join(DEPTHS), found=repr(name))
    return ResNet(depth, in_channels, num_outputs)
