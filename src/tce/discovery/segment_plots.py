"""Pictures of segments: ethogram, bout durations, transitions, time budget, similarity of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.discovery.behaviour_model import BehaviourModel
from tce.discovery.segment_table import BoutTable
from tce.visualize.plots import literal
from tce.visualize.result_plots import FAINT, INK, RULE, new_figure, save, shortened

PICTURES = ("ethogram.png", "durations.png", "transitions.png", "budget.png", "tree.png")
COLOURS = (
    *("#3b6ea5", "#e08e45", "#5b9a68", "#b35c7a", "#7d6bb0", "#c9b037", "#4aa3a2", "#8c6d4f"),
    *("#c0504d", "#9bbf5f", "#6f8fc9", "#d98fb5", "#5a5a5a", "#e3b98b", "#2f7f79", "#a890d3"),
    *("#a3a3a3", "#7a9e3b", "#d17b5c", "#4f6d8f"),
)
MOST_STRIPS = 40
MOST_GRAPH = 12  # behaviours that a graph of transitions keeps legible
NAME_LENGTH = 30


def colour_of(number: int) -> str:
    """The colour of a behaviour in every picture."""
    return COLOURS[number % len(COLOURS)]


def draw_all(folder: Path, model: BehaviourModel, table: BoutTable, marks: Sequence[bool]) -> None:
    """Write every picture of `PICTURES`.

    Args:
        folder: where.
        model: the clusters.
        table: the bouts.
        marks: for each behaviour, whether it is marked as unstable.
    """
    names = behaviour_names(table, marks)
    ethogram(folder / PICTURES[0], table, names)
    durations(folder / PICTURES[1], table, names)
    transitions(folder / PICTURES[2], table, names)
    budget(folder / PICTURES[3], table, names)
    tree(folder / PICTURES[4], model, names)


def behaviour_names(table: BoutTable, marks: Sequence[bool]) -> list[str]:
    """Names for pictures; a star marks those that did not come back in refits."""
    return [
        shortened(one.name, NAME_LENGTH) + (" *" if mark else "")
        for one, mark in zip(table.behaviours, marks, strict=True)
    ]


def _note(names: Sequence[str]) -> str:
    return "* did not come back in refits" if any(name.endswith(" *") for name in names) else ""


def _legend(figure: Any, names: Sequence[str], used: Sequence[int]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour_of(number), label=literal(names[number])) for number in used]
    longest = max(len(names[number]) for number in used)
    columns = max(1, min(len(handles), int(110 / (longest + 6))))
    title = _note([names[number] for number in used]) or None
    legend = figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8, title=title
    )
    legend.get_title().set_fontsize(7.5)
    legend.get_title().set_color(FAINT)


def ethogram(path: Path, table: BoutTable, names: Sequence[str]) -> None:
    """A strip a video, a colour a behaviour, along time; of more than `MOST_STRIPS` videos an even choice."""
    count = len(table.recordings)
    shown = np.unique(np.linspace(0, count - 1, min(count, MOST_STRIPS)).round().astype(int)).tolist()
    height = 0.30 if len(shown) > 3 else 0.45
    figure = new_figure(10.0, height * len(shown) + 1.5)
    axes = figure.add_subplot()
    place = {number: row for row, number in enumerate(shown)}
    starts = {
        number: min((bout.start for bout in table.bouts if bout.recording == number), default=0.0)
        for number in shown
    }
    for behaviour in range(len(names)):
        own = [bout for bout in table.bouts if bout.behaviour == behaviour and bout.recording in place]
        for number in dict.fromkeys(bout.recording for bout in own):
            spans = [(bout.start - starts[number], bout.seconds) for bout in own if bout.recording == number]
            axes.broken_barh(
                spans, (place[number] - 0.36, 0.72), facecolors=colour_of(behaviour), linewidth=0
            )
    labels = [literal(shortened(table.recordings[number].name, NAME_LENGTH)) for number in shown]
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, max(table.lengths[number] for number in shown))
    axes.set_xlabel("time (s)", fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, color=RULE)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    text = f"{len(table.bouts):,} segments of {count:,} video{'s' * (count != 1)}"
    if len(shown) < count:
        text += f"; {len(shown)} of them are shown"
    axes.set_title(text, fontsize=9, color=INK, loc="left")
    _legend(figure, names, _used(table))
    save(figure, path)


def _used(table: BoutTable) -> list[int]:
    return sorted({bout.behaviour for bout in table.bouts})


def durations(path: Path, table: BoutTable, names: Sequence[str]) -> None:
    """Every bout's length as a dot, with the median and the middle half, a row a behaviour."""
    found = table.durations()
    used = [number for number, own in enumerate(found) if len(own)]
    figure = new_figure(7.5, 0.42 * len(used) + 1.1)
    axes = figure.add_subplot()
    rng = np.random.default_rng(0)
    for row, number in enumerate(used):
        own = found[number]
        shown = own if len(own) <= 400 else rng.choice(own, 400, replace=False)
        axes.scatter(
            shown, row + rng.uniform(-0.26, 0.26, len(shown)), s=9, color=colour_of(number), alpha=0.7, lw=0
        )
        low, middle, high = np.quantile(own, [0.25, 0.5, 0.75])
        axes.plot([low, high], [row, row], color=INK, lw=1.3, zorder=3)
        axes.plot([middle], [row], "|", color=INK, ms=11, mew=2, zorder=4)
        text = f"{len(own)} bout{'s' * (len(own) != 1)}, median {_seconds(middle)}"
        where = axes.get_yaxis_transform()
        axes.text(1.015, row, text, transform=where, va="center", fontsize=7.5, color=INK)
    everything = np.concatenate(found)
    if everything.max() > 20 * max(everything.min(), 1e-3):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(0, everything.max() * 1.06)
    axes.set_yticks(range(len(used)), [literal(names[number]) for number in used], fontsize=8)
    axes.set_ylim(len(used) - 0.4, -0.6)
    axes.set_xlabel("length of a bout (s); mark: median, line: middle half", fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", which="both", labelsize=8, color=RULE)
    axes.grid(axis="x", color="0.92", zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    save(figure, path)


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def transitions(path: Path, table: BoutTable, names: Sequence[str]) -> None:
    """How likely each behaviour is followed by each other one, as a matrix and, of a few, as a graph."""
    counts = table.transitions()
    used = _used(table)
    counts = counts[np.ix_(used, used)]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    graph = 2 <= len(used) <= MOST_GRAPH
    side = 1.6 + 0.42 * len(used)
    figure = new_figure(side + (max(4.6, side) if graph else 1.0), max(3.6, side))
    left = figure.add_subplot(1, 2 if graph else 1, 1)
    drawn = left.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    labels = [literal(names[number]) for number in used]
    left.set_xticks(range(len(used)), labels, rotation=90, fontsize=8)
    left.set_yticks(range(len(used)), labels, fontsize=8)
    for (row, column), value in np.ndenumerate(share):
        if counts[row, column]:
            colour = "white" if value > 0.55 else INK
            left.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
    left.set_xlabel("next", fontsize=9)
    left.set_ylabel("behaviour", fontsize=9)
    left.set_title(f"{int(counts.sum()):,} changes, % of each row", fontsize=9, color=INK, loc="left")
    left.tick_params(length=0)
    for spine in left.spines.values():
        spine.set_color(RULE)
    if not graph:
        figure.colorbar(drawn, ax=left, fraction=0.046)
    else:
        _graph(figure.add_subplot(1, 2, 2), share, counts, labels, used, table)
    save(figure, path)


def _graph(
    axes: Any,
    share: NDArray[np.float64],
    counts: NDArray[np.int64],
    labels: Sequence[str],
    used: Sequence[int],
    table: BoutTable,
) -> None:
    """Behaviours on a circle, as large as their time; arrows as wide as the share of changes."""
    from matplotlib.patches import FancyArrowPatch

    angles = np.pi / 2 - 2 * np.pi * np.arange(len(used)) / len(used)
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    time = table.budget().sum(axis=0)[list(used)]
    radii = 0.07 + 0.13 * np.sqrt(time / max(time.max(), 1e-9))
    for (before, after), value in np.ndenumerate(share):
        if not counts[before, after] or value < 0.05:
            continue
        way = places[after] - places[before]
        way /= max(np.linalg.norm(way), 1e-9)
        start, end = places[before] + way * radii[before], places[after] - way * (radii[after] + 0.02)
        arrow = FancyArrowPatch(
            tuple(start),
            tuple(end),
            connectionstyle="arc3,rad=0.14",
            arrowstyle="-|>",
            mutation_scale=7 + 7 * value,
            lw=0.6 + 3.4 * value,
            color=colour_of(used[before]),
            alpha=0.35 + 0.55 * value,
            shrinkA=0,
            shrinkB=0,
        )
        axes.add_patch(arrow)
    from matplotlib.patches import Circle

    for number, place, radius, label in zip(used, places, radii, labels):
        axes.add_patch(Circle(tuple(place), radius, color=colour_of(number), zorder=3))
        out = place * (1 + (radius + 0.1) / np.linalg.norm(place))
        side = "center" if abs(place[0]) < 0.2 else "left" if place[0] > 0 else "right"
        level = "center" if abs(place[1]) < 0.7 else "bottom" if place[1] > 0 else "top"
        axes.text(*out, label, ha=side, va=level, fontsize=8, color=INK)
    axes.set_xlim(-1.75, 1.75)
    axes.set_ylim(-1.5, 1.5)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title("size: time, width: share of changes (5% or more)", fontsize=8, color=FAINT)


def budget(path: Path, table: BoutTable, names: Sequence[str]) -> None:
    """The share of time of each behaviour, a bar a video and a bar a group."""
    groups, by_group = table.group_budget()
    by_video = table.budget()
    count = len(table.recordings)
    shown = np.unique(np.linspace(0, count - 1, min(count, MOST_STRIPS)).round().astype(int)).tolist()
    rows: list[tuple[str, NDArray[np.float64]]] = [("all videos", by_video.sum(axis=0))] if count > 1 else []
    rows += [(f"group {name}", own) for name, own in zip(groups, by_group)]
    heads = len(rows)
    rows += [(table.recordings[number].name, by_video[number]) for number in shown]
    figure = new_figure(8.5, 0.3 * len(rows) + 1.4)
    axes = figure.add_subplot()
    for row, (_, own) in enumerate(rows):
        at = row + (0.4 if heads and row >= heads else 0)
        share = 100 * own / max(own.sum(), 1e-9)
        left = 0.0
        for number, value in enumerate(share.tolist()):
            axes.barh(at, value, 0.72, left=left, color=colour_of(number), lw=0)
            if value >= 7:
                axes.text(
                    left + value / 2, at, f"{value:.0f}", ha="center", va="center", fontsize=7, color="white"
                )
            left += value
    ticks = [row + (0.4 if heads and row >= heads else 0) for row in range(len(rows))]
    axes.set_yticks(ticks, [literal(shortened(name, NAME_LENGTH)) for name, _ in rows], fontsize=8)
    axes.set_ylim(ticks[-1] + 0.6, -0.6)
    axes.set_xlim(0, 100)
    axes.xaxis.set_major_formatter("{x:.0f}%")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, color=RULE)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    text = "share of time" + (f"; {len(shown)} of {count} videos" if len(shown) < count else "")
    axes.set_title(text, fontsize=9, color=INK, loc="left")
    _legend(figure, names, _used(table))
    save(figure, path)


def tree(path: Path, model: BehaviourModel, names: Sequence[str]) -> None:
    """Which clusters are alike: average linkage of the distances of their means."""
    from scipy.cluster.hierarchy import dendrogram, linkage

    clusters = model.clusters
    owner = {one: number for number, behaviour in enumerate(model.behaviours) for one in behaviour.clusters}
    labels = []
    for number, name in enumerate(clusters.ids):
        shown = names[owner[number]]
        labels.append(shown if shown.rstrip(" *") == f"cluster {name}" else f"{shown} ({name})")
    figure = new_figure(6.5, 0.34 * len(labels) + 1.0)
    axes = figure.add_subplot()
    if len(labels) > 1:
        links = linkage(clusters.means, "average")
        drawn = dendrogram(
            links, orientation="left", labels=labels, ax=axes, color_threshold=0, above_threshold_color=FAINT
        )
        leaves = drawn["leaves"]
    else:
        leaves = [0]
    ticks = axes.get_yticks() if len(labels) > 1 else [5]
    axes.set_yticks(ticks, [literal(labels[leaf]) for leaf in leaves], fontsize=8)
    for tick, leaf in zip(axes.get_yticklabels(), leaves):
        tick.set_color(colour_of(owner[leaf]))
        tick.set_fontweight("bold")
    axes.set_xlabel("distance of the clusters' means", fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, color=RULE)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    save(figure, path)
