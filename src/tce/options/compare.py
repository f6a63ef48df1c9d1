"""Options of `tce compare`."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from tce.errors import OptionError
from tce.options.checks import Seed, check_fields


@dataclass(frozen=True)
class CompareOptions:
    """Results to compare."""

    runs: Positional[tuple[str, ...]]
    """Folders of `tce evaluate` or `tce finetune`, or result.json files; differences are to the first."""
    names: tuple[str, ...] = ()
    """A name for each, in the table and chart; by default the folders' names."""
    output: str = "compare.png"
    """Bar chart to write; the table is written beside it as .csv."""
    metric: str | None = None
    """Metric that the bars show, such as top1 or recall@5; by default each protocol's main one."""
    seed: Seed = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        if len(self.runs) < 1:
            raise OptionError("RUN", expected="one result or more", found="none")
        if self.names and len(self.names) != len(self.runs):
            raise OptionError(
                "--names",
                expected=f"one for each of the {len(self.runs)} results",
                found=str(len(self.names)),
            )
        check_fields(self)
