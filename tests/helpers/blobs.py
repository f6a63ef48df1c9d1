"""Clips of a bright square that moves over a dark ground: what differs is where it goes, and when."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tce.video.synthetic import write_video

FRAMES, SIZE, FPS = 12, 48, 10


def frames(direction: str, colour: tuple[int, int, int] = (230, 40, 40), count: int = FRAMES) -> np.ndarray:
    """uint8 [count, 48, 48, 3]: the square goes "right", "left", "down", or "stays" in a corner."""
    images = np.full((count, SIZE, SIZE, 3), 20, np.uint8)
    for number in range(count):
        far = round((SIZE - 16) * number / max(1, count - 1))
        top, left = {
            "right": (16, far),
            "left": (16, SIZE - 16 - far),
            "down": (far, 16),
            "stays": (0, 0),
        }[direction]
        images[number, top : top + 16, left : left + 16] = colour
    return images


def write(path: Path, direction: str, **settings: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames(direction, **settings), FPS)  # type: ignore[arg-type]
    return path


def write_folder(folder: Path) -> Path:
    """Five clips of three directions."""
    write(folder / "right" / "r1.mp4", "right")
    write(folder / "right" / "r2.mp4", "right", colour=(220, 60, 50))
    write(folder / "left" / "l1.mp4", "left")
    write(folder / "left" / "l2.mp4", "left", colour=(220, 60, 50))
    write(folder / "down" / "d1.mp4", "down")
    return folder
