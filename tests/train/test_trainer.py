from __future__ import annotations

import errno
import math
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tce.distributed import DistributedContext
from tce.errors import TceError
from tce.options.pretrain import PretrainRunOptions
from tce.options.training import OptimOptions
from tce.train.optim import TrainProgress, learning_rate
from tce.train.run_folder import RunFolder
from tce.train.trainer import Interrupted, fit
from tests.helpers.run_files import rows, same, saved


class Line:
    """Fits a plane to points that follow from the batch number alone; dropout draws from torch's state."""

    name = "fitting"
    columns = ("loss", "slope", "looked")
    steps_per_epoch = 4
    images_per_step = 8
    seconds_waiting = 0.0

    def __init__(self, poison: int = -1, on_step: Any = None):
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.2), nn.Linear(5, 1))
        self.poison = poison
        self.on_step = on_step
        self.steps = 0
        self.alarm = ""

    def parameters(self) -> list[nn.Parameter]:
        return list(self.net.parameters())

    def batches(self, start: int) -> Iterator[tuple[int, Tensor]]:
        for number in range(start, 10_000):
            yield number, torch.randn(8, 3, generator=torch.Generator().manual_seed(number))

    def step(self, batch: tuple[int, Tensor], progress: TrainProgress) -> dict[str, Tensor | float]:
        number, x = batch
        if self.on_step is not None:
            self.on_step(progress.step)
        self.steps += 1
        loss = (self.net(x).squeeze(1) - x.sum(dim=1)).square().mean()
        if number == self.poison:
            loss = loss * math.nan
        return {"loss": loss, "slope": float(progress.fraction)}

    def after_step(self) -> None:
        pass

    def validate(self) -> dict[str, float]:
        return {"looked": 1.0}

    def warning(self, metrics: Mapping[str, float], progress: TrainProgress) -> str | None:
        return self.alarm or None

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])

    def save_model(self, folder: RunFolder, step: int) -> None:
        folder.model_file.write_text(str(self.steps))


def run(path: Path, task: Line, optim: OptimOptions | None = None, **options: Any) -> dict[str, float]:
    settings = PretrainRunOptions(out=str(path), **{"log_steps": 3, **options})
    with RunFolder(path, settings.resume) as folder:
        state = folder.begin({"command": "fit", "options": {}, "data": {}}, task.columns)
        return fit(
            task,
            optim or OptimOptions(epochs=5),
            settings,
            DistributedContext(torch.device("cpu")),
            folder,
            state,
        )


@pytest.mark.parametrize(
    "optim",
    [
        OptimOptions(epochs=5, lr=0.02),
        OptimOptions(epochs=5, optimizer="adamw", lr=0.01, schedule="cosine", warm_up=1.0, accumulate=2),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, optim: OptimOptions) -> None:
    run(tmp_path / "whole", Line(), optim)
    run(tmp_path / "parts", Line(), optim, max_steps=4)  # between two rows of the log
    run(tmp_path / "parts", Line(), optim, max_steps=12, resume=True)
    run(tmp_path / "parts", Line(), optim, resume=True)
    assert same(saved(tmp_path / "whole"), saved(tmp_path / "parts"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert [row["step"] for row in rows(tmp_path / "whole")] == [0, 3, 4, 6, 8, 9, 12, 15, 16, 18, 20]


class Kernel(Line):
    """A convolution, whose weights have another memory order with channels last."""

    def __init__(self, memory_format: torch.memory_format):
        super().__init__()
        net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 25, 1))
        self.net = net.to(memory_format=memory_format)

    def batches(self, start: int) -> Iterator[tuple[int, Tensor]]:
        for number in range(start, 10_000):
            yield number, torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(number))

    def step(self, batch: tuple[int, Tensor], progress: TrainProgress) -> dict[str, Tensor | float]:
        _, x = batch
        return {"loss": (self.net(x).squeeze(1) - x.sum(dim=(1, 2, 3))).square().mean()}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_may_be_resumed_in_another_memory_order(tmp_path: Path, optimizer: str) -> None:
    optim = OptimOptions(epochs=5, optimizer=optimizer, lr=0.002)
    run(tmp_path / "whole", Kernel(torch.contiguous_format), optim)
    run(tmp_path / "parts", Kernel(torch.contiguous_format), optim, max_steps=8)
    run(tmp_path / "parts", Kernel(torch.channels_last), optim, resume=True)
    whole, parts = saved(tmp_path / "whole"), saved(tmp_path / "parts")
    torch.testing.assert_close(parts["task"]["net"], whole["task"]["net"], rtol=1e-3, atol=1e-5)


