"""The command `tce compare`: several results in one table and one chart, with paired differences."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tce.errors import OptionError
from tce.evaluation.metrics import Interval, flat, format_interval, is_share, label, mean_interval, number
from tce.evaluation.report import UNPRINTED, align, counted, html_table
from tce.evaluation.result import comparison_key, comparison_title, read_predictions, read_results
from tce.io import Result, atomic, write_csv
from tce.model.checkpoint import UNFINISHED
from tce.options.compare import CompareOptions
from tce.options.evaluate import PROTOCOLS
from tce.visualize.plots import require_picture
from tce.visualize.result_plots import BarPanel, comparison_picture

log = logging.getLogger("tce.evaluation")

Columns = Mapping[str, npt.NDArray[Any]]  # name -> [clips]; with "split"


@dataclass
class Entry:
    """One network's result of one protocol.

    Attributes:
        name: the network's, in table and chart.
        result: as in result.json.
        predictions: the test clips' columns.
    """

    name: str
    result: Mapping[str, Any]
    predictions: Columns


@dataclass
class Cell:
    """One network's value of a metric.

    Attributes:
        value: the metric.
        interval: its 95% interval, if it has one.
        difference: to the first network's, in the same unit; None for the first and where clips differ.
        difference_interval: 95%, over recordings, from the same clips.
    """

    value: float
    interval: Interval | None = None
    difference: float | None = None
    difference_interval: Interval | None = None


@dataclass
class Comparison:
    """A protocol on a split of a dataset, and each network's metrics in it.

    Attributes:
        protocol: its name.
        data: the dataset's folder name.
        split: the split or splits.
        clips: test clips.
        recordings: that they are pieces of.
        chance: metric -> its level by chance, where that is known.
        metrics: metric's name -> network's name -> cell.
        caveats: what else differs between the networks' results, and what is to be known of each.
    """

    protocol: str
    data: str
    split: str
    clips: int
    recordings: int
    chance: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, dict[str, Cell]] = field(default_factory=dict)
    caveats: list[str] = field(default_factory=list)

    @property
    def size(self) -> str:
        """Its clips and recordings, in words."""
        return f"{counted(self.clips, 'clip')} of {counted(self.recordings, 'recording')}"

    @property
    def title(self) -> str:
        """What it is, in a line."""
        return f"{self.protocol}, {self.data} split {self.split} ({self.size})"


@dataclass
class ComparisonResult(Result):
    """What `compare` returns.

    Attributes:
        comparisons: one for each protocol and set of clips.
    """

    comparisons: list[Comparison] = field(default_factory=list)

    def _repr_html_(self) -> str:
        head = ["metric", "network", "value", "95% interval", "difference", "chance"]
        return "".join(html_table(head, _rows(task), task.title) for task in self.comparisons)


def compare(options: CompareOptions) -> ComparisonResult:
    """Set results side by side: a table, a CSV file beside the chart, and a bar chart.

    Results of the same protocol on the same clips share a part of the table; differences are to the first
    of them, made of the same clips one by one, with intervals over recordings.

    Args:
        options: result folders, names, and where the chart goes.

    Returns:
        The table, and the same as nested mappings.

    Raises:
        TceError: no result in a folder, or an unwritable output.
        OptionError: `--metric` is in none of the results, or a name is given twice.
    """
    chart = require_picture(options.output)
    results, given = [], []
    for place, run in enumerate(options.runs):
        for result in read_results(run):
            results.append(result)
            name = options.names[place] if options.names else None
            given.append(f"{name}, untrained" if name and result["baseline"] else name)
    names = [one or other for one, other in zip(given, _names(results), strict=True)]
    entries = [
        Entry(name, result, read_predictions(result)) for name, result in zip(names, results, strict=True)
    ]
    comparisons = make_comparisons(entries, options.seed)
    panels = _panels(comparisons, options.metric)
    listing = chart.with_suffix(".csv")
    _write_csv(listing, comparisons)
    comparison_picture(chart, panels)
    described = [
        {
            **{
                key: value for key, value in vars(task).items() if key not in ("metrics", "caveats", "chance")
            },
            "notes": task.caveats,
            "chance": task.chance.get("top1"),
            "chance_levels": task.chance,
            "figures": {
                name: {run: vars(cell) for run, cell in cells.items()} for name, cells in task.metrics.items()
            },
        }
        for task in comparisons
    ]
    text = "\n".join([*(_text(task) for task in comparisons), f"wrote {chart} and {listing}"])
    content = {"comparisons": described, "chart": str(chart), "table": str(listing)}
    return ComparisonResult(text, content, comparisons)


def _names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each result: the checkpoint's, with its hash or folder where two are alike."""
    names = [result["checkpoint"]["name"] for result in results]
    hashes: dict[str, set[str]] = {}
    for name, result in zip(names, results, strict=True):
        hashes.setdefault(name, set()).add(result["checkpoint"]["hash"])
    names = [
        f"{name} {result['checkpoint']['hash'][:6]}" if len(hashes[name]) > 1 else name
        for name, result in zip(names, results, strict=True)
    ]
    keys = [(name, comparison_key(result)) for name, result in zip(names, results, strict=True)]
    twice = Counter(keys)
    return [
        f"{name} {Path(result['folder']).name}" if twice[key] > 1 else name
        for name, key, result in zip(names, keys, results, strict=True)
    ]


