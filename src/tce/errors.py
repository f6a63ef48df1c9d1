"""The error every part of tce raises for a user's mistake or bad input, and text that is safe to print."""

from __future__ import annotations

import unicodedata

# Direction marks that can make a line read as another one; other format characters join letters or emoji.
_DIRECTIONS = set(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)))


def printable(text: str) -> str:
    r"""`text` with control characters as \x1b and lone surrogates as \udc80; line breaks stay.

    File names, class names and headers come from strangers: an escape sequence in one would set the
    title of a terminal, hide text or recolour it.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char in "\n\t" or not (unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in _DIRECTIONS):
        return char
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


class TceError(Exception):
    """Bad input in one line: what, expected, found, and what to do.

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
        self.what = what
        self.expected = expected
        self.found = found
        self.fix = fix

    def __str__(self) -> str:
        parts = [self.what]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.found:
            parts.append(f"found {self.found}")
        if self.fix:
            parts.append(self.fix)
        return printable(" ".join("; ".join(parts).split()))


class OptionError(TceError):
    """Options that contradict each other or lie outside their range; `what` names the flag."""
