"""The training loop: steps, schedule, accumulation, logs, checkpoints, interruption, and exact resume.

It trains a `Task`, of which pre-training and fine-tuning are two. Its position is one number, the steps done:
epoch, place in the epoch, learning rate and the steps that are logged all follow from it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tce.data.frame_store import FrameStore
from tce.data.loader import Batch, Loader
from tce.distributed import DistributedContext
from tce.errors import TceError
from tce.options.training import OptimOptions, RunOptions
from tce.progress import Progress
from tce.signals import StopSignals
from tce.train.optim import TrainProgress, learning_rate, load_optimizer_state, make_optimizer
from tce.train.run_folder import RunFolder
from tce.train.run_record import TIMING_COLUMNS, RunningMeans

log = logging.getLogger("tce.train")


class Task(Protocol):
    """What is trained.

    Attributes:
        name: for the progress line, e.g. "pre-training".
        steps_per_epoch: optimiser steps in an epoch.
        images_per_step: images that pass the network in a step.
    """

    name: str
    steps_per_epoch: int
    images_per_step: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all metrics that it logs."""
        ...

    @property
    def seconds_waiting(self) -> float:
        """Seconds spent waiting for data so far."""
        ...

    def parameters(self) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
        """The parameters to train, or groups of them; a group's "lr_scale" multiplies the learning rate."""
        ...

    def batches(self, start: int) -> Iterator[Any]:
        """The batches of the whole run in order, from number `start` on."""
        ...

    def step(self, batch: Any, progress: TrainProgress) -> Mapping[str, Tensor | float]:
        """Forward pass on a batch: "loss", a scalar to minimise, and other metrics to log."""
        ...

    def after_step(self) -> None:
        """Work that follows the optimizer's step, such as updating a memory bank."""
        ...

    def validate(self) -> dict[str, float]:
        """Metrics of the network as it is now, for the log."""
        ...

    def warning(self, metrics: Mapping[str, float], progress: TrainProgress) -> str | None:
        """A problem that a logged row's metrics show, in one line, or None."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All state beside the optimizer's and the step; called by every process."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...

    def save_model(self, folder: RunFolder, step: int) -> None:
        """Write the network as it is now."""
        ...


class ClipTask:
    """What tasks that load clips share: batches on the device, and a list of the clips that cannot be read.

    Attributes:
        store: the clips.
        context: the processes at work.
        loader: gives the batches.
        failed: clip's id -> why it could not be read.
    """

    store: FrameStore
    context: DistributedContext
    loader: Loader
    failed: dict[str, str]

    @property
    def seconds_waiting(self) -> float:
        """Seconds spent waiting for data so far."""
        return self.loader.seconds_waiting

    def receive(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Frames on the device, and which samples are good, bool [b]; None where all are.

        Raises:
            TceError: none is, and no other process has the rest of the batch.
        """
        for row, reason in zip(batch.clips[~batch.ok], batch.errors, strict=True):
            clip = str(self.store.catalog.ids[row])
            if clip not in self.failed:
                log.warning("left out: %s, %s", clip, reason)
                self.failed[clip] = reason
        if not batch.ok.any() and self.context.world_size == 1:
            found = f"{self.store.catalog.ids[batch.clips[0]]}, {batch.errors[0]}"
            raise TceError("a whole batch could not be read", found=found, fix="run `tce check`")
        frames = torch.as_tensor(batch.frames).to(self.context.device, non_blocking=True)
        return frames, None if batch.ok.all() else torch.from_numpy(batch.ok).to(self.context.device)


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run after a whole step, with everything saved."""


class Trainer:
    """Trains a task; see `fit`."""

    def __init__(
        self,
        task: Task,
        optim: OptimOptions,
        run: RunOptions,
        context: DistributedContext,
        folder: RunFolder | None,
    ):
        self.task = task
        self.optim = optim
        self.run = run
        self.context = context
        self.folder = folder
        self.optimizer = make_optimizer(task.parameters(), optim)
        self.step = 0
        self.means = RunningMeans()
        self.last: dict[str, float] = {}
        self._validation_interval = run.validation_interval(optim.epochs)
        self._saved_at = time.monotonic()

    @property
    def progress(self) -> TrainProgress:
        """The position of the run."""
        epochs, interval = self.optim.epochs, self._validation_interval
        return TrainProgress(self.step, self.task.steps_per_epoch, epochs, self.run.log_steps, interval)

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a training state.

        Raises:
            TceError: it is not the state of this task, its network or its optimizer, or a later one's.
        """
        total = self.progress.total_steps
        if state["step"] > total:
            raise _not_this_run(f"step {state['step']} of {total}")
        self.step = state["step"]
        if self.context.is_main:
            log.info("resuming from step %d", self.step)
        with _restoring("the network"):
            self.task.load_state_dict(state["task"])
        with _restoring("the optimizer"):
            load_optimizer_state(self.optimizer, state["optimizer"])
        with _restoring("the logged metrics"):
            self.means.load_state_dict(state["means"])
        self.last = dict(state["last"])
        own = state["rng"][self.context.rank % len(state["rng"])]  # with more processes than before: any
        with _restoring("the random generators"):
            torch.set_rng_state(own["cpu"])
            if "cuda" in own and self.context.device.type == "cuda":
                torch.cuda.set_rng_state(own["cuda"], self.context.device)

    def train(self) -> dict[str, float]:
        """Train to the end, or to `--max-steps`; the last logged value of every metric."""
        end = min(self.progress.total_steps, self.run.max_steps or self.progress.total_steps)
        self.begin_rows()
        if self.step == 0 and self._validation_interval:
            self._write({}, self.task.validate())
        batches = self.task.batches(self.step * self.optim.accumulate)
        with StopSignals(self._kept) as signals, Progress(end, self.task.name, "step", self.step) as progress:
            while self.step < end:
                self.one_step(batches)
                progress.update(1, **self._brief())
                stop, due = self.context.any_rank(signals.stop_requested is not None, self._checkpoint_due())
                if stop or due or self.step == end:
                    self.save()
                if stop:
                    raise Interrupted(
                        self._how_to_resume(signals.stop_requested or "another process's signal")
                    )
        return self.last

    def begin_rows(self) -> None:
        """Start timing the first row of the log."""
        self._row_started, self._waited = time.monotonic(), self.task.seconds_waiting
        self._row_step = self.step

    def one_step(self, batches: Iterator[Any]) -> None:
        """One step of the optimizer on the next batches, and the row of the log that follows it."""
        progress = self.progress
        rate = learning_rate(progress, self.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        for _ in range(self.optim.accumulate):
            parts = dict(self.task.step(next(batches), progress))
            (parts["loss"] / self.optim.accumulate).backward()  # type: ignore[union-attr]
            self.means.add(self.context.mean(parts))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.task.after_step()
        self.step += 1
        if progress.should_log:
            self._log_row(progress, rate)

    def _log_row(self, progress: TrainProgress, rate: float) -> None:
        means = self.means.take()
        self._require_finite(means)
        row = {"epoch": progress.epoch, **means, "lr": rate}
        self._write(row, self.task.validate() if progress.should_validate else {})
        warning = self.task.warning(self.last, progress)
        if warning:
            log.warning("step %d: %s", self.step, warning)
            if self.run.stops_on_warning:
                self.save()
                raise TceError(f"stopped at step {self.step}", found=warning, fix=self._where_saved())

    def _write(self, row: Mapping[str, float], validation: Mapping[str, float]) -> None:
        """Log a row with its timing; the time of a validation does not count as training."""
        steps = self.step - self._row_step
        now = time.monotonic()
        seconds, waited = now - self._row_started, self.task.seconds_waiting
        metrics = {"epoch": float(self.progress.epoch), **row, **validation}
        if steps:
            metrics["images_per_s"] = steps * self.task.images_per_step / seconds
            metrics["waiting"] = min((waited - self._waited) / seconds, 1.0)
            metrics["seconds"] = seconds
        self.last.update(metrics)
        if self.folder is not None:
            assert self.folder.log is not None
            with self._disk():
                self.folder.log.write(self.step, metrics)
        self._row_started = time.monotonic()
        self._row_step = self.step
        self._waited = waited

    def save(self) -> None:
        """Write training state and network; every process takes part, the main one writes.

        Raises:
            TceError: a weight or metric is not finite, so that nothing is written, or the disk is full.
        """
        state = {
            "step": self.step,
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "means": self.means.state_dict(),
            "last": {name: value for name, value in self.last.items() if name not in TIMING_COLUMNS},
            "rng": self.context.all_gather_object(self._random_state()),
        }
        self._require_finite(self.means.peek())
        self._require_finite_weights()
        if self.folder is not None and self.folder.saved_step != self.step:
            with self._disk():
                # The network first: after a power cut in between, the resumed run writes it again.
                self.task.save_model(self.folder, self.step)
                self.folder.save(state, self.run.keep)
        self._saved_at = time.monotonic()

    def _random_state(self) -> dict[str, Tensor]:
        state = {"cpu": torch.get_rng_state()}
        if self.context.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.context.device)
        return state

    def _checkpoint_due(self) -> bool:
        return time.monotonic() - self._saved_at >= self.run.checkpoint_minutes * 60

    def _require_finite(self, means: Mapping[str, float]) -> None:
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            raise self._diverged(f"{' and '.join(broken)} became {means[broken[0]]}")

    def _require_finite_weights(self) -> None:
        weights = [p.detach() for group in self.optimizer.param_groups for p in group["params"]]
        if not all(math.isfinite(float(norm)) for norm in torch._foreach_norm(weights)):
            raise self._diverged("a weight is no longer finite")

    def _diverged(self, found: str) -> TceError:
        return TceError(
            f"training diverged by step {self.step}",
            expected="finite metrics and weights",
            found=found,
            fix=f"{self._where_saved()}; try a lower --lr or --precision float32, "
            "in a new run, from the start or from that network with --weights",
        )

    def _where_saved(self) -> str:
        if self.folder is None or self.folder.saved_step < 0:
            return "nothing was saved yet"
        return f"the network of step {self.folder.saved_step} is in {self.folder.model_file}"

    def _kept(self) -> str:
        if self.folder is None:
            return "the main process knows what was saved"
        saved = self.folder.saved_step
        if saved < 0:
            return f"no step was saved in {self.folder.path} yet"
        return f"step {saved} is saved in {self.folder.path}, later steps are not; continue with --resume"

    def _how_to_resume(self, why: str) -> str:
        where = self.folder.path if self.folder is not None else "the run folder"
        return f"{why}: step {self.step} is saved in {where}; repeat the command with --resume to continue"

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Turn a full or lost disk into one line that names the last good checkpoint."""
        assert self.folder is not None
        try:
            yield
        except OSError as error:
            saved = self.folder.saved_step
            kept = f"the checkpoint of step {saved} is intact" if saved >= 0 else "nothing was saved before"
            raise TceError(
                f"{self.folder.path} cannot be written at step {self.step}",
                found=error.strerror or str(error),
                fix=f"{kept}; free some space, then repeat the command with --resume",
            ) from error

    def _brief(self) -> dict[str, str]:
        shown = ("loss", "knn", "images_per_s", "waiting")
        return {name: f"{self.last[name]:.3g}" for name in shown if name in self.last}


@contextmanager
def _restoring(part: str) -> Iterator[None]:
    """Turn what torch raises for a state that does not fit into one line."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _not_this_run(f"a state of {part} that does not fit") from error


def _not_this_run(found: str) -> TceError:
    return TceError(
        "the training state to resume from",
        expected="the one that this run wrote",
        found=found,
        fix="put the run's own checkpoint back, or start again with --force",
    )


def fit(
    task: Task,
    optim: OptimOptions,
    run: RunOptions,
    context: DistributedContext,
    folder: RunFolder | None,
    state: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Train a task to the end of its epochs.

    Args:
        task: network, data and loss.
        optim: optimizer, schedule and length.
        run: checkpoints, logs, and when to stop.
        context: the processes that train together.
        folder: the run folder in the main process, after `begin`; None in the others.
        state: the training state to resume from.

    Returns:
        The last logged value of every metric.

    Raises:
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the step was finished and saved.
        TceError: the training diverged or collapsed, or the disk is full; the last good state is kept.
    """
    trainer = Trainer(task, optim, run, context, folder)
    if state is not None:
        trainer.restore(state)
    return trainer.train()
