"""`tce check`: footage and collections, sound and damaged, without changing anything."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from tce.cli import main
from tce.data.check import check
from tce.data.collection import open_collection
from tce.errors import TceError
from tce.options.check import CheckOptions
from tests.helpers import hard_videos
from tests.helpers.numbered import CLIPS, FRAMES, pack_into, write_folders, write_videos


def checked(path: Path, **options: object) -> dict[str, object]:
    return check(CheckOptions(str(path), **({"workers": 1} | options))).figures  # type: ignore[arg-type]


def everything(folder: Path) -> dict[str, str]:
    """The hash of each file."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def data_file(collection: Path, table: str = "frames") -> Path:
    (file,) = (collection / f"{table}.lance" / "data").iterdir()
    return file


def change(file: Path, place: float, count: int = 64) -> None:
    """Overwrite `count` bytes at this share of the file."""
    data = bytearray(file.read_bytes())
    first = int(place * (len(data) - count))
    data[first : first + count] = bytes(byte ^ 0x55 for byte in data[first : first + count])
    file.write_bytes(data)


@pytest.mark.parametrize("kind", ["videos", "folders", "packed"])
@pytest.mark.parametrize("deep", [False, True])
def test_sound(kind: str, deep: bool, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    before = everything(path)
    figures = checked(path, deep=deep)
    assert figures["bad"] == [] and figures["clips"] == CLIPS and figures["frames"] == CLIPS * FRAMES
    assert everything(path) == before


def test_damaged_footage(tmp_path: Path) -> None:
    """Each bad file with its reason; damage in the middle shows when all is decoded."""
    videos = write_videos(tmp_path / "v", 4)
    write_folders(videos / "more", 1)
    (videos / "A" / "text.mp4").write_text("text")
    (videos / "A" / "empty.mp4").touch()
    (videos / "more/A/v_A_g01_c01/frame000003.jpg").write_bytes(b"\xff\xd8\xff")
    movie = hard_videos.encode(videos / "B/movie.mkv", "mpeg4", 200, gop=200)
    data = bytearray(movie.read_bytes())
    data[len(data) // 4 : len(data) // 4 + 400] = bytes(400)
    movie.write_bytes(data)
    quick, deep = checked(videos), checked(videos, deep=True)
    names = [
        [os.path.relpath(entry["path"], videos) for entry in figures["bad"]] for figures in (quick, deep)
    ]  # type: ignore[attr-defined]
    assert set(names[0]) >= {"A/empty.mp4", "A/text.mp4"}
    assert names[1] == ["A/empty.mp4", "A/text.mp4", "B/movie.mkv", "more/A/v_A_g01_c01"]
    assert all(entry["error"] for entry in deep["bad"])  # type: ignore[attr-defined]


def test_missing_footage_of_lists(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "trainlist01.txt").write_text("A/v_A_g01_c01.avi 1\nA/v_A_g09_c01.avi 1\n")
    assert checked(videos, lists=str(tmp_path))["missing"] == ["A/v_A_g09_c01.avi"]


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("deep", [False, True])
def test_damage_anywhere_in_a_collection_is_found(
    place: float, deep: bool, packed: Path, tmp_path: Path
) -> None:
    """Nothing crashes, whatever is hit: images, Lance's own structures or the file's end."""
    shutil.copytree(packed, tmp_path / "c")
    change(data_file(tmp_path / "c"), place)
    before = everything(tmp_path / "c")
    figures = checked(tmp_path / "c", deep=deep)
    assert 1 <= len(figures["bad"]) <= CLIPS and everything(tmp_path / "c") == before  # type: ignore[arg-type]


def test_damaged_clips_are_packed_again_by_name(videos: Path, packed: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    """With the very command that the check prints."""
    shutil.copytree(packed, tmp_path / "c")
    image = open_collection(packed).read([3], [5])[0]  # type: ignore[arg-type]
    file = data_file(tmp_path / "c")
    file.write_bytes(file.read_bytes().replace(image, image[:-20] + bytes(20)))  # type: ignore[arg-type,index]
    figures = checked(tmp_path / "c")
    (bad,) = figures["bad"]  # type: ignore[misc]
    assert bad["id"] == open_collection(packed).catalog[3].id and "frame 5" in bad["error"]
    assert main(["check", str(tmp_path / "c"), "--workers", "1"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1].partition(": ")[2])
    assert command[:2] == ["tce", "pack"] and main([*command[1:], "--workers", "1"]) == 0
    assert checked(tmp_path / "c")["bad"] == []
    assert len(open_collection(tmp_path / "c")) == CLIPS


@pytest.mark.parametrize("time", [float("nan"), float("inf"), 0.16, None])
def test_frames_out_of_time_are_found(time: float | None, packed: Path, tmp_path: Path) -> None:
    """Also where Lance notices nothing: the numbers are readable, and wrong."""
    shutil.copytree(packed, tmp_path / "c")
    frames = lance.dataset(f"{tmp_path}/c/frames.lance")
    table = frames.to_table()
    times = table["time"].to_pylist()
    times[2 * FRAMES + 5] = time
    column = table.schema.get_field_index("time")
    table = table.set_column(column, table.schema.field("time"), pa.array(times, pa.float64()))
    lance.write_dataset(table, frames.uri, mode="overwrite")
    (bad,) = checked(tmp_path / "c")["bad"]  # type: ignore[misc]
    assert bad["id"] == open_collection(packed).catalog[2].id and "frame 5 has no valid time" in bad["error"]


@pytest.mark.parametrize("how", ["gone", "cut", "empty"])
def test_a_lost_data_file_costs_the_clips_in_it(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others can be read, and the lost ones packed again, though Lance refuses to work around it."""
    monkeypatch.setattr("tce.data.writer.COMMIT_BYTES", 20_000)
    monkeypatch.setattr("tce.data.writer._SMALL_ROWS", 1)
    videos = write_videos(tmp_path / "v", 12)
    pack_into(tmp_path / "c", videos)
    whole = open_collection(tmp_path / "c").fingerprint()
    files = sorted((tmp_path / "c/frames.lance/data").iterdir(), key=os.path.getmtime)
    assert len(files) >= 3
    if how == "gone":
        files[1].unlink()
    else:
        os.truncate(files[1], files[1].stat().st_size // 2 if how == "cut" else 0)
    store = open_collection(tmp_path / "c")
    assert 0 < len(store.damaged) < 12 and len(store) + len(store.damaged) == 12
    assert {entry["id"] for entry in checked(tmp_path / "c")["bad"]} == set(store.damaged)  # type: ignore[attr-defined]
    pack_into(tmp_path / "c", videos, replace=True)
    assert checked(tmp_path / "c")["bad"] == [] and len(open_collection(tmp_path / "c")) == 12
    assert open_collection(tmp_path / "c").fingerprint() != whole, "they stand at the end now"
    assert len(lance.dataset(f"{tmp_path}/c/frames.lance").to_table()) == 12 * FRAMES


def test_lost_rows_of_the_clips_are_packed_again(videos: Path, packed: Path, tmp_path: Path) -> None:
    """Frames without their clip's row are orphans: removed, and packed by the same command."""
    shutil.copytree(packed, tmp_path / "c")
    os.truncate(data_file(tmp_path / "c", "clips"), 100)
    with pytest.raises(TceError, match="none"):
        from tce.data.open_data import open_store

        open_store(tmp_path / "c")
    pack_into(tmp_path / "c", videos, replace=True)
    assert open_collection(tmp_path / "c").fingerprint() == open_collection(packed).fingerprint()


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(TceError, match="nothing there"):
        checked(tmp_path / "nowhere")
    with pytest.raises(TceError, match="none"):
        checked(tmp_path)
