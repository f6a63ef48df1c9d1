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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from tce.cli import OutputOptions, report
from tce.options.pretrain import PretrainOptions
from tce.train.method import TCE, MoCo, ViewEncoder
from tce.train.pretrain import pretrain
from tce.train.trainer import Trainer
from tests.helpers.training_options import pretrain_options

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {"method": "tce", "rotation": 1.0, "views": "separate", "exclude_same_source": True},
    "first-step": {"method": "tce", "constant_z": "first-step", "threshold_by": "quantile"},
    "own row": {"method": "tce", "own_row_positive": "also", "rotation": 0.5},
    "queue": {"method": "moco", "momentum_encoder": 0.9, "queue": 30},
    "in batch": {"exclude_same_source": True},
    "idle weights": {"model": "tinynet:Idle"},
    "odd": {"batch_size": 23},
}
DIE_AT = 5


def options(clips: str, out: str, name: str, epochs: int = 3, **more: Any) -> PretrainOptions:
    """A variant on 24 clips, all at a time, without anything that draws from a process's own state."""
    flags = {"batch_size": 24, "model": "tinynet:small", "window": 3, **VARIANTS[name], **more}
    # Not the faster precision: on a busy machine the processes would choose another than this one.
    fixed = {"image_size": 16, "embedding_size": 8, "lr": 0.01, "log_steps": 1, "monitor_epochs": 2}
    fixed |= {"precision": "float32"}
    return pretrain_options(Path(clips), Path(out), epochs=epochs, **fixed, **flags)


@contextmanager
def in_chunks(count: int) -> Iterator[None]:
    """Pass batches in as many chunks, each with its own batch statistics, as so many processes would."""

    def forward(self: ViewEncoder, images: Any, rotated: Any = None) -> Any:
        rotations = [None] * count if rotated is None else rotated.chunk(count)
        found = [real(self, *part) for part in zip(images.chunk(count), rotations, strict=True)]
        vectors = torch.cat([vectors for vectors, _ in found])
        return vectors, None if rotated is None else torch.cat([scores for _, scores in found])

    def encode_keys(self: MoCo, images: Any, progress: Any) -> Any:
        order = torch.randperm(len(images), generator=self.draws(progress))
        with torch.no_grad():
            keys = torch.cat([self.momentum_encoder(part) for part in images[order].chunk(count)])
        return torch.empty_like(keys).index_copy_(0, order, keys)

    real = ViewEncoder.forward
    with patch.object(ViewEncoder, "forward", forward), patch.object(MoCo, "encode_keys", encode_keys):
        yield


def die_within(step: int) -> None:
    """Kill this process while the others wait for its part of a step."""
    real = TCE.step

    def dying(self: TCE, views: Any, ids: Any, progress: Any) -> Any:
        if progress.number == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, views, ids, progress)

    TCE.step = dying  # type: ignore[method-assign]


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
                clips, f"{out}/{wanted.get('into', job)}/{name}", name, wanted["epochs"], resume=resume
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
    pretrain(options(clips, f"{out}/warm-up", "in batch", 1))
    print(json.dumps({job: run_job(clips, out, job, wanted) for job, wanted in jobs.items()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
