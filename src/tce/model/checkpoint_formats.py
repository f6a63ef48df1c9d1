"""The checkpoint formats: which one a file's tensors are in, and their names in ours.

Ours: `backbone.*` (a ResNet's published names), `head.*` (the embedding), `rotation_head.*`, and `fc.*` for a
classifier. Architectures are read off the tensors, never believed from a file's words.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from tce.errors import TceError
from tce.model.classifier import ClassifierConfig
from tce.model.encoder import EncoderConfig
from tce.model.resnet import DEPTHS

PRETRAINED_2020 = "TCE 2020 pre-training"
FINETUNED_2020 = "TCE 2020 fine-tuning"
PRETRAINED_LATER = "TCE later pre-training"
FINETUNED_LATER = "TCE later fine-tuning"
TORCHVISION = "torchvision"
OURS = "tce"
OTHER = "other network"

IMAGENET_CLASSES = 1000
EMBEDDING_2020 = 128
LONGEST_NOTE = 200  # letters of a file's own words that are kept

WRAPPERS = ("model", "state_dict", "model_state_dict", "net", "network", "encoder", "backbone")
SHARED_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
FIRST_BLOCK = "layer1.0.conv1.weight"
RESNET_PARTS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")
# MoCo's encoder_k, BYOL's target network, DINO's teacher and their like.
MOMENTUM_COPY = re.compile(r"(^|[._])(k|m|momentum|target|teacher|ema)([._]|$)")


@dataclass
class Contents:
    """A checkpoint in our names.

    Attributes:
        format: one of the formats above.
        kind: "encoder", "classifier", or "backbone": a torchvision file serves as either.
        config: what to build.
        state: its tensors.
        ignored: names in the file that are of no use here.
        prefix: of the names that were taken, where the network is a part of a larger one.
    """

    format: str
    kind: str
    config: EncoderConfig | ClassifierConfig
    state: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)
    prefix: str = ""

    def taken(self) -> str:
        """What was taken from the file and what was left, in a line."""
        held = f"a {self.config.architecture}" + (f" under the prefix {self.prefix}" if self.prefix else "")
        text = f"took {len(self.state)} tensors of {held}"
        parts = Counter(_part_of(name) for name in self.ignored)
        left = [f"{part} ({count})" for part, count in parts.items()]
        return f"{text}; left out {name_some(left)}" if left else text


def translate(content: Any, path: str) -> Contents:
    """A checkpoint's content in our names.

    Args:
        content: what the file holds: a state dict, or a mapping around one.
        path: the file, for the messages.

    Raises:
        TceError: none of the known formats, or no ResNet of ours.
    """
    wrapper, tensors = find_state(content, path)
    prefix, names = strip_wrappers(tensors)
    if prefix not in ("", "module."):
        wrapper = ""  # not the 2020 release's, whose "model" holds an embedding under the name fc
    provenance = _provenance(content)
    if any(name.startswith("backbone.") for name in names) and _head_beside(names) is not None:
        return _later(names, provenance, path)
    if "conv1_custom.weight" in names or "fc_custom.weight" in names:
        return _finetuned_2020(names, provenance, path)
    if FIRST_BLOCK not in names:
        inner = _find_resnet(names)
        if inner is not None:
            return _part(names, prefix, inner, provenance, path)
    return _torchvision(names, wrapper, provenance, path)


def find_state(content: Any, path: str) -> tuple[str, dict[str, Tensor]]:
    """The state dict in a file's content, and the key under which it was ("" where it is the content).

    Raises:
        TceError: there is none, or its names are not text.
    """
    if isinstance(content, Mapping):
        for wrapper in WRAPPERS:
            if _is_state(content.get(wrapper)):
                return wrapper, _named(content[wrapper], path)
        if _is_state(content):
            return "", _named(content, path)
        found = f"a mapping with {name_some(content)}"
    else:
        found = f"a {type(content).__name__}"
    fix = "save the model's state_dict()"
    if isinstance(content, Mapping) and {"task", "optimizer", "step"} <= content.keys():
        found, fix = "the state of a training run", "give the run's folder, which holds its model.safetensors"
    raise TceError(
        path,
        expected=f"a checkpoint: a state dict, alone or under {', '.join(WRAPPERS)}",
        found=found,
        fix=fix,
    )


def _part_of(name: str) -> str:
    """The part of a network that a tensor belongs to, for a summary."""
    first, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    return f"{first}.{second}" if second not in ("", "weight", "bias") and not second.isdigit() else first


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def _named(state: Mapping[Any, Tensor], path: str) -> dict[str, Tensor]:
    for name in state:
        if not isinstance(name, str):
            raise TceError(
                path, expected="tensors whose names are text", found=f"a name of type {type(name).__name__}"
            )
    return dict(state)


def strip_wrappers(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The tensors without the prefixes that all of them share, and these prefixes together.

    DataParallel puts `module.` before every name, torch.compile `_orig_mod.`, Lightning `model.` or `net.`,
    whatever the attribute is called.
    """
    names, taken = dict(tensors), ""
    while True:
        prefix = next((p for p in SHARED_PREFIXES if all(n.startswith(p) for n in names)), None)
        if prefix is None:
            return taken, names
        names = {name.removeprefix(prefix): value for name, value in names.items()}
        taken += prefix


