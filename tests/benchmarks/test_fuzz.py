"""The fast part of the campaign: damaged files give a result or a typed error, and a fault is noticed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import fuzz

NAMES = (
    "table",
    "lines",
    "lists",
    "kinetics",
    "json",
    "options",
    "log",
    "safetensors",
    "header",
    "pickle",
    "embeddings",
)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    one = fuzz.parsers(tmp_path)[name]
    (tmp_path / "files").mkdir()
    found = fuzz.fuzz(one, tmp_path / "files", 300, random.Random(1), tmp_path / "findings")
    assert found["findings"] == 0, next((tmp_path / "findings").glob("*.txt")).read_text()
    assert found["read"] + found["refused"] == 300


def test_every_parser_is_tested(tmp_path: Path) -> None:
    assert tuple(fuzz.parsers(tmp_path)) == NAMES


def test_a_parser_with_a_fault_is_found(tmp_path: Path) -> None:
    broken = fuzz.Parser(
        "a.txt", b"path 1\npath 2\n", lambda path: [int(line.split()[1]) for line in path.open()]
    )
    found = fuzz.fuzz(broken, tmp_path, 50, random.Random(1), tmp_path / "findings")
    assert found["findings"] > 0
    assert list((tmp_path / "findings").glob("*.txt"))
