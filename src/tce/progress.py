"""Progress of long work: a bar with rate and time left on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

log = logging.getLogger("tce")

SECONDS_BETWEEN_LINES = 10.0
_bars = False


def show_bars(on: bool = True) -> None:
    """Draw bars on standard error from now on; the command line calls this, a library user may."""
    global _bars
    _bars = on


def format_seconds(seconds: float) -> str:
    """A duration for people: "45 s", "12 min" or "29 h 19 min"."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Counts finished units of work and shows them.

    Args:
        total: units in all, or None when that is not known.
        what: what is being done ("packing").
        unit: what is counted ("clip").
        done: units finished before, in an earlier run.

    Example:
        with Progress(len(clips), "packing", "clip") as progress:
            for clip in clips:
                progress.update(1, skipped=3)
    """

    def __init__(self, total: int | None, what: str, unit: str, done: int = 0):
        self.total = total
        self.what = what
        self.unit = unit
        self.done = self._first = done
        self._started = self._last_line = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if _bars and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=self.total,
                initial=self.done,
                desc=self.what,
                unit=self.unit,
                dynamic_ncols=True,
                leave=False,
            )
        return self

    def update(self, n: int = 1, **info: object) -> None:
        """Count `n` more units; `info` is shown beside the count."""
        self.done += n
        if self._bar is not None:
            if info:
                self._bar.set_postfix(info, refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            log.info(self.line(**info))

    def line(self, **info: object) -> str:
        """The state as one line of text: done, total, rate, time left."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = (self.done - self._first) / seconds
        text = f"{self.what}: {self.done}"
        total = self.total if self.total is not None and self.done <= self.total else None  # an estimate
        if total is not None:
            text += f"/{total}"
        text += f" {self.unit}s, {rate:.1f}/s"
        if total is not None and rate > 0:
            text += f", {format_seconds((total - self.done) / rate)} left"
        return text + "".join(f", {key} {value}" for key, value in info.items())

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
