"""The run folder: options, logs, checkpoints and results, used by one process at a time.

options.json        all options, versions, git commit, data fingerprint
log.csv             one row per logged step
tensorboard/        the same figures as curves
checkpoints/        latest.pt: the training state, and earlier ones with --keep
model.safetensors   the network, with config.json
result.json         the figures at the end
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

import tce.device
from tce.distributed import DistributedContext
from tce.errors import OptionError, TceError
from tce.io import Result, atomic, no_empty_folders, require_pandas, require_writable, write_json
from tce.model.checkpoint import load_encoder
from tce.model.encoder import FrameEncoder
from tce.options.training import RunOptions
from tce.train.run_record import RunLog, read_log, read_options, require_same
from tce.train.training_state import load_training_state, save_training_state

log = logging.getLogger("tce.train")

FILES = ("options.json", "log.csv", "model.safetensors", "config.json", "result.json")
FOLDERS = ("tensorboard", "checkpoints")

Run = TypeVar("Run", bound=RunOptions)


class RunFolder:
    """A run's folder, locked from construction to `close`.

    Args:
        path: the folder; created if missing, and removed again by `close` while it is empty.
        resume: resume the run in the folder, or start one if there is none.
        force: replace the run in the folder.
        flag: the option that names the folder, for messages.

    Raises:
        OptionError: the folder holds a run and neither `resume` nor `force` is given.
        TceError: the folder cannot be written, or another process is using it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        resume: bool = False,
        force: bool = False,
        flag: str = "--out",
    ):
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise TceError(
                f"{flag} {self.path}", expected="a folder", found="a file", fix="choose another name"
            )
        require_writable(self.path / "options.json", flag)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(no_empty_folders(self.path))
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path / ".lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise TceError(
                f"{flag} {self.path}",
                expected="a run folder that no other process is using",
                found="one in use",
                fix=f"wait for the other process or choose another {flag}",
            ) from error
        self.resume, self.force = resume, force
        self.log: RunLog | None = None
        self._saved_step = -1
        if self.exists() and not (resume or force):
            self.close()
            raise OptionError(
                f"{flag} {self.path}",
                expected="a new folder",
                found="a run",
                fix="--resume resumes it, --force replaces it",
            )
        for leftover in [*self.path.glob(".*.part"), *self.checkpoints.glob(".*.part")]:
            leftover.unlink()  # files that a killed process was still writing

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the logs, unlock the folder, and remove it if the run failed before anything was written."""
        run_log, self.log = self.log, None
        try:
            if run_log is not None:
                run_log.close()
        except OSError as error:  # rows that a full disk refused again; the trainer has reported it
            log.debug("%s: %s", self.path, error)
        finally:
            if self._lock.is_locked:
                # Removed while it is held: whoever opened it meanwhile finds it unlinked and tries again.
                (self.path / ".lock").unlink(missing_ok=True)
            self._lock.release()
            self._stack.close()

    @property
    def checkpoints(self) -> Path:
        """The folder of the training states."""
        return self.path / "checkpoints"

    @property
    def latest(self) -> Path:
        """The newest training state."""
        return self.checkpoints / "latest.pt"

    @property
    def model_file(self) -> Path:
        """The network."""
        return self.path / "model.safetensors"

    def stored_precision(self) -> str | None:
        """The precision of the run that `resume` continues; None for a new run."""
        if not self.resume or not (self.path / "options.json").exists():
            return None
        stored = read_options(self.path).get("options", {}).get("run", {}).get("precision")
        return stored if stored in ("float32", "bf16") else None

    def exists(self) -> bool:
        """Whether a run has been started in the folder."""
        return any((self.path / name).exists() for name in (*FILES, *FOLDERS))

    def begin(
        self,
        record: Mapping[str, Any],
        columns: Sequence[str],
        free: Sequence[str] = (),
        current: Callable[[Mapping[str, Any], str], Mapping[str, Any]] = lambda stored, _: stored,
    ) -> dict[str, Any] | None:
        """Write options.json and open the logs of a new or a resumed run.

        Args:
            record: what `describe_run` returned.
            columns: names of the logged metrics.
            free: options that may differ when the run is resumed.
            current: translates an earlier version's options.json of the folder at a path.

        Returns:
            The training state to resume from, or None at the start of a run.

        Raises:
            OptionError: options differ from the run's; the message names each of them.
            TceError: the run's options, log or checkpoint cannot be read.
        """
        state = None
        if self.resume and (self.path / "options.json").exists():
            require_same(current(read_options(self.path), str(self.path)), record, free)
            state = self.load() if self.latest.exists() else None
            if state is None:
                self._require_no_checkpoint()
                log.info("%s has no checkpoint yet: starting from its first step", self.path)
        elif self.resume:
            if self.latest.exists():
                raise TceError(
                    f"--resume {self.path}",
                    expected="the run's options.json",
                    found="checkpoints without it",
                    fix="restore the file, or start again with --force",
                )
            log.info("%s holds no run to resume: starting one", self.path)
        if self.force:
            self._clear()
        step = state["step"] if state else 0
        self._saved_step = step if state else -1
        self.log = RunLog(self.path, columns, self._saved_step)
        write_json(self.path / "options.json", record)
        for later in self.checkpoints.glob("step-*.pt"):
            if int(later.stem.removeprefix("step-")) > step:
                later.unlink()  # later than the checkpoint that the user went back to
        return state

    def _require_no_checkpoint(self) -> None:
        """Check that no earlier checkpoint, kept by --keep, would be lost by starting from the first step.

        Raises:
            TceError: there is one.
        """
        kept = sorted(self.checkpoints.glob("step-*.pt"))
        if kept:
            raise TceError(
                f"--resume: {self.latest}",
                expected="the newest training state",
                found=f"none, but {len(kept)} earlier ones",
                fix=f"copy {kept[-1].name} to {self.latest.name} and resume, or start again with --force",
            )

    def _clear(self) -> None:
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def save(self, state: Mapping[str, Any], keep: int = 1) -> None:
        """Write a training state as `checkpoints/latest.pt`, whole or not at all.

        Args:
            state: plain values and tensors, with "step".
            keep: checkpoints to keep, this one included, as `step-N.pt`.

        Raises:
            OSError: the disk is full or gone; the previous checkpoint is kept.
        """
        assert self.log is not None, "call begin first"
        self.log.sync()
        save_training_state(self.latest, state)
        self._saved_step = state["step"]
        if keep > 1:
            self._link(self.checkpoints / f"step-{state['step']:09d}.pt")
            for old in sorted(self.checkpoints.glob("step-*.pt"))[:-keep]:
                old.unlink()

    def _link(self, target: Path) -> None:
        """Link the latest state under a second name, or copy it where the file system has no links."""
        target.unlink(missing_ok=True)
        try:
            os.link(self.latest, target)
        except OSError:
            with open(self.latest, "rb") as source, atomic(target) as copy:
                shutil.copyfileobj(source, copy)

    @property
    def saved_step(self) -> int:
        """Step of the newest training state, or -1."""
        return self._saved_step

    def load(self) -> dict[str, Any]:
        """The newest training state, its tensors on the CPU.

        Raises:
            TceError: it cannot be read.
        """
        return load_training_state(
            self.latest,
            fix="copy an earlier file of its folder over it, start a new run from the network with "
            f"--weights {self.path}, or start again with --force",
        )

    def first_row(self) -> dict[str, float]:
        """The first row of log.csv: the untrained network's figures; empty if there is none."""
        rows = read_log(self.path / "log.csv")
        return rows[0] if rows else {}

    def write_result(self, content: Mapping[str, Any]) -> None:
        """Write result.json."""
        write_json(self.path / "result.json", content)


