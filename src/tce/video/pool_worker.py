"""The child's side of `DecodePool`: receives items from its parent, runs the function, sends results back."""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
import traceback
from collections.abc import Generator
from multiprocessing.connection import Connection
from typing import Any

from tce.errors import TceError
from tce.video.base import VideoError

READY, HEARTBEAT, PART, DONE, ERROR = range(5)  # kinds of messages to the parent

_to_parent: Connection | None = None
_HEARTBEAT_SECONDS = 0.5
_last_heartbeat = 0.0


def heartbeat() -> None:
    """Restart the parent's time limit for this item; does nothing outside a child of `DecodePool`."""
    global _last_heartbeat
    if _to_parent is not None and time.monotonic() - _last_heartbeat > _HEARTBEAT_SECONDS:
        _last_heartbeat = time.monotonic()
        _to_parent.send((HEARTBEAT, None))


def serve(memory: int) -> None:
    """Answer the parent on standard input and output until it closes them.

    Args:
        memory: address space of this process in bytes; 0 for no limit.
    """
    global _to_parent
    _limit_memory(memory)
    from_parent = Connection(os.dup(0), writable=False)
    _to_parent = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # what a library prints must not reach the parent as a message
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    _to_parent.send((READY, None))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            _answer(from_parent.recv_bytes(), _to_parent)


def _answer(task: bytes, to_parent: Connection) -> None:
    item: Any = None
    try:
        function, item = pickle.loads(task)
        result = function(item)
        if isinstance(result, Generator):
            for part in result:
                to_parent.send((PART, part))
        else:
            to_parent.send((PART, result))
        to_parent.send((DONE, None))
    except (BrokenPipeError, ConnectionResetError):
        raise
    except BaseException as error:
        to_parent.send((ERROR, _portable(error, item)))


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
