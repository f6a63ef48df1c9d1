"""Memory that a decoding child process and its parent share, so that frames do not pass through a pipe."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SLOTS = 2  # one is written while the other is read
SLOT_BYTES = 32 << 20
SMALLEST = 64 << 10  # bytes; what is smaller goes through the pipe


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
