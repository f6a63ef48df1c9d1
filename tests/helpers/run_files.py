"""What a run left on disk, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from tce.train.run_record import TIMING_COLUMNS, read_log


def rows(path: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if name not in TIMING_COLUMNS}
        for row in read_log(path / "log.csv")
    ]


def saved(path: Path) -> dict[str, Any]:
    return torch.load(path / "checkpoints" / "latest.pt", weights_only=True)


def same(a: Any, b: Any) -> bool:
    """Whether two nested states are equal bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a if key != "journal")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's own reading of the curves."""
    reader = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
