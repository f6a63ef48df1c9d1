"""Image models of the Hugging Face transformers library: fetched, rebuilt, and read out as features.

Weights and configurations are read here, with this package's bounded readers: `from_pretrained` would follow
a folder's references to other repositories, and fill what is missing with random numbers.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

from tce.errors import TceError
from tce.hub.hub_files import offline
from tce.io import read_json
from tce.model.preprocess import IMAGENET_MEAN, IMAGENET_STD
from tce.model.tensor_file import read_tensors

log = logging.getLogger("tce.model")

# Entries that would make transformers fetch something or run code that did not come with it; those of any
# level whose names begin with an underscore, too.
_CODE = (
    *("auto_map", "attn_implementation", "experts_implementation", "quantization_config", "kernel_config"),
    *("use_kernels", "custom_pipelines", "name_or_path", "backbone", "dtype", "torch_dtype"),
)
_LABELS = ("id2label", "label2id")  # of a head that is not there; a thousand of them in ImageNet's
LARGEST, LARGEST_SUM = 1 << 20, 1 << 22  # of a configuration's numbers, which count layers and widths
SPARE_BYTES = 64 << 20  # for buffers that are computed, such as tables of positions
MOST_MODULES = 20_000
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")


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
    """A published image model with its weights, and how it expects its images (`InputFormat`'s fields).

    Args:
        name: a folder written by `save_pretrained`, or a name on the Hugging Face Hub, downloaded or taken
            from the local cache.

    Raises:
        TceError: it cannot be had, does not take images, or lacks some of its weights.
    """
    transformers = _transformers()
    folder = _local_folder(name)
    configuration = _read_configuration(folder)
    tensors = _read_weights(folder)
    size = sum(value.numel() * 4 for value in tensors.values())
    with torch.device("meta"):
        empty = build_from_configuration(configuration, size, f"hf:{name}")
    with offline(), _quiet(transformers):
        try:
            model, report = type(empty).from_pretrained(  # type: ignore[attr-defined]
                None,
                config=empty.config,
                state_dict=tensors,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, with the missing ones
            )
        except Exception as error:  # transformers' own words say which
            raise _unusable(name, error) from error
    model = _ready(model).float()
    _require_weights(model, report, f"hf:{name}")
    return model, _input_format(folder, model.config)


def _unusable(name: str, error: Exception) -> TceError:
    return TceError(
        f"hf:{name}",
        expected="a folder written by save_pretrained, or a model's name on the Hugging Face Hub",
        found=(str(error).strip() or type(error).__name__).splitlines()[0].rstrip("."),
        fix="check the name; without a network give a folder",
    )


def _local_folder(name: str) -> Path:
    """The folder itself, or that of the local cache into which the Hub's files are downloaded."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    import huggingface_hub

    log.info("taking %s from the Hugging Face Hub or its local cache", name)
    try:
        wanted = ["config.json", "preprocessor_config.json", *SAFETENSORS]
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=[*wanted, *PICKLES]))
    except Exception as error:  # not found, no network, no such name: the library's own words say which
        raise _unusable(name, error) from error
    return folder


def _read_configuration(folder: Path) -> dict[str, Any]:
    content = read_json(folder / "config.json")
    if not isinstance(content, dict):
        raise TceError(str(folder / "config.json"), expected="a model's configuration", found="another value")
    return content


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder's files, safetensors before pickles."""
    for whole, index, _ in (SAFETENSORS, PICKLES):
        if (folder / whole).is_file():
            files = [whole]
        elif (folder / index).is_file():
            content = read_json(folder / index)
            parts = content.get("weight_map") if isinstance(content, dict) else None
            files = sorted({str(part) for part in parts.values()}) if isinstance(parts, dict) else []
        else:
            continue
        tensors: dict[str, Any] = {}
        for file in files:
            if Path(file).name != file:
                raise TceError(str(folder / index), expected="files of its folder", found=file)
            content = read_tensors(folder / file)[0]
            tensors.update(content if isinstance(content, Mapping) else {})
        if not tensors or not all(isinstance(n, str) and isinstance(v, Tensor) for n, v in tensors.items()):
            raise TceError(str(folder), expected="a model's tensors", found="none, or something else")
        return tensors
    raise TceError(
        str(folder), expected="model.safetensors or pytorch_model.bin beside config.json", found="neither"
    )


