"""Options of `tce doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from tce.errors import OptionError
from tce.options.checks import check_fields


@dataclass(frozen=True)
class DoctorOptions:
    """What to check, and where."""

    folder: str = "."
    """Folder whose disk is checked; the self-test writes into a temporary folder in it, and removes that."""
    no_test: bool = False
    """Describe the machine only, without the self-test."""
    start: str = "lite2"
    """Pre-trained network of the self-test: lite2, lite0 or a checkpoint."""
    output: str | None = None
    """Text file to write the report to as well, for an attachment."""

    licences: bool = False
    """Print the licences of everything that tce needs, as a table, instead."""
    audit: bool = False
    """Check what tce needs instead: versions against each other, files against the records of their
    installation, licences; reads every file, so it takes a minute."""
    advisories: str | None = None
    """Folder of known vulnerabilities in the OSV format, for --audit; nothing is fetched."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.advisories is not None and not self.audit:
            raise OptionError("--advisories", "--audit as well", "none", "add --audit")
        if self.licences and self.audit:
            raise OptionError("--licences and --audit", "one of them", "both", "leave one of them out")
