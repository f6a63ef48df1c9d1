"""The files of a result (result.json, predictions, pictures), and the table that is printed."""

from __future__ import annotations

import html
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tce.data.splits import SplitClips
from tce.evaluation.frozen_network import FrozenNetwork
from tce.evaluation.metrics import (
    FEWSHOT,
    Interval,
    confusion,
    flat,
    format_interval,
    label,
    mean_interval,
    number,
    per_class,
)
from tce.evaluation.protocols import SplitResult
from tce.io import atomic, write_csv
from tce.video.image import decode
from tce.visualize.result_plots import (
    LearningCurve,
    confusion_picture,
    learning_picture,
    neighbour_picture,
)

log = logging.getLogger("tce.evaluation")

Ints = npt.NDArray[np.int64]

SHEET_QUERIES, SHEET_NEIGHBOURS = 8, 6
TABLE_CLASSES = 30

PICTURES = ("confusion-*.png", "neighbours-*.png", "fewshot-*.png")
UNPRINTED = ("train", "short", "too_short", "penalty_chosen_on", "engine")  # notes, or parts of others


@dataclass
class EvaluatedSplit:
    """One protocol's result on one split, with what it was made of."""

    network: FrozenNetwork
    clips: SplitClips
    result: SplitResult


def intervals(parts: Sequence[EvaluatedSplit], seed: int) -> dict[str, Interval | None]:
    """95% intervals over recordings of every metric that is a mean over clips; several splits' mean."""
    found: dict[str, Interval | None] = {}
    for name in parts[0].result.values:
        if not all(name in part.result.values for part in parts):
            continue
        values, recordings = [], []
        for part in parts:
            known = np.isfinite(part.result.values[name])
            values.append(part.result.draws.get(name, part.result.values[name])[..., known])
            recordings.append(part.clips.recordings[part.result.rows][known].astype(str))
        if all(column.size for column in values):
            found[name] = mean_interval(values, recordings, seed)
    return found


def mean_metrics(parts: Sequence[EvaluatedSplit]) -> dict[str, Any]:
    """Each metric's mean over the splits that all have; details by class stay with their split."""
    several = [part.result.metrics for part in parts]
    means: dict[str, Any] = {}
    for name, value in several[0].items():
        if name == "recall":
            shared = [k for k in value if all(k in metrics[name] for metrics in several)]
            means[name] = {k: float(np.mean([metrics[name][k] for metrics in several])) for k in shared}
        elif not isinstance(value, dict):
            means[name] = _mean([metrics.get(name) for metrics in several])
    return means


def mean_chance(parts: Sequence[EvaluatedSplit]) -> dict[str, float]:
    """Each metric's chance level, mean over the splits."""
    names = [name for name in parts[0].result.chance if all(name in part.result.chance for part in parts)]
    return {name: float(np.mean([part.result.chance[name] for part in parts])) for name in names}


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(np.array(values, np.float64)))


def prediction_columns(part: EvaluatedSplit) -> dict[str, npt.NDArray[Any]]:
    """Each test clip's id, recording, class, prediction and values, by column."""
    split, result = part.clips, part.result
    catalog, rows = split.store.catalog, result.rows
    classes = np.array(result.classes or split.classes, dtype=str)
    columns: dict[str, npt.NDArray[Any]] = {
        "id": catalog.ids[rows].astype(str),
        "recording": split.recordings[rows].astype(str),
        "label": np.append(classes, "")[split.labels[rows]],  # -1 names no class
    }
    if result.scores is not None:
        columns["prediction"] = classes[result.scores.argmax(axis=1)]
    if result.neighbours is not None:
        columns["nearest"] = catalog.ids[result.neighbours[:, 0]].astype(str)
    return columns | dict(result.values)


def write_predictions(folder: Path, part: EvaluatedSplit) -> None:
    """predictions-SPLIT.npz and .csv: each test clip with its recording, class and values."""
    split, result, columns = part.clips, part.result, prediction_columns(part)
    with atomic(folder / f"predictions-{split.split}.csv", "w") as file:
        write_csv(file, [columns, *zip(*(values.tolist() for values in columns.values()), strict=True)])
    extra: dict[str, npt.NDArray[Any]] = {"classes": np.array(result.classes or split.classes, dtype=str)}
    if result.scores is not None:
        extra["scores"] = result.scores
    if result.neighbours is not None:
        extra["neighbours"] = split.store.catalog.ids[result.neighbours].astype(str)
    with atomic(folder / f"predictions-{split.split}.npz") as file:
        np.savez_compressed(file, **columns, **extra)  # type: ignore[arg-type]


