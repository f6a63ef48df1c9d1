"""`tce pack`: what is packed and how; resuming, adding, replacing, and everything that can be wrong."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from tce.data.check import check
from tce.data.collection import open_collection
from tce.data.find_clips import is_video
from tce.data.loader import Loader
from tce.data.open_data import find_data, open_store
from tce.data.writer import CollectionWriter
from tce.errors import OptionError, TceError
from tce.options.check import CheckOptions
from tce.options.pack import PackOptions
from tce.video.image import decode
from tests.helpers import hard_videos, untrusted
from tests.helpers.numbered import CLIPS, FRAMES, pack_into, write_folders, write_videos


def rows(collection: Path, table: str) -> list[dict[str, Any]]:
    return lance.dataset(f"{collection}/{table}.lance").to_table().to_pylist()


def shown(collection: Path, clip: str, turn: int = 0) -> list[int]:
    """The numbers that the stored frames of a clip show, rotated back by so many quarters."""
    images = [decode(row["image"]) for row in rows(collection, "frames") if row["clip"] == clip]
    return [hard_videos.number(np.rot90(image, -turn)) for image in images]


def test_jpeg_folders_go_in_byte_for_byte(folders: Path, tmp_path: Path) -> None:
    pack_into(tmp_path / "c", folders)
    stored = {(row["clip"], row["index"]): row["image"] for row in rows(tmp_path / "c", "frames")}
    files = sorted(folders.rglob("*.jpg"))
    assert len(stored) == len(files) == CLIPS * FRAMES
    for file in files:
        clip = file.parent.relative_to(folders).as_posix()
        assert stored[clip, int(file.stem[-6:]) - 1] == file.read_bytes()


def test_hard_videos(hard_folder: Path, tmp_path: Path) -> None:
    """One of everything: what decodes is stored frame for frame, the rest is named with its reason."""
    pack_into(tmp_path / "c", hard_folder, workers=2)
    report = json.loads((tmp_path / "c/report.json").read_text())
    failed = {entry["path"]: entry["error"] for entry in report["failed"]}
    packed = {row["id"] for row in rows(tmp_path / "c", "clips") if row["status"] == "packed"}
    # What has no video's suffix is not taken for footage.
    pieces = [piece for piece in hard_videos.FILES if is_video(piece.name)] + hard_videos.FOLDERS
    for piece in pieces:
        path = hard_folder / piece.name
        if piece.error:
            assert failed[str(path)], piece.name
            continue
        name = piece.name if piece.name in packed else path.stem
        assert name in packed, (piece.name, failed.get(str(path)))
        if piece.shows is not None:
            assert shown(tmp_path / "c", name, piece.turn) == piece.shows, piece.name
    assert len(failed) == sum(bool(piece.error) for piece in pieces)


@pytest.mark.parametrize(
    ("options", "numbers", "fps"),
    [
        ({"every": 5}, [0, 5, 10], 5.0),
        ({"fps": 5.0}, [0, 5, 10], 5.0),
        ({"fps": 10.0}, [0, 2, 5, 7, 10], 10.0),
        ({"fps": 100.0}, list(range(12)), 25.0),
        ({"every": 50}, [0], 0.5),
    ],
)
def test_fewer_frames(options: dict[str, Any], numbers: list[int], fps: float, tmp_path: Path) -> None:
    """From a video, and the same from a frame folder, which has the same rate by default."""
    write_videos(tmp_path / "v", 1)
    write_folders(tmp_path / "f", 1)
    for kind in "vf":
        out = tmp_path / f"c{kind}"
        pack_into(out, tmp_path / kind, **options)
        (clip,) = rows(out, "clips")
        assert shown(out, clip["id"]) == numbers
        assert clip["fps"] == pytest.approx(fps, rel=0.05) and clip["frames"] == len(numbers)
        times = [row["time"] for row in rows(out, "frames")]
        assert times == pytest.approx([number / 25 for number in numbers])


def test_frames_of_a_variable_rate_are_chosen_by_time(tmp_path: Path) -> None:
    piece = next(hard for hard in hard_videos.FILES if hard.name == "variable_rate.mp4")
    piece.make(tmp_path / "v.mp4")
    pack_into(tmp_path / "c", tmp_path / "v.mp4", fps=2.0)
    times = np.array([7 * i * i / 1000 for i in range(hard_videos.FRAMES)])
    expected = sorted({int(np.abs(times - k / 2).argmin()) for k in range(int(times[-1] * 2) + 1)})
    assert shown(tmp_path / "c", "v") == expected


@pytest.mark.parametrize(
    ("side", "size"), [(None, (256, 340)), (0, (510, 678)), (64, (64, 85)), (600, (510, 678))]
)
def test_short_side_of_videos(side: int | None, size: tuple[int, int], tmp_path: Path) -> None:
    hard_videos.encode(tmp_path / "v.mp4", "libx264", 3, size=(678, 510), preset="ultrafast")
    pack_into(tmp_path / "c", tmp_path / "v.mp4", short_side=side)
    assert open_collection(tmp_path / "c").sizes.tolist() == [list(size)]
    assert shown(tmp_path / "c", "v") == [0, 1, 2]
    assert decode(rows(tmp_path / "c", "frames")[0]["image"]).shape[:2] == size


def test_short_side_and_quality_of_folders(folders: Path, tmp_path: Path) -> None:
    """Images that are larger are reduced, on demand only."""
    pack_into(tmp_path / "c", folders, short_side=24, quality=50)
    assert (open_collection(tmp_path / "c").sizes == (24, 32)).all()
    assert shown(tmp_path / "c", "A/v_A_g01_c01") == list(range(12))


def test_resuming_does_nothing_twice(videos: Path, packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "c")
    before = [rows(tmp_path / "c", table) for table in ("clips", "frames")]
    result = pack_into(tmp_path / "c", videos)
    assert result.figures["clips"] == CLIPS and result.figures["frames"] == CLIPS * FRAMES
    assert [rows(tmp_path / "c", table) for table in ("clips", "frames")] == before


def test_clips_that_came_later_are_packed_too(tmp_path: Path) -> None:
    write_videos(tmp_path / "v", 2)
    pack_into(tmp_path / "c", tmp_path / "v")
    write_videos(tmp_path / "v", 4)
    pack_into(tmp_path / "c", tmp_path / "v")
    assert len(open_collection(tmp_path / "c")) == 4


def test_replaced_are_changed_failed_and_named_clips(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "v", 4)
    bad = videos / "A" / "v_A_g01_c01.mp4"
    good = bad.read_bytes()
    bad.write_bytes(b"no video")
    pack_into(tmp_path / "c", videos)
    assert [row["status"] for row in rows(tmp_path / "c", "clips")].count("failed") == 1
    before = open_collection(tmp_path / "c").fingerprint()
    bad.write_bytes(good)
    pack_into(tmp_path / "c", videos)
    assert open_collection(tmp_path / "c").fingerprint() == before, "not without --replace"
    other = videos / "B" / "v_B_g01_c01.mp4"
    other.write_bytes((videos / "B" / "v_B_g01_c02.mp4").read_bytes())
    pack_into(tmp_path / "c", videos, replace=True)
    clips = rows(tmp_path / "c", "clips")
    assert len(clips) == 4 and all(row["status"] == "packed" for row in clips)
    assert shown(tmp_path / "c", "A/v_A_g01_c01")[0] == 0 and shown(tmp_path / "c", "B/v_B_g01_c01")[0] == 300
    assert len(rows(tmp_path / "c", "frames")) == 4 * FRAMES
    versions = open_collection(tmp_path / "c").version
    pack_into(tmp_path / "c", videos, replace=True, only=("A/v_A_g01_c02",))
    assert open_collection(tmp_path / "c").version != versions
    assert shown(tmp_path / "c", "A/v_A_g01_c02")[0] == 200
    with pytest.raises(OptionError, match="--only"):
        pack_into(tmp_path / "c", videos, replace=True, only=("A/nobody",))


def test_adding_needs_the_flag_and_ids_of_their_own(videos: Path, packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "c")
    other = write_folders(tmp_path / "other", 2)
    with pytest.raises(OptionError, match="--add"):
        pack_into(tmp_path / "c", other)
    with pytest.raises(OptionError, match="ids of their own"):
        pack_into(tmp_path / "c", other, add=True)
    assert len(open_collection(tmp_path / "c")) == CLIPS
    (other / "A").rename(other / "Z")
    (other / "B").rename(other / "Y")
    pack_into(tmp_path / "c", other, add=True)
    store = open_collection(tmp_path / "c")
    assert len(store) == CLIPS + 2 and store.catalog.classes == ["A", "B", "Y", "Z"]
    pack_into(tmp_path / "c", videos)
    assert len(open_collection(tmp_path / "c")) == CLIPS + 2


def test_several_places_at_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_videos(tmp_path / name, 2)
    pack_into(tmp_path / "c", tmp_path / "one", tmp_path / "two", tmp_path / "one/A/v_A_g01_c01.mp4")
    ids = open_collection(tmp_path / "c").catalog.ids.tolist()
    assert ids == [
        "one/A/v_A_g01_c01",
        "one/B/v_B_g01_c01",
        "two/A/v_A_g01_c01",
        "two/B/v_B_g01_c01",
        "v_A_g01_c01",
    ]


@pytest.mark.parametrize(
    ("flag", "options"),
    [
        ("--short-side", {"short_side": 100}),
        ("--quality", {"quality": 80}),
        ("--every", {"every": 2}),
        ("--fps", {"fps": 5.0}),
        ("--clip-seconds", {"clip_seconds": 1.0}),
        ("--keep-damaged", {"keep_damaged": True}),
    ],
)
def test_options_that_contradict_the_collection_are_named(
    flag: str, options: dict[str, Any], videos: Path, packed: Path
) -> None:
    with pytest.raises(OptionError, match=flag):
        pack_into(packed, videos, **options)


@pytest.mark.parametrize(
    ("flag", "options"),
    [
        ("--quality", {"quality": 0}),
        ("--every", {"every": 0}),
        ("--fps", {"fps": -1.0}),
        ("--every and --fps", {"every": 2, "fps": 5.0}),
        ("--short-side", {"short_side": -1}),
        ("--workers", {"workers": 0}),
        ("--timeout", {"timeout": 0.0}),
        ("--clip-seconds", {"clip_seconds": 0.0}),
        ("FOOTAGE", {"footage": ()}),
    ],
)
def test_options_out_of_range_are_named(flag: str, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=flag):
        PackOptions(**{"footage": ("x",), "out": "y"} | options)


def test_damaged_footage_costs_itself_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    videos = write_videos(tmp_path / "v", 4)
    cut = videos / "A" / "v_A_g01_c02.mp4"
    cut.write_bytes(cut.read_bytes()[:-300])
    (videos / "B" / "v_B_g01_c02.mp4").write_bytes(b"")
    result = pack_into(tmp_path / "c", videos)
    report = json.loads((tmp_path / "c/report.json").read_text())
    assert [entry["id"] for entry in report["failed"]] == ["A/v_A_g01_c02", "B/v_B_g01_c02"]
    assert all(entry["error"] and entry["path"] in entry["error"] for entry in report["failed"])
    assert result.figures["failed"] == report["failed"] and "report.json" in result.text
    assert f"skipped {cut}; expected" in caplog.text, "the file is named once"
    assert open_collection(tmp_path / "c").catalog.ids.tolist() == ["A/v_A_g01_c01", "B/v_B_g01_c01"]


def test_kept_damaged_footage_gives_its_good_frames(tmp_path: Path) -> None:
    write_folders(tmp_path / "f", 2)
    (tmp_path / "f/A/v_A_g01_c01/frame000003.jpg").write_bytes(b"\xff\xd8\xff broken")
    movie = hard_videos.encode(tmp_path / "f/B/movie.mkv", "mpeg4", 24)
    movie.write_bytes(movie.read_bytes()[: -movie.stat().st_size // 3])
    pack_into(tmp_path / "c", tmp_path / "f", keep_damaged=True)
    assert shown(tmp_path / "c", "A/v_A_g01_c01") == [0, 1, *range(3, 12)]
    good = shown(tmp_path / "c", "B/movie")
    assert 5 < len(good) < 24 and good == list(range(len(good)))
    report = json.loads((tmp_path / "c/report.json").read_text())
    assert [entry["id"] for entry in report["damaged"]] == ["A/v_A_g01_c01", "B/movie"] and not report[
        "failed"
    ]


def test_most_may_fail_if_something_decodes(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "v", 4)
    for path in sorted(videos.rglob("*.mp4"))[:3]:
        path.write_bytes(b"text")
    result = pack_into(tmp_path / "c", videos)
    assert result.figures["clips"] == 1 and len(result.figures["failed"]) == 3


def test_stops_when_nothing_decodes(tmp_path: Path) -> None:
    """Nothing is kept of it, so that the same command works once the cause is gone."""
    videos = write_videos(tmp_path / "v", 3)
    contents = {path: path.read_bytes() for path in videos.rglob("*.mp4")}
    for path in contents:
        path.write_bytes(b"text")
    with pytest.raises(TceError, match="none of the 3 clips can be decoded") as caught:
        pack_into(tmp_path / "c", videos)
    assert str(caught.value).count(".mp4") == 1, "one file is named, once"
    assert len(json.loads((tmp_path / "c/report.json").read_text())["failed"]) == 3
    for path, content in contents.items():
        path.write_bytes(content)
    pack_into(tmp_path / "c", videos)
    assert len(open_collection(tmp_path / "c")) == 3


def test_there_is_a_way_on_where_the_first_clips_are_all_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tce.data.pack.FIRST", 2)
    videos = write_videos(tmp_path / "v", 2)
    for number in range(3):
        (videos / f"0{number}.mp4").write_bytes(b"text")
    with pytest.raises(TceError, match=r"none of the first 2 clips .*--keep-going"):
        pack_into(tmp_path / "c", videos)
    result = pack_into(tmp_path / "c", videos, keep_going=True)
    assert result.figures["clips"] == 2 and len(result.figures["failed"]) == 3


def test_a_packing_without_any_clip_binds_nobody(tmp_path: Path) -> None:
    """Other options and other footage may follow, and what failed is tried again under them."""
    cut = hard_videos.encode(tmp_path / "cut.mkv", "mpeg4", FRAMES)
    cut.write_bytes(cut.read_bytes()[: -cut.stat().st_size // 3])
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"text")
    with pytest.raises(TceError, match="none of the 2 clips"):
        pack_into(tmp_path / "c", cut, bad)
    pack_into(tmp_path / "c", cut, bad, keep_damaged=True)
    store = open_collection(tmp_path / "c")
    assert store.catalog.ids.tolist() == ["cut"] and 0 < store.lengths[0] < FRAMES
    with pytest.raises(OptionError, match="expected --keep-damaged, as when it was made; found no --keep"):
        pack_into(tmp_path / "c", cut, bad)


def test_locks_and_leftovers_are_not_in_the_way(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "v", 2)
    out = tmp_path / "c"
    out.mkdir()
    for name in (".writer.lock", ".options.json.00000000-1-x.part", "cuts.json"):
        (out / name).write_text("{}")
    pack_into(out, videos)
    assert not (out / ".writer.lock").exists() and len(open_collection(out)) == 2
    with pytest.raises(OptionError):
        pack_into(out, videos, replace=True, only=("nobody",))
    assert not (out / ".writer.lock").exists()


def test_file_names_that_end_as_pieces_do_keep_their_own_label_and_split(tmp_path: Path) -> None:
    """`a#0001.mp4` is no piece of `a`: it keeps its own label and split, packed or not."""
    (tmp_path / "v").mkdir()
    names = ["a", "a#0001", "a#0002", "b", "b#0001", "c"]
    for number, name in enumerate(names):
        hard_videos.encode(tmp_path / f"v/{name}.mp4", "libx264", 4, first=number, preset="ultrafast")
    table = tmp_path / "lists.csv"
    splits = dict(zip(names, ["train", "test", "test", "train", "test", "train"], strict=True))
    rows = [f"{name}.mp4,{name[0]},{split}" for name, split in splits.items()]
    table.write_text("\n".join(["path,label,split", *rows]))
    store = find_data(tmp_path / "v", table).open(tmp_path / "cache", {"workers": 1})
    assert dict(zip(store.catalog.ids, store.catalog.splits, strict=True)) == splits


def test_a_file_name_that_ends_as_a_piece_does_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    hard_videos.encode(tmp_path / "v/c.mp4", "libx264", 4, preset="ultrafast")
    hard_videos.encode(tmp_path / "v/c#0003.mp4", "libx264", 4, first=9, preset="ultrafast")
    pack_into(tmp_path / "cut", tmp_path / "v/c#0003.mp4", clip_seconds=1.0)
    pack_into(tmp_path / "cut", tmp_path / "v/c.mp4", clip_seconds=1.0, add=True)
    assert open_collection(tmp_path / "cut").catalog.ids.tolist() == ["c#0003#0000", "c#0000"]


def test_most_of_what_came_later_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is packed already shows that decoder and path are right."""
    monkeypatch.setattr("tce.data.pack.FIRST", 2)
    videos = write_videos(tmp_path / "v", 2)
    pack_into(tmp_path / "c", videos)
    for number in range(3):
        (videos / "A" / f"new{number}.mp4").write_bytes(b"text")
    result = pack_into(tmp_path / "c", videos)
    assert result.figures["clips"] == 2 and len(result.figures["failed"]) == 3


