"""Pictures of a map (one video coloured by time, or several a colour each) and of a run's curves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import OptionError, TceError, printable
from tce.io import atomic, require_writable

PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp")
MOST_NAMES = 20  # more lines than this no legend keeps legible
NAME_LENGTH = 36
FRAME_COLOUR = "0.6"

INVISIBLE = "\u200b"  # zero-width space: before the underscore that would keep a name out of a legend
NOT_DRAWN = {"step", "epoch", "seconds"}
COLUMNS = 3


def require_picture(path: str | os.PathLike[str], what: str = "--output") -> Path:
    """`path` itself, once it is sure that a picture can be written there; missing parent folders are made.

    Args:
        path: picture to write, one of `PICTURES` by its suffix.
        what: the flag that names it, for errors.

    Raises:
        OptionError: a suffix that is no picture's.
        TceError: `path` is a folder, or its folder cannot be made or written to.
    """
    _require_suffix(path, what)
    return require_writable(path, what)


def _require_suffix(path: str | os.PathLike[str], what: str) -> None:
    suffix = Path(path).suffix.lower()
    if suffix not in PICTURES:
        raise OptionError(f"{what} {path}", f"a name ending in {', '.join(PICTURES)}", suffix or "no suffix")


def save_map(
    path: str | os.PathLike[str],
    points: NDArray[np.floating[Any]],
    videos: Sequence[str] | None = None,
    times: NDArray[np.floating[Any]] | None = None,
    title: str = "",
) -> str:
    """Draw a map of frames and write it, replacing what was there.

    One video is coloured by time. Up to 20 videos get a colour and a line in the legend each; of more
    videos, their folders do if there are 2 to 20, else the colour follows the order of the videos.

    Args:
        path: picture to write, one of `PICTURES` by its suffix.
        points: [N, 2] map.
        videos: N names, the video of each frame; None means one video.
        times: [N] seconds since each video's first frame; None counts frames.
        title: a line above the map.

    Returns:
        What the colours mean: "time", "frame", "video", "folder" or "order".

    Raises:
        OptionError: a suffix that is no picture's.
    """
    path = Path(path)
    _require_suffix(path, "picture")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing global, so it is safe in a library and in threads
    axes = figure.add_subplot()
    _frame(axes, points)
    if title:
        axes.set_title(literal(title), fontsize=10, color="0.25")

    names = list(dict.fromkeys(videos)) if videos is not None else []
    if len(names) <= 1:
        meaning = _by_time(figure, axes, points, times)
    else:
        assert videos is not None
        rows = {name: row for row, name in enumerate(names)}
        owner = np.array([rows[name] for name in videos])  # [N]
        meaning = _by_video(figure, axes, points, owner, names)
    with atomic(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), bbox_inches="tight", facecolor="white")
    return meaning


def _frame(axes: Any, points: NDArray[np.floating[Any]]) -> None:
    """A bare box with room around the points; the axes of a t-SNE map have no units."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(FRAME_COLOUR)
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    half = max(float((high - low).max()) / 2, 1e-12) * 1.08
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    axes.set_aspect("equal")  # distances mean the same in both directions


def point_area(n: int) -> float:
    """A marker's area in square points that shows single frames and keeps thousands apart."""
    return float(np.clip(4000 / max(n, 1), 6, 40))


def _by_time(
    figure: Any, axes: Any, points: NDArray[np.floating[Any]], times: NDArray[np.floating[Any]] | None
) -> str:
    colours = np.arange(len(points)) if times is None else times
    # A thin dark rim: plasma's last yellow would vanish on white.
    drawn = axes.scatter(
        *points.T,
        c=colours,
        cmap="plasma",
        s=point_area(len(points)),
        edgecolors="0.35",
        linewidths=0.25,
    )
    bar = figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("frame" if times is None else "time in the video (s)", color="0.25")
    bar.outline.set_edgecolor(FRAME_COLOUR)
    return "frame" if times is None else "time"


def _by_video(
    figure: Any, axes: Any, points: NDArray[np.floating[Any]], owner: NDArray[np.int64], names: list[str]
) -> str:
    labels, meaning = short_names(names), "video"
    if len(names) > MOST_NAMES:
        folders = [str(PurePath(name).parent) for name in names]
        distinct = list(dict.fromkeys(folders))
        if not 2 <= len(distinct) <= MOST_NAMES:
            return _by_order(figure, axes, points, owner, len(names))
        owner = np.array([distinct.index(folder) for folder in folders])[owner]
        labels, meaning = short_names(distinct), "folder"

    for row, label in enumerate(labels):
        mine = points[owner == row]
        # Ten colours are distinguished with ease, twenty are not: the second ten get another shape.
        axes.scatter(
            *mine.T,
            color=f"C{row % 10}",
            marker="o" if row < 10 else "^",
            s=point_area(len(points)),
            label=legend_label(label),
            alpha=0.85,
            linewidths=0,
        )
    legend = axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        borderaxespad=0,
        frameon=False,
        fontsize=8,
        handletextpad=0.3,
    )
    for handle in legend.legend_handles:
        handle.set_sizes([30])
        handle.set_alpha(1)
    return meaning


