"""Colours of maps, films and heat maps on a light or a dark ground.

The palette has seven colours, told apart by people with any of the common deficiencies of colour vision (a
test simulates them), after Okabe and Ito, "Color universal design" (2008); further entries repeat them with
another shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ThemeName = Literal["light", "dark"]
SHAPES = ("o", "^", "s")  # of a picture's points; films have no legend and know circles only
MOST_ENTRIES = 20  # of a legend: what seven colours and three shapes keep apart


@dataclass(frozen=True)
class Theme:
    """Colours as #rrggbb.

    Attributes:
        ground: behind everything.
        panel: behind the points of a map.
        ink: text.
        faint: text of less weight, and points of no interest.
        rule: frames of panels.
        palette: categories, in order.
        mark: the current point of a film.
        points: points of a film that shows one video.
        ramp: Matplotlib's name of the colours of numbers.
        rim: thin edge that parts a point from the ground.
    """

    ground: str
    panel: str
    ink: str
    faint: str
    rule: str
    palette: tuple[str, ...]
    mark: str
    points: str
    ramp: str
    rim: str


LIGHT = Theme(
    ground="#ffffff",
    panel="#ffffff",
    ink="#20242c",
    faint="#6b7280",
    rule="#c9ced6",
    palette=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e0a100", "#56b4e9", "#3d3d3d"),
    mark="#dc1e1e",
    points="#1f5ac8",
    ramp="plasma",
    rim="#595959",
)
DARK = Theme(
    ground="#14171d",
    panel="#191d25",
    ink="#e8eaee",
    faint="#9aa3b2",
    rule="#3a414e",
    palette=("#4aa3e0", "#ff8a3c", "#2fbf93", "#e08fc0", "#f2d24a", "#a9d8f5", "#f4f4f4"),
    mark="#ff5a52",
    points="#5f97f2",
    ramp="plasma",
    rim="#0d0f13",
)
THEMES: dict[str, Theme] = {"light": LIGHT, "dark": DARK}


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of `#rrggbb`, 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
