"""Pictures of a run's curves, and the text and files of all pictures."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from tce.errors import OptionError, TceError
from tce.io import Result, atomic, require_writable
from tce.visualize.fonts import drawable, set_fonts

MOST_BYTES = 24 << 20  # of a film or page that is shown inside a notebook
PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp")
NAME_LENGTH = 36

INVISIBLE = "\u200b"  # zero-width space: before the underscore that would keep a name out of a legend
NOT_DRAWN = {"step", "epoch", "seconds"}
COLUMNS = 3
ACCURACIES = ("knn", "top1", "top5")
REFERENCES = ("#009e73", "#cc79a7", "#e0a100")  # lines of other networks' values


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


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a Matplotlib figure in the format of its suffix, with all that is drawn outside its axes."""
    kind = Path(path).suffix[1:].lower() or "png"
    set_fonts(figure)
    with atomic(path) as file:
        figure.savefig(
            file, format=kind, bbox_inches="tight", pad_inches=0.12, facecolor=figure.get_facecolor()
        )


def short_names(names: Sequence[str]) -> list[str]:
    """Paths cut to as few of their last parts as keep them apart, long ones shortened in the middle.

    Args:
        names: distinct paths.

    Returns:
        As many distinct labels.
    """
    parts = [PurePath(name).parts or (name,) for name in map(one_line, names)]
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
    """`text` without line breaks, tabs, control characters and letters that cannot be drawn."""
    return drawable(" ".join(text.split()))


def literal(text: str) -> str:
    """`text` for any of Matplotlib's titles, labels, ticks and annotations."""
    return drawable(text.replace("\t", " ")).replace("$", r"\$")


def legend_label(text: str) -> str:
    """`text` for a Matplotlib legend, which leaves out names that begin with an underscore."""
    label = literal(one_line(text))
    return INVISIBLE + label if label.startswith("_") else label


@dataclass
class PictureResult(Result):
    """A written picture, film or page.

    Attributes:
        path: the file.
        figure: the Matplotlib figure of a picture, to change and save again; None of films and pages.
    """

    path: str = ""
    figure: Any = None

    def _repr_html_(self) -> str:
        text = f"<pre>{html.escape(self.text)}</pre>"
        if self.figure is not None:
            return figure_html(self.figure) + text
        place = Path(self.path)
        if not place.is_file() or place.stat().st_size > MOST_BYTES:
            return text
        if place.suffix.lower() in (".html", ".htm"):
            page = html.escape(place.read_text(encoding="utf-8"))
            return f'<iframe srcdoc="{page}" style="width:100%;height:640px;border:0"></iframe>' + text
        data = base64.b64encode(place.read_bytes()).decode()
        if place.suffix.lower() == ".gif":
            return f'<img src="data:image/gif;base64,{data}" alt="">' + text
        if place.suffix.lower() in (".mp4", ".m4v", ".mov"):
            return f'<video src="data:video/mp4;base64,{data}" controls loop muted></video>' + text
        return text


def figure_html(figure: Any) -> str:
    """A Matplotlib figure as an image element."""
    set_fonts(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", facecolor=figure.get_facecolor())
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" style="max-width:100%" alt="">'


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
    Panel("Loss (nats)", ("loss", "contrast", "rotation")),
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


def curves_figure(
    rows: Sequence[Mapping[str, float]],
    title: str = "",
    chance: Mapping[str, float] | None = None,
    compared: Mapping[str, Mapping[str, float]] | None = None,
) -> Any:
    """Draw everything a run has logged over its steps.

    Accuracies have dotted lines at their value before the training (the first row, if it is of step 0) and at
    those of other networks.

    Args:
        rows: the rows of log.csv, each with "step"; a figure may be missing in some.
        title: a line above the curves.
        chance: by column, the value that chance gives; drawn as a dashed line.
        compared: by column, the values of other networks, such as {"knn": {"start": 0.44}}.

    Returns:
        A Matplotlib figure, which notebooks show.

    Raises:
        TceError: nothing has been logged yet.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(rows)
    height = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(literal(title), fontsize=11)
    others = {name: dict(values) for name, values in (compared or {}).items()}
    for name in ACCURACIES:
        first = next((row for row in rows if name in row), {})
        if first.get("step") == 0:
            others[name] = {"before training": first[name]} | others.get(name, {})
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(height, COLUMNS, place + 1)
        _draw(axes, panel, rows, chance or {}, others)
        if place >= len(panels) - COLUMNS:
            axes.set_xlabel("Step", fontsize=8)
    set_fonts(figure)
    return figure


def save_curves(
    path: str | os.PathLike[str],
    rows: Sequence[Mapping[str, float]],
    title: str = "",
    chance: Mapping[str, float] | None = None,
    compared: Mapping[str, Mapping[str, float]] | None = None,
) -> list[str]:
    """Write the picture of `curves_figure` as a .png and give the names of the figures that were drawn.

    Raises:
        TceError: nothing has been logged yet.
    """
    figure = curves_figure(rows, title, chance, compared)
    with atomic(Path(path)) as file:
        figure.savefig(file, format="png", facecolor="white")
    logged = {name for row in rows for name in row}
    return [name for panel in _panels(rows) for name in panel.names if name in logged]


def _panels(rows: Sequence[Mapping[str, float]]) -> list[Panel]:
    logged = dict.fromkeys(name for row in rows for name in row if name not in NOT_DRAWN)
    known = {name for panel in PANELS for name in panel.names}
    panels = [panel for panel in PANELS if set(panel.names) & set(logged)]
    others = [name for name in logged if name not in known]
    panels += [Panel(name.replace("_", " ").capitalize(), [name], from_zero=False) for name in others]
    if not panels:
        raise TceError("log.csv", "one logged step or more", "none", "wait until the run has logged a step")
    return panels


def _draw(
    axes: Any,
    panel: Panel,
    rows: Sequence[Mapping[str, float]],
    chance: Mapping[str, float],
    compared: Mapping[str, Mapping[str, float]],
) -> None:
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
        for number, (other, value) in enumerate(compared.get(name, {}).items()):
            colour = REFERENCES[number % len(REFERENCES)]
            axes.axhline(scale * value, color=colour, linestyle=":", linewidth=1.2, label=legend_label(other))
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
