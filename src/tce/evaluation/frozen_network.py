"""The network that is judged, and the proof that judging did not change it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tce.errors import OptionError, TceError
from tce.options.evaluate import RANDOM
from tce.model.checkpoint import load_classifier, load_encoder, tensors_hash
from tce.model.classifier import Classifier
from tce.device import pick_device
from tce.model.encoder import FrameEncoder, build_encoder
from tce.model.checkpoint import describe_weights


@dataclass
class FrozenNetwork:
    """A network in evaluation mode.

    Attributes:
        network: an encoder or a classifier.
        name: short, for folders and tables.
        facts: where it comes from and what it is, for result.json; with "hash" over its tensors.
    """

    network: FrameEncoder | Classifier
    name: str
    facts: dict[str, Any]

    def forward(self, layer: str) -> Callable[[Tensor], Tensor]:
        """From inputs [b, C, h, w] to the vectors [b, D] of a layer, "features" or "embedding".

        Raises:
            OptionError: the embedding of a classifier, which has none.
        """
        network = self.network
        if layer == "features":
            return network.features
        if isinstance(network, Classifier):
            raise OptionError(
                "--layer embedding",
                expected="an encoder",
                found="a classifier, which has no embedding",
                fix="use --layer features",
            )
        return network

    @property
    def span(self) -> int:
        """Consecutive frames of one input."""
        return self.network.frames_per_sample if isinstance(self.network, Classifier) else 1

    @property
    def crop(self) -> str:
        """How its frames become squares, by its own description."""
        return "center-crop" if self.network.config.resize == "center-crop" else "squash"

    def require_unchanged(self) -> str:
        """The hash of its tensors, batch statistics included, once more.

        Raises:
            TceError: it differs from the hash before: judging has changed the network.
        """
        now = tensors_hash(self.network.state_dict())
        if now != self.facts["hash"]:
            raise TceError(
                self.name, expected=f"the frozen network {self.facts['hash'][:12]}", found=now[:12]
            )
        return now


def load_network(
    ckpt: str, model: str | None, image_size: int | None, seed: int, device: str, classifier: bool
) -> FrozenNetwork:
    """Read or build the network to judge.

    Args:
        ckpt: a checkpoint, a run folder, `hf:NAME`, or "random".
        model: the network's name; checked against the file.
        image_size: of a new, untrained network.
        seed: of the untrained weights.
        device: where it is to run.
        classifier: only a classifier will do.

    Raises:
        TceError: no checkpoint, of another model, or an encoder where a classifier is wanted.
        OptionError: a device this machine lacks, or an unknown model.
    """
    place = pick_device(device)
    network: FrameEncoder | Classifier
    if ckpt == RANDOM:
        assert model is not None
        squash = None if ":" in model else "squash"  # as pre-training does, so that the two can be compared
        network = build_encoder(model, image_size=image_size, seed=seed, resize=squash)
        facts: dict[str, Any] = {"path": RANDOM, "format": "untrained", "seed": seed}
        name = f"random-{model}"
    else:
        facts = describe_weights(ckpt, model)
        if classifier or facts.get("kind") == "classifier":
            network = load_classifier(ckpt, model)
        else:
            network = load_encoder(ckpt, model)
        facts = {"path": ckpt, "format": facts.get("format", "Hugging Face")}
        name = short_name(ckpt)
    network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]  # unknown to its stubs
    network.eval().requires_grad_(False)
    config = network.config
    facts |= {
        "architecture": config.architecture,
        "kind": "classifier" if isinstance(network, Classifier) else "encoder",
        "hash": tensors_hash(network.state_dict()),
        "provenance": config.provenance,
    }
    return FrozenNetwork(network, name, facts)


def short_name(path: str) -> str:
    """A checkpoint's name for folders and tables: the run folder's where the file's own says nothing."""
    if path.startswith("hf:"):
        return path.rpartition("/")[2].removeprefix("hf:")
    target = Path(path).expanduser().resolve()
    if target.suffix in (".safetensors", ".pt", ".pth", ".tar", ".bin"):
        parents = (parent.name for parent in target.parents)
        telling = target.stem not in ("model", "best", "latest", "checkpoint", "pytorch_model")
        return (
            target.stem if telling else next(name for name in parents if name != "checkpoints") or target.stem
        )
    return target.name