@dataclasses.dataclass(repr=False)
class RunResult(Result):
    """A finished run: its text and figures, and what lies in its folder.

    Attributes:
        folder: the run folder.
    """

    folder: str = ""

    def __repr__(self) -> str:
        return f"RunResult({self.folder!r})"

    @functools.cached_property
    def encoder(self) -> FrameEncoder:
        """The network, on the CPU, in evaluation mode."""
        return load_encoder(self.folder)

    @property
    def log(self) -> Any:
        """log.csv as a pandas DataFrame.

        Raises:
            TceError: pandas is not installed.
        """
        return require_pandas().DataFrame(read_log(Path(self.folder) / "log.csv"))


def settle_precision(
    run: Run, folder: RunFolder | None, context: DistributedContext
) -> tuple[Run, dict[str, Any]]:
    """`run` with the precision it computes in: that of the run that is resumed, or the faster one for "auto".

    Args:
        run: where and how the run goes.
        folder: its folder, in the main process.
        context: the main process decides for all.

    Returns:
        The options, and options.json's record of the choice: what was asked for, and the times measured.
    """
    kept = folder.stored_precision() if folder is not None and run.precision == "auto" else None
    chosen = kept or (tce.device.choose_precision(run.precision, context.device) if context.is_main else None)
    chosen = context.broadcast(chosen)
    record: dict[str, Any] = {"requested": run.precision, "resumed": kept is not None}
    if context.is_main and run.precision != "float32" and kept is None:
        probe = tce.device.probe_precision(context.device)
        record |= {"float32_ms": 1000 * probe.float32, "bf16_ms": 1000 * probe.bf16}
    return dataclasses.replace(run, precision=chosen), record
