"""The command `tce evaluate`: checkpoint, clips and protocol in; figures with their whole protocol out."""

from __future__ import annotations

import hashlib
import logging
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tce.data.annotations import choose_splits
from tce.errors import OptionError
from tce.evaluation import report
from tce.data.splits import SplitClips, open_split, require_splits
from tce.evaluation.protocols import Evaluator, SplitResult
from tce.evaluation.report import notes
from tce.device import choose_precision
from tce.options.evaluate import PLACEHOLDER, EvaluateOptions
from tce.evaluation.frozen_network import FrozenNetwork, load_network, short_name
from tce.io import require_writable, write_json
from tce.result import Result

log = logging.getLogger("tce.evaluation")

ROOT = "evaluation"


def evaluate(options: EvaluateOptions, cache: Path | None = None) -> Result:
    """Evaluator a checkpoint by a protocol on one or several splits.

    Writes result.json (figures with intervals and everything they depend on), predictions-SPLIT.csv and
    .npz, and a confusion matrix or a contact sheet, all into one folder.

    Args:
        options: network, clips, protocol.
        cache: where videos are packed first, or have been; by default beside the results.

    Returns:
        The table, and what result.json holds.

    Raises:
        OptionError: options that contradict each other, the network or the lists.
        TceError: no checkpoint, no clips, too few of the listed clips, or a folder that cannot be written.
    """
    started = time.monotonic()
    splits = choose_splits(options.split, options.lists)
    subject = _load(options, splits[0])
    folder = Path(options.out) if options.out else _folder(options, subject)
    require_writable(folder / "result.json", "--out")
    _require_no_run(folder)
    require_splits(options.data, options.lists, splits)
    if cache is None:
        cache = folder if options.out else Path(ROOT) / "footage" / _tag(options.data)

    judge = Evaluator(subject, options)
    outcomes: list[SplitResult] = []
    clips: list[SplitClips] = []
    subjects: list[FrozenNetwork] = []
    for split in splits:
        if subjects and PLACEHOLDER in options.ckpt:
            judge = Evaluator(_load(options, split), options, judge.failed)
        clips.append(
            open_split(
                options.data,
                cache,
                options.lists,
                split,
                options.max_missing,
                need_train=options.protocol not in ("frames", "coherence"),
                unlabelled=options.protocol == "coherence",
                check=judge.check,
            )
        )
        outcomes.append(judge(clips[-1]))
        judge.subject.require_unchanged()
        subjects.append(judge.subject)
    result = describe(options, subjects, clips, outcomes, judge.failed)
    result["seconds"] = round(time.monotonic() - started, 2)
    pictures = write(folder, result, clips, outcomes, options.seed)
    return Result(
        "\n".join([report.table(result), f"wrote {folder}: result.json, {', '.join(pictures)}"]), result
    )


def write(
    folder: Path,
    result: dict[str, Any],
    clips: Sequence[SplitClips],
    outcomes: Sequence[SplitResult],
    seed: int,
) -> list[str]:
    """Write result, predictions and pictures; the names of what was written beside result.json."""
    names = []
    _clear(folder)
    for split, outcome in zip(clips, outcomes, strict=True):
        report.write_predictions(folder, split, outcome)
        names.append(f"predictions-{split.split}.csv/.npz")
    write_json(folder / "result.json", result)
    for split, outcome in zip(clips, outcomes, strict=True):  # last: a picture never costs the result
        share = flat_share(outcome)
        title = f"{result['checkpoint']['name']}, {result['protocol']}, split {split.split}{share}"
        names += report.write_pictures(folder, split, outcome, seed, title)
    return names


def flat_share(outcome: SplitResult) -> str:
    """The outcome's first share for a picture's title, such as ", top-1 43.1%"."""
    for name, value in report.flat(outcome.figures).items():
        if report.is_share(name):
            return f", {report.label(name)} {report.number(name, value)}"
    return ""


