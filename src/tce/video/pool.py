"""A pool of child processes that decode: a crash or a hang affects one item, and the program continues."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Self, TypeVar

from tce.errors import TceError
from tce.video.base import DecoderCrashed, VideoTimeout
from tce.video.pool_worker import DONE, ERROR, HEARTBEAT, PART, READY, SHARED, SharedBuffer

__all__ = ["DecodePool"]

log = logging.getLogger("tce.video")

Item = TypeVar("Item")
Result = TypeVar("Result")

_STARTUP_SECONDS = 120.0  # a child imports its modules; on a busy machine that takes a while
_PARTS_AHEAD = 4  # parts of one item that wait for the consumer; then its child waits as well
# Ctrl-C reaches children as well: it is ignored from the start, before the imports.
_START = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "import sys; sys.path[:] = {path!r}; "
    "from tce.video.pool_worker import serve; serve({memory}, {handle})"
)


class DecodePool:
    """Child processes that run functions on files which may crash, hang or exhaust the decoder.

    A child works on one item at a time. If it dies, that item's outcome is `DecoderCrashed`; if it sends
    nothing for `timeout` seconds, it is killed and the outcome is `VideoTimeout`; a new child replaces it.
    Children are started as new interpreters, not forked (Lance and torch do not survive a fork). They do not
    import the caller's main module, use one thread each for numerics, and end with the parent.

    Args:
        workers: child processes; 0 for one a core.
        timeout: seconds after which an item fails if its child sends nothing: a part, a `heartbeat()` (see
            `pool_worker`), or the end.
        memory: address space of a child in bytes; 0 for no limit.

    Example:
        with DecodePool(workers=2, timeout=60) as pool:
            for path, outcome in pool.map(count_frames, paths):
                ...
    """

    def __init__(self, workers: int = 0, timeout: float = 60.0, memory: int = 8 << 30):
        self.workers = workers or os.cpu_count() or 1
        self.timeout = timeout
        self._memory = memory
        self._changed = threading.Condition()
        self._queue: deque[_Task] = deque()
        self._children: list[_Child] = []
        self._wake_reader, self._wake_writer = Pipe(duplex=False)
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._closed = False

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result | TceError]]:
        """Each item with the function's result for it, or its error, in the order of the items.

        Args:
            function: takes one item; importable, and not from the main module.
            items: the items, taken as workers become free, with a few ahead.

        Yields:
            the item, and its result or error: a `VideoError`, or another `TceError` that the function raised.
        """
        for item, parts in self.stream(function, items):
            try:
                (result,) = parts
            except TceError as error:
                yield item, error
            else:
                yield item, result

    def stream(
        self, function: Callable[[Item], Any], items: Iterable[Item]
    ) -> Generator[tuple[Item, Iterator[Any]], None, None]:
        """Each item with the parts that a generator function yields for it, in the order of the items.

        At most four parts of an item wait for the consumer; then its child waits. So memory is bounded,
        however long an item is. Consume an item's parts before taking the next item.

        Args:
            function: a generator function, else as for `map`.
            items: the items.

        Yields:
            the item, and an iterator of its parts, which raises the item's error.
        """
        source = iter(items)
        pending: deque[_Task] = deque()
        try:
            while True:
                while len(pending) < 2 * self.workers + 1:
                    try:
                        item = next(source)
                    except StopIteration:
                        break
                    pending.append(self._submit(function, item))
                if not pending:
                    return
                yield pending[0].item, self._parts(pending[0])
                self._cancel(pending.popleft())
        finally:
            for task in pending:
                self._cancel(task)

    def close(self) -> None:
        """End all children immediately."""
        with self._changed:
            self._closed = True
        self._wake()
        if self._thread is not None:
            self._thread.join()
        for child in self._children:
            child.end()
        self._children.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, function: Callable[[Any], Any], item: Any) -> _Task:
        if function.__module__ == "__main__":
            raise ValueError(
                f"{function.__qualname__} is defined in the main module, which child processes do not import"
            )
        task = _Task(item, pickle.dumps((function, item)))
        with self._changed:
            assert not self._closed, "the pool is closed"
            self._queue.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tce-decode-pool", daemon=True)
                self._thread.start()
        self._wake()
        return task

    def _parts(self, task: _Task) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: task.parts or task.done or self._failure or self._closed)
                if self._failure is not None:
                    raise RuntimeError("the pool of decoding processes failed") from self._failure
                if task.parts:
                    part = task.parts.popleft()
                elif task.error is not None:
                    raise task.error
                elif task.done:
                    return
                else:
                    raise RuntimeError("the pool was closed while it was in use")
            self._wake()
            yield part

    def _cancel(self, task: _Task) -> None:
        with self._changed:
            task.cancelled = True
            task.parts.clear()
            with contextlib.suppress(ValueError):
                self._queue.remove(task)
        self._wake()

    def _wake(self) -> None:
        """Make the pool's thread look for work."""
        with self._changed:
            if not self._wake_reader.poll():
                self._wake_writer.send_bytes(b"!")

    # The methods below run in the pool's own thread, so that children never wait while the consumer is busy.

    def _run(self) -> None:
        try:
            while not self._closed:
                self._assign()
                active = [child for child in self._children if child.is_listened_to(self.timeout)]
                wait_seconds = (
                    min((child.deadline for child in active), default=float("inf")) - time.monotonic()
                )
                ready = wait(
                    [self._wake_reader, *(child.reader for child in active)],
                    None if wait_seconds == float("inf") else max(0.0, wait_seconds),
                )
                if self._wake_reader in ready:
                    self._wake_reader.recv_bytes()
                for child in active:
                    if child.reader in ready:
                        self._on_message(child)
                    elif time.monotonic() > child.deadline:
                        self._on_timeout(child)
        except BaseException as error:
            self._failure = error
        with self._changed:
            self._changed.notify_all()

    def _assign(self) -> None:
        with self._changed:
            while self._queue:
                child = next((child for child in self._children if child.idle), None)
                if child is None:
                    break
                task = self._queue.popleft()
                try:
                    child.begin(task, self.timeout)
                except OSError:  # it died while idle: not this item's fault
                    self._queue.appendleft(task)
                    self._drop(child)
            starting = sum(not child.ready for child in self._children)
            missing = min(len(self._queue) - starting, self.workers - len(self._children))
        for _ in range(missing):
            self._children.append(_Child(self._memory))

    def _on_message(self, child: _Child) -> None:
        try:
            kind, value = child.receive()
        except (EOFError, OSError, pickle.UnpicklingError):
            self._on_exit(child)
            return
        child.deadline = time.monotonic() + self.timeout
        if kind == READY:
            child.ready, child.deadline = True, float("inf")
            return
        task = child.task
        if kind == HEARTBEAT or task is None:
            return
        with self._changed:
            if kind == PART and not task.cancelled:
                task.parts.append(value)
            elif kind in (DONE, ERROR):
                task.done, task.error = True, value
                for note in getattr(value, "__notes__", ()):
                    log.debug("%s", note)
                child.task, child.deadline = None, float("inf")
            self._changed.notify_all()

    def _on_exit(self, child: _Child) -> None:
        """A child died: its item fails. A child that died before it was ready ends the pool."""
        status = child.end(grace=1.0)  # it has closed its pipe: its exit status holds the reason
        self._drop(child)
        if not child.ready:
            raise RuntimeError(f"a decoding process did not start: {_cause(status)}")
        self._fail(child, DecoderCrashed, "decoding to end without a crash", _cause(status))

    def _on_timeout(self, child: _Child) -> None:
        self._drop(child)
        if not child.ready:
            raise RuntimeError(f"a decoding process did not start within {_STARTUP_SECONDS:.0f} s")
        self._fail(child, VideoTimeout, f"progress within {self.timeout:g} s", "none")

    def _fail(self, child: _Child, kind: type[TceError], expected: str, found: str) -> None:
        if child.task is not None:
            with self._changed:
                child.task.done = True
                child.task.error = kind(str(child.task.item), expected, found)
                self._changed.notify_all()

    def _drop(self, child: _Child) -> None:
        child.end()
        self._children.remove(child)


