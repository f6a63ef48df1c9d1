"""The child's side of `DecodePool`: receives items from its parent, runs the function, sends results back.

Frames pass through memory that both processes share, not through a pipe.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Generator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError
from tce.video.base import VideoError

READY, HEARTBEAT, PART, SHARED, DONE, ERROR = range(6)  # kinds of messages to the parent

_to_parent: Connection | None = None
_HEARTBEAT_SECONDS = 0.5
_last_heartbeat = 0.0

SLOTS = 2  # one is written while the other is read
SLOT_BYTES = 32 << 20
SMALLEST = 64 << 10  # bytes; what is smaller goes through the pipe


def heartbeat() -> None:
    """Restart the parent's time limit for this item; does nothing outside a child of `DecodePool`."""
    global _last_heartbeat
    if _to_parent is not None and time.monotonic() - _last_heartbeat > _HEARTBEAT_SECONDS:
        _last_heartbeat = time.monotonic()
        _to_parent.send((HEARTBEAT, None))


def serve(memory: int, handle: int | None) -> None:
    """Answer the parent on standard input and output until it closes them.

    Args:
        memory: address space of this process in bytes; 0 for no limit.
        handle: file descriptor of the memory shared with the parent, if there is any.
    """
    global _to_parent
    _limit_memory(memory)
    from_parent = Connection(os.dup(0), writable=False)
    _to_parent = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # what a library prints must not reach the parent as a message
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    sender = _Sender(_to_parent, from_parent, handle)
    _to_parent.send((READY, None))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            _answer(from_parent.recv_bytes(), sender)


class _Sender:
    """Sends an item's parts to the parent: large arrays through shared memory, the rest through the pipe."""

    def __init__(self, to_parent: Connection, from_parent: Connection, handle: int | None):
        self._to_parent, self._from_parent = to_parent, from_parent
        self._shared = SharedBuffer(handle) if handle is not None else None
        self._slot = 0
        self._taken = 0  # slots that the parent has not read yet

    def send(self, kind: int, value: Any) -> None:
        """Send a message of another kind than a part."""
        self._to_parent.send((kind, value))

    def send_part(self, part: Any) -> None:
        """Send one part; waits for a free slot."""
        buffers: list[pickle.PickleBuffer] = []
        message = pickle.dumps(part, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        size = sum(view.nbytes for view in views)
        if self._shared is None or not SMALLEST <= size <= SLOT_BYTES:
            self._to_parent.send((PART, part))
            return
        self.wait_for_slots(SLOTS - 1)
        sizes = self._shared.write(self._slot, views)
        self._to_parent.send((SHARED, (self._slot, sizes, message)))
        self._slot = (self._slot + 1) % SLOTS
        self._taken += 1

    def wait_for_slots(self, taken: int = 0) -> None:
        """Wait until the parent has read all slots but `taken`."""
        while self._taken > taken:
            self._from_parent.recv_bytes()
            self._taken -= 1


def _answer(task: bytes, sender: _Sender) -> None:
    item: Any = None
    try:
        function, item = pickle.loads(task)
        result = function(item)
        if isinstance(result, Generator):
            for part in result:
                sender.send_part(part)
        else:
            sender.send_part(result)
        end: tuple[int, Any] = DONE, None
    except (BrokenPipeError, ConnectionResetError):
        raise
    except BaseException as error:
        end = ERROR, _portable(error, item)
    sender.wait_for_slots()  # before the parent sends the next item
    sender.send(*end)


def _portable(error: BaseException, item: Any) -> TceError:
    """The error itself if it is a `TceError`, else a `VideoError` with its message."""
    if isinstance(error, TceError):
        try:
            pickle.loads(pickle.dumps(error))
            return error
        except Exception:  # its parts do not pickle: its message still reaches the parent
            return VideoError(str(item), "a video that decodes", str(error))
    kind = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
    sent = VideoError(str(item), "a video that decodes", f"{kind}: {error}")
    sent.add_note("".join(traceback.format_exception(error)))  # for debugging: such errors are unexpected
    return sent


def _limit_memory(memory: int) -> None:
    if memory:
        with contextlib.suppress(ImportError, ValueError, OSError):
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _exit_with_parent(parent: int) -> None:
    """End this process when the parent has ended, even if the decoder hangs."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


class SharedBuffer:
    """Two slots of memory that both processes map; it is freed when both have ended, however they end.

    Args:
        handle: file descriptor of the memory, see `create`.
    """

    def __init__(self, handle: int):
        self.handle = handle
        self._memory = mmap.mmap(handle, SLOTS * SLOT_BYTES)

    @classmethod
    def create(cls) -> SharedBuffer | None:
        """A new buffer; None where child processes cannot inherit a file descriptor (Windows)."""
        if sys.platform == "win32":
            return None
        if hasattr(os, "memfd_create"):
            handle = os.memfd_create("tce-frames")
        else:
            with tempfile.TemporaryFile() as file:  # has no name: it ends with its last user
                handle = os.dup(file.fileno())
        os.ftruncate(handle, SLOTS * SLOT_BYTES)  # takes no memory before it is written to
        return cls(handle)

    def write(self, slot: int, parts: Sequence[memoryview]) -> list[int]:
        """Copy the parts one behind the other into a slot; their sizes in bytes."""
        place = slot * SLOT_BYTES
        for part in parts:
            view = np.frombuffer(self._memory, np.uint8, part.nbytes, place)
            np.copyto(view, np.frombuffer(part, np.uint8))
            place += part.nbytes
        return [part.nbytes for part in parts]

    def read(self, slot: int, sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
        """A copy of what `write` put into a slot, uint8 [size] each; releases Python's global lock."""
        copy = np.empty(sum(sizes), np.uint8)
        np.copyto(copy, np.frombuffer(self._memory, np.uint8, len(copy), slot * SLOT_BYTES))
        return np.split(copy, np.cumsum(sizes[:-1])) if sizes else []

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        os.close(self.handle)