def test_the_log_holds_means_since_the_row_before(tmp_path: Path) -> None:
    run(tmp_path, Line())
    shares = {row["step"]: row.get("slope") for row in rows(tmp_path)}
    assert shares[3] == pytest.approx((0 + 1 + 2) / 3 / 20)
    assert shares[4] == pytest.approx(3 / 20)
    looked = [row["step"] for row in rows(tmp_path) if "looked" in row]
    assert looked == [0, 4, 8, 12, 16, 20]


def drop(state: dict[str, Any], *path: Any) -> None:
    for key in path[:-1]:
        state = state[key]
    del state[path[-1]]


def put(state: dict[str, Any], value: Any, *path: Any) -> None:
    for key in path[:-1]:
        state = state[key]
    state[path[-1]] = value


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda s: put(s, 21, "step"), "found step 21 of 20"),
        (lambda s: drop(s, "task", "net"), "a state of the network that does not fit"),
        (lambda s: drop(s, "task", "net", "0.weight"), "a state of the network that does not fit"),
        (lambda s: put(s, [], "optimizer", "param_groups"), "a state of the optimizer that does not fit"),
        (lambda s: put(s, [0], "optimizer", "param_groups", 0, "params"), "a state of the optimizer"),
        (lambda s: put(s, {"x": 1}, "optimizer", "state", 0), "a state of the optimizer"),
        (lambda s: put(s, 5, "optimizer", "state", 0), "a state of the optimizer"),
        (lambda s: put(s, {}, "optimizer", "state", 0), "a state of the optimizer"),
        (lambda s: put(s, {"momentum_buffer": None}, "optimizer", "state", 1), "a state of the optimizer"),
        (lambda s: put(s, torch.ones(7), "optimizer", "state", 0, "momentum_buffer"), "of the optimizer"),
        (lambda s: put(s, torch.zeros(9, dtype=torch.uint8), "rng", 0, "cpu"), "of the random generators"),
    ],
)
def test_a_state_that_does_not_fit_is_one_line(tmp_path: Path, change: Any, found: str) -> None:
    run(tmp_path, Line(), max_steps=4)
    state = saved(tmp_path)
    change(state)
    torch.save(state, tmp_path / "checkpoints" / "latest.pt")
    with pytest.raises(TceError, match="the training state to resume from") as caught:
        run(tmp_path, Line(), resume=True)
    assert found in str(caught.value)


def test_a_weight_without_momentum_starts_at_zero(tmp_path: Path) -> None:
    """As one that has had no gradient yet; fused SGD takes buffers of all weights or of none."""
    run(tmp_path, Line(), max_steps=4)
    state = saved(tmp_path)
    drop(state, "optimizer", "state", 1)
    torch.save(state, tmp_path / "checkpoints" / "latest.pt")
    run(tmp_path, Line(), resume=True)
    assert saved(tmp_path)["step"] == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_the_step_and_saves(tmp_path: Path, number: signal.Signals) -> None:
    def interrupt(step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"step 7 is saved in .*; repeat the command with --resume"):
        run(tmp_path / "a", Line(on_step=interrupt))
    assert signal.getsignal(number) is before
    assert saved(tmp_path / "a")["step"] == 7
    run(tmp_path / "a", Line(), resume=True)
    run(tmp_path / "b", Line())
    assert same(saved(tmp_path / "a"), saved(tmp_path / "b"))


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def twice(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(
        KeyboardInterrupt, match=r"stopped at once: step 2 is saved in .*, later steps are not"
    ):
        run(tmp_path, Line(on_step=twice), checkpoint_minutes=0)
    assert saved(tmp_path)["step"] == 2


def test_nan_stops_with_the_last_good_checkpoint_and_advice(tmp_path: Path) -> None:
    with pytest.raises(TceError, match=r"diverged by step 8; .*step 7 is in .*model.safetensors.*--lr"):
        run(tmp_path, Line(poison=7), checkpoint_minutes=0, monitor_epochs=0, log_steps=100)
    state = saved(tmp_path)
    assert state["step"] == 7
    assert all(torch.isfinite(value).all() for value in state["task"]["net"].values())
    assert all(math.isfinite(value) for row in rows(tmp_path) for value in row.values())


def test_a_warning_stops_only_when_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = Line()
    task.alarm = "the rank fell"
    with pytest.raises(TceError, match="stopped at step 3; found the rank fell"):
        run(tmp_path / "a", task, stop_on_collapse=True)
    assert saved(tmp_path / "a")["step"] == 3
    run(tmp_path / "b", task)
    assert "step 3: the rank fell" in caplog.text and saved(tmp_path / "b")["step"] == 20


def test_accumulated_batches_equal_one_large_batch(tmp_path: Path) -> None:
    class Double(Line):
        def batches(self, start: int) -> Iterator[tuple[int, Tensor]]:
            small = super().batches(2 * start)
            for (number, first), (_, second) in zip(small, small, strict=False):
                yield number, torch.cat([first, second])

    def plain(task: Line) -> Line:
        task.net[1] = nn.Identity()  # dropout would draw differently
        return task

    run(tmp_path / "a", plain(Line()), OptimOptions(epochs=3, accumulate=2, lr=0.02))
    run(tmp_path / "b", plain(Double()), OptimOptions(epochs=3, lr=0.02))
    a, b = (saved(tmp_path / name)["task"]["net"] for name in "ab")
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_a_full_disk_says_what_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = RunFolder.save

    def fills_up(self: RunFolder, state: Mapping[str, Any], keep: int = 1) -> None:
        if state["step"] > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, state, keep)

    monkeypatch.setattr(RunFolder, "save", fills_up)
    with pytest.raises(
        TceError, match=r"at step 6; found No space left on device; the checkpoint of step 5 is intact"
    ):
        run(tmp_path, Line(), checkpoint_minutes=0)
    monkeypatch.undo()
    run(tmp_path, Line(), resume=True)
    run(tmp_path / "whole", Line())
    assert same(saved(tmp_path), saved(tmp_path / "whole"))