def write_pictures(folder: Path, part: EvaluatedSplit, seed: int) -> list[str]:
    """Draw the confusion matrix or the contact sheet of one split.

    A picture that cannot be drawn is logged and left out: the figures are worth more.

    Returns:
        Names of the files that were written.
    """
    if part.result.scores is not None:
        name, draw = f"confusion-{part.clips.split}.png", _draw_confusion
    elif part.result.neighbours is not None:
        name, draw = f"neighbours-{part.clips.split}.png", _draw_neighbours
    elif part.result.draws:
        name, draw = f"fewshot-{part.clips.split}.png", _draw_fewshot
    else:
        return []
    heading = f"{part.network.name}, {part.result.protocol}, split {part.clips.split}\n{summary(part, seed)}"
    try:
        draw(folder / name, part, seed, heading)
    except Exception as error:
        log.warning("%s was not drawn: %s: %s", folder / name, type(error).__name__, error)
        return []
    return [name]


def summary(part: EvaluatedSplit, seed: int) -> str:
    """A result's first share with interval, chance and clips, such as "top-1 43.1% (40.2% to 46.0%), ..."."""
    result = part.result
    recordings = len(np.unique(part.clips.recordings[result.rows].astype(str)))
    words = f"{counted(len(result.rows), 'test clip')} of {counted(recordings, 'recording')}"
    name = next(iter(result.values))
    ends = intervals([part], seed).get(name)
    figure = f"{label(name)} {number(name, flat(result.metrics).get(name))}"
    if ends is not None:
        figure += f" ({format_interval(name, ends)})"
    if name in result.chance:
        figure += f", chance {number(name, result.chance[name])}"
    return f"{figure}; {words}"


def _draw_confusion(path: Path, part: EvaluatedSplit, seed: int, title: str) -> None:
    split, scores = part.clips, part.result.scores
    assert scores is not None
    seen = len(split.classes)
    predicted = np.minimum(scores.argmax(axis=1), seen)  # the data's classes, or any other
    matrix = confusion(split.labels[part.result.rows], predicted, seen + 1)[:seen]
    matrix = matrix if matrix[:, seen].any() else matrix[:, :seen]
    confusion_picture(path, matrix, split.classes, title)


def _draw_neighbours(path: Path, part: EvaluatedSplit, seed: int, title: str) -> None:
    split, result = part.clips, part.result
    assert result.neighbours is not None
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(result.rows))[:SHEET_QUERIES])
    labels = split.labels
    sheet = []
    for query in chosen:
        row = int(result.rows[query])
        found = [
            (_still(split, int(other)), _caption(split, int(other)), bool(labels[other] == labels[row]))
            for other in result.neighbours[query, :SHEET_NEIGHBOURS]
        ]
        sheet.append(((_still(split, row), _caption(split, row)), found))
    neighbour_picture(path, sheet, title)


def _draw_fewshot(path: Path, part: EvaluatedSplit, seed: int, title: str) -> None:
    ends = intervals([part], seed)
    lines = []
    for method, name in FEWSHOT.items():
        metrics = [metric for metric in part.result.draws if metric.startswith(f"{method}@")]
        shots = [int(metric.partition("@")[2]) for metric in metrics]
        means = [part.result.metrics[metric] for metric in metrics]
        lines.append(LearningCurve(name, shots, means, [ends.get(metric) for metric in metrics]))
    chance = next(iter(part.result.chance.values()))
    learning_picture(path, lines, chance, title, part.result.settings["draws"])


def _caption(split: SplitClips, row: int) -> str:
    name = split.classes[split.labels[row]]
    recording = str(split.recordings[row]).rpartition("/")[2].removeprefix(f"{name}_")
    return f"{name[:16]}\n{recording[:18]}"


