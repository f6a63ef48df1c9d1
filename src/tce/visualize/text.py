"""Names in pictures, drawn letter by letter as they are: Matplotlib reads `$...$` as mathematics."""

from __future__ import annotations

from tce.errors import printable

INVISIBLE = "\u200b"  # zero-width space: before the underscore that would keep a name out of a legend


def one_line(text: str) -> str:
    """`text` without line breaks, tabs and control characters."""
    return printable(" ".join(text.split()))


def literal(text: str) -> str:
    """`text` for any of Matplotlib's titles, labels, ticks and annotations."""
    return printable(text.replace("\t", " ")).replace("$", r"\$")


def legend_label(text: str) -> str:
    """`text` for a Matplotlib legend, which leaves out names that begin with an underscore."""
    label = literal(one_line(text))
    return INVISIBLE + label if label.startswith("_") else label
