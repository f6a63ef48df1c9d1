"""Options of `tce discover`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tce.errors import OptionError
from tce.options.checks import AboveZero, FromZero, Positive, Range, TwoOrMore, check_fields
from tce.options.network import NetworkOptions


@dataclass(frozen=True)
class DiscoverOptions:
    """Which footage is looked at, how it is divided, and what is written."""

    footage: Annotated[Positional[tuple[str, ...]], arg(metavar="FOOTAGE...")]
    """Videos, folders of them, a collection, an index (tce index), embeddings (tce embed), or a DISCOVERY,
    whose files are written again with its names.csv."""
    out: str | None = None
    """Folder to write; with a DISCOVERY as FOOTAGE, unset: the same folder."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    """The network and how it runs."""
    apply: str | None = None
    """DISCOVERY whose clusters and names are applied; nothing is fitted, --ckpt is its own."""
    fps: AboveZero = 10.0
    """Frames a second to embed, the nearest in time; stored embeddings keep theirs."""
    window: AboveZero = 1.0
    """Seconds of a window: what is seen in it and how it changes is what is clustered."""
    method: Literal["kmeans", "gmm", "hdbscan"] = "kmeans"
    """k-means, a Gaussian mixture, or HDBSCAN, which finds the number of clusters itself."""
    clusters: TwoOrMore | None = None
    """Number of clusters; unset: the one with the least Bayesian information criterion."""
    most_clusters: TwoOrMore = 12
    """Number of clusters tried at most."""
    shortest: AboveZero = 0.5
    """Seconds that a segment lasts at least."""
    bout: AboveZero = 2.0
    """Seconds that a bout of one behaviour lasts on average, a rough guess: the longer, the smoother."""
    change: FromZero = 0.5
    """Weight of change over time in a window, against 1 for what is seen; 0 looks at single views only."""
    labels: str | None = None
    """Table with video, start, end (seconds) and label: segments are compared with it, never fitted to it."""
    lists: str | None = None
    """The dataset's lists (UCF101, Kinetics, CSV or Parquet), which give the clips and their groups."""
    split: str = "01"
    """Which of the lists' splits."""
    group: str | None = None
    """Groups of the time budget: folder, recording, group (as in v_NAME_g01_c01) or a pattern with one group
    in parentheses for the path; unset: group where there are several."""
    examples: Annotated[int, Range(0, 30)] = 10
    """Example clips of each cluster; 0 for none."""
    refits: Annotated[int, Range(0, 50)] = 5
    """Fits with other seeds and on halves of the recordings, that show which clusters come back; 0: none."""
    workers: Positive | None = None
    """Decoding processes for the example clips; unset: half the cores, at most 4."""

    def __post_init__(self) -> None:
        if isinstance(self.footage, str):  # as from Python
            object.__setattr__(self, "footage", (self.footage,))
        check_fields(self)
        if not self.footage or not all(self.footage):
            raise OptionError("FOOTAGE", expected="at least one file or folder", found="none")
        if self.clusters is not None and self.apply is not None:
            raise OptionError("--clusters", "none with --apply, which fits nothing", str(self.clusters))
