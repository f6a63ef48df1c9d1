"""What work costs, by the clock and in processor time; shared by the benchmarks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass
class Cost:
    """Seconds by the clock, and of all cores together."""

    clock: float
    cores: float


def cost(work: Callable[[], object]) -> Cost:
    """What one call takes, a GPU's part included."""
    clock, cores = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Cost(time.perf_counter() - clock, time.process_time() - cores)


def in_turn(
    works: Mapping[str, Callable[[], object]], rounds: int, warm: bool = True
) -> dict[str, list[Cost]]:
    """Each work once to warm up, then all in turn, so that a change of the machine's load meets all."""
    taken: dict[str, list[Cost]] = {name: [] for name in works}
    for work in works.values() if warm else ():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(cost(work))
    return taken


def median(costs: list[Cost], part: str = "clock") -> float:
    """Of the "clock" or the "cores"."""
    return statistics.median(getattr(one, part) for one in costs)


def ratios(taken: Mapping[str, list[Cost]], part: str, whole: str) -> tuple[float, float]:
    """Share of `whole` that `part` takes, by the clock and by processor time."""
    clock, cores = (median(taken[part], kind) / median(taken[whole], kind) for kind in ("clock", "cores"))
    return clock, cores
