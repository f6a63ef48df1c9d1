"""The tables as any Lance tool sees them, and reading from them and from frame folders."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import lance
import numpy as np
import pytest

from tce.data.check import check
from tce.data.collection import STORAGE_VERSION, open_collection
from tce.data.frame_store import FrameStore
from tce.data.open_data import find_data, open_store
from tce.data.writer import CollectionWriter
from tce.errors import OptionError, TceError
from tce.options.check import CheckOptions
from tce.video.image import decode
from tests.helpers import hard_videos
from tests.helpers.numbered import CLIPS, FRAMES, first_number, pack_into, write_folders


def every_frame(store: FrameStore) -> tuple[np.ndarray, np.ndarray]:
    clips = np.repeat(np.arange(len(store)), store.lengths)
    frames = np.concatenate([np.arange(length) for length in store.lengths])
    order = np.random.default_rng(0).permutation(len(clips))
    return clips[order], frames[order]


def assert_frames(store: FrameStore) -> None:
    """Every frame of every clip is the very one, asked for in random order, twice in one call."""
    clips, frames = every_frame(store)
    clips, frames = np.tile(clips, 2), np.tile(frames, 2)
    for clip, frame, image in zip(clips, frames, store.read(clips, frames), strict=True):
        assert isinstance(image, bytes)
        assert hard_videos.number(decode(image)) == first_number(store.catalog[clip].id) + frame


def test_a_collection_is_an_ordinary_lancedb_database(packed: Path) -> None:
    import lancedb

    database = lancedb.connect(packed)
    clips = database.open_table("clips").to_arrow().to_pylist()
    frames = database.open_table("frames").to_arrow().to_pylist()
    assert [clip["id"] for clip in clips] == sorted(clip["id"] for clip in clips)
    assert len(clips) == CLIPS and len(frames) == CLIPS * FRAMES
    for clip in clips:
        assert (clip["frames"], clip["fps"], clip["width"], clip["height"]) == (FRAMES, 25.0, 64, 48)
        assert (clip["label"], clip["status"], clip["error"]) == (clip["id"][0], "packed", None)
        assert clip["source"] == clip["id"].split("/v_")[1][:-4] and clip["group"] == clip["source"][-3:]
        assert len(clip["content_hash"]) == 64 and Path(clip["path"]).is_file()
    for row, frame in enumerate(frames):
        assert (frame["clip"], frame["index"]) == (clips[row // FRAMES]["id"], row % FRAMES)
        assert frame["time"] == pytest.approx(frame["index"] / 25)
        assert frame["checksum"] == zlib.crc32(frame["image"])
    for table in ("clips", "frames"):
        assert lance.dataset(f"{packed}/{table}.lance").data_storage_version == STORAGE_VERSION
    assert (
        database.open_table("frames").search().where("clip = 'A/v_A_g01_c01'").limit(100).to_arrow().num_rows
        == 12
    )


def test_reading_a_collection(packed: Path) -> None:
    store = open_collection(packed)
    assert_frames(store)
    assert (store.lengths == FRAMES).all() and np.allclose(store.fps, 25) and (store.sizes == (48, 64)).all()
    assert store.catalog.classes == ["A", "B"] and not store.damaged
    assert_frames(open_collection(packed, verify=True))


def test_reading_frame_folders_in_place(folders: Path) -> None:
    store = open_store(folders)
    assert_frames(store)
    assert (store.lengths == FRAMES).all() and (store.sizes == (48, 64)).all()
    assert sorted(path.name for path in folders.iterdir()) == ["A", "B"], "nothing was written"


@pytest.mark.parametrize("kind", ["packed", "folders"])
def test_selected_clips(kind: str, request: pytest.FixtureRequest) -> None:
    store = open_store(request.getfixturevalue(kind))
    part = store.select([5, 0, 3])
    assert list(part.catalog.ids) == [store.catalog[row].id for row in (5, 0, 3)]
    assert_frames(part)
    assert_frames(part.select(np.array([False, True, True])))
    assert len(part.sizes) == len(part.fps) == len(part) == 3
    prints = {s.fingerprint() for s in (store, part, store.select([0, 3, 5]), store.select([0]))}
    assert len(prints) == 4, "content and order count"
    assert store.select(np.arange(8)).fingerprint() == open_store(request.getfixturevalue(kind)).fingerprint()


@pytest.mark.parametrize("kind", ["packed", "folders"])
def test_a_frame_that_does_not_exist_is_an_error_in_its_place(
    kind: str, request: pytest.FixtureRequest
) -> None:
    store = open_store(request.getfixturevalue(kind))
    items = store.read(np.array([0, 0, 1]), np.array([0, FRAMES, -1]))
    assert isinstance(items[0], bytes)
    assert isinstance(items[1], IndexError) and "12" in str(items[1]) and isinstance(items[2], IndexError)


def test_names_of_frames_with_and_without_a_pattern(tmp_path: Path) -> None:
    """Gaps, unpadded numbers, several formats: the frames in the natural order of their names."""
    for name in ("gaps", "zero_based_unpadded", "mixed_formats", "mixed_sizes", "one_based"):
        next(hard for hard in hard_videos.FOLDERS if hard.name == name).make(tmp_path / name)
    store = open_store(tmp_path)
    for clip in range(len(store)):
        images = store.read(np.full(12, clip), np.arange(12))
        assert [hard_videos.number(decode(image)) for image in images] == list(range(12))  # type: ignore[arg-type]


def test_a_file_that_vanishes_is_an_error_in_its_place(tmp_path: Path) -> None:
    store = open_store(write_folders(tmp_path, 2))
    (tmp_path / "A" / "v_A_g01_c01" / "frame000004.jpg").unlink()
    items = store.read(np.zeros(4, int), np.arange(4))
    assert [type(item) for item in items] == [bytes, bytes, bytes, OSError]
    assert "frame000004.jpg" in str(items[3])


def test_a_replaced_frame_changes_the_fingerprint_of_its_folder(tmp_path: Path) -> None:
    """Not only the first one: a run that resumes must not continue with other pictures."""
    folders = write_folders(tmp_path, 2)
    before = open_store(folders).fingerprint()
    assert open_store(folders).fingerprint() == before
    frame = folders / "B" / "v_B_g01_c01" / "frame000007.jpg"
    frame.write_bytes(hard_videos.jpeg(hard_videos.picture(5)) + b"\0")
    assert open_store(folders).fingerprint() != before


def test_what_is_found_is_known_before_it_is_packed(videos: Path, packed: Path, tmp_path: Path) -> None:
    found = find_data(videos)
    assert found.store is None and len(found.catalog) == CLIPS and not list(tmp_path.iterdir())
    assert_frames(found.open(tmp_path / "cache", {"workers": 1}))
    again = find_data(packed)
    assert again.store is not None and again.open(tmp_path / "unused") is again.store
    assert not (tmp_path / "unused").exists()


def test_rows_in_another_order_are_found(packed: Path, tmp_path: Path) -> None:
    """Another Lance tool may rewrite the table; positions come from the rows, not from their order."""
    shutil.copytree(packed, tmp_path / "c")
    path = f"{tmp_path}/c/frames.lance"
    table = lance.dataset(path).to_table()
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    lance.write_dataset(shuffled, path, mode="overwrite", data_storage_version=STORAGE_VERSION)
    assert_frames(open_collection(tmp_path / "c"))


def test_a_reader_keeps_its_version(videos: Path, packed: Path, tmp_path: Path) -> None:
    """Clips replaced and added meanwhile change nothing for who has the collection open."""
    shutil.copytree(packed, tmp_path / "c")
    store = open_collection(tmp_path / "c")
    more = write_folders(tmp_path / "more", 2)
    pack_into(tmp_path / "c", videos, replace=True, only=("A/v_A_g01_c01", "B/v_B_g01_c01"))
    (more / "A").rename(more / "C")
    (more / "B").rename(more / "D")
    pack_into(tmp_path / "c", more, add=True)
    assert_frames(store)
    later = open_collection(tmp_path / "c")
    assert len(later) == CLIPS + 2 and later.version != store.version
    again = open_collection(tmp_path / "c", store.version)
    assert again.fingerprint() == store.fingerprint() != later.fingerprint()
    assert_frames(again)


def test_verified_reading_notices_a_changed_image(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "c")
    image = open_collection(packed).read(np.array([2]), np.array([7]))[0]
    assert isinstance(image, bytes)
    (file,) = (tmp_path / "c" / "frames.lance" / "data").iterdir()
    data = file.read_bytes()
    assert data.count(image) == 1
    place = data.index(image) + len(image) // 2
    file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    store = open_collection(tmp_path / "c", verify=True)
    items = store.read(np.array([2, 2]), np.array([6, 7]))
    assert isinstance(items[0], bytes) and "checksum" in str(items[1])
    assert isinstance(open_collection(tmp_path / "c").read(np.array([2]), np.array([7]))[0], bytes)


def test_what_is_no_collection(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(TceError, match="tce pack"):
        open_collection(tmp_path)
    with pytest.raises(TceError, match="tce pack"):
        open_store(videos)
    with pytest.raises(TceError, match="nothing there"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(TceError, match="version 99"):
        shutil.copytree(videos, tmp_path / "v")
        pack_into(tmp_path / "c", tmp_path / "v")
        open_collection(tmp_path / "c", (99, 99))


def test_prepared_footage_of_every_kind(
    videos: Path, folders: Path, packed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Videos are packed once, with a log line; the rest is used where it is."""
    lists = tmp_path / "lists"
    lists.mkdir()
    for name, part in (("trainlist01.txt", "g01"), ("testlist01.txt", "g02")):
        clips = [f"{label}/v_{label}_{part}_c{i:02d}.avi" for label in "AB" for i in range(1, 5)]
        (lists / name).write_text("\n".join(clips))
    caplog.set_level("INFO", logger="tce")
    for data in (videos, folders, packed):
        caplog.clear()
        store = find_data(data, lists, "01").open(tmp_path / "cache", {"workers": 1})
        assert_frames(store)
        assert caplog.text.count("8 of 16 listed clips (50.0%) have no footage") == 1
        assert ("packing the videos" in caplog.text) == (data == videos)
        expected = ["train" if "g01" in name else "test" for name in store.catalog.ids]
        assert store.catalog.splits.tolist() == expected
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["collection"]
    stamp = (tmp_path / "cache/collection/clips.lance/_versions").stat().st_mtime_ns
    assert len(find_data(videos).open(tmp_path / "cache", {"workers": 1})) == CLIPS
    assert (tmp_path / "cache/collection/clips.lance/_versions").stat().st_mtime_ns == stamp


