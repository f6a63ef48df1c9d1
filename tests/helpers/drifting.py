"""Clips of drifting patterns, as frame folders."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_clip(folder: Path, seed: int, frames: int = 6, moving: bool = True) -> Path:
    """A pattern of the seed's own that drifts across the frames."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    pattern = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48))
    for frame in range(frames):
        image = np.roll(pattern, 3 * frame * moving, axis=1)
        cv2.imwrite(str(folder / f"frame{frame + 1:06d}.jpg"), image)
    return folder
