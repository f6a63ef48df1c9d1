import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tce.data.read_catalog import read_catalog
from tce.errors import OptionError, TceError
from tce.io import atomic, content_hash, escape_cell, require_writable, unescape_cell, write_csv, write_json


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target, "w") as file:
        file.write("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    """But not what a living one is writing, or one of another machine."""
    program = (
        "import os, sys\nfrom tce.io import atomic\n"
        "with atomic(sys.argv[1], 'w') as file:\n    file.write('half')\n    os.kill(os.getpid(), 9)\n"
    )
    target = tmp_path / "a [1].json"
    subprocess.run([sys.executable, "-c", program, str(target)], check=False, env=os.environ)
    (leftover,) = os.listdir(tmp_path)
    assert leftover.endswith(".part")
    elsewhere = re.sub(r"\.[0-9a-f]{8}-", ".00000000-", leftover)
    (tmp_path / elsewhere).touch()
    with atomic(target, "w") as outer:
        outer.write("outer")
        with atomic(target, "w") as inner:
            inner.write("inner")
        assert target.read_text() == "inner"
    assert target.read_text() == "outer" and sorted(os.listdir(tmp_path)) == sorted([target.name, elsewhere])


def test_json_holds_plain_values_only(tmp_path):
    write_json(tmp_path / "a.json", {"n": np.int64(3), "x": [np.nan, 0.5], "s": "é", "a": np.arange(2)})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {
        "n": 3,
        "x": [None, 0.5],
        "s": "é",
        "a": [0, 1],
    }


def test_a_finished_write_replaces_and_has_ordinary_rights(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with atomic(target, "w") as file:
        file.write("new")
    ordinary = tmp_path / "b"
    ordinary.touch()
    assert target.read_text() == "new"
    assert target.stat().st_mode == ordinary.stat().st_mode


def test_require_writable_names_what_is_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TceError, match="a folder"):
        require_writable(tmp_path)
    with pytest.raises(TceError, match=r"--output .*expected a place that can be written"):
        require_writable(tmp_path / "file" / "x.png")
    (tmp_path / "there").mkdir()
    for place in ("there/x.png", "new/deep/x.png"):
        assert require_writable(tmp_path / place) == tmp_path / place
    assert sorted(os.listdir(tmp_path)) == ["file", "there"], "the check leaves nothing behind"


def test_content_hash_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert content_hash(tmp_path / "a").startswith("ba7816bf8f01cfea")


def test_an_error_is_one_line_and_survives_pickling():
    import pickle

    error = OptionError("--k", expected="a\nnumber", found="'x'", fix="give one")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "--k; expected a number; found 'x'; give one"
    assert isinstance(copy, OptionError)


@given(st.text())
def test_escaped_cells_are_no_formulas_and_read_back(text):
    cell = escape_cell(text)
    assert unescape_cell(cell) == text
    if cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
        float(cell)  # a number is no formula


@pytest.mark.parametrize("name", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "'=x", "''-1"])
def test_a_table_that_we_wrote_is_read_unescaped(name, tmp_path):
    (tmp_path / "x.mp4").touch()
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8") as file:
        write_csv(file, [["path", "label"], ["x.mp4", name]])
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1][1] == f"'{name}"
    assert read_catalog(tmp_path / "t.csv").classes == [name.strip() if name[0] != "\t" else name]


def test_numbers_are_written_as_they_are(tmp_path):
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8") as file:
        write_csv(file, [["a", "b"], [-0.5, "-0.5"], [None, 3]])
    assert (tmp_path / "t.csv").read_text() == "a,b\n-0.5,-0.5\n,3\n"
