"""Options of `tce doctor`."""

from __future__ import annotations

from dataclasses import dataclass

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

    def __post_init__(self) -> None:
        check_fields(self)
