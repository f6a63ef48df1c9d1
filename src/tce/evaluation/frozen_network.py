"""The network that is evaluated, the untrained one beside it, and the proof that neither changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tce.data.listing import compose
from tce.device import pick_device
from tce.errors import OptionError, TceError
from tce.model.backbone import is_callable_name, rebuild_backbone
from tce.model.checkpoint import describe_weights, load_classifier, load_encoder, tensors_hash
from tce.model.classifier import Classifier, classifier_from_encoder
from tce.model.encoder import EncoderConfig, FrameEncoder, build_encoder, seeded
from tce.options.network import RANDOM


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

    @classmethod
    def of(cls, network: FrameEncoder | Classifier, name: str, facts: Mapping[str, Any]) -> FrozenNetwork:
        """A network with the facts that it shows by itself added to those given."""
        config = network.config
        own = {
            "architecture": config.architecture,
            "kind": "classifier" if isinstance(network, Classifier) else "encoder",
            "hash": tensors_hash(network.state_dict()),
            "provenance": config.provenance,
        }
        return cls(network, name, {**facts, **own})

    @property
    def is_classifier(self) -> bool:
        """Whether it gives class scores."""
        return isinstance(self.network, Classifier)

    @property
    def default_layer(self) -> str:
        """The layer to compare unless another one is asked for, see `FrameEncoder.default_layer`."""
        return "features" if isinstance(self.network, Classifier) else self.network.default_layer

    def forward(
        self, layer: str, unit: bool = True, features: Callable[[Tensor], Tensor] | None = None
    ) -> Callable[[Tensor], Tensor]:
        """The function from inputs [b, C, h, w] to the vectors [b, D] of a layer, "features" or "embedding".

        Args:
            layer: which.
            unit: embeddings of length 1, as the network gives them; False leaves their length, so that means
                can be subtracted.
            features: computes the backbone's features, see `tce.model.engine`; by default the network itself.

        Raises:
            OptionError: the embedding of a classifier, which has none.
        """
        network = self.network
        features = features or network.features
        if layer == "features":
            return features
        if isinstance(network, Classifier):
            raise OptionError(
                "--layer embedding",
                expected="an encoder",
                found="a classifier, which has no embedding",
                fix="use --layer features",
            )
        return lambda x: network.project(features(x)) if unit else network.head(features(x))

    @property
    def span(self) -> int:
        """Consecutive frames of one input."""
        return self.network.frames_per_sample if isinstance(self.network, Classifier) else 1

    @property
    def crop(self) -> str:
        """How its frames become squares, by its own description."""
        return "center-crop" if self.network.config.resize == "center-crop" else "squash"

    def require_unchanged(self) -> str:
        """Hash the tensors, batch statistics included, once more.

        Raises:
            TceError: the hash differs from the one before: evaluation has changed the network.
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
    """Read or build the network to evaluate.

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
    network: FrameEncoder | Classifier
    if ckpt == RANDOM:
        if model is None:
            raise OptionError(
                "--ckpt random", expected="--model as well", found="none", fix="add --model resnet18"
            )
        squash = None if ":" in model else "squash"  # as pre-training does, so that the two can be compared
        network = build_encoder(model, head="none", image_size=image_size, seed=seed, resize=squash)
        return freeze(
            network, f"random-{model}", device, {"path": RANDOM, "format": "untrained", "seed": seed}
        )
    facts = describe_weights(ckpt, model)
    if classifier or facts.get("kind") == "classifier":
        network = load_classifier(ckpt, model)
    else:
        network = load_encoder(ckpt, model)
    origin = {"path": ckpt, "format": facts.get("format", "Hugging Face")}
    return freeze(network, short_name(ckpt), device, origin)


def freeze(
    network: FrameEncoder | Classifier, name: str, device: str, facts: Mapping[str, Any]
) -> FrozenNetwork:
    """Move a network to a device (or "auto") and take its gradients and its training mode off."""
    network.to(pick_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval().requires_grad_(False)
    return FrozenNetwork.of(network, name, facts)


def untrained_like(trained: FrozenNetwork, seed: int, device: str) -> FrozenNetwork | None:
    """A network of the same backbone and input with random weights, and without a head.

    An untrained head would only lose what random features hold, so its embedding is its pooled features.

    Args:
        trained: what it is to be compared with.
        seed: of the weights.
        device: where it is to run.

    Returns:
        The network; None for `package.module:callable`, whose maker provides it with weights.
    """
    config = trained.network.config
    if is_callable_name(config.architecture):
        return None
    tensors = trained.network.backbone.state_dict().values()
    size = sum(value.numel() * value.element_size() for value in tensors)
    with seeded(seed):
        backbone = rebuild_backbone(
            config.architecture, 3, config.network, config.feature_size, size, trained.name
        )
    encoder = FrameEncoder(
        EncoderConfig(
            architecture=config.architecture,
            embedding_size=config.feature_size,
            head="none",
            feature_size=config.feature_size,
            image_size=config.image_size,
            mean=config.mean,
            std=config.std,
            resize=config.resize,
            network=config.network,
        ),
        backbone,
    )
    network: FrameEncoder | Classifier = encoder
    if isinstance(trained.network, Classifier):
        kind = trained.network.config
        network = classifier_from_encoder(
            encoder, kind.num_classes, kind.differences, kind.classes, kind.resize, seed=seed
        )
    facts = {"path": RANDOM, "format": "untrained", "seed": seed}
    return freeze(network, f"random-{config.architecture}", device, facts)


def short_name(path: str) -> str:
    """A checkpoint's name for folders and tables: the run folder's where the file's own is a general one."""
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


def match_classes(classifier: Classifier, classes: list[str]) -> npt.NDArray[np.int64]:
    """Where each of the data's classes is in the classifier's output.

    By name where the classifier knows its classes, else by number.

    Args:
        classifier: what gives the scores.
        classes: the data's class names in the order of their numbers.

    Returns:
        [len(classes)] columns of the scores.

    Raises:
        TceError: the classifier lacks a class, or the numbers of classes differ.
    """
    known = list(map(compose, classifier.config.classes))
    classes = list(map(compose, classes))
    if not known:
        if classifier.num_classes != len(classes):
            raise TceError(
                "the checkpoint's classes",
                expected=f"{len(classes)} classes, as in the data",
                found=f"{classifier.num_classes} in the checkpoint",
                fix="give the --data and --lists it was fine-tuned on, or fine-tune it on these",
            )
        return np.arange(len(classes))
    lacking = [name for name in classes if name not in known]
    if lacking:
        more = ", ..." if len(lacking) > 3 else ""
        raise TceError(
            "the checkpoint's classes",
            expected=f"the {len(classes)} classes of the data",
            found=f"{len(known)} classes without {', '.join(lacking[:3])}{more}",
            fix="give the --data and --lists it was fine-tuned on, or fine-tune it on these",
        )
    return np.array([known.index(name) for name in classes])
