"""The index follows the footage, and an interruption leaves it whole."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import numpy as np
import pytest

import tce
from tce.cli import main
from tce.embedding.embed import embed
from tce.errors import OptionError, TceError
from tce.model.checkpoint import checkpoint_hash, save_model
from tce.model.encoder import build_encoder
from tce.retrieval.frame_table import list_indexes
from tce.retrieval.index_writer import LOCK, index_lock
from tce.video.image import decode
from tests.helpers import blobs

NET = {
    "ckpt": "random",
    "model": "tinynet:linear_in_pixels",
    "image_size": 32,
    "device": "cpu",
    "engine": "torch",
    "precision": "float32",  # "auto" may differ between the processes of a busy machine
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blobs.write_folder(tmp_path_factory.mktemp("blobs"))


@pytest.fixture
def footage(clips: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clips, tmp_path / "videos"))


def content(db: Path, name: str | None = None) -> dict[tuple[str, int], dict]:
    """All frames of an index by file name and number."""
    name = name or list_indexes(str(db))[0].name
    rows = lance.dataset(f"{db}/{name}.lance").to_table().to_pylist()
    return {(Path(row["video"]).name, row["frame"]): row for row in rows}


def test_vectors_are_the_networks_and_columns_say_where_from(footage: Path, tmp_path: Path) -> None:
    result = tce.index(footage, db=tmp_path / "db", every=5, **NET)
    assert result.figures["videos"] == 5 and result.figures["frames"] == 15
    rows = content(tmp_path / "db")
    assert sorted(rows) == sorted((f"{n}.mp4", f) for n in ("r1", "r2", "l1", "l2", "d1") for f in (0, 5, 10))
    encoder = build_encoder(NET["model"], head="none", image_size=32, seed=0)
    for name in ("right/r1.mp4", "left/l2.mp4"):
        expected = embed(footage / name, encoder, every=5, device="cpu")
        found = [rows[Path(name).name, frame] for frame in (0, 5, 10)]
        np.testing.assert_allclose([row["vector"] for row in found], expected, atol=1e-5)
        assert [row["time"] for row in found] == pytest.approx([0, 0.5, 1.0])
        assert {row["label"] for row in found} == {name.split("/")[0]}
    pictures = [decode(row["thumbnail"]) for row in rows.values()]
    assert {picture.shape for picture in pictures} == {(48, 48, 3)}
    assert decode(rows["r1.mp4", 0]["thumbnail"])[20, 6, 0] > 150  # the square is at the left


def test_thumbnails_are_no_larger_than_asked(footage: Path, tmp_path: Path) -> None:
    tce.index(footage / "down", db=tmp_path / "db", every=5, thumbnail=24, **NET)
    assert {decode(row["thumbnail"]).shape for row in content(tmp_path / "db").values()} == {(24, 24, 3)}


def test_fps_takes_the_nearest_frames(footage: Path, tmp_path: Path) -> None:
    tce.index(footage / "down", db=tmp_path / "db", fps=2.5, **NET)
    rows = content(tmp_path / "db")
    assert sorted(frame for _, frame in rows) == [0, 4, 8]


def test_new_changed_and_vanished_videos(footage: Path, tmp_path: Path) -> None:
    db = tmp_path / "db"
    tce.index(footage, db=db, every=5, **NET)
    before = content(db)
    again = tce.index(footage, db=db, **NET)  # --every as stored
    assert again.figures["embedded"] == 0 and again.figures["unchanged"] == 5 and content(db) == before
    blobs.write(footage / "right" / "r3.mp4", "right")
    blobs.write(footage / "down" / "d1.mp4", "stays")
    (footage / "left" / "l1.mp4").unlink()
    result = tce.index(footage, db=db, **NET)
    assert (result.figures["added"], result.figures["embedded"]) == (1, 2)
    assert [Path(name).name for name in result.figures["removed"]] == ["l1.mp4"]
    after = content(db)
    for key in before:
        if key[0] in ("r1.mp4", "r2.mp4", "l2.mp4"):
            assert after[key] == before[key]
    assert {name for name, _ in after} == {"r1.mp4", "r2.mp4", "r3.mp4", "l2.mp4", "d1.mp4"}
    tce.index(footage, db=tmp_path / "fresh", every=5, **NET)
    fresh = content(tmp_path / "fresh")
    assert after.keys() == fresh.keys()
    for key, row in fresh.items():
        np.testing.assert_allclose(row["vector"], after[key]["vector"], atol=1e-5)
        assert row["thumbnail"] == after[key]["thumbnail"]


def test_other_footage_stays_and_labels_follow_lists(footage: Path, tmp_path: Path) -> None:
    db = tmp_path / "db"
    tce.index(footage / "right", db=db, every=5, **NET)
    result = tce.index(footage / "left", db=db, **NET)
    assert result.figures["videos"] == 4 and not result.figures["removed"]
    table = tmp_path / "labels.csv"
    table.write_text("video,label\nl1.mp4,leftward\nl2.mp4,back\n")
    result = tce.index(footage / "left", db=db, lists=str(table), **NET)
    assert result.figures["relabelled"] == 2 and result.figures["embedded"] == 0
    rows = content(db)
    assert rows["l1.mp4", 0]["label"] == "leftward" and rows["l2.mp4", 5]["label"] == "back"
    assert tce.index(footage / "left", db=db, lists=str(table), **NET).figures["relabelled"] == 0


def test_bad_videos_are_named_and_skipped(
    footage: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (footage / "left" / "bad.mp4").write_bytes(b"no video")
    arguments = [str(footage), "--db", str(tmp_path / "db"), "--every", "5"]
    arguments += ["--ckpt", "random", "--model", NET["model"], "--image-size", "32", "--device", "cpu"]
    assert main(["index", *arguments]) == 0
    out, err = capfd.readouterr()
    assert "skipped 1" in out and "bad.mp4" in out and "bad.mp4; expected a video" in caplog.text
    assert "Traceback" not in err
    only = tmp_path / "only"
    only.mkdir()
    (only / "bad.mp4").write_bytes(b"no video")
    assert main(["index", str(only), "--db", str(tmp_path / "db2"), *arguments[3:]]) == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("tce: none of 1 videos could be read")


def test_a_collection_gives_what_its_videos_give(footage: Path, tmp_path: Path) -> None:
    tce.pack(footage, out=tmp_path / "c", workers=1, quality=100)
    tce.index(tmp_path / "c", db=tmp_path / "packed", every=5, **NET)
    tce.index(footage, db=tmp_path / "db", every=5, **NET)
    packed, plain = content(tmp_path / "packed"), content(tmp_path / "db")
    assert len(packed) == len(plain) == 15
    for (name, frame), row in plain.items():
        other = packed[Path(name).stem, frame]
        assert np.dot(row["vector"], other["vector"]) > 0.999
        assert (other["label"], other["time"]) == (row["label"], pytest.approx(row["time"], abs=1e-6))
    assert tce.index(tmp_path / "c", db=tmp_path / "packed", **NET).figures["unchanged"] == 5


def test_one_table_a_checkpoint(footage: Path, tmp_path: Path) -> None:
    db = tmp_path / "db"
    path = save_model(
        tmp_path / "run", build_encoder("resnet18", embedding_size=8, head="linear", image_size=32, seed=3)
    )
    tce.index(footage / "right", db=db, every=5, **NET)
    tce.index(footage / "right", db=db, every=5, ckpt=str(path), layer="embedding", device="cpu")
    tce.index(footage / "right", db=db, every=5, ckpt=str(path), layer="features", device="cpu")
    found = list_indexes(str(db))
    assert len(found) == 3 and {one.size for one in found} == {8, 512}
    names = [one.name for one in found if one.network["ckpt"] == str(path)]
    assert sorted(names) == [f"{checkpoint_hash(path)[:16]}_{layer}" for layer in ("embedding", "features")]
    with pytest.raises(OptionError, match=r"--every; expected 5"):
        tce.index(footage / "right", db=db, every=2, **NET)


def test_centered_index_equals_a_fresh_one_after_changes(footage: Path, tmp_path: Path) -> None:
    """Means of groups follow the footage: the vectors are those of the definition."""
    db = tmp_path / "db"
    tce.index(footage, db=db, every=3, center=r"/(\w)\d$", **NET)
    blobs.write(footage / "right" / "r3.mp4", "right", colour=(90, 200, 30))
    (footage / "left" / "l1.mp4").unlink()
    tce.index(footage, db=db, **NET)
    encoder = build_encoder(NET["model"], head="none", image_size=32, seed=0)
    for letter, files in (
        ("r", ("right/r1", "right/r2", "right/r3")),
        ("l", ("left/l2",)),
        ("d", ("down/d1",)),
    ):
        raw = {}
        from tce.embedding.embed import embed_videos

        for file in files:
            ((_, found),) = embed_videos(
                [str(footage / f"{file}.mp4")], encoder, device="cpu", every=3, unit=False
            )
            raw[Path(file).name] = found.embeddings
        mean = np.concatenate(list(raw.values())).mean(axis=0)
        for name, vectors in raw.items():
            expected = (vectors - mean) / np.linalg.norm(vectors - mean, axis=1, keepdims=True)
            rows = [row for (video, _), row in sorted(content(db).items()) if video == f"{name}.mp4"]
            np.testing.assert_allclose([row["vector"] for row in rows], expected, atol=2e-4, err_msg=letter)


def test_an_empty_folder_is_refused_and_removes_nothing(footage: Path, tmp_path: Path) -> None:
    """A disk that is not mounted looks like it."""
    db = tmp_path / "db"
    tce.index(footage, db=db, every=5, **NET)
    before = content(db)
    shutil.rmtree(footage)
    footage.mkdir()
    with pytest.raises(TceError):
        tce.index(footage, db=db, **NET)
    assert content(db) == before


def test_a_folder_above_removes_what_a_folder_below_indexed(footage: Path, tmp_path: Path) -> None:
    db = tmp_path / "db"
    tce.index(footage / "left", db=db, every=5, **NET)
    (footage / "left" / "l1.mp4").unlink()
    result = tce.index(footage, db=db, **NET)
    assert [Path(name).name for name in result.figures["removed"]] == ["l1.mp4"]
    assert result.figures["videos"] == 4 and result.figures["unchanged"] == 1


def test_interrupted_keeps_what_is_finished(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tce.retrieval.indexing as indexing

    real = indexing.embed_videos

    def stopped(*arguments: object, **keywords: object):
        for count, outcome in enumerate(real(*arguments, **keywords)):  # type: ignore[arg-type]
            if count == 2:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(indexing, "embed_videos", stopped)
    with pytest.raises(KeyboardInterrupt, match="2 of 5 videos are indexed; the same command resumes"):
        tce.index(footage, db=tmp_path / "db", every=5, **NET)
    monkeypatch.undo()
    assert len(content(tmp_path / "db")) == 6
    result = tce.index(footage, db=tmp_path / "db", **NET)
    assert result.figures["embedded"] == 3 and len(content(tmp_path / "db")) == 15


PROGRAM = """
import sys
sys.path[:0] = {path!r}
import tce, tce.retrieval.index_writer as table
table.COMMIT_SECONDS = 0.0
import torch
torch.set_num_threads(1)
tce.index({footage!r}, db={db!r}, every=5, **{net!r})
"""


def test_killed_and_continued_equals_uninterrupted(footage: Path, tmp_path: Path) -> None:
    """SIGKILL after some commits, three times; the same command then gives what one run gives."""
    for number in range(6):
        blobs.write(footage / "more" / f"m{number}.mp4", ("right", "left", "down")[number % 3])
    tce.index(footage, db=tmp_path / "whole", every=5, **NET)
    db, rng, kills = tmp_path / "killed", random.Random(0), 0
    program = PROGRAM.format(path=sys.path, footage=str(footage), db=str(db), net=NET)

    def commits() -> int:
        folders = list(db.glob("*.lance/_versions")) if db.is_dir() else []
        return sum(len(os.listdir(folder)) for folder in folders)

    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
        wanted = commits() + rng.randint(1, 4)
        while process.poll() is None and commits() < wanted:
            time.sleep(0.001)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL), errors.decode()[-2000:]
    assert kills
    result = tce.index(footage, db=db, **NET)
    assert result.figures["videos"] == 11
    killed, whole = content(db), content(tmp_path / "whole")
    assert killed.keys() == whole.keys()
    for key, row in whole.items():
        np.testing.assert_allclose(killed[key].pop("vector"), row.pop("vector"), atol=1e-5)
        assert killed[key] == row
    assert not (db / LOCK).exists()


def test_two_writers_and_foreign_folders(footage: Path, tmp_path: Path) -> None:
    db = tmp_path / "db"
    tce.index(footage / "down", db=db, every=5, **NET)
    before = content(db)
    with index_lock(db), pytest.raises(TceError, match="one writer at a time"):
        tce.index(footage, db=db, **NET)
    assert content(db) == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(TceError, match="other content"):
        tce.index(footage, db=foreign, **NET)
    assert os.listdir(foreign) == ["thesis.txt"]
    with pytest.raises(OptionError, match="--ckpt"):
        tce.index(footage, db=db)
