"""A run's curves as one picture, out of its log.csv."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tce.errors import TceError
from tce.io import atomic
from tce.visualize.text import literal


class Panel:
    """One plot: its title, which columns of log.csv it draws, and its vertical axis.

    Args:
        title: what is drawn, with its unit.
        names: columns of log.csv.
        share: the values are shares, drawn as per cent from 0 to 100.
        from_zero: the axis begins at 0.
    """

    def __init__(self, title: str, names: Sequence[str], share: bool = False, from_zero: bool = True):
        self.title, self.names, self.share, self.from_zero = title, list(names), share, from_zero


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
NOT_DRAWN = {"step", "epoch", "seconds"}
COLUMNS = 3


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
