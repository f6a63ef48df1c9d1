"""Pictures of results: confusion matrix, bars with intervals, contact sheet, time line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tce.io import atomic

Pixels = npt.NDArray[np.uint8]

INK, FAINT = "0.15", "0.6"
RIGHT, WRONG = "#2a9d55", "#d1495b"
MOST_NAMED_CLASSES = 60
BAR_COLOURS = ("#3b6ea5", "#e08e45", "#5b9a68", "#b35c7a", "#7d6bb0", "#8c8c8c")


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of so many inches, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure, replacing what was there."""
    kind = Path(path).suffix[1:].lower() or "png"
    with atomic(path) as file:
        figure.savefig(file, format=kind, facecolor="white", bbox_inches="tight")


def confusion_picture(
    path: str | os.PathLike[str], matrix: npt.NDArray[np.int64], classes: Sequence[str], title: str
) -> None:
    """Share of each class (row) taken for each class (column).

    Args:
        path: picture to write.
        matrix: clips of class r taken for class c, [n, n]; or [n, n + 1], the last for classes beyond them.
        classes: names, n.
        title: above.
    """
    clips = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, clips, out=np.zeros(matrix.shape), where=clips > 0)
    n = len(classes)
    side = float(np.clip(2.2 + 0.17 * n, 3.5, 14))
    figure = new_figure(side + 1, side)
    axes = figure.add_subplot()
    drawn = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if n <= MOST_NAMED_CLASSES:
        columns = [*classes, "other classes"][: matrix.shape[1]]
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
        axes.set_yticks(range(n), classes, fontsize=7)
        if n <= 12:
            for (row, column), value in np.ndenumerate(share):
                if matrix[row, column]:
                    colour = "white" if value > 0.5 else INK
                    axes.text(column, row, f"{value:.0%}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xlabel("taken for")
    axes.set_ylabel("is")
    axes.set_title(title, fontsize=9, color=INK)
    figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.02, label="share of the class's clips")
    save(figure, path)


def bar_picture(
    path: str | os.PathLike[str],
    groups: Sequence[str],
    names: Sequence[str],
    values: npt.NDArray[np.float64],
    intervals: npt.NDArray[np.float64],
    chance: Sequence[float | None],
    label: str,
    scales: Sequence[float],
) -> None:
    """Bars side by side with 95% intervals.

    Args:
        path: picture to write.
        groups: along the axis, such as figures or protocols, G.
        names: one bar each in every group, N.
        values: [G, N], NaN for no bar.
        intervals: [G, N, 2], NaN for none.
        chance: of each group, a dashed line.
        label: of the axis of values.
        scales: what each group's values are multiplied by, 100 for per cent, G.
    """
    scale = np.array(scales)
    values, intervals = values * scale[:, None], intervals * scale[:, None, None]
    digits = [1 if factor == 100 else 3 for factor in scales]
    there = np.isfinite(values)
    count = max(1, int(there.sum(axis=1).max()))
    figure = new_figure(max(5.0, 1.2 + max(0.9, 0.42 * count) * len(groups)), 3.6)
    axes = figure.add_subplot()
    width = 0.82 / count
    # Around the middle of the group, with no gap for a network that is not in it.
    places = np.cumsum(there, axis=1) - (there.sum(axis=1, keepdims=True) + 1) / 2
    for bar, name in enumerate(names):
        x = np.arange(len(groups)) + places[:, bar] * width
        colour = BAR_COLOURS[bar % len(BAR_COLOURS)]
        hatch = None if bar < len(BAR_COLOURS) else "//"
        axes.bar(x, values[:, bar], width * 0.92, color=colour, label=name, hatch=hatch, zorder=2)
        tops = np.fmax(values[:, bar], intervals[:, bar, 1])  # a number on its whisker cannot be read
        for group, (place, top, value) in enumerate(zip(x, tops, values[:, bar], strict=True)):
            if np.isfinite(value):
                axes.annotate(
                    f"{value:.{digits[group]}f}",
                    (place, top),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                )
        ends = np.abs(intervals[:, bar].T - values[:, bar])  # [2, G]
        known = np.isfinite(ends).all(axis=0)
        axes.errorbar(
            x[known],
            values[known, bar],
            ends[:, known],
            fmt="none",
            ecolor=INK,
            capsize=2,
            lw=0.8,
            zorder=3,
        )
    levels = [(group, level) for group, level in enumerate(chance) if level is not None]
    for number, (group, level) in enumerate(levels):
        once = None if number else "chance"  # one line in the legend for all of them
        span = [group - 0.45, group + 0.45]
        axes.plot(span, [scale[group] * level] * 2, ls="--", lw=0.9, color=FAINT, zorder=4, label=once)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92", zorder=0)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def contact_sheet(
    path: str | os.PathLike[str],
    rows: Sequence[tuple[tuple[Pixels, str], Sequence[tuple[Pixels, str, bool]]]],
    title: str,
) -> None:
    """Queries on the left, what they found on the right; green frames are of the query's class.

    Args:
        path: picture to write.
        rows: for each query its picture and caption, and its neighbours' picture, caption, and whether they
            are of the same class.
        title: above the sheet.
    """
    columns = 1 + max(len(found) for _, found in rows)
    figure = new_figure(1.25 * columns + 0.4, 1.3 * len(rows) + 0.4)
    grid = figure.add_gridspec(len(rows), columns + 1, width_ratios=[1, 0.12, *[1] * (columns - 1)])
    for row, ((picture, caption), found) in enumerate(rows):
        _thumbnail(figure.add_subplot(grid[row, 0]), picture, caption, INK)
        for column, (image, name, same) in enumerate(found):
            _thumbnail(figure.add_subplot(grid[row, column + 2]), image, name, RIGHT if same else WRONG)
    figure.suptitle(title, fontsize=9, color=INK)
    save(figure, path)


def _thumbnail(axes: Any, picture: Pixels, caption: str, colour: str) -> None:
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2.5)
    axes.set_xlabel(caption, fontsize=6.5, color=colour, labelpad=2)


def time_line(
    path: str | os.PathLike[str],
    times: npt.NDArray[np.float64],
    shares: npt.NDArray[np.float64],
    names: Sequence[str],
    stills: Sequence[tuple[float, Pixels]],
    title: str,
) -> None:
    """Class probabilities along a video, above them frames of it.

    Args:
        path: picture to write.
        times: [S] seconds.
        shares: [S, C] probability of each named class.
        names: C class names, the most likely first.
        stills: time and pixels of frames, evenly spaced.
        title: above the picture.
    """
    figure = new_figure(8.5, 3.9)
    grid = figure.add_gridspec(2, len(stills), height_ratios=[1, 2.4])
    for column, (second, picture) in enumerate(stills):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(picture)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"{second:.1f} s", fontsize=7, color=FAINT, labelpad=2)
        for spine in axes.spines.values():
            spine.set_visible(False)
    axes = figure.add_subplot(grid[1, :])
    marker = "o" if len(times) <= 40 else None
    for place, name in enumerate(names):
        colour = BAR_COLOURS[place % len(BAR_COLOURS)]
        axes.plot(times, shares[:, place], color=colour, lw=1.6, marker=marker, ms=3, label=name)
    axes.set(ylim=(0, 1.02), xlabel="time (s)", ylabel="probability")
    if len(times) > 1:
        axes.set_xlim(times[0], times[-1])
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle(title, fontsize=9, color=INK)
    save(figure, path)