def test_replacing_never_empties_a_collection(tmp_path: Path) -> None:
    """A clip keeps its rows until it is packed again, and for good if its footage cannot be read any more."""
    videos = write_videos(tmp_path / "v", 2)
    pack_into(tmp_path / "c", videos)
    for path in videos.rglob("*.mp4"):
        path.write_bytes(b"text")
    pack_into(tmp_path / "c", videos, replace=True)
    store = open_collection(tmp_path / "c")
    assert len(store) == 2 and not store.damaged
    assert shown(tmp_path / "c", "B/v_B_g01_c01") == list(range(100, 100 + FRAMES))


def test_a_long_clip_is_stored_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded; a clip that fails after some of its parts were stored leaves none of them."""
    monkeypatch.setattr("tce.data.writer.COMMIT_BYTES", 4000)
    write_videos(tmp_path / "v", 1, 150)
    hard_videos.encode(tmp_path / "v/A/v_A_g01_c02.mp4", "libx264", 150, first=1000, preset="ultrafast")
    bad = tmp_path / "v/A/v_A_g01_c02.mp4"
    bad.write_bytes(bad.read_bytes()[:-100])
    hard_videos.encode(tmp_path / "v/A/v_A_g01_c03.mp4", "libx264", 150, first=2000, preset="ultrafast")
    patched_parts(monkeypatch)
    pack_into(tmp_path / "c", tmp_path / "v")
    store = open_collection(tmp_path / "c")
    assert store.catalog.ids.tolist() == ["A/v_A_g01_c01", "A/v_A_g01_c03"]
    assert shown(tmp_path / "c", "A/v_A_g01_c01") == list(range(150))
    assert shown(tmp_path / "c", "A/v_A_g01_c03") == list(range(2000, 2150))
    assert len(rows(tmp_path / "c", "frames")) == 300 and not store.damaged


def patched_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode in this process, in small parts: a child would not see what is patched here."""
    from tce.data import encode

    monkeypatch.setattr(encode, "CHUNK_BYTES", 2000)
    monkeypatch.setattr(
        "tce.video.pool.DecodePool.stream",
        lambda self, function, items: ((item, function(item)) for item in items),
    )