def test_a_power_cut_while_saving_leaves_no_stale_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RunFolder.save

    def cut(self: RunFolder, state: Mapping[str, Any], keep: int = 1) -> None:
        real(self, state, keep)
        raise SystemExit("no power")

    monkeypatch.setattr(RunFolder, "save", cut)
    with pytest.raises(SystemExit):
        run(tmp_path, Line())
    assert saved(tmp_path)["step"] == 20
    assert (tmp_path / "model.safetensors").read_text() == "20"


def test_more_epochs_go_on_from_a_finished_run(tmp_path: Path) -> None:
    steady = OptimOptions(epochs=2, schedule="constant", lr=0.02)
    longer = OptimOptions(epochs=4, schedule="constant", lr=0.02)
    run(tmp_path / "a", Line(), steady)
    run(tmp_path / "a", Line(), longer, resume=True)
    run(tmp_path / "b", Line(), longer)
    assert same(saved(tmp_path / "a")["task"], saved(tmp_path / "b")["task"])


# The schedules, against their closed forms.


def rates(options: OptimOptions, per_epoch: int = 10) -> list[float]:
    steps = range(options.epochs * per_epoch)
    return [learning_rate(TrainProgress(step, per_epoch, options.epochs), options) for step in steps]


def test_one_cycle_rises_for_three_tenths_and_falls_to_nothing() -> None:
    found = rates(OptimOptions(epochs=10, lr=1.0, schedule="one-cycle"))
    assert found[0] == pytest.approx(1 / 25) and found[30] == pytest.approx(1.0)
    assert found[15] == pytest.approx((1 / 25 + 1) / 2)
    assert found == sorted(found[:31]) + sorted(found[31:], reverse=True)
    assert found[-1] < 2e-3


def test_cosine_falls_from_the_warm_up_to_zero() -> None:
    found = rates(OptimOptions(epochs=10, lr=2.0, schedule="cosine", warm_up=2))
    assert found[:20] == pytest.approx([2.0 * (step + 1) / 20 for step in range(20)])
    assert found[20] == pytest.approx(2.0) and found[60] == pytest.approx(1.0) and found[-1] < 0.01


def test_step_and_constant_do_not_depend_on_the_length() -> None:
    found = rates(OptimOptions(epochs=6, lr=1.0, schedule="step", lr_decay_epochs=(2, 4)))
    assert found == pytest.approx([1.0] * 20 + [0.1] * 20 + [0.01] * 20)
    longer = rates(OptimOptions(epochs=9, lr=1.0, schedule="step", lr_decay_epochs=(2, 4)))
    assert longer[:60] == found
    assert set(rates(OptimOptions(epochs=3, lr=0.5, schedule="constant"))) == {0.5}


def test_a_warm_up_of_part_of_an_epoch_never_passes_the_highest_rate() -> None:
    found = rates(OptimOptions(epochs=2, lr=2.0, schedule="constant", warm_up=0.25))
    assert max(found) == 2.0
