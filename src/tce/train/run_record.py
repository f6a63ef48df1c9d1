"""What a run writes of itself: its options (options.json), and its logs (log.csv and TensorBoard events).

A resumed run leaves what an uninterrupted one would: rows after its checkpoint are removed from log.csv, and
TensorBoard hides the events after it (`purge_step`).
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tce.errors import OptionError, TceError
from tce.io import atomic, plain

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


class RunningMeans:
    """Means of metrics since the last logged row; sums stay on the device, so that no step waits for it."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, parts: Mapping[str, Tensor | float]) -> None:
        """Add one step's metrics."""
        for name, value in parts.items():
            value = torch.as_tensor(value, dtype=torch.float64 if isinstance(value, float) else None).detach()
            before = self._sums.get(name)
            self._sums[name] = value.double() if before is None else before + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means, with a reset; the only place that waits for the device."""
        means = self.peek()
        self._sums, self._counts = {}, {}
        return means

    def peek(self) -> dict[str, float]:
        """The means so far, without a reset."""
        return {name: float(value) / self._counts[name] for name, value in self._sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Sums and counts."""
        return {
            "sums": {name: float(value) for name, value in self._sums.items()},
            "counts": dict(self._counts),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in state["sums"].items()}
        self._counts = dict(state["counts"])


def describe_run(
    command: str,
    options: Mapping[str, Any],
    data: Mapping[str, Any],
    precision: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What options.json holds.

    Args:
        command: the command's name.
        options: the option groups as nested mappings.
        data: the data's fingerprint and sizes.
        precision: how the precision was chosen.
    """
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in ("tce-video", "torch", "numpy", "pylance", "simplejpeg", "opencv-python-headless"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    record = {"command": command, "options": options, "data": data, "versions": versions, "git": git_commit()}
    if precision is not None:
        record["precision"] = precision
    return json.loads(json.dumps(plain(record)))


def git_commit() -> str | None:
    """Commit of the checkout this package runs from, with "+changes" where files differ; else None."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", here, *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", Path(__file__).name
        )  # else it is the checkout of something around us
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def read_options(folder: Path) -> dict[str, Any]:
    """A run's options.json, with the structure that `describe_run` gives it.

    Raises:
        TceError: it is no JSON, or has another structure.
    """
    file, found = folder / "options.json", "another structure"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if _is_record(content):
            return content
    except (ValueError, RecursionError) as error:
        found = "no JSON" if isinstance(error, ValueError) else "JSON nested too deeply"
    raise TceError(
        f"--resume: {file} cannot be read",
        expected="the options that tce wrote",
        found=found,
        fix="restore it, start a new run from the network with --weights, or start again with --force",
    )


def _is_record(content: Any) -> bool:
    """Whether a file's content has the structure of `describe_run`'s result."""
    return (
        isinstance(content, dict)
        and all(isinstance(content.get(name), dict) for name in ("options", "data"))
        and all(isinstance(group, dict) for group in content["options"].values())
    )


def require_same(old: Mapping[str, Any], new: Mapping[str, Any], free: Sequence[str]) -> None:
    """Check that a run is resumed with the options and data it was started with.

    Args:
        old: the run's options.json.
        new: the same for the present command.
        free: field names that may differ.

    Raises:
        OptionError: the run is another command's, or data or options differ; the message names each of them.
    """
    if old.get("command") != new["command"]:
        raise OptionError(
            "--resume",
            expected=f"a run of `tce {new['command']}`",
            found=f"a run of `tce {old.get('command')}`",
        )
    differing = []
    for group, fields in new["options"].items():
        before = old["options"].get(group, {})
        for name, value in fields.items():
            if name not in before:
                continue  # an option that came later
            was = before[name]
            kind_differs = name == "epochs" and type(was) is not type(value)
            shortened = name == "epochs" and not kind_differs and value < was  # a run may only be extended
            if kind_differs or shortened or (name not in free and was != value):
                differing.append((f"--{name.replace('_', '-')}", _word(was), _word(value)))
    if differing:
        verb = "contradicts" if len(differing) == 1 else "contradict"
        raise OptionError(
            f"{', '.join(flag for flag, _, _ in differing)} {verb} the run that is resumed",
            expected=", ".join(f"{flag} {was}" for flag, was, _ in differing),
            found=", ".join(now for _, _, now in differing),
            fix="repeat the command as it was started, plus --resume",
        )
    if old["data"] != new["data"]:
        changed = [name for name in new["data"] if old["data"].get(name) != new["data"][name]]
        raise OptionError(
            "--resume",
            expected="the data the run was started on",
            found=f"other data (its {' and '.join(changed)} differ)",
            fix="give the same data and lists, or start a new run in another folder",
        )


def _word(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_word, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