def describe(
    options: EvaluateOptions,
    subjects: Sequence[FrozenNetwork],
    clips: Sequence[SplitClips],
    outcomes: Sequence[SplitResult],
    failed: dict[str, str],
) -> dict[str, Any]:
    """Figures, intervals, and everything they depend on."""
    splits: dict[str, Any] = {}
    for subject, split, outcome in zip(subjects, clips, outcomes, strict=True):
        splits[split.split] = {
            **outcome.figures,
            "intervals": report.intervals([outcome], [split], options.seed),
            "settings": outcome.settings,
            "checkpoint": subject.facts["hash"],
            "clips": split.digest,
            "train_clips": outcome.settings.get("train", len(split.train)),
            "test_clips": len(outcome.rows),
            "test_recordings": len(np.unique(split.recordings[outcome.rows].astype(str))),
            "missing": {
                "clips": len(split.missing),
                "share": split.missing_share,
                "examples": split.missing[:5],
            },
            "per_class": report.class_rows(split, outcome),
        }
    subject, first = subjects[0], clips[0]
    config = subject.network.config
    figures = report.mean_figures(outcomes)
    simple = report.flat(figures)
    return {
        "protocol": options.protocol,
        **figures,
        "figures": [name for name in simple if name != "chance"],
        "intervals": report.intervals(outcomes, clips, options.seed),
        "interval": "95%, bootstrap over recordings",
        "split": ",".join(splits),
        "splits": splits,
        "settings": outcomes[0].settings,
        "crop": options.crop or subject.crop,
        "image_size": options.image_size or config.image_size,
        "seed": options.seed,
        "checkpoint": {"name": _name(options.ckpt, subject), **subject.facts},
        "frozen": {"before": subject.facts["hash"], "after": subject.require_unchanged()},
        "data": {
            "path": options.data,
            "lists": options.lists,
            "fingerprint": first.store.fingerprint(),
            "classes": len(first.classes),
            "test_clips": sum(part["test_clips"] for part in splits.values()),
            "test_recordings": _recordings(clips, outcomes),
            "train_clips": sum(part["train_clips"] for part in splits.values()),
            "failed": failed,
        },
        "precision": choose_precision(options.precision, subject.network.device),
        "device": str(subject.network.device),
        "versions": {"python": platform.python_version(), "torch": version("torch"), "tce": _own_version()},
        "notes": notes(subjects, clips, outcomes, failed),
    }


def _name(ckpt: str, subject: FrozenNetwork) -> str:
    """The network's name; of a network for each split, what their names share."""
    if PLACEHOLDER not in ckpt:
        return subject.name
    name = short_name(ckpt)
    if name.strip("-_") not in (PLACEHOLDER, f"split{PLACEHOLDER}"):
        return name
    parents = Path(ckpt).resolve().parts
    return parents[parents.index(name) - 1] if name in parents else name


def _require_no_run(folder: Path) -> None:
    """See to it that no run's own result is written over.

    Raises:
        OptionError: the folder holds a run.
    """
    if (folder / "options.json").exists():
        raise OptionError(
            f"--out {folder}",
            expected="a folder of its own for the result",
            found="a run",
            fix=f"choose another, such as {folder / 'evaluation'}",
        )


def _clear(folder: Path) -> None:
    """Remove predictions and pictures of an earlier result, which another one may not replace."""
    if (folder / "result.json").exists():
        for name in ("predictions-*.csv", "predictions-*.npz", "confusion-*.png", "neighbours-*.png"):
            for old in folder.glob(name):
                old.unlink()


def _recordings(clips: Sequence[SplitClips], outcomes: Sequence[SplitResult]) -> int:
    names = [
        split.recordings[outcome.rows].astype(str) for split, outcome in zip(clips, outcomes, strict=True)
    ]
    return len(np.unique(np.concatenate(names)))


def _load(options: EvaluateOptions, split: str) -> FrozenNetwork:
    ckpt = options.ckpt.replace(PLACEHOLDER, split)
    return load_network(
        ckpt,
        options.model,
        options.image_size,
        options.seed,
        options.device,
        classifier=options.protocol == "frames",
    )


def _folder(options: EvaluateOptions, subject: FrozenNetwork) -> Path:
    """Where results go by default: named after what they depend on most, in the current folder."""
    data = Path(options.data).resolve().name or "data"
    split = options.split.replace(",", "-")
    name = f"{subject.name}-{subject.facts['hash'][:6]}"
    return Path(ROOT) / name / f"{options.protocol}-{data}-{split}"


def _tag(data: str) -> str:
    """A folder's name for the packed footage of a path."""
    place = Path(data).resolve()
    return f"{place.name}-{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"


def _own_version() -> str:
    from tce import __version__

    return __version__
