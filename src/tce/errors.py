"""The error every part of tce raises for a user's mistake or bad input."""

from __future__ import annotations


class TceError(Exception):
    """Bad input, told in one line: what, expected, found, and what to do.

    The command line prints it without a traceback and exits with 1. It survives pickling, so that a child
    process can hand it back.

    Args:
        what: the thing that is wrong, with its path or flag.
        expected: what would have been right.
        found: what is there instead.
        fix: what the user can do.
    """

    def __init__(self, what: str, expected: str = "", found: str = "", fix: str = ""):
        super().__init__(what, expected, found, fix)
        self.what, self.expected, self.found, self.fix = what, expected, found, fix

    def __str__(self) -> str:
        parts = [self.what]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.found:
            parts.append(f"found {self.found}")
        if self.fix:
            parts.append(self.fix)
        return " ".join("; ".join(parts).split())


class OptionError(TceError):
    """Options that contradict each other or lie outside their range; `what` names the flag."""
