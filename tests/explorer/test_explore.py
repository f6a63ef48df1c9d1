"""The command: footage, collections, embeddings and tables into pages; bad input in one line."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import tce
from tce.cli import main
from tce.data.pack import pack
from tce.embedding.embedding_file import Embeddings, load_embeddings, save_embeddings
from tce.errors import OptionError, TceError
from tce.explorer.explore import relative_address
from tce.explorer.page import PER_ROW, content_policy, script_json, sprite_sheets
from tce.explorer.sampled_clips import choose_clips, choose_interval, sampled_positions
from tce.model.checkpoint import save_model
from tce.model.encoder import build_encoder
from tce.options.pack import PackOptions
from tce.video.open_video import open_video
from tce.video.synthetic import make_clips
from tests.helpers.chromium import page_data


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    return make_clips(folder, 2, 3, 30, 64, 15, groups=3, test_groups=1).videos


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("network")
    save_model(folder, build_encoder("resnet18", 16, "linear", seed=1, image_size=32))
    return str(folder)


def stored(videos: Path, every: int = 5) -> Embeddings:
    names = sorted(str(path) for path in videos.rglob("*.mp4"))
    frame = np.tile(np.arange(0, 30, every), len(names))
    video = np.repeat(np.array(names), 30 // every)
    vectors = np.random.default_rng(0).normal(size=(len(video), 8)).astype(np.float32)
    return Embeddings(vectors, video, frame, frame / 15)


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


def test_frames_and_vectors_are_those_of_the_videos(videos: Path, network: str, tmp_path: Path) -> None:
    page, table = tmp_path / "page.html", tmp_path / "points.parquet"
    result = tce.explore(str(videos), output=page, ckpt=network, fps=5, parquet=table, engine="torch")
    data, points = page_data(page), pq.read_table(table).to_pandas()
    assert result.figures["frames"] == len(points) == 6 * 10
    assert data["frame"].tolist() == [1, 4, 7, 10, 13, 16, 19, 22, 25, 28] * 6
    assert data["time"] == pytest.approx(data["frame"] / 15, abs=1e-4)
    encoder = tce.load_encoder(network)
    first = videos / data["videos"][0]["path"]
    expected = tce.embed(first, encoder, precision="float32")[data["frame"][:10]]
    # Neighbours are those of the embeddings: the nearest of the other videos' frames.
    every = np.concatenate(
        [tce.embed(videos / one["path"], encoder)[data["frame"][:10]] for one in data["videos"]]
    )
    assert every[:10] == pytest.approx(expected, abs=1e-5)
    similar = every[:10] @ every.T
    similar[:, :10] = -2
    assert data["maps"][0]["neighbours"][:10, 0].tolist() == similar.argmax(axis=1).tolist()
    assert points["neighbours"][0]["ids"].tolist() == data["maps"][0]["neighbours"][0].tolist()
    apart = [np.linalg.norm(every[0] - every[row]) for row in points["neighbours"][0]["ids"]]
    assert points["neighbours"][0]["distances"] == pytest.approx(
        apart, rel=0.02
    )  # PCA keeps 16 of 16 dimensions
    # The picture in the table is the frame.
    image = np.asarray(Image.open(io.BytesIO(points["image"][13]["bytes"])).convert("RGB")).astype(int)
    with open_video(videos / points["video"][13]) as video:
        (frame,) = video.frames([int(points["frame"][13])])
    assert np.abs(image - frame).mean() < 6
    assert points["class"].tolist() == [Path(name).parts[0] for name in points["video"]]
    assert data["videos"][0]["source"] == os.path.relpath(first, tmp_path).replace(os.sep, "/")
    assert leftovers(tmp_path) == []


def test_the_same_seed_gives_the_same_page(videos: Path, tmp_path: Path) -> None:
    save_embeddings(tmp_path / "e.npz", stored(videos))
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        tce.explore(str(tmp_path / "e.npz"), output=tmp_path / f"{name}.html", seed=seed, thumbnail=0)
    a, b, c = ((tmp_path / f"{name}.html").read_text() for name in "abc")
    assert a == b != c


def test_a_collection_gives_the_frames_of_its_videos(videos: Path, network: str, tmp_path: Path) -> None:
    collection = tmp_path / "collection"
    pack(PackOptions(footage=(str(videos),), out=str(collection), workers=1))
    page = tmp_path / "page.html"
    tce.explore(str(collection), output=page, ckpt=network, fps=5, engine="torch", embed_video=False)
    data = page_data(page)
    assert data["frame"].tolist() == [1, 4, 7, 10, 13, 16, 19, 22, 25, 28] * 6
    assert [one["path"] for one in data["videos"]][:1] == ["Bow/v_Bow_g01_c01"]  # as its lists name it
    assert data["videos"][0]["source"].endswith("Bow/v_Bow_g01_c01.mp4")


def test_columns_of_a_table_become_colours(videos: Path, tmp_path: Path) -> None:
    save_embeddings(tmp_path / "e.npz", stored(videos))
    names = sorted(path.name for path in videos.rglob("*.mp4"))
    lines = [f"{name},{'wet' if row % 2 else 'dry'},{row + 0.5}" for row, name in enumerate(names[:5])]
    (tmp_path / "t.csv").write_text("video,weather,height\n" + "\n".join(lines))
    page = tmp_path / "page.html"
    tce.explore(str(tmp_path / "e.npz"), output=page, table=tmp_path / "t.csv", thumbnail=0)
    columns = {one["name"]: one for one in page_data(page)["columns"]}
    assert columns["weather"]["names"] == ["dry", "wet"]
    assert columns["weather"]["values"].tolist() == [0] * 6 + [1] * 6 + [0] * 6 + [1] * 6 + [0] * 6 + [-1] * 6
    (tmp_path / "other.csv").write_text("path,weather\nnobody.mp4,dry\n")
    with pytest.raises(TceError, match=r"none of them, but nobody\.mp4"):
        tce.explore(str(tmp_path / "e.npz"), output=page, table=tmp_path / "other.csv", thumbnail=0)


def test_damaged_videos_are_left_out_and_named(videos: Path, network: str, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, path in enumerate(sorted(videos.rglob("*.mp4"))[:3]):
        (folder / f"{number}.mp4").write_bytes(path.read_bytes())
    (folder / "bad.mp4").write_bytes(b"no video")
    page = tmp_path / "page.html"
    result = tce.explore(str(folder), output=page, ckpt=network, fps=3, engine="torch")
    assert list(result.figures["skipped"]) == ["bad"]
    assert [one["name"] for one in page_data(page)["videos"]] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "case", ["nothing decodes", "two frames", "all equal", "other frames", "other times"]
)
def test_what_gives_no_map_is_one_clear_line(
    case: str, videos: Path, network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = stored(videos)
    footage, expected = tmp_path / "e.npz", ""
    if case == "nothing decodes":
        footage = tmp_path / "clips"
        footage.mkdir()
        (footage / "bad.mp4").write_bytes(b"no video")
        expected = "frames that can be decoded"
    elif case == "two frames":
        found = Embeddings(found.vectors[:2], found.video[:2], found.frame[:2], found.time[:2])
        expected = "3 frames or more"
    elif case == "all equal":
        found.vectors[:] = found.vectors[0]
        expected = "equal embeddings"
    elif case == "other frames":
        found.frame = found.frame + 10
        expected = "embeddings of the frames of their videos"
    else:
        found.time = found.time * 2 + 0.1
        expected = "times that differ by"
    if case != "nothing decodes":
        save_embeddings(footage, found)
    out = tmp_path / "out"
    assert main(["explore", str(footage), "--output", str(out / "page.html"), "--ckpt", network]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert expected in error
    assert not out.exists() or os.listdir(out) == []


def test_networks_of_other_frames_are_not_compared(videos: Path, tmp_path: Path) -> None:
    save_embeddings(tmp_path / "a.npz", stored(videos))
    save_embeddings(tmp_path / "b.npz", stored(videos, every=6))
    with pytest.raises(TceError, match=r"--compare .*the same frames"):
        tce.explore(str(tmp_path / "a.npz"), output=tmp_path / "p.html", compare=str(tmp_path / "b.npz"))


def test_outputs_that_cannot_be_written_are_refused_first(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--output.*ending in \.html"):
        tce.explore("videos", output="page.pdf")
    with pytest.raises(OptionError, match="--parquet"):
        tce.explore("videos", output="page.html", parquet="points.csv")
    with pytest.raises(OptionError, match="FOOTAGE"):
        tce.explore("", output="page.html")
    (tmp_path / "page.html").mkdir()
    with pytest.raises(TceError, match="a folder"):
        tce.explore("nothing-there", output=tmp_path / "page.html")
    with pytest.raises(TceError, match="nothing there"):
        tce.explore(str(tmp_path / "gone"), output=tmp_path / "p.html")


def test_how_many_frames_are_taken_is_bounded() -> None:
    assert choose_interval([2.0, 2.0], fps=4, most=100) == 0.25
    assert choose_interval([3600.0], fps=4, most=1200) == 3.0
    for count, fps, interval in ((30, 15, 0.2), (1, 25, 0.25), (100, 10, 60), (7, 2, 0.25)):
        taken = sampled_positions(count, fps, interval)
        assert taken[0] >= 0 and taken[-1] < count
        assert len(taken) == -(-count // max(1, round(fps * interval)))
        assert taken[0] <= count - 1 - taken[-1] <= taken[0] + 1 or len(taken) == count  # centred
    assert choose_clips(5, 10) == [0, 1, 2, 3, 4]
    assert len(choose_clips(1000, 10)) == 10


def test_ten_thousand_frames_take_less_than_twenty_megabytes() -> None:
    # Noise over blurred shapes: harder to compress than most footage.
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, size=(256, 8, 8, 3)).astype(np.uint8)
    pictures = np.stack([np.asarray(Image.fromarray(one).resize((64, 48))) for one in coarse])
    pictures = np.clip(pictures + rng.normal(scale=12, size=pictures.shape), 0, 255).astype(np.uint8)
    sheets = sprite_sheets([pictures] * 39 + [pictures[:16]], [256] * 39 + [16], 64)
    others = 4 * (1 + 2 + 8 + 6)  # position, frame, time, neighbours and columns, as bytes of a frame
    assert (sum(map(len, sheets)) + others * 10_000) * 4 / 3 < 20e6


def test_sprites_hold_each_picture_in_its_cell() -> None:
    first = np.zeros((3, 20, 32, 3), np.uint8) + np.array([10, 120, 240], np.uint8)[:, None, None, None]
    second = np.full((300, 32, 18, 3), 200, np.uint8)
    sheets = [
        np.asarray(Image.open(io.BytesIO(one)).convert("RGB")).astype(int)
        for one in sprite_sheets([first, None, second], [3, 2, 300], 32)
    ]
    assert [sheet.shape for sheet in sheets] == [(512, 512, 3), (32 * 4, 512, 3)]

    def cell(frame: int) -> np.ndarray:
        sheet, place = sheets[frame // PER_ROW**2], frame % PER_ROW**2
        top, left = place // PER_ROW * 32, place % PER_ROW * 32
        return sheet[top : top + 32, left : left + 32]

    for frame, grey in ((0, 10), (1, 120), (2, 240)):
        assert cell(frame)[:20].mean() == pytest.approx(grey, abs=3)
    assert cell(3).mean() < 8 and cell(304)[:, :18].mean() == pytest.approx(200, abs=3)
    assert sprite_sheets([None], [5], 32) == []


def test_data_cannot_end_its_element_and_the_policy_names_no_host() -> None:
    text = script_json({"name": "</script><!-- & \u2028 \ud800"})
    assert "<" not in text and "&" not in text and text.isascii()
    assert json.loads(text)["name"].startswith("</script><!-- & \u2028")
    policy = content_policy()
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy and "*" not in policy and "unsafe" not in policy and "'self'" not in policy


def test_addresses_of_videos_are_relative_and_escaped(tmp_path: Path) -> None:
    page = tmp_path / "out" / "page.html"
    page.parent.mkdir()
    name = tmp_path / "a b#1?<x>%.mp4"
    assert relative_address(str(name), page) == "../a%20b%231%3F%3Cx%3E%25.mp4"
    assert relative_address(str(tmp_path / "old.avi"), page) is None  # no browser plays it
    assert (
        relative_address(str(page.parent / "javascript:alert(1).mp4"), page)
        == "javascript%3Aalert%281%29.mp4"
    )


def test_embeddings_without_footage_still_give_a_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "plain.npy", rng.normal(size=(40, 5)))
    tce.explore(str(tmp_path / "plain.npy"), output=tmp_path / "p.html")
    data = page_data(tmp_path / "p.html")
    assert data["sprites"]["sheets"] == [] and len(data["frame"]) == 40
    assert data["columns"][0]["name"] == "time"  # one video has one colour
    assert len(load_embeddings(tmp_path / "plain.npy")) == 40


@pytest.mark.parametrize("start", ["start", "time"])
def test_segments_of_a_table_colour_parts_of_clips(videos: Path, tmp_path: Path, start: str) -> None:
    save_embeddings(tmp_path / "e.npz", stored(videos))
    name = sorted(path.name for path in videos.rglob("*.mp4"))[0]
    rows = f"video,{start},cluster\n{name},0.0,sits\n{name},1.0,walks\n"
    (tmp_path / "segments.csv").write_text(rows)
    page = tmp_path / "page.html"
    tce.explore(str(tmp_path / "e.npz"), output=page, table=tmp_path / "segments.csv", thumbnail=0)
    columns = [one for one in page_data(page)["columns"] if one["name"] == "cluster"]
    assert len(columns) == 1 and columns[0]["names"] == ["sits", "walks"]  # in place of k-means'
    assert columns[0]["values"].tolist() == [0, 0, 0, 1, 1, 1] + [-1] * 30
