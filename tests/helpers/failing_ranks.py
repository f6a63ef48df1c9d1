"""Trains a small task in two local processes of which one fails; a program, for pytest cannot fork.

Usage: python -m tests.helpers.failing_ranks OUT, with the failures of FAILURES each in OUT/NAME. What the
processes print goes to OUT/NAME.err, their exit codes as JSON to standard output.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tce.cli import OutputOptions, report
from tce.distributed import init_distributed
from tce.errors import TceError
from tce.io import Result
from tce.options.training import OptimOptions, RunOptions
from tce.train.optim import TrainProgress
from tce.train.run_folder import RunFolder
from tce.train.trainer import fit

FAIL_AT = 5
FAILURES: dict[str, tuple[int, Any]] = {  # name -> failing rank, and what it raises, or "kill"
    "user": (1, TceError("clip 7", expected="frames", found="none")),
    "bug": (1, ValueError("a fault of the program")),
    "main": (0, TceError("the disk", found="full")),
    "killed": (1, "kill"),
    "none": (1, None),
}


class Mean:
    """Fits one number; the processes exchange it in every step."""

    name = "fitting"
    columns = ("loss",)
    steps_per_epoch = 4
    images_per_step = 1
    seconds_waiting = 0.0

    def __init__(self, context: Any, failure: Any) -> None:
        self.context, self.failure = context, failure
        self.weight = nn.Parameter(torch.ones(1))

    def parameters(self) -> list[nn.Parameter]:
        return [self.weight]

    def batches(self, start: int) -> Iterator[int]:
        yield from range(start, 1000)

    def step(self, batch: int, progress: TrainProgress) -> dict[str, Tensor | float]:
        rank, error = self.failure
        if batch == FAIL_AT and self.context.rank == rank and error is not None:
            if error == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise error
        return {"loss": self.weight.square().sum()}

    def after_step(self) -> None:
        self.context.average([self.weight.data])

    def validate(self) -> dict[str, float]:
        return {}

    def warning(self, metrics: Mapping[str, float], progress: TrainProgress) -> str | None:
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight.detach()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight.data.copy_(state["weight"])

    def save_model(self, folder: RunFolder, step: int) -> None:
        folder.model_file.write_text("")


def train(out: str, failure: Any, resume: bool) -> Result:
    """One process's part of a run."""
    options = RunOptions(log_steps=1, checkpoint_minutes=0)
    with init_distributed("cpu") as context:
        folder = RunFolder(out, resume) if context.is_main else None
        state = None
        try:
            if folder is not None:
                state = folder.begin({"command": "x", "options": {}, "data": {}}, Mean.columns)
            state = context.broadcast(state)
            fit(Mean(context, failure), OptimOptions(epochs=3), options, context, folder, state)
        finally:
            if folder is not None:
                folder.close()
    return Result("done")


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def run_ranks(out: str, name: str, resume: bool = False) -> list[int]:
    """Fork two processes of one run and wait for them; their exit codes."""
    children, port = [], free_port()
    failure = FAILURES["none" if resume else name]
    for rank in range(2):
        child = os.fork()
        if child:
            children.append(child)
            continue
        os.dup2(os.open(f"{out}/{name}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        os.dup2(2, 1)
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        os.environ["TORCHELASTIC_ERROR_FILE"] = f"{out}/{name}.{rank}.json"
        try:
            code = report(lambda: train(f"{out}/{name}", failure, resume), OutputOptions())
        except SystemExit as exit:
            code = int(exit.code or 0)
        except BaseException as error:
            print(f"Traceback: {type(error).__name__}: {error}", file=sys.stderr)
            code = 3
        sys.stderr.flush()
        os._exit(code)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    torch.set_num_threads(1)
    codes = {name: run_ranks(sys.argv[1], name) for name in FAILURES}
    codes["resumed"] = run_ranks(sys.argv[1], "killed", resume=True)
    print(json.dumps(codes))
