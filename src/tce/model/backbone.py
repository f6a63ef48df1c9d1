"""Backbones: our ResNets and EfficientNets, Hugging Face image models, any other importable network.

A backbone maps normalised images [B, C, h, w] to features [B, F] and says its `feature_size`, F.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tce.errors import OptionError, TceError
from tce.model.efficientnet_lite import VARIANTS, EfficientNetLite, efficientnet_lite
from tce.model.huggingface import build_from_configuration, configuration_of, fetch_model, image_features
from tce.model.preprocess import IMAGENET_MEAN, IMAGENET_STD
from tce.model.resnet import DEPTHS, ResNet, canonical_name, resnet

OWN = (*DEPTHS, *VARIANTS)
"""Networks whose code is part of this package."""


@dataclass(frozen=True)
class Pixels:
    """How a backbone wants its images, where its maker says so.

    Attributes:
        image_size: side of the square in pixels.
        mean: per-channel mean, of pixels in [0, 1].
        std: per-channel standard deviation.
        resize: "center-crop" or "squash".
    """

    image_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: str = "center-crop"


class Wrapped(nn.Module):
    """A foreign network as a backbone: normalised images [B, C, h, w] -> features [B, F].

    Args:
        model: the network.
        features: from the network and images to features [B, F] or [B, F, 1, 1].
        network: what it can be built from again, JSON types.
        pixels: how it wants its images.
        image_size: side of the images with which its feature size is found.
    """

    def __init__(
        self,
        model: nn.Module,
        features: Callable[[nn.Module, Tensor], Tensor],
        network: dict[str, Any],
        pixels: Pixels,
        image_size: int,
    ):
        super().__init__()
        self.model = model
        self.network = network
        self.pixels = pixels
        self.in_channels = 3
        self._features = features
        self.feature_size = self._probe(image_size)

    def forward(self, x: Tensor) -> Tensor:
        """The features, see the class."""
        return self._features(self.model, x).flatten(1)

    def _probe(self, image_size: int) -> int:
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                out = self._features(self.model, torch.zeros(1, self.in_channels, image_size, image_size))
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise TceError(
                "--model",
                expected=f"a network that takes images [B, {self.in_channels}, {image_size}, {image_size}]",
                found=f"{type(error).__name__}: {error}",
            ) from error
        finally:
            self.model.train(training)
        shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        if not isinstance(out, Tensor) or out.ndim not in (2, 4) or any(n != 1 for n in out.shape[2:]):
            raise TceError(
                "--model",
                expected="a network whose output is features [B, F] or [B, F, 1, 1]",
                found=str(shape),
                fix="give it without its last layers",
            )
        return out.shape[1]


Backbone = ResNet | EfficientNetLite | Wrapped


def build_backbone(
    architecture: str,
    in_channels: int = 3,
    options: dict[str, Any] | None = None,
    image_size: int | None = None,
    network: dict[str, Any] | None = None,
) -> Backbone:
    """The backbone of that name, with `feature_size`.

    Args:
        architecture: resnet18/34/50/101/152, lite0, lite2, `hf:FOLDER_OR_NAME` or
            `package.module:callable`.
        in_channels: channels of the input; other than 3 for our own networks only.
        options: keyword arguments of a `package.module:callable`.
        image_size: side of the images it will see, in pixels; its own or 224 by default.
        network: what an earlier build noted (`backbone.network`), to build the same without its first
            place; the weights are then random.

    Raises:
        OptionError: an unknown name.
        TceError: a network that cannot be had, or is no backbone.
    """
    if canonical_name(architecture) in DEPTHS:
        return resnet(architecture, in_channels)
    if architecture in VARIANTS:
        return efficientnet_lite(architecture, in_channels)
    assert in_channels == 3
    if architecture.startswith("hf:"):
        return _huggingface(architecture.removeprefix("hf:"), image_size, network)
    if ":" in architecture:
        options = options if options is not None else (network or {}).get("options", {})
        return _imported(architecture, options, image_size or 224)
    raise OptionError(
        "--model",
        expected=f"{', '.join(OWN)}, hf:FOLDER_OR_NAME or package.module:callable",
        found=repr(architecture),
    )


def same_architecture(one: str, other: str) -> bool:
    """Whether two names mean the same network; a Hugging Face folder may have moved since."""
    one, other = canonical_name(one), canonical_name(other)
    if one.startswith("hf:") and other.startswith("hf:"):
        return Path(one.removeprefix("hf:")).name == Path(other.removeprefix("hf:")).name
    return one == other


def own_pixels(backbone: Backbone) -> Pixels:
    """How that backbone wants its images; ImageNet's usual way where nothing else is known."""
    if isinstance(backbone, EfficientNetLite):
        return Pixels(backbone.image_size)
    return backbone.pixels if isinstance(backbone, Wrapped) else Pixels()