def _find_resnet(names: Mapping[str, Tensor]) -> str | None:
    """The prefix of a ResNet inside a larger network; the trained one of a pair with a momentum copy."""
    prefixes = [n.removesuffix(FIRST_BLOCK) for n in names if n.endswith(FIRST_BLOCK)]
    prefixes = [p for p in prefixes if f"{p}conv1.weight" in names]
    trained = [p for p in prefixes if not MOMENTUM_COPY.search(p)]
    return next(iter(trained or prefixes), None)


def _part(
    names: dict[str, Tensor], outer: str, inner: str, provenance: dict[str, Any], path: str
) -> Contents:
    """The ResNet in a larger network: its features alone, or an ImageNet classifier of 1000 classes."""
    own = {n.removeprefix(inner): v for n, v in names.items() if n.startswith(inner)}
    fc = own.get("fc.weight")
    if fc is None or fc.ndim != 2 or len(fc) != IMAGENET_CLASSES or "fc.bias" not in own:
        own = {n: v for n, v in own.items() if not n.startswith("fc.")}  # a projection, not features
    own = {n: v for n, v in own.items() if n.split(".")[0] in RESNET_PARTS}
    contents = _torchvision(own, "", provenance, path)
    contents.prefix = outer + inner
    contents.ignored = [n for n in names if not (n.startswith(inner) and n.removeprefix(inner) in own)]
    return contents


def infer_architecture(backbone: Mapping[str, Tensor], path: str) -> str:
    """The ResNet that has these tensors, by its blocks.

    Raises:
        TceError: none of ours.
    """
    blocks = tuple(
        len({name.split(".")[1] for name in backbone if re.match(rf"layer{stage}\.\d+\.", name)})
        for stage in (1, 2, 3, 4)
    )
    bottleneck = "layer1.0.conv3.weight" in backbone
    for name, depth in DEPTHS.items():
        if depth.blocks == blocks and depth.bottleneck == bottleneck:
            return name
    raise TceError(
        path,
        expected=f"the tensors of {', '.join(DEPTHS)}",
        found=f"other layers: {name_some(backbone)}",
        fix="name its network with --model hf:FOLDER_OR_NAME or --model package.module:callable",
    )


def _width(tensors: Mapping[str, Tensor], name: str, path: str) -> int:
    """Outputs of a linear layer of that name.

    Raises:
        TceError: it is missing or no matrix.
    """
    weight = tensors.get(f"{name}.weight")
    if weight is None or weight.ndim != 2:
        raise TceError(
            path,
            expected=f"a matrix {name}.weight",
            found="none" if weight is None else f"a tensor of shape {list(weight.shape)}",
        )
    return weight.shape[0]


def _channels(backbone: Mapping[str, Tensor], path: str) -> int:
    weight = backbone.get("conv1.weight")
    if weight is None or weight.ndim != 4 or weight.shape[1] % 3 or not weight.shape[1]:
        raise TceError(
            path,
            expected="a first convolution conv1.weight [64, 3 or a multiple of it, 7, 7]",
            found="none" if weight is None else f"one of shape {list(weight.shape)}",
        )
    return weight.shape[1]


