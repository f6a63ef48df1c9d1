"""The views of a batch, and the network's passes over them, in one process or several."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tce.device import autocast
from tce.distributed import DistributedContext
from tce.errors import OptionError
from tce.model.backbone import ExternalBackbone
from tce.model.encoder import FrameEncoder


class Views(NamedTuple):
    """Augmented frames of this process's part of a batch, b of B clips, normalised."""

    images: Tensor
    """Anchors and positives, [b, 2, 3, h, w]."""
    rotated: Tensor | None = None
    """A third view, rotated by quarter turns, [b, 3, h, w]."""
    rotation_label: Tensor | None = None
    """By how many quarter turns, int64 [b]."""
    valid: Tensor | None = None
    """Which clips could be read, bool [b]; None: all."""


class ViewEncoder(nn.Module):
    """The network's passes over a batch's views.

    Args:
        encoder: the network.
        joint: all views in one pass, which share batch statistics, or one pass each (paper).
        precision: of the passes, see `autocast`.
    """

    def __init__(self, encoder: FrameEncoder, joint: bool, precision: str = "float32"):
        super().__init__()
        self.encoder = encoder
        self.joint = joint
        self.precision = precision

    def forward(self, images: Tensor, rotated: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Unit embeddings [b, V, D] of images [b, V, 3, h, w], and rotation scores [b, 4] of `rotated`."""
        with autocast(self.encoder.device, self.precision):
            return self._joint(images, rotated) if self.joint else self._separate(images, rotated)

    def _joint(self, images: Tensor, rotated: Tensor | None) -> tuple[Tensor, Any]:
        upright = images.flatten(0, 1)  # [b V, 3, h, w]
        features = self.encoder.features(upright if rotated is None else torch.cat([upright, rotated]))
        vectors = self.encoder.project(features[: len(upright)]).unflatten(0, images.shape[:2])
        return vectors, None if rotated is None else self.encoder.rotation_logits(features[len(upright) :])

    def _separate(self, images: Tensor, rotated: Tensor | None) -> tuple[Tensor, Any]:
        passes = [self.encoder.project(self.encoder.features(view)) for view in images.unbind(1)]
        vectors = torch.stack(passes, dim=1)  # [b, V, D]
        return vectors, None if rotated is None else self.encoder.rotation(rotated)


def data_parallel(network: ViewEncoder, context: DistributedContext) -> nn.Module:
    """The network with gradients averaged over the processes; itself where there is one process."""
    if context.world_size == 1:
        return network
    devices = [context.device] if context.device.type == "cuda" else None
    with warnings.catch_warnings(category=FutureWarning, action="ignore"):
        # Its successor came with torch 2.13 only; batch statistics are averaged after each step.
        return DistributedDataParallel(
            network,
            devices,
            broadcast_buffers=False,
            # Networks of other libraries may have some.
            find_unused_parameters=isinstance(network.encoder.backbone, ExternalBackbone),
        )


def synchronised(
    encoder: FrameEncoder, context: DistributedContext, freeze: str | None = None
) -> FrameEncoder:
    """The encoder with batch statistics over all processes.

    Args:
        encoder: the network.
        context: the processes at work.
        freeze: the layer up to which it stays frozen, for the conversion makes new modules.

    Raises:
        OptionError: there are no GPUs, or there is one process.
    """
    if context.device.type != "cuda" or context.world_size == 1:
        found = f"{context.world_size} on {context.device.type}"
        raise OptionError("--sync-bn", expected="several processes on GPUs", found=found, fix="leave it out")
    encoder = nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
    encoder.freeze(freeze)
    return encoder


@torch.no_grad()
def ema_update(average: nn.Module, current: nn.Module, momentum: float) -> None:
    """Move an averaged copy towards its original: average = m average + (1 - m) current, buffers aside.

    Args:
        average: the copy (momentum encoder; He et al. 2020).
        current: the original, of the same shape.
        momentum: m, the share kept of the old value.
    """
    torch._foreach_lerp_(list(average.parameters()), list(current.parameters()), 1.0 - momentum)