def _require_weights(model: nn.Module, report: Mapping[str, Any], what: str) -> None:
    """Every tensor that features pass through came from the file and is finite.

    Raises:
        TceError: one did not or is not.
    """
    present = model.state_dict()
    unmatched = {str(item[0]) for item in report["mismatched_keys"]}
    missing = sorted((set(report["missing_keys"]) | unmatched) & present.keys())
    for name in missing:
        if name.endswith("mask_token"):  # of masked pre-training; features do not pass through it
            present[name].zero_()
    missing = [name for name in missing if not name.endswith("mask_token")]
    if missing:
        more = ", ..." if len(missing) > 3 else ""
        raise TceError(
            what,
            expected=f"the {len(present)} tensors of a {type(model).__name__}",
            found=f"{len(missing)} missing or of another shape ({', '.join(missing[:3])}{more})",
            fix="fetch it again, or give the network that its config.json describes",
        )
    for name, value in present.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise TceError(what, expected="weights that are numbers", found=f"NaN or infinity in {name}")


def configuration_of(model: nn.Module) -> dict[str, Any]:
    """What `build_from_configuration` builds the same network from, JSON types."""
    entries = json.loads(json.dumps(model.config.to_dict()))  # type: ignore[union-attr, operator]
    return {k: v for k, v in _without_code(entries).items() if k not in _LABELS}


def _without_code(value: Any) -> Any:
    """A configuration without entries that name code or other repositories, on any level."""
    if isinstance(value, dict):
        return {
            k: _without_code(v) for k, v in value.items() if not str(k).startswith("_") and k not in _CODE
        }
    return [_without_code(item) for item in value] if isinstance(value, list) else value


def build_from_configuration(configuration: dict[str, Any], most_bytes: int, what: str) -> nn.Module:
    """The image model of a stored configuration, its weights not set; nothing is fetched.

    It is built on the default device; on "meta" its tensors take no memory.

    Args:
        configuration: what `configuration_of` gave.
        most_bytes: of its weights, as the file that holds them has.
        what: its origin, for the messages.

    Raises:
        TceError: this version of transformers does not know the model, it does not take images, or it is
            larger than its file.
    """
    transformers = _transformers()
    wanted = {k: v for k, v in _without_code(configuration).items() if k not in _LABELS}
    _require_small_numbers(wanted, what)
    kind = wanted.pop("model_type", None)
    with offline(), _quiet(transformers), _without_initialisation(), _at_most(2 * most_bytes, what):
        try:
            config = transformers.AutoConfig.for_model(kind, **wanted)
            _require_whole(config, str(kind), what)
            model = transformers.AutoModel.from_config(config, trust_remote_code=False)
        except TceError:
            raise
        except Exception as error:
            raise TceError(
                f"{what}: the configuration of a {str(kind)[:80]}",
                expected="one that this version of transformers knows",
                found=f"transformers {transformers.__version__}: {error}"[:300],
            ) from error
    _require_images(model, what)
    return _ready(model)


def _require_small_numbers(configuration: dict[str, Any], what: str) -> None:
    """Layers and widths are counted by plain numbers: bounded before anything is built by them."""
    waiting: list[Any] = [configuration]
    total = 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, int):
            total += abs(value)
            if abs(value) > LARGEST or total > LARGEST_SUM:
                raise TceError(
                    f"{what}: its configuration",
                    expected=f"numbers of at most {LARGEST:,}, {LARGEST_SUM:,} together",
                    found="larger ones",
                )


