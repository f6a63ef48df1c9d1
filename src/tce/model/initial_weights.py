"""The weights that training starts from: what they are, and a model's backbone filled with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tce.errors import TceError
from tce.model.backbone import Wrapped, same_architecture
from tce.model.checkpoint import describe
from tce.model.checkpoint_formats import Contents, name_some
from tce.model.checkpoint_reader import Place, read_contents, start_name
from tce.model.classifier import Classifier, tile_channels
from tce.model.encoder import FrameEncoder


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
        told = [f"{self.architecture} of a {self.format} file: {len(self.taken)} tensors taken"]
        if self.tiled:
            told.append("first convolution tiled over the differences")
        for what, names in (("left out", self.left), ("new", self.fresh)):
            if names:
                told.append(f"{what}: {', '.join(sorted({name.split('.')[0] for name in names}))}")
        return "; ".join(told)


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
    """What a network's file says of the weights it started from, and of what those came from."""
    facts = describe_weights(path, model)
    return {"path": path, "hash": facts.get("hash"), "provenance": facts.get("provenance")}


def load_backbone_weights(model: FrameEncoder | Classifier, path: Place) -> WeightsReport:
    """Fill a model's backbone from a checkpoint of any format; its heads stay as they are.

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
    contents = _contents(model, path)
    held = contents.config.architecture
    if not same_architecture(held, wanted):
        raise TceError(
            f"{path}: the file holds a {held}",
            expected=f"a {wanted}, as --model says",
            fix=f"use --model {held}, or weights of a {wanted}",
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


def _contents(model: FrameEncoder | Classifier, path: Place) -> Contents:
    foreign = isinstance(model.backbone, Wrapped)
    return read_contents(path, model.config.architecture if foreign else None, building=False)


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
