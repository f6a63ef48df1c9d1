"""Pictures of results: confusion matrix, bars with intervals, nearest neighbours, classes along time.

All text goes through `tce.visualize.plots`: names come from files and may hold anything.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tce.io import atomic
from tce.visualize.plots import legend_label, literal, one_line, set_fonts

Pixels = npt.NDArray[np.uint8]
Interval = tuple[float, float]
# A query's picture and caption; its neighbours' pictures, captions, and whether they are of its class.
NeighbourRow = tuple[tuple[Pixels, str], Sequence[tuple[Pixels, str, bool]]]

INK, FAINT = "0.15", "0.45"
RULE = "0.8"  # borders between cells
RIGHT, WRONG = "#2a9d55", "#d1495b"
BAR_COLOURS = ("#3b6ea5", "#e08e45", "#5b9a68", "#b35c7a", "#7d6bb0", "#8c8c8c")
MOST_NAMED_CLASSES = 200
MOST_CELLS_WITH_NUMBERS = 26
NAME_LENGTH = 28


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
    set_fonts(figure)
    with atomic(path) as file:
        figure.savefig(file, format=kind, facecolor="white", bbox_inches="tight")


def shortened(name: str, length: int = NAME_LENGTH) -> str:
    """A name in one line, its middle left out where it is too long."""
    name = one_line(name)
    half = (length - 1) // 2
    return name if len(name) <= length else f"{name[:half]}…{name[-half:]}"


def confusion_figure(matrix: npt.NDArray[np.int64], classes: Sequence[str], title: str) -> Any:
    """Percentage of each true class (row) that was predicted as each class (column).

    Up to 26 classes have their numbers in the cells, up to 200 their names along the axes.

    Args:
        matrix: clips of class r predicted as class c, [n, n]; or [n, n + 1], with a column for other classes.
        classes: names, n.
        title: above.

    Returns:
        A Matplotlib figure, which notebooks show.
    """
    clips = matrix.sum(axis=1)
    share = 100 * np.divide(matrix, clips[:, None], out=np.zeros(matrix.shape), where=clips[:, None] > 0)
    n, columns = matrix.shape
    cell = float(np.interp(n, [4, 12, 30, 101], [0.55, 0.4, 0.28, 0.15]))  # inches; names need 0.13
    cell = cell if n <= MOST_NAMED_CLASSES else 8 / n
    longest = max(len(shortened(name)) for name in classes)
    size = 7.5 if n <= 30 else 6.5
    margin = 0.0085 * size * min(longest + 6, NAME_LENGTH + 6)
    figure = new_figure(max(6.0, cell * columns + margin + 1.2), max(3.4, cell * n + margin + 0.9))
    axes = figure.add_subplot()
    drawn = axes.imshow(share, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if n <= MOST_NAMED_CLASSES:
        named = [literal(shortened(name)) for name in classes]
        predicted = [*named, "other classes"][:columns]
        true = [f"{name} ({count})" for name, count in zip(named, clips.tolist(), strict=True)]
        axes.set_xticks(range(columns), predicted, rotation=90, fontsize=size)
        axes.set_yticks(range(n), true, fontsize=size)
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    if n <= MOST_NAMED_CLASSES:
        axes.grid(which="minor", color=RULE, linewidth=0.6 if n <= 30 else 0.25)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.8)
    if n <= MOST_CELLS_WITH_NUMBERS:
        for (row, column), value in np.ndenumerate(share):
            if matrix[row, column]:
                colour = "white" if value > 55 else INK
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=size, color=colour)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.set_ylabel("true class (test clips)" if n <= MOST_NAMED_CLASSES else "true class", fontsize=9)
    figure.suptitle(literal(title), fontsize=9, color=INK, x=0.01, ha="left")
    height = min(0.9, 4 / (cell * n))  # of the matrix's; a bar need not be longer than a hand
    place = axes.inset_axes((1 + 0.14 / (cell * columns), (1 - height) / 2, 0.16 / (cell * columns), height))
    bar = figure.colorbar(drawn, cax=place)
    bar.set_label("% of the true class's clips", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_edgecolor(FAINT)
    return figure


def confusion_picture(
    path: str | os.PathLike[str], matrix: npt.NDArray[np.int64], classes: Sequence[str], title: str
) -> None:
    """Write the picture of `confusion_figure`."""
    save(confusion_figure(matrix, classes, title), path)


@dataclass
class BarPanel:
    """One metric of one or several networks, a bar each.

    Attributes:
        title: the protocol and metric.
        subtitle: data and number of clips.
        names: the networks.
        values: the metric of each.
        intervals: their 95% intervals.
        texts: value and interval as they are printed beside the bars.
        chance: the level of chance, if it is known.
        percent: whether values are shares of 1, drawn from 0 to 100%.
    """

    title: str
    subtitle: str
    names: Sequence[str]
    values: Sequence[float]
    intervals: Sequence[Interval | None]
    texts: Sequence[str]
    chance: float | None = None
    percent: bool = False


def comparison_figure(panels: Sequence[BarPanel]) -> Any:
    """Horizontal bars with 95% intervals and chance levels, a panel a metric, each in its own unit.

    Values stand in a column at the right, so that no two of them, and no value and whisker, can collide.

    Args:
        panels: from top to bottom.

    Returns:
        A Matplotlib figure, which notebooks show.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.names))
    colours = {name: BAR_COLOURS[place % len(BAR_COLOURS)] for place, name in enumerate(names)}
    heights = [0.8 + 0.27 * len(panel.names) for panel in panels]
    figure = new_figure(7.5, sum(heights) + 0.35)
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _bars(axes, panel, colours)
    figure.supxlabel("whiskers: 95% intervals over recordings; dashed: chance", fontsize=7.5, color=FAINT)
    return figure