def test_lists_that_cut_decide_what_is_prepared(
    videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "clips.csv"
    lines = ["A/v_A_g01_c01.mp4,0,0.2,walk", "A/v_A_g01_c01.mp4,0.2,,run", "A/gone.mp4,0,1,run"]
    table.write_text("\n".join(["path,start,end,label", *lines]))
    store = find_data(videos, table).open(tmp_path / "cache", {"workers": 1})
    kept = [clip for clip in store.catalog if clip.start is not None]
    assert [(clip.id[-6:], clip.label) for clip in kept] == [("#0-0.2", "walk"), ("1#0.2-", "run")]
    assert len(store) == CLIPS + 1 and caplog.text.count("have no footage") == 1


def test_a_cache_of_other_footage_is_kept_and_reported(videos: Path, tmp_path: Path) -> None:
    """Only a cache without any clip, left by footage that could not be read, is replaced."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.mp4").write_text("no video")
    with pytest.raises(TceError, match=r"a\.mp4"):
        find_data(broken).open(tmp_path / "cache", {"workers": 1})
    with (
        CollectionWriter(tmp_path / "cache/collection"),
        pytest.raises(TceError, match="another `tce pack` at work"),
    ):
        find_data(videos).open(tmp_path / "cache", {"workers": 1})
    assert len(find_data(videos).open(tmp_path / "cache", {"workers": 1})) == CLIPS
    shutil.copytree(videos, tmp_path / "other")
    with pytest.raises(TceError, match="name another --out"):
        find_data(tmp_path / "other").open(tmp_path / "cache", {"workers": 1})
    assert len(open_collection(tmp_path / "cache" / "collection")) == CLIPS
    for file in (tmp_path / "cache/collection/frames.lance/data").iterdir():
        file.write_bytes(b"damaged")
    with pytest.raises(TceError, match="name another --out"):
        find_data(tmp_path / "other").open(tmp_path / "cache", {"workers": 1})


def test_a_uri_is_read_as_a_folder_is(packed: Path, videos: Path) -> None:
    """The way to object storage, tried on the scheme that every machine has."""
    uri = f"file://{packed}"
    store = open_store(uri)
    assert_frames(store)
    assert store.fingerprint() == open_store(packed).fingerprint() and store.catalog.classes == ["A", "B"]
    assert check(CheckOptions(uri, workers=1)).figures["bad"] == []
    with pytest.raises(OptionError, match="copy it there"):
        pack_into(uri, videos)  # type: ignore[arg-type]
    with pytest.raises(TceError):
        open_store(f"file://{packed}/nowhere")


def test_unknown_resize(packed: Path) -> None:
    from tce.data.loader import Loader
    from tce.data.open_data import open_store

    with pytest.raises(OptionError, match="squash"):
        Loader(open_store(packed), [], (8, 8), "stretch")  # type: ignore[arg-type]
