"""The content of report.json, and the sentence at the head of the report."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from tce.reporting.comparison import KNN, RETRIEVAL, Compared, Looked, Network, few_name, interval_of
from tce.reporting.verdict import RULES, Difference

if TYPE_CHECKING:
    from tce.options.report import ReportOptions
    from tce.reporting.footage_features import FootageFeatures
    from tce.reporting.own_adaptation import OwnAdaptation, Stability

LIBRARIES = ("torch", "numpy", "scikit-learn", "onnxruntime", "av", "opencv-python-headless")


def describe_report(
    options: ReportOptions,
    looked: Looked,
    own: OwnAdaptation,
    stability: Stability,
    found: Compared,
    features: FootageFeatures,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Everything that the report says, JSON types."""
    import tce

    catalog = looked.catalog
    seed = options.seed
    return {
        "command": command_line(options),
        "options": dataclasses.asdict(options),
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "footage": {
            "path": options.footage,
            "clips": len(catalog),
            "pieces": len(looked.owners),
            "recordings": len(set(looked.recordings)),
            "frames": looked.frames,
            "skipped": dict(features.skipped),
            "groups": None if looked.groups is None else len(set(looked.groups)),
        },
        "labels": _labels(found),
        "measure": found.measure,
        "headline": headline(found, options.footage),
        "rules": list(RULES),
        "networks": {one.name: _network(one, found, looked, seed) for one in found.networks},
        "adaptation": _adaptation(own, stability),
        "limits": found.limits,
        "cautions": found.cautions,
        "versions": {"tce": tce.__version__, "python": platform.python_version(), **_versions()},
        "engines": sorted(set(features.engines.values())),
        "frames_passed": features.passed,
        "seconds": dict(seconds),
    }


def headline(found: Compared, footage: str) -> str:
    """The verdict in one sentence."""
    judged = found.judged
    if not judged:
        return f"{footage}: no network was compared with the start"
    one = judged[0]
    assert one.verdict is not None
    named = one.verdict.decision in ("better", "worse", "collapsed")
    return f"{one.name} is " * named + f"{one.verdict.text}; {one.verdict.advice}"


def command_line(options: ReportOptions) -> str:
    """The command that makes this report again: what differs from the defaults."""
    parts = ["tce", "report", options.footage]
    for entry in dataclasses.fields(options):
        value = getattr(options, entry.name)
        if entry.name == "footage" or value in (entry.default, None):
            continue
        parts.append(f"--{entry.name.replace('_', '-')}")
        if isinstance(value, tuple):
            parts += map(str, value)
        elif value is not True:
            parts.append(str(value))
    return shlex.join(parts)


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _labels(found: Compared) -> dict[str, Any] | None:
    split = found.split
    if split is None:
        return None
    train = max((len(part) for part, _ in split.folds), default=0)
    return {
        "classes": split.classes,
        "tested": len(split.tested),
        "most_training_clips": train,
        "chosen": split.words,
        "chance": 1 / len(split.classes),
    }


def _network(one: Network, found: Compared, looked: Looked, seed: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"role": one.role, **one.facts}
    for name, values, recordings in figure_values(one, found, looked):
        interval = interval_of(values, recordings, seed)
        figures[name] = {"value": float(np.nanmean(values)), "interval": interval}
    if one.retrieval is not None:
        figures["chance to find one's own clip"] = one.retrieval.chance
    if one.motion is not None:
        figures["motion"] = one.motion.figures
    if one.group is not None:
        figures["group"] = {"value": float(np.nanmean(one.group.hits)), "chance": one.group.chance}
    figures["against start"] = {name: _difference(value) for name, value in one.against.items()}
    if one.verdict is not None:
        figures["verdict"] = dataclasses.asdict(one.verdict)
    return figures


def figure_values(one: Network, found: Compared, looked: Looked) -> list[tuple[str, Any, list[str]]]:
    """Name, a value for each clip or piece (or [draws, n]), and the recordings, of a network's shares."""
    rows: list[tuple[str, Any, list[str]]] = []
    if one.labels is not None and found.split is not None:
        tested = [looked.recordings[n] for n in found.split.tested]
        rows.append((KNN, one.labels.knn, tested))
        if one.labels.linear is not None:
            rows.append(("linear classifier", one.labels.linear, tested))
        rows += [(few_name(shot), hits, tested) for shot, hits in one.labels.few.items()]
    if one.retrieval is not None:
        rows.append((RETRIEVAL, one.retrieval.found, looked.piece_recordings))
        rows.append(("separation", one.retrieval.separation, looked.piece_recordings))
    return rows


def _difference(found: Difference) -> dict[str, Any]:
    return {"gain": found.gain, **dataclasses.asdict(found)}


def _adaptation(own: OwnAdaptation, stability: Stability) -> dict[str, Any] | None:
    if own.validation is None:
        return {"why_not": own.why_not} if own.why_not else None
    return {
        "kept_start": own.validation.keeps_start,
        "shrinkage": own.validation.shrinkage,
        "embedding_size": None if own.map is None else len(own.map.weight),
        "gains_of_halves": stability.gains,
        "agreement_of_halves": stability.agreement,
        "why_not": own.why_not,
    }
