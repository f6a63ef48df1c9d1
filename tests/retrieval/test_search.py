"""Search against brute force; order; filters; what is written; what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import lance
import numpy as np
import pytest

import tce
import tce.retrieval.frame_table as frame_table
import tce.retrieval.indexed_frames as indexed_frames
import tce.retrieval.search_index as search_index
from tce.cli import main
from tce.errors import TceError
from tce.retrieval.frame_table import list_indexes
from tests.helpers import blobs

NET = {
    "ckpt": "random",
    "model": "tinynet:linear_in_pixels",
    "image_size": 32,
    "device": "cpu",
    "engine": "torch",
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = blobs.write_folder(tmp_path_factory.mktemp("blobs") / "videos")
    blobs.write(folder / "stays" / "s_<b>&'1.mp4", "stays")
    return folder


@pytest.fixture(scope="module")
def db(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("index") / "db"
    tce.index(clips, db=place, every=1, **NET)
    return place


def rows_of(db: Path) -> tuple[list[tuple[str, int]], np.ndarray]:
    """Origins and vectors straight from the table."""
    name = list_indexes(str(db))[0].name
    rows = lance.dataset(f"{db}/{name}.lance").to_table().to_pylist()
    rows.sort(key=lambda row: (row["video"], row["frame"]))
    return [(row["video"], row["frame"]) for row in rows], np.array([row["vector"] for row in rows])


def names(result: object) -> list[str]:
    return [Path(moment.video).stem for moment in result]  # type: ignore[attr-defined]


def test_the_best_frame_of_every_moment_is_brute_forces(clips: Path, db: Path) -> None:
    origins, vectors = rows_of(db)
    query = vectors[origins.index((str(clips / "down" / "d1.mp4"), 6))]
    scores = vectors @ query
    result = tce.open_index(db).search(frame="d1.mp4:0.6", top=100)
    assert (result[0].video, result[0].frame) == (str(clips / "down" / "d1.mp4"), 6)
    for moment in result:
        own = scores[origins.index((moment.video, moment.frame))]
        assert moment.score == pytest.approx(own, abs=1e-5)
        inside = [
            score
            for (video, frame), score in zip(origins, scores)
            if video == moment.video and moment.from_ - 1e-6 <= frame / blobs.FPS <= moment.to + 1e-6
        ]
        assert max(inside) == pytest.approx(own, abs=1e-5)
    assert result[0].score == pytest.approx(scores.max(), abs=1e-5)
    for video in {video for video, _ in origins}:  # the best frame of every video is found
        best = max(score for (one, _), score in zip(origins, scores) if one == video)
        assert max(moment.score for moment in result if moment.video == video) == pytest.approx(
            best, abs=1e-5
        )


def test_left_to_right_and_right_to_left_are_told_apart_by_order_only(clips: Path, db: Path) -> None:
    index = tce.open_index(db)
    query = {"video": str(clips / "right" / "r1.mp4"), "exclude_same_video": True, "top": 20}
    ordered = index.search(**query)
    score = {name: found.score for name, found in reversed(list(zip(names(ordered), ordered)))}
    assert names(ordered)[0] == "r2" and score["r2"] - score["l1"] > 0.03
    unordered = index.search(**query, any_order=True)
    score = {name: found.score for name, found in reversed(list(zip(names(unordered), unordered)))}
    assert score["l1"] == pytest.approx(score["r2"], abs=0.005)
    turned = index.search(video=str(clips / "left" / "l1.mp4"), exclude_same_video=True)
    assert names(turned)[0] == "l2"


def test_a_part_of_a_video_finds_itself_with_its_times(clips: Path, db: Path) -> None:
    index = tce.open_index(db)
    found = index.search(video=str(clips / "left" / "l1.mp4"), from_=0.3, to=0.8)[0]
    assert (Path(found.video).name, found.from_, found.to) == (
        "l1.mp4",
        pytest.approx(0.3),
        pytest.approx(0.7),
    )
    assert found.score == pytest.approx(1, abs=1e-4)
    at = index.search(video=str(clips / "left" / "l1.mp4"), at=0.51)[0]
    assert (Path(at.video).name, at.frame) == ("l1.mp4", 5)
    vectors = rows_of(db)[1]
    assert index.search(vectors[:1] * 7)[0].score == pytest.approx(1, abs=1e-5)
    pixels = index.search(blobs.frames("down"), top=1)[0]
    assert Path(pixels.video).name == "d1.mp4" and pixels.score > 0.98


def test_an_image_finds_its_frame(clips: Path, db: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "q.png"), blobs.frames("down")[8][..., ::-1])
    found = tce.open_index(db).search(image=str(tmp_path / "q.png"))[0]
    assert Path(found.video).name == "d1.mp4" and abs(found.frame - 8) <= 1


def test_filters(clips: Path, db: Path) -> None:
    index = tce.open_index(db)
    query = {"frame": "r1.mp4:0.5", "top": 50}
    assert set(names(index.search(**query, label=["left", "down"]))) == {"l1", "l2", "d1"}
    assert set(names(index.search(**query, path="*/left/*"))) == {"l1", "l2"}
    assert set(names(index.search(**query, group="right/r2"))) == {"r2"}
    timed = index.search(**query, from_time=0.3, to_time=0.6)
    assert timed.moments and all(0.3 <= one.from_ <= one.to < 0.6 for one in timed)
    assert "r1" not in names(index.search(**query, exclude_same_video=True))
    with pytest.raises(TceError, match="--label; expected one of down"):
        index.search(**query, label="up")
    with pytest.raises(TceError, match="the filters"):
        index.search(**query, path="*/nothing/*")


def test_the_approximate_index_finds_the_same(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LanceDB builds it above a size; the moments are the flat scan's."""
    for number in range(24):
        blobs.write(
            tmp_path / "v" / f"{number}.mp4", ("right", "left", "down")[number % 3], count=12 + number
        )
    tce.index(tmp_path / "v", db=tmp_path / "db", **NET)
    flat = tce.open_index(tmp_path / "db").search(frame="4.mp4:0.5", top=3)
    monkeypatch.setattr(frame_table, "ANN_ABOVE", 256)
    for module, name, value in (
        (indexed_frames, "FIRST_HITS", 10),
        (indexed_frames, "AROUND", 3),
        (search_index, "HITS_A_MOMENT", 10),
    ):
        monkeypatch.setattr(module, name, value)
    assert "approximate" in tce.index(tmp_path / "v", db=tmp_path / "db", **NET).figures["search"]
    index = tce.open_index(tmp_path / "db")
    assert index.frames.has_ann
    asked = []
    monkeypatch.setattr(type(index.frames), "scan", lambda *_: asked.append("scan"))
    found = index.search(frame="4.mp4:0.5", top=3)
    assert not asked
    assert [moment.video for moment in found] == [moment.video for moment in flat]
    np.testing.assert_allclose([m.score for m in found], [m.score for m in flat], atol=1e-5)


