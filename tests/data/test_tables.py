from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tce.data.read_catalog import read_catalog
from tce.errors import TceError
from tests.helpers.lists import touch, write


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_table(kind: str, tmp_path: Path) -> None:
    touch(tmp_path, "v/a.mp4", "v/b.mp4", "v/unlisted.mp4", "frames/c/0.jpg", "far/d.mp4")
    table = pa.table(
        {
            "Path": [
                "v/a.mp4",
                "frames/c",
                str(tmp_path / "far" / "d.mp4"),
                "v/gone.mp4",
                "v/b.mp4",
                "v/b.mp4",
            ],
            "label": ["007", "jump", "007", "007", None, "jump"],
            "split": ["training", "validation", "test", "train", "fold7", "train"],
            "start": [None, None, None, None, 2.5, 4.0],
            "end": [None, None, None, None, 4.0, None],
            "group": ["anna", "ben", "anna", "anna", None, "ben"],
        }
    )
    path = tmp_path / f"clips.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        with open(path, "w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",")
            writer.writerow(table.column_names)
            writer.writerows(zip(*(column.to_pylist() for column in table.columns)))
    catalog = read_catalog(path)
    by_id = {clip.id: clip for clip in catalog}
    assert list(by_id) == ["v/a", "frames/c", str(tmp_path / "far" / "d"), "v/b#2.5-4", "v/b#4-"]
    assert catalog.missing == ["v/gone.mp4"] and catalog.classes == ["007", "jump"]
    assert [clip.split for clip in catalog] == ["train", "val", "test", "fold7", "train"]
    assert by_id["v/b#4-"].start == 4 and by_id["v/b#4-"].end is None and by_id["v/b#2.5-4"].label is None
    assert by_id["v/a"].group == "anna" and by_id["v/b#2.5-4"].group == "v/b#2.5-4"
    assert all(Path(clip.path).exists() for clip in catalog)

    listed = read_catalog(tmp_path, lists=path)  # the same as lists over a folder: what is there stays in
    assert {clip.id: clip.split for clip in listed}["v/unlisted"] is None
    assert {clip.id: clip.label for clip in listed}["v/a"] == "007"


def test_tables_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(TceError, match="expected a column `path`; found columns name, label"):
        read_catalog(write(tmp_path / "a.csv", ["name,label", "x,y"]))
    with pytest.raises(TceError, match=r"b\.csv, row 3; expected a path; found an empty cell"):
        read_catalog(write(tmp_path / "b.csv", ["path,label", "x.mp4,y", ",z"]))
    with pytest.raises(TceError, match=r"none of the 1 clips that it names, such as x\.mp4"):
        read_catalog(write(tmp_path / "c.csv", ["path,label", "x.mp4,y"]))
    with pytest.raises(TceError, match="a CSV or Parquet table"):
        read_catalog(write(tmp_path / "d.parquet", ["path,label"]))
    touch(tmp_path, "x.mp4")
    with pytest.raises(TceError, match="times in seconds; found 'soon'"):
        read_catalog(write(tmp_path / "e.csv", ["path,start", "x.mp4,soon"]))
    with pytest.raises(TceError, match="no clips in them"):
        read_catalog(tmp_path, write(tmp_path / "f.csv", ["path,label"]))
