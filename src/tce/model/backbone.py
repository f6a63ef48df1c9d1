"""Backbones: our ResNets and EfficientNets, Hugging Face image models, any other importable network.

A backbone maps normalised images [B, C, h, w] to features [B, F] and states its `feature_size`, F.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
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
class InputFormat:
    """How a backbone expects its images, where its configuration states it.

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


class ExternalBackbone(nn.Module):
    """Another library's network as a backbone: normalised images [B, C, h, w] -> features [B, F].

    Args:
        model: the network.
        features: from the network and images to features [B, F] or [B, F, 1, 1].
        network: what it can be built from again, JSON types.
        input_format: how it expects its images.
        image_size: side of the images with which its feature size is found.
        feature_size: F, where it is known.
    """

    def __init__(
        self,
        model: nn.Module,
        features: Callable[[nn.Module, Tensor], Tensor],
        network: dict[str, Any],
        input_format: InputFormat,
        image_size: int,
        feature_size: int | None = None,
    ):
        super().__init__()
        self.model = model
        self.network = network
        self.input_format = input_format
        self.in_channels = 3
        self._features = features
        self.feature_size = self._probe(image_size) if feature_size is None else feature_size

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


Backbone = ResNet | EfficientNetLite | ExternalBackbone


def build_backbone(
    architecture: str,
    in_channels: int = 3,
    options: dict[str, Any] | None = None,
    image_size: int | None = None,
) -> Backbone:
    """The backbone that the user names, with `feature_size`.

    What a file names is built by `rebuild_backbone`.

    Args:
        architecture: resnet18/34/50/101/152, lite0, lite2, `hf:FOLDER_OR_NAME` or
            `package.module:callable`, also with arguments: `package.module:callable(width=5)`.
        in_channels: channels of the input; other than 3 for our own networks only.
        options: keyword arguments of a `package.module:callable`, instead of those in its name.
        image_size: side of the images it will see, in pixels; its own or 224 by default.

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
        model, found = fetch_model(architecture.removeprefix("hf:"))
        input_format = InputFormat(**found)
        network = {"configuration": configuration_of(model)}
        size = image_size or input_format.image_size
        return ExternalBackbone(model, image_features, network, input_format, size)
    if ":" in architecture:
        place, arguments = split_call(architecture)
        options = arguments if options is None else options
        network = {"options": options}
        return ExternalBackbone(_make(place, options), _output, network, InputFormat(), image_size or 224)
    raise OptionError(
        "--model",
        expected=f"{', '.join(OWN)}, hf:FOLDER_OR_NAME or package.module:callable",
        found=repr(architecture),
    )


def rebuild_backbone(
    architecture: str,
    in_channels: int,
    network: dict[str, Any],
    feature_size: int,
    most_bytes: int,
    what: str,
) -> Backbone:
    """The backbone that a checkpoint describes, its weights not set; nothing is fetched.

    Args:
        architecture: its name. For `package.module:callable` the user has consented to it, see
            `require_consent`.
        in_channels: channels of the input; other than 3 for our own networks only.
        network: what an earlier build noted (`backbone.network`).
        feature_size: numbers in a feature vector, F.
        most_bytes: of its weights, as the file has.
        what: the file, for the messages.

    Raises:
        TceError: the description is incomplete or not of a network of that size.
    """
    if architecture in OWN:
        return build_backbone(architecture, in_channels)
    if not architecture.startswith("hf:"):
        return ExternalBackbone(
            _make(architecture, network.get("options", {})),
            _output,
            network,
            InputFormat(),
            224,
            feature_size,
        )
    configuration = network.get("configuration")
    if not isinstance(configuration, dict):
        raise TceError(
            f"{what}: it holds a {architecture}",
            expected="the network's configuration in its description",
            found="none",
            fix="give a checkpoint that tce wrote; nothing is fetched for a file",
        )
    model = build_from_configuration(configuration, most_bytes, what)
    return ExternalBackbone(model, image_features, network, InputFormat(), 224, feature_size)


def same_architecture(one: str, other: str) -> bool:
    """Whether two names mean the same network; a Hugging Face folder may have moved since."""
    one, other = architecture_name(one), architecture_name(other)
    if one.startswith("hf:") and other.startswith("hf:"):
        return Path(one.removeprefix("hf:")).name == Path(other.removeprefix("hf:")).name
    return one == other


def architecture_name(model: str) -> str:
    """A network's name as checkpoints hold it: without a callable's arguments, resnet152 for resnet150."""
    return model.partition("(")[0] if is_callable_name(model) else canonical_name(model)


def is_callable_name(model: str) -> bool:
    """Whether a name is a `package.module:callable`, which is imported and called."""
    return ":" in model and not model.startswith("hf:")


def split_call(model: str) -> tuple[str, dict[str, Any]]:
    """The place and the keyword arguments of `package.module:callable(width=5)`.

    Raises:
        OptionError: the arguments are not keywords with plain values.
    """
    place, bracket, rest = model.partition("(")
    if not bracket:
        return place, {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not all(word.arg for word in call.keywords):
            raise ValueError("arguments without a name")
        return place, {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (ValueError, SyntaxError) as error:
        raise OptionError(
            f"--model {model}",
            expected="arguments such as package.module:callable(width=5)",
            found=str(error).splitlines()[0],
        ) from error


def require_consent(architecture: str, network: dict[str, Any], model: str | None, path: str) -> None:
    """A file's `package.module:callable` and its arguments are used only where the user gives the same.

    Args:
        architecture: the callable that the file names.
        network: the file's note, with the callable's arguments.
        model: what the user gave as --model.
        path: the file, for the messages.

    Raises:
        TceError: the user gave nothing, or other arguments.
    """
    options = network.get("options", {})
    if not isinstance(options, dict):
        raise TceError(f"{path}: its network", expected="arguments by name", found=type(options).__name__)
    # As JSON: a tuple is a list in the file.
    if model is not None and json.dumps(split_call(model)[1], sort_keys=True, default=str) == json.dumps(
        options, sort_keys=True
    ):
        return
    call = ", ".join(f"{name}={value!r}" for name, value in options.items())
    raise TceError(
        f"{path}: its network is made by Python code, {architecture}({call[:200]})",
        expected="that code and its arguments from you, as --model",
        found="no --model" if model is None else f"--model {model}",
        fix="a file can name any code to run: give it only if you know the code and trust the file's author",
    )


def input_format(backbone: Backbone) -> InputFormat:
    """How that backbone expects its images; ImageNet's normalisation where nothing else is known."""
    if isinstance(backbone, EfficientNetLite):
        return InputFormat(backbone.image_size)
    return backbone.input_format if isinstance(backbone, ExternalBackbone) else InputFormat()