@dataclass(eq=False)
class _Task:
    item: Any
    message: bytes
    parts: deque[Any] = field(default_factory=deque)
    done: bool = False
    error: TceError | None = None
    cancelled: bool = False


class _Child:
    """One child process, as the parent sees it."""

    def __init__(self, memory: int):
        # -c rather than multiprocessing: that would run the caller's main module again in every child.
        self._shared = SharedBuffer.create()
        handle = self._shared.handle if self._shared is not None else None
        code = _START.format(path=sys.path, memory=memory, handle=handle)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[handle] if handle is not None else [],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self.reader = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._writer = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._process.stdin.close()
        self._process.stdout.close()
        self.task: _Task | None = None
        self.ready = False
        self._paused = False
        self.deadline = time.monotonic() + _STARTUP_SECONDS

    @property
    def idle(self) -> bool:
        return self.ready and self.task is None

    def is_listened_to(self, timeout: float) -> bool:
        """Whether to read from it: not while enough parts wait; its time limit is suspended then."""
        full = self.task is not None and len(self.task.parts) >= _PARTS_AHEAD
        if self._paused and not full:
            self.deadline = time.monotonic() + timeout
        self._paused = full
        return not full

    def begin(self, task: _Task, timeout: float) -> None:
        self._writer.send_bytes(task.message)
        self.task, self.deadline = task, time.monotonic() + timeout

    def receive(self) -> tuple[int, Any]:
        """The child's next message: its kind and value."""
        kind, value = self.reader.recv()
        if kind != SHARED:
            return kind, value
        assert self._shared is not None
        slot, sizes, message = value
        part = pickle.loads(message, buffers=self._shared.read(slot, sizes))
        with contextlib.suppress(OSError):  # it died since: what it sent before is good
            self._writer.send_bytes(b"")  # the slot is free
        return PART, part

    def end(self, grace: float = 0.0) -> int:
        """Kill the process if it runs after `grace` seconds; its exit status, negative for a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self._process.kill()
        self.reader.close()
        self._writer.close()
        if self._shared is not None:
            self._shared.close()
            self._shared = None
        return self._process.wait()


def _cause(status: int) -> str:
    if status >= 0:
        return f"it ended with status {status}"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else f"signal {-status}"
    return f"it was killed by {name}" + (", possibly out of memory" if name == "SIGKILL" else "")
