from __future__ import annotations

import csv
import json
import logging
import unicodedata
from pathlib import Path

import pytest

from tce.data.annotations import choose_splits, list_splits
from tce.data.read_catalog import Catalog, apply_lists, read_catalog
from tce.errors import OptionError, TceError
from tests.helpers.lists import rows, touch, write

# UCF101

UCF = [
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01",
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01",
    "HandstandPushups/v_HandStandPushups_g08_c01",
    "HandstandPushups/v_HandStandPushups_g01_c01",
]


@pytest.fixture
def ucf_lists(tmp_path: Path) -> Path:
    """Two classes of UCF101's lists, which spell HandStandPushups in two ways."""
    lists = tmp_path / "ucfTrainTestlist"
    write(lists / "classInd.txt", ["1 ApplyEyeMakeup", "2 HandstandPushups"])
    for split, (train, test) in {"01": ("g08", "g01"), "02": ("g01", "g08")}.items():
        write(
            lists / f"trainlist{split}.txt",
            [
                f"ApplyEyeMakeup/v_ApplyEyeMakeup_{train}_c01.avi 1",
                f"HandstandPushups/v_HandStandPushups_{train}_c01.avi 2",
            ],
        )
        write(
            lists / f"testlist{split}.txt",
            [
                f"ApplyEyeMakeup/v_ApplyEyeMakeup_{test}_c01.avi",
                f"HandstandPushups/v_HandStandPushups_{test}_c01.avi",
            ],
        )
    return lists


@pytest.mark.parametrize(
    "names",
    [
        [f"{name}.avi" for name in UCF],
        [f"{name.rpartition('/')[2]}.avi" for name in UCF],
        # Frame folders, in which the class is spelled as its folder is: HandstandPushups.
        [f"{name.rpartition('/')[2].replace('HandStand', 'Handstand')}/frame000001.jpg" for name in UCF],
        [f"{name}/frame000001.jpg" for name in UCF],
    ],
    ids=["avi tree", "flat avi", "jpegs_256", "frame folders in classes"],
)
def test_ucf101(names: list[str], ucf_lists: Path, tmp_path: Path) -> None:
    data = touch(tmp_path / "data", *names)
    catalog = read_catalog(data, ucf_lists)
    assert catalog.classes == ["ApplyEyeMakeup", "HandstandPushups"] and not catalog.missing
    found = {(clip.source.lower(), clip.label, clip.split) for clip in catalog}
    assert found == {
        ("applyeyemakeup_g01", "ApplyEyeMakeup", "test"),
        ("applyeyemakeup_g08", "ApplyEyeMakeup", "train"),
        ("handstandpushups_g01", "HandstandPushups", "test"),
        ("handstandpushups_g08", "HandstandPushups", "train"),
    }
    swapped = read_catalog(data, ucf_lists, split="2")
    assert swapped.ids.tolist() == catalog.ids.tolist()
    assert swapped.labels.tolist() == catalog.labels.tolist()
    assert {(clip.group, clip.split) for clip in swapped} == {("g01", "train"), ("g08", "test")}