def _still(split: SplitClips, row: int) -> npt.NDArray[np.uint8]:
    """The middle frame of a clip; grey where it cannot be read."""
    (data,) = split.store.read(np.array([row]), np.array([split.store.lengths[row] // 2]))
    try:
        if isinstance(data, Exception):
            raise ValueError(str(data))
        return decode(data)
    except ValueError:
        return np.full((64, 64, 3), 128, np.uint8)


def class_rows(part: EvaluatedSplit) -> list[dict[str, Any]]:
    """Clips and top-1 of each class that has test clips."""
    result, classes = part.result, part.clips.classes
    if "top1" not in result.values:
        return []
    counts, share = per_class(
        part.clips.labels[result.rows], result.values["top1"].astype(bool), len(classes)
    )
    return [
        {"class": name, "clips": int(n), "top1": float(hits)}
        for name, n, hits in zip(classes, counts, share, strict=True)
        if n
    ]


def table(result: Mapping[str, Any]) -> str:
    """A result as text."""
    splits = result["splits"]
    lines = [
        f"{result['protocol']} of {result['checkpoint']['name']}, split {', '.join(splits)}: "
        + format_clips(result["data"]),
        f"  {format_settings(result)}",
    ]
    metrics, chance = flat(result), result.get("chance_levels", {})
    several = len(splits) > 1
    width = max(len(label(name)) for name in result["figures"])
    head = f"  {'':<{width}}  {'mean' if several else 'value':>8}  {'95% interval':>16}  {'chance':>7}"
    lines.append(head + "".join(f"  {name:>8}" for name in splits if several))
    for name in result["figures"]:
        ends = result["intervals"].get(name)
        line = f"  {label(name):<{width}}  {number(name, metrics.get(name)):>8}"
        line += f"  {format_interval(name, ends):>16}  {number(name, chance.get(name)):>7}"
        if several:
            line += "".join(f"  {number(name, flat(part).get(name)):>8}" for part in splits.values())
        lines.append(line.rstrip(" -") if name not in chance and not several else line)
    lines += _class_lines(result)
    for name, part in splits.items():
        if part.get("reading"):
            lines.append(f"  split {name}: {part['reading']}" if several else f"  {part['reading']}")
    return "\n".join(lines + [f"note: {note}" for note in result.get("notes", [])])


def align(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Rows of cells as lines with columns of equal width, "<" or ">" aligned; empty columns are left out."""
    columns = [place for place in range(len(sides)) if any(row[place] not in ("", "-") for row in rows[1:])]
    widths = {place: max(len(row[place]) for row in rows) for place in columns}
    return [
        ("  " + "  ".join(f"{row[place]:{sides[place]}{widths[place]}}" for place in columns)).rstrip()
        for row in rows
    ]


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table for a notebook; every cell is escaped."""
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><caption>{html.escape(caption)}</caption><tr>{cells}</tr>{body}</table>"


def result_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """A result's metrics with value, interval and chance, as text."""
    metrics, chance = flat(result), result.get("chance_levels", {})
    return [
        [
            label(name),
            number(name, metrics.get(name)),
            format_interval(name, result["intervals"].get(name)),
            number(name, chance.get(name)),
        ]
        for name in result["figures"]
    ]


def format_clips(data: Mapping[str, Any]) -> str:
    """How many clips of which kind a result is of, in words."""
    train = counted(data["train_clips"], "training clip")
    if data.get("held_out_clips"):
        train += f" and {data['held_out_clips']} more held out for validation"
    return (
        f"{counted(data['test_clips'], 'test clip')} of {counted(data['test_recordings'], 'recording')}, "
        f"{train}, {counted(data['classes'], 'class')}"
    )


def counted(count: int, noun: str) -> str:
    """A number and its noun, in the plural where that is needed."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count} {noun if count == 1 else plural}"


def format_settings(result: Mapping[str, Any]) -> str:
    """The settings that the metrics depend on beside clips and network, in a line."""
    settings = {"crop": result["crop"], "image size": result["image_size"], **result["settings"]}
    shown = {name.replace("_", " "): value for name, value in settings.items() if name not in UNPRINTED}
    if "penalty_chosen_on" in settings:
        shown["penalty"] = f"{settings['penalty']:g} ({settings['penalty_chosen_on']})"
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _class_lines(result: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, part in result["splits"].items():
        rows = part.get("per_class", [])
        if not rows or result["protocol"] != "frames":
            continue
        if len(rows) > TABLE_CLASSES:
            worst = sorted(rows, key=lambda row: row["top1"])[:5]
            shown = ", ".join(f"{row['class']} {row['top1']:.0%}" for row in worst)
            lines.append(f"  lowest classes, split {name}: {shown} (all in result.json)")
            continue
        width = max(len(row["class"]) for row in rows)
        which = f"  (split {name})" if len(result["splits"]) > 1 else ""
        lines.append(f"  {'class':<{width}}  clips   top-1{which}")
        lines += [f"  {row['class']:<{width}}  {row['clips']:>5}  {row['top1']:>6.1%}" for row in rows]
    return lines
