"""What frames are coloured by: folders, lists, tables of clips, of segments and of frames."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tce.embedding.embedding_file import Embeddings
from tce.errors import OptionError, TceError
from tce.visualize.point_colours import choose_colours, folder_classes
from tce.visualize.table_columns import TableColumns


def frames(names, each=4) -> Embeddings:
    video, frame = np.repeat(np.array(names), each), np.tile(np.arange(each), len(names))
    return Embeddings(np.zeros((len(video), 2), np.float32), video, frame, frame / 2)


@pytest.mark.parametrize(
    ("names", "meaning"),
    [
        (["a.mp4"], "time"),
        (["a.mp4", "b.mp4"], "video"),
        (["x/a.mp4", "y/b.mp4"], "video"),  # a class for each video says no more
        (["x/a.mp4", "x/b.mp4", "y/c.mp4"], "class"),
        (["train/x/a.mp4", "train/x/b.mp4", "test/y/c.mp4"], "class"),
        ([f"{n}.mp4" for n in range(20)], "video"),
        ([f"{n}.mp4" for n in range(21)], "time"),
        ([f"v_Jump_g{n // 3:02}_c{n % 3:02}.mp4" for n in range(21)], "group"),
    ],
)
def test_what_is_taken_by_itself(names, meaning):
    assert choose_colours(frames(names)).name == meaning


def test_classes_are_the_folders_that_differ():
    names = ["/d/run/train/Box/a.mp4", "/d/run/train/Bow/b.mp4", "/d/run/test/Box/c.mp4"]
    found = choose_colours(frames(names), "class")
    assert found.names == ("Bow", "Box")
    assert found.codes.tolist() == [1] * 4 + [0] * 4 + [1] * 4
    assert folder_classes(["/d/a.mp4", "/d/x/b.mp4"]) == [None, None]  # a file beside a folder: no classes
    given = choose_colours(frames(["a.mp4", "b.mp4"]), labels=["10", None] + ["9"] * 6)
    assert given.names == ("9", "10") and given.codes.tolist() == [1, -1, 0, 0, 0, 0, 0, 0]


def test_time_and_frames():
    assert choose_colours(frames(["a", "b"]), "time").numbers.tolist() == [0, 0.5, 1, 1.5] * 2
    plain = Embeddings(np.zeros((3, 2)))
    assert choose_colours(plain).label == "frame"
    assert choose_colours(plain).numbers.tolist() == [0, 1, 2]


def test_a_table_of_clips_names_them_by_any_part_of_their_path(tmp_path):
    (tmp_path / "t.csv").write_text("video,weather,height\nx/a.mp4,dry,1\nb,wet,2\n")
    table = TableColumns.read(str(tmp_path / "t.csv"))
    stored = frames(["/data/x/a.mp4", "/data/y/b.mp4", "/data/y/a.mp4"])
    found = choose_colours(stored, table=table)
    assert (found.name, found.names) == ("weather", ("dry", "wet"))
    assert found.codes.tolist() == [0] * 4 + [1] * 4 + [-1] * 4
    assert choose_colours(stored, "height", table=table).names == ("1", "2")  # few numbers are classes


def test_a_table_of_segments_colours_parts_of_clips(tmp_path):
    rows = "path,start,end,behaviour\na.mp4,0.5,1.0,groom\na.mp4,1.5,,run\n"
    (tmp_path / "t.csv").write_text(rows)
    found = choose_colours(frames(["a.mp4", "b.mp4"]), table=TableColumns.read(str(tmp_path / "t.csv")))
    assert found.names == ("groom", "run")
    assert found.codes.tolist() == [-1, 0, 0, 1] + [-1] * 4


@pytest.mark.parametrize("key", ["time", "frame"])
def test_a_table_of_frames_holds_until_the_next_row(tmp_path, key):
    values = {"time": [0.0, 1.0], "frame": [0, 2]}[key]
    table = pa.table({"video": ["a.mp4", "a.mp4"], key: values, "cluster": ["one", "two"]})
    pq.write_table(table, tmp_path / "t.parquet")
    found = choose_colours(frames(["a.mp4"]), table=TableColumns.read(str(tmp_path / "t.parquet")))
    assert found.codes.tolist() == [0, 0, 1, 1]


def test_many_numbers_are_a_scale(tmp_path):
    lines = "\n".join(f"{n}.mp4,{n}.5" for n in range(20))
    (tmp_path / "t.csv").write_text("path,height\n" + lines)
    stored = frames([f"{n}.mp4" for n in range(21)], each=1)
    found = choose_colours(stored, table=TableColumns.read(str(tmp_path / "t.csv")))
    assert found.numbers[:20].tolist() == [n + 0.5 for n in range(20)] and np.isnan(found.numbers[20])


def test_bad_choices_are_one_line(tmp_path):
    (tmp_path / "t.csv").write_text("path,weather\nnobody.mp4,dry\n")
    table = TableColumns.read(str(tmp_path / "t.csv"))
    with pytest.raises(TceError, match=r"none of them, but nobody\.mp4"):
        choose_colours(frames(["a.mp4"]), table=table)
    with pytest.raises(OptionError, match=r"--color-by height; expected one of class, .*, weather; found"):
        choose_colours(frames(["a.mp4"]), "height", table=table)
    with pytest.raises(OptionError, match="a folder for each class"):
        choose_colours(frames(["a.mp4", "b.mp4"]), "class")
    with pytest.raises(OptionError, match="name their videos"):
        choose_colours(Embeddings(np.zeros((3, 2))), "video")
    (tmp_path / "bad.csv").write_text("weather\ndry\n")
    for name, message in (("bad.csv", "a column `path` and others"), ("gone.csv", "nothing there")):
        with pytest.raises(TceError, match=message):
            TableColumns.read(str(tmp_path / name))
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(TceError, match="a Parquet table"):
        TableColumns.read(str(tmp_path / "bad.parquet"))