def test_ucf101_missing_and_unlisted(
    ucf_lists: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{UCF[0]}.avi", "HandstandPushups/v_HandStandPushups_g25_c07.avi", "Other/x.avi"]
    with caplog.at_level(logging.WARNING, "tce.video"):
        catalog = read_catalog(touch(tmp_path / "data", *names), ucf_lists)
    assert rows(catalog) == [
        (UCF[0], "ApplyEyeMakeup", "train"),
        ("HandstandPushups/v_HandStandPushups_g25_c07", "HandstandPushups", None),
        ("Other/x", None, None),
    ]
    assert sorted(catalog.missing) == sorted(f"{name}.avi" for name in UCF[1:])
    assert "3 of 4 listed clips (75.0%)" in caplog.text


def test_lists_that_do_not_fit(ucf_lists: Path, tmp_path: Path) -> None:
    data = touch(tmp_path / "data", f"{UCF[0]}.avi")
    with pytest.raises(OptionError, match=r"--split; expected one of 01, 02; found '07'"):
        read_catalog(data, ucf_lists, "07")
    with pytest.raises(OptionError, match="the number of a split"):
        read_catalog(data, ucf_lists, "first")
    with pytest.raises(TceError, match="none of the 4 listed clips there, such as ApplyEyeMakeup/"):
        read_catalog(touch(tmp_path / "other", "a.mp4"), ucf_lists)
    with pytest.raises(TceError, match=r"--lists .*nothing there"):
        read_catalog(data, tmp_path / "nolists")
    with pytest.raises(TceError, match="an empty folder"):
        (tmp_path / "empty").mkdir()
        read_catalog(data, tmp_path / "empty")
    with pytest.raises(TceError, match=r"found v_ApplyEyeMakeup_g08_c01\.avi"):
        read_catalog(data, data)
    with pytest.raises(TceError, match="give --lists"):
        read_catalog(data, layout="ucf101")
    write(ucf_lists / "classInd.txt", ["ApplyEyeMakeup"])
    with pytest.raises(TceError, match=r"classInd\.txt; expected lines such as"):
        read_catalog(data, ucf_lists)


def test_numbers_give_the_class_where_no_name_does(ucf_lists: Path, tmp_path: Path) -> None:
    write(ucf_lists / "trainlist01.txt", ["a.avi 2", "b 01", "v_ApplyEyeMakeup_g01_c01.avi 1"])
    write(ucf_lists / "testlist01.txt", ["c d.avi", "ApplyEyeMakeup/e.avi"])
    data = touch(tmp_path / "data", "a.avi", "b/1.jpg", "v_ApplyEyeMakeup_g01_c01.avi", "c d.avi", "e.avi")
    assert rows(read_catalog(data, ucf_lists)) == [
        ("a", "HandstandPushups", "train"),
        ("b", "ApplyEyeMakeup", "train"),
        ("c d", None, "test"),
        ("e", "ApplyEyeMakeup", "test"),
        ("v_ApplyEyeMakeup_g01_c01", "ApplyEyeMakeup", "train"),
    ]
    (ucf_lists / "classInd.txt").unlink()
    labels = [clip.label for clip in read_catalog(data, ucf_lists)]
    assert labels == [None, None, None, "ApplyEyeMakeup", "ApplyEyeMakeup"]


@pytest.mark.parametrize(
    ("line", "expected", "number_is"),
    [
        ("ApplyEyeMakeup/a.avi 2", "1, the number of ApplyEyeMakeup", "2 is HandstandPushups"),
        ("v_HandStandPushups_g01_c01.avi 1", "2, the number of HandstandPushups", "1 is ApplyEyeMakeup"),
        ("handstand pushups/a.avi 0", "2, the number of HandstandPushups", "0 is no class"),
        ("a.avi 3", "the number of a class", "3 is no class"),
    ],
)
def test_numbers_at_odds_with_classes(
    line: str, expected: str, number_is: str, ucf_lists: Path, tmp_path: Path
) -> None:
    path = write(ucf_lists / "trainlist01.txt", ["HandStandPushups/b.avi 2", "", line])
    with pytest.raises(TceError) as raised:
        read_catalog(touch(tmp_path / "data", "b.avi"), ucf_lists)
    assert str(raised.value) == (
        f"{path}, line 3; expected {expected} in {ucf_lists / 'classInd.txt'}; "
        f"found {line!r}, and {number_is} there; correct the line, or that file"
    )


def test_a_class_that_the_file_of_classes_lacks(ucf_lists: Path, tmp_path: Path) -> None:
    write(ucf_lists / "trainlist01.txt", ["LetterY/a.avi 3", "LetterZ/gone.avi 4"])
    data = touch(tmp_path / "data", "LetterY/a.avi")
    message = (
        f"{ucf_lists / 'classInd.txt'}; expected all classes of the lists; "
        "found no 'LetterY', the class of 'LetterY/a.avi'; add it, or correct the list"
    )
    for read in (lambda: read_catalog(data, ucf_lists), lambda: apply_lists(read_catalog(data), ucf_lists)):
        with pytest.raises(TceError) as raised:
            read()
        assert str(raised.value) == message
    # Classes of clips that are not there do no harm: part of a dataset needs part of the classes.
    write(ucf_lists / "classInd.txt", ["3 LetterY"])
    assert rows(read_catalog(data, ucf_lists)) == [("LetterY/a", "LetterY", "train")]


def test_ucf101_real_lists(real_data: Path, tmp_path: Path) -> None:
    """All 13,320 names of the real lists, over files that spell a class as UCF101's folders do."""
    lists = real_data / "ucf101_lists"
    names = {
        line.split()[0].rpartition("/")[2].removesuffix(".avi")
        for path in lists.glob("t*list01.txt")
        for line in path.read_text().splitlines()
    }
    for name in names:
        (tmp_path / f"{name.replace('HandStandPushups', 'HandstandPushups')}.avi").touch()
    catalog = read_catalog(tmp_path, lists)
    assert len(catalog) == 13320 and len(catalog.classes) == 101 and not catalog.missing
    assert len(catalog.where("train")) == 9537 and len(catalog.where("test")) == 3783
    assert (catalog.labels >= 0).all() and catalog.classes[0] == "ApplyEyeMakeup"
    assert len(set(catalog.source_numbers)) == 101 * 25
    handstands = catalog.select(catalog.labels == catalog.classes.index("HandstandPushups"))
    assert len(handstands) == 128 and len(set(handstands.sources)) == 25
    assert set(catalog.where("train").groups) & set(catalog.where("test").groups) == set()


def test_own_lists_over_real_clips(real_data: Path) -> None:
    catalog = read_catalog(real_data / "gestures" / "videos", real_data / "gestures" / "lists", "01")
    assert len(catalog) == 1493 and len(catalog.classes) == 24 and not catalog.missing
    assert len(catalog.where("train")) == 915 and set(catalog.where("train").groups) == {"g01"}


# HMDB51


def test_hmdb51(tmp_path: Path) -> None:
    names = [
        "April_09_brush_hair_u_nm_np1_ba_goo_0",
        "April_09_brush_hair_u_nm_np1_ba_goo_1",
        "#122_Cleaning_Up_The_Beach_brush_hair_f_nm_np1_fr_med_0",
    ]
    waves = ["21_wave_u_nm_np1_fr_goo_5", "20060723sfjffbartsinger_wave_f_cm_np1_ba_med_0"]
    lists = tmp_path / "testTrainMulti_7030_splits"
    for split, flags in (("1", "120"), ("2", "211"), ("3", "012")):
        write(
            lists / f"brush_hair_test_split{split}.txt",
            [
                f"{name}.avi {flag} " for name, flag in zip(names, flags)
            ],  # the real files end lines with a blank
        )
        write(
            lists / f"wave_test_split{split}.txt", [f"{name}.avi {flag} " for name, flag in zip(waves, "12")]
        )
    files = [*(f"brush_hair/{name}.avi" for name in names), *(f"wave/{name}.avi" for name in waves)]
    for data in (
        touch(tmp_path / "avi", *files),
        touch(tmp_path / "frames", *(f"{name.removesuffix('.avi')}/1.jpg" for name in files)),
    ):
        catalog = read_catalog(data, lists)
        assert catalog.classes == ["brush_hair", "wave"]
        splits = dict(zip(catalog.ids, catalog.splits))
        assert [splits[f"brush_hair/{name}"] for name in names] == ["train", "test", None]
        assert [splits[f"wave/{name}"] for name in waves] == ["train", "test"]
        assert set(catalog.labels) == {0, 1} and not catalog.missing
        assert len(set(catalog.sources)) == 4  # two of the clips are from one film
        third = read_catalog(data, lists, "03")
        splits = dict(zip(third.ids, third.splits))
        assert [splits[f"brush_hair/{name}"] for name in names] == [None, "train", "test"]
    with pytest.raises(OptionError, match="one of 1, 2, 3; found '4'"):
        read_catalog(tmp_path / "avi", lists, "4")


# Kinetics


def kinetics_lists(folder: Path) -> Path:
    header = ["label", "youtube_id", "time_start", "time_end", "split"]
    table = {
        "train": [("riding a bike", "aB3_-xyz012", 10, 20), ("abseiling", "-0123456789", 3, 13)],
        "val": [("abseiling", "zzzzzzzzzzz", 0, 10), ("riding a bike", "gone_______", 5, 15)],
    }
    folder.mkdir(exist_ok=True)
    for split, clips in table.items():
        with open(folder / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([header, *([*clip, split] for clip in clips)])
    with open(folder / "test.csv", "w", newline="") as file:
        csv.writer(file).writerows([header[1:4], ("test_______", 1, 11)])
    return folder


def test_kinetics_trimmed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists = kinetics_lists(tmp_path / "lists")
    data = touch(
        tmp_path / "data",
        "train/riding_a_bike/aB3_-xyz012_000010_000020.mp4",
        "train/abseiling/-0123456789_000003_000013.mp4",
        "val/abseiling/zzzzzzzzzzz_000000_000010.mp4",
        "test/test________000001_000011.mp4",
    )
    with caplog.at_level(logging.WARNING, "tce.video"):
        catalog = read_catalog(data, lists)
    assert rows(catalog) == [
        ("test/test________000001_000011", None, "test"),
        ("train/abseiling/-0123456789_000003_000013", "abseiling", "train"),
        ("train/riding_a_bike/aB3_-xyz012_000010_000020", "riding a bike", "train"),
        ("val/abseiling/zzzzzzzzzzz_000000_000010", "abseiling", "val"),
    ]
    assert catalog.missing == ["gone_______"] and "1 of 5 listed clips (20.0%)" in caplog.text
    assert all(clip.start is None and clip.end is None for clip in catalog)
    assert catalog[2].source == "aB3_-xyz012"


def test_kinetics_with_the_same_clips_as_json_beside(tmp_path: Path) -> None:
    lists = kinetics_lists(tmp_path / "lists")
    (lists / "train.json").write_text(json.dumps({"aB3_-xyz012": {"annotations": {"label": "abseiling"}}}))
    catalog = read_catalog(touch(tmp_path / "data", "aB3_-xyz012.mp4"), lists)
    assert rows(catalog) == [("aB3_-xyz012#10-20", "riding a bike", "train")]


def test_kinetics_untrimmed_and_names_that_differ_in_case(tmp_path: Path) -> None:
    lists = kinetics_lists(tmp_path / "lists")
    data = touch(tmp_path / "data", "aB3_-xyz012.mp4", "Ab3_-xyz012.mp4", "zzzzzzzzzzz.mp4")
    catalog = read_catalog(data, lists)
    by_id = {clip.id: clip for clip in catalog}
    clip = by_id["aB3_-xyz012#10-20"]
    assert (clip.start, clip.end, clip.label, clip.split) == (10, 20, "riding a bike", "train")
    assert by_id["Ab3_-xyz012"].split is None and by_id["zzzzzzzzzzz#0-10"].split == "val"


@pytest.mark.parametrize("end", ["", "nan", "NaN", " "])
def test_kinetics_without_an_end_means_to_the_end(end: str, tmp_path: Path) -> None:
    lists = write(
        tmp_path / "lists/train.csv", ["label,youtube_id,time_start,time_end,split", f"wave,w1,2,{end},train"]
    )
    clip = read_catalog(touch(tmp_path / "data", "w1.mp4"), lists)[0]
    assert (clip.id, clip.start, clip.end, clip.label) == ("w1#2-", 2.0, None, "wave")
    write(lists, ["label,youtube_id,time_start,time_end,split", "wave,w1,,3,train"])
    clip = read_catalog(tmp_path / "data", lists)[0]
    assert (clip.id, clip.start, clip.end) == ("w1#0-3", 0.0, 3.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["wave,w1,0,1,train", "wave,w2,0,1,train", "Mét,w3,0,1,train"],
            "line 4; .*the byte 0xe9; save the file",
        ),
        (["wave,w1,0,1,train", "wave,w2,0,1"], "line 3; expected 5 cells as in the header; found 4"),
        (["wa\0ve,w1,0,1,train"], "line 2; .*a NUL character"),
        (["wave,w1,soon,1,train"], "line 2; expected times in seconds"),
        (["wave,w1,0,1e999,train"], "line 2; expected times in seconds"),
        (["wave,,0,1,train"], "line 2; expected a path"),
        (["wave,w1,0,1,train", "point,w1,0,1,train"], "each clip once; found 'w1' twice"),
    ],
)
def test_faulty_kinetics_lists_are_named(lines: list[str], message: str, tmp_path: Path) -> None:
    text = "\n".join(["label,youtube_id,time_start,time_end,split", *lines])
    (tmp_path / "train.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(TceError, match=message):
        read_catalog(touch(tmp_path / "data", "w1.mp4", "w2.mp4"), tmp_path / "train.csv")


def test_kinetics_with_a_column_twice(tmp_path: Path) -> None:
    lists = write(tmp_path / "train.csv", ["label,label,youtube_id", "a,b,w1"])
    with pytest.raises(TceError, match="expected one column `label`; found 2"):
        read_catalog(touch(tmp_path / "data", "w1.mp4"), lists)


# Lists of every dataset in other encodings, with blanks, and with decomposed characters on the disk

DATASETS = {
    "ucf101": {
        "classInd.txt": "1 café\n2 wave\n",
        "trainlist01.txt": "café/v_café_g01_c01.avi 1\nwave/v_wave_g01_c01.avi 2\n",
        "testlist01.txt": "café/v_café_g02_c01.avi\n",
    },
    "hmdb51": {
        "café_test_split1.txt": "v_café_g01_c01.avi 1\nv_café_g02_c01.avi 2\n",
        "wave_test_split1.txt": "v_wave_g01_c01.avi 1\n",
    },
    "kinetics": {
        "train.csv": "label, youtube_id, time_start, time_end, split\ncafé, v_café_g01_c01,,, train\n"
        "wave ,v_wave_g01_c01,,,train\n,,,,\n",
        "val.csv": "label;youtube_id\ncafé;v_café_g02_c01\n",
    },
    "ssv2": {
        "labels.json": '{"café": "0", "wave": "1"}',
        "train.json": '[{"id": "v_café_g01_c01", "template": "[café]"},'
        '{"id": "v_wave_g01_c01", "template": "wave "}]',
        "validation.json": '[{"id": "v_café_g02_c01", "template": "café"}]',
    },
    "table": {
        "train.csv": "path,label\n café/v_café_g01_c01.avi ,café \nwave/v_wave_g01_c01.avi, wave\n",
        "val.tsv": "path\tlabel\ncafé/v_café_g02_c01.avi\tcafé\n",
    },
    "plain": {
        "train.txt": "café/v_café_g01_c01.avi 0 \nwave/v_wave_g01_c01.avi 1\n",
        "val.txt": "café/v_café_g02_c01.avi  0\n",
        "classes.txt": "café\nwave \n",
    },
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "  \n\n"])
@pytest.mark.parametrize("name", DATASETS)
def test_lists_in_any_encoding(name: str, end: str, encoding: str, tmp_path: Path) -> None:
    for file, text in DATASETS[name].items():
        path = tmp_path / "lists" / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.replace("\n", end).encode(encoding))
    clips = ["café/v_café_g01_c01", "café/v_café_g02_c01", "wave/v_wave_g01_c01"]
    data = touch(tmp_path / "data", *(f"{unicodedata.normalize('NFD', clip)}.avi" for clip in clips))
    catalog = read_catalog(data, tmp_path / "lists")
    assert [clip.label for clip in catalog] == ["café", "café", "wave"] and catalog.classes == [
        "café",
        "wave",
    ]
    assert [clip.split for clip in catalog] == ["train", catalog[1].split, "train"]
    assert catalog[1].split in ("val", "test") and not catalog.missing and catalog.listed == 3
    again = apply_lists(read_catalog(data), tmp_path / "lists")
    assert rows(again) == rows(catalog)