def test_cut_into_pieces(tmp_path: Path) -> None:
    """Pieces join without gap or overlap, share their recording, and a short rest stays with the last."""
    hard_videos.encode(tmp_path / "night.mp4", "libx264", 110, preset="ultrafast")
    pack_into(tmp_path / "c", tmp_path / "night.mp4", clip_seconds=1.0)
    store = open_collection(tmp_path / "c")
    assert store.catalog.ids.tolist() == [f"night#{piece:04d}" for piece in range(4)]
    assert store.lengths.tolist() == [25, 25, 25, 35]
    assert [shown(tmp_path / "c", name) for name in store.catalog.ids] == [
        list(range(25)), list(range(25, 50)), list(range(50, 75)), list(range(75, 110)),
    ]  # fmt: skip
    assert set(store.catalog.sources) == {"night"}
    before = store.version
    pack_into(tmp_path / "c", tmp_path / "night.mp4", clip_seconds=1.0)
    assert open_collection(tmp_path / "c").version == before


def test_clips_with_time_ranges_of_a_list(tmp_path: Path) -> None:
    """Kinetics' way: several clips out of one file."""
    (tmp_path / "v").mkdir()
    hard_videos.encode(tmp_path / "v/film.mp4", "libx264", 100, preset="ultrafast")
    table = tmp_path / "clips.csv"
    table.write_text("path,label,split,start,end\nfilm.mp4,walk,train,0.4,1.2\nfilm.mp4,run,val,2,\n")
    pack_into(tmp_path / "c", tmp_path / "v", lists=str(table))
    store = open_collection(tmp_path / "c")
    assert [shown(tmp_path / "c", name) for name in store.catalog.ids] == [
        list(range(10, 30)),
        list(range(50, 100)),
    ]
    assert [store.catalog[row].label for row in range(2)] == ["walk", "run"]
    assert store.catalog.splits.tolist() == ["train", "val"] and store.catalog[0].end == pytest.approx(1.2)


