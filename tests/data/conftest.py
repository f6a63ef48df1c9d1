"""Numbered clips as videos, as frame folders and packed."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight MP4 files of twelve frames."""
    from tests.helpers.numbered import write_videos

    return write_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same clips as frame folders."""
    from tests.helpers.numbered import write_folders

    return write_folders(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="session")
def packed(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos as a collection; not to be changed."""
    from tests.helpers.numbered import pack_into

    out = tmp_path_factory.mktemp("packed") / "collection"
    pack_into(out, videos)
    return out