# The splits that lists hold


def test_splits_of_lists(ucf_lists: Path, tmp_path: Path) -> None:
    assert list_splits(ucf_lists) == choose_splits("all", ucf_lists) == ("01", "02")
    assert choose_splits("2,01", ucf_lists) == ("02", "01")
    with pytest.raises(OptionError, match=r"--split; expected one of 01, 02, the splits of .*; found '03'"):
        choose_splits("01,02,03", ucf_lists)
    with pytest.raises(OptionError, match="give --lists"):
        choose_splits("all", None)
    assert choose_splits("held-out", None) == ("held-out",)
    for number in "123":
        write(tmp_path / f"hmdb/wave_test_split{number}.txt", ["a.avi 1"])
        write(tmp_path / f"mm/ucf_train_split_{number}_videos.txt", ["a.avi 0"])
    assert list_splits(tmp_path / "hmdb") == list_splits(tmp_path / "mm") == ("01", "02", "03")
    table = write(tmp_path / "clips_split2.csv", ["path,label", "a.avi,b"])
    assert list_splits(table) == () and choose_splits("all", table) == choose_splits("1", table) == ("01",)
    with pytest.raises(OptionError, match="lists that number their splits; found '02', and one split in"):
        choose_splits("01,02", table)


# Something-Something V2


