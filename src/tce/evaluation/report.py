"""What a judgement leaves behind: result.json, predictions as CSV and NPZ, pictures, and a table to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tce.video.image import decode
from tce.errors import TceError
from tce.data.splits import SplitClips
from tce.model.checkpoint import unfinished
from tce.evaluation.protocols import SplitResult
from tce.evaluation.metrics import bootstrap_interval, confusion, mean_interval, per_class
from tce.evaluation.frozen_network import FrozenNetwork
from tce.data.clip_sketch import share_seen
from tce.visualize.result_plots import confusion_picture, contact_sheet
from tce.io import atomic, write_csv
from tce.result import plain

Ints = npt.NDArray[np.int64]

SHEET_QUERIES, SHEET_NEIGHBOURS = 8, 6
TABLE_CLASSES = 30

LABELS = {
    "top1": "top-1",
    "top5": "top-5",
    "neighbour": "distance of neighbours in time",
    "within": "distance within a clip",
    "across": "distance across recordings",
    "smoothness": "smoothness (1 - neighbour/across)",
    "curvature": "curvature along time (degrees)",
    "tau": "Kendall's tau across clips of a class",
    "phase_r2": "phase progression (R2)",
    "alignment": "alignment of neighbours",
    "uniformity": "uniformity",
    "effective_rank": "effective rank",
}
PERCENT = ("top1", "top5", "recall", "chance")


def is_share(figure: str) -> bool:
    """Whether a figure is a share that reads best in per cent."""
    return figure.startswith(PERCENT)


def label(figure: str) -> str:
    """A figure's name as people read it."""
    return LABELS.get(figure, figure.replace("recall@", "R@"))


def flat(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures without nesting: recall's become recall@1 and so on; details by class are left out."""
    simple: dict[str, Any] = {}
    for name, value in figures.items():
        if name == "recall":
            simple |= {f"recall@{k}": share for k, share in value.items()}
        elif not isinstance(value, dict):
            simple[name] = value
    return simple


def intervals(outcomes: Sequence[SplitResult], clips: Sequence[SplitClips], seed: int) -> dict[str, Any]:
    """95% intervals over recordings of every figure that is a mean over clips; several splits' mean."""
    found = {}
    for name in outcomes[0].values:
        values, recordings = [], []
        for outcome, split in zip(outcomes, clips, strict=True):
            known = np.isfinite(outcome.values[name])
            values.append(outcome.values[name][known])
            recordings.append(split.recordings[outcome.rows][known].astype(str))
        if any(len(part) == 0 for part in values):
            continue
        if len(values) == 1:
            found[name] = bootstrap_interval(values[0], recordings[0], seed=seed)
        else:
            found[name] = mean_interval(list(values), list(recordings), seed)
    return found


def mean_figures(outcomes: Sequence[SplitResult]) -> dict[str, Any]:
    """Each figure's mean over the splits; details by class stay with their split."""
    first = outcomes[0].figures
    means: dict[str, Any] = {}
    for name, value in first.items():
        if isinstance(value, dict) and name == "recall":
            means[name] = {k: float(np.mean([o.figures[name][k] for o in outcomes])) for k in value}
        elif not isinstance(value, dict):
            known = [o.figures.get(name) for o in outcomes]
            means[name] = None if None in known else float(np.mean(np.array(known, np.float64)))
    return means


def write_predictions(folder: Path, split: SplitClips, outcome: SplitResult) -> None:
    """predictions-SPLIT.npz and .csv: each test clip with its recording, class and values."""
    catalog, rows = split.store.catalog, outcome.rows
    classes = np.array(outcome.classes or split.classes, dtype=str)
    labels = split.labels[rows]
    columns: dict[str, npt.NDArray[Any]] = {
        "id": catalog.ids[rows].astype(str),
        "recording": split.recordings[rows].astype(str),
        "label": _named(classes, labels),
    }
    if outcome.scores is not None:
        predicted = outcome.scores.argmax(axis=1)
        columns["prediction"] = classes[predicted]
    if outcome.neighbours is not None:
        columns["nearest"] = catalog.ids[outcome.neighbours[:, 0]].astype(str)
    columns |= outcome.values
    with atomic(folder / f"predictions-{split.split}.csv", "w") as file:
        write_csv(file, [columns, *zip(*(values.tolist() for values in columns.values()), strict=True)])
    extra: dict[str, npt.NDArray[Any]] = {"classes": classes}
    if outcome.scores is not None:
        extra["scores"] = outcome.scores
    if outcome.neighbours is not None:
        extra["neighbours"] = catalog.ids[outcome.neighbours].astype(str)
    with atomic(folder / f"predictions-{split.split}.npz") as file:
        np.savez_compressed(file, **columns, **extra)  # type: ignore[arg-type]


def _named(classes: npt.NDArray[np.str_], labels: Ints) -> npt.NDArray[np.str_]:
    known = np.append(classes, "")  # -1 names no class
    return known[labels]


def write_pictures(folder: Path, split: SplitClips, outcome: SplitResult, seed: int, title: str) -> list[str]:
    """Confusion matrix or contact sheet of one split; the names of what was written."""
    if outcome.scores is not None:
        name = f"confusion-{split.split}.png"
        seen = len(split.classes)
        taken_for = np.minimum(outcome.scores.argmax(axis=1), seen)  # the data's classes, or any other
        matrix = confusion(split.labels[outcome.rows], taken_for, seen + 1)[:seen]
        matrix = matrix if matrix[:, seen].any() else matrix[:, :seen]
        confusion_picture(folder / name, matrix, split.classes, title)
        return [name]
    if outcome.neighbours is not None:
        name = f"neighbours-{split.split}.png"
        _write_sheet(folder / name, split, outcome, seed, title)
        return [name]
    return []


def _write_sheet(path: Path, split: SplitClips, outcome: SplitResult, seed: int, title: str) -> None:
    assert outcome.neighbours is not None
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(outcome.rows))[:SHEET_QUERIES])
    labels = split.labels
    sheet = []
    for query in chosen:
        row = int(outcome.rows[query])
        found = [
            (_still(split, int(other)), _caption(split, int(other)), bool(labels[other] == labels[row]))
            for other in outcome.neighbours[query, :SHEET_NEIGHBOURS]
        ]
        sheet.append(((_still(split, row), _caption(split, row)), found))
    contact_sheet(path, sheet, f"{title}: {len(sheet)} random queries (left), nearest training clips (right)")


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


