"""The processes of one run: which this is, and what they agree on. A single process is a context of size 1.

A launcher (`torchrun`, `accelerate launch`) starts the same command in every process and numbers them.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from tce.device import pick_device
from tce.errors import OptionError, TceError

# The others wait while the main process packs footage or validates.
PATIENCE = timedelta(days=2)


log = logging.getLogger("tce.train")


class DistributedContext:
    """The processes that train together.

    Args:
        device: where this process computes.
        rank: this process's number.
        world_size: processes in all.
        control: group for decisions; on the CPU, so that agreeing never waits for a GPU.
    """

    def __init__(self, device: torch.device, rank: int = 0, world_size: int = 1, control: Any = None):
        self.device = device
        self.rank = rank
        self.world_size = world_size
        self._control = control

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def any_rank(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether some process raised it; all processes get the same answer."""
        if self.world_size == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised, op=dist.ReduceOp.MAX, group=self._control)
        return tuple(bool(value) for value in raised.tolist())

    def broadcast(self, value: Any) -> Any:
        """The main process's value, in every process."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def all_gather_object(self, value: Any) -> list[Any]:
        """Every process's value, in order of rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows [b, ...] of all processes in order of rank, [W b, ...], with gradient.

        Backward adds up what all processes' losses say about this process's rows; the data-parallel wrapper
        then divides by the number of processes. So the mean of the processes' losses is trained, whether each
        computes its own part of the batch or all compute the same loss of the whole batch.

        Args:
            rows: of the same shape in every process.
        """
        if self.world_size == 1:
            return rows
        from torch.distributed.nn.functional import all_gather as gather

        if rows.dtype == torch.bool:
            return self.all_gather(rows.byte()).bool()
        return torch.cat(gather(rows.contiguous()))

    def global_mean(self, values: Tensor, valid: Tensor | None = None) -> Tensor:
        """This process's part of the mean over the values [b] of all processes, with gradient.

        The mean over the processes of what this returns is the mean over all valid values, so that each
        counts the same in whichever process it lies.

        Args:
            values: [b].
            valid: which of them count, bool [b]; None: all.
        """
        if self.world_size == 1 and valid is None:
            return values.mean()
        counts = torch.ones_like(values) if valid is None else valid.to(values)
        total = counts.sum()
        if self.world_size > 1:
            dist.all_reduce(total)
        return self.world_size * (values * counts).sum() / total.clamp(min=1)

    def mean(self, parts: Mapping[str, Tensor | float]) -> dict[str, Tensor | float]:
        """Each figure's mean over the processes, which all have the same names."""
        if self.world_size == 1:
            return dict(parts)
        values = [torch.as_tensor(value).detach().double().to(self.device) for value in parts.values()]
        total = torch.stack(values)
        dist.all_reduce(total)
        return dict(zip(parts, (total / self.world_size).unbind(), strict=True))

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their means over the processes: batch norm's running statistics."""
        kept = [tensor for tensor in tensors if tensor.is_floating_point()]
        if self.world_size == 1 or not kept:
            return
        flat = torch.cat([tensor.flatten() for tensor in kept])
        dist.all_reduce(flat)
        for tensor, mean in zip(kept, (flat / self.world_size).split([t.numel() for t in kept]), strict=True):
            tensor.copy_(mean.view_as(tensor))


def data_parallel(network: nn.Module, context: DistributedContext, find_unused: bool = False) -> nn.Module:
    """The network with gradients averaged over the processes; itself where there is one process.

    Args:
        network: what is trained, on `context.device`.
        context: the processes at work.
        find_unused: whether some of its parameters may get no gradient.
    """
    if context.world_size == 1:
        return network
    devices = [context.device] if context.device.type == "cuda" else None
    with warnings.catch_warnings(category=FutureWarning, action="ignore"):
        # Its successor came with torch 2.13 only; batch statistics are averaged after each step.
        return nn.parallel.DistributedDataParallel(
            network, devices, broadcast_buffers=False, find_unused_parameters=find_unused
        )


def synchronise_batch_norm(network: nn.Module, context: DistributedContext) -> nn.Module:
    """The network with batch statistics over all processes; the layers in question are new modules.

    Raises:
        OptionError: there are no GPUs, or there is one process.
    """
    if context.device.type != "cuda" or context.world_size == 1:
        found = f"{context.world_size} on {context.device.type}"
        raise OptionError("--sync-bn", expected="several processes on GPUs", found=found, fix="leave it out")
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


