"""The command: videos and embeddings into maps and films, later frames on a map, bad input in one line."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import tce
from tce.cli import main
from tce.embedding.embedding_file import Embeddings, load_embeddings, save_embeddings
from tce.errors import OptionError, TceError
from tce.model.checkpoint import save_model
from tce.model.encoder import build_encoder
from tce.visualize.fitted_map import FittedMap
from tce.visualize.map_film import MapPanel, plan_film, reels_of
from tce.visualize.themes import LIGHT, rgb
from tests.helpers import hard_videos

FRAMES, FPS = 12, 25


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three videos whose frames show their numbers, from 0, 100 and 200 on; the third is shorter."""
    folder = tmp_path_factory.mktemp("videos")
    for clip, count in enumerate((FRAMES, FRAMES, 5)):
        hard_videos.encode(folder / f"{clip}.mp4", "libx264", count, first=100 * clip, preset="ultrafast")
    return [str(folder / f"{clip}.mp4") for clip in range(3)]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("network")
    save_model(folder, build_encoder("resnet18", 16, "linear", seed=1, image_size=32))
    return str(folder)


def stored(videos: list[str], every: int = 1, size: int = 6) -> Embeddings:
    parts = []
    for clip, name in enumerate(videos):
        frame = np.arange(0, 5 if clip == 2 else FRAMES, every)
        vectors = np.random.default_rng(clip).normal(size=(len(frame), size)) + 4 * clip
        parts.append((vectors.astype(np.float32), np.full(len(frame), name), frame, frame / FPS))
    return Embeddings(*(np.concatenate(column) for column in zip(*parts)))


