"""Functions that child processes import and that do what bad footage makes decoders do."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tce.video import isolated
from tce.video.base import FrameError
from tce.video.isolated import StreamJob, stream_chunks
from tce.video.open_video import open_video
from tce.video.pool_worker import heartbeat


def act(deed: str) -> Any:
    if deed == "exit":
        os._exit(7)
    if deed == "segfault":
        ctypes.string_at(0)
    if deed == "hang":
        time.sleep(1000)
    if deed == "raise":
        raise ValueError("not\nforeseen")
    if deed == "video error":
        raise FrameError("frame 3", "a frame", "none", "look elsewhere")
    if deed == "unpicklable":
        return lambda: None
    if deed == "memory":
        return np.ones(1 << 31, np.uint8).sum()
    if deed == "print":
        print("this must not reach the parent as a message", flush=True)
    if deed == "large":
        return np.arange(4_000_000)
    if deed == "slow but alive":
        for _ in range(20):
            time.sleep(0.1)
            heartbeat()
    if deed == "modules":
        return sorted(sys.modules)
    if deed == "process":
        return os.getpid()
    return deed.upper()


def frames_of(path: str) -> int:
    return sum(len(indices) for indices, _ in open_video(path, threads=1).stream())


def count_to(n: int) -> Iterator[np.ndarray]:
    for i in range(abs(n)):
        yield np.full(300_000, i)
    if n < 0:
        os.abort()


def slowly(item: tuple[int, float]) -> int:
    time.sleep(item[1])
    return item[0]


def stream_or_act(job: StreamJob) -> Iterator[Any]:
    """What `stream_chunks` yields, unless the file is named for what a decoder may do instead."""
    deed = Path(str(job)).stem
    if deed in ("hang", "segfault", "memory"):
        act(deed)
    yield from stream_chunks(job)


def answer_or_act(question: Any) -> Any:
    """What a child of `IsolatedVideo` answers, unless the file is named for what a decoder may do instead."""
    deed = Path(str(question)).stem
    return act(deed) if deed == "segfault" else isolated._answer(question)


def two_arrays(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of `size` bytes together."""
    return np.full(size // 2, 3, np.uint8), np.full(size - size // 2, 5, np.uint8)
