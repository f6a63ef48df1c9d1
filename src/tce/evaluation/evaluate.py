"""The command `tce evaluate`: checkpoint, clips and protocol in; metrics with their whole protocol out."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tce.data.annotations import choose_splits
from tce.data.splits import SplitClips, open_split, require_splits
from tce.errors import OptionError
from tce.evaluation import report
from tce.evaluation.frozen_network import FrozenNetwork, freeze, load_network, short_name, untrained_like
from tce.evaluation.protocols import Evaluator
from tce.evaluation.report import EvaluatedSplit
from tce.evaluation.result import EvaluationResult, describe, predictions_of
from tce.io import no_empty_folders, require_writable, write_json
from tce.model.classifier import Classifier
from tce.model.encoder import FrameEncoder
from tce.options.evaluate import ALL, PLACEHOLDER, PROTOCOLS, EvaluateOptions

log = logging.getLogger("tce.evaluation")

ROOT = "evaluation"
UNTRAINED = "untrained"  # folder of the baseline's predictions, with --protocol all


@dataclass
class _Run:
    """Splits evaluated so far: protocol -> a result for each split, of the network and of the baseline."""

    trained: dict[str, list[EvaluatedSplit]] = field(default_factory=dict)
    untrained: dict[str, list[EvaluatedSplit]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def evaluate(
    options: EvaluateOptions,
    network: FrameEncoder | Classifier | None = None,
    cache: Path | None = None,
) -> EvaluationResult:
    """Evaluate a network by a protocol, or by all that fit it, on one or several splits.

    Writes result.json (metrics with intervals and everything they depend on), predictions-SPLIT.csv and
    .npz, and a confusion matrix or a contact sheet, all into one folder; pictures come last, so that none
    of them can cost the result.

    Args:
        options: network, clips, protocol.
        network: evaluated in place of `options.ckpt`, which then only gives its name; it is copied.
        cache: where videos are packed first, or have been; by default beside the results.

    Returns:
        The table, the content of result.json, and the predictions.

    Raises:
        OptionError: options that contradict each other, the network or the lists.
        TceError: no checkpoint, no clips, too few of the listed clips, or a folder that cannot be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; its message states what was written.
    """
    started = time.monotonic()
    splits = choose_splits(options.split, options.lists)
    require_splits(options.data, options.lists, splits)
    first = _load(options, splits[0], network)
    folder = Path(options.out) if options.out else _folder(options, first)
    _require_no_run(folder)
    with interruptible(f"no result was written to {folder}"), no_empty_folders(folder):
        require_writable(folder / "result.json", "--out")
        if cache is None:
            cache = folder if options.out else Path(ROOT) / "footage" / _tag(options.data)
        run = _evaluate_splits(options, splits, first, cache)
        result = _describe_all(options, run) if options.protocol == ALL else _describe_one(options, run)
        result.folder = folder
        result.figures["seconds"] = round(time.monotonic() - started, 2)
        parts = list(_with_folders(options, run, folder))
        written = write(folder, result.figures, parts, options.seed)
    result.text += f"\nwrote {folder}: {', '.join(written)}"
    return result


def write(
    folder: Path, figures: Mapping[str, Any], parts: Sequence[tuple[EvaluatedSplit, Path]], seed: int
) -> list[str]:
    """Write predictions and result.json, then the pictures.

    Args:
        folder: of result.json.
        figures: its content.
        parts: each split's result and the folder of its predictions and pictures.
        seed: of intervals and of the contact sheets' clips.

    Returns:
        Names of what was written.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM while drawing: the result is written.
    """
    _clear(folder)
    for part, place in parts:
        report.write_predictions(place, part)
    write_json(folder / "result.json", figures)
    with interruptible(f"the result is in {folder}, pictures may be missing"):
        pictures = [name for part, place in parts for name in report.write_pictures(place, part, seed)]
    return ["result.json", "predictions", *dict.fromkeys(pictures)]


def _evaluate_splits(
    options: EvaluateOptions, splits: Sequence[str], first: FrozenNetwork, cache: Path
) -> _Run:
    run = _Run()
    evaluator = baseline = None
    for split in splits:
        if evaluator is None or PLACEHOLDER in options.ckpt:
            network = first if evaluator is None else _load(options, split)
            evaluator = Evaluator(network, options, run.failed)
        clips = open_split(
            options.data,
            cache,
            options.lists,
            split,
            options.max_missing,
            need_train=options.protocol != ALL and PROTOCOLS[options.protocol].needs_train,
            unlabelled=options.protocol == ALL or not PROTOCOLS[options.protocol].needs_labels,
            check=evaluator.check,
        )
        protocols = [options.protocol]
        if options.protocol == ALL:
            protocols, skipped = _fitting(options, evaluator.network, clips)
            run.skipped += [line for line in skipped if line not in run.skipped]
            if baseline is None and evaluator.network.facts["format"] != "untrained":
                baseline = _baseline(options, evaluator.network, run)
        for protocol in protocols:
            run.trained.setdefault(protocol, []).append(_evaluated(evaluator, clips, protocol))
            if baseline is not None and not PROTOCOLS[protocol].needs_classifier:
                run.untrained.setdefault(protocol, []).append(_evaluated(baseline, clips, protocol))
    run.trained = {name: parts for name, parts in run.trained.items() if len(parts) == len(splits)}
    return run


def _evaluated(evaluator: Evaluator, clips: SplitClips, protocol: str) -> EvaluatedSplit:
    result = evaluator(clips, protocol)
    evaluator.network.require_unchanged()
    return EvaluatedSplit(evaluator.network, clips, result)


def _fitting(
    options: EvaluateOptions, network: FrozenNetwork, clips: SplitClips
) -> tuple[list[str], list[str]]:
    """The protocols that a network and its clips allow, and a line for each reason why others do not."""
    names, reasons = [], []
    labelled = bool((clips.labels[clips.test] >= 0).all())
    for name, spec in PROTOCOLS.items():
        lacking = [flag for flag in spec.needs_flags if getattr(options, flag) is None]
        if lacking:
            reasons.append(f"{name} was skipped: it needs --{lacking[0]}")
        elif spec.needs_classifier and not network.is_classifier:
            reasons.append(f"{name} was skipped: it needs a fine-tuned classifier")
        elif spec.needs_labels and not labelled:
            reasons.append(f"{name} was skipped: the clips have no classes")
        elif spec.needs_train and not len(clips.train):
            reasons.append(f"{name} was skipped: there are no labelled training clips")
        else:
            names.append(name)
    return names, reasons


def _baseline(options: EvaluateOptions, network: FrozenNetwork, run: _Run) -> Evaluator | None:
    untrained = untrained_like(network, options.seed, options.device)
    if untrained is None:
        architecture = network.facts["architecture"]
        run.skipped.append(f"no untrained baseline: {architecture} comes with trained weights")
        return None
    return Evaluator(untrained, options, run.failed)


def _with_folders(options: EvaluateOptions, run: _Run, folder: Path) -> Iterator[tuple[EvaluatedSplit, Path]]:
    """Each split's result and the folder of its predictions and pictures."""
    for protocol, parts in run.trained.items():
        for part in parts:
            yield part, folder / protocol if options.protocol == ALL else folder
    for protocol, parts in run.untrained.items():
        for part in parts:
            yield part, folder / UNTRAINED / protocol


