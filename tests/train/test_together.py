from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tce.errors import OptionError
from tce.train.pretrain import make_encoder, pretrain
from tests.helpers import together
from tests.helpers.run_files import rows, same, saved
from tests.helpers.together import VARIANTS, in_chunks, options

HERE = Path(__file__).parent
LEARNING = [name for name in VARIANTS if name != "odd"]
JOBS = {
    "two": {"processes": 2, "epochs": 3, "names": LEARNING},
    "four": {"processes": 4, "epochs": 3, "names": LEARNING},
    "killed": {"processes": 2, "epochs": 6, "names": ["own row"], "kill": True},
    "resumed": {"processes": 2, "epochs": 6, "names": ["own row"], "resume": True, "into": "killed"},
    "whole": {"processes": 2, "epochs": 6, "names": ["own row"]},
    "odd": {"processes": 2, "epochs": 3, "names": ["odd"]},
}


@dataclass
class Jobs:
    """What became of JOBS."""

    clips: str
    out: Path
    codes: dict[str, list[int]]

    def printed(self, job: str) -> list[str]:
        """The job's messages, line by line."""
        return [line for line in (self.out / f"{job}.err").read_text().splitlines() if line]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, make_folders: Callable[..., Path]) -> Jobs:
    """All jobs, on 24 clips: so many that each of four processes has enough for batch norm to be stable."""
    folder = tmp_path_factory.mktemp("together")
    clips = make_folders(folder / "clips", clips=4)
    command = [sys.executable, together.__file__, clips, folder, json.dumps(JOBS)]
    places = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]  # for tests.helpers
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return Jobs(str(clips), folder, json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize("job", ["two", "four"])
def test_several_processes_learn_what_one_does(jobs: Jobs, tmp_path: Path, job: str, name: str) -> None:
    """Against one process that normalises in the same chunks: losses, weights, bank, Z and draws."""
    processes = JOBS[job]["processes"]
    assert jobs.codes[job] == [0] * processes, jobs.printed(job)
    wanted = options(jobs.clips, str(tmp_path), name)
    with in_chunks(processes):
        pretrain(wanted)
    many, one = saved(jobs.out / job / name)["task"], saved(tmp_path)["task"]
    for part in [part for part in ("encoder", "momentum_encoder", "queue", "bank", "loss") if part in one]:
        for key in one[part]:
            if "running" not in key and "tracked" not in key:  # averaged there, one after the other here
                assert torch.allclose(one[part][key], many[part][key], atol=2e-4, rtol=1e-3), key
    first = make_encoder(wanted).state_dict()
    moved = max(float((first[key] - one["encoder"][key]).abs().max()) for key in first)
    assert moved > 0.02, "far more than the tolerance"
    for a, b in zip(rows(jobs.out / job / name), rows(tmp_path), strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"knn", "rank_all", "uniformity_all"}:  # evaluated with running statistics
            assert math.isclose(a[key], b[key], rel_tol=1e-3, abs_tol=1e-3), (a["step"], key)


def test_a_killed_process_ends_the_job_with_a_clear_message(jobs: Jobs) -> None:
    assert jobs.codes["killed"] == [1, -9]
    reported = [line for line in jobs.printed("killed") if line.startswith("tce: ")]
    assert (
        len(reported) == 1
        and "process 0 of 2 stopped, since another one failed" in reported[0]
        and "--resume" in reported[0]
    )
    assert not any("Traceback" in line for line in jobs.printed("killed"))


def test_what_a_killed_process_left_is_usable(jobs: Jobs) -> None:
    assert jobs.codes["resumed"] == jobs.codes["whole"] == [0, 0]
    assert same(saved(jobs.out / "killed" / "own row"), saved(jobs.out / "whole" / "own row"))
    assert rows(jobs.out / "killed" / "own row") == rows(jobs.out / "whole" / "own row")


def test_the_main_process_speaks_for_all(jobs: Jobs) -> None:
    assert jobs.codes["odd"] == [1, 1]
    assert jobs.printed("odd") == ["tce: --batch-size; expected a multiple of the 2 processes; found 23"]
    assert (jobs.out / "whole.out").read_text().count("wrote ") == 1


def test_sync_bn_is_refused_where_it_cannot_be(clips: Path, tmp_path: Path) -> None:
    wanted = options(str(clips), str(tmp_path), "in batch", sync_bn=True, batch_size=12)
    with pytest.raises(OptionError, match="--sync-bn; expected several processes on GPUs; found 1 on cpu"):
        pretrain(wanted)