def test_outputs(clips: Path, db: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = {name: str(tmp_path / f"found.{name}") for name in ("csv", "png", "html")}
    arguments = ["search", "--db", str(db), "--frame", "s_<b>&'1.mp4:0.1", "--top", "4", "--json"]
    arguments += ["--csv", paths["csv"], "--sheet", paths["png"], "--page", paths["html"]]
    assert main(arguments) == 0
    moments = json.loads(capfd.readouterr().out)["moments"]
    assert len(moments) == 4 and moments[0]["video"].endswith("s_<b>&'1.mp4")
    frame = tce.open_index(db).search(frame="s_<b>&'1.mp4:0.1", top=4).to_dataframe()
    lines = Path(paths["csv"]).read_text().splitlines()
    assert lines[0].split(",") == list(frame.columns) and len(lines) == 5
    assert frame["score"].tolist() == pytest.approx([moment["score"] for moment in moments])
    assert cv2.imread(paths["png"]).shape[1] > 600
    assert "<img" in tce.open_index(db).search(frame="d1.mp4:0")._repr_html_()


def test_page_plays_from_the_disk_and_runs_nothing_else(clips: Path, db: Path, tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    tce.search(db=db, frame="s_<b>&'1.mp4:0.1", top=4, page=page)
    text = page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy and "default-src &#x27;none&#x27;" in policy[1] and "unsafe" not in policy[1]
    assert "<b>" not in text and "s_&lt;b&gt;&amp;" in text and "http" not in text.replace("http-equiv", "")
    source = re.search(r'<video src="([^"#]*)#t=0\.000,', text)
    assert source and not source[1].startswith("/")
    from html import unescape
    from urllib.parse import unquote

    assert (page.parent / unquote(unescape(source[1]))).resolve().is_file()


def refused(message: str, **keywords: object) -> None:
    with pytest.raises(TceError) as caught:
        tce.search(**keywords)
    assert "\n" not in str(caught.value) and re.search(message, str(caught.value)), str(caught.value)


def test_what_is_refused(clips: Path, db: Path, tmp_path: Path) -> None:
    refused("nothing there", db=tmp_path / "none", frame="d1.mp4:0")
    refused("the query; expected one of", db=db)
    refused("one of --video, --image", db=db, video="a.mp4", image="b.png")
    refused("--frame nothing.mp4:0", db=db, frame="nothing.mp4:0")
    refused("VIDEO:SECONDS", db=db, frame="d1.mp4")
    refused("nothing there", db=db, video=tmp_path / "none.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    refused("bad.mp4", db=db, video=tmp_path / "bad.mp4")
    (tmp_path / "bad.png").write_bytes(b"no image")
    refused("bad.png", db=db, image=tmp_path / "bad.png")
    refused("frames between", db=db, video=clips / "down" / "d1.mp4", from_=50, to=60)
    refused("a frame at 50 s", db=db, video=clips / "down" / "d1.mp4", at=50)
    refused("--to; expected more than --from", db=db, video=clips / "down" / "d1.mp4", from_=5, to=2)
    long = blobs.write(tmp_path / "long.mp4", "down", count=90)
    refused("no longer than twice the longest", db=db, video=long)
    refused("--ckpt lite2", db=db, ckpt="lite2", frame="d1.mp4:0")


def test_damaged_and_empty_indexes(clips: Path, tmp_path: Path) -> None:
    tce.index(clips / "down", db=tmp_path / "db", **NET)
    (data,) = [path for path in (tmp_path / "db").glob("*/data/*") if "_videos" not in str(path)]
    good = data.read_bytes()
    data.write_bytes(good[: len(good) // 3])
    refused("damaged", db=tmp_path / "db", frame="d1.mp4:0")
    data.unlink()
    refused("damaged", db=tmp_path / "db", frame="d1.mp4:0")
    with pytest.raises(TceError, match="damaged"):
        tce.index(clips / "down", db=tmp_path / "db", **NET)
    data.write_bytes(good)
    assert tce.search(db=tmp_path / "db", frame="d1.mp4:0").moments
    (clips / "down" / "d1.mp4").rename(tmp_path / "moved.mp4")
    try:
        blobs.write(clips / "down" / "d2.mp4", "down")
        (clips / "down" / "d2.mp4").write_bytes(b"no video")
        with pytest.raises(TceError, match="none of 1 videos"):
            tce.index(clips / "down", db=tmp_path / "db", **NET)
        refused("index .*; expected frames; found none", db=tmp_path / "db", frame="d1.mp4:0")
    finally:
        (tmp_path / "moved.mp4").rename(clips / "down" / "d1.mp4")
        (clips / "down" / "d2.mp4").unlink()


def test_index_of_changed_weights(clips: Path, tmp_path: Path) -> None:
    from tce.model.checkpoint import save_model
    from tce.model.encoder import build_encoder

    path = save_model(tmp_path / "run", build_encoder("resnet18", head="none", image_size=32, seed=1))
    tce.index(clips / "down", db=tmp_path / "db", every=4, ckpt=str(path), device="cpu", engine="torch")
    found = tce.search(db=tmp_path / "db", video=clips / "down" / "d1.mp4", device="cpu")
    assert found[0].score == pytest.approx(1, abs=1e-3)
    save_model(tmp_path / "run", build_encoder("resnet18", head="none", image_size=32, seed=2))
    refused("changed since", db=tmp_path / "db", video=clips / "down" / "d1.mp4", device="cpu")


def test_centered_queries(clips: Path, tmp_path: Path) -> None:
    """A query of an indexed video is centered as its group; a frame of an unknown group has no mean."""
    tce.index(clips, db=tmp_path / "db", center="folder", **NET)
    index = tce.open_index(tmp_path / "db")
    found = index.search(video=str(clips / "left" / "l2.mp4"), from_=0.2, to=0.7)[0]
    assert (Path(found.video).name, found.score) == ("l2.mp4", pytest.approx(1, abs=1e-3))
    cv2.imwrite(str(tmp_path / "q.png"), blobs.frames("down")[8][..., ::-1])
    with pytest.raises(TceError, match="--center folder"):
        index.search(image=str(tmp_path / "q.png"))
