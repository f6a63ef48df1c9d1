"""Clips as frame folders, small enough to train on within a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest


def write_folders(
    folder: Path, classes: int = 3, people: int = 2, clips: int = 2, frames: int = 6, size: int = 40
) -> Path:
    """Frame folders named as UCF101's: a class is a direction of stripes, a person a colour."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    for label in range(classes):
        angle = np.pi * label / classes
        for person in range(people):
            colour = np.random.default_rng(person).uniform(60, 220, 3)
            for clip in range(clips):
                target = folder / f"C{label}" / f"v_C{label}_g{person + 1:02d}_c{clip + 1:02d}"
                target.mkdir(parents=True)
                speed = rng.uniform(0.2, 0.6)
                for frame in range(frames):
                    wave = np.sin((np.cos(angle) * columns + np.sin(angle) * rows) / 3 + speed * frame)
                    image = np.clip(colour + 50 * wave[..., None] + rng.normal(0, 8, (size, size, 3)), 0, 255)
                    cv2.imwrite(str(target / f"{frame + 1:03d}.jpg"), image.astype(np.uint8))
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of six frames: three classes by two people."""
    return write_folders(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def make_folders() -> Callable[..., Path]:
    """`write_folders`."""
    return write_folders


@pytest.fixture(scope="module")
def footage(make_folders: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes by five people, two clips of eight frames each."""
    return make_folders(tmp_path_factory.mktemp("footage"), people=5, frames=8)
