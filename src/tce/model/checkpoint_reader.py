"""From a path to a checkpoint's tensors in our names; no code of the file's choice runs."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from tce.errors import OptionError, TceError
from tce.model.backbone import OWN, same_architecture
from tce.model.checkpoint_formats import (
    OTHER,
    OURS,
    Contents,
    find_state,
    infer_architecture,
    name_some,
    strip_prefix,
    translate,
)
from tce.model.classifier import ClassifierConfig
from tce.model.efficientnet_lite import VARIANTS
from tce.model.encoder import EncoderConfig, build_encoder, build_start
from tce.model.resnet import DEPTHS, canonical_name
from tce.model.tensor_file import brief, check_json, parse_json, read_json, read_tensors

log = logging.getLogger("tce.model")

FILE_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
KEY = "tce"  # of the description in a file's header, and in training states
VERSION = 1
Place = str | os.PathLike[str]
Config = TypeVar("Config", EncoderConfig, ClassifierConfig)


def read_contents(path: Place, model: str | None = None, building: bool = True) -> Contents:
    """A checkpoint's tensors in our names, and what to build for them.

    Args:
        path: the file, a folder with model.safetensors in it, or a pre-trained network's name.
        model: the network's name, checked against the file, or `hf:...` and `package.module:callable` for a
            state dict of another network.
        building: the network will be built: ask for `model` where that would import code which only the file
            names.

    Raises:
        TceError: not a checkpoint, damaged, or not of that `model`.
    """
    start = start_name(path)
    if start is not None:
        return _start(start)
    content, description = _read(checkpoint_file(path))
    if description is not None:
        contents = _ours(content, description, str(path))
        _check_model(contents, model, path, building)
    elif model is not None and canonical_name(model) not in OWN:
        contents = _foreign(content, model, str(path))
    else:
        contents = translate(content, str(path))
        _check_model(contents, model, path, building)
    contents.state = _plain_tensors(contents.state, str(path))
    return contents


def _start(name: str) -> Contents:
    encoder = build_start(name)
    given = encoder.config.provenance.get("format", "Hugging Face")
    return Contents(given, "encoder", encoder.config, dict(encoder.state_dict()))


def checkpoint_file(path: Place) -> Path:
    """The file meant by a path: itself, or the model in that folder.

    Raises:
        TceError: there is none.
    """
    target = Path(path).expanduser()
    if target.is_dir():
        inside = target / FILE_NAME
        if inside.is_file():
            return inside
        raise TceError(
            str(path),
            expected=f"a checkpoint, or a folder with {FILE_NAME} in it",
            found=f"a folder without {FILE_NAME}",
            fix="name the checkpoint file in it",
        )
    if not target.exists():
        raise TceError(str(path), expected="a checkpoint", found="no such file", fix="check the path")
    return target


def start_name(path: Place) -> str | None:
    """The name of a pre-trained network, for `build_start`; None for a checkpoint of our formats.

    That is `lite0`, `lite2`, `hf:...`, or `hf:FOLDER` for a folder written by transformers'
    `save_pretrained`. A file or folder called lite2 is meant by ./lite2.
    """
    if isinstance(path, str) and (path.startswith("hf:") or path in VARIANTS):
        return path
    description = Path(path).expanduser() / CONFIG_NAME
    if not description.is_file():
        return None
    try:
        content = read_json(description)
    except TceError:
        return None
    return f"hf:{path}" if isinstance(content, dict) and "model_type" in content else None


def _read(file: Path) -> tuple[Any, dict[str, Any] | None]:
    """A file's content, and its description where it is one of ours."""
    content, header = read_tensors(file)
    if KEY in header:
        return content, _parse(header[KEY], str(file))
    if isinstance(content, Mapping) and KEY in content:  # a training state
        return content.get("model"), _parse(content[KEY], str(file))
    return content, None


def _parse(header: Any, path: str) -> dict[str, Any]:
    what = f"{path}: its description"
    description = parse_json(header, what) if isinstance(header, str) else check_json(header, what)
    if not isinstance(description, dict) or description.get("format") != OURS:
        raise TceError(path, expected="a description of a tce model", found="another one")
    version = description.get("version")
    if version != VERSION or version is True:
        fix = "update tce" if isinstance(version, int) and version > VERSION else ""
        raise TceError(path, expected=f"version {VERSION} of the format", found=brief(version), fix=fix)
    return description