def class_rows(split: SplitClips, outcome: SplitResult) -> list[dict[str, Any]]:
    """Clips and top-1 of each class that has test clips."""
    if "top1" not in outcome.values:
        return []
    counts, share = per_class(
        split.labels[outcome.rows], outcome.values["top1"].astype(bool), len(split.classes)
    )
    return [
        {"class": name, "clips": int(n), "top1": float(hits)}
        for name, n, hits in zip(split.classes, counts, share, strict=True)
        if n
    ]


def read_result(path: str | Path) -> dict[str, Any]:
    """A result.json, named itself or by its folder; with its folder under "folder".

    Raises:
        TceError: there is none, or it is no result of tce.
    """
    target = Path(path)
    target = target / "result.json" if target.is_dir() else target
    try:
        content = json.loads(target.read_text(encoding="utf-8"))
    except OSError as error:
        raise TceError(
            str(path),
            expected="a folder with result.json, as tce evaluate and tce finetune write it",
            found=error.strerror or str(error),
        ) from error
    except ValueError as error:
        raise TceError(
            str(target), expected="a result.json", found=f"no JSON ({error})", fix="give its folder"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("protocol"), str):
        raise TceError(
            str(target),
            expected="a result of tce evaluate or tce finetune",
            found="another file, such as a pre-training run's",
            fix="judge its network first: tce evaluate --ckpt RUN ...",
        )
    return {**content, "folder": str(target.parent)}


def table(result: Mapping[str, Any]) -> str:
    """A result as people read it."""
    data, splits = result["data"], result["splits"]
    lines = [
        f"{result['protocol']} of {result['checkpoint']['name']}, split {', '.join(splits)}: "
        f"{data['test_clips']} test clips of {data['test_recordings']} recordings, "
        f"{data['train_clips']} training clips, {data['classes']} classes",
        f"  {_settings(result)}",
    ]
    figures = flat(result)
    several = len(splits) > 1
    width = max(len(label(name)) for name in result["figures"])
    head = f"  {'':<{width}}  {'mean' if several else 'value':>8}  {'95% interval':>16}"
    lines.append(head + "".join(f"  {name:>8}" for name in splits if several))
    for name in result["figures"]:
        ends = result["intervals"].get(name)
        line = f"  {label(name):<{width}}  {number(name, figures.get(name)):>8}  {_ends(name, ends):>16}"
        if several:
            line += "".join(f"  {number(name, flat(part).get(name)):>8}" for part in splits.values())
        lines.append(line)
    if figures.get("chance") is not None:
        lines.append(f"  {'chance':<{width}}  {number('chance', figures['chance']):>8}")
    lines += _class_lines(result)
    return "\n".join(lines + [f"note: {note}" for note in result.get("notes", [])])