def comparison_picture(path: str | os.PathLike[str], panels: Sequence[BarPanel]) -> None:
    """Write the picture of `comparison_figure`."""
    save(comparison_figure(panels), path)


def _bars(axes: Any, panel: BarPanel, colours: dict[str, str]) -> None:
    scale = 100.0 if panel.percent else 1.0
    rows = np.arange(len(panel.names))
    values = scale * np.array(panel.values, np.float64)
    axes.barh(rows, values, 0.68, color=[colours[name] for name in panel.names], zorder=2)
    for row, ends in enumerate(panel.intervals):
        if ends is not None:
            low, high = scale * ends[0], scale * ends[1]
            axes.plot([low, high], [row, row], color=INK, lw=1.0, zorder=3)
            axes.plot([low, high], [row, row], color=INK, marker="|", ms=5, ls="", zorder=3)
    if panel.chance is not None:
        axes.axvline(scale * panel.chance, color=INK, ls=(0, (4, 3)), lw=0.9, zorder=4)
    if panel.percent:
        axes.set_xlim(0, 100)
        axes.xaxis.set_major_formatter("{x:.0f}%")
    else:
        axes.axvline(0, color=FAINT, lw=0.8)
    for row, text in enumerate(panel.texts):
        place = axes.get_yaxis_transform()
        axes.text(1.015, row, literal(text), transform=place, va="center", fontsize=7.5, color=INK)
    axes.set_yticks(rows, [literal(shortened(name)) for name in panel.names], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7, color=RULE)
    axes.grid(axis="x", color="0.92", zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    subtitle = panel.subtitle if panel.chance is None else f"{panel.subtitle}, chance {_level(panel)}"
    axes.set_title(literal(panel.title), fontsize=8.5, color=INK, loc="left", fontweight="bold", pad=15)
    above = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 7.5}
    axes.annotate(literal(subtitle), (0, 1), (0, 4), color=FAINT, **above)


def _level(panel: BarPanel) -> str:
    assert panel.chance is not None
    return f"{panel.chance:.1%}" if panel.percent else f"{panel.chance:.3g}"


