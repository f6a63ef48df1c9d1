"""From a path to a checkpoint's tensors in our names, and from these to a network.

No code of the file's choice runs, nothing is fetched for it, and no weight stays random.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from tce.errors import OptionError, TceError
from tce.hub.hub_files import fetch_checkpoint, is_hub_address
from tce.io import brief, check_json, parse_json, read_json
from tce.model.backbone import (
    OWN,
    architecture_name,
    is_callable_name,
    rebuild_backbone,
    require_consent,
    same_architecture,
)
from tce.model.checkpoint_formats import (
    OTHER,
    OURS,
    Contents,
    find_state,
    infer_architecture,
    strip_wrappers,
    translate,
)
from tce.model.classifier import Classifier, ClassifierConfig, widen_input
from tce.model.efficientnet_lite import VARIANTS
from tce.model.encoder import EncoderConfig, FrameEncoder, build_encoder, build_start
from tce.model.resnet import DEPTHS
from tce.model.tensor_file import read_header, read_tensors

log = logging.getLogger("tce.model")

FILE_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
KEY = "tce"  # of the description in a file's header, and in training states
VERSION = 1
PROBE_SIZE, LARGEST_PROBE = 64, 1024  # pixels of the test image
Place = str | os.PathLike[str]
Config = TypeVar("Config", EncoderConfig, ClassifierConfig)


def read_contents(
    path: Place,
    model: str | None = None,
    building: bool = True,
    like: FrameEncoder | Classifier | None = None,
) -> Contents:
    """A checkpoint's tensors in our names, and what to build for them.

    Args:
        path: the file, a folder with model.safetensors in it, or a pre-trained network's name.
        model: the network's name, checked against the file, or `hf:...` and `package.module:callable` for a
            state dict of another network.
        building: the network will be built: ask for `model` where that would import code which only the file
            names, and report which part of a larger network is taken.
        like: a network whose backbone's tensors are looked for, in place of the one that `model` names.

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
    elif like is not None or (model is not None and architecture_name(model) not in OWN):
        contents = _external(content, like or build_encoder(str(model), head="none"), str(path))
    else:
        contents = translate(content, str(path))
        _check_model(contents, model, path, building)
    contents.state = _plain_tensors(contents.state, str(path))
    if contents.ignored and building:
        log.warning("%s: %s", path, contents.taken())
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
    target = fetch_checkpoint(str(path)) if is_hub_address(path) else Path(path).expanduser()
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
    if is_hub_address(path):  # a checkpoint of ours
        return None
    if isinstance(path, str) and (path.startswith("hf:") or path in VARIANTS):
        return path
    folder = Path(path).expanduser()
    description, own = folder / CONFIG_NAME, folder / FILE_NAME
    if not description.is_file() or (own.is_file() and KEY in read_header(own)):
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
    tensors = isinstance(content, Mapping) and all(
        isinstance(n, str) and isinstance(v, Tensor) for n, v in content.items()
    )
    if not tensors:
        raise TceError(path, expected="a model's tensors", found=brief(content))
    kind = description.get("kind")
    config: EncoderConfig | ClassifierConfig
    if kind == "encoder":
        config = _config(EncoderConfig, description, path)
    elif kind == "classifier":
        config = _config(ClassifierConfig, description, path)
    else:
        raise TceError(path, expected="a model of kind encoder or classifier", found=brief(kind))
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
        fits = isinstance(value, wanted) and isinstance(value, bool) == isinstance(default, bool)
        if not fits or (entry.name == "classes" and not all(isinstance(name, str) for name in value)):
            raise TceError(
                path, expected=f"{entry.name} of type {type(default).__name__}", found=brief(value)
            )
        values[entry.name] = value
    try:
        config = kind(**values)
    except OptionError as error:
        raise TceError(path, f"{error.what} {error.expected}", error.found) from error
    if config.architecture not in OWN and not re.fullmatch(r"hf:.+|[\w.]+:[\w.]+", config.architecture):
        expected = f"one of {', '.join(OWN)}, hf:NAME or package.module:callable"
        raise TceError(f"{path}: its architecture", expected, brief(config.architecture))
    return config


def _check_model(contents: Contents, model: str | None, path: Place, building: bool) -> None:
    held = contents.config.architecture
    if model is not None and not same_architecture(model, held):
        code = is_callable_name(held)  # a name out of a file is not put before the user as something to run
        raise TceError(
            f"{path}: the file holds a {held}",
            expected=f"{model}, as --model says",
            fix="leave --model out" if code else f"use --model {held}, or leave --model out",
        )
    if building and is_callable_name(held):
        require_consent(held, getattr(contents.config, "network", {}), model, str(path))


