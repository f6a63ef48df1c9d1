"""A run's log: log.csv for people and programs, TensorBoard events for curves, the same figures in both.

Both files can be cut back to a checkpoint's step: a resumed run leaves what an uninterrupted one would.
"""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tce.io import atomic

TIMING_COLUMNS = ("images_per_s", "waiting", "seconds")  # exempt from exact resume


class CsvLog:
    """log.csv: one row per logged step, columns fixed by its first line.

    Args:
        path: the file; kept up to `step` where it exists, rows after that are cut off.
        columns: names in order; the first is "step".
        step: last step whose row stays.
    """

    def __init__(self, path: Path, columns: Sequence[str], step: int):
        self.path, self.columns = path, list(columns)
        rows = [row for row in read_log(path) if row["step"] <= step] if path.exists() else []
        with atomic(path, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows([_text(row.get(name)) for name in self.columns] for row in rows)
        self._file = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115 - closed by close()

    def write(self, row: Mapping[str, float | None]) -> None:
        """Append a row; columns it lacks stay empty."""
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(_text(row.get(name)) for name in self.columns)
        self._file.write(line.getvalue())
        self._file.flush()  # whoever follows the file sees whole rows

    def sync(self) -> None:
        """Bring every row to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class EventLog:
    """TensorBoard's event file, written synchronously, so that it can be cut at a known size.

    Args:
        folder: where TensorBoard looks.
        size: bytes to keep of a file that is there; the rest is cut off.
    """

    def __init__(self, folder: Path, size: int):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "events.out.tfevents.0.tce"  # TensorBoard knows its files by the word "tfevents"
        self._file = open(path, "ab")  # noqa: SIM115 - closed by close()
        self._file.truncate(min(size, os.fstat(self._file.fileno()).st_size))
        self._records = RecordWriter(self._file)
        if self.size() == 0:
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append the figures of one step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()

    def size(self) -> int:
        """Bytes written so far."""
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    def sync(self) -> None:
        """Bring every event to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class RunLog:
    """The two logs of a run folder, written together.

    Args:
        folder: the run folder.
        columns: what is logged, in log.csv's order, without step and timing, which are added.
        step: last step that stays of an earlier run.
        state: what `state` gave at that step.
    """

    def __init__(
        self, folder: Path, columns: Sequence[str], step: int = 0, state: Mapping[str, int] | None = None
    ):
        self.csv = CsvLog(
            folder / "log.csv", ["step", "epoch", *columns, *TIMING_COLUMNS], step if state else -1
        )
        self.events = EventLog(folder / "tensorboard", state["events"] if state else 0)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures of a step; unknown names are left out of log.csv, NaN is written as such."""
        self.csv.write({"step": step, **figures})
        self.events.write(step, {name: float(value) for name, value in figures.items() if name != "epoch"})

    def state(self) -> dict[str, int]:
        """What a checkpoint must hold to cut the logs back to this moment; all rows are on the disk then."""
        self.csv.sync()
        self.events.sync()
        return {"events": self.events.size()}

    def close(self) -> None:
        """Close both files."""
        self.csv.close()
        self.events.close()


def read_log(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The whole rows of a log.csv as numbers; empty fields are left out, and a torn last line is skipped."""
    rows: list[dict[str, float]] = []
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]
    for row in csv.DictReader(io.StringIO(whole)):
        rows.append({name: float(value) for name, value in row.items() if name and value})
    return rows


def _text(value: float | None) -> str:
    if value is None:
        return ""
    if float(value).is_integer() and math.fabs(value) < 1e15:
        return str(int(value))
    return repr(float(value))
