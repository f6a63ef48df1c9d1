"""The options of `tce embed` and `tce tsne`. Importing them costs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tce.errors import OptionError

RANDOM_MODEL = "resnet50"  # the 2020 release's default network
RANDOM_SIZE = 128  # numbers in the paper's embeddings


@dataclass(frozen=True)
class NetworkOptions:
    """Which network embeds the frames, and how it runs."""

    ckpt: str | None = None
    """Checkpoint in any known format, or a run folder; unset: random weights, which is said."""
    model: str | None = None
    """resnet18, 34, 50, 101, 152, hf:FOLDER_OR_NAME or package.module:callable; unset: what --ckpt says."""
    output_size: int | None = None
    """Numbers in an embedding of a network with random weights; unset: 128, as in the paper."""
    image_size: int | None = None
    """Side of the network's input in pixels; unset: the size it was trained for."""
    batch_size: int = 64
    """Frames a forward pass; bounds the memory, hardly changes the speed."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:1."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16 halves the time where the processor knows it, and changes the third digit."""
    seed: int = 0
    """Decides random weights, and the map of `tce tsne`."""

    def __post_init__(self) -> None:
        for flag, value in (
            ("--batch-size", self.batch_size),
            ("--image-size", self.image_size),
            ("--output-size", self.output_size),
        ):
            _at_least(flag, value, 1)


@dataclass(frozen=True)
class EmbedOptions:
    """Videos to embeddings."""

    input: tuple[str, ...]
    """Video files, folders of frames, and folders of such at any depth."""
    output: str
    """File to write, ending in .npz: embeddings [N, D]; video, frame and time in seconds, [N] each."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    """The network and how it runs."""
    every: int = 1
    """Embed every n-th frame; neighbouring frames hardly differ."""

    def __post_init__(self) -> None:
        _some_input(self.input)
        _at_least("--every", self.every, 1)
        if isinstance(self.output, str) and not self.output.lower().endswith(".npz"):
            raise OptionError("--output", "a name ending in .npz", repr(self.output))


@dataclass(frozen=True)
class TsneOptions:
    """Videos, or embeddings, to a t-SNE picture or film."""

    output: str
    """Picture (.png, .jpg, .pdf, .svg, .webp) or, with --vid, film (.mp4, .mov, .mkv); replaced if there."""
    input: tuple[str, ...] = ()
    """Video files, folders of frames, and folders of such at any depth."""
    embeddings: str | None = None
    """Embeddings instead of --input: .npz of tce embed, .npy or a pickled array; [N, D] in order of time."""
    vid: bool = False
    """Write a film: the map on the left with the current frame in red, the one input video on the right."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    """The network and how it runs."""
    every: int = 1
    """Take every n-th frame; neighbouring frames hardly differ."""
    perplexity: float | None = None
    """How many neighbours each frame tries to keep; unset: 30, fewer for less than 91 frames."""
    iterations: int = 500
    """Gradient steps of t-SNE; a map that still looks like a ball of wool wants more."""
    pca_threshold: float = 0.85
    """Share of the variance that PCA keeps before t-SNE."""
    save_embeddings: str | None = None
    """Also keep the embeddings, in a file ending in .npz."""

    def __post_init__(self) -> None:
        if self.embeddings is None:
            _some_input(self.input)
        elif self.input:
            raise OptionError("--embeddings", "no --input beside it", " ".join(self.input))
        elif self.vid:
            raise OptionError("--vid", "--input, since a film shows the video", "--embeddings")
        elif self.save_embeddings is not None:
            raise OptionError("--save-embeddings", "--input", "--embeddings")
        if self.vid and len(self.input) > 1:
            raise OptionError(
                "--vid",
                "one input video",
                f"{len(self.input)}",
                "leave --vid out to draw them in one picture",
            )
        if self.save_embeddings is not None and not self.save_embeddings.lower().endswith(".npz"):
            raise OptionError("--save-embeddings", "a name ending in .npz", repr(self.save_embeddings))
        _at_least("--every", self.every, 1)
        _at_least("--iterations", self.iterations, 1)
        if self.perplexity is not None and self.perplexity < 1:
            raise OptionError("--perplexity", "at least 1", f"{self.perplexity:g}")
        if not 0 < self.pca_threshold <= 1:
            raise OptionError(
                "--pca-threshold", "a share of the variance in (0, 1]", f"{self.pca_threshold:g}"
            )


def _some_input(inputs: tuple[str, ...]) -> None:
    if isinstance(inputs, tuple) and not any(inputs):
        raise OptionError("--input", "at least one video or folder", "none")


def _at_least(flag: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise OptionError(flag, f"{least} or more", str(value))
