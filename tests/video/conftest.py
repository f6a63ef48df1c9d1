"""Hard footage, written once a session."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # for hard_footage, here and in other rooms' tests
os.environ["SVT_LOG"] = "0"  # the AV1 encoder is talkative

import hard_footage

settings.register_profile("patient", deadline=None)  # other work on the machine is no fault of ours
settings.load_profile("patient")


@pytest.fixture(scope="session")
def hard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of all hard footage by name."""
    folder = tmp_path_factory.mktemp("hard")
    return {piece.name: path for piece, path in hard_footage.make_all(folder)}