def make_comparisons(entries: Sequence[Entry], seed: int = 0) -> list[Comparison]:
    """Results grouped by protocol, data and split, with paired differences to each group's first.

    Args:
        entries: the networks' results.
        seed: of the bootstrap.

    Raises:
        OptionError: two results of one group have the same name.
    """
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(comparison_key(entry.result), []).append(entry)
    return [_comparison(members, seed) for members in groups.values()]


def _comparison(members: Sequence[Entry], seed: int) -> Comparison:
    names = [entry.name for entry in members]
    if len(set(names)) < len(names):
        raise OptionError("RUN and --names", "different results, or a name for each", ", ".join(names))
    first = members[0]
    task = Comparison(*comparison_title(first.result), chance=_chance(first.result))
    task.caveats += _differing([entry.result for entry in members])
    for entry in members:
        caveats = entry.result.get("notes", [])
        task.caveats += [f"{entry.name}: {note}" for note in caveats if UNFINISHED in note]
        for metric in entry.result["figures"]:
            cell = _cell(entry.result, metric)
            if cell is None:
                continue
            if entry is not first:
                _add_difference(cell, metric, first.predictions, entry.predictions, seed)
            task.metrics.setdefault(metric, {})[entry.name] = cell
    return task


def _chance(result: Mapping[str, Any]) -> dict[str, float]:
    """Chance levels; earlier results have that of top-1 only."""
    older = {} if result.get("chance") is None else {"top1": result["chance"]}
    levels = result.get("chance_levels") or older
    return {name: float(level) for name, level in levels.items()}