def _ours(content: Any, description: dict[str, Any], path: str) -> Contents:
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise TceError(path, expected="a model's tensors", found=type(content).__name__)
    kind = description.get("kind")
    config: EncoderConfig | ClassifierConfig
    if kind == "encoder":
        config = _config(EncoderConfig, description, path)
    elif kind == "classifier":
        config = _config(ClassifierConfig, description, path)
    else:
        raise TceError(path, expected="a model of kind encoder or classifier", found=repr(kind))
    if config.architecture in DEPTHS:
        backbone = {n.removeprefix("backbone."): v for n, v in content.items() if n.startswith("backbone.")}
        held = infer_architecture(backbone, path)
        if held != config.architecture:
            raise TceError(
                path, expected=f"the tensors of a {config.architecture}", found=f"those of a {held}"
            )
    return Contents(OURS, kind, config, dict(content))


def _config(kind: type[Config], description: dict[str, Any], path: str) -> Config:
    """A configuration out of a file's description, its types checked: they size what is built."""
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(kind):
        if entry.name not in description:
            continue
        value: Any = description[entry.name]
        default: Any = {} if entry.default is dataclasses.MISSING else entry.default
        value = tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
        wanted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, wanted):
            raise TceError(
                path, expected=f"{entry.name} of type {type(default).__name__}", found=repr(value)[:80]
            )
        values[entry.name] = value
    try:
        return kind(**values)
    except OptionError as error:
        raise TceError(path, f"{error.what} {error.expected}", error.found) from error


def _check_model(contents: Contents, model: str | None, path: Place, building: bool) -> None:
    held = contents.config.architecture
    if model is not None and not same_architecture(model, held):
        raise TceError(
            f"{path}: the file holds a {held}",
            expected=f"{model}, as --model says",
            fix=f"use --model {held}, or leave --model out",
        )
    foreign = held not in OWN and not held.startswith("hf:")
    if foreign and model is None and building:
        raise TceError(
            f"{path}: its network is made by {held}",
            expected="your consent, because loading it imports that code",
            fix=f"if you trust it, add --model {held}",
        )


def _foreign(content: Any, model: str, path: str) -> Contents:
    """A state dict of another network, which `model` names: its features; heads in the file are left out."""
    encoder = build_encoder(model, head="none")
    wanted = encoder.state_dict()
    tensors = strip_prefix(find_state(content, path)[1], "module.")
    # In the file the network may be a part of a larger one, as in "vit.encoder..." or "backbone.stem...".
    prefixes = sorted({"", *(f"{name.split('.')[0]}." for name in tensors)})
    readings = [
        {f"backbone.model.{n.removeprefix(p)}": n for n in tensors if n.startswith(p)} for p in prefixes
    ]
    best = max(readings, key=lambda names: len(names.keys() & wanted.keys()))
    state = {name: tensors[n] for name, n in best.items() if name in wanted}
    used = {n for name, n in best.items() if name in wanted}
    ignored = [n for n in tensors if n not in used]
    if ignored:
        log.warning("%s: %s has no use for %s", path, model, name_some(ignored))
    config = dataclasses.replace(encoder.config, provenance={"format": OTHER})
    return Contents(OTHER, "encoder", config, state, ignored)


def _plain_tensors(state: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Dense finite float32; batch norm's counters, which files before torch 0.4.1 lack, are zero.

    Raises:
        TceError: NaN, infinity or a negative variance in one of them.
    """
    plain = {}
    for name, value in state.items():
        value = value.detach()
        if value.is_floating_point():
            value = value.to(torch.float32)
            if not torch.isfinite(value).all():
                raise TceError(path, expected="weights that are numbers", found=f"NaN or infinity in {name}")
        if name.endswith("running_var") and not value.is_complex() and (value < 0).any():
            raise TceError(path, expected="variances of 0 or more", found=f"a negative one in {name}")
        plain[name] = value.contiguous()
    for name in list(plain):
        stem, _, last = name.rpartition(".")
        if last == "running_mean":
            plain.setdefault(f"{stem}.num_batches_tracked", torch.tensor(0))
    return plain
