from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers import failing_ranks
from tests.helpers.run_files import rows, same, saved


@dataclass
class Runs:
    """What became of the runs of `failing_ranks`."""

    out: Path
    codes: dict[str, list[int]]

    def printed(self, name: str) -> list[str]:
        return [line for line in (self.out / f"{name}.err").read_text().splitlines() if line]

    def recorded(self, name: str, rank: int) -> str | None:
        """The error that torchrun would report of a process."""
        file = self.out / f"{name}.{rank}.json"
        return json.loads(file.read_text())["message"]["message"] if file.exists() else None


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    out = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [sys.executable, "-m", failing_ranks.__name__, out],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Runs(out, json.loads(done.stdout.splitlines()[-1]))


def test_an_error_of_one_process_is_named_by_the_main_one(runs: Runs) -> None:
    assert runs.codes["user"] == [1, 1], runs.printed("user")
    lines = runs.printed("user")
    assert "process 1 of 2: clip 7; expected frames; found none" in lines
    reported = [line for line in lines if line.startswith("tce: ")]
    assert len(reported) == 1 and "process 1: clip 7; expected frames; found none" in reported[0]
    assert "--resume" in reported[0] and not any("Traceback" in line for line in lines)
    assert runs.recorded("user", 1) == "TceError: clip 7; expected frames; found none"
    assert saved(runs.out / "user")["step"] == failing_ranks.FAIL_AT


def test_a_fault_of_the_program_keeps_its_traceback_and_its_name(runs: Runs) -> None:
    assert runs.codes["bug"] == [1, 3], runs.printed("bug")
    reported = [line for line in runs.printed("bug") if line.startswith("tce: ")]
    assert len(reported) == 1 and "process 1: ValueError: a fault of the program" in reported[0]
    assert "Traceback: ValueError: a fault of the program" in runs.printed("bug")
    assert runs.recorded("bug", 1) == "ValueError: a fault of the program"


def test_an_error_of_the_main_process_is_printed_once(runs: Runs) -> None:
    assert runs.codes["main"] == [1, 1], runs.printed("main")
    assert [line for line in runs.printed("main") if "the disk" in line] == ["tce: the disk; found full"]
    assert "process 1 of 2 stopped, since another one failed" in runs.printed("main")


def test_a_killed_process_ends_all_and_the_run_resumes(runs: Runs) -> None:
    assert runs.codes["killed"] == [1, -9], runs.printed("killed")
    reported = [line for line in runs.printed("killed") if line.startswith("tce: ")]
    assert len(reported) == 1 and "it may have been killed" in reported[0] and "--resume" in reported[0]
    assert runs.codes["resumed"] == runs.codes["none"] == [0, 0]
    assert same(saved(runs.out / "killed"), saved(runs.out / "none"))
    assert rows(runs.out / "killed") == rows(runs.out / "none")