def _describe_one(options: EvaluateOptions, run: _Run) -> EvaluationResult:
    (parts,) = run.trained.values()
    figures = describe(options, parts, run.failed)
    return EvaluationResult(report.table(figures), figures, predictions=predictions_of(parts))


def _describe_all(options: EvaluateOptions, run: _Run) -> EvaluationResult:
    """The results of all protocols in one: each as its own result.json would be, and one table."""
    from tce.evaluation.compare import baseline_table

    both: list[dict[str, EvaluationResult]] = []
    for parts_of, place in ((run.trained, ""), (run.untrained, f"{UNTRAINED}/")):
        found = {}
        for protocol, parts in parts_of.items():
            figures = describe(options, parts, run.failed)
            figures["folder"] = place + protocol
            found[protocol] = EvaluationResult(
                report.table(figures), figures, Path(place + protocol), predictions_of(parts)
            )
        both.append(found)
    trained, untrained = both
    first = next(iter(trained.values())).figures
    notes = list(dict.fromkeys(note for result in trained.values() for note in result.figures["notes"]))
    summary, lines = baseline_table(
        [(result.figures, result.predictions) for result in trained.values()],
        [(result.figures, result.predictions) for result in untrained.values()],
        options.seed,
    )
    figures = {
        "protocol": ALL,
        "split": first["split"],
        "checkpoint": first["checkpoint"],
        "data": first["data"],
        "seed": options.seed,
        "summary": summary,
        "results": {protocol: result.figures for protocol, result in trained.items()},
        "untrained": {protocol: result.figures for protocol, result in untrained.items()},
        "notes": notes + run.skipped,
    }
    head = f"all protocols, {first['checkpoint']['name']}, split {', '.join(first['splits'])}: "
    head += report.format_clips(first["data"])
    text = "\n".join([head, *lines, *(f"note: {note}" for note in figures["notes"])])
    return EvaluationResult(text, figures, results=trained, untrained=untrained)


@contextlib.contextmanager
def interruptible(kept: str) -> Iterator[None]:
    """Add to the message of Ctrl-C or SIGTERM what is written.

    Raises:
        KeyboardInterrupt: with the message.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"{str(error) or 'stopped by Ctrl-C'}: {kept}") from error


def _require_no_run(folder: Path) -> None:
    """Refuse to replace a run's own result.

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
        places = [
            folder,
            *(folder / name for name in PROTOCOLS),
            *(folder / UNTRAINED / name for name in PROTOCOLS),
        ]
        for place in places:
            for pattern in ("predictions-*.csv", "predictions-*.npz", *report.PICTURES):
                for old in place.glob(pattern):
                    old.unlink()


def _load(
    options: EvaluateOptions, split: str, network: FrameEncoder | Classifier | None = None
) -> FrozenNetwork:
    spec = PROTOCOLS.get(options.protocol)
    classifier = spec is not None and spec.needs_classifier
    if network is None:
        ckpt = options.ckpt.replace(PLACEHOLDER, split)
        return load_network(
            ckpt, options.model, options.image_size, options.seed, options.device, classifier=classifier
        )
    if classifier and not isinstance(network, Classifier):
        raise OptionError(
            f"protocol {options.protocol}",
            expected="a fine-tuned classifier",
            found="an encoder",
            fix="use knn or linear, or tce finetune --weights",
        )
    name = short_name(options.ckpt) if options.ckpt else network.config.architecture
    facts = {"path": options.ckpt or None, "format": "in memory"}
    return freeze(copy.deepcopy(network), name, options.device, facts)


def _folder(options: EvaluateOptions, network: FrozenNetwork) -> Path:
    """Where results go by default: named after what they depend on most, in the current folder."""
    data = Path(options.data).resolve().name or "data"
    split = options.split.replace(",", "-")
    name = f"{network.name}-{network.facts['hash'][:6]}"
    return Path(ROOT) / name / f"{options.protocol}-{data}-{split}"


def _tag(data: str) -> str:
    """A folder's name for the packed videos of a path."""
    place = Path(data).resolve()
    return f"{place.name}-{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"
