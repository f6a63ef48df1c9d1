"""Debian's Chromium, driven by Playwright, for tests of the explorer's page."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def find_chromium() -> tuple[Any, str]:
    """Playwright's module and the browser's path, or a reason to skip."""
    import pytest

    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    return playwright, path


def page_data(page: Path) -> dict[str, Any]:
    """The data that a page holds, read without a browser; arrays as NumPy arrays."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)
    data = json.loads(text)

    def array(packed: str, kind: str) -> np.ndarray:
        return np.frombuffer(base64.b64decode(packed), kind)

    for one in data["maps"]:
        one["points"] = array(one["points"], "<u2").reshape(-1, 2) / 65535
        one["neighbours"] = array(one["neighbours"], "<i4").reshape(len(one["points"]), -1)
    data["frame"], data["time"] = array(data["frame"], "<i4"), array(data["time"], "<f4")
    for one in data["columns"]:
        one["values"] = array(one["values"], "<i4" if one["kind"] == "category" else "<f4")
    return data
