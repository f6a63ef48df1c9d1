from __future__ import annotations

import os
from pathlib import Path

import pytest

from tce.data.read_catalog import read_catalog
from tce.errors import OptionError, TceError
from tests.helpers.lists import rows, touch

# Folders


def test_class_folders_at_any_depth(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "x/Run/a.mp4",
        "x/Run/deep/b.AVI",
        "x/Jump/c.mkv",
        "x/Run/notes.txt",
        "x/.cache/d.mp4",
        "x/Run/._a.mp4",
    )
    catalog = read_catalog(tmp_path)
    assert rows(catalog) == [
        ("x/Jump/c", "Jump", None),
        ("x/Run/a", "Run", None),
        ("x/Run/deep/b", "Run", None),
    ]
    assert catalog.classes == ["Jump", "Run"] and catalog.labels.tolist() == [0, 1, 1]
    assert catalog[1].path == str(tmp_path / "x/Run/a.mp4") and catalog[1].start is None
    assert catalog.paths.tolist() == [clip.path for clip in catalog]


def test_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/Run/a.mp4", "train/Jump/b.mp4", "validation/Run/c.mp4", "test/Run/a.mp4")
    catalog = read_catalog(tmp_path)
    assert rows(catalog) == [
        ("test/Run/a", "Run", "test"),
        ("train/Jump/b", "Jump", "train"),
        ("train/Run/a", "Run", "train"),
        ("validation/Run/c", "Run", "val"),
    ]
    assert rows(catalog.where("val")) == [("validation/Run/c", "Run", "val")]
    with pytest.raises(OptionError, match=r"--split; .*; found 'dev'; test, train, val"):
        catalog.where("dev")
    assert set(read_catalog(tmp_path / "train").splits) == {None}


def test_flat_folder_and_single_file(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a.mov")
    catalog = read_catalog(tmp_path)
    assert rows(catalog) == [("a", None, None), ("b", None, None)]
    assert catalog.classes == [] and catalog.labels.tolist() == [-1, -1]
    one = read_catalog(tmp_path / "b.mp4")
    assert rows(one) == [("b", None, None)] and one[0].path == str(tmp_path / "b.mp4")
    assert rows(read_catalog(touch(tmp_path, "odd.xyz") / "odd.xyz")) == [("odd", None, None)]


def test_flat_folder_of_ucf_names(tmp_path: Path) -> None:
    catalog = read_catalog(touch(tmp_path, "v_Run_g01_c02.avi", "v_Jump_g11_c01.avi"))
    assert rows(catalog) == [("v_Jump_g11_c01", "Jump", None), ("v_Run_g01_c02", "Run", None)]
    assert catalog[1].source == "Run_g01" and catalog[1].group == "g01"


def test_frame_folders(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"Run/v_Run_g01_c01/frame{i:06d}.jpg" for i in range(3)),
        *(f"Jump/clip.final/{i}.png" for i in range(3)),
        "Jump/cover.jpg",  # beside footage: a preview
        "index.png",
    )
    catalog = read_catalog(tmp_path)
    assert rows(catalog) == [("Jump/clip.final", "Jump", None), ("Run/v_Run_g01_c01", "Run", None)]
    (line,) = catalog.skipped
    assert line.endswith("previews (and 1 more)")
    one = read_catalog(tmp_path / "Jump" / "clip.final")
    assert rows(one) == [("clip.final", None, None)] and one[0].path == str(tmp_path / "Jump" / "clip.final")


def test_names_that_are_hard(tmp_path: Path) -> None:
    names = [
        "a b/ü 視.mp4",
        "a b/new\nline.mp4",
        "c/same.mp4",
        "d/same.mp4",
        "e/twice.mp4",
        "e/twice.avi",
        "e/f.g.mp4",
    ]
    catalog = read_catalog(touch(tmp_path, *names))
    assert sorted(catalog.ids) == sorted(
        ["a b/ü 視", "a b/new\nline", "c/same", "d/same", "e/twice.mp4", "e/twice.avi", "e/f.g"]
    )
    assert sorted(catalog.paths) == sorted(str(tmp_path / name) for name in names)


def test_name_that_is_no_text(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    with open(os.fsencode(tmp_path) + b"/\xff.mp4", "wb"):
        pass
    catalog = read_catalog(tmp_path)
    assert rows(catalog) == [("a", None, None)] and "not UTF-8" in catalog.skipped[0]


def test_links(tmp_path: Path) -> None:
    touch(tmp_path, "data/Run/a.mp4", "elsewhere/b.mp4")
    (tmp_path / "data/Run/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/Jump").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/Run/dead").symlink_to(tmp_path / "nowhere")
    catalog = read_catalog(tmp_path / "data")
    assert rows(catalog) == [("Jump/b", "Jump", None), ("Run/a", "Run", None)]
    assert len(catalog.skipped) == 1 and "a link to a folder that was searched already" in catalog.skipped[0]


def test_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "Run/a.mp4", "Secret/b.mp4")
    scandir = os.scandir

    def refuse(path: str):  # type: ignore[no-untyped-def]  # the superuser, who runs some tests, may read all
        if os.fspath(path).endswith("Secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    catalog = read_catalog(tmp_path)
    assert rows(catalog) == [("Run/a", None, None)]
    assert catalog.skipped == [f"{tmp_path / 'Secret'}: Permission denied"]
    with pytest.raises(TceError, match=r"found none .*Secret: Permission denied"):
        read_catalog(tmp_path / "Secret")


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(TceError, match="nothing there; check the path"):
        read_catalog(tmp_path / "no")
    with pytest.raises(TceError, match=r"expected video files .* found none"):
        read_catalog(tmp_path)
    with pytest.raises(TceError, match="found none"):
        read_catalog(touch(tmp_path, "a.txt"))


def test_parts_of_one_file_are_of_one_recording(tmp_path: Path) -> None:
    touch(tmp_path, "long.mp4", "short.mp4")
    (tmp_path / "clips.csv").write_text(
        "path,label,start,end\nlong.mp4,a,0,2\nlong.mp4,b,2,5\nshort.mp4,a,0,1\n"
    )
    catalog = read_catalog(tmp_path / "clips.csv")
    first, second, third = catalog.sources
    assert first == second != third
    named = tmp_path / "named.csv"
    named.write_text("path,label,start,end,recording\nlong.mp4,a,0,2,x\nlong.mp4,b,2,5,y\n")
    assert read_catalog(named).sources.tolist() == ["x", "y"]