@dataclass
class LearningCurve:
    """Accuracy by number of labelled clips.

    Attributes:
        name: of the classifier.
        shots: labelled clips of each class, rising.
        values: accuracy, shares of 1.
        intervals: their 95% intervals.
    """

    name: str
    shots: Sequence[int]
    values: Sequence[float]
    intervals: Sequence[Interval | None]


def learning_figure(lines: Sequence[LearningCurve], chance: float, title: str, draws: int) -> Any:
    """Accuracy along the number of labelled clips (logarithmic), with 95% intervals and the chance level.

    Args:
        lines: a line each, with its name at its end.
        chance: accuracy by chance, a share of 1.
        title: above.
        draws: random choices of labelled clips behind each point.

    Returns:
        A Matplotlib figure, which notebooks show.
    """
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    shots = sorted({shot for line in lines for shot in line.shots})
    ends = np.array([100 * line.values[-1] for line in lines])
    apart = _spread_apart(ends, 4.5)
    for place, (line, at) in enumerate(zip(lines, apart, strict=True)):
        colour = BAR_COLOURS[place % len(BAR_COLOURS)]
        axes.plot(line.shots, 100 * np.array(line.values), color=colour, lw=1.8, marker="o", ms=4, zorder=3)
        known = [(shot, *both) for shot, both in zip(line.shots, line.intervals, strict=True) if both]
        if known:
            x, low, high = np.array(known, np.float64).T
            axes.fill_between(x, 100 * low, 100 * high, color=colour, alpha=0.15, lw=0, zorder=1)
        words = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 8, "color": colour}
        axes.annotate(literal(f"{line.name} {line.values[-1]:.0%}"), (1.02, at), **words)
    axes.axhline(100 * chance, color=INK, ls=(0, (4, 3)), lw=0.9, zorder=2)
    words = {
        "xycoords": ("axes fraction", "data"),
        "fontsize": 7.5,
        "color": INK,
        "va": "bottom",
        "ha": "right",
    }
    axes.annotate(f"chance {chance:.1%}", (0.99, 100 * chance + 0.6), **words)
    axes.set_xscale("log")
    axes.set_xticks(shots, [str(shot) for shot in shots])
    axes.minorticks_off()
    axes.set_xlim(shots[0] / 1.15, shots[-1] * 1.15)
    axes.set_ylim(0, 100)
    axes.yaxis.set_major_formatter("{x:.0f}%")
    axes.set_xlabel("labelled clips of each class", fontsize=9)
    axes.set_ylabel("top-1 on the test clips", fontsize=9)
    axes.tick_params(labelsize=8, color=RULE)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(literal(title), fontsize=8.5, color=INK, loc="left")
    note = f"mean of {draws} random choices of clips; shaded: 95% intervals over choices and recordings"
    figure.supxlabel(note, fontsize=7.5, color=FAINT)
    return figure


def learning_picture(
    path: str | os.PathLike[str], lines: Sequence[LearningCurve], chance: float, title: str, draws: int
) -> None:
    """Write the picture of `learning_figure`."""
    save(learning_figure(lines, chance, title, draws), path)


def _spread_apart(values: npt.NDArray[np.float64], least: float) -> npt.NDArray[np.float64]:
    """Places for labels at `values`, moved so far that neighbours are at least `least` apart."""
    order, places = np.argsort(values, kind="stable"), np.array(values, np.float64)
    for lower, upper in itertools.pairwise(order):
        lack = least - (places[upper] - places[lower])
        if lack > 0:
            places[lower] -= lack / 2
            places[upper] += lack / 2
    return places


