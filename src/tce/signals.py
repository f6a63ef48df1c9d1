"""Ctrl-C, SIGTERM and SIGHUP: training stops after the step at hand, other work at once with a message."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

log = logging.getLogger("tce")

TERMINATIONS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised where Ctrl-C would raise KeyboardInterrupt; its text names the signal."""


class StopSignals:
    """Takes Ctrl-C, SIGTERM and SIGHUP as requests to stop after the step at hand.

    A second Ctrl-C raises KeyboardInterrupt at once.

    Args:
        kept: called for the second Ctrl-C's message: what was saved.

    Attributes:
        stop_requested: name of the signal that came, or None.
    """

    def __init__(self, kept: Callable[[], str]) -> None:
        self.stop_requested: str | None = None
        self._kept = kept
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        _install((signal.SIGINT, *TERMINATIONS), self._handle, self._before)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stop_requested and number == signal.SIGINT:
            raise KeyboardInterrupt(f"stopped at once: {self._kept()}")
        self.stop_requested = signal.Signals(number).name
        log.info("%s: finishing the step, then saving; Ctrl-C stops at once", self.stop_requested)

    def __exit__(self, *_: object) -> None:
        _restore(self._before)


@contextmanager
def raise_terminations() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM and SIGHUP inside the block, so that work ends as by Ctrl-C."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Terminated(f"stopped by {signal.Signals(number).name}")

    before: dict[int, Any] = {}
    _install(TERMINATIONS, handle, before)
    try:
        yield
    finally:
        _restore(before)


def _install(numbers: tuple[int, ...], handler: Callable[..., None], before: dict[int, Any]) -> None:
    for number in numbers:
        if number != signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
            continue  # as nohup asks for
        try:
            before[number] = signal.signal(number, handler)
        except ValueError:  # not the main thread: the program around us handles signals
            return


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
