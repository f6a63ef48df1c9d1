"""The picture of a map: points coloured by category or number, with a legend or colour bar outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.visualize.plots import legend_label, literal, short_names
from tce.visualize.point_colours import OTHER, PointColours, most_frequent
from tce.visualize.themes import SHAPES, THEMES, Theme, ThemeName

Points = NDArray[np.floating[Any]]

MAP_HEIGHT = 5.0  # inches
NARROWEST, WIDEST = 0.62, 1.0  # height of the map's box as a share of its width
ROOM = 0.05  # around the points, as a share of their extent
FEW = 400  # points up to which a video's frames are joined by a line
MOST_LINES = 12  # videos up to which they are
LONGEST_LABEL = 40


def map_figure(
    points: Points,
    colours: PointColours,
    title: str = "",
    theme: ThemeName = "light",
    background: Points | None = None,
    tracks: NDArray[np.int64] | None = None,
) -> Any:
    """Draw a map of frames.

    The points are turned so that their longer axis lies across, and the box follows their shape: distances
    mean the same in both directions. At most 20 categories have a line in the legend; of more, the 19 most
    frequent ones and "other".

    Args:
        points: [N, 2] map.
        colours: of `choose_colours`, N values.
        title: a line above the map.
        theme: "light" or "dark".
        background: [M, 2] points of an earlier map, drawn in grey below the others.
        tracks: [N] numbers of the videos, in time order each; few frames are joined by a line; None: none.

    Returns:
        A Matplotlib figure, which notebooks show.
    """
    from matplotlib.figure import Figure

    look = THEMES[theme]
    whole = points if background is None else np.concatenate([background, points])
    turned = upright(whole)
    points = turned[len(whole) - len(points) :]
    low, high = turned.min(axis=0), turned.max(axis=0)
    extent = np.maximum(high - low, 1e-12)
    shape = float(np.clip(extent[1] / extent[0], NARROWEST, WIDEST))  # height over width
    figure = Figure(figsize=(MAP_HEIGHT / shape, MAP_HEIGHT), dpi=160, facecolor=look.ground)
    axes = figure.add_axes((0, 0, 1, 1), facecolor=look.panel)
    _frame(axes, low, high, shape, look)
    if background is not None:
        area = point_area(len(background)) * 0.7
        x, y = turned[: len(background)].T
        axes.scatter(x, y, s=area, color=look.faint, alpha=0.3, linewidths=0, zorder=1)
    if tracks is not None and len(points) <= FEW and len(np.unique(tracks)) <= MOST_LINES:
        _lines(axes, points, tracks, look)
    if colours.numbers is not None:
        _by_number(figure, axes, points, colours, look)
    else:
        _by_category(axes, points, most_frequent(colours), look)
    if title:
        axes.set_title(literal(title), fontsize=10, color=look.ink, loc="left", pad=8)
    return figure


def upright(points: Points) -> Points:
    """Points turned about their mean so that their longer axis lies across; decided by the input alone."""
    centred = np.asarray(points, np.float64) - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # rising
    axes = axes[:, ::-1]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(2)] < 0, -1, 1)
    return np.asarray(centred @ axes)


def point_area(count: int) -> float:
    """A marker's area in square points that shows single frames and keeps thousands apart."""
    return float(np.clip(14000 / max(count, 1), 2.5, 70))


def _frame(axes: Any, low: Any, high: Any, shape: float, look: Theme) -> None:
    """A bare box with room around the points; the axes of a t-SNE map have no units."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=look.rule, linewidth=0.8)
    middle = (low + high) / 2
    # Half the box's width, so that both directions fit and a unit is as long in one as in the other.
    half = max(float(high[0] - low[0]), float(high[1] - low[1]) / shape, 1e-12) / 2 * (1 + 2 * ROOM)
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half * shape, middle[1] + half * shape)


def _lines(axes: Any, points: Points, tracks: NDArray[np.int64], look: Theme) -> None:
    for track in np.unique(tracks):
        axes.plot(*points[tracks == track].T, color=look.faint, alpha=0.45, lw=0.9, zorder=1.5)


def _by_number(figure: Any, axes: Any, points: Points, colours: PointColours, look: Theme) -> None:
    assert colours.numbers is not None
    known = np.isfinite(colours.numbers)
    area = point_area(len(points))
    if not known.all():
        axes.scatter(*points[~known].T, s=area * 0.7, color=look.faint, alpha=0.5, linewidths=0, zorder=2)
    # A thin rim: the ramp's ends would vanish on one of the grounds.
    rim = {"edgecolors": look.rim, "linewidths": 0.25 if area > 6 else 0}
    drawn = axes.scatter(*points[known].T, c=colours.numbers[known], cmap=look.ramp, s=area, zorder=2, **rim)
    place = axes.inset_axes((1.025, 0.15, 0.028, 0.7))
    bar = figure.colorbar(drawn, cax=place)
    bar.set_label(literal(_label(colours.label)), color=look.ink, fontsize=9)
    bar.ax.tick_params(labelsize=8, colors=look.ink)
    bar.outline.set_edgecolor(look.rule)


def _by_category(axes: Any, points: Points, colours: PointColours, look: Theme) -> None:
    assert colours.codes is not None
    area, paths = point_area(len(points)), colours.name in ("video", "folder")
    labels = short_names(colours.names) if paths else [_label(name) for name in colours.names]
    last = len(colours.names) - 1
    counts = np.bincount(colours.codes[colours.codes >= 0], minlength=len(colours.names))
    unknown = colours.codes < 0
    if unknown.any():
        axes.scatter(
            *points[unknown].T,
            s=area * 0.7,
            color=look.faint,
            alpha=0.4,
            linewidths=0,
            label="none",
            zorder=1.7,
        )
    for row, label in enumerate(labels):
        rest = row == last and colours.names[row].startswith(f"{OTHER} (")
        colour = look.faint if rest else look.palette[row % len(look.palette)]
        shape = "o" if rest else SHAPES[row // len(look.palette) % len(SHAPES)]
        axes.scatter(
            *points[colours.codes == row].T,
            color=colour,
            marker=shape,
            s=area * (0.7 if rest else 1),
            label=legend_label(label) or "(no name)",
            alpha=0.45 if rest else 0.85,
            edgecolors=look.panel if area > 12 else "none",
            linewidths=0.4 if area > 12 else 0,
            zorder=1.8 if rest else 2.5 - counts[row] / max(counts.sum(), 1),  # the rarest on top
        )
    legend = axes.legend(
        title=legend_label(_label(colours.label)),
        loc="upper left",
        bbox_to_anchor=(1.015, 1.01),
        borderaxespad=0,
        frameon=False,
        fontsize=8.5,
        title_fontsize=8.5,
        alignment="left",
        labelcolor=look.ink,
        handletextpad=0.3,
        labelspacing=0.42,
    )
    legend.get_title().set_color(look.faint)
    for handle in legend.legend_handles:
        handle.set_sizes([34])
        handle.set_alpha(1)


def _label(text: str) -> str:
    return (
        text
        if len(text) <= LONGEST_LABEL
        else text[: LONGEST_LABEL // 2] + "…" + text[-LONGEST_LABEL // 2 + 1 :]
    )


def track_numbers(videos: Sequence[str]) -> NDArray[np.int64]:
    """Numbers [N] of the videos of N frames."""
    place = {name: row for row, name in enumerate(dict.fromkeys(videos))}
    return np.array([place[name] for name in videos], np.int64)
