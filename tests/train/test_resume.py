from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from tests.helpers import kill
from tests.helpers.run_files import events, rows, same, saved

HERE = Path(__file__).parent


def test_twenty_kills_leave_what_an_uninterrupted_run_leaves(clips: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, inside steps and checkpoint writes, with one to three loader threads."""
    out, whole = tmp_path / "run", tmp_path / "run-whole"
    done = subprocess.run(
        [sys.executable, kill.__file__, clips, out, "20", "1"], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reported = json.loads(done.stdout.splitlines()[-1])
    killed = [run for run in reported if run["killed"]]
    assert len(killed) == len(reported) == 20, reported
    assert len({run["step"] for run in killed}) > 5, "the kills came at several moments"
    a, b = saved(out), saved(whole)
    assert a["step"] == 120 and same(a, b)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert rows(out) == rows(whole) and len(rows(out)) > 10
    curves, expected = events(out), events(whole)
    assert curves["loss"] == expected["loss"] and curves["knn"] == expected["knn"]
    assert torch.load(out / "checkpoints" / "latest.pt", weights_only=True)["task"]["bank"]["rows"].shape == (
        12,
        8,
    )
