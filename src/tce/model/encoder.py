"""The frame encoder: a backbone, a projection to the unit sphere, and optionally a rotation head."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tce.errors import OptionError, TceError
from tce.model.backbone import (
    architecture_name,
    build_backbone,
    freeze_until,
    input_format,
    network_description,
)
from tce.model.efficientnet_lite import VARIANTS, lite_weights
from tce.model.preprocess import IMAGENET_MEAN, IMAGENET_STD, check_input, normalise, resize_frames, to_tensor

if TYPE_CHECKING:
    from tce.embedding.embedding_file import Embeddings

HEADS = ("linear", "mlp", "none")
ROTATION_WIDTH = 200
IMAGENET = "ImageNet weights"
ADAPTED = "tce adapt"  # what made an encoder, in its provenance


@dataclass(frozen=True)
class EncoderConfig:
    """Everything needed to build an encoder again and to feed it.

    Attributes:
        architecture: a ResNet's name, `hf:NAME` or `package.module:callable`.
        embedding_size: numbers in an embedding, D.
        head: from features to embedding: "linear" (the paper's), "mlp" (two layers, the hidden one of the
            features' size) or "none" (the normalised features are the embedding, D = F).
        rotation: whether there is a head that classifies rotations by 0, 90, 180 and 270 degrees.
        feature_size: numbers in a feature vector, F.
        image_size: side of the square input in pixels.
        mean: per-channel mean of the input, of pixels in [0, 1].
        std: per-channel standard deviation.
        resize: how frames become squares: "center-crop" or "squash".
        network: what a backbone other than our ResNets is built from (a Hugging Face configuration, or the
            callable's arguments).
        provenance: where the weights come from; free, JSON types.
    """

    architecture: str = "resnet18"
    embedding_size: int = 128
    head: str = "linear"
    rotation: bool = False
    feature_size: int = 512
    image_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: str = "center-crop"
    network: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise OptionError("--head", expected=", ".join(HEADS), found=repr(self.head))
        check_input(self.image_size, self.mean, self.std, self.resize)
        if min(self.embedding_size, self.feature_size) < 1:
            found = str(min(self.embedding_size, self.feature_size))
            raise OptionError("--embedding-size", expected="at least 1", found=found)
        if self.head == "none" and self.embedding_size != self.feature_size:
            raise OptionError(
                "--embedding-size",
                expected=f"the features' {self.feature_size}, as there is no head",
                found=str(self.embedding_size),
            )


class MLPHead(nn.Module):
    """Two-layer projection (Chen et al., 2020): features [B, F] -> [B, D], hidden size F."""

    def __init__(self, feature_size: int, embedding_size: int):
        super().__init__()
        self.hidden = nn.Linear(feature_size, feature_size)
        self.output = nn.Linear(feature_size, embedding_size)

    def forward(self, features: Tensor) -> Tensor:
        """The projection, see the class."""
        return self.output(functional.relu(self.hidden(features)))


class RotationHead(nn.Module):
    """Features [B, F] -> [B, 4], scores of the four right-angle rotations (paper, section 3.3).

    Layers and names are those of the released pre-training files.
    """

    def __init__(self, feature_size: int, width: int = ROTATION_WIDTH):
        super().__init__()
        self.fc_rotation_1 = nn.Linear(feature_size, width)
        self.bn_rotation_1 = nn.BatchNorm1d(width)
        self.fc_rotation_2 = nn.Linear(width, width)
        self.bn_rotation_2 = nn.BatchNorm1d(width)
        self.fc_rotation_3 = nn.Linear(width, 4)

    def forward(self, features: Tensor) -> Tensor:
        """The scores, see the class; batch norm comes after the ReLU, as it was released."""
        x = self.bn_rotation_1(functional.relu(self.fc_rotation_1(features)))
        x = self.bn_rotation_2(functional.relu(self.fc_rotation_2(x)))
        return self.fc_rotation_3(x)


def _head(config: EncoderConfig) -> nn.Module:
    if config.head == "linear":
        return nn.Linear(config.feature_size, config.embedding_size)
    if config.head == "mlp":
        return MLPHead(config.feature_size, config.embedding_size)
    return nn.Identity()


class FrameEncoder(nn.Module):
    """Frames to unit vectors.

    Calling it maps normalised images float [B, 3, h, w] to embeddings float32 [B, D] of length 1. Training
    code shares one pass of `backbone` between the heads: `features = encoder.backbone(x)`, then
    `encoder.project(features)` and `encoder.rotation_logits(features)`.

    Attributes:
        config: what it is made of.
        backbone: normalised images -> features [B, F].
        head: features -> embedding before normalisation [B, D].
        rotation_head: features -> [B, 4], or None.
    """

    def __init__(self, config: EncoderConfig, backbone: nn.Module):
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.head = _head(config)
        self.rotation_head = RotationHead(config.feature_size) if config.rotation else None
        self._frozen: tuple[nn.Module, ...] = ()

    @property
    def embedding_size(self) -> int:
        """Numbers in an embedding, D."""
        return self.config.embedding_size

    @property
    def feature_size(self) -> int:
        """Numbers in a feature vector, F."""
        return self.config.feature_size

    @property
    def default_layer(self) -> str:
        """Which vectors to compare: the "embedding" of an adapted head, or of none; else the "features".

        A head that contrastive training left behind is part of its loss: the features before it know more.
        """
        adapted = self.config.provenance.get("made") == ADAPTED
        return "embedding" if adapted or self.config.head == "none" else "features"

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.config.image_size

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, h, w] -> unit embeddings float32 [B, D]."""
        return self.project(self.backbone(x))

    def features(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, h, w] -> the backbone's features [B, F]."""
        return self.backbone(x)

    def project(self, features: Tensor) -> Tensor:
        """Features [B, F] -> unit embeddings [B, D], in float32 also under bf16."""
        return functional.normalize(self.head(features).float(), dim=1)

    def rotation(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, h, w] -> scores [B, 4] of the rotations by 0, 90, 180, 270 degrees.

        Raises:
            TceError: the encoder has no rotation head.
        """
        return self.rotation_logits(self.backbone(x))

    def rotation_logits(self, features: Tensor) -> Tensor:
        """Features [B, F] -> scores [B, 4] of the rotations.

        Raises:
            TceError: the encoder has no rotation head.
        """
        if self.rotation_head is None:
            raise TceError(
                "rotation", expected="an encoder trained with a rotation head", found="one without"
            )
        return self.rotation_head(features)

    def preprocess(
        self, frames: np.ndarray | Tensor, image_size: int | None = None, resize: str | None = None
    ) -> Tensor:
        """Decoded frames -> what the encoder reads, on the encoder's device, strided channels last.

        Args:
            frames: uint8 [B, H, W, 3] RGB of any size, NumPy or torch.
            image_size: side of the square in pixels; the configuration's by default.
            resize: "center-crop", "squash" or "none" (for frames that have their size already); the
                configuration's by default.

        Returns:
            float32 [B, 3, image_size, image_size], normalised.

        Raises:
            TceError: frames of another shape or type.
        """
        pixels = to_tensor(frames, self.device)
        images = resize_frames(pixels, image_size or self.image_size, resize or self.config.resize)
        return normalise(images, self.config.mean, self.config.std)

    def embed(self, source: Any, every: int = 1, **settings: Any) -> Embeddings:
        """Embed the frames of videos.

        Args:
            source: video file, folder of images, opened video, frames uint8 [N, H, W, 3], or a list of these.
            every: take every n-th frame.
            settings: `batch_size`, `image_size`, `device`, `precision`, `engine`, `layer`; see `tce.embed`.

        Returns:
            `vectors` [N, D] with `video`, `frame` and `time` [N], `to_dataframe()` and `save(path)`.

        Raises:
            VideoError: a video is missing, unreadable or truncated.
            TceError: an option out of range.
        """
        # By name: a convenience that reaches up to a room which itself is built on this one.
        embed = importlib.import_module("tce.embedding.embed")
        return embed.embed_sources(source, self, every=every, **{"device": str(self.device), **settings})

    def freeze(self, layer: str | None) -> int:
        """Keep the backbone up to and with `layer` as it is: no gradients, batch norm in evaluation mode.

        Args:
            layer: a module of the backbone by its dotted name, such as "layer2"; "all" for the whole
                backbone; None for nothing.

        Returns:
            How many parameters are frozen now.

        Raises:
            OptionError: no such layer.
        """
        self._frozen = freeze_until(self.backbone, layer)
        self.train(self.training)
        return sum(p.numel() for p in self.backbone.parameters() if not p.requires_grad)

    def keep_statistics(self) -> None:
        """Keep the batch statistics of the whole backbone as they are, also in training mode."""
        norms = [
            module
            for module in self.backbone.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        self._frozen = (*self._frozen, *norms)
        self.train(self.training)

    def train(self, mode: bool = True) -> FrameEncoder:
        """Training or evaluation mode, except that frozen layers stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Random numbers on the CPU drawn from `seed` inside the block, and unaffected by it afterwards."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_encoder(
    architecture: str = "resnet18",
    embedding_size: int = 128,
    head: str = "linear",
    rotation: bool = False,
    image_size: int | None = None,
    seed: int | None = None,
    resize: str | None = None,
    options: dict[str, Any] | None = None,
) -> FrameEncoder:
    """A new encoder: a network of ours with random weights, or any other backbone as its maker provides it.

    Args:
        architecture: resnet18/34/50/101/152, lite0, lite2, `hf:FOLDER_OR_NAME` or
            `package.module:callable`.
        embedding_size: numbers in an embedding, D; ignored where `head` is "none".
        head: "linear", "mlp" or "none", see `EncoderConfig`.
        rotation: with the rotation head.
        image_size: side of the square input in pixels; None: the backbone's own, or 224.
        seed: of the random initialisation; None draws from torch's global generator.
        resize: "center-crop" or "squash"; None: the backbone's own, or "center-crop".
        options: keyword arguments of a `package.module:callable`, instead of those in its name.

    Raises:
        OptionError: an unknown architecture or head, or a size below 1.
        TceError: a backbone that cannot be built.
    """
    with seeded(seed):
        backbone = build_backbone(architecture, options=options, image_size=image_size)
        wanted = input_format(backbone)
        config = EncoderConfig(
            architecture=architecture_name(architecture),
            embedding_size=backbone.feature_size if head == "none" else embedding_size,
            head=head,
            rotation=rotation,
            feature_size=backbone.feature_size,
            image_size=image_size or wanted.image_size,
            mean=wanted.mean,
            std=wanted.std,
            resize=resize or wanted.resize,
            network=network_description(backbone),
        )
        return FrameEncoder(config, backbone)


def build_start(name: str, image_size: int | None = None) -> FrameEncoder:
    """A pre-trained network by name, without a head: its embedding is the normalised feature vector.

    Args:
        name: lite0 or lite2 (EfficientNet-Lite with ImageNet weights, out of an installed package), or
            `hf:FOLDER_OR_NAME`.
        image_size: side of the square input in pixels; None: the network's own.

    Raises:
        TceError: a network or its weights cannot be had.
    """
    encoder = build_encoder(name, head="none", image_size=image_size)
    if name in VARIANTS:
        encoder.backbone.load_state_dict(lite_weights(name))
        provenance = {"format": IMAGENET, "package": VARIANTS[name].package}
        encoder.config = replace(encoder.config, provenance=provenance)
    return encoder
