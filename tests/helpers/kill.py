"""Runs a pre-training once undisturbed, and once killed again and again, until it is done.

It forks a child for every attempt, which costs no imports. The child is killed with SIGKILL, at a moment
drawn by this process, or by itself at a place that chance easily misses: inside a step, or half way through
writing a checkpoint or a row.

    python kill.py FOLDER_OF_CLIPS OUT KILLS SEED
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import tce.io
import tce.train.run_record
import tce.train.trainer
from tce.contrast import MemoryBank
from tce.options.pretrain import (
    ContrastOptions,
    DataOptions,
    ModelOptions,
    PretrainOptimOptions,
    PretrainOptions,
    PretrainRunOptions,
    TCEOptions,
)
from tce.train.method import TCE, ViewEncoder
from tce.train.pretrain import pretrain
from tce.train.pretrain_task import Pretraining
from tce.train.run_folder import RunFolder
from tce.train.trainer import Trainer

STEPS_BETWEEN_CHECKPOINTS = 3


def options(clips: str, out: str, workers: int = 1, **contrast: Any) -> PretrainOptions:
    """A run with everything that has a state: bank, Z, rotation head, momentum, dropout."""
    return PretrainOptions(
        data=DataOptions(clips),
        model=ModelOptions(model="tinynet:tiny", image_size=24, embedding_size=8),
        contrast=ContrastOptions(**{"method": "tce", "window": 3, **contrast}),
        tce=TCEOptions(rotation=1.0, own_row_positive="also"),
        optim=PretrainOptimOptions(epochs=60, batch_size=6, lr=0.05),
        run=PretrainRunOptions(
            out=out, workers=workers, resume=True, log_steps=4, monitor_epochs=12, device="cpu"
        ),
    )


def die(*_: Any, **__: Any) -> None:
    """As if the power went."""
    os.kill(os.getpid(), signal.SIGKILL)


def after(calls: int, function: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which calls `then` in place of its `calls`-th call."""
    count = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        return then(*arguments, **named) if count == calls else function(*arguments, **named)

    return counted


def die_in_checkpoint(calls: int) -> None:
    real = torch.save

    def save(state: Any, file: Any, *arguments: Any) -> None:
        class Half:
            def __init__(self) -> None:
                self.written = 0

            def write(self, data: Any) -> int:
                file.write(data)
                file.flush()
                self.written += 1
                if self.written > 20:
                    die()
                return len(bytes(data))

            def flush(self) -> None:
                file.flush()

        real(state, Half())

    torch.save = after(calls, real, save)


def die_in_row(calls: int) -> None:
    real = tce.train.run_record.CsvLog.write

    def write(self: Any, row: Any) -> None:
        self._file.write("9999,1,0.12")
        self._file.flush()
        die()

    tce.train.run_record.CsvLog.write = after(calls, real, write)  # type: ignore[method-assign]


def die_at(place: Any, name: str) -> Callable[[int], None]:
    """Die in place of a call of a function."""

    def inject(calls: int) -> None:
        setattr(place, name, after(calls, getattr(place, name), die))

    return inject


PLACES: dict[str, Callable[[int], None]] = {
    "forward": die_at(ViewEncoder, "forward"),
    "mining": die_at(MemoryBank, "negatives"),
    "backward": die_at(torch.Tensor, "backward"),
    "optimiser": die_at(torch.optim.SGD, "step"),
    "bank": die_at(TCE, "after_step"),
    "half a row": die_in_row,
    "half a checkpoint": die_in_checkpoint,
    "before the checkpoint's replacement": die_at(os, "replace"),
    "between checkpoint and network": die_at(Pretraining, "save_model"),
    "monitor": die_at(Pretraining, "validate"),
}


def main(clips: str, out: str, kills: int, seed: int) -> None:
    """Train without a kill in OUT-whole; then kill `kills` times in OUT; print what happened as JSON."""
    torch.set_num_threads(1)
    Trainer._checkpoint_due = lambda self: self.step % STEPS_BETWEEN_CHECKPOINTS == 0  # type: ignore[method-assign]
    draw = random.Random(seed)
    started = time.monotonic()
    pretrain(options(clips, out + "-whole"))  # also loads, before any fork, what every child would have to
    longest = (time.monotonic() - started) / 12  # so that twenty attempts do not reach the end
    places = list(PLACES) + [""] * (kills - len(PLACES))
    draw.shuffle(places)
    reported = []
    for place in places:
        time.sleep(
            1 - time.time() % 1
        )  # a resumed run waits for the next second, which is no time to be killed in
        child = os.fork()
        if child == 0:
            if place:
                PLACES[place](draw.randint(1, 2))
            pretrain(options(clips, out, workers=draw.randint(1, 3)))
            os._exit(0)
        if not place:
            time.sleep(draw.uniform(0.0, longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        latest = RunFolder(out, resume=True).latest
        step = torch.load(latest, weights_only=True)["step"] if latest.exists() else 0
        reported.append({"place": place or "any", "killed": os.WIFSIGNALED(status), "step": step})
    pretrain(options(clips, out))
    print(json.dumps(reported))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
