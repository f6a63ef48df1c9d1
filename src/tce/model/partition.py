"""A backbone in two parts: the early layers, whose output can be kept, and the last blocks, to be trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tce.errors import TceError
from tce.model.efficientnet_lite import EfficientNetLite
from tce.model.encoder import FrameEncoder
from tce.model.resnet import ResNet

LAST_STAGES = 3  # of EfficientNet-Lite's seven: eight blocks in lite0, ten in lite2


class Trunk(nn.Module):
    """The early layers: normalised images [B, 3, h, w] -> activations, flattened, [B, C h' w'].

    Args:
        layers: from images to activations [B, C, h', w'].
    """

    def __init__(self, layers: nn.Module):
        super().__init__()
        self.layers = layers
        self.in_channels = 3

    def forward(self, x: Tensor) -> Tensor:
        """The activations, see the class."""
        return self.layers(x).flatten(1)


class LastBlocks(nn.Module):
    """The last blocks: what the trunk gives, flattened, [B, C h' w'] -> features [B, F].

    Args:
        layers: from activations [B, C, h', w'] to the last ones [B, F, h'', w''].
        shape: C, h', w'.
    """

    def __init__(self, layers: nn.Module, shape: tuple[int, int, int]):
        super().__init__()
        self.layers = layers
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """The features, see the class."""
        images = x.unflatten(1, self.shape).contiguous(memory_format=torch.channels_last)
        return self.layers(images).mean(dim=(2, 3))


@dataclass(frozen=True)
class PartedBackbone:
    """Two modules that share a backbone's weights: training them trains the backbone.

    Attributes:
        trunk: the early layers as an encoder of its own, in evaluation mode: its features are activations.
        last: the last blocks.
    """

    trunk: FrameEncoder
    last: LastBlocks


class _Relu6(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.relu6(x)


def part_backbone(encoder: FrameEncoder) -> PartedBackbone:
    """The parts of an encoder's backbone: `last(trunk.features(x))` equals `encoder.features(x)`.

    The last blocks are the last three stages of an EfficientNet-Lite, and the last stage of a ResNet.

    Raises:
        TceError: another kind of network.
    """
    backbone = encoder.backbone
    early, late = _layers(backbone, encoder.config.architecture)
    size, device = encoder.image_size, encoder.device
    with torch.inference_mode():
        found = early(torch.zeros(1, 3, size, size, device=device)).shape
    shape = (int(found[1]), int(found[2]), int(found[3]))
    numbers = shape[0] * shape[1] * shape[2]
    config = dataclasses.replace(
        encoder.config, head="none", feature_size=numbers, embedding_size=numbers, rotation=False
    )
    trunk = FrameEncoder(config, Trunk(early)).eval().requires_grad_(False)
    return PartedBackbone(trunk, LastBlocks(late, shape).eval())


def _layers(backbone: nn.Module, name: str) -> tuple[nn.Module, nn.Module]:
    if isinstance(backbone, EfficientNetLite):
        first = backbone.stage_starts[-LAST_STAGES]
        blocks = list(backbone._blocks)
        stem = (backbone._conv_stem, backbone._bn0, _Relu6())
        head = (backbone._conv_head, backbone._bn1, _Relu6())
        return nn.Sequential(*stem, *blocks[:first]), nn.Sequential(*blocks[first:], *head)
    if isinstance(backbone, ResNet):
        early = (backbone.conv1, backbone.bn1, backbone.relu, backbone.maxpool)
        stages = (backbone.layer1, backbone.layer2, backbone.layer3)
        return nn.Sequential(*early, *stages), nn.Sequential(backbone.layer4)
    raise TceError(
        f"--start {name}",
        expected="an EfficientNet-Lite (lite2, lite0) or a ResNet, whose last blocks can be trained apart",
        found="another kind of network",
        fix="use --method linear",
    )
