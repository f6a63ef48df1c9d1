"""What a reader of a result must know of its network and its clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tce.data.catalog import share_seen
from tce.evaluation.frozen_network import FrozenNetwork
from tce.evaluation.report import EvaluatedSplit, counted
from tce.model.checkpoint import unfinished


def caveats(parts: Sequence[EvaluatedSplit], failed: Mapping[str, str]) -> list[str]:
    """A line for each thing that a reader of the metrics must know.

    Missing, short and failed clips; recordings or groups on both sides; a network that has seen the test
    clips, or whose training was not finished.

    Args:
        parts: the splits.
        failed: clip's id -> why it could not be read.
    """
    lines: list[str] = []
    for part in parts:
        lines += _of_network(part.network) + _of_clips(part) + _of_leaks(part)
    if failed:
        some = ", ".join(list(failed)[:5])
        lines.append(f"{counted(len(failed), 'clip')} could not be read and were left out: {some}")
    return list(dict.fromkeys(lines))


def _of_network(network: FrozenNetwork) -> list[str]:
    """Trainings, also of what it started from, that were stopped early; and its own training clips."""
    origin, lines = network.facts["provenance"] or {}, []
    for training in _ancestry(origin):
        state = unfinished(dict(training))
        if state:
            lines.append(f"the network's training ({training.get('made', 'unknown')}) is {state}")
    held_out = origin.get("held_out_clips")
    if held_out:
        trained = origin.get("train_clips")
        lines.append(
            f"{network.name} was trained on {trained} of its {trained + held_out} training clips; "
            f"{held_out} were held out for validation"
        )
    return lines


def _of_clips(part: EvaluatedSplit) -> list[str]:
    lines, split, settings = [], part.clips, part.result.settings
    name = split.split
    if split.missing:
        lines.append(
            f"split {name}: {counted(len(split.missing), 'listed clip')} "
            f"({split.missing_share:.1%}) not found"
        )
    if settings.get("short"):
        count, span = settings["short"], settings["frames_per_sample"]
        lines.append(
            f"split {name}: {count} clips have fewer than {span} frames, their last one was repeated"
        )
    if settings.get("center"):
        lines.append(
            f"split {name}: the mean of each {settings['center']}'s clips was subtracted, test clips "
            "included (their frames, not their labels)"
        )
    if settings.get("too_short"):
        lines.append(f"split {name}: {settings['too_short']} clips were too short and left out")
    lines += [f"split {name}: {note}" for note in part.result.notes]
    return lines


def _of_leaks(part: EvaluatedSplit) -> list[str]:
    lines, split, result = [], part.clips, part.result
    name = split.split
    train, test = (split.recordings[rows].astype(str) for rows in (split.train, result.rows))
    shared = len(np.intersect1d(train, test))
    groups = len(set(split.groups[split.train]) & set(split.groups[result.rows]))
    uses_train = result.scores is not None or result.neighbours is not None or bool(result.draws)
    if shared and uses_train:
        lines.append(f"split {name}: {shared} recordings have pieces in both training and test clips")
    elif groups and uses_train:
        lines.append(f"split {name}: {groups} groups (people) have clips in both training and test clips")
    for origin in _ancestry(part.network.facts["provenance"]):
        lines += [f"split {name}: {line}" for line in _of_training(origin, part) if line]
    return list(dict.fromkeys(lines))


def _of_training(origin: Mapping[str, Any], part: EvaluatedSplit) -> Iterator[str]:
    """Which test clips a step of the network's training has used; nothing where there are none."""
    tuned = origin.get("made") == "tce finetune"
    how = "trained" if tuned else "pre-trained, without labels,"
    if "clips" in origin:
        ids = part.clips.store.catalog.ids[part.result.rows]
        share = share_seen(ids, origin["clips"])
        if share:
            yield f"the network was {how} on {share:.0%} of these test clips, by their names"
    elif origin.get("split") not in (None, part.clips.split):
        yield f"the network was {how} on split {origin['split']}, perhaps on these test clips"


def _ancestry(origin: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Where a network comes from, then where the weights that it started from came from, and so on."""
    while origin:
        yield origin
        origin = (origin.get("weights") or {}).get("provenance")
