"""Segments as a table, and what follows from it: bouts, time budget, transitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.discovery.behaviour_model import Behaviour
from tce.discovery.recordings import RecordedFrames, Recording
from tce.discovery.segmentation import Segment
from tce.errors import printable
from tce.io import atomic, write_csv

SEGMENTS = "segments.csv"
COLUMNS = ("video", "start", "end", "cluster", "confidence", "behaviour", "group")


@dataclass(frozen=True)
class Bout:
    """A segment with its times.

    Attributes:
        recording: number of its recording.
        start: seconds, when its first frame is shown.
        end: seconds, when the next segment's first frame is shown.
        behaviour: number.
        confidence: 0 to 1.
        segment: its rows.
    """

    recording: int
    start: float
    end: float
    behaviour: int
    confidence: float
    segment: Segment

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.end - self.start


@dataclass(frozen=True)
class BoutTable:
    """All bouts, in order of recordings and time.

    Attributes:
        bouts: the bouts.
        behaviours: what they are of.
        recordings: where they are.
        lengths: seconds of each recording.
    """

    bouts: list[Bout]
    behaviours: list[Behaviour]
    recordings: list[Recording]
    lengths: list[float]

    @classmethod
    def of(
        cls, segments: Sequence[Sequence[Segment]], behaviours: list[Behaviour], frames: RecordedFrames
    ) -> BoutTable:
        """The bouts of segments of frames."""
        bouts = []
        ends = frames.ends()
        for number, (rows, own) in enumerate(zip(frames.spans, segments, strict=True)):
            edges = np.append(frames.time[rows], ends[number])
            bouts += [
                Bout(
                    number, float(edges[one.first]), float(edges[one.stop]), one.cluster, one.confidence, one
                )
                for one in own
            ]
        lengths = [end - float(frames.time[rows][0]) for end, rows in zip(ends, frames.spans)]
        return cls(bouts, behaviours, frames.recordings, lengths)

    def durations(self) -> list[NDArray[np.float64]]:
        """The lengths in seconds of each behaviour's bouts."""
        return [
            np.array([bout.seconds for bout in self.bouts if bout.behaviour == number])
            for number in range(len(self.behaviours))
        ]

    def transitions(self) -> NDArray[np.int64]:
        """How often each behaviour (row) was followed by each other one (column), [B, B]."""
        counts = np.zeros((len(self.behaviours), len(self.behaviours)), np.int64)
        for before, after in zip(self.bouts[:-1], self.bouts[1:]):
            if before.recording == after.recording:
                counts[before.behaviour, after.behaviour] += 1
        return counts

    def budget(self) -> NDArray[np.float64]:
        """Seconds of each behaviour (column) in each recording (row)."""
        seconds = np.zeros((len(self.recordings), len(self.behaviours)))
        for bout in self.bouts:
            seconds[bout.recording, bout.behaviour] += bout.seconds
        return seconds

    def group_budget(self) -> tuple[list[str], NDArray[np.float64]]:
        """Names of the groups, and seconds of each behaviour (column) in each of them (row)."""
        names = [one.group for one in self.recordings]
        known = list(dict.fromkeys(name for name in names if name))
        budget = self.budget()
        rows = [budget[[at for at, name in enumerate(names) if name == group]].sum(axis=0) for group in known]
        return known, np.array(rows).reshape(len(known), len(self.behaviours))

    def write(self, folder: Path) -> None:
        """Write segments.csv, bouts.csv, transitions.csv and budget.csv."""
        _write(folder / SEGMENTS, [COLUMNS, *map(self._row, self.bouts)])
        header: tuple[str, ...]
        header = (
            "behaviour",
            "cluster",
            "bouts",
            "seconds",
            "share",
            "mean",
            "median",
            "shortest",
            "longest",
        )
        total = max(sum(self.lengths), 1e-9)
        rows: list[Sequence[Any]] = [header]
        for behaviour, own in zip(self.behaviours, self.durations(), strict=True):
            spread = [own.mean(), np.median(own), own.min(), own.max()] if len(own) else [None] * 4
            rows.append(
                (
                    behaviour.name,
                    behaviour.key,
                    len(own),
                    *_rounded([own.sum(), own.sum() / total]),
                    *_rounded(spread),
                )
            )
        _write(folder / "bouts.csv", rows)
        names = [behaviour.name for behaviour in self.behaviours]
        counts = self.transitions()
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        rows = [("from", "to", "count", "probability")]
        for (before, after), count in np.ndenumerate(counts):
            if count:
                rows.append((names[before], names[after], int(count), round(float(share[before, after]), 4)))
        _write(folder / "transitions.csv", rows)
        rows = [("kind", "name", "seconds", *names)]
        for one, seconds, own in zip(self.recordings, self.lengths, self.budget(), strict=True):
            rows.append(("video", one.name, round(seconds, 3), *_rounded(own / max(seconds, 1e-9))))
        for group, own in zip(*self.group_budget(), strict=True):
            rows.append(
                ("group", group, round(float(own.sum()), 3), *_rounded(own / max(float(own.sum()), 1e-9)))
            )
        _write(folder / "budget.csv", rows)

    def _row(self, bout: Bout) -> Sequence[Any]:
        one, behaviour = self.recordings[bout.recording], self.behaviours[bout.behaviour]
        return (
            one.name,
            *_rounded([bout.start, bout.end]),
            behaviour.key,
            *_rounded([bout.confidence]),
            behaviour.name,
            one.group,
        )


def _rounded(values: Any) -> list[float | None]:
    return [None if value is None else round(float(value), 3) for value in values]


def _write(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with atomic(path, "w") as file:
        write_csv(file, [[printable(one) if isinstance(one, str) else one for one in row] for row in rows])
