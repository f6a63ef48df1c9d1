"""Tables of clips in all forms that they come in."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tce.data.read_catalog import Catalog, apply_lists, read_catalog
from tce.data.tables import read_json, read_names, read_text
from tce.errors import TceError
from tests.helpers.lists import rows, touch, write

HEADER = ["path", "label", "split", "group", "start", "end"]
CLIPS = [  # what stands in a table; "" where nothing is known
    ["wave/w1.mp4", "wave", "train", "anna", "", ""],
    ["a b/x, y.mp4", 'say "hi"; twice', "test", "ben, the 2nd", "", ""],
    ["wave/w2.mp4", "NA", "val", "null", "0.5", "1.25"],
    ["wave/w2.mp4", "nan", "train", "None", "1.25", ""],
    ["café/w3.mp4", "007", "test", "", "", ""],
    ["frames/f", "", "", "", "", ""],
]
SEEN = [  # the catalog's clips: id, label, split, group, start, end
    ("wave/w1", "wave", "train", "anna", None, None),
    ("a b/x, y", 'say "hi"; twice', "test", "ben, the 2nd", None, None),
    ("wave/w2#0.5-1.25", "NA", "val", "null", 0.5, 1.25),
    ("wave/w2#1.25-", "nan", "train", "None", 1.25, None),
    ("café/w3", "007", "test", "café/w3", None, None),
    ("frames/f", None, None, "frames/f", None, None),
]


def text_table(
    rows: list[list[str]], delimiter: str = ",", end: str = "\n", quoting: int = csv.QUOTE_MINIMAL
) -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    return file.getvalue()


def parquet(rows: list[list[str]]) -> bytes:
    columns = {
        name: [None if cell == "" else cell for cell in column]
        for name, column in zip(rows[0], zip(*rows[1:]))
    }
    for name in ("start", "end"):
        if name in columns:
            columns[name] = [cell and float(cell) for cell in columns[name]]  # type: ignore[misc]
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


FORMS = {
    "comma.csv": lambda rows: text_table(rows).encode(),
    "semicolon.csv": lambda rows: text_table(rows, ";").encode(),
    "decimal_comma.csv": lambda rows: text_table(
        [[cell.replace(".", ",") if cell[:1].isdigit() else cell for cell in row] for row in rows], ";"
    ).encode(),
    "tab.csv": lambda rows: text_table(rows, "\t").encode(),
    "tab.tsv": lambda rows: text_table(rows, "\t").encode(),
    "comma.tsv": lambda rows: text_table(rows).encode(),
    "named.csv": lambda rows: b"sep=;\r\n" + text_table(rows, ";", "\r\n").encode(),
    "marked.csv": lambda rows: text_table(rows).encode("utf-8-sig"),
    "utf16.csv": lambda rows: text_table(rows, "\t").encode("utf-16"),
    "utf16_be.csv": lambda rows: b"\xfe\xff" + text_table(rows).encode("utf-16-be"),
    "utf32.csv": lambda rows: text_table(rows).encode("utf-32"),
    "crlf.csv": lambda rows: text_table(rows, end="\r\n").encode(),
    "cr.csv": lambda rows: text_table(rows, end="\r").encode(),
    "no_last_line_end.csv": lambda rows: text_table(rows).rstrip("\n").encode(),
    "quoted.csv": lambda rows: text_table(rows, quoting=csv.QUOTE_ALL).encode(),
    "blank_rows.csv": lambda rows: (
        "\n\n" + text_table(rows) + "\n  \n" + "," * (len(rows[0]) - 1) + "\n,,,,,,,,\n"
    ).encode(),
    "wider.csv": lambda rows: text_table([[*row, "", ""] for row in rows]).encode(),
    "spaces.csv": lambda rows: text_table(
        [[f"  {cell}\t" if "," not in cell else cell for cell in row] for row in rows]
    ).encode(),
    "blanks_after_commas.csv": lambda rows: "\n".join(
        ", ".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows
    ).encode(),
    "capitals.csv": lambda rows: text_table(
        [[name.title() for name in rows[0]], *([*row[:2], row[2].upper(), *row[3:]] for row in rows[1:])]
    ).encode(),
    "other_words.csv": lambda rows: text_table(
        [["filename", "class", "subset", "group", "time_start", "time_end"], *rows[1:]]
    ).encode(),
    "clock.csv": lambda rows: text_table(
        [
            rows[0],
            *([*row[:4], *(cell and f"00:00:{float(cell):05.2f}" for cell in row[4:])] for row in rows[1:]),
        ]
    ).encode(),
    "nan_times.csv": lambda rows: text_table(
        [rows[0], *([*row[:4], *(cell or "NaN" for cell in row[4:])] for row in rows[1:])]
    ).encode(),
    "dotted.csv": lambda rows: text_table(
        [rows[0], *([f"./{row[0]}", *row[1:]] for row in rows[1:])]
    ).encode(),
    "backslashes.csv": lambda rows: text_table(
        [rows[0], *([row[0].replace("/", "\\"), *row[1:]] for row in rows[1:])]
    ).encode(),
    "decomposed.csv": lambda rows: text_table(rows).replace("é", "e\u0301").encode(),
    "table.parquet": parquet,
}


def seen(catalog: Catalog) -> list[tuple[object, ...]]:
    return [(clip.id, clip.label, clip.split, clip.group, clip.start, clip.end) for clip in catalog]


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    return touch(tmp_path / "v", *(clip[0] for clip in CLIPS[:5]), "frames/f/0.jpg")


@pytest.mark.parametrize("name", FORMS)
def test_the_same_clips_whatever_the_form(name: str, footage: Path) -> None:
    """As footage, as lists over the folder, and as lists over clips that are packed already."""
    table = footage / name
    table.write_bytes(FORMS[name]([HEADER, *CLIPS]))
    as_videos = read_catalog(table)
    assert seen(as_videos) == SEEN
    assert as_videos.classes == ["007", "NA", "nan", 'say "hi"; twice', "wave"]
    assert as_videos.missing == [] and as_videos.listed == len(CLIPS)
    assert all(Path(clip.path).exists() for clip in as_videos)
    as_lists = read_catalog(footage, table)
    # Folders give the class of clips whose row has none only if no list names them.
    assert sorted(map(repr, seen(as_lists))) == sorted(map(repr, SEEN))
    again = apply_lists(as_videos, table)
    assert [row[:3] for row in seen(again)] == [row[:3] for row in SEEN]


@pytest.mark.parametrize("name", [name for name in FORMS if name != "comma.csv"])
def test_decomposed_names_on_the_disk(name: str, tmp_path: Path) -> None:
    """Some file systems decompose the names that they are given; the same clips then have the same labels."""
    folder = touch(tmp_path, "cafe\u0301/one.mp4", "wave/w1.mp4", "wave/w2.mp4")
    table = folder / name
    table.write_bytes(FORMS[name]([HEADER, ["café/one.mp4", "café", "train", "", "", ""], *CLIPS[:1]]))
    for catalog in (read_catalog(table), read_catalog(folder, table)):
        labels = {clip.id: clip.label for clip in catalog}
        assert labels["cafe\u0301/one"] == "café" and not catalog.missing


def test_folders_and_lists_spell_a_class_alike(tmp_path: Path) -> None:
    catalog = read_catalog(touch(tmp_path, "cafe\u0301/one.mp4", "wave/w1.mp4"))
    assert catalog.classes == ["café", "wave"]


@pytest.mark.parametrize(
    "alias", ["./wave/w1.mp4", "wave//w1.mp4", "{}/wave/w1.mp4", "wave\\w1.mp4", "l/w1.mp4"]
)
def test_one_file_under_two_names_is_refused(alias: str, tmp_path: Path) -> None:
    touch(tmp_path, "wave/w1.mp4", "wave/w2.mp4", "point/p1.mp4")
    (tmp_path / "l").symlink_to(tmp_path / "wave")
    alias = alias.format(tmp_path)
    table = write(tmp_path / "t.csv", ["path,label,split", "wave/w1.mp4,wave,train", f"{alias},point,test"])
    with pytest.raises(TceError) as raised:
        read_catalog(table)
    found = f"found 'wave/w1.mp4' and {alias!r}, the same clip"
    assert str(raised.value) == f"{table}; expected each clip once; {found}; remove one of its lines"
    if not alias.startswith("l/"):  # a link in the footage is a clip of its own there
        with pytest.raises(TceError, match="each clip once"):
            read_catalog(tmp_path, table)


def test_names_of_equal_files_in_several_folders_find_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "a/wave/w.mp4", "b/wave/w.mp4", "b/wave/v.avi", "b/wave/v.mp4")
    lines = ["path,label", "a/wave/w.mp4,one", "b/wave/w.mp4,two", "b/wave/v.avi,three", "b/wave/v.mp4,four"]
    catalog = read_catalog(tmp_path, write(tmp_path / "t.csv", lines))
    assert [(clip.id, clip.label) for clip in catalog] == [
        ("a/wave/w", "one"),
        ("b/wave/v.avi", "three"),
        ("b/wave/v.mp4", "four"),
        ("b/wave/w", "two"),
    ]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["2", "10", "0", "11", "1"], ["0", "1", "2", "10", "11"]),
        (["2.0", "10.0", "-1.5"], ["-1.5", "2.0", "10.0"]),
        (["2", "10", "b"], ["10", "2", "b"]),
    ],
)
def test_numbers_of_classes_sort_as_numbers(labels: list[str], classes: list[str], tmp_path: Path) -> None:
    names = [f"{n}.mp4" for n in range(len(labels))]
    touch(tmp_path, *names)
    table = write(tmp_path / "t.csv", ["path,label", *map(",".join, zip(names, labels))])
    assert read_catalog(table).classes == read_catalog(tmp_path, table).classes == classes
    assert apply_lists(read_catalog(tmp_path), table).classes == classes
    assert Catalog(names, names, labels).classes == classes


def test_a_share_of_missing_clips_is_of_those_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "A/a.mp4", "A/b.mp4", "B/c.mp4", "B/d.mp4")
    table = write(tmp_path / "t.csv", ["path,label", "A/a.mp4,A", "A/nope.mp4,A"])
    catalog = read_catalog(tmp_path, table)
    assert len(catalog) == 4 and catalog.listed == 2 and "1 of 2 listed clips (50.0%)" in caplog.text
    assert catalog.select([0]).listed == 2 and apply_lists(catalog, table).listed == 2


# Lists without a header


@pytest.mark.parametrize(
    "lines",
    [
        ["wave/w1.mp4 0", "point/p 1.mp4 1"],
        ["wave/w1.mp4\t0", "point/p 1.mp4\t1"],
        ["wave/w1.mp4,0", "point/p 1.mp4,1"],
        ["wave/w1.mp4;0", "point/p 1.mp4;1"],
        ["wave/w1.mp4 120 0", "point/p 1.mp4 9 1"],
        ["wave/w1.mp4,120,0", "point/p 1.mp4,9,1"],
        ["wave/w1 120 0", "point/p 1 9 1"],
    ],
)
def test_lists_without_header(lines: list[str], tmp_path: Path) -> None:
    videos = touch(tmp_path / "v", "wave/w1.mp4", "point/p 1.mp4")
    for name in ("train.csv", "ucf_train_split_1_videos.txt"):
        lists = tmp_path / name.partition(".")[0]
        write(lists / name, lines)
        assert rows(read_catalog(videos, lists)) == [("point/p 1", "1", "train"), ("wave/w1", "0", "train")]
    if "mp4" in lines[0]:
        assert rows(read_catalog(write(videos / "t.csv", lines))) == [
            ("wave/w1", "0", None),
            ("point/p 1", "1", None),
        ]


def test_numbered_lists_without_header_and_names_of_their_classes(tmp_path: Path) -> None:
    videos = touch(tmp_path / "v", "w1.mp4", "w2.mp4")
    lists = tmp_path / "lists"
    for split, (train, val) in {"1": ("w1", "w2"), "2": ("w2", "w1")}.items():
        write(lists / f"ucf101_train_split_{split}_videos.txt", [f"{train}.mp4 0"])
        write(lists / f"ucf101_val_split_{split}_videos.txt", [f"{val}.mp4 1"])
    write(lists / "label_map.txt", ["waving", "pointing"])
    catalog = read_catalog(videos, lists, "02")
    assert rows(catalog) == [("w1", "pointing", "val"), ("w2", "waving", "train")]
    assert catalog.classes == ["waving", "pointing"]
    write(lists / "label_map.txt", ["waving"])
    with pytest.raises(
        TceError, match=r"label_map\.txt; expected a name for each class .*; found none for 1"
    ):
        read_catalog(videos, lists, "02")


def test_tables_of_a_folder_give_the_split_by_their_names(tmp_path: Path) -> None:
    videos = touch(tmp_path / "v", "w1.mp4", "w2.mp4")
    write(tmp_path / "lists/train.csv", ["path,label", "w1.mp4,wave"])
    write(tmp_path / "lists/test.csv", ["path,label", "w2.mp4,wave"])
    assert rows(read_catalog(videos, tmp_path / "lists")) == [("w1", "wave", "train"), ("w2", "wave", "test")]


# Tables that public bug reports describe, beside the checkout

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases beside the checkout")
def test_cases_of_public_reports() -> None:
    """Each table is read whole or refused with its line; none is read in part."""
    plain = [("wave/w1", "wave", "train"), ("point/p1", "point", "test")]
    same = [
        "bom",
        "cr",
        "crlf",
        "emptyrows",
        "hdrspace",
        "hdrspace2",
        "plain",
        "semicolon",
        "tabcsv",
        "trailspace",
        "utf16",
    ]
    for name in same:
        assert rows(read_catalog(CASES / "t" / f"{name}.csv")) == plain, name
    assert rows(read_catalog(CASES / "t/tab.tsv")) == plain
    assert {clip.label for clip in read_catalog(CASES / "t/NA.csv")} == {"NA", "null", "wave", "nan", "None"}
    assert read_catalog(CASES / "t/trail2.csv").classes == ["point", "wave"]
    assert read_catalog(CASES / "t/numlabels.csv").classes == ["0", "1", "2", "10", "11"]
    (timed,) = read_catalog(CASES / "t/times.csv")
    assert (timed.start, timed.end) == (0.2, 0.6)
    for name, message in {
        "dup2": "'wave/w1.mp4' and './wave/w1.mp4', the same clip",
        "latin1": "line 2; .*the byte 0xe9",
        "nul": "line 2; .*NUL",
        "dupcol": "one column `label`",
        "short": "line 2; expected 3 cells",
        "unq": "line 2; expected a row of a table",
    }.items():
        with pytest.raises(TceError, match=message):
            read_catalog(CASES / "t" / f"{name}.csv")
    for name in ("kin_nan", "kin_noend"):
        clip = next(clip for clip in read_catalog(CASES / "t", CASES / "t" / f"{name}.csv") if clip.split)
        assert clip.end in (None, 1.0)
    with pytest.raises(TceError, match=r"line 903; .*the byte 0xe9"):
        read_catalog(CASES / "t", CASES / "t/kin_lat.csv")
    assert read_catalog(CASES / "u/data", CASES / "u/l2.csv").listed == 2


# What is refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\nx.mp4,wa\0ve\n", r"t\.csv, line 2; expected text; found a NUL character"),
        (
            b"path,label\nx.mp4,ok\n\ny.mp4,M\xe9t\xe9\n",
            r"line 4; .*UTF-8 .*found the byte 0xe9; save .* as UTF-8",
        ),
        (b"path,label,Label\nx.mp4,a,b\n", "expected one column `label`; found 2"),
        (b"path,label\n\n\n,\nx.mp4,a\n,b\n", r"t\.csv, line 6; expected a path; found an empty cell"),
        (b"path,label\nx.mp4,a,b\n", r"line 2; expected 2 cells as in the header; found 3"),
        (b"path,label,split\nx.mp4,a\n", r"line 2; expected 3 cells as in the header; found 2"),
        (b'path,label\n"x.mp4,a\ny.mp4,b\n', r"line 2; expected a row of a table; .*quote cells that"),
        (b'path,label\nx.mp4,"wa"ve\n', r"line 2; expected a row of a table"),
        (b"path,label\nx.mp4," + b"a" * 200_000 + b"\n", r"line 2; expected a row of a table"),
        (
            b"name,label\nx,y\n",
            "expected a column `path`, or rows .*; found columns name, label; begin with a",
        ),
        (b"x.mp4\ny.mp4\n", "found columns x.mp4; begin with a line that names the columns"),
        (b"x.mp4,a,b,c\n", "found columns x.mp4, a, b, c; begin with a line"),
        (b"path,start\nx.mp4,soon\n", "line 2; expected times in seconds, or as 00:00:01.5; found 'soon'"),
        (b'path,start\nx.mp4,"0,2"\n', "found '0,2'; write a decimal point"),
        (b"path,start\nx.mp4,inf\n", "times in seconds"),
        (b"path,start\nx.mp4,1e999\n", "times in seconds"),
        (b"path,label\n", "expected the names of clips; found none; it was read as a table"),
        (b"", "expected the names of clips; found none"),
        (
            b"path,label\ngone.mp4,y\n",
            r"none of the 1 clips that it names, such as gone\.mp4; correct the paths",
        ),
    ],
)
def test_faulty_tables_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    touch(tmp_path, "x.mp4", "y.mp4")
    table = tmp_path / "t.csv"
    table.write_bytes(content)
    with pytest.raises(TceError, match=message):
        read_catalog(table)
    if "gone" not in message:
        with pytest.raises(TceError, match=message):
            read_catalog(tmp_path, table)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": [["x.mp4"]]}, r"column `path`; expected text or numbers; found list<"),
        (
            {"path": ["x.mp4"], "label": [{"a": 1}]},
            r"column `label`; expected text or numbers; found struct<",
        ),
        ({"path": ["x.mp4"], "label": [b"\xff"]}, r"column `label`; expected text or numbers; found binary"),
        ({"path": ["x.mp4"], "label": ["a\0b"]}, "a NUL character"),
        ({"path": ["x.mp4"], "start": [True]}, "row 1; expected times in seconds"),
        ({"path": [None], "label": ["a"]}, "row 1; expected a path"),
        ({"Path": ["x.mp4"], "path": ["x.mp4"]}, "one column `path`"),
        ({"name": ["x.mp4"]}, "expected a column `path`; found columns name"),
    ],
)
def test_faulty_parquet_is_named(columns: dict[str, list[object]], message: str, tmp_path: Path) -> None:
    touch(tmp_path, "x.mp4")
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(TceError, match=message):
        read_catalog(tmp_path / "t.parquet")


def test_parquet_of_unusual_types(tmp_path: Path) -> None:
    """Dictionaries, numbers as labels, and columns of any type that are not read."""
    touch(tmp_path, "x.mp4", "y.mp4")
    table = pa.table(
        {
            "path": pa.array(["x.mp4", "y.mp4"]).dictionary_encode(),
            "label": pa.array([10, 9], pa.int8()),
            "start": pa.array([0, None], pa.float16()),
            "other": pa.array([[1], [2]]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    catalog = read_catalog(tmp_path / "t.parquet")
    assert catalog.classes == ["9", "10"] and [clip.id for clip in catalog] == ["x#0-", "y"]
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-40])
    with pytest.raises(TceError, match="a Parquet table"):
        read_catalog(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "found objects nested too deeply|expected JSON"),
        ('{"a": 1, "b": 2, "a": 3}', "each key of an object once; found 'a' twice"),
        ("1" * 10_000, "expected JSON"),
        ("{", "expected JSON"),
    ],
)
def test_faulty_json_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [text])
    with pytest.raises(TceError, match=message):
        read_json(path)


def test_json_in_other_encodings(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_text('{"é": [1]}', encoding=encoding)
        assert read_json(tmp_path / "a.json") == {"é": [1]}
    (tmp_path / "a.json").write_bytes(b'{"\xe9": 1}')
    with pytest.raises(TceError, match="the byte 0xe9"):
        read_json(tmp_path / "a.json")


def test_names_of_classes(tmp_path: Path) -> None:
    assert read_names(write(tmp_path / "a", ["2 b c", "", "1 a"])) == {1: "a", 2: "b c"}
    assert read_names(write(tmp_path / "b", ["b", "3 pointer"])) == {0: "b", 1: "3 pointer"}
    for lines, message in (
        (["1 a", "1 b"], "line 2; .*once; found '1 b'"),
        (["a", "a"], "line 2"),
        ([], "found none"),
    ):
        with pytest.raises(TceError, match=message):
            read_names(write(tmp_path / "c", lines))


# Nothing but typed errors


LINES = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            [
                "path,label,split,start,end",
                "label,youtube_id,time_start,time_end,split",
                "x.mp4,a,train,0,1",
                "wave,x,nan,,train",
                'x.mp4,"a',
                "x.mp4 3 0",
                "x.mp4 1",
                "1 a",
                "sep=;",
                '{"a": "1"}',
                '[{"id": "x", "template": "t [a]"}]',
                '[{"id": null}]',
            ]
        ),
    ),
    max_size=6,
)
NAMES = st.sampled_from(
    [
        "t.csv",
        "t.tsv",
        "t.parquet",
        "train.json",
        "list.txt",
        "trainlist01.txt",
        "classInd.txt",
        "a_test_split1.txt",
        "ucf_train_split_1.txt",
        "label_map.txt",
    ]
)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])


@given(
    files=st.dictionaries(NAMES, st.tuples(LINES, ENCODINGS, st.binary(max_size=4)), min_size=1, max_size=3)
)
def test_lists_of_any_content_are_read_or_refused(
    files: dict[str, tuple[list[str], str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    touch(folder / "v", "x.mp4", "y.mp4")
    for name, (lines, encoding, tail) in files.items():
        (folder / name).write_bytes("\n".join(lines).encode(encoding, "replace") + tail)
    reads = [
        lambda: read_catalog(folder / "v", folder),
        lambda: apply_lists(read_catalog(folder / "v"), folder),
    ]
    reads += [lambda path=folder / name: read_catalog(path) for name in files if name[:2] in ("t.", "li")]
    for read in reads:
        try:
            catalog = read()
        except TceError:
            continue
        assert len(catalog) > 0


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_json_of_any_content_is_read_or_refused(
    value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("json")
    touch(folder / "v", "x.mp4")
    (folder / "a.json").write_text(json.dumps([value, {"id": "x", "template": value}]), encoding="utf-8")
    (folder / "b.json").write_text(json.dumps({"a": value}), encoding="utf-8")
    with contextlib.suppress(TceError):
        read_catalog(folder / "v", folder)


@given(data=st.binary(max_size=60))
def test_text_of_any_bytes_is_read_or_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_bytes(data)
    try:
        text = read_text(path)
    except TceError:
        return
    assert "\0" not in text
