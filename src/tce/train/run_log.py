"""The logs of a run: log.csv and TensorBoard events, with the same metrics in both.

A resumed run leaves what an uninterrupted one would: rows after its checkpoint are removed from log.csv, and
TensorBoard hides the events after it (`purge_step`).
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tce.errors import TceError
from tce.io import atomic

TIMING_COLUMNS = ("images_per_s", "waiting", "seconds")  # exempt from exact resume


class CsvLog:
    """log.csv: one row per logged step, with the columns of its first line.

    Args:
        path: the file; an existing one keeps its rows up to `step`.
        columns: names in order; the first is "step".
        step: last step whose row is kept.

    Raises:
        TceError: the existing file is not a log.
    """

    def __init__(self, path: Path, columns: Sequence[str], step: int):
        self.path, self.columns = path, list(columns)
        rows = [row for row in read_log(path) if row["step"] <= step] if step >= 0 and path.exists() else []
        with atomic(path, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows([_text(row.get(name)) for name in self.columns] for row in rows)
        self._file = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115 - closed by close()

    def write(self, row: Mapping[str, float | None]) -> None:
        """Append a row; columns that it lacks stay empty."""
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(_text(row.get(name)) for name in self.columns)
        self._file.write(line.getvalue())
        self._file.flush()  # programs that follow the file see whole rows

    def sync(self) -> None:
        """Bring every row to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class RunLog:
    """log.csv and the TensorBoard events of a run folder.

    Args:
        folder: the run folder.
        columns: names of the logged metrics in log.csv's order; step, epoch and timing are added.
        step: last step of an earlier run that is kept; -1 starts new logs.

    Raises:
        TceError: log.csv of the earlier run cannot be read.
    """

    def __init__(self, folder: Path, columns: Sequence[str], step: int = -1):
        from torch.utils.tensorboard import SummaryWriter

        self.csv = CsvLog(folder / "log.csv", ["step", "epoch", *columns, *TIMING_COLUMNS], step)
        events = folder / "tensorboard"
        for stale in events.glob("events.out.tfevents.*") if step < 0 else ():
            stale.unlink()
        wait_for_next_second(events)
        self.events = SummaryWriter(str(events), purge_step=step + 1 if step >= 0 else None)  # type: ignore[no-untyped-call]

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step; names that are no column appear in TensorBoard only."""
        self.csv.write({"step": step, **metrics})
        for name, value in metrics.items():
            if name != "epoch":
                self.events.add_scalar(name, float(value), step)  # type: ignore[no-untyped-call]

    def sync(self) -> None:
        """Write every row and event to the disk."""
        self.csv.sync()
        self.events.flush()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close both files.

        Raises:
            OSError: the disk refused the last rows.
        """
        with contextlib.ExitStack() as stack:  # the second is closed although the first one fails
            stack.callback(self.events.close)
            stack.callback(self.csv.close)


def wait_for_next_second(events: Path) -> None:
    """Wait until a new event file is named by a later second than those that are there.

    TensorBoard reads the files in the order of their names, which within a second is that of process numbers:
    a run resumed within the second would be read before the one that it continues.
    """
    starts = [file.name.split(".")[3] for file in events.glob("events.out.tfevents.*")]
    latest = max((int(start) for start in starts if start.isdigit()), default=0)
    if latest <= time.time():  # else the clock was set back, and no waiting helps
        while int(time.time()) == latest:
            time.sleep(0.02)


def read_log(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The complete rows of a log.csv as numbers, without empty fields and an incomplete last line.

    Raises:
        TceError: a column "step" or a number is missing, or the file is not text.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        rows = []
        for row in reader:
            if None in row:
                raise ValueError("more fields in a row than columns")
            rows.append({name: float(value) for name, value in row.items() if value})
    except (ValueError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
        raise _bad_log(path, str(error)) from error
    if any("step" not in row for row in rows):
        raise _bad_log(path, "a row without a step")
    return rows


def _bad_log(path: str | os.PathLike[str], found: str) -> TceError:
    return TceError(
        f"{path} cannot be read",
        expected="the rows of numbers that tce wrote, with a column step",
        found=found,
        fix="restore the file, or remove it: a resumed run then logs from its checkpoint on",
    )


def _text(value: float | None) -> str:
    if value is None:
        return ""
    if float(value).is_integer() and math.fabs(value) < 1e15:
        return str(int(value))
    return repr(float(value))