def _differing(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each setting that the results of one comparison do not share."""
    settings = [
        {"crop": result.get("crop"), "image size": result.get("image_size"), **result["settings"]}
        for result in results
    ]
    shared = set.intersection(*(set(one) for one in settings)) - set(UNPRINTED)
    lines = []
    for name in (name for name in settings[0] if name in shared):
        values = [str(one[name]) for one in settings]
        if len(set(values)) > 1:
            lines.append(f"{name.replace('_', ' ')} differs: {', '.join(values)}")
    return lines


def _cell(result: Mapping[str, Any], metric: str) -> Cell | None:
    value = flat(result).get(metric)
    if value is None:
        return None
    ends = result["intervals"].get(metric)
    return Cell(float(value), None if ends is None else (ends[0], ends[1]))


def _add_difference(cell: Cell, metric: str, base: Columns, columns: Columns, seed: int) -> None:
    """Difference to the first network on the clips that both have, mean over the splits."""
    if metric not in columns or metric not in base:
        return
    differences, recordings = [], []
    for split in dict.fromkeys(columns["split"].tolist()):
        mine, theirs = (np.flatnonzero(side["split"] == split) for side in (columns, base))
        _, here, there = np.intersect1d(columns["id"][mine], base["id"][theirs], return_indices=True)
        if len(here) < max(len(mine), len(theirs)):
            log.warning("split %s: differences are of the %d clips that both results have", split, len(here))
        difference = columns[metric][mine[here]] - base[metric][theirs[there]]
        known = np.isfinite(difference)
        if not known.any():
            return
        differences.append(difference[known])
        recordings.append(columns["recording"][mine[here]][known])
    cell.difference = float(np.mean([part.mean() for part in differences]))
    cell.difference_interval = mean_interval(differences, recordings, seed)


def _rows(task: Comparison) -> list[list[str]]:
    """The table's rows, as text: metric, network, value, interval, difference, chance."""
    rows = []
    for metric, cells in task.metrics.items():
        title, chance = label(metric), number(metric, task.chance.get(metric))
        for name, cell in cells.items():
            ends = format_interval(metric, cell.interval)
            rows.append(
                [title, name, number(metric, cell.value), ends, format_difference(metric, cell), chance]
            )
            title = chance = ""
    return rows


def _text(task: Comparison) -> str:
    head = ["", "", "value", "95% interval", "difference to the first", "chance"]
    lines = align([head, *_rows(task)], "<<>><>")
    return "\n".join([task.title, *lines, *(f"  note: {note}" for note in task.caveats)])


def format_difference(metric: str, cell: Cell) -> str:
    """A difference with its interval as text; in points where the metric is in percent."""
    if cell.difference is None:
        return ""
    scale, form, unit = (100, "+.1f", " points") if is_share(metric) else (1, "+.3g", "")
    text = f"{scale * cell.difference:{form}}{unit}"
    if cell.difference_interval is not None:
        low, high = (f"{scale * end:{form}}" for end in cell.difference_interval)
        text += f" ({low} to {high})"
    return text


def baseline_table(
    trained: Sequence[tuple[Mapping[str, Any], Columns]],
    untrained: Sequence[tuple[Mapping[str, Any], Columns]],
    seed: int,
) -> tuple[dict[str, Any], list[str]]:
    """Every protocol's metrics of a network beside those of its untrained baseline.

    Args:
        trained: result and predictions of each protocol.
        untrained: the same of the baseline, in any order; a protocol may be missing.
        seed: of the bootstrap.

    Returns:
        protocol -> metric -> value, interval, chance, untrained, difference and its interval; and the
        table's lines.
    """
    baseline = {result["protocol"]: Entry("untrained", result, columns) for result, columns in untrained}
    summary: dict[str, Any] = {}
    rows = [["", "", "value", "95% interval", "untrained", "difference", "chance"]]
    for result, columns in trained:
        protocol = result["protocol"]
        own = Entry("trained", result, columns)
        members = [baseline[protocol], own] if protocol in baseline else [own]
        task, title = _comparison(members, seed), protocol
        metrics = summary.setdefault(protocol, {})
        for metric, cells in task.metrics.items():
            if "trained" not in cells:
                continue
            cell, other = cells["trained"], cells.get("untrained")
            metrics[metric] = {
                **vars(cell),
                "chance": task.chance.get(metric),
                "untrained": None if other is None else other.value,
            }
            plain = "-" if other is None else number(metric, other.value)
            row = [title, label(metric), number(metric, cell.value), format_interval(metric, cell.interval)]
            rows.append(
                [*row, plain, format_difference(metric, cell), number(metric, task.chance.get(metric))]
            )
            title = ""
    return summary, align(rows, "<<>>><>")


def _write_csv(path: Path, tasks: Sequence[Comparison]) -> None:
    head = ["protocol", "data", "split", "figure", "run", "value", "low", "high"]
    rows: list[list[Any]] = [
        [*head, "difference", "difference_low", "difference_high", "chance", "clips", "recordings"]
    ]
    for task in tasks:
        for metric, cells in task.metrics.items():
            for run, cell in cells.items():
                ends, apart = cell.interval or ("", ""), cell.difference_interval or ("", "")
                difference = "" if cell.difference is None else cell.difference
                place = (task.protocol, task.data, task.split, metric, run)
                size = (task.chance.get(metric, ""), task.clips, task.recordings)
                rows.append([*place, cell.value, *ends, difference, *apart, *size])
    with atomic(path, "w") as file:
        write_csv(file, rows)


def _panels(tasks: Sequence[Comparison], wanted: str | None) -> list[BarPanel]:
    """What the chart shows: of each comparison one metric, each in its own unit.

    Raises:
        OptionError: no comparison has the metric.
    """
    panels = []
    for task in tasks:
        metric = wanted if wanted in task.metrics else None if wanted else _main_metric(task)
        if metric is None:
            continue
        cells = task.metrics[metric]
        panels.append(
            BarPanel(
                title=f"{task.protocol}: {label(metric)}",
                subtitle=f"{task.data}, split {task.split}, {task.size}",
                names=list(cells),
                values=[cell.value for cell in cells.values()],
                intervals=[cell.interval for cell in cells.values()],
                texts=[_bar_text(metric, cell) for cell in cells.values()],
                chance=task.chance.get(metric),
                percent=is_share(metric),
            )
        )
    if not panels:
        known = sorted({metric for task in tasks for metric in task.metrics})
        raise OptionError("--metric", expected=f"one of {', '.join(known)}", found=repr(wanted))
    return panels


def _main_metric(task: Comparison) -> str:
    spec = PROTOCOLS.get(task.protocol)
    wanted = spec.main_metrics if spec else ()
    return next((name for name in wanted if name in task.metrics), next(iter(task.metrics)))


def _bar_text(metric: str, cell: Cell) -> str:
    ends = "" if cell.interval is None else f" ({format_interval(metric, cell.interval)})"
    return number(metric, cell.value) + ends
