"""Ctrl-C and SIGTERM, met between steps."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Any

log = logging.getLogger("tce.train")


class StopSignals:
    """Ctrl-C and SIGTERM as a wish, to be met after the step at hand; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.stop_requested: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:  # not the main thread: whoever runs us there has its own way to stop
                break
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stop_requested and number == signal.SIGINT:
            raise KeyboardInterrupt("stopped at once: what was saved before is kept")
        self.stop_requested = signal.Signals(number).name
        log.info("%s: finishing the step, then saving", self.stop_requested)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
