"""Striped clips as frame folders, their lists, and small untrained networks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tce.model.checkpoint import save_model
from tce.model.classifier import classifier_from_encoder
from tce.model.encoder import build_encoder

CLASSES, GROUPS, PIECES = ("Down", "Left", "Right", "Up"), 4, 2
LENGTHS = (1, 5, 6, 8, 9, 27, 28, 12)  # of a class's clips in turn: every edge of the short-clip rule


def write_clip(folder: Path, label: int, group: int, frames: int) -> None:
    """Moving stripes: the class is their direction, the group their colour; noise on top."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([label, group, frames])
    colour = np.random.default_rng(group).uniform(60, 190, 3)
    rows, columns = np.mgrid[:36, :48]
    angle = np.pi * label / len(CLASSES)
    for frame in range(frames):
        wave = np.sin((np.cos(angle) * columns + np.sin(angle) * rows) / 2.5 + 0.7 * frame)
        image = np.clip(colour + 55 * wave[..., None] + rng.normal(0, 4, (36, 48, 3)), 0, 255)
        cv2.imwrite(str(folder / f"frame{frame + 1:06d}.jpg"), image.astype(np.uint8))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results without --out go to the current folder: not to the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`footage`, flat as jpegs_256, and `lists`: split 01 tests groups 1 and 2, split 02 groups 3 and 4."""
    root = tmp_path_factory.mktemp("data")
    footage, lists = root / "jpegs_256", root / "lists"
    lists.mkdir()
    names: dict[str, list[str]] = {"01": [], "02": []}
    for label, name in enumerate(CLASSES):
        for clip in range(GROUPS * PIECES):
            group, piece = clip // PIECES + 1, clip % PIECES + 1
            title = f"v_{name}_g{group:02d}_c{piece:02d}"
            write_clip(footage / title, label, group, LENGTHS[clip])
            names["01" if group <= 2 else "02"].append(f"{name}/{title}.avi")
    (lists / "classInd.txt").write_text("".join(f"{i + 1} {name}\n" for i, name in enumerate(CLASSES)))
    for split, other in (("01", "02"), ("02", "01")):
        (lists / f"testlist{split}.txt").write_text("".join(f"{name}\n" for name in names[split]))
        numbered = (f"{name} {CLASSES.index(name.split('/')[0]) + 1}\n" for name in names[other])
        (lists / f"trainlist{split}.txt").write_text("".join(numbered))
    return SimpleNamespace(root=root, footage=footage, lists=lists)


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Checkpoints of untrained ResNet-18s of 32 pixels: `encoder`, `stacks` and `rgb` (classifiers)."""
    root = tmp_path_factory.mktemp("networks")
    encoder = build_encoder("resnet18", 16, image_size=32, seed=0)
    paths = {"encoder": save_model(root / "encoder.safetensors", encoder)}
    for name, differences in (("stacks", 5), ("rgb", 0)):
        classifier = classifier_from_encoder(encoder, len(CLASSES), differences, CLASSES, seed=1)
        paths[name] = save_model(root / f"{name}.safetensors", classifier)
    return SimpleNamespace(root=root, **{name: str(path) for name, path in paths.items()})
