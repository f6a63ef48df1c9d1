"""Fixtures that every room's tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A suite that was started in the background ignores Ctrl-C, and so would the processes it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips beside the checkout; tests that need it skip without it."""
    if not REAL_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout: real clips are kept out of the repository")
    return REAL_DATA