def neighbour_figure(rows: Sequence[NeighbourRow], title: str) -> Any:
    """Queries at the left, their nearest clips at the right; those of the query's class have a green frame.

    Args:
        rows: for each query its picture and caption, and its neighbours' picture, caption, and whether they
            are of the same class.
        title: above the sheet.

    Returns:
        A Matplotlib figure, which notebooks show.
    """
    columns = 1 + max(len(found) for _, found in rows)
    figure = new_figure(1.25 * columns + 0.4, 1.45 * len(rows) + 0.8)
    grid = figure.add_gridspec(len(rows), columns + 1, width_ratios=[1, 0.12, *[1] * (columns - 1)])
    for row, ((picture, caption), found) in enumerate(rows):
        place = figure.add_subplot(grid[row, 0])
        _thumbnail(place, picture, caption, INK)
        if row == 0:
            place.set_title("query", fontsize=8, color=INK)
        for column, (image, name, same) in enumerate(found):
            place = figure.add_subplot(grid[row, column + 2])
            _thumbnail(place, image, name, RIGHT if same else WRONG)
            if row == 0:
                place.set_title(_ordinal(column), fontsize=8, color=FAINT)
    about = f"{len(rows)} random queries with their nearest training clips; green: the query's class"
    figure.suptitle(literal(f"{title}\n{about}"), fontsize=9, color=INK)
    return figure


def neighbour_picture(path: str | os.PathLike[str], rows: Sequence[NeighbourRow], title: str) -> None:
    """Write the picture of `neighbour_figure`."""
    save(neighbour_figure(rows, title), path)


def _ordinal(column: int) -> str:
    return "nearest" if column == 0 else f"{column + 1}."


def _thumbnail(axes: Any, picture: Pixels, caption: str, colour: str) -> None:
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2.5)
    axes.set_xlabel(literal(caption), fontsize=6.5, color=colour, labelpad=2)


def time_figure(
    times: npt.NDArray[np.float64],
    shares: npt.NDArray[np.float64],
    names: Sequence[str],
    stills: Sequence[tuple[float, Pixels]],
    title: str,
    end: float,
    chance: float,
) -> Any:
    """Class probabilities along a video, above them frames of it, each over its own time.

    Args:
        times: [S] seconds.
        shares: [S, C] probability of each named class.
        names: C class names, the most likely first.
        stills: time and pixels of frames, in time; each is drawn centred over its time.
        title: above the picture.
        end: the video's last time, in seconds.
        chance: probability of each class by chance.

    Returns:
        A Matplotlib figure, which notebooks show.
    """
    figure = new_figure(9.0, 4.3)
    axes = figure.add_subplot()
    marker = "o" if len(times) <= 40 else None
    for place, name in enumerate(names):
        colour = BAR_COLOURS[place % len(BAR_COLOURS)]
        label = legend_label(shortened(name))
        axes.plot(times, 100 * shares[:, place], color=colour, lw=1.6, marker=marker, ms=3, label=label)
    axes.axhline(100 * chance, color=INK, ls=(0, (4, 3)), lw=0.9, label=f"chance ({chance:.1%})")
    axes.set(ylim=(0, 102), xlabel="time (s)", ylabel="probability")
    axes.yaxis.set_major_formatter("{x:.0f}%")
    span = max(end, 1e-3)
    axes.set_xlim(0, span)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    width = 0.96 / max(len(stills), 1)
    for second, picture in stills:
        middle = float(np.clip(second / span, width / 2, 1 - width / 2)) if len(stills) > 1 else 0.5
        place = axes.inset_axes((middle - width / 2, 1.04, width, 0.36))
        place.imshow(picture)
        place.set_anchor("S")
        place.set_xticks([])
        place.set_yticks([])
        place.set_xlabel(f"{second:.1f} s", fontsize=7, color=FAINT, labelpad=2)
        for spine in place.spines.values():
            spine.set_visible(False)
    figure.suptitle(literal(title), fontsize=9, color=INK)
    return figure


def time_line(
    path: str | os.PathLike[str],
    times: npt.NDArray[np.float64],
    shares: npt.NDArray[np.float64],
    names: Sequence[str],
    stills: Sequence[tuple[float, Pixels]],
    title: str,
    end: float,
    chance: float,
) -> None:
    """Write the picture of `time_figure`."""
    save(time_figure(times, shares, names, stills, title, end, chance), path)