def _by_order(
    figure: Any, axes: Any, points: NDArray[np.floating[Any]], owner: NDArray[np.int64], count: int
) -> str:
    drawn = axes.scatter(*points.T, c=owner + 1, cmap="turbo", s=point_area(len(points)), linewidths=0)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label(f"video, 1 to {count} in the order given", color="0.25")
    bar.outline.set_edgecolor(FRAME_COLOUR)
    return "order"


def short_names(names: Sequence[str]) -> list[str]:
    """Paths cut to as few of their last parts as keep them apart, long ones shortened in the middle.

    Args:
        names: distinct paths.

    Returns:
        As many distinct labels.
    """
    parts = [PurePath(name).parts or (name,) for name in names]
    labels = [""] * len(names)
    waiting = list(range(len(names)))
    depth = 0
    while waiting:
        depth += 1
        short = {row: "/".join(parts[row][-depth:]) for row in waiting}
        taken = list(short.values())
        done = [row for row in waiting if taken.count(short[row]) == 1 or depth >= len(parts[row])]
        for row in done:
            labels[row] = short[row]
        waiting = [row for row in waiting if not labels[row]]
    shortened = [_ellipsis(label) for label in labels]
    return shortened if len(set(shortened)) == len(set(labels)) else labels


def _ellipsis(label: str) -> str:
    if len(label) <= NAME_LENGTH:
        return label
    half = (NAME_LENGTH - 1) // 2
    return f"{label[:half]}…{label[-half:]}"


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


class Panel:
    """One plot: its title, which columns of log.csv it draws, and its vertical axis.

    Args:
        title: what is drawn, with its unit.
        names: columns of log.csv.
        share: the values are shares, drawn as per cent from 0 to 100.
        from_zero: the axis begins at 0.
    """

    def __init__(self, title: str, names: Sequence[str], share: bool = False, from_zero: bool = True):
        self.title = title
        self.names = list(names)
        self.share = share
        self.from_zero = from_zero


# Names that stand nowhere here get a panel each.
PANELS = (
    Panel("Loss", ("loss", "contrast", "rotation")),
    Panel("kNN accuracy (%)", ("knn",), share=True),
    Panel("Effective rank", ("rank", "rank_all")),
    Panel("Top-1 and top-5 accuracy (%)", ("top1", "top5"), share=True),
    Panel("Rotation accuracy (%)", ("turned", "rotation_accuracy"), share=True),
    Panel("Mining: threshold and share of hard negatives", ("threshold", "hard"), from_zero=False),
    Panel("Learning rate", ("lr",)),
    Panel("Alignment and uniformity", ("alignment", "uniformity", "uniformity_all"), from_zero=False),
    Panel("Drift of embeddings, ratio of Z", ("drift", "z_fit", "z_ratio"), from_zero=False),
    Panel("Images per second", ("images_per_s",)),
    Panel("Time waiting for data (%)", ("waiting",), share=True),
)


def save_curves(
    path: str | os.PathLike[str],
    rows: Sequence[Mapping[str, float]],
    title: str = "",
    chance: Mapping[str, float] | None = None,
) -> list[str]:
    """Draw everything a run has logged over its steps, and write the picture.

    Args:
        path: picture to write, a .png; replaced if it exists.
        rows: the rows of log.csv, each with "step"; a figure may be missing in some.
        title: a line above the curves.
        chance: by column, the value that chance gives; drawn as a dashed line.

    Returns:
        The names of the figures that were drawn.

    Raises:
        TceError: nothing has been logged yet.
    """
    logged = dict.fromkeys(name for row in rows for name in row if name not in NOT_DRAWN)
    known = {name for panel in PANELS for name in panel.names}
    panels = [panel for panel in PANELS if set(panel.names) & set(logged)]
    others = [name for name in logged if name not in known]
    panels += [Panel(name.replace("_", " ").capitalize(), [name], from_zero=False) for name in others]
    if not panels:
        raise TceError("log.csv", "one logged step or more", "none", "wait until the run has logged a step")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(literal(title), fontsize=11)
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(height, COLUMNS, place + 1)
        _draw(axes, panel, rows, chance or {})
        if place >= len(panels) - COLUMNS:
            axes.set_xlabel("Step", fontsize=8)
    with atomic(Path(path)) as file:
        figure.savefig(file, format="png", facecolor="white")
    return [name for panel in panels for name in panel.names if name in logged]


def _draw(axes: Any, panel: Panel, rows: Sequence[Mapping[str, float]], chance: Mapping[str, float]) -> None:
    from matplotlib.ticker import MaxNLocator

    scale = 100.0 if panel.share else 1.0
    drawn: list[tuple[float, float]] = []
    for name in panel.names:
        before, drawn = drawn, [(row["step"], scale * row[name]) for row in rows if name in row]
        if not drawn or drawn == before:  # a loss of one part is that part
            continue
        # Figures that come rarely, such as kNN, show where they were taken.
        marker = "o" if len(drawn) < 30 else ""
        axes.plot(
            *zip(*drawn), marker=marker, markersize=3, linewidth=1.2, label=literal(name.replace("_", " "))
        )
        if name in chance:
            axes.axhline(scale * chance[name], color="0.45", linestyle="--", linewidth=1, label="chance")
    axes.set_title(literal(panel.title), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    if panel.share:
        axes.set_ylim(0, 100)
    elif panel.from_zero:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(axes.get_lines()) > 1:
        axes.legend(fontsize=8, frameon=False)
