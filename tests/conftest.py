"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# A suite that was started in the background ignores Ctrl-C, and so would the processes it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["SVT_LOG"] = "0"  # the AV1 encoder is talkative
settings.register_profile("patient", deadline=None)  # other work on the machine is no fault of ours
settings.load_profile("patient")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def float32_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--precision auto` means float32 in tests, on every processor; tests of the probe patch it again."""
    import tce.device

    probe = tce.device.PrecisionProbe(float32=0.001, bf16=0.002)
    monkeypatch.setattr(tce.device, "probe_precision", lambda device: probe)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips beside the checkout; tests that need it skip without it."""
    if not REAL_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout: real clips are kept out of the repository")
    return REAL_DATA


@pytest.fixture(scope="session")
def hard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of all hard footage by name."""
    from tests.helpers import hard_videos

    folder = tmp_path_factory.mktemp("hard")
    return {piece.name: path for piece, path in hard_videos.make_all(folder)}


@pytest.fixture(scope="session")
def hard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of every kind of hard footage."""
    from tests.helpers import hard_videos

    folder = tmp_path_factory.mktemp("hard_videos")
    list(hard_videos.make_all(folder))
    return folder


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of inputs re-created from public reports; tests that need it skip without it."""
    folder = REAL_DATA.parent / "cases"
    if not folder.is_dir():
        pytest.skip("no ../shared/cases beside the checkout: they are kept out of the repository")
    return folder
