"""The pictures of a film: a square panel, videos with captions in a grid beside it, a progress bar below."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tce.visualize.contact_sheet import fitted_text
from tce.visualize.fonts import text_and_font
from tce.visualize.plots import one_line
from tce.visualize.themes import THEMES, Theme, ThemeName, rgb

# The panel's height follows the video's within these; upscaled thumbnails and full HD maps help nobody.
LOWEST, HIGHEST, WIDEST = 400, 720, 1280
GRID_HEIGHT = 560  # of the panel beside several videos
MARGIN, GAP, CAPTION, BAR = 14, 10, 26, 4
TEXT, SMALL_TEXT, SMALL = 14, 11, 400  # font sizes, and the panel's side below which the smaller one is used
TIME_WIDTH = 4.5  # kept free at the right of a caption, in font sizes: "3599.9 s"

Image = NDArray[np.uint8]  # [H, W, 3] RGB


@dataclass(frozen=True)
class Cell:
    """Where a video is shown: `height` x `width` pixels at `top`, `left`; its caption stands below."""

    top: int
    left: int
    height: int
    width: int


class Scene:
    """One picture that is changed from frame to frame.

    Attributes:
        picture: uint8 [H, W, 3] of even height and width.
        panel: the part at the left, uint8 [S, S, 3], a view of `picture`.
        side: height and width of the panel.
        look: the theme.

    Args:
        sizes: height and width of each video's frames.
        names: of the videos.
        colours: a mark before each name, #rrggbb, or None.
        theme: "light" or "dark".
        highest: of the panel in pixels.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        names: Sequence[str],
        colours: Sequence[str | None],
        theme: ThemeName = "light",
        highest: int = HIGHEST,
    ):
        self.look: Theme = THEMES[theme]
        self.side, rows = _grid(sizes, highest)
        columns = _columns(rows)
        grid_width = sum(columns) + GAP * (len(columns) - 1)
        width = 2 * MARGIN + self.side + GAP + grid_width
        height = 2 * MARGIN + self.side + BAR
        self.picture: Image = np.empty((height + height % 2, width + width % 2, 3), np.uint8)
        self.picture[:] = rgb(self.look.ground)
        self.panel = self.picture[MARGIN : MARGIN + self.side, MARGIN : MARGIN + self.side]
        self.cells = _place(rows, MARGIN, MARGIN + self.side + GAP, self.side)
        self._size = TEXT if self.side >= SMALL else SMALL_TEXT
        self._time_width = round(TIME_WIDTH * self._size)
        self._texts: dict[str, Image] = {}
        self._shown: list[str | None] = [None] * len(self.cells)
        for cell, name, colour in zip(self.cells, names, colours, strict=True):
            self._caption(cell, name, colour)
        self._bar = (self.picture.shape[0] - MARGIN + 2, MARGIN, self.picture.shape[1] - 2 * MARGIN)
        self.progress(0.0)

    def show(self, number: int, frame: Image, seconds: float) -> None:
        """Show a frame uint8 [H, W, 3] of a video, and its time."""
        cell = self.cells[number]
        self.picture[cell.top : cell.top + cell.height, cell.left : cell.left + cell.width] = resized(
            frame, (cell.height, cell.width)
        )
        text = f"{seconds:.1f} s"
        if text != self._shown[number]:
            self._shown[number] = text
            drawn = self._text(text)
            top, right = cell.top + cell.height + 3, cell.left + cell.width
            width = min(self._time_width, cell.width)
            area = self.picture[top : top + drawn.shape[0], right - width : right]
            area[:] = rgb(self.look.ground)
            wide = min(width, drawn.shape[1])
            area[:, width - wide :] = drawn[:, drawn.shape[1] - wide :]

    def progress(self, share: float) -> None:
        """Draw the progress bar for a share of the film from 0 to 1."""
        top, left, width = self._bar
        bar = self.picture[top : top + BAR, left : left + width]
        done = round(width * min(1.0, max(0.0, share)))
        bar[:, :done], bar[:, done:] = rgb(self.look.faint), rgb(self.look.rule)

    def _caption(self, cell: Cell, name: str, colour: str | None) -> None:
        top, left = cell.top + cell.height + 3, cell.left
        if colour is not None:
            disc(self.picture, left + 6, top + 9, 5, rgb(colour))
            left += 18
        room = cell.left + cell.width - left - self._time_width - 4
        text, font = text_and_font(one_line(name), self._size)
        drawn = draw_text(fitted_text(text, font, max(room, 10)), font, self._size, self.look)
        width = min(drawn.shape[1], cell.left + cell.width - left)
        self.picture[top : top + drawn.shape[0], left : left + width] = drawn[:, :width]

    def _text(self, text: str) -> Image:
        """A line of text as pixels; times come again and again."""
        if text not in self._texts:
            if len(self._texts) > 512:
                self._texts.clear()
            self._texts[text] = draw_text(*text_and_font(text, self._size), self._size, self.look)
        return self._texts[text]


