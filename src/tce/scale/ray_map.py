"""The same work on the processes of a Ray cluster: chunks of items to their results, in order."""

from __future__ import annotations

import logging
import math
import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from tce.errors import TceError

log = logging.getLogger("tce.ray")

LOCAL = "local"  # in place of an address: processes on this machine, started for this call
CHUNKS_PER_WORKER = 8  # at least, so that the last ones end together


class Task(Protocol):
    """What a worker does; it is pickled once, and opened once in each worker's process."""

    def open(self) -> None:
        """Load what every chunk needs: a network, a decoding pool."""

    def run(self, items: Sequence[Any]) -> list[Any]:
        """One picklable result for each item; an error that concerns one item is its result."""


class _Worker:
    """A Ray actor that keeps an opened task."""

    def __init__(self, task: bytes):
        self._task: Task = pickle.loads(task)
        self._task.open()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = [pickle.dumps(self._task.run(pickle.loads(chunk))) for chunk in batch["items"]]
        return {"chunk": batch["chunk"], "results": results}


def ray_map(
    task: Task,
    items: Sequence[Any],
    address: str,
    workers: int | None = None,
    gpus: float = 0.0,
    most: int = 64,
) -> Iterator[Any]:
    """One result for each item, in the items' order, whichever worker made it.

    A worker that dies costs the time of its own chunk: Ray starts another one, which repeats that chunk.

    Args:
        task: what each worker does; its class must be importable on every node.
        items: picklable; paths must mean the same on every node.
        address: `LOCAL`, "auto" for the running cluster that this machine belongs to, or an address.
        workers: processes; None: one a core of the cluster, or one a GPU share where `gpus` is given.
        gpus: share of a GPU that each worker takes.
        most: items in a chunk, at most.

    Raises:
        TceError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _import_ray()
    started = _connect(ray, address, workers)
    try:
        workers = workers or _default_workers(ray.cluster_resources(), gpus)
        size = max(1, min(most, math.ceil(len(items) / (workers * CHUNKS_PER_WORKER))))
        chunks = [list(items[start : start + size]) for start in range(0, len(items), size)]
        yield from _in_order(_results(ray, task, chunks, min(workers, len(chunks)), gpus))
    finally:
        if started:
            ray.shutdown()


def _results(
    ray: Any, task: Task, chunks: Sequence[list[Any]], workers: int, gpus: float
) -> Iterator[tuple[int, list[Any]]]:
    """Number and results of each chunk, in the order in which they are done."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context.actor_task_retry_on_errors = False  # errors of ours would fail again; a dead worker is retried
    rows = [{"chunk": number, "items": pickle.dumps(chunk)} for number, chunk in enumerate(chunks)]
    # One block a chunk: a block is what Ray repeats after a worker's death.
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Worker,
        fn_constructor_args=(pickle.dumps(task),),
        batch_size=1,
        batch_format="numpy",
        zero_copy_batch=True,
        concurrency=workers,
        num_cpus=0 if gpus else 1,
        num_gpus=gpus or None,
        max_restarts=-1,
        max_task_retries=-1,
    )
    for row in data.iter_rows():
        yield int(row["chunk"]), pickle.loads(row["results"])


def _in_order(found: Iterator[tuple[int, list[Any]]]) -> Iterator[Any]:
    """The results one by one, by the number of their chunk; early ones wait."""
    waiting: dict[int, list[Any]] = {}
    following = 0
    for number, results in found:
        waiting[number] = results
        while following in waiting:
            yield from waiting.pop(following)
            following += 1
    assert not waiting


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise TceError("--ray", "Ray installed", str(error), "pip install '.[ray]'") from error
    return ray


def _connect(ray: Any, address: str, workers: int | None) -> bool:
    """Join or start a cluster; whether it was started or joined here."""
    if ray.is_initialized():
        return False
    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        settings |= {"num_cpus": workers or os.cpu_count(), "include_dashboard": False, "address": LOCAL}
    else:
        settings["address"] = address
    try:
        ray.init(**settings)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TceError(
            f"--ray {address}",
            "a Ray cluster that can be reached",
            reason,
            "see `ray status`; or --ray local",
        ) from error
    return True


def _default_workers(resources: dict[str, float], gpus: float) -> int:
    count = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 1)
    return max(1, int(count))
