"""Functions for child processes that fail as decoders do on bad files: they crash, hang, exhaust memory."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tce.data.encode import Job, encode_clip
from tce.video import open_video as isolated
from tce.video.base import FrameError
from tce.video.open_video import StreamJob, open_video, stream_chunks
from tce.video.pool_worker import heartbeat


def act(action: str) -> Any:
    if action == "exit":
        os._exit(7)
    if action == "segfault":
        ctypes.string_at(0)
    if action == "hang":
        time.sleep(1000)
    if action == "raise":
        raise ValueError("not\nforeseen")
    if action == "video error":
        raise FrameError("frame 3", "a frame", "none", "look elsewhere")
    if action == "unpicklable":
        return lambda: None
    if action == "memory":
        return np.ones(1 << 31, np.uint8).sum()
    if action == "print":
        print("this must not reach the parent as a message", flush=True)
    if action == "large":
        return np.arange(4_000_000)
    if action == "slow but alive":
        for _ in range(20):
            time.sleep(0.1)
            heartbeat()
    if action == "modules":
        return sorted(sys.modules)
    if action == "process":
        return os.getpid()
    return action.upper()


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
    action = Path(str(job)).stem
    if action in ("hang", "segfault", "memory"):
        act(action)
    yield from stream_chunks(job)


def encode_or_act(job: Job) -> Iterator[Any]:
    """What `encode_clip` yields, unless the file is named for what a decoder may do instead."""
    action = Path(job.path).stem
    if action in ("hang", "segfault", "memory"):
        act(action)
    yield from encode_clip(job)


def answer_or_act(question: Any) -> Any:
    """What a child of `IsolatedVideo` answers, unless the file is named for what a decoder may do instead."""
    action = Path(str(question)).stem
    return act(action) if action == "segfault" else isolated._answer(question)


def two_arrays(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of `size` bytes together."""
    return np.full(size // 2, 3, np.uint8), np.full(size - size // 2, 5, np.uint8)