def _feature_size(architecture: str) -> int:
    return 2048 if DEPTHS[architecture].bottleneck else 512


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def _split(
    tensors: Mapping[str, Tensor], heads: Iterable[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors without the named layers, and those of the named layers."""
    heads = tuple(heads)
    inside = {n: v for n, v in tensors.items() if n.rpartition(".")[0] in heads}
    return {n: v for n, v in tensors.items() if n not in inside}, inside


def _encoder(
    format: str,
    backbone: dict[str, Tensor],
    head: dict[str, Tensor],
    rotation: dict[str, Tensor],
    provenance: dict[str, Any],
    path: str,
) -> Contents:
    """An encoder out of a ResNet's tensors and a linear head's `weight` and `bias`."""
    architecture = infer_architecture(backbone, path)
    channels = _channels(backbone, path)
    if channels != 3:
        raise TceError(path, expected="a pre-training file of RGB frames", found=f"{channels} input channels")
    config = EncoderConfig(
        architecture=architecture,
        embedding_size=head["weight"].shape[0],
        head="linear",
        rotation=bool(rotation),
        feature_size=_feature_size(architecture),
        provenance={"format": format, **provenance},
    )
    state = _under("backbone", backbone) | _under("head", head) | _under("rotation_head", rotation)
    return Contents(format, "encoder", config, state)


def _classifier(
    format: str,
    backbone: dict[str, Tensor],
    fc: dict[str, Tensor],
    provenance: dict[str, Any],
    path: str,
    resize: str = "squash",
) -> Contents:
    """A classifier out of a ResNet's tensors and its last layer's `weight` and `bias`."""
    architecture = infer_architecture(backbone, path)
    channels = _channels(backbone, path)
    config = ClassifierConfig(
        architecture=architecture,
        num_classes=fc["weight"].shape[0],
        differences=0 if channels == 3 else channels // 3,
        feature_size=_feature_size(architecture),
        resize=resize,
        provenance={"format": format, **provenance},
    )
    return Contents(format, "classifier", config, _under("backbone", backbone) | _under("fc", fc))


def _layer(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """`weight` and `bias` of a layer of that name."""
    return {n.rpartition(".")[2]: v for n, v in tensors.items() if n.rpartition(".")[0] == name}


def _finetuned_2020(names: dict[str, Tensor], provenance: dict[str, Any], path: str) -> Contents:
    _width(names, "fc_custom", path)
    rest, _ = _split(names, ["fc_custom"])
    backbone = {n.replace("conv1_custom.", "conv1.", 1): v for n, v in rest.items()}
    return _classifier(FINETUNED_2020, backbone, _layer(names, "fc_custom"), provenance, path)


def _head_beside(names: Mapping[str, Tensor]) -> str | None:
    """The layer beside a later TCE file's `backbone.*`, if it is one."""
    layers = ("fc_contrastive", "fc", "classifier", "fc_custom")
    return next((layer for layer in layers if f"{layer}.weight" in names), None)


def _later(names: dict[str, Tensor], provenance: dict[str, Any], path: str) -> Contents:
    inner = {n.removeprefix("backbone."): v for n, v in names.items() if n.startswith("backbone.")}
    backbone, unused = _split(inner, ["fc"])  # the trunk's own ImageNet layer, where it was left in
    outer = {n: v for n, v in names.items() if not n.startswith("backbone.")}
    if any(n.startswith("fc_contrastive.") for n in outer):
        _width(outer, "fc_contrastive", path)
        rotation = {n: v for n, v in outer.items() if re.match(r"(fc|bn)_rotation_\d\.", n)}
        contents = _encoder(
            PRETRAINED_LATER, backbone, _layer(outer, "fc_contrastive"), rotation, provenance, path
        )
        extra = [n for n in outer if n not in rotation and not n.startswith("fc_contrastive.")]
    else:
        layer = _head_beside(outer)
        assert layer is not None
        _width(outer, layer, path)
        contents = _classifier(FINETUNED_LATER, backbone, _layer(outer, layer), provenance, path)
        extra = list(_split(outer, [layer])[0])
    contents.state.update({n: outer[n] for n in extra})  # reported as unknown when they are loaded
    contents.ignored = [f"backbone.{n}" for n in unused]
    return contents


def _torchvision(names: dict[str, Tensor], wrapper: str, provenance: dict[str, Any], path: str) -> Contents:
    """Torchvision's names: the 2020 encoder or an ImageNet network, by wrapper and size of `fc`.

    Under 'model', or with 128 outputs, `fc` is the embedding of 2020. Otherwise it is a classifier's last
    layer, which an encoder leaves out.
    """
    backbone, _ = _split(names, ["fc"])
    fc = _layer(names, "fc")
    architecture = infer_architecture(backbone, path)
    if fc:
        width = _width(names, "fc", path)
        if width != IMAGENET_CLASSES and (wrapper == "model" or width == EMBEDDING_2020):
            return _encoder(PRETRAINED_2020, backbone, fc, {}, provenance, path)
        contents = _classifier(TORCHVISION, backbone, fc, provenance, path, resize="center-crop")
        contents.kind = "backbone"
        return contents
    config = EncoderConfig(
        architecture=architecture,
        embedding_size=_feature_size(architecture),
        head="none",
        feature_size=_feature_size(architecture),
        provenance={"format": TORCHVISION, **provenance},
    )
    return Contents(TORCHVISION, "backbone", config, _under("backbone", backbone))


def _provenance(content: Any) -> dict[str, Any]:
    """The few facts that a training file holds beside its tensors."""
    notes: dict[str, Any] = {}
    for key in ("epoch", "best_prec1", "best_acc1", "arch"):
        value = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(value, Tensor | np.generic):
            value = value.item() if isinstance(value, np.generic) or value.numel() == 1 else None
        short = isinstance(value, str) and len(value) <= LONGEST_NOTE
        whole = isinstance(value, int) and value.bit_length() <= 64
        if short or whole or (isinstance(value, float) and math.isfinite(value)):
            notes[key] = value
    return notes


def name_some(names: Iterable[Any], count: int = 4) -> str:
    """The first few names, and how many more there are."""
    names = [str(n)[:80] if isinstance(n, str | int | float) else f"a {type(n).__name__}" for n in names]
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more if names else "nothing"
