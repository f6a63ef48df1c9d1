"""What a reader of the figures must know about the clips they were made on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tce.evaluation.split_clips import SplitClips
from tce.evaluation.protocols import Outcome
from tce.evaluation.frozen_network import Subject
from tce.data.clip_sketch import share_seen


def notes(
    subjects: Sequence[Subject],
    clips: Sequence[SplitClips],
    outcomes: Sequence[Outcome],
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
        lines += _of_clips(split, outcome) + _of_leaks(subject, split, outcome)
    if failed:
        some = ", ".join(list(failed)[:5])
        lines.append(f"{len(failed)} clips could not be read and were left out: {some}")
    return lines


def _of_clips(split: SplitClips, outcome: Outcome) -> list[str]:
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


def _of_leaks(subject: Subject, split: SplitClips, outcome: Outcome) -> list[str]:
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


def _of_training(origin: Mapping[str, Any], split: SplitClips, outcome: Outcome) -> Iterator[str]:
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
