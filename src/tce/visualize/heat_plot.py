"""The picture of a similarity matrix: frames of one video down, of another across, thumbnails beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.visualize.plots import literal, one_line
from tce.visualize.themes import THEMES, Theme, ThemeName

Image = NDArray[np.uint8]  # [H, W, 3] RGB
Times = NDArray[np.float64]

LONGER = 5.2  # inches of the matrix's longer side
NARROWEST = 0.45  # of the shorter one, as a share
STRIP = 0.72  # inches that thumbnails are high (above) or wide (at the left)
GAP = 0.06
LEFT, BELOW, ABOVE, RIGHT = 0.72, 0.58, 0.5, 0.95  # inches for axes, title and colour bar
RAMP = "viridis"
NAME_LENGTH = 46


def heat_figure(
    similarity: NDArray[np.floating[Any]],
    first: Times,
    second: Times,
    names: tuple[str, str] = ("", ""),
    thumbnails: tuple[Sequence[tuple[float, Image]], Sequence[tuple[float, Image]]] = ((), ()),
    path: NDArray[np.int64] | None = None,
    title: str = "",
    theme: ThemeName = "light",
) -> Any:
    """Draw the similarity of each frame of one video (down) to each of another (across).

    Args:
        similarity: [n, m] cosines.
        first: [n] seconds of the first video's frames.
        second: [m] seconds of the second one's.
        names: of both videos, along the axes.
        thumbnails: for each video its seconds and frames uint8 [H, W, 3], beside the axes.
        path: [k, 2] of `align`, drawn as a line.
        title: a line above.
        theme: "light" or "dark".

    Returns:
        A Matplotlib figure, which notebooks show.
    """
    from matplotlib.figure import Figure

    look = THEMES[theme]
    spans = [max(_ends(times)[1] - _ends(times)[0], 1e-9) for times in (first, second)]
    shape = float(np.clip(spans[0] / spans[1], NARROWEST, 1 / NARROWEST))  # height over width
    width, height = (LONGER, LONGER * shape) if shape <= 1 else (LONGER / shape, LONGER)
    left = LEFT + (STRIP + GAP if thumbnails[0] else 0)
    above = ABOVE + (STRIP + GAP if thumbnails[1] else 0)
    total = left + width + RIGHT, BELOW + height + above
    figure = Figure(figsize=total, dpi=160, facecolor=look.ground)

    def place(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        return x / total[0], y / total[1], w / total[0], h / total[1]

    axes = figure.add_axes(place(left, BELOW, width, height), facecolor=look.panel)
    drawn = draw_matrix(axes, similarity, first, second, path, look)
    axes.set_xlabel(_axis(names[1]), fontsize=8.5, color=look.ink)
    axes.set_ylabel(_axis(names[0]), fontsize=8.5, color=look.ink, labelpad=2)
    bar = figure.colorbar(drawn, cax=figure.add_axes(place(left + width + 0.14, BELOW, 0.13, height)))
    bar.set_label("cosine similarity", fontsize=8.5, color=look.ink)
    bar.ax.tick_params(labelsize=7.5, colors=look.ink)
    bar.outline.set_edgecolor(look.rule)
    if thumbnails[1]:
        strip = figure.add_axes(place(left, BELOW + height + GAP, width, STRIP))
        _strip(strip, thumbnails[1], _ends(second), width, look, across=True)
    if thumbnails[0]:
        # The axis' numbers and name stand between the thumbnails and the figure's edge.
        strip = figure.add_axes(place(LEFT, BELOW, STRIP, height))
        _strip(strip, thumbnails[0], _ends(first), height, look, across=False)
        axes.tick_params(axis="y", pad=STRIP * 72 + 6)
    if title:
        figure.text(
            LEFT / total[0], 1 - 0.2 / total[1], literal(title), fontsize=9.5, color=look.ink, va="center"
        )
    return figure


def draw_matrix(
    axes: Any,
    similarity: NDArray[np.floating[Any]],
    first: Times,
    second: Times,
    path: NDArray[np.int64] | None,
    look: Theme,
) -> Any:
    """Draw the matrix and the path into axes in seconds, time downwards and to the right; the image."""
    low, high = (float(value) for value in np.percentile(similarity, (1, 99.9)))
    (left, right), (top, bottom) = _ends(second), _ends(first)
    drawn = axes.imshow(
        similarity,
        cmap=RAMP,
        vmin=low,
        vmax=max(high, low + 1e-6),
        extent=(left, right, bottom, top),
        aspect="auto",
        interpolation="nearest" if max(similarity.shape) <= 600 else "antialiased",
    )
    if path is not None:
        x, y = second[path[:, 1]], first[path[:, 0]]
        axes.plot(x, y, color="#101010", lw=3.2, solid_capstyle="round")
        axes.plot(x, y, color="#ffffff", lw=1.5, solid_capstyle="round")
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.tick_params(labelsize=7.5, colors=look.ink, color=look.rule)
    for spine in axes.spines.values():
        spine.set(color=look.rule, linewidth=0.8)
    return drawn


def _ends(times: Times) -> tuple[float, float]:
    """Where the first frame begins and the last one ends, each half a frame from its middle."""
    half = float(np.median(np.diff(times))) / 2 if len(times) > 1 else 0.5
    return float(times[0]) - half, float(times[-1]) + half


def _axis(name: str) -> str:
    name = one_line(name)
    half = NAME_LENGTH // 2
    name = name if len(name) <= NAME_LENGTH else f"{name[:half]}…{name[-half:]}"
    return literal(f"{name}, time (s)" if name else "time (s)")


def _strip(
    axes: Any,
    thumbnails: Sequence[tuple[float, Image]],
    ends: tuple[float, float],
    length: float,
    look: Theme,
    across: bool,
) -> None:
    """Frames along an axis, each over its time, as large as the strip and their number allow."""
    axes.set(xlim=(0, length) if across else (0, STRIP), ylim=(0, STRIP) if across else (length, 0))
    axes.set_axis_off()
    room = 0.94 * length / max(len(thumbnails), 1)
    for seconds, image in thumbnails:
        aspect = image.shape[1] / image.shape[0]
        height = min(STRIP, room / aspect) if across else min(room, STRIP / aspect)
        width = height * aspect
        middle = (seconds - ends[0]) / max(ends[1] - ends[0], 1e-9) * length
        along = width if across else height
        middle = float(np.clip(middle, along / 2, max(length - along / 2, along / 2)))
        if across:  # at the strip's lower edge, beside the matrix
            extent = (middle - width / 2, middle + width / 2, 0.0, height)
        else:
            extent = (STRIP - width, STRIP, middle + height / 2, middle - height / 2)
        axes.imshow(image, extent=extent, aspect="auto", interpolation="antialiased")
    axes.set(xlim=(0, length) if across else (0, STRIP), ylim=(0, STRIP) if across else (length, 0))
