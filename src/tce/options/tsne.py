"""Options of `tce tsne`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tce.errors import OptionError
from tce.options.checks import AboveZero, FromZero, Positive, Range, check_fields, some_input
from tce.options.network import NetworkOptions


@dataclass(frozen=True)
class TsneOptions:
    """Videos or embeddings, and picture or film."""

    output: str
    """Picture (.png, .jpg, .pdf, .svg, .webp) or, with --vid, film (.mp4, .mov, .mkv, .gif) to write."""
    input: tuple[str, ...] = ()
    """Video files, folders of frames, and folders of these (any depth)."""
    embeddings: tuple[str, ...] = ()
    """Embeddings instead of --input: files of tce embed, .npy or pickled arrays; [N, D] in time order."""
    vid: bool = False
    """Write a film: the map on the left with a moving point, the videos on the right."""
    color_by: str = "auto"
    """class (the folders' names, or --lists), video, group, folder, time, frame, or a column of --table;
    auto takes the class where there are several, else the video, and the time of a single video."""
    lists: str | None = None
    """Folder or file of the dataset's lists, which give the classes; by default the folders' names."""
    split: str = "01"
    """Which of the lists' splits."""
    table: str | None = None
    """Table (.csv, .tsv, .parquet) of clips, or of their segments with start and end, to colour by."""
    theme: Literal["light", "dark"] = "light"
    """Colours on a light or on a dark ground."""
    title: str | None = None
    """Line above the map; by default what is shown, and the network. An empty one leaves it out."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    """Network, and how it runs."""
    every: Positive = 1
    """Take every n-th frame; neighbouring frames hardly differ."""
    map: str | None = None
    """The fitted map (.npz): written if it is not there; if it is, the frames are placed on it."""
    perplexity: Annotated[float, Range(1)] | None = None
    """Neighbours of a frame that t-SNE preserves; by default 30, fewer for less than 91 frames."""
    init: Literal["pca", "random"] = "pca"
    """Where the points start: pca keeps what is far apart far apart; random keeps neighbourhoods only."""
    exaggeration: Annotated[float, Range(1, 12)] | None = None
    """Attraction between neighbours: 1 is plain t-SNE, 4 gives denser groups, as UMAP does; by default 1, and
    4 above 100,000 frames."""
    iterations: Positive = 500
    """Gradient steps of t-SNE; more if the map shows no structure yet."""
    pca_threshold: Annotated[float, Range(above=0, high=1)] = 0.85
    """Share of the variance that PCA keeps before t-SNE."""
    fps: AboveZero | None = None
    """Frames a second of the film, each showing the next frame; by default the video's own rate, which plays
    it at its own speed. The 2020 release used 15."""
    tail: FromZero = 1.0
    """Seconds of the video that the moving point's fading tail goes back; 0 for none."""
    save_embeddings: str | None = None
    """File for the embeddings too, ending in .npz."""

    def __post_init__(self) -> None:
        if not self.embeddings:
            some_input(self.input)
        elif self.input:
            raise OptionError("--embeddings", "no --input beside it", " ".join(self.input))
        elif self.save_embeddings is not None:
            raise OptionError("--save-embeddings", "--input", "--embeddings")
        if self.save_embeddings is not None and not self.save_embeddings.lower().endswith(".npz"):
            raise OptionError("--save-embeddings", "a name ending in .npz", repr(self.save_embeddings))
        if self.map is not None and not self.map.lower().endswith(".npz"):
            raise OptionError("--map", "a name ending in .npz", repr(self.map))
        if self.vid and self.color_by not in ("auto", "video"):
            raise OptionError("--color-by", "none with --vid, whose colours are the videos'", self.color_by)
        if self.fps is not None and not self.vid:
            raise OptionError("--fps", "--vid", "a picture")
        check_fields(self)
