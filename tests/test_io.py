import os

import pytest

from tce.errors import OptionError, TceError
from tce.io import atomic, content_hash, require_writable


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target, "w") as file:
        file.write("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


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
    assert require_writable(tmp_path / "new" / "x.png").parent.is_dir()


def test_content_hash_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert content_hash(tmp_path / "a").startswith("ba7816bf8f01cfea")


def test_an_error_is_one_line_and_survives_pickling():
    import pickle

    error = OptionError("--k", expected="a\nnumber", found="'x'", fix="give one")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "--k; expected a number; found 'x'; give one"
    assert isinstance(copy, OptionError)
