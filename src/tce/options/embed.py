"""The options of `tce embed` and `tce tsne`. Importing them costs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from tce.errors import OptionError
from tce.options.checks import Positive, check_fields, some_input
from tce.options.network import NetworkOptions


@dataclass(frozen=True)
class EmbedOptions:
    """Videos, and file of embeddings."""

    input: tuple[str, ...]
    """Video files, folders of frames, and folders of these (any depth)."""
    output: str
    """File to write, .npz or .parquet: embeddings [N, D]; video, frame and time in seconds, [N] each."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    """The network and how it runs."""
    every: Positive = 1
    """Embed every n-th frame; neighbouring frames hardly differ."""
    ray: str | None = None
    """Embed on a Ray cluster: local (processes of this machine), auto (the running cluster that it belongs
    to), or an address. Paths must mean the same on every node."""

    def __post_init__(self) -> None:
        some_input(self.input)
        check_fields(self)
        if not self.output.lower().endswith((".npz", ".parquet")):
            raise OptionError("--output", "a name ending in .npz or .parquet", repr(self.output))
