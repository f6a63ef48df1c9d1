"""A frame store that is late, broken or silent, and random plans to read from it."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np

from tests.helpers import hard_videos

CLIPS, FRAMES = 20, 50


class FaultyStore:
    """Images that show their clip and frame as pure colours, late, broken or not at all, as `faults` says."""

    def __init__(self, faults: bool = True, seed: int = 0):
        self.catalog = [SimpleNamespace(id=f"clip{clip:02d}") for clip in range(CLIPS)]
        self.faults, self.reads = faults, 0
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()

    def read(self, clips: np.ndarray, frames: np.ndarray) -> list[bytes | Exception]:
        with self._lock:
            self.reads += 1
            delay = self._rng.uniform(0, 0.01)
        time.sleep(delay)
        return [self._image(int(clip), int(frame)) for clip, frame in zip(clips, frames, strict=True)]

    def _image(self, clip: int, frame: int) -> bytes | Exception:
        if self.broken(clip, frame):
            return OSError("disk gone") if frame % 2 else b"\xff\xd8\xff broken"
        return hard_videos.png(np.full((4, 4, 3), (clip, frame, 77), np.uint8))

    def broken(self, clip: int, frame: int) -> bool:
        return self.faults and (clip * 31 + frame * 7) % 11 == 0


def random_plan(batches: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, batches)
    return [
        (rng.integers(0, CLIPS, size), rng.integers(0, FRAMES, (size, 1 + number % 3)))
        for number, size in enumerate(sizes)
    ]
