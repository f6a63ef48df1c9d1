"""Options of `tce tsne`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tce.errors import OptionError
from tce.options.checks import Positive, Range, check_fields, some_input
from tce.options.network import NetworkOptions


@dataclass(frozen=True)
class TsneOptions:
    """Videos or embeddings, and picture or film."""

    output: str
    """Picture (.png, .jpg, .pdf, .svg, .webp) or, with --vid, film (.mp4, .mov, .mkv) to write."""
    input: tuple[str, ...] = ()
    """Video files, folders of frames, and folders of these (any depth)."""
    embeddings: str | None = None
    """Embeddings instead of --input: .npz of tce embed, .npy or a pickled array; [N, D] in time order."""
    vid: bool = False
    """Write a film: the map on the left with the current frame in red, the one input video on the right."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    """Network, and how it runs."""
    every: Positive = 1
    """Take every n-th frame; neighbouring frames hardly differ."""
    perplexity: Annotated[float, Range(1)] | None = None
    """Neighbours of a frame that t-SNE preserves; by default 30, fewer for less than 91 frames."""
    iterations: Positive = 500
    """Gradient steps of t-SNE; more if the map shows no structure yet."""
    pca_threshold: Annotated[float, Range(above=0, high=1)] = 0.85
    """Share of the variance that PCA keeps before t-SNE."""
    save_embeddings: str | None = None
    """File for the embeddings too, ending in .npz."""

    def __post_init__(self) -> None:
        if self.embeddings is None:
            some_input(self.input)
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
        check_fields(self)