def test_something_something(tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    templates = {"Putting something on a surface": "1", "Holding something": "0"}
    (lists / "something-something-v2-labels.json").write_text(json.dumps(templates))
    clips = {
        "train": [
            {
                "id": "100",
                "label": "holding a cup",
                "template": "Holding [something]",
                "placeholders": ["a cup"],
            }
        ],
        "validation": [{"id": "101", "template": "Putting [something] on a surface"}],
        "test": [{"id": "102"}],
    }
    for split, content in clips.items():
        (lists / f"something-something-v2-{split}.json").write_text(json.dumps(content))
    for data in (
        touch(tmp_path / "videos", "100.webm", "101.webm", "102.webm"),
        touch(tmp_path / "frames", "100/0.jpg", "101/0.jpg", "102/0.jpg"),
    ):
        catalog = read_catalog(data, lists)
        assert catalog.classes == ["Holding something", "Putting something on a surface"]
        assert rows(catalog) == [
            ("100", "Holding something", "train"),
            ("101", "Putting something on a surface", "val"),
            ("102", None, "test"),
        ]
    (lists / "something-something-v2-train.json").write_text("{")
    with pytest.raises(TceError, match=r"v2-train\.json; expected JSON"):
        read_catalog(tmp_path / "videos", lists)
    (lists / "something-something-v2-train.json").write_text('[{"name": "100"}]')
    with pytest.raises(TceError, match="clips with `id` and `template`"):
        read_catalog(tmp_path / "videos", lists)


# Tables


# Lists over what is packed already


def test_apply_lists(ucf_lists: Path, tmp_path: Path) -> None:
    data = touch(tmp_path / "data", *(f"{name}.avi" for name in UCF))
    packed = read_catalog(data)
    for split in ("01", "02"):
        again = apply_lists(packed, ucf_lists, split)
        direct = read_catalog(data, ucf_lists, split)
        assert rows(again) == rows(direct) and again.classes == direct.classes
    pieces = packed.cut([[(0, 1), (1, 2)], [], [(0, 3), (3, 6), (6, 8)], [(0, 1)]])
    again = apply_lists(pieces, ucf_lists)
    assert [clip.split for clip in again] == ["test", "test", "train", "test", "test", "test", "train"]
    assert again.ids.tolist() == pieces.ids.tolist() and not again.missing
    with pytest.raises(TceError, match="none of the 4 listed clips there"):
        apply_lists(Catalog(["x"], ["x.mp4"]), ucf_lists)


def test_whole_files_named_like_pieces_keep_their_own_entries(tmp_path: Path) -> None:
    data = touch(tmp_path / "v", *(f"w{n}#000{n}.mp4" for n in range(3)), "w.mp4")
    lines = ["path,label,split", *(f"w{n}#000{n}.mp4,wave,{'train' if n else 'test'}" for n in range(3))]
    table = write(tmp_path / "t.csv", [*lines, "w.mp4,point,test"])
    packed = read_catalog(data)
    pieces = packed.cut([[(0.0, 1.0), (1.0, float("nan"))] if clip.id == "w" else [] for clip in packed])
    assert rows(apply_lists(packed, table)) == rows(read_catalog(data, table))
    assert rows(apply_lists(pieces, table)) == [
        ("w#0000", "point", "test"),
        ("w#0001", "point", "test"),
        ("w0#0000", "wave", "test"),
        ("w1#0001", "wave", "train"),
        ("w2#0002", "wave", "train"),
    ]


def test_a_clip_listed_twice_is_named(tmp_path: Path, ucf_lists: Path) -> None:
    """Over files, frame folders, packed clips and in a table of its own."""
    videos = touch(tmp_path / "v", *(f"{name}.avi" for name in UCF))
    frames = touch(tmp_path / "f", *(f"{name}/1.jpg" for name in UCF))
    packed = read_catalog(videos)
    test = ucf_lists / "testlist01.txt"
    twice = write(test, [*test.read_text().splitlines(), f"{UCF[0]}.avi"])  # a training clip
    message = rf"--lists .*; expected each clip once; found '{UCF[0]}\.avi' twice; remove one of its lines"
    for read in (
        lambda: read_catalog(videos, twice.parent),
        lambda: read_catalog(frames, twice.parent),
        lambda: apply_lists(packed, twice.parent),
    ):
        with pytest.raises(TceError, match=message):
            read()
    table = write(videos / "t.csv", ["path,start", f"{UCF[0]}.avi,1", f"{UCF[0]}.avi,2", f"{UCF[0]}.avi,1"])
    with pytest.raises(TceError, match="each clip once"):
        read_catalog(table)
    with pytest.raises(TceError, match="each clip once"):
        read_catalog(videos, table)


def test_apply_lists_of_pieces_that_a_table_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "v/b.mp4", "v/a.mp4")
    lines = ["v/b.mp4,2.5,4,walk", "v/b.mp4,4,5.264,run", "v/a.mp4,,,run", "v/gone.mp4,,,run"]
    table = write(tmp_path / "t.csv", ["path,start,end,label", *lines])
    packed = read_catalog(table)
    assert "1 of 4 listed clips" in caplog.text
    caplog.clear()
    write(
        table,
        [
            "path,start,end,label,split",
            *(f"{line},{part}" for line, part in zip(lines, ["train", "test"] * 2)),
        ],
    )
    again = apply_lists(packed, table, warn=False)
    assert rows(again) == [
        ("v/b#2.5-4", "walk", "train"),
        ("v/b#4-5.264", "run", "test"),
        ("v/a", "run", "train"),
    ]
    assert again.missing == ["v/gone.mp4"] and not caplog.text