def _external(content: Any, like: FrameEncoder | Classifier, path: str) -> Contents:
    """A state dict of another network, the one of `like`: its features; heads in the file are left out."""
    wanted = {n for n in like.state_dict() if n.startswith("backbone.")}
    tensors = strip_wrappers(find_state(content, path)[1])[1]
    # In the file the network may be a part of a larger one, as in "vit.encoder..." or "backbone.stem...".
    prefixes = sorted({"", *(f"{name.split('.')[0]}." for name in tensors)})
    readings = [
        {f"backbone.model.{n.removeprefix(p)}": n for n in tensors if n.startswith(p)} for p in prefixes
    ]
    best = max(readings, key=lambda names: len(names.keys() & wanted))
    state = {name: tensors[n] for name, n in best.items() if name in wanted}
    used = {n for name, n in best.items() if name in wanted}
    ignored = [n for n in tensors if n not in used]
    config = dataclasses.replace(like.config, provenance={"format": OTHER})
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


def restore(config: EncoderConfig | ClassifierConfig, state: dict[str, Tensor], path: str) -> Any:
    """The encoder or classifier of that configuration with these tensors, in evaluation mode.

    Sizes are compared before the network takes memory; every tensor comes from `state`, and a test image
    gives finite numbers.

    Args:
        config: what to build. For a `package.module:callable` the user has consented.
        state: its tensors, float32.
        path: the file, for the messages.

    Raises:
        TceError: names are missing or unknown, shapes or types differ, or the output is not finite.
    """
    size = sum(value.numel() * value.element_size() for value in state.values())

    def build() -> FrameEncoder | Classifier:
        differences = config.differences if isinstance(config, ClassifierConfig) else 0
        channels = 3 * differences or 3
        ours = config.architecture in OWN
        backbone = rebuild_backbone(
            config.architecture, channels if ours else 3, config.network, config.feature_size, size, path
        )
        if isinstance(config, EncoderConfig):
            return FrameEncoder(config, backbone)
        if channels != 3 and not ours:
            widen_input(backbone, channels)
        return Classifier(config, backbone)

    if is_callable_name(config.architecture):  # whose code may not know how to build without memory
        model = build()
    else:
        with torch.device("meta"):
            model = build()
        _require_fit(model, state, path)
        if config.architecture not in OWN:
            model = build()  # for what is computed rather than loaded, such as tables of positions
    load_state(model, state, path)
    check_output(model, path)
    return model.eval()


def load_state(model: FrameEncoder | Classifier, state: Mapping[str, Tensor], path: str) -> None:
    """Load tensors into a model of exactly their names, shapes and kinds.

    Raises:
        TceError: names are missing or unknown, or shapes or kinds differ; it names them.
    """
    _require_fit(model, state, path)
    own = model.state_dict()
    state = {name: value.to(own[name].dtype) for name, value in state.items()}
    model.load_state_dict(state, assign=next(model.parameters()).is_meta)


def _require_fit(model: FrameEncoder | Classifier, state: Mapping[str, Tensor], path: str) -> None:
    wanted = model.state_dict()
    both = [n for n in wanted if n in state]
    problems = {
        "missing": [n for n in wanted if n not in state],
        "unknown": [n for n in state if n not in wanted],
        "of another shape": [
            f"{n} {list(state[n].shape)} in place of {list(wanted[n].shape)}"
            for n in both
            if state[n].shape != wanted[n].shape
        ],
        "of another type": [
            f"{n} {str(state[n].dtype).removeprefix('torch.')}"
            for n in both
            if state[n].is_complex() or state[n].is_floating_point() != wanted[n].is_floating_point()
        ],
    }
    found = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in problems.items()
        if names
    ]
    if found:
        raise TceError(
            path,
            expected=f"the {len(wanted)} tensors of a {model.config.architecture}",
            found=" and ".join(found),
        )


def check_output(model: FrameEncoder | Classifier, path: str) -> None:
    """Run a model on two test images.

    Raises:
        TceError: it fails, or its output is not finite.
    """
    size = PROBE_SIZE if model.config.architecture in OWN else model.image_size
    size = size if size <= LARGEST_PROBE else 224
    count = model.frames_per_sample if isinstance(model, Classifier) else 1
    ramp = torch.arange(2 * count * size * size * 3, dtype=torch.int64)
    images = (ramp * 7919 % 256).to(torch.uint8).view(2 * count, size, size, 3)
    frames = images.view(2, count, size, size, 3) if count > 1 else images
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            out = model(model.preprocess(frames, size, "none"))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TceError(path, expected="a network that takes images", found=reason[:160]) from error
    finally:
        model.train(training)
    size = model.embedding_size if isinstance(model, FrameEncoder) else model.num_classes
    if out.shape[1] != size:
        raise TceError(path, expected=f"{size} numbers for an image", found=str(out.shape[1]))
    if not torch.isfinite(out).all():
        raise TceError(
            path,
            expected="finite embeddings",
            found="NaN or infinity for a test image",
            fix="its weights or its normalisation are damaged; fetch or convert it again",
        )