def own_network(backbone: Backbone) -> dict[str, Any]:
    """What it can be built from again; nothing for our ResNets, whose names say it."""
    return backbone.network if isinstance(backbone, Wrapped) else {}


def _huggingface(name: str, image_size: int | None, network: dict[str, Any] | None) -> Wrapped:
    if network:
        model, pixels = build_from_configuration(network["configuration"]), Pixels()
    else:
        model, wishes = fetch_model(name)
        pixels = Pixels(**wishes)
    noted = {"configuration": configuration_of(model)}
    return Wrapped(model, image_features, noted, pixels, image_size or pixels.image_size)


def _imported(place: str, options: dict[str, Any], image_size: int) -> Wrapped:
    with _working_folder_importable():
        maker = _resolve(place)
        try:
            model = maker(**options)
        except Exception as error:
            raise TceError(
                f"--model {place}",
                expected="a callable that makes a network",
                found=f"{type(error).__name__}: {error}",
            ) from error
    if not isinstance(model, nn.Module):
        raise TceError(
            f"--model {place}", expected="a callable that returns a torch.nn.Module", found=str(type(model))
        )
    noted = {"options": options}
    return Wrapped(model, lambda net, x: net(x), noted, Pixels(), image_size)


def _resolve(place: str) -> Callable[..., Any]:
    module_name, _, attribute = place.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # user code runs at import and can raise anything
        raise TceError(
            f"--model {place}",
            expected="package.module:callable that can be imported from here",
            found=f"{type(error).__name__}: {error}",
            fix="install the package, or run in the folder that holds the module",
        ) from error
    if not callable(found):
        raise TceError(f"--model {place}", expected="a callable", found=type(found).__name__)
    return found


@contextmanager
def _working_folder_importable():
    """The user named the module, so it may lie where they work; an installed script does not look there."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)


def freeze_until(backbone: nn.Module, layer: str | None) -> tuple[nn.Module, ...]:
    """Turn gradients off in a backbone's layers up to and with `layer`, and on in the others.

    Layers are counted in the order in which the network lists them, which is the order of their use in the
    networks meant here.

    Args:
        backbone: our ResNet or a wrapped network.
        layer: the dotted name of a module, as `named_modules` gives it; "all"; None for nothing.

    Returns:
        The modules that belong to the frozen part, to be kept in evaluation mode.

    Raises:
        OptionError: no such layer.
    """
    network: nn.Module = backbone.model if isinstance(backbone, Wrapped) else backbone
    network.requires_grad_(True)
    for name, parameter in network.named_parameters():
        if name.endswith("mask_token"):  # only masked pre-training uses it; without gradients DDP would wait
            parameter.requires_grad_(False)
    if layer is None:
        return ()
    modules = dict(network.named_modules())
    if layer == "all":
        network.requires_grad_(False)
        return tuple(modules.values())
    if layer not in modules or not layer:
        top = [name for name, module in network.named_children() if any(True for _ in module.parameters())]
        raise OptionError(
            "--freeze", expected=f"a layer such as {', '.join([*top, 'all'])}", found=repr(layer)
        )
    inside = [name == layer or name.startswith(f"{layer}.") for name in modules]
    last = len(inside) - 1 - inside[::-1].index(True)
    frozen = []
    for name, module in list(modules.items())[: last + 1]:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        around = name == "" or layer.startswith(f"{name}.")
        if not around:  # a module around the layer has later, unfrozen parts too
            frozen.append(module)
    return tuple(frozen)
