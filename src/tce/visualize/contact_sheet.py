"""A contact sheet: small pictures in a grid with their names under them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError, printable
from tce.io import atomic
from tce.visualize.fonts import text_and_font

CELL = 176  # pixels, width and height of a picture's place
GAP = 10
TEXT_HEIGHT = 16
COLUMNS = 6
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

Image = NDArray[np.uint8]  # [H, W, 3] RGB


def save_sheet(path: str | os.PathLike[str], pictures: Iterable[tuple[str, Image]]) -> int:
    """Write a contact sheet.

    Args:
        path: picture to write, one of `PICTURES` by its suffix; replaced if it exists.
        pictures: a text of one or two lines and an image uint8 [H, W, 3] of any size each.

    Returns:
        Number of pictures on it.

    Raises:
        TceError: a suffix that is no picture's, or nothing to show.
    """
    from PIL import Image as Pictures
    from PIL import ImageDraw

    path = Path(path)
    check_suffix(path)
    cells = []
    for text, pixels in pictures:
        picture = Pictures.fromarray(pixels)
        picture.thumbnail((CELL, CELL), Pictures.Resampling.LANCZOS)
        cells.append(([_line(line) for line in printable(text).splitlines()], picture))
    if not cells:
        raise TceError(f"contact sheet {path}", "at least one frame", "none")
    columns = min(COLUMNS, len(cells))
    lines = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(picture.height for _, picture in line) for line in lines]
    texts = [TEXT_HEIGHT * max(len(text) for text, _ in line) for line in lines]
    size = (columns * (CELL + GAP) + GAP, sum(heights) + sum(texts) + len(lines) * GAP + GAP)
    sheet = Pictures.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    bottom = 0
    for line, height, text_height in zip(lines, heights, texts):
        bottom += GAP + height
        for place, (words, picture) in enumerate(line):
            middle = GAP + place * (CELL + GAP) + CELL // 2
            sheet.paste(picture, (middle - picture.width // 2, bottom - picture.height))
            for number, (one, font) in enumerate(words):
                colour = "black" if number == 0 else "#555555"
                draw.text((middle, bottom + 2 + number * TEXT_HEIGHT), one, colour, font, anchor="ma")
        bottom += text_height
    with atomic(path) as file:
        sheet.save(file, PICTURES[path.suffix.lower()])
    return len(cells)


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Check that a contact sheet can have this name.

    Raises:
        TceError: it cannot.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in PICTURES:
        raise TceError(f"--sheet {path}", f"a name ending in {', '.join(PICTURES)}", suffix or "no suffix")


def _line(text: str) -> tuple[str, Any]:
    text, font = text_and_font(text, 11)
    return fitted_text(text, font), font


def fitted_text(text: str, font: Any, width: float = CELL) -> str:
    """`text`, its middle left out where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(text[: keep // 2] + "…" + text[-(keep // 2) :]) > width:
        keep -= 1
    return text[: keep // 2] + "…" + text[-(keep // 2) :]
