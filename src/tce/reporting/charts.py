"""Charts as SVG texts for a page without scripts: classes for colours, so that light and dark both work.

A handful of shapes does not need a plotting library, whose SVG carries fonts and styles of its own that the
page's content policy would refuse.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tce.errors import printable

Interval = tuple[float, float]
WIDTH = 980
LABEL = 240  # pixels left of a chart for names
VALUE = 200  # right of it for values
ROW = 36
MOST_LETTERS = 24


@dataclass(frozen=True)
class Bar:
    """One row of a chart.

    Attributes:
        name: at its left.
        value: where its dot lies; None where the footage does not give it.
        interval: its ends.
        kind: of the dot: "start", "other", "untrained", "better", "worse" or "none".
        text: at its right.
    """

    name: str
    value: float | None
    interval: Interval | None
    kind: str
    text: str


def escape(text: str) -> str:
    """Text that is safe in the page, whatever a file or class is called."""
    return html.escape(printable(text).replace("\n", " "), quote=True)


def short(text: str, most: int = MOST_LETTERS) -> str:
    """A name shortened in its middle."""
    text = printable(text).replace("\n", " ")
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most - most // 2) :]}"


def _svg(width: float, height: float, body: Sequence[str], title: str) -> str:
    inside = "".join(body)
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}" '
        f'class="chart"><title>{escape(title)}</title>{inside}</svg>'
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def nice_ticks(low: float, high: float, about: int = 7) -> list[float]:
    """Round numbers from `low` to `high`."""
    span = max(high - low, 1e-9)
    step = 10 ** math.floor(math.log10(span / about))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= about)
    first = math.ceil(low / step - 1e-9) * step
    return [round(first + n * step, 10) for n in range(int((high - first) / step + 1e-9) + 1)]


def dots(
    bars: Sequence[Bar],
    low: float,
    high: float,
    unit: str,
    title: str,
    marks: Mapping[str, float] | None = None,
) -> str:
    """Rows with a dot and its interval on one axis.

    Args:
        bars: the rows.
        low: left end of the axis.
        high: right end.
        unit: under the axis.
        title: for those who cannot see it.
        marks: vertical lines with their names, such as chance.
    """
    left, right = LABEL, WIDTH - VALUE
    bottom = 22 + ROW * len(bars)

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) / max(high - low, 1e-9) * (right - left)

    body = []
    for tick in nice_ticks(low, high):
        body.append(_line(x(tick), 18, x(tick), bottom, "zero" if tick == 0 and low < 0 else "grid"))
        body.append(_text(x(tick), bottom + 16, f"{tick:g}", "tick", "middle"))
    for name, value in (marks or {}).items():
        body.append(_line(x(value), 14, x(value), bottom, "mark"))
        body.append(_text(x(value), 10, name, "tick", "middle"))
    for row, bar in enumerate(bars):
        y = 22 + ROW * (row + 0.5)
        body.append(_text(left - 14, y + 4, short(bar.name), "name", "end"))
        if bar.value is None:
            body.append(_text(left + 6, y + 4, bar.text, "tick"))
            continue
        if bar.interval is not None:
            body.append(_line(x(bar.interval[0]), y, x(bar.interval[1]), y, f"whisker {bar.kind}"))
        body.append(f'<circle cx="{x(bar.value):.1f}" cy="{y:.1f}" r="5.5" class="dot {bar.kind}"/>')
        body.append(_text(right + 14, y + 4, bar.text, "value"))
    body.append(_text((left + right) / 2, bottom + 34, unit, "tick", "middle"))
    return _svg(WIDTH, bottom + 40, body, title)


def lollipops(each: Mapping[str, float], title: str, unit: str = "points") -> str:
    """Each recording's difference, sorted; those above 0 and those below are told apart."""
    ordered = sorted(each.items(), key=lambda item: -item[1])
    values = [100 * value for _, value in ordered]
    height, top, left = 250.0, 12.0, 46.0
    low, high = min(0.0, *values), max(0.0, *values)
    if high - low < 1e-9:
        low, high = -1.0, 1.0
    span = (WIDTH - left - 12) / max(len(values), 1)

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * (height - 2 * top)

    body = []
    for tick in nice_ticks(low, high):
        body.append(_line(left, y(tick), WIDTH - 12, y(tick), "zero" if tick == 0 else "grid"))
        body.append(_text(left - 8, y(tick) + 4, f"{tick:g}", "tick", "end"))
    wide = max(1.2, min(20.0, span * 0.7))
    for number, ((name, _), value) in enumerate(zip(ordered, values, strict=True)):
        x = left + (number + 0.5) * span
        kind = "better" if value > 1e-7 else "worse" if value < -1e-7 else "none"
        tall = max(abs(y(value) - y(0)), 1.5)
        above = y(value) if value > 0 else y(0) - (0.75 if kind == "none" else 0)
        body.append(
            f'<rect x="{x - wide / 2:.1f}" y="{above:.1f}" width="{wide:.1f}" height="{tall:.1f}" '
            f'class="bar {kind}"><title>{escape(name)}: {value:+.1f} {unit}</title></rect>'
        )
    body.append(_text((left + WIDTH) / 2, height + 14, f"{len(values)} recordings, sorted", "tick", "middle"))
    return _svg(WIDTH, height + 22, body, title)


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: in the legend.
        kind: its colour.
        points: x -> value and its interval.
    """

    name: str
    kind: str
    points: Mapping[int, tuple[float, Interval | None]]


def curves(lines: Sequence[Curve], chance: float, title: str, unit: str) -> str:
    """Accuracy by number of labelled clips, on a logarithmic axis, with bands of the intervals."""
    left, right, top, bottom = 46.0, WIDTH - 170.0, 14.0, 290.0
    xs = sorted({x for line in lines for x in line.points})
    ends = [end for line in lines for _, span in line.points.values() for end in span or ()]
    values = [value for line in lines for value, _ in line.points.values()]
    high = min(1.0, max([*ends, *values, chance]) * 1.06)
    low = 0.0
    logs = [math.log(x) for x in xs]

    def x(value: int) -> float:
        wide = max(logs[-1] - logs[0], 1e-9)
        return left + 12 + (math.log(value) - logs[0]) / wide * (right - left - 24)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    body = []
    for tick in nice_ticks(100 * low, 100 * high):
        body.append(_line(left, y(tick / 100), right, y(tick / 100), "grid"))
        body.append(_text(left - 8, y(tick / 100) + 4, f"{tick:g}", "tick", "end"))
    body += [_text(x(value), bottom + 18, str(value), "tick", "middle") for value in xs]
    body.append(_line(left, y(chance), right, y(chance), "mark"))
    body.append(_text(right - 6, y(chance) + 15, "chance", "tick", "end"))
    for line in lines:
        points = sorted(line.points.items())
        spans = [(value, span) for value, (_, span) in points if span is not None]
        if len(spans) > 1:
            upper = [f"{x(value):.1f},{y(span[1]):.1f}" for value, span in spans]
            lower = [f"{x(value):.1f},{y(span[0]):.1f}" for value, span in reversed(spans)]
            body.append(f'<polygon points="{" ".join(upper + lower)}" class="band {line.kind}"/>')
    for line in lines:
        points = sorted(line.points.items())
        path = " ".join(f"{x(value):.1f},{y(mean):.1f}" for value, (mean, _) in points)
        body.append(f'<polyline points="{path}" class="curve {line.kind}"/>')
        body += [
            f'<circle cx="{x(value):.1f}" cy="{y(mean):.1f}" r="3.5" class="dot {line.kind}"/>'
            for value, (mean, _) in points
        ]
    ends_of = sorted(((y(max(line.points.items())[1][0]), line) for line in lines), key=lambda end: end[0])
    for place, (_, line) in zip(_apart([level for level, _ in ends_of]), ends_of, strict=True):
        body.append(_text(right + 10, place + 4, short(line.name, 18), f"name {line.kind}"))
    body.append(_text((left + right) / 2, bottom + 38, unit, "tick", "middle"))
    return _svg(WIDTH, bottom + 46, body, title)


def _apart(levels: Sequence[float], least: float = 17.0) -> list[float]:
    """Rising heights moved down where they would overlap."""
    placed: list[float] = []
    for level in levels:
        placed.append(max(level, placed[-1] + least) if placed else level)
    return placed


def matrix(counts: npt.NDArray[np.int64], classes: Sequence[str], title: str) -> str:
    """A confusion matrix: rows are true classes, columns what was named, darker for larger shares."""
    kinds = len(classes)
    cell = max(9.0, min(40.0, 300.0 / kinds))
    left, top = 96.0, 10.0
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    body = []
    for row in range(kinds):
        if cell >= 9:
            body.append(
                _text(left - 6, top + (row + 0.5) * cell + 3.5, short(classes[row], 14), "small", "end")
            )
        for column in range(kinds):
            share = float(shares[row, column])
            x, y = left + column * cell, top + row * cell
            kind = "right" if row == column else "wrong"
            words = f"{printable(classes[row])} as {printable(classes[column])}: {int(counts[row, column])}"
            shown = f'fill-opacity="{max(share, 0.03):.2f}"'
            body.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell - 1:.1f}" height="{cell - 1:.1f}" '
                f'class="cell {kind}" {shown}><title>{escape(words)}</title></rect>'
            )
            if cell >= 26 and counts[row, column]:
                body.append(
                    _text(x + cell / 2 - 0.5, y + cell / 2 + 4, f"{100 * share:.0f}", "small", "middle")
                )
    side = kinds * cell
    body.append(_text(left + side / 2, top + side + 16, "named class, in the same order", "tick", "middle"))
    return _svg(left + side + 6, top + side + 22, body, title)


def scatter(points: npt.NDArray[np.floating], kinds: Sequence[int], names: Sequence[str], title: str) -> str:
    """A map: dots coloured by a number of at most ten kinds; -1 is grey."""
    side, margin = 320.0, 12.0
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.maximum(high - low, 1e-9) * (side - 2 * margin) + margin
    radius = max(1.6, min(4.5, 60 / math.sqrt(max(len(points), 1))))
    body = [f'<rect x="0" y="0" width="{side:.0f}" height="{side:.0f}" rx="8" class="field"/>']
    for (x, y), kind, name in zip(scaled.tolist(), kinds, names, strict=True):
        shade = f"k{kind}" if kind >= 0 else "kx"
        body.append(
            f'<circle cx="{x:.1f}" cy="{side - y:.1f}" r="{radius:.1f}" class="point {shade}">'
            f"<title>{escape(name)}</title></circle>"
        )
    return _svg(side, side, body, title)
