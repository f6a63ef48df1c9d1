"""Runs pre-trainings in several local processes, forked from this one; a program, for pytest cannot fork.

Usage: python together.py FOLDER_OF_CLIPS OUT JOBS

JOBS is JSON, a mapping from a job's name to its processes, epochs, `names` (of VARIANTS, run into
OUT/JOB/NAME) and whether to resume, or to `kill` rank 1 within step 5. What a job's processes say goes to
OUT/JOB.out and OUT/JOB.err, their exit codes as JSON to standard output.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any

import torch

from tce.cli import OutputOptions, report
from tce.options.pretrain import (
    ContrastOptions,
    DataOptions,
    ModelOptions,
    PretrainOptimOptions,
    PretrainOptions,
    PretrainRunOptions,
)
from tce.train.method import Method
from tce.train.pretrain import pretrain
from tce.train.trainer import Trainer

VARIANTS: dict[str, dict[str, Any]] = {
    "copies": {"loss": "nce", "rotation": 1.0, "views": "separate", "exclude_same_source": True},
    "sharded": {"loss": "nce", "momentum_encoder": 0.9, "own_row_positive": "also", "bank": "sharded"},
    "first-step": {"loss": "nce", "constant_z": "first-step", "threshold_by": "quantile", "fill_bank": False},
    "every row": {"loss": "infonce", "mining": "all", "bank": "sharded"},
    "in batch": {"loss": "ntxent", "rotation": 0.5},
    "idle weights": {"loss": "ntxent", "model": "tinynet:Idle"},
    "odd": {"batch_size": 23},
}
DIE_AT = 5


def options(clips: str, out: str, chunks: int, name: str, epochs: int = 3, **more: Any) -> PretrainOptions:
    """A variant on 24 clips, all at a time, without anything that draws from a process's own state."""
    flags = {**VARIANTS[name]}
    bank, batch = flags.pop("bank", "copies"), flags.pop("batch_size", 24)
    model = flags.pop("model", "tinynet:small")
    return PretrainOptions(
        data=DataOptions(clips),
        model=ModelOptions(model=model, image_size=16, embedding_size=8),
        contrast=ContrastOptions(window=3, **flags),
        optim=PretrainOptimOptions(epochs=epochs, batch_size=batch, lr=0.01, chunks=chunks),
        run=PretrainRunOptions(out=out, log_steps=1, monitor_epochs=2, bank=bank, device="cpu", **more),
    )


def die_within(step: int) -> None:
    """Kill this process while the others wait for its part of a step."""
    real = Method.embed_views

    def embed_views(self: Method, views: Any, turned: Any, info: Any) -> Any:
        if info.number == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, views, turned, info)

    Method.embed_views = embed_views  # type: ignore[method-assign]


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def run_job(clips: str, out: str, job: str, wanted: dict[str, Any]) -> list[int]:
    """Fork the job's processes and wait for them; their exit codes."""
    names, count = wanted["names"], wanted["processes"]
    kill, resume = wanted.get("kill", False), wanted.get("resume", False)
    port = free_port()
    children = []
    for rank in range(count):
        child = os.fork()
        if child:
            children.append(child)
            continue
        for number, kind in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{out}/{job}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        Trainer._checkpoint_due = lambda self: kill and self.step % 2 == 0  # type: ignore[method-assign]
        if kill and rank == 1:
            die_within(DIE_AT)
        code = 0
        for name in names:
            run = options(
                clips, f"{out}/{wanted.get('into', job)}/{name}", 1, name, wanted["epochs"], resume=resume
            )
            code = code or report(lambda run=run: pretrain(run), OutputOptions())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main(clips: str, out: str, jobs: dict[str, dict[str, Any]]) -> None:
    """Run the jobs one after the other."""
    torch.set_num_threads(1)
    # Loads, before any fork, what every child would have to.
    pretrain(options(clips, f"{out}/warm-up", 1, "in batch", 1))
    print(json.dumps({job: run_job(clips, out, job, wanted) for job, wanted in jobs.items()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
