"""Tasks for workers on Ray: importable there, as `ray_tasks`."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class DyingTask:
    """Squares; the worker that first sees `deadly` is killed by the kernel, as if memory had run out."""

    marks: str
    deadly: int

    def open(self) -> None:
        """Nothing to load."""

    def run(self, items: Sequence[int]) -> list[Any]:
        """Square of each item; a file for each time that an item is worked on."""
        for item in items:
            mark = Path(self.marks) / f"{item}"
            again = mark.exists()
            with open(mark, "a") as file:
                file.write(f"{os.getpid()}\n")
            if item == self.deadly and not again:
                os.kill(os.getpid(), signal.SIGKILL)
        return [item * item if item != 3 else ValueError("3 is bad") for item in items]
