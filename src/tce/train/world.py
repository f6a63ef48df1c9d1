"""The processes of one run: which this is, what they agree on. One process is a world of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from tce.errors import OptionError
from tce.model.device import pick_device


class World:
    """The processes that train together.

    Args:
        device: where this process computes.
        rank: this process's number.
        size: processes in all.
        control: group for decisions; on the CPU, so that agreeing never waits for a GPU.
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1, control: Any = None):
        self.device, self.rank, self.size = device, rank, size
        self._control = control

    @property
    def main(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether some process raised it; all processes get the same answer."""
        if self.size == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised, op=dist.ReduceOp.MAX, group=self._control)
        return tuple(bool(value) for value in raised.tolist())

    def share(self, value: Any) -> Any:
        """The main process's value, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]


@contextmanager
def join_world(device: str = "auto") -> Iterator[World]:
    """The world a launcher (`torchrun`, `accelerate launch`) started this process in, or this process alone.

    Args:
        device: as `--device`; with several GPUs each process takes its own.

    Raises:
        OptionError: a device this machine lacks, or `cuda:N` with several processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(pick_device(device))
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if ":" in device:
        raise OptionError("--device", expected="cuda: each of several processes takes its own", found=device)
    here = pick_device(device)
    if here.type == "cuda":
        here = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(here)
    patience = timedelta(minutes=10)
    dist.init_process_group("nccl" if here.type == "cuda" else "gloo", timeout=patience)
    try:
        yield World(here, rank, size, dist.new_group(backend="gloo", timeout=patience))
    finally:
        dist.destroy_process_group()
