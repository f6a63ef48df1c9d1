import subprocess
import sys

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from tce.errors import OptionError, TceError
from tce.visualize.plots import MOST_NAMES, PICTURES, require_picture, save_map, short_names
from tce.visualize.tsne import require_output


@pytest.fixture
def points():
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def has_colour(image: np.ndarray, colour, tolerance: int = 30) -> bool:
    """Whether more than a few pixels have about that colour, (r, g, b) in 0..1."""
    return bool((np.abs(image - np.array(colour[:3]) * 255).max(axis=2) < tolerance).sum() > 10)


def test_one_video_is_coloured_by_time_with_a_bar(points, tmp_path):
    assert save_map(tmp_path / "m.png", points, ["a.mp4"] * 60, np.arange(60) / 15) == "time"
    image = pixels(tmp_path / "m.png")
    for share in (0.0, 0.5, 1.0):
        assert has_colour(image, colormaps["plasma"](share))
    # The circle's halves follow in time: the upper half is the first.
    map_ = image[:, : image.shape[1] * 3 // 4]
    first = np.abs(map_ - np.array(colormaps["plasma"](0.1)[:3]) * 255).max(axis=2) < 30
    last = np.abs(map_ - np.array(colormaps["plasma"](0.9)[:3]) * 255).max(axis=2) < 30
    assert np.nonzero(first)[0].mean() < np.nonzero(last)[0].mean()
    assert save_map(tmp_path / "m.png", points) == "frame"


def test_several_videos_get_a_colour_each(points, tmp_path):
    videos = ["x/a.mp4"] * 20 + ["y/a.mp4"] * 20 + ["c.mp4"] * 20
    assert save_map(tmp_path / "m.png", points, videos, np.zeros(60)) == "video"
    image = pixels(tmp_path / "m.png")
    for colour in ((0.12, 0.47, 0.71), (1, 0.5, 0.05), (0.17, 0.63, 0.17)):
        assert has_colour(image, colour, 60)


def test_too_many_videos_for_a_legend_go_by_folder_or_order(tmp_path):
    count = MOST_NAMES + 1
    points = np.random.default_rng(0).normal(size=(count, 2))
    in_folders = [f"class{number % 3}/{number}.mp4" for number in range(count)]
    assert save_map(tmp_path / "m.png", points, in_folders) == "folder"
    assert save_map(tmp_path / "m.png", points, [f"{number}.mp4" for number in range(count)]) == "order"
    apart = [f"{number}/x.mp4" for number in range(count)]
    assert save_map(tmp_path / "m.png", points, apart) == "order"


@pytest.mark.parametrize("suffix", ["jpg", "pdf", "svg", "webp", "PNG"])
def test_formats(points, tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    save_map(path, points, ["$a_{$.mp4"] * 30 + ["b.mp4"] * 30, title="x")  # no formula
    assert path.stat().st_size > 1000


def test_odd_maps_are_drawn(tmp_path):
    for points in (np.zeros((5, 2)), np.array([[0.0, 0], [1, 0]]), np.array([[0.0, 1e-9], [0, 0]])):
        save_map(tmp_path / "m.png", points, times=np.zeros(len(points)))
    with pytest.raises(TceError, match=r"\.png"):
        save_map(tmp_path / "m.mp4", np.zeros((5, 2)))


def test_a_picture_is_refused_before_the_work(tmp_path, caplog):
    for suffix in PICTURES:
        assert require_picture(tmp_path / "new" / f"a{suffix}") == tmp_path / "new" / f"a{suffix}"
    assert not list((tmp_path / "new").iterdir())
    for name, found in (("a.xyz", r"\.xyz"), ("a", "no suffix"), ("a.csv", r"\.csv")):
        with pytest.raises(
            OptionError, match=rf"^--chart .*{name}; expected a name ending in .*; found {found}"
        ):
            require_picture(tmp_path / name, "--chart")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(TceError, match="a folder"):
        require_picture(str(tmp_path / "folder.png"))
    (tmp_path / "file").touch()
    with pytest.raises(TceError, match="a place that can be written"):
        require_picture(tmp_path / "file" / "a.png")

    assert require_output(str(tmp_path / "a.mp4"), film=True) == tmp_path / "a.mp4"
    assert require_output(str(tmp_path / "a.mp4"), film=False) == tmp_path / "a.png"
    assert "without --vid" in caplog.text
    for film in (True, False):
        with pytest.raises(OptionError, match=r"--output .*a\.xyz; expected a name ending in"):
            require_output(str(tmp_path / "a.xyz"), film)


def test_the_check_of_a_picture_is_light():
    code = "import sys, tce.visualize.plots; print(not {'matplotlib', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"True\n"


def test_short_names_are_short_and_distinct():
    assert short_names(["/a/b.mp4", "/c/b.mp4", "/c/d.mp4"]) == ["a/b.mp4", "c/b.mp4", "d.mp4"]
    assert short_names(["b.mp4", "/x/b.mp4"]) == ["b.mp4", "x/b.mp4"]
    long = ["/data/" + "x" * 60 + f"{number}.mp4" for number in range(2)]
    names = short_names(long)
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 36
    middle = [f"{'x' * 40}{number}{'y' * 40}" for number in range(2)]
    assert short_names(middle) == middle  # cut in the middle they would be the same
