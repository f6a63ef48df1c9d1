"""Small clips as frame folders and videos, and a small untrained network to start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tce.model.checkpoint import save_model
from tce.model.encoder import build_encoder
from tests.helpers.drifting import write_clip


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of an untrained ResNet-18 of 32 pixels, with a head that was trained, supposedly."""
    encoder = build_encoder("resnet18", 16, image_size=32, seed=0)
    return str(save_model(tmp_path_factory.mktemp("start") / "start.safetensors", encoder))


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of six frames, in folders a and b; ids carry a person p1 or p2."""
    root = tmp_path_factory.mktemp("footage")
    for number in range(12):
        write_clip(root / "ab"[number // 6] / f"clip{number:02d}_p{1 + number % 2}", number)
    return root
