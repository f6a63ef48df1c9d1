from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from tce.errors import OptionError, TceError
from tce.train.run_folder import RunFolder
from tce.train.run_record import describe_run, git_commit

OPTIONS: dict[str, Any] = {"optim": {"lr": 0.1, "epochs": 3}, "run": {"workers": 1}}
DATA = {"fingerprint": "abc", "clips": 12}


def record(data: dict[str, Any] = DATA, **changes: Any) -> dict[str, Any]:
    options = {group: dict(fields) for group, fields in OPTIONS.items()}
    for name, value in changes.items():
        next(fields for fields in options.values() if name in fields)[name] = value
    return describe_run("pretrain", options, data)


def state(step: int, size: int = 10) -> dict[str, Any]:
    return {
        "step": step,
        "task": {"weights": torch.arange(size) + step},
        "optimizer": {"state": {}, "param_groups": []},
        "means": {"sums": {}, "counts": {}},
        "last": {},
        "rng": [{"cpu": torch.get_rng_state()}],
    }


def test_a_run_is_written_and_read_back(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a" / "run") as run:
        assert run.begin(record(), ["loss"]) is None
        run.save(state(3))
        run.write_result({"loss": 0.5, "steps": 3})
    described = json.loads((run.path / "options.json").read_text())
    assert described["options"] == OPTIONS and described["data"] == DATA
    assert described["versions"]["torch"] == torch.__version__
    assert json.loads((run.path / "result.json").read_text()) == {"loss": 0.5, "steps": 3}
    with RunFolder(run.path, resume=True) as again:
        found = again.begin(record(), ["loss"])
        assert (
            found is not None
            and found["step"] == 3
            and torch.equal(found["task"]["weights"], torch.arange(10) + 3)
        )


def test_a_run_in_the_way_needs_resume_or_force(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.begin(record(), [])
        run.save(state(1))
    before = run.latest.read_bytes()
    with pytest.raises(OptionError, match="--resume resumes it, --force replaces it"):
        RunFolder(tmp_path)
    assert run.latest.read_bytes() == before
    with RunFolder(tmp_path, force=True) as again:
        assert again.latest.exists(), "nothing is removed before the new run is sure to begin"
        again.begin(record(lr=0.2), [])
        assert not again.latest.exists()


def test_force_keeps_what_is_not_the_runs(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with RunFolder(tmp_path) as run:
        run.begin(record(), [])
    with RunFolder(tmp_path, force=True) as run:
        run.begin(record(), [])
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_resume_begins_where_nothing_was_saved(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "new", resume=True) as run:
        assert run.begin(record(), []) is None
    with RunFolder(tmp_path / "new", resume=True) as run:
        assert run.begin(record(), []) is None


def test_contradictions_on_resume_are_named_all_at_once(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.begin(record(), [])
        run.save(state(1))
    with (
        RunFolder(tmp_path, resume=True) as run,
        pytest.raises(
            OptionError,
            match=r"^--lr, --workers contradict .*expected --lr 0.1, --workers 1; found 0.2, 4",
        ),
    ):
        run.begin(record(lr=0.2, workers=4), [])
    with RunFolder(tmp_path, resume=True) as run:
        assert run.begin(record(workers=4, epochs=9), [], free=("workers", "epochs")) is not None
    assert json.loads((tmp_path / "options.json").read_text())["options"]["optim"]["epochs"] == 9
    with RunFolder(tmp_path, resume=True) as run, pytest.raises(OptionError, match=r"^--epochs contradicts"):
        run.begin(record(workers=4, epochs=3), [], free=("epochs",))  # a run may be extended, not cut
    with (
        RunFolder(tmp_path, resume=True) as run,
        pytest.raises(OptionError, match=r"other data .its fingerprint"),
    ):
        run.begin(record({**DATA, "fingerprint": "xyz"}, epochs=9), [], free=("workers",))
    with RunFolder(tmp_path, resume=True) as run, pytest.raises(OptionError, match="a run of `tce finetune`"):
        run.begin({**record(), "command": "finetune"}, [])


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.begin(record(), [])
        for step in range(1, 6):
            run.save(state(step), keep=3)
        assert sorted(path.name for path in run.checkpoints.iterdir()) == [
            "latest.pt", "step-000000003.pt", "step-000000004.pt", "step-000000005.pt",
        ]  # fmt: skip
        for path in run.checkpoints.glob("step-*.pt"):
            assert torch.load(path, weights_only=True)["step"] == int(path.stem[5:])


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.begin(record(), [])
        run.save(state(1))
    run.latest.write_bytes(run.latest.read_bytes()[:200])
    with RunFolder(tmp_path, resume=True) as run, pytest.raises(TceError, match=r"latest.pt cannot be used"):
        run.begin(record(), [])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "no JSON"),
        ("[]", "another structure"),
        ('{"command": "pretrain", "options": {"optim": 3}, "data": {}}', "another structure"),
        ('{"command": "pretrain", "options": {}}', "another structure"),
        ("[" * 100_000, "JSON nested too deeply"),
        (b"\xff\xfe".decode("latin1"), "no JSON"),
    ],
)
def test_tampered_options_are_one_line(tmp_path: Path, content: str, found: str) -> None:
    with RunFolder(tmp_path) as run:
        run.begin(record(), [])
        run.save(state(1))
    (tmp_path / "options.json").write_text(content, encoding="latin1")
    with RunFolder(tmp_path, resume=True) as run, pytest.raises(TceError) as caught:
        run.begin(record(), [])
    assert f"options.json cannot be read; expected the options that tce wrote; found {found}" in str(
        caught.value
    )


def test_an_epoch_count_of_another_type_contradicts(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.begin(record(), [])
    options = json.loads((tmp_path / "options.json").read_text())
    options["options"]["optim"]["epochs"] = "many"
    (tmp_path / "options.json").write_text(json.dumps(options))
    with RunFolder(tmp_path, resume=True) as run, pytest.raises(OptionError, match=r"--epochs many; found 3"):
        run.begin(record(), [], free=("epochs",))


def test_checkpoints_without_options_are_not_overwritten(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.begin(record(), [])
        run.save(state(1))
    (tmp_path / "options.json").unlink()
    with RunFolder(tmp_path, resume=True) as run, pytest.raises(TceError, match="checkpoints without it"):
        run.begin(record(), [])


@pytest.mark.parametrize(
    "content", ["loss\n1\n", "step,loss\n1,abc\n", "step,loss\n1,2,3,4\n", "step\n\0\n", "step\n\xff\n"]
)
def test_a_tampered_log_is_one_line(tmp_path: Path, content: str) -> None:
    with RunFolder(tmp_path) as run:
        run.begin(record(), ["loss"])
        run.save(state(1))
    (tmp_path / "log.csv").write_text(content, encoding="latin1")
    with RunFolder(tmp_path, resume=True) as run, pytest.raises(TceError, match=r"log.csv cannot be read"):
        run.begin(record(), ["loss"])
    (tmp_path / "log.csv").unlink()  # as the message advises
    with RunFolder(tmp_path, resume=True) as run:
        assert run.begin(record(), ["loss"]) is not None


def test_a_run_that_never_started_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RunFolder(tmp_path / "a" / "run"):
        raise KeyError("before begin")
    assert not (tmp_path / "a" / "run").exists()
    (tmp_path / "mine").mkdir()
    with RunFolder(tmp_path / "mine"):
        assert (tmp_path / "mine" / ".lock").exists()
    assert list((tmp_path / "mine").iterdir()) == [], "the user's own folder stays, without a lock"
    with RunFolder(tmp_path / "started") as run:
        run.begin(record(), [])
    assert (tmp_path / "started" / "options.json").exists()
    assert not (tmp_path / "started" / ".lock").exists()


def test_the_lock_of_a_killed_process_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("")
    with RunFolder(tmp_path) as run:
        run.begin(record(), [])
    assert not (tmp_path / ".lock").exists()


def test_earlier_checkpoints_are_not_given_up_for_a_missing_one(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.begin(record(), [])
        for step in range(1, 4):
            run.save(state(step), keep=3)
    run.latest.unlink()
    with RunFolder(tmp_path, resume=True) as run, pytest.raises(TceError) as caught:
        run.begin(record(), [])
    assert "none, but 3 earlier ones; copy step-000000003.pt to latest.pt" in str(caught.value)
    assert len(list(run.checkpoints.iterdir())) == 3


def test_a_second_process_is_reported(tmp_path: Path) -> None:
    script = (
        "import sys; from tce.train.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        with pytest.raises(TceError, match="no other process is using; found one in use"):
            RunFolder(tmp_path)
        other.send_signal(signal.SIGKILL)
    RunFolder(tmp_path).close()  # a killed process leaves no lock behind


def test_unwritable_places_are_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TceError, match="expected a folder; found a file"):
        RunFolder(tmp_path / "file")
    with pytest.raises(TceError, match="expected a place that can be written"):
        RunFolder(tmp_path / "file" / "run")
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(TceError, match="Permission denied"):
            RunFolder(tmp_path / "closed" / "run")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """A limit on file sizes stands in for the disk's end: the write fails half way, as there."""
    script = textwrap.dedent("""
        import resource, signal, sys, torch
        from tce.train.run_folder import RunFolder
        run = RunFolder(sys.argv[1])
        run.begin({"command": "x", "options": {}, "data": {}}, [])
        run.save({"step": 1, "weights": torch.zeros(1000)})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            run.save({"step": 2, "weights": torch.zeros(1_000_000)})
        except OSError as error:
            print(type(error).__name__, error.strerror)
        assert run.saved_step == 1
    """)
    assert resource.RLIMIT_FSIZE >= 0
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("OSError File too large"), done.stdout + done.stderr
    assert torch.load(tmp_path / "checkpoints" / "latest.pt", weights_only=True)["step"] == 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["latest.pt"], (
        "no half-written file"
    )


def test_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.begin(record(), [])
        run.save(state(1))
    (run.checkpoints / ".latest.pt.abc.part").write_bytes(b"half")
    with RunFolder(tmp_path, resume=True) as run:
        assert [path.name for path in run.checkpoints.iterdir()] == ["latest.pt"]


def test_git_commit_names_this_checkout() -> None:
    head = subprocess.run(
        ["git", "-C", Path(__file__).parent, "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    if not head:
        pytest.skip("not a git checkout")
    commit = git_commit()
    assert commit is not None and commit.removesuffix("+changes") == head
