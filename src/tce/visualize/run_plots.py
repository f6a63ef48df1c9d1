"""A run's curves as one picture, out of its log.csv."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tce.errors import TceError
from tce.io import atomic

# What belongs in one panel, by the names of log.csv; names that stand nowhere here get a panel each.
PANELS = (
    ("loss", ("loss", "contrast", "rotation")),
    ("threshold and share of hard negatives", ("threshold", "hard")),
    ("effective rank", ("rank", "rank_all")),
    ("kNN accuracy", ("knn",)),
    ("accuracy of the rotation task", ("turned",)),
    ("learning rate", ("lr",)),
    ("alignment and uniformity", ("alignment", "uniformity", "uniformity_all")),
    ("drift and fit of Z", ("drift", "z_fit")),
    ("top-1 and top-5", ("top1", "top5")),
    ("images a second", ("images_per_s",)),
    ("share of time waiting for data", ("waiting",)),
)
NOT_DRAWN = {"step", "epoch", "seconds"}
COLUMNS = 3


def save_curves(
    path: str | os.PathLike[str], rows: Sequence[Mapping[str, float]], title: str = ""
) -> list[str]:
    """Draw everything a run has logged over its steps, and write the picture.

    Args:
        path: picture to write, a .png; replaced if it exists.
        rows: the rows of log.csv, each with "step"; a figure may be missing in some.
        title: a line above the curves.

    Returns:
        The names of the figures that were drawn.

    Raises:
        TceError: nothing has been logged yet.
    """
    logged = dict.fromkeys(name for row in rows for name in row if name not in NOT_DRAWN)
    panels = [(what, [name for name in names if name in logged]) for what, names in PANELS]
    known = {name for _, names in PANELS for name in names}
    panels = [panel for panel in panels if panel[1]]
    panels += [(name.replace("_", " "), [name]) for name in logged if name not in known]
    if not panels:
        raise TceError("log.csv", "one logged step or more", "none", "let the run go on for a while")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.5 * height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=11)
    for place, (what, names) in enumerate(panels):
        axes = figure.add_subplot(height, COLUMNS, place + 1)
        drawn: list[tuple[float, float]] = []
        for name in names:
            before, drawn = drawn, [(row["step"], row[name]) for row in rows if name in row]
            if drawn == before:  # a loss of one part is that part
                continue
            # Figures that come rarely, such as kNN, show where they were taken.
            axes.plot(
                *zip(*drawn), marker="o" if len(drawn) < 30 else "", markersize=3, linewidth=1.2, label=name
            )
        axes.set_title(what, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if len(names) > 1:
            axes.legend(fontsize=8, frameon=False)
        if place >= len(panels) - COLUMNS:
            axes.set_xlabel("step", fontsize=8)
    with atomic(Path(path)) as file:
        figure.savefig(file, format="png", facecolor="white")
    return [name for _, names in panels for name in names]
