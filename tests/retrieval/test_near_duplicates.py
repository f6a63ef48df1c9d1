"""Planted copies of every kind are found with their spans; other takes of the same scene are not."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import tce
from tce.cli import main
from tce.errors import OptionError, TceError
from tce.retrieval.compared_videos import even_rows
from tce.retrieval.pixel_match import match_pixels, small_pictures
from tce.video.synthetic import write_video

NET = {"ckpt": "random", "model": "tinynet:linear_in_pixels", "image_size": 32, "device": "cpu"}
FPS, SIZE = 10, 64


def scene(take: int, count: int = 30) -> np.ndarray:
    """A textured room, the same for all takes, in which a square goes its own way."""
    room = np.random.default_rng(0).integers(60, 200, (8, 8, 3)).astype(np.uint8)
    room = cv2.resize(room, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(100 + take)
    turns = np.linspace(0, 1, count)[:, None] * rng.uniform(3, 9, 2) + rng.uniform(0, 6, 2)
    place = np.rint((SIZE - 16) * (0.5 + 0.5 * np.sin(turns))).astype(int)
    images = np.repeat(room[None], count, axis=0)
    for image, (top, left) in zip(images, place.tolist()):
        image[top : top + 16, left : left + 16] = (230, 40, 40)
    return images


def copies(frames: np.ndarray) -> dict[str, tuple[np.ndarray, int]]:
    resized = np.stack([cv2.resize(one, (48, 48), interpolation=cv2.INTER_AREA) for one in frames])
    return {
        "resized": (resized, FPS),
        "cropped": (np.ascontiguousarray(frames[:, 2:62, 4:]), FPS),
        "letterboxed": (np.pad(frames, ((0, 0), (10, 10), (0, 0), (0, 0))), FPS),
        "shortened": (frames[8:24], FPS),
        "slower": (frames[::2], FPS // 2),
    }


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for take in range(7):
        write_video(folder / f"take{take}.mp4", scene(take), FPS)
    for number, (kind, (frames, fps)) in enumerate(copies(scene(0)).items()):
        frames = copies(scene(number))[kind][0]
        write_video(folder / f"copy{number}_{kind}.mp4", frames, fps)
    write_video(folder / "copy5_mirrored.mp4", np.ascontiguousarray(scene(5)[:, :, ::-1]), FPS)
    return folder


@pytest.fixture(scope="module")
def db(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("index") / "db"
    tce.index(videos, db=place, fps=5, **NET)
    return place


def pairs(result: object) -> set[tuple[str, str]]:
    return {
        tuple(sorted((Path(pair.video.video).stem, Path(pair.other.video).stem)))  # type: ignore[misc]
        for pair in result  # type: ignore[attr-defined]
    }


def test_every_kind_is_found_and_nothing_else(db: Path) -> None:
    planted = {(f"copy{n}_{kind}", f"take{n}") for n, kind in enumerate(copies(scene(0)))}
    assert pairs(tce.near_duplicates(str(db), threshold=0.85)) == planted
    found = tce.near_duplicates(str(db), mirror=True, threshold=0.85)
    assert pairs(found) == planted | {("copy5_mirrored", "take5")}
    assert [pair.mirrored for pair in found if "copy5" in pair.video.video + pair.other.video] == [True]
    assert sorted({pair.group for pair in found}) == [1, 2, 3, 4, 5, 6]


def test_spans_lie_where_the_copy_was_cut(db: Path) -> None:
    (pair,) = [
        pair for pair in tce.near_duplicates(str(db)) if "shortened" in pair.video.video + pair.other.video
    ]
    spans = {Path(pair.video.video).stem: (pair.from_, pair.to)}
    spans[Path(pair.other.video).stem] = (pair.other_from, pair.other_to)
    assert spans["copy3_shortened"] == pytest.approx((0.0, 1.4), abs=0.21)
    assert spans["take3"] == pytest.approx((0.8, 2.2), abs=0.21)


def test_outputs_and_the_shell(
    videos: Path, db: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = {suffix: str(tmp_path / f"found.{suffix}") for suffix in ("csv", "png", "html")}
    arguments = ["near-duplicates", str(db), "--json", "--csv", names["csv"], "--sheet", names["png"]]
    assert main([*arguments, "--page", names["html"]]) == 0
    figures = json.loads(capfd.readouterr().out)
    rows = list(csv.DictReader(Path(names["csv"]).read_text().splitlines()))
    assert len(rows) == len(figures["pairs"]) >= 5
    assert {row["video"] for row in rows} <= {str(path) for path in videos.iterdir()}
    page = Path(names["html"]).read_text()
    assert page.count("<video ") == 2 * len(rows) and "take3.mp4" in page and "://" not in page
    assert cv2.imread(names["png"]).shape[1] > 1000


def test_leaks_across_lists_and_against(videos: Path, tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    lines = [f"{path.name},{'train' if 'take' in path.name else 'test'}" for path in videos.iterdir()]
    table.write_text("\n".join(["video,split", *lines]) + "\n")
    kept = str(tmp_path / "kept")
    found = tce.near_duplicates(videos, lists=str(table), db=kept, fps=5, **NET)
    assert len(pairs(found)) >= 4 and all({p.side, p.other_side} == {"train", "test"} for p in found)
    assert "leaks between splits" in found.text
    (tmp_path / "other").mkdir()
    write_video(tmp_path / "other" / "again.mp4", scene(6), FPS)
    found = tce.near_duplicates(str(videos / "take6.mp4"), against=str(tmp_path / "other"), **NET)
    assert pairs(found) == {("again", "take6")}


def test_what_is_refused(db: Path, videos: Path, tmp_path: Path) -> None:
    with pytest.raises(TceError, match=r"--against .*expected a database"):
        tce.near_duplicates(str(db), against=str(videos))
    tce.index(videos / "take0.mp4", db=tmp_path / "net", fps=5, **(NET | {"model": "resnet18"}))
    with pytest.raises(TceError, match="an index of the same network"):
        tce.near_duplicates(str(db), against=str(tmp_path / "net"))
    with pytest.raises(OptionError, match="--against and --lists"):
        tce.near_duplicates(str(db), against="x", lists="y")
    with pytest.raises(OptionError, match="--threshold"):
        tce.near_duplicates(str(db), threshold=2.0)


def test_bars_are_cut_off_and_still_pictures_match() -> None:
    frames = list(scene(1, 4))
    barred = [np.pad(one, ((12, 12), (0, 0), (0, 0))) for one in frames]
    plain, cut = small_pictures(frames), small_pictures(barred)
    assert np.corrcoef(plain.ravel(), cut.ravel())[0, 1] > 0.98
    still = np.repeat(plain[:1], 6, axis=0)
    match = match_pixels(still, still[:3])
    assert match is not None and match.score > 0.999
    assert small_pictures([np.zeros((20, 20, 3), np.uint8)]).shape == (1, 32, 32)


def test_even_rows_are_the_nearest_in_time() -> None:
    time = np.array([0.0, 0.2, 0.4, 0.6])
    expected = [int(np.argmin(np.abs(time - t))) for t in np.arange(0, 0.65, 0.1) + 1e-9]
    assert even_rows(time + 1e-12, 0.1).tolist() == pytest.approx(expected, abs=1)
    assert even_rows(np.array([3.0]), 0.1).tolist() == [0]
    assert even_rows(time, 0.2).tolist() == [0, 1, 2, 3]
