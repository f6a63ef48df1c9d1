"""Options of `tce publish`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from tce.errors import OptionError
from tce.options.checks import check_fields


@dataclass(frozen=True)
class PublishOptions:
    """Network, place, and what its card says."""

    run: Annotated[Positional[str], arg(metavar="RUN")] = ""
    """Run folder or checkpoint of tce to publish."""
    to: str = ""
    """Folder to write, or hf://owner/name on the Hugging Face Hub (needs your login: hf auth login)."""
    results: tuple[str, ...] = ()
    """Folders of tce evaluate and tce report whose figures the card shows."""
    about: str | None = None
    """What the videos show, in your words."""
    limits: str | None = None
    """What the network must not be used for, in your words."""
    license: str | None = None
    """Licence of the weights, as Hugging Face names it: mit, apache-2.0, cc-by-4.0; by default the card
    says that none was stated."""
    private: bool = False
    """Make a new repository on the Hub private."""
    force: bool = False
    """Replace what --to FOLDER holds of an earlier publication."""

    def __post_init__(self) -> None:
        if isinstance(self.results, str):  # as from Python
            object.__setattr__(self, "results", (self.results,))
        check_fields(self)
        for flag, given in (("RUN", self.run), ("--to", self.to)):
            if not given:
                raise OptionError(flag, expected="a path", found="none")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise OptionError("--license", "a name such as mit or cc-by-4.0", repr(self.license))
        if self.private and not self.to.startswith("hf://"):
            raise OptionError("--private", "--to hf://owner/name", f"--to {self.to}")
