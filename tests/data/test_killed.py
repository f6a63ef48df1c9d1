"""Packing killed again and again gives what one undisturbed run gives, row for row."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import numpy as np

from tce.data.collection import has_table, open_collection
from tests.helpers.numbered import pack_into, write_folders, write_videos

# Commits often, so that there is something to be caught in; joins files as small as those.
PROGRAM = """
import sys
sys.path[:0] = {path!r}
import tce.data.writer as writer
writer.COMMIT_SECONDS, writer.COMMIT_BYTES = 0.0, 20000
from tests.helpers.numbered import pack_into
from pathlib import Path
pack_into(Path({out!r}), Path({footage!r}), workers=2)
"""


def start(footage: Path, out: Path) -> subprocess.Popen[bytes]:
    program = PROGRAM.format(path=sys.path, out=str(out), footage=str(footage))
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def committed(out: Path) -> int:
    """Versions of both tables so far: each commit makes one."""
    return sum(
        len(os.listdir(out / f"{table}.lance" / "_versions"))
        for table in ("clips", "frames")
        if has_table(out, table)
    )


def content(collection: Path) -> list[list[dict[str, object]]]:
    tables = [lance.dataset(f"{collection}/{table}.lance").to_table() for table in ("clips", "frames")]
    return [table.to_pylist() for table in tables]


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL during the first commits, in the middle and at the end; the rows and their order stay right."""
    footage = write_videos(tmp_path / "videos", 16)
    write_folders(footage / "more", 6)
    (footage / "A" / "bad.mp4").write_bytes(b"no video")
    pack_into(tmp_path / "whole", footage, workers=2)
    rng, kills = random.Random(0), 0
    out = tmp_path / "killed"
    for _ in range(30):
        process = start(footage, out)
        before = committed(out) if out.is_dir() else 0
        after = rng.randint(1, 6)  # commits of this attempt
        while process.poll() is None and committed(out) < before + after:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        _, errors = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()[-2000:]
    assert process.returncode == 0 and kills >= 3
    assert content(out) == content(tmp_path / "whole")
    assert open_collection(out).fingerprint() == open_collection(tmp_path / "whole").fingerprint()
    assert not open_collection(out).damaged


def test_interrupted_by_ctrl_c(tmp_path: Path) -> None:
    """The command says how far it came, keeps what is finished, and exits with 130."""
    footage = write_videos(tmp_path / "videos", 30, 250)
    command = [
        sys.executable,
        "-m",
        "tce",
        "pack",
        str(footage),
        "--out",
        str(tmp_path / "c"),
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not has_table(tmp_path / "c", "clips"):
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command resumes" in errors and "Traceback" not in errors
    kept = len(open_collection(tmp_path / "c"))
    assert f"{kept} of 30 clips are packed" in errors
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    store = open_collection(tmp_path / "c")
    assert len(store) == 30 and np.all(store.lengths == 250)
