from __future__ import annotations

import math
from pathlib import Path

import pytest

from tce.train.run_record import RunLog, read_log
from tests.helpers.run_files import events


def write(run_log: RunLog, steps: range) -> None:
    for step in steps:
        run_log.write(step, {"epoch": step // 4, "loss": 1 / (step + 1), "seconds": 0.5})


def test_both_logs_hold_the_same_figures(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path, ["loss", "knn"])
    write(run_log, range(3))
    run_log.write(3, {"epoch": 0, "knn": 0.25})
    run_log.close()
    rows = read_log(tmp_path / "log.csv")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert [row["loss"] for row in rows[:3]] == [1, 1 / 2, 1 / 3]
    assert rows[3] == {"step": 3, "epoch": 0, "knn": 0.25}, "a column without a figure is left empty"
    curves = events(tmp_path)
    assert curves["knn"] == [(3, 0.25)]
    assert curves["loss"] == [(step, pytest.approx(1 / (step + 1))) for step in range(3)]


def test_a_resumed_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path, ["loss"])
    write(run_log, range(5))
    run_log.sync()
    write(run_log, range(5, 9))  # lost with the killed process's work
    run_log.close()
    with open(tmp_path / "log.csv", "a") as file:
        file.write("9,2,0.")  # killed within a line
    again = RunLog(tmp_path, ["loss"], step=4)
    write(again, range(5, 7))
    again.close()
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == list(range(7))
    assert [step for step, _ in events(tmp_path)["loss"]] == list(range(7))


def test_a_run_without_checkpoint_begins_its_logs_anew(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path, ["loss"])
    write(run_log, range(5))
    run_log.close()
    again = RunLog(tmp_path, ["loss"])
    write(again, range(2))
    again.close()
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == [0, 1]
    assert [step for step, _ in events(tmp_path)["loss"]] == [0, 1]


def test_numbers_are_written_whole(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path, ["loss", "k"])
    run_log.write(1, {"loss": 0.1 + 0.2, "k": 3.0})
    run_log.write(2, {"loss": math.nan})
    run_log.close()
    assert (tmp_path / "log.csv").read_text().splitlines()[1] == "1,,0.30000000000000004,3,,,"
    assert math.isnan(read_log(tmp_path / "log.csv")[1]["loss"])


def test_event_files_of_restarts_within_a_second_are_in_order(tmp_path: Path) -> None:
    for step in range(3):
        log = RunLog(tmp_path, ["loss"], step - 1)
        log.write(step, {"loss": float(step)})
        log.close()
    seconds = [int(file.name.split(".")[3]) for file in sorted((tmp_path / "tensorboard").iterdir())]
    assert len(set(seconds)) == 3
