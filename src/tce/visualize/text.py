"""Names in pictures, drawn letter by letter as they are: Matplotlib reads `$...$` as mathematics."""

from __future__ import annotations

import unicodedata

INVISIBLE = "\u200b"  # zero-width space: before the underscore that would keep a name out of a legend


def printable(text: str) -> str:
    r"""Write out everything that is no letter, sign or blank, such as the escape character as `\x1b`.

    Line breaks stay; tabs become blanks. Lone surrogates (bytes of a file name that are not UTF-8) and marks
    that change the direction of writing are written out too.
    """
    return "".join(_written(letter) for letter in text.replace("\t", " "))


def _written(letter: str) -> str:
    if letter == "\n" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return letter
    return letter.encode("unicode_escape").decode("ascii")


def one_line(text: str) -> str:
    """`printable` without line breaks."""
    return printable(" ".join(text.split("\n")))


def literal(text: str) -> str:
    """`text` for any of Matplotlib's titles, labels, ticks and annotations."""
    return printable(text).replace("$", r"\$")


def legend_label(text: str) -> str:
    """`text` for a Matplotlib legend, which leaves out names that begin with an underscore."""
    label = literal(one_line(text))
    return INVISIBLE + label if label.startswith("_") else label
