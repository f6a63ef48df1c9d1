"""Alignment against a slow oracle; the command's pictures and films."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import tce
from tce.cli import main
from tce.errors import OptionError, TceError
from tce.model.checkpoint import save_model
from tce.model.encoder import build_encoder
from tce.visualize import heat as heat_command
from tce.visualize.alignment import align, partner_frames
from tce.visualize.heat_plot import heat_figure
from tests.helpers import hard_videos


def slow_cost(similarity: np.ndarray) -> float:
    """The least summed cost by the textbook's recursion, cell by cell."""
    n, m = similarity.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0
    for row in range(n):
        for column in range(m):
            least = min(total[row, column], total[row, column + 1], total[row + 1, column])
            total[row + 1, column + 1] = least + 1 - similarity[row, column]
    return float(total[n, m])


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (7, 1), (12, 12), (5, 17), (20, 9)], ids=str)
def test_the_path_is_the_cheapest_one(shape: tuple[int, int]) -> None:
    similarity = np.random.default_rng(sum(shape)).random(shape)
    path = align(similarity)
    assert path[0].tolist() == [0, 0] and path[-1].tolist() == [shape[0] - 1, shape[1] - 1]
    steps = np.diff(path, axis=0)
    assert set(map(tuple, steps.tolist())) <= {(0, 1), (1, 0), (1, 1)}
    assert (1 - similarity[path[:, 0], path[:, 1]]).sum() == pytest.approx(slow_cost(similarity))


def test_a_warped_video_is_aligned_with_its_original() -> None:
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.normal(size=(40, 16)), axis=0)
    warp = np.sort(np.r_[np.arange(40), rng.integers(0, 40, size=25)])  # some frames stay for several
    first = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    partners = partner_frames(align(first @ first[warp].T), 40)
    assert warp[partners].tolist() == list(range(40))


def test_the_figure_has_axes_in_seconds_and_its_bar_is_named() -> None:
    similarity = np.linspace(0.2, 0.9, 60 * 30).reshape(60, 30)
    shown = [(float(n), np.full((20, 30, 3), 40 * n, np.uint8)) for n in range(3)]
    path = align(similarity)
    figure = heat_figure(
        similarity,
        np.arange(60) / 10,
        np.arange(30) / 15,
        ("a $b_{$", "c"),
        (shown, shown),
        path,
        "title",
        "dark",
    )
    figure.draw_without_rendering()
    axes, bar = figure.axes[0], figure.axes[1]
    assert axes.get_xlim() == pytest.approx((-1 / 30, 29 / 15 + 1 / 30))
    assert axes.get_ylim() == pytest.approx((5.9 + 0.05, -0.05))  # time runs down
    assert axes.get_xlabel() == "c, time (s)" and bar.get_ylabel() == "cosine similarity"
    line = axes.lines[-1]
    assert line.get_xdata().tolist() == (path[:, 1] / 15).tolist()
    boxes = [one.get_window_extent() for one in figure.axes]
    whole = figure.bbox
    for row, box in enumerate(boxes):
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
        for other in boxes[row + 1 :]:
            assert box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Frames that show the numbers 0 to 11, and 100 to 107."""
    folder = tmp_path_factory.mktemp("videos")
    for name, count, first in (("a", 12, 0), ("b", 8, 100)):
        hard_videos.encode(folder / f"{name}.mp4", "libx264", count, first=first, preset="ultrafast")
    return str(folder / "a.mp4"), str(folder / "b.mp4")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("network")
    save_model(folder, build_encoder("resnet18", 16, "linear", seed=1, image_size=32))
    return {"ckpt": str(folder), "engine": "torch", "precision": "float32"}


def test_a_video_and_itself(videos: tuple[str, str], network: dict[str, str], tmp_path: Path) -> None:
    result = tce.heat(videos[0], output=tmp_path / "h.png", save_embeddings=tmp_path / "e.npz", **network)
    (image,) = result.figure.axes[0].images
    matrix = np.asarray(image.get_array())
    vectors = tce.embed(videos[0], tce.load_encoder(network["ckpt"]), precision="float32")
    assert matrix == pytest.approx(vectors @ vectors.T, abs=1e-4)
    assert result.figures["similarity_pairs"] == pytest.approx(matrix.mean(), abs=1e-4)
    assert "similarity_path" not in result.figures and not result.figure.axes[0].lines
    assert Image.open(tmp_path / "h.png").format == "PNG" and (tmp_path / "e.npz").exists()


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_two_videos_play_in_step_along_the_path(
    videos: tuple[str, str], network: dict[str, str], tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"f.{suffix}"
    result = tce.heat(videos, output=out, fps=10, **network)
    expected = partner_frames(result.figures["path"], 12)
    from tce.visualize.film_scene import HIGHEST, Scene
    from tce.visualize.map_film import GIF_HEIGHT

    size = (hard_videos.HEIGHT, hard_videos.WIDTH)
    cells = Scene(
        [size] * 2, ["a", "b"], [None] * 2, highest=GIF_HEIGHT if suffix == "gif" else HIGHEST
    ).cells
    seen = []
    with av.open(str(out)) as container:
        for frame in container.decode(video=0):
            picture = frame.to_ndarray(format="rgb24")
            small = [
                Image.fromarray(picture[one.top : one.top + one.height, one.left : one.left + one.width])
                for one in cells
            ]
            shape = (hard_videos.WIDTH, hard_videos.HEIGHT)
            seen.append([hard_videos.number(np.asarray(one.resize(shape))) for one in small])
    assert seen == [[row, 100 + partner] for row, partner in enumerate(expected.tolist())]
    assert os.listdir(tmp_path) == [out.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{a}", "--output", "{o}/h.xyz"], "a name ending in .png"),
        (["{a}", "--output", "{o}/h.mp4"], "two videos for a film"),
        (["{a}", "{b}", "{a}", "--output", "{o}/h.png"], "one video or two; found 3"),
        (["{a}", "gone.mp4", "--output", "{o}/h.png"], "gone.mp4"),
        (["{a}", "--every", "6", "--output", "{o}/h.png"], "three frames or more; found 2"),
        (["{a}", "--fps", "5", "--output", "{o}/h.png"], "--fps"),
        (["{bad}", "{a}", "--output", "{o}/h.png"], "bad.mp4"),
        (["{a}", "--output", "{o}"], "a name ending in"),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: list[str],
    message: str,
    videos: tuple[str, str],
    network: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, bad = tmp_path / "out", tmp_path / "bad.mp4"
    out.mkdir()
    bad.write_bytes(b"no video")
    given = {"a": videos[0], "b": videos[1], "o": out, "bad": bad}
    line = [argument.format(**given) for argument in arguments]
    assert main(["heat", *line, "--ckpt", network["ckpt"], "--engine", "torch"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("tce: ") and message in error
    assert os.listdir(out) == []


def test_too_many_frames_are_refused(
    videos: tuple[str, str], network: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heat_command, "MOST_CELLS", 100)
    with pytest.raises(TceError, match="raise --every to 2"):
        tce.heat(videos[0], output=tmp_path / "h.png", **network)
    with pytest.raises(OptionError, match="--output"):
        tce.heat(videos[0], output="")