def test_a_dry_run_writes_nothing_and_comes_close(videos: Path, packed: Path, tmp_path: Path) -> None:
    result = pack_into(tmp_path / "c", videos, dry_run=True)
    real = pack_into(packed, videos).figures
    assert not (tmp_path / "c").exists()
    assert result.figures["clips"] == CLIPS and result.figures["frames"] == pytest.approx(96, rel=0.1)
    assert result.figures["bytes"] == pytest.approx(real["bytes"], rel=0.2)
    assert result.figures["seconds"] > 0 and "96 frames" in result.text
    cut = pack_into(tmp_path / "c", videos, dry_run=True, clip_seconds=0.2)
    assert 12 <= cut.figures["clips"] <= 24


def test_one_writer_at_a_time(videos: Path, packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "c")
    with CollectionWriter(tmp_path / "c"), pytest.raises(TceError, match="another `tce pack`"):
        pack_into(tmp_path / "c", videos, replace=True)
    pack_into(tmp_path / "c", videos, replace=True)


def test_places_that_cannot_be_written(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    for out, word in (("file", "a file"), ("file/below", "a folder"), ("full", "thesis.tex")):
        with pytest.raises(TceError, match=word):
            pack_into(tmp_path / out, videos)
    assert os.listdir(tmp_path / "full") == ["thesis.tex"]


def test_a_full_disk_is_one_line_and_the_same_command_resumes(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No clip's row without its frames, even when the failure is met again on the way out."""
    monkeypatch.setattr("tce.data.writer.COMMIT_SECONDS", 0.0)
    write, calls = lance.write_dataset, []

    def failing(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 4 and "frames" in str(arguments[1]):
            raise OSError("LanceError(IO): No space left on device (os error 28), /rustc/x.rs:1:2")
        return write(*arguments, **options)

    monkeypatch.setattr(lance, "write_dataset", failing)
    with pytest.raises(TceError, match="no space left on device; make room") as caught:
        pack_into(tmp_path / "c", videos)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(lance, "write_dataset", write)
    assert not open_collection(tmp_path / "c").damaged
    pack_into(tmp_path / "c", videos)
    assert len(open_collection(tmp_path / "c")) == CLIPS


def test_strange_names(tmp_path: Path) -> None:
    names = ["it's", "new\nline", "cafe\u0301", "snow ☃", "100%", 'quo"te', "a b", "x;DROP TABLE clips"]
    for number, name in enumerate(names):
        (tmp_path / "v" / name).mkdir(parents=True)
        hard_videos.encode(
            tmp_path / "v" / name / "clip.mp4", "libx264", 2, first=10 * number, preset="ultrafast"
        )
    pack_into(tmp_path / "c", tmp_path / "v")
    given = [unicodedata.normalize("NFC", f"{name}/clip") for name in names[:3]]  # as keyboards write accents
    pack_into(tmp_path / "c", tmp_path / "v", replace=True, only=tuple(given))
    store = open_collection(tmp_path / "c")
    assert sorted(store.catalog.ids) == sorted(f"{name}/clip" for name in names)
    for number, name in enumerate(names):
        assert shown(tmp_path / "c", f"{name}/clip") == [10 * number, 10 * number + 1]


def test_real_clips(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "gestures" / "videos" / "LetterA"
    for file in sorted(source.iterdir())[:4]:
        (tmp_path / "LetterA").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "LetterA" / file.name)
    result = pack_into(tmp_path / "c", tmp_path / "LetterA", lists=str(real_data / "gestures" / "lists"))
    assert result.figures["frames"] == 4 * 32 and set(open_collection(tmp_path / "c").catalog.splits) <= {
        "train",
        "test",
    }


def test_a_decoder_that_hangs_or_crashes_costs_its_clip_only(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tce.data.encode.encode_clip", untrusted.encode_or_act)
    good = sorted(filter(is_video, (str(path) for path in videos.rglob("*"))))[:2]
    (tmp_path / "data").mkdir()
    for deed in ("hang", "segfault"):
        (tmp_path / "data" / f"{deed}.mp4").symlink_to(good[0])
    for number, path in enumerate(good):
        (tmp_path / "data" / f"good{number}.mp4").symlink_to(path)
    result = pack_into(tmp_path / "collection", tmp_path / "data", timeout=2.0)
    failed = {clip["id"]: clip["error"] for clip in result.figures["failed"]}
    assert failed.keys() == {"hang", "segfault"}
    assert "progress within 2 s" in failed["hang"] and "SIGSEGV" in failed["segfault"]
    assert open_store(tmp_path / "collection").catalog.ids.tolist() == ["good0", "good1"]


def test_failures_at_the_end_do_not_stop_what_is_packed(tmp_path: Path) -> None:
    """Trying again what cannot be decoded is no reason to doubt the decoder."""
    videos = write_videos(tmp_path / "v", 4)
    (videos / "A" / "v_A_g01_c01.mp4").write_bytes(b"text")
    pack_into(tmp_path / "c", videos)
    result = pack_into(tmp_path / "c", videos, replace=True)
    assert len(result.figures["failed"]) == 1 and result.figures["clips"] == 3


def test_what_is_no_file_is_left_out_and_named(tmp_path: Path) -> None:
    """A pipe that nobody writes to would keep a decoder waiting (see `test_pool` for decoders that hang)."""
    videos = write_videos(tmp_path / "v", 4)
    os.mkfifo(videos / "A" / "pipe.mp4")
    pack_into(tmp_path / "c", videos)
    report = json.loads((tmp_path / "c/report.json").read_text())
    assert not report["failed"] and ["pipe.mp4: a named pipe" in line for line in report["skipped"]] == [True]
    assert len(open_collection(tmp_path / "c")) == 4


def test_an_image_that_declares_a_huge_size_is_refused_by_one_rule(tmp_path: Path) -> None:
    """By `pack`, `check` and reading in place alike."""
    folders = write_folders(tmp_path / "f", 3)
    bad = folders / "A" / "v_A_g01_c01" / "frame000003.jpg"
    data = bytearray(bad.read_bytes())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = (60_000).to_bytes(2, "big") * 2
    bad.write_bytes(data)
    pack_into(tmp_path / "c", folders)
    (failed,) = json.loads((tmp_path / "c/report.json").read_text())["failed"]
    (checked,) = check(CheckOptions(str(folders), deep=True, workers=1)).figures["bad"]
    for error in (failed["error"], checked["error"]):
        assert "frame000003.jpg" in error and "at most 89,478,485 pixels" in error
    (batch,) = Loader(open_store(folders), [(np.zeros(1, int), np.full((1, 1), 2))], (8, 8))
    assert not batch.ok.any() and "60000 x 60000" in batch.errors[0]


def test_split_at_scenes(tmp_path: Path) -> None:
    """Cuts where the picture changes, and long scenes into pieces; kept beside the collection."""
    pytest.importorskip("scenedetect")
    import av

    with av.open(str(tmp_path / "film.mp4"), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = 96
        stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(150):
            image = np.full(
                (64, 96, 3), [(200, 30, 30), (20, 180, 40), (30, 40, 220)][number // 50], np.uint8
            )
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        output.mux(stream.encode())
    pack_into(tmp_path / "scenes", tmp_path / "film.mp4", split_scenes=True)
    assert open_collection(tmp_path / "scenes").lengths.tolist() == [50, 50, 50]
    assert len(json.loads((tmp_path / "scenes/cuts.json").read_text())["film"]["pieces"]) == 3
    pack_into(tmp_path / "both", tmp_path / "film.mp4", split_scenes=True, clip_seconds=1.0)
    assert open_collection(tmp_path / "both").lengths.tolist() == [25] * 6