def draw_text(text: str, font: Any, size: int, look: Theme) -> Image:
    """A line of text of a font size in pixels, uint8 [size + 6, w, 3]."""
    from PIL import Image as Pictures
    from PIL import ImageDraw

    picture = Pictures.new("RGB", (max(1, int(np.ceil(font.getlength(text))) + 1), size + 6), look.ground)
    ImageDraw.Draw(picture).text((0, size), text, look.ink, font, anchor="ls")
    return np.asarray(picture)


def _grid(sizes: Sequence[tuple[int, int]], highest: int) -> tuple[int, list[list[tuple[int, int]]]]:
    """The panel's side, and the videos' shown heights and widths in rows from the top."""
    if len(sizes) == 1:
        height, width = sizes[0]
        # The caption stands inside the panel's height.
        low, high = min(LOWEST, highest) - CAPTION, highest - CAPTION
        scale = min(max(1.0, low / height), high / height, WIDEST / width)
        shown = max(2, round(height * scale)), max(2, round(width * scale))
        return max(shown[0] + CAPTION, min(LOWEST, highest)), [[shown]]
    side, count = min(GRID_HEIGHT, highest), len(sizes)
    aspects = [width / height for height, width in sizes]
    best: tuple[float, int] = (0.0, 1)
    for columns in range(1, count + 1):
        rows = -(-count // columns)
        room = (side - GAP * (rows - 1)) / rows - CAPTION
        widest = (1.5 * side - GAP * (columns - 1)) / columns
        fit = min(room, widest / max(aspects))  # the height that every video gets
        best = max(best, (fit, -columns))
    height, columns = max(24, int(best[0])), -best[1]
    shown_sizes = [(height, max(24, round(height * aspect))) for aspect in aspects]
    return side, [shown_sizes[start : start + columns] for start in range(0, count, columns)]


def _columns(rows: list[list[tuple[int, int]]]) -> list[int]:
    """The width of each column of a grid: that of its widest video."""
    return [
        max(widths) for widths in itertools.zip_longest(*([w for _, w in row] for row in rows), fillvalue=0)
    ]


def _place(rows: list[list[tuple[int, int]]], top: int, left: int, side: int) -> list[Cell]:
    """The cells of a grid, in the middle of the panel's height."""
    wide = _columns(rows)
    total = sum(row[0][0] + CAPTION for row in rows) + GAP * (len(rows) - 1)
    y, cells = top + (side - total) // 2, []
    for row in rows:
        x = left
        for (height, own), place in zip(row, wide):
            cells.append(Cell(y, x, height, own))
            x += place + GAP
        y += row[0][0] + CAPTION + GAP
    return cells


def resized(frame: Image, size: tuple[int, int]) -> Image:
    """A frame at a height and width."""
    if frame.shape[:2] == size:
        return frame
    shrinking = size[0] < frame.shape[0]
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, size[::-1], interpolation=interpolation), np.uint8)


SUBPIXEL_BITS = 4  # cv2 draws circles at sixteenths of a pixel: a point moves without jumping


def disc(image: Any, x: float, y: float, radius: float, colour: Any) -> None:
    """Draw a filled circle into a contiguous or row-strided image."""
    unit = 1 << SUBPIXEL_BITS
    canvas = np.ascontiguousarray(image)
    cv2.circle(
        canvas,
        (round(x * unit), round(y * unit)),
        round(radius * unit),
        colour,
        -1,
        cv2.LINE_AA,
        SUBPIXEL_BITS,
    )
    if canvas is not image:
        image[:] = canvas
