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

from tce.errors import OptionError, TceError
from tce.model.checkpoint import UNFINISHED
from tce.evaluation.metrics import mean_interval, paired_difference
from tce.options.compare import CompareOptions
from tce.visualize.result_plots import bar_picture
from tce.evaluation.report import flat, is_share, label, number, read_result
from tce.io import atomic, write_csv
from tce.result import Result
from tce.visualize.plots import require_picture

log = logging.getLogger("tce.evaluation")

MAIN_FIGURE = {
    "frames": "top1",
    "linear": "top1",
    "knn": "top1",
    "retrieval": "recall@1",
    "coherence": "smoothness",
}
Values = dict[str, dict[str, npt.NDArray[Any]]]  # split -> column -> [clips]


@dataclass
class Cell:
    """One network's figure.

    Attributes:
        value: the figure.
        interval: its 95% interval, if it has one.
        difference: to the first network's, in the same unit; None for the first and where clips differ.
        difference_interval: 95%, over recordings, from the same clips.
    """

    value: float
    interval: tuple[float, float] | None = None
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None


@dataclass
class Task:
    """A protocol on a split of a dataset, and how each network did in it.

    Attributes:
        protocol: its name.
        data: the dataset's folder name.
        split: the split or splits.
        clips: test clips.
        recordings: that they are pieces of.
        chance: share that guessing gets right, if that is known.
        figures: figure's name -> network's name -> cell.
        notes: what else differs between the networks' results.
    """

    protocol: str
    data: str
    split: str
    clips: int
    recordings: int
    chance: float | None
    figures: dict[str, dict[str, Cell]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What it is, in a line."""
        chance = "" if self.chance is None else f", chance {self.chance:.1%}"
        return (
            f"{self.protocol}, {self.data} split {self.split} "
            f"({self.clips} clips of {self.recordings} recordings{chance})"
        )


def compare(options: CompareOptions) -> Result:
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
    results = [read_result(run) for run in options.runs]
    names = options.names or _names(results)
    tasks = make_tasks(results, names, options.seed)
    listing = chart.with_suffix(".csv")
    _write_csv(listing, tasks)
    _draw(chart, tasks, list(dict.fromkeys(names)), options.metric)
    figures = [
        {
            **{
                key: getattr(task, key)
                for key in ("protocol", "data", "split", "clips", "recordings", "chance", "notes")
            },
            "figures": {
                name: {run: vars(cell) for run, cell in cells.items()} for name, cells in task.figures.items()
            },
        }
        for task in tasks
    ]
    text = "\n".join([*(_text(task) for task in tasks), f"wrote {chart} and {listing}"])
    return Result(text, {"comparisons": figures, "chart": str(chart), "table": str(listing)})


def _names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each result: the checkpoint's, told apart by its hash or folder where two are alike."""
    names = [result["checkpoint"]["name"] for result in results]
    hashes: dict[str, set[str]] = {}
    for name, result in zip(names, results, strict=True):
        hashes.setdefault(name, set()).add(result["checkpoint"]["hash"])
    names = [
        f"{name} {result['checkpoint']['hash'][:6]}" if len(hashes[name]) > 1 else name
        for name, result in zip(names, results, strict=True)
    ]
    keys = [(name, _key(result)) for name, result in zip(names, results, strict=True)]
    twice = Counter(keys)
    return [
        f"{name} {Path(result['folder']).name}" if twice[key] > 1 else name
        for name, key, result in zip(names, keys, results, strict=True)
    ]


def _key(result: Mapping[str, Any]) -> tuple[str, ...]:
    clips = [str(part.get("clips")) for part in result["splits"].values()]
    return result["protocol"], result["data"]["fingerprint"], result["split"], *clips


def make_tasks(results: Sequence[Mapping[str, Any]], names: Sequence[str], seed: int = 0) -> list[Task]:
    """Results grouped by protocol, data and split, with paired differences to each group's first.

    Args:
        results: as `read_result` gives them.
        names: one for each.
        seed: of the bootstrap.

    Raises:
        OptionError: two results of one group have the same name.
    """
    groups: dict[tuple[str, ...], list[tuple[str, Mapping[str, Any]]]] = {}
    for name, result in zip(names, results, strict=True):
        groups.setdefault(_key(result), []).append((name, result))
    tasks = []
    for members in groups.values():
        if len({name for name, _ in members}) < len(members):
            raise OptionError(
                "RUN and --names",
                expected="different results, or a name for each",
                found=", ".join(name for name, _ in members),
            )
        first = members[0][1]
        task = Task(
            first["protocol"],
            Path(first["data"]["path"]).name,
            first["split"],
            first["data"]["test_clips"],
            first["data"]["test_recordings"],
            first.get("chance"),
        )
        task.notes += _differing([result for _, result in members])
        task.notes += [
            f"{name}: {note}" for name, result in members for note in result.get("notes", ()) if UNFINISHED in note
        ]
        base = read_values(first)
        for name, result in members:
            values = base if result is first else read_values(result)
            for figure in result["figures"]:
                cell = _cell(result, figure)
                if cell is None:
                    continue
                if result is not first:
                    _add_difference(cell, figure, base, values, seed)
                task.figures.setdefault(figure, {})[name] = cell
        tasks.append(task)
    return tasks


def _differing(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each setting that the results of one task do not share."""
    told = [
        {"crop": result["crop"], "image size": result["image_size"], **result["settings"]}
        for result in results
    ]
    shared = set.intersection(*(set(settings) for settings in told)) - {"train", "short", "too_short"}
    lines = []
    for name in (name for name in told[0] if name in shared):
        values = [str(settings[name]) for settings in told]
        if len(set(values)) > 1:
            lines.append(f"{name.replace('_', ' ')} differs: {', '.join(values)}")
    return lines


def _cell(result: Mapping[str, Any], figure: str) -> Cell | None:
    value = flat(result).get(figure)
    if value is None:
        return None
    ends = result["intervals"].get(figure)
    return Cell(float(value), None if ends is None else (ends[0], ends[1]))


def read_values(result: Mapping[str, Any]) -> Values:
    """Each test clip's values, by split, out of a result's predictions-SPLIT.npz.

    Raises:
        TceError: the file is missing.
    """
    found: Values = {}
    for split in result["splits"]:
        path = Path(result["folder"]) / f"predictions-{split}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                found[split] = {name: file[name] for name in file.files}
        except (OSError, ValueError) as error:
            raise TceError(
                str(path),
                expected="the predictions beside result.json",
                found=str(error),
                fix="run tce evaluate again",
            ) from error
    return found


def _add_difference(cell: Cell, figure: str, base: Values, values: Values, seed: int) -> None:
    """Difference to the first network on the clips that both have, mean over the splits."""
    firsts, seconds, recordings = [], [], []
    for split, columns in values.items():
        other = base[split]
        if figure not in columns or figure not in other:
            return
        _, mine, theirs = np.intersect1d(columns["id"], other["id"], return_indices=True)
        if len(mine) < max(len(columns["id"]), len(other["id"])):
            log.warning("split %s: differences are of the %d clips that both results have", split, len(mine))
        first, second = other[figure][theirs], columns[figure][mine]
        known = np.isfinite(first) & np.isfinite(second)
        if not known.any():
            return
        firsts.append(first[known])
        seconds.append(second[known])
        recordings.append(columns["recording"][mine][known])
    if len(firsts) == 1:
        cell.difference, cell.difference_interval = paired_difference(
            firsts[0], seconds[0], recordings[0], seed
        )
        return
    apart = [second - first for first, second in zip(firsts, seconds, strict=True)]
    cell.difference = float(np.mean([part.mean() for part in apart]))
    cell.difference_interval = mean_interval(list(apart), list(recordings), seed)


def _text(task: Task) -> str:
    lines = [task.title]
    wide = max(len(label(figure)) for figure in task.figures)
    run_wide = max(len(run) for cells in task.figures.values() for run in cells)
    for figure, cells in task.figures.items():
        title = label(figure)
        for run, cell in cells.items():
            ends = "" if cell.interval is None else " to ".join(number(figure, end) for end in cell.interval)
            line = f"  {title:<{wide}}  {run:<{run_wide}}  {number(figure, cell.value):>7}  {ends:<16}"
            lines.append((line + _difference_text(figure, cell)).rstrip())
            title = ""
    return "\n".join(lines + [f"  note: {note}" for note in task.notes])


def _difference_text(figure: str, cell: Cell) -> str:
    if cell.difference is None:
        return ""
    scale, form, unit = (100, "+.1f", " points") if is_share(figure) else (1, "+.3g", "")
    text = f"  {scale * cell.difference:{form}}{unit}"
    if cell.difference_interval is not None:
        low, high = (f"{scale * end:{form}}" for end in cell.difference_interval)
        text += f" ({low} to {high})"
    return text


def _write_csv(path: Path, tasks: Sequence[Task]) -> None:
    head = ["protocol", "data", "split", "figure", "run", "value", "low", "high"]
    head += ["difference", "difference_low", "difference_high"]
    with atomic(path, "w") as file:
        rows: list[list[object]] = []
        for task in tasks:
            for figure, cells in task.figures.items():
                for run, cell in cells.items():
                    ends, apart = cell.interval or ("", ""), cell.difference_interval or ("", "")
                    difference = "" if cell.difference is None else cell.difference
                    place = (task.protocol, task.data, task.split, figure, run)
                    rows.append([*place, cell.value, *ends, difference, *apart])
        write_csv(file, [head, *rows])


def _draw(path: Path, tasks: Sequence[Task], names: Sequence[str], metric: str | None) -> None:
    shown = [(task, metric or MAIN_FIGURE.get(task.protocol, next(iter(task.figures)))) for task in tasks]
    shown = [(task, figure) for task, figure in shown if figure in task.figures]
    if not shown:
        known = sorted({figure for task in tasks for figure in task.figures})
        raise OptionError("--metric", expected=f"one of {', '.join(known)}", found=repr(metric))
    values = np.full((len(shown), len(names)), np.nan)
    ends = np.full((len(shown), len(names), 2), np.nan)
    for row, (task, figure) in enumerate(shown):
        for run, cell in task.figures[figure].items():
            column = names.index(run)
            values[row, column] = cell.value
            if cell.interval is not None:
                ends[row, column] = cell.interval
    several_sets = len({(task.data, task.split) for task, _ in shown}) > 1
    groups = [
        f"{task.protocol}\n{label(figure).split(' (')[0]}"
        + (f"\n{task.data}\n{task.split}" if several_sets else "")
        for task, figure in shown
    ]
    chance = [task.chance if figure == "top1" else None for task, figure in shown]
    scales = [100.0 if is_share(figure) or figure == "smoothness" else 1.0 for _, figure in shown]
    unit = "%" if set(scales) == {100.0} else "% or the figure's own unit"
    label_of_axis = f"{unit}, with 95% intervals over recordings"
    bar_picture(path, groups, names, values, ends, chance, label_of_axis, scales)