def _require_whole(config: Any, kind: str, what: str) -> None:
    """Detectors and segmenters name a backbone of their own, which transformers or timm would download."""
    if kind.startswith("timm_") or {"backbone", "backbone_config"} & config.to_dict().keys():
        raise TceError(
            what,
            expected="a network that is itself a backbone",
            found=f"a {kind}, which takes another one from elsewhere",
            fix="give that backbone",
        )


def _require_images(model: nn.Module, what: str) -> None:
    reads = getattr(model, "main_input_name", None)
    if reads != "pixel_values" or "input_ids" in inspect.signature(model.forward).parameters:
        raise TceError(what, expected="a model of images alone", found=f"{type(model).__name__}")


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
        arguments["interpolate_pos_encoding"] = True  # any image size, not only that of its training
    out = model(pixel_values=x, **arguments)
    last = out.last_hidden_state
    if last.ndim == 3 and _has_class_token(model):
        return last[:, 0]  # [B, tokens, F] -> [B, F]
    pooled = getattr(out, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    return last.mean(dim=1) if last.ndim == 3 else last.mean(dim=(2, 3))


def _input_format(folder: Path, config: Any) -> dict[str, Any]:
    """Image size, mean, deviation and resizing out of the image processor's file beside the weights."""
    processor = _image_processor(folder)
    found: dict[str, Any] = {"image_size": _side(getattr(config, "image_size", None)) or 224}
    for name, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        value = processor.get(f"image_{name}")
        found[name] = tuple(value) if isinstance(value, list) and value else default
    cropped = bool(processor.get("do_center_crop") and processor.get("crop_size"))
    side = _side(processor.get("crop_size") if cropped else processor.get("size"))
    if side is not None:
        found["image_size"] = side
    square = isinstance(processor.get("size"), dict) and "height" in processor["size"]
    found["resize"] = "squash" if square and not cropped else "center-crop"
    return found


def _side(size: Any) -> int | None:
    """One number out of the ways in which these files give a size."""
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    if isinstance(size, list | tuple):
        size = size[0] if size else None
    plain = isinstance(size, int | float) and not isinstance(size, bool)
    return int(size) if plain and 0 < size < LARGEST else None


def _image_processor(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        log.info("%s has no %s: ImageNet's normalisation is used", folder, path.name)
        return {}
    content = read_json(path)
    return content if isinstance(content, dict) else {}


@contextlib.contextmanager
def _at_most(most_bytes: int, what: str) -> Iterator[None]:
    """Networks built inside the block stay below a size; they are stopped as soon as they exceed it.

    A configuration of a few bytes can describe a network of any size, which would fill the memory before its
    tensors are compared with the file's.
    """
    left, modules = most_bytes + SPARE_BYTES, MOST_MODULES

    def count_tensor(_: nn.Module, name: str, value: Tensor | None) -> None:
        nonlocal left
        left -= 0 if value is None else value.numel() * value.element_size()
        if left < 0:
            expected = f"a network of the file's size, about {most_bytes // 2:,} bytes"
            raise TceError(f"{what}: its configuration", expected, "a far larger one")

    def count_module(*_: Any) -> None:
        nonlocal modules
        modules -= 1
        if modules < 0:
            raise TceError(f"{what}: its configuration", f"at most {MOST_MODULES:,} modules", "more")

    handles = [
        registration.register_module_parameter_registration_hook(count_tensor),
        registration.register_module_buffer_registration_hook(count_tensor),
        registration.register_module_module_registration_hook(count_module),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without_initialisation() -> contextlib.AbstractContextManager[Any]:
    """Every weight is loaded afterwards: random numbers would only take time."""
    try:
        from transformers.initialization import no_init_weights
    except ImportError:  # transformers 4
        return contextlib.nullcontext()
    return no_init_weights()


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without transformers' bars and its report on heads that are left out on purpose."""
    settings = transformers.utils.logging
    level, bars = settings.get_verbosity(), settings.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    settings.set_verbosity_error()
    hub.setLevel(logging.ERROR)
    settings.disable_progress_bar()
    try:
        yield
    finally:
        settings.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            settings.enable_progress_bar()
