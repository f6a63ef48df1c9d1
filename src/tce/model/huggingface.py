"""Image models of the Hugging Face transformers library: fetched, rebuilt, and read out as features."""

from __future__ import annotations

import inspect
import json
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tce.errors import TceError
from tce.model.preprocess import IMAGENET_MEAN, IMAGENET_STD

log = logging.getLogger("tce.model")

# Entries that would make transformers fetch something or run code that did not come with it.
_UNWANTED = ("auto_map", "quantization_config", "attn_implementation", "experts_implementation", "backbone")
_LABELS = ("id2label", "label2id")  # of a head that is not there; a thousand of them in ImageNet's


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise TceError(
            "--model hf:...",
            expected="the transformers library",
            found="it is not installed",
            fix="pip install 'tce-video[hf]'",
        ) from error
    return transformers


def fetch_model(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A published image model, and how it wants its images (`Pixels`' fields).

    Args:
        name: a folder written by `save_pretrained`, or a name on the Hugging Face Hub, fetched or taken from
            the local cache.

    Raises:
        TceError: it cannot be had, or does not take images.
    """
    transformers = _transformers()
    folder = Path(name).expanduser()
    place = str(folder) if folder.is_dir() else name
    if not folder.is_dir():
        log.info("taking %s from the Hugging Face Hub or its local cache", name)
    with _quiet(transformers):
        try:
            model = transformers.AutoModel.from_pretrained(place, trust_remote_code=False)
        except Exception as error:  # not found, no network, unknown type: transformers' own words say which
            raise TceError(
                f"hf:{name}",
                expected="a folder written by save_pretrained, or a model's name on the Hugging Face Hub",
                found=(str(error).strip() or type(error).__name__).splitlines()[0].rstrip("."),
                fix="check the name; without a network give a folder",
            ) from error
    _require_images(model, name)
    return _ready(model).float(), _wishes(transformers, place, model.config)


def configuration_of(model: nn.Module) -> dict[str, Any]:
    """What `build_from_configuration` builds the same network from, JSON types."""
    entries = json.loads(json.dumps(model.config.to_dict()))  # type: ignore[union-attr, operator]
    return {k: v for k, v in entries.items() if k not in (*_UNWANTED, *_LABELS) and not k.startswith("_")}


def build_from_configuration(configuration: dict[str, Any]) -> nn.Module:
    """The image model of a stored configuration, with random weights; nothing is fetched.

    Args:
        configuration: what `configuration_of` gave.

    Raises:
        TceError: this version of transformers does not know the model.
    """
    transformers = _transformers()
    wanted = {k: v for k, v in configuration.items() if k not in _UNWANTED and not k.startswith("_")}
    kind = wanted.pop("model_type", None)
    try:
        config = transformers.AutoConfig.for_model(kind, **wanted)
        model = transformers.AutoModel.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise TceError(
            f"the stored configuration of a {kind}",
            expected="one that this version of transformers knows",
            found=f"transformers {transformers.__version__}: {error}",
        ) from error
    _require_images(model, str(kind))
    return _ready(model)


def _require_images(model: nn.Module, name: str) -> None:
    reads = getattr(model, "main_input_name", None)
    if reads != "pixel_values" or "input_ids" in inspect.signature(model.forward).parameters:
        raise TceError(f"hf:{name}", expected="a model of images alone", found=f"{type(model).__name__}")


def _ready(model: nn.Module) -> nn.Module:
    """Drop a pooler that features do not pass through: often untrained, and idle parameters stall DDP."""
    if _has_class_token(model) and getattr(model, "pooler", None) is not None:
        model.pooler = None  # type: ignore[assignment]
    for name, parameter in model.named_parameters():
        if name.endswith("mask_token"):
            parameter.requires_grad_(False)
    return model


def _has_class_token(model: nn.Module) -> bool:
    return any(name.rpartition(".")[2] == "cls_token" for name, _ in model.named_parameters())


def image_features(model: nn.Module, x: Tensor) -> Tensor:
    """Features [B, F] of images [B, C, h, w].

    The class token's last state where there is one (ViT, DINO, DINOv2), else the model's own pooling of its
    map or tokens (ConvNeXt, ResNet, Swin), else their mean. A ViT's tanh "pooler" is not used: in most
    published files it is untrained.
    """
    arguments = {}
    if "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:
        arguments["interpolate_pos_encoding"] = True  # any image size, not the one of its own training alone
    out = model(pixel_values=x, **arguments)
    last = out.last_hidden_state
    if last.ndim == 3 and _has_class_token(model):
        return last[:, 0]  # [B, tokens, F] -> [B, F]
    pooled = getattr(out, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    return last.mean(dim=1) if last.ndim == 3 else last.mean(dim=(2, 3))


def _wishes(transformers: Any, place: str, config: Any) -> dict[str, Any]:
    """Image size, mean, deviation and resizing out of the image processor's file beside the weights."""
    processor = _processor_file(transformers, place)
    wishes: dict[str, Any] = {
        "image_size": _side(getattr(config, "image_size", None)) or 224,
        "mean": tuple(processor.get("image_mean") or IMAGENET_MEAN),
        "std": tuple(processor.get("image_std") or IMAGENET_STD),
    }
    cropped = bool(processor.get("do_center_crop") and processor.get("crop_size"))
    side = _side(processor.get("crop_size") if cropped else processor.get("size"))
    if side is not None:
        wishes["image_size"] = side
    square = isinstance(processor.get("size"), dict) and "height" in processor["size"]
    wishes["resize"] = "squash" if square and not cropped else "center-crop"
    return wishes


def _side(size: Any) -> int | None:
    """One number out of the ways in which these files give a size."""
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    if isinstance(size, list | tuple):
        size = size[0] if size else None
    return int(size) if isinstance(size, int | float) and size > 0 else None


def _processor_file(transformers: Any, place: str) -> dict[str, Any]:
    name = "preprocessor_config.json"
    if Path(place).is_dir():
        path = Path(place) / name
    else:
        try:
            found = transformers.utils.cached_file(place, name, _raise_exceptions_for_missing_entries=False)
        except OSError:
            found = None
        path = Path(found or name)
    if not path.is_file():
        log.info("%s has no %s: ImageNet's normalisation is used", place, name)
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TceError(str(path), expected="JSON", found=str(error)) from error
    return content if isinstance(content, dict) else {}


@contextmanager
def _quiet(transformers: Any):
    """Without transformers' bars and its report on heads that are left out on purpose."""
    logging_ = transformers.utils.logging
    level, bars = logging_.get_verbosity(), logging_.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    logging_.set_verbosity_error()
    hub.setLevel(logging.ERROR)
    logging_.disable_progress_bar()
    try:
        yield
    finally:
        logging_.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            logging_.enable_progress_bar()
