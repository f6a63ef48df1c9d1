"""The child's side of `isolate`: takes items from its parent, runs the function, hands results back."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator
from multiprocessing.connection import Connection
from typing import Any

from tce.errors import TceError
from tce.video.base import VideoError

READY, ALIVE, PART, DONE, ERROR = range(5)  # what a message to the parent says

_to_parent: Connection | None = None
_SECONDS_BETWEEN_SIGNS = 0.5
_last_sign = 0.0


def alive() -> None:
    """Tell the parent that the work goes on, so that its time-out starts anew; does nothing elsewhere."""
    global _last_sign
    if _to_parent is not None and time.monotonic() - _last_sign > _SECONDS_BETWEEN_SIGNS:
        _last_sign = time.monotonic()
        _to_parent.send((ALIVE, None))


def serve(path: list[str], memory: int) -> None:
    """Answer the parent on standard input and output until it hangs up.

    Args:
        path: the parent's `sys.path`.
        memory: address space that this process may take, in bytes; 0 for no limit.
    """
    global _to_parent
    sys.path[:] = path
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent cleans up
    _limit_memory(memory)
    from_parent = Connection(os.dup(0), writable=False)
    _to_parent = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # what a library prints must not reach the parent as a message
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
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
    """The error itself if it belongs to the family, else one that tells it in a line."""
    if isinstance(error, TceError):
        try:
            pickle.loads(pickle.dumps(error))
            return error
        except Exception:  # whatever its parts raise: its words still reach the parent
            return VideoError(str(item), "footage that decodes", str(error))
    kind = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
    told = VideoError(str(item), "footage that decodes", f"{kind}: {error}")
    told.add_note("".join(traceback.format_exception(error)))  # not foreseen: for whoever looks for the fault
    return told


def _limit_memory(memory: int) -> None:
    if memory:
        with contextlib.suppress(ImportError, ValueError, OSError):
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _leave_with_parent(parent: int) -> None:
    """End this process when the parent is gone, even if the decoder hangs."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)