def watch(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [
            (one.to_ndarray(format="rgb24"), float(one.pts * stream.time_base))
            for one in container.decode(video=0)
        ]
    return [frame for frame, _ in found], [time for _, time in found]


def shown_number(picture: np.ndarray, cell: tuple[int, int, int, int]) -> int:
    """The number that a video shows in its place of a film's picture."""
    top, left, height, width = cell
    small = Image.fromarray(picture[top : top + height, left : left + width])
    return hard_videos.number(np.asarray(small.resize((hard_videos.WIDTH, hard_videos.HEIGHT))))


def cells(videos: list[str], theme: str = "light") -> list[tuple[int, int, int, int]]:
    from tce.visualize.film_scene import Scene

    sizes = [(hard_videos.HEIGHT, hard_videos.WIDTH)] * len(videos)
    scene = Scene(sizes, list("abc")[: len(videos)], [None] * len(videos))
    return [(one.top, one.left, one.height, one.width) for one in scene.cells]


@pytest.mark.parametrize("every", [1, 3])
def test_a_film_shows_exactly_the_frames_that_were_embedded(
    videos: list[str], network: str, tmp_path: Path, every: int
) -> None:
    out = tmp_path / "f.mp4"
    options = {"ckpt": network, "every": every, "engine": "torch", "precision": "float32", "iterations": 20}
    result = tce.tsne(output=out, input=videos[0], vid=True, save_embeddings=tmp_path / "e.npz", **options)
    frames, times = watch(out)
    embedded = load_embeddings(tmp_path / "e.npz")
    assert embedded.frame.tolist() == list(range(0, FRAMES, every))
    (cell,) = cells(videos[:1])
    assert [shown_number(frame, cell) for frame in frames] == embedded.frame.tolist()
    assert times == pytest.approx(embedded.time, abs=1e-3)  # its own speed
    assert result.figures["fps"] == pytest.approx(FPS / every)
    assert result.figures["seconds"] == pytest.approx(FRAMES / FPS, abs=0.05)
    # The embeddings are those of the frames that are seen.
    encoder = tce.load_encoder(network)
    assert embedded.vectors == pytest.approx(
        tce.embed(videos[0], encoder, precision="float32")[::every], abs=1e-4
    )


def test_another_rate_shows_the_same_frames_at_another_speed(videos: list[str], tmp_path: Path) -> None:
    save_embeddings(tmp_path / "e.npz", stored(videos[:1]))
    tce.tsne(
        output=tmp_path / "f.mp4",
        embeddings=tmp_path / "e.npz",
        vid=True,
        fps=15,
        theme="dark",
        iterations=20,
    )
    frames, times = watch(tmp_path / "f.mp4")
    assert [shown_number(frame, cells(videos[:1])[0]) for frame in frames] == list(range(FRAMES))
    assert times == pytest.approx(np.arange(FRAMES) / 15, abs=1e-3)


def test_several_videos_play_in_step_in_a_grid(videos: list[str], tmp_path: Path) -> None:
    found = stored(videos)
    save_embeddings(tmp_path / "e.npz", found)
    tce.tsne(output=tmp_path / "f.mp4", embeddings=tmp_path / "e.npz", vid=True, iterations=20)
    frames, _ = watch(tmp_path / "f.mp4")
    places = cells(videos)
    seen = [[shown_number(frame, cell) for cell in places] for frame in frames]
    assert seen == [[n, 100 + n, 200 + min(n, 4)] for n in range(FRAMES)]  # the shortest one waits at its end


def test_videos_of_different_rates_follow_the_quickest_ones_clock() -> None:
    video = np.repeat(["a", "b"], [5, 3])
    time = np.r_[np.arange(5) * 0.1, np.arange(3) * 0.2]
    found = Embeddings(np.zeros((8, 2)), video, np.r_[np.arange(5), np.arange(3)], time)
    plan = plan_film(reels_of(found), None)
    assert plan.places.tolist() == [[0, 0], [1, 0], [2, 1], [3, 1], [4, 2]]
    assert plan.seconds == pytest.approx(np.arange(5) * 0.1) and plan.rate == pytest.approx(10)
    slow = plan_film(reels_of(found), None, most=5)  # as a GIF
    assert slow.places.tolist() == [[0, 0], [2, 1], [4, 2]] and slow.rate == pytest.approx(5)
    assert plan_film(reels_of(found), 30).seconds == pytest.approx(np.arange(5) / 30)


def test_the_moving_point_stands_on_its_frame_with_a_tail_behind_it() -> None:
    line = np.stack([np.arange(10.0), np.zeros(10)], axis=1)
    found = Embeddings(np.zeros((10, 2)), np.full(10, "a"), np.arange(10), np.arange(10) / 10)
    panel = MapPanel(line, reels_of(found), [LIGHT.points], [LIGHT.mark], 300, LIGHT)
    image = np.empty((300, 300, 3), np.uint8)
    panel.draw([6], 0.4, image)
    red = np.abs(image.astype(int) - rgb(LIGHT.mark)).max(axis=2) < 20
    rows, columns = np.nonzero(red)
    x, y = panel.pixels[6]
    disc = np.hypot(rows - y, columns - x) < 6
    assert disc.sum() > 40
    # Between the points: strong beside the current one, weaker further back, nothing before or after.
    redness = [
        int(image[round(y), round((panel.pixels[n, 0] + panel.pixels[n + 1, 0]) / 2), 1]) for n in range(9)
    ]
    assert redness[5] < redness[4] < redness[3] < redness[2] < 250
    assert redness[0] == redness[1] == redness[7] == 255


def test_later_frames_are_placed_on_a_saved_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 12)) * 6
    label = np.arange(120) % 4
    vectors = (centres[label] + rng.normal(size=(120, 12))).astype(np.float32)
    np.save(tmp_path / "old.npy", vectors)
    np.save(tmp_path / "new.npy", (centres[[0, 1, 2, 3]] + 0.3).astype(np.float32))
    path = tmp_path / "map.npz"
    first = tce.tsne(output=tmp_path / "a.png", embeddings=tmp_path / "old.npy", map=path)
    assert first.figures["placed"] is False
    with np.load(path, allow_pickle=False) as arrays:  # no pickled objects
        assert arrays["points"].shape == (120, 2)
    before = path.read_bytes()
    second = tce.tsne(output=tmp_path / "b.png", embeddings=tmp_path / "new.npy", map=path)
    assert second.figures["placed"] is True and path.read_bytes() == before
    fitted = FittedMap.load(path)
    placed = fitted.place(np.load(tmp_path / "new.npy"))
    nearest = np.linalg.norm(fitted.points[None] - placed[:, None], axis=2).argsort(axis=1)[:, :5]
    assert (label[nearest] == np.arange(4)[:, None]).all()
    # A frame of the map itself comes to lie where it was.
    again = fitted.place(vectors[:10])
    apart = np.linalg.norm(again - fitted.points[:10], axis=1)
    assert np.median(apart) < 0.1 * np.ptp(fitted.points, axis=0).max()


def test_classes_come_from_folders_and_lists(tmp_path: Path) -> None:
    names = [str(tmp_path / f"{label}/{label}{n}.mp4") for label in ("run", "sit") for n in range(2)]
    for name in names:
        Path(name).parent.mkdir(exist_ok=True)
        hard_videos.encode(Path(name), "libx264", 4, preset="ultrafast")
    video = np.repeat(names, 4)
    frame = np.tile(np.arange(4), 4)
    vectors = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    save_embeddings(tmp_path / "e.npz", Embeddings(vectors, video, frame, frame / FPS))
    result = tce.tsne(output=tmp_path / "m.png", embeddings=tmp_path / "e.npz")
    assert result.figures["colour"] == "class" and result.figure is not None
    assert "image/png" in result._repr_html_()
    (tmp_path / "l.csv").write_text("path,label,split\nrun/run0.mp4,dog,train\nsit/sit0.mp4,cat,train\n")
    listed = tce.tsne(output=tmp_path / "m.svg", embeddings=tmp_path / "e.npz", lists=tmp_path / "l.csv")
    legend = [text.get_text() for text in listed.figure.axes[0].get_legend().get_texts()]
    assert legend == ["none", "cat", "dog"] or legend == ["cat", "dog", "none"]