@contextmanager
def init_distributed(device: str = "auto") -> Iterator[DistributedContext]:
    """Join the processes that a launcher started, or run in this process alone.

    An error of one process ends them all: it leaves its message for the others (and for torchrun's report),
    they find it as soon as they miss it in an exchange, and the main process prints it with theirs.

    Args:
        device: as `--device`; with several GPUs each process takes its own.

    Raises:
        OptionError: a device that this machine lacks, or `cuda:N` with several processes.
        TceError: another process failed or was killed.
        SystemExit: in the other processes in place of a TceError: the main one, or their log, prints it.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield DistributedContext(pick_device(device))
        return
    if "RANK" not in os.environ:
        raise OptionError(
            "WORLD_SIZE",
            expected="torchrun or accelerate launch, which also number the processes",
            found=f"{size}, and no RANK",
            fix="start the command by one of them, or unset WORLD_SIZE",
        )
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if ":" in device:
        raise OptionError("--device", expected="cuda: each of several processes takes its own", found=device)
    here = pick_device(device)
    if here.type == "cuda":
        here = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(here)
    if not dist.is_initialized():  # else it is a second run of the same processes
        dist.init_process_group("nccl" if here.type == "cuda" else "gloo", timeout=PATIENCE)
    atexit.unregister(dist.destroy_process_group)
    try:
        yield DistributedContext(here, rank, size, dist.new_group(backend="gloo", timeout=PATIENCE))
    except Exception as error:
        _raise_for_all(error, rank, size)
    atexit.register(dist.destroy_process_group)  # not after an error: the others shall notice


FAILED = "tce: the error of process {}"  # key in the store that all processes share
WAIT_FOR_MAIN = timedelta(seconds=5)


def _raise_for_all(error: Exception, rank: int, size: int) -> NoReturn:
    """Raise what the command line prints of an error in one of several processes."""
    found = _error_of_others(rank, size) if isinstance(error, RuntimeError) else None
    if found is None and not _is_lost_connection(error):
        get_error_handler().record_exception(error)  # torchrun prints the first one of them
        _store_error(rank, error)
        if rank == 0 or not isinstance(error, TceError):
            raise error
        if not isinstance(error, OptionError) and _error_of_main() != str(error):  # all have the same options
            log.error("process %d of %d: %s", rank, size, error)
        raise SystemExit(1) from None
    stopped = TceError(
        f"process {rank} of {size} stopped, since another one failed",
        expected="all processes to run until the end",
        found=found or "no message of it: it may have been killed",
        fix="repeat the command with --resume to continue from the last checkpoint",
    )
    if rank == 0:
        raise stopped from error
    log.info("%s", stopped.what)
    raise SystemExit(1) from None


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _store_error(rank: int, error: Exception) -> None:
    with contextlib.suppress(RuntimeError):  # the store is gone with the process that held it
        kind = "" if isinstance(error, TceError) else f"{type(error).__name__}: "
        _store().set(FAILED.format(rank), kind + str(error))


def _error_of_main() -> str | None:
    """The main process's error; None if it leaves none within `WAIT_FOR_MAIN`."""
    try:
        _store().wait([FAILED.format(0)], WAIT_FOR_MAIN)
        return str(_store().get(FAILED.format(0)).decode())
    except RuntimeError:
        return None


def _error_of_others(rank: int, size: int) -> str | None:
    """The first error that another process left, with its number."""
    with contextlib.suppress(RuntimeError):
        for other in range(size):
            if other != rank and _store().check([FAILED.format(other)]):
                return f"process {other}: {_store().get(FAILED.format(other)).decode()}"
    return None


# What gloo and NCCL say of a process that was killed, in plain RuntimeErrors; it left no error in the store.
LOST_CONNECTION = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ocket", "NCCL")


def _is_lost_connection(error: Exception) -> bool:
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST_CONNECTION)


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """Only kernels that repeat bit for bit inside the block, where `on`."""
    before = torch.are_deterministic_algorithms_enabled()
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS refuses
    torch.use_deterministic_algorithms(on or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