def _settings(result: Mapping[str, Any]) -> str:
    """What the figures depend on beside clips and network, in a line."""
    told = {"crop": result["crop"], "image size": result["image_size"], **result["settings"]}
    hidden = ("train", "short", "too_short")
    shown = {name.replace("_", " "): value for name, value in told.items() if name not in hidden}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _class_lines(result: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, part in result["splits"].items():
        rows = part.get("per_class", [])
        if not rows or result["protocol"] != "frames":
            continue
        if len(rows) > TABLE_CLASSES:
            worst = sorted(rows, key=lambda row: row["top1"])[:5]
            told = ", ".join(f"{row['class']} {row['top1']:.0%}" for row in worst)
            lines.append(f"  hardest classes, split {name}: {told} (all in result.json)")
            continue
        width = max(len(row["class"]) for row in rows)
        which = f"  (split {name})" if len(result["splits"]) > 1 else ""
        lines.append(f"  {'class':<{width}}  clips   top-1{which}")
        lines += [f"  {row['class']:<{width}}  {row['clips']:>5}  {row['top1']:>6.1%}" for row in rows]
    return lines


def number(name: str, value: float | None) -> str:
    """A figure as text."""
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:.1%}" if is_share(name) else f"{value:.3g}"


def _ends(name: str, ends: Sequence[float] | None) -> str:
    return "-" if ends is None else f"{number(name, ends[0])} to {number(name, ends[1])}"


def notes(
    subjects: Sequence[FrozenNetwork],
    clips: Sequence[SplitClips],
    outcomes: Sequence[SplitResult],
    failed: Mapping[str, str],
) -> list[str]:
    """A line for each thing out of the ordinary: missing, short, failed clips, shared recordings, leaks.

    Args:
        subjects: the network judged on each split.
        clips: the splits.
        outcomes: their results.
        failed: clip's id -> why it could not be read.
    """
    lines: list[str] = []
    for subject, split, outcome in zip(subjects, clips, outcomes, strict=True):
        lines += [told for told in _of_unfinished(subject) if told not in lines]
        lines += _of_clips(split, outcome) + _of_leaks(subject, split, outcome)
    if failed:
        some = ", ".join(list(failed)[:5])
        lines.append(f"{len(failed)} clips could not be read and were left out: {some}")
    return lines


def _of_unfinished(subject: FrozenNetwork) -> Iterator[str]:
    """Trainings of the network, and of what it started from, that were stopped early."""
    for origin in _line_of(subject.facts["provenance"]):
        told = unfinished(dict(origin))
        if told:
            yield f"the network's training ({origin.get('made', 'unknown')}) is {told}"


def _of_clips(split: SplitClips, outcome: SplitResult) -> list[str]:
    lines, name = [], split.split
    if split.missing:
        count, share = len(split.missing), split.missing_share
        lines.append(f"split {name}: {count} listed clips ({share:.1%}) have no footage")
    if outcome.settings.get("short"):
        count, span = outcome.settings["short"], outcome.settings["frames_per_sample"]
        lines.append(
            f"split {name}: {count} clips have fewer than {span} frames, their last one was repeated"
        )
    if outcome.settings.get("too_short"):
        lines.append(f"split {name}: {outcome.settings['too_short']} clips were too short and left out")
    return lines


def _of_leaks(subject: FrozenNetwork, split: SplitClips, outcome: SplitResult) -> list[str]:
    lines, name = [], split.split
    train, test = (split.recordings[rows].astype(str) for rows in (split.train, outcome.rows))
    shared = len(np.intersect1d(train, test))
    groups = len(set(split.groups[split.train]) & set(split.groups[outcome.rows]))
    uses_train = outcome.scores is not None or outcome.neighbours is not None
    if shared and uses_train:
        lines.append(f"split {name}: {shared} recordings have pieces in both training and test clips")
    elif groups and uses_train:
        lines.append(f"split {name}: {groups} groups (people) have clips in both training and test clips")
    for origin in _line_of(subject.facts["provenance"]):
        lines += [f"split {name}: {told}" for told in _of_training(origin, split, outcome) if told]
    return list(dict.fromkeys(lines))


def _of_training(origin: Mapping[str, Any], split: SplitClips, outcome: SplitResult) -> Iterator[str]:
    """What a step of the network's training had to do with the test clips; nothing where all is well."""
    tuned = origin.get("made") == "tce finetune"
    how = "trained" if tuned else "pre-trained, without labels,"
    if "clips" in origin:
        ids = split.store.catalog.ids[outcome.rows]
        share = share_seen(ids, origin["clips"])
        if share:
            yield f"the network was {how} on {share:.0%} of these test clips, by their names"
    elif origin.get("split") not in (None, split.split):
        yield f"the network was {how} on split {origin['split']}, perhaps on these test clips"


def _line_of(origin: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Where a network comes from, then where the weights that it started from came from, and so on."""
    while origin:
        yield origin
        origin = (origin.get("weights") or {}).get("provenance")