def test_embeddings_of_several_files_make_one_map(tmp_path: Path) -> None:
    for name, shift in (("a", 0), ("b", 5)):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(shift).normal(size=(9, 4)) + shift)
    files = (str(tmp_path / "a.npy"), str(tmp_path / "b.npy"))
    result = tce.tsne(output=tmp_path / "m.png", embeddings=files)
    assert (result.figures["frames"], result.figures["videos"], result.figures["colour"]) == (18, 2, "video")


BAD = {
    "one frame": "three frames or more; found one",
    "two frames": "three frames or more; found two",
    "all equal": "9 equal embeddings",
    "not numbers": "NaN or infinity",
    "perplexity": "perplexity",
    "sizes": "6 numbers a frame",
    "no frame decodes": "0.mp4",
    "suffix": "a name ending in .png",
    "film suffix": "a name ending in .mp4",
    "folder": "a folder",
    "other frames": "up to 50; found 12 frames",
    "other times": "times that differ by",
    "plain film": "video, frame and time",
    "map of another size": "embeddings of 6 numbers",
    "no map": "a map that `tce tsne --map` wrote",
    "map of few": "10 frames or more",
    "colour": "--color-by nothing",
    "lists": "l.csv",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(
    case: str, videos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, out = tmp_path / "in", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    found, output, more = stored(videos[:1]), "m.png", []
    file = work / "e.npz"
    if case in ("one frame", "two frames", "map of few"):
        rows = slice({"one frame": 1, "two frames": 2}.get(case, 5))
        found = Embeddings(found.vectors[rows], found.video[rows], found.frame[rows], found.time[rows])
        more = ["--map", str(out / "map.npz")] if case == "map of few" else []
    elif case == "all equal":
        found = Embeddings(np.ones((9, 4), np.float32))
    elif case == "not numbers":
        found.vectors[3] = np.nan
    elif case == "perplexity":
        more = ["--perplexity", "30"]
    elif case == "sizes":
        save_embeddings(work / "b.npz", stored(videos[:1], size=5))
        more = [str(work / "b.npz")]
    elif case == "suffix":
        output = "m.xyz"
    elif case in ("film suffix", "other frames", "other times", "plain film"):
        output, more = "f.png" if case == "film suffix" else "f.mp4", ["--vid"]
        if case == "other frames":
            found.frame[-1] = 50
        elif case == "other times":
            found.time = found.time * 3
        elif case == "plain film":
            found = Embeddings(found.vectors)
    elif case == "folder":
        (out / "m.png").mkdir()
    elif case == "map of another size":
        FittedMap.fit(np.random.default_rng(0).normal(size=(12, 6)), 1.0).save(work / "map.npz")
        found = stored(videos[:1], size=5)
        more = ["--map", str(work / "map.npz")]
    elif case == "no map":
        np.savez(work / "map.npz", embeddings=np.ones((3, 3)))
        more = ["--map", str(work / "map.npz")]
    elif case == "colour":
        more = ["--color-by", "nothing"]
    elif case == "lists":
        (work / "l.csv").write_text("path,label\nnobody.mp4,dog\n")
        more = ["--lists", str(work / "l.csv")]
    line = ["tsne", "--embeddings", str(file), *more, "--output", str(out / output)]
    if case == "no frame decodes":
        (work / "0.mp4").write_bytes(b"no video")
        line = [
            "tsne",
            "--ckpt",
            "random",
            "--model",
            "resnet18",
            "--input",
            str(work),
            "--output",
            str(out / output),
        ]
    save_embeddings(file, found)
    before = sorted(os.listdir(out))
    assert main(line) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("tce: ") and BAD[case] in error
    assert sorted(os.listdir(out)) == before  # nothing unfinished stays


def test_options_that_contradict_each_other_are_refused_first(videos: list[str]) -> None:
    for keywords, flag in (
        ({"embeddings": "e.npz", "input": "a.mp4"}, "--embeddings"),
        ({"input": "a.mp4", "fps": 15}, "--fps"),
        ({"input": "a.mp4", "vid": True, "color_by": "class"}, "--color-by"),
        ({"input": "a.mp4", "map": "m.pkl"}, "--map"),
        ({"embeddings": "e.npz", "save_embeddings": "x.npz"}, "--save-embeddings"),
        ({}, "--input"),
    ):
        with pytest.raises(OptionError, match=flag):
            tce.tsne(output="m.png", **keywords)
    many = Embeddings(np.zeros((17, 2)), np.arange(17).astype(str), np.zeros(17, int), np.zeros(17))
    with pytest.raises(TceError, match="16 videos at most"):
        reels_of(many)
