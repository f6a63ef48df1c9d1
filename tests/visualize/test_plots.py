import subprocess
import sys

import pytest

from tce.errors import OptionError, TceError
from tce.visualize.plots import PICTURES, require_picture, short_names
from tce.visualize.tsne import require_output


def test_a_picture_is_refused_before_the_work(tmp_path, caplog):
    for suffix in PICTURES:
        assert require_picture(tmp_path / "new" / f"a{suffix}") == tmp_path / "new" / f"a{suffix}"
    assert not (tmp_path / "new").exists()  # nothing stays behind of a mere check
    for name, found in (("a.xyz", r"\.xyz"), ("a", "no suffix"), ("a.csv", r"\.csv")):
        with pytest.raises(
            OptionError, match=rf"^--chart .*{name}; expected a name ending in .*; found {found}"
        ):
            require_picture(tmp_path / name, "--chart")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(TceError, match="a folder"):
        require_picture(str(tmp_path / "folder.png"))
    (tmp_path / "file").touch()
    with pytest.raises(TceError, match="a place that can be written"):
        require_picture(tmp_path / "file" / "a.png")

    assert require_output(str(tmp_path / "a.mp4"), film=True) == tmp_path / "a.mp4"
    assert require_output(str(tmp_path / "a.mp4"), film=False) == tmp_path / "a.png"
    assert "without --vid" in caplog.text
    for film in (True, False):
        with pytest.raises(OptionError, match=r"--output .*a\.xyz; expected a name ending in"):
            require_output(str(tmp_path / "a.xyz"), film)


def test_the_check_of_a_picture_is_light():
    code = "import sys, tce.visualize.plots; print(not {'matplotlib', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"True\n"


def test_short_names_are_short_and_distinct():
    assert short_names(["/a/b.mp4", "/c/b.mp4", "/c/d.mp4"]) == ["a/b.mp4", "c/b.mp4", "d.mp4"]
    assert short_names(["b.mp4", "/x/b.mp4"]) == ["b.mp4", "x/b.mp4"]
    long = ["/data/" + "x" * 60 + f"{number}.mp4" for number in range(2)]
    names = short_names(long)
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 36
    middle = [f"{'x' * 40}{number}{'y' * 40}" for number in range(2)]
    assert short_names(middle) == middle  # cut in the middle they would be the same