def network_description(backbone: Backbone) -> dict[str, Any]:
    """What it can be built from again; nothing for our own networks, whose names say it."""
    return backbone.network if isinstance(backbone, ExternalBackbone) else {}


def _output(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


def _make(place: str, options: dict[str, Any]) -> nn.Module:
    """The network that a callable of the user's makes."""
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
    return model


def _resolve(place: str) -> Callable[..., Any]:
    """The network class or function at a place; nothing of Python's own library is imported or called."""
    module_name, _, attribute = place.partition(":")
    _require_user_package(module_name, place)
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
    if inspect.isclass(found) and issubclass(found, nn.Module):
        return found
    if not inspect.isfunction(found) and not inspect.ismethod(found):
        raise TceError(
            f"--model {place}",
            expected="a callable: a network class, or a function that makes a network",
            found=type(found).__name__,
        )
    _require_user_package(found.__module__ or "", place, torch_too=True)
    return found


def _require_user_package(module: str, place: str, torch_too: bool = False) -> None:
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names or (torch_too and root == "torch"):
        raise TceError(
            f"--model {place}",
            expected="a network class, or a function of your own or a model library's that makes one",
            found=f"a function of {root}",
        )


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
        backbone: one of our networks or an external one.
        layer: the dotted name of a module, as `named_modules` gives it; "all"; None for nothing.

    Returns:
        The modules that belong to the frozen part, to be kept in evaluation mode.

    Raises:
        OptionError: no such layer.
    """
    network: nn.Module = backbone.model if isinstance(backbone, ExternalBackbone) else backbone
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
