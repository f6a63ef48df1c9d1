"""Numbered clips as videos, as frame folders and packed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for numbered and faulty
sys.path.insert(0, str(HERE.parent / "video"))  # for hard_footage


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight MP4 files of twelve frames."""
    from numbered import write_videos

    return write_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same clips as frame folders."""
    from numbered import write_folders

    return write_folders(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="session")
def packed(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos as a collection; not to be changed."""
    from numbered import pack_into

    out = tmp_path_factory.mktemp("packed") / "collection"
    pack_into(out, videos)
    return out


@pytest.fixture(scope="session")
def hard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of every kind of hard footage."""
    import hard_footage

    folder = tmp_path_factory.mktemp("hard_footage")
    list(hard_footage.make_all(folder))
    return folder
