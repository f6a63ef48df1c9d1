"""Pictures of maps: colours, legends, themes, sizes; read back from the figure and from the file."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from tce.visualize.map_plot import map_figure, point_area, track_numbers, upright
from tce.visualize.plots import save_figure
from tce.visualize.point_colours import PointColours, most_frequent
from tce.visualize.themes import DARK, LIGHT, MOST_ENTRIES, THEMES, rgb


@pytest.fixture
def points():
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return np.stack([2 * np.cos(angle), np.sin(angle)], axis=1)


def categories(names, codes, kind="class") -> PointColours:
    return PointColours(kind, kind, np.asarray(codes), tuple(names))


def legend_texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def pixels(figure, path) -> np.ndarray:
    save_figure(figure, path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def count_colour(image: np.ndarray, colour: str, tolerance: int = 40) -> int:
    return int((np.abs(image - np.array(rgb(colour))).max(axis=2) < tolerance).sum())


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_categories_have_their_colours_on_both_grounds(points, tmp_path, theme):
    colours = categories("abc", np.repeat([0, 1, 2], 20))
    figure = map_figure(points, colours, "title", theme)
    assert legend_texts(figure) == ["a", "b", "c"]
    image = pixels(figure, tmp_path / "m.png")
    look = THEMES[theme]
    for colour in look.palette[:3]:
        assert count_colour(image, colour) > 100
    assert count_colour(image, look.palette[4]) < 50
    assert tuple(image[2, 2]) == rgb(look.ground)


@pytest.mark.parametrize("count", [3, 20, 21, 300])
def test_the_legend_has_at_most_twenty_entries_outside_and_whole(count):
    rng = np.random.default_rng(0)
    codes = np.concatenate([np.arange(count), np.repeat(np.arange(5), 50)])  # the first five are frequent
    names = [f"class {number} with a name of some length" for number in range(count)]
    figure = map_figure(rng.normal(size=(len(codes), 2)), categories(names, codes))
    texts = legend_texts(figure)
    assert len(texts) == min(count, MOST_ENTRIES)
    assert texts[:5] == names[:5]  # whole
    if count > MOST_ENTRIES:
        assert texts[-1] == f"other ({count - MOST_ENTRIES + 1})"
    figure.draw_without_rendering()
    legend, axes = figure.axes[0].get_legend().get_window_extent(), figure.axes[0].get_window_extent()
    assert legend.x0 >= axes.x1
    boxes = [text.get_window_extent() for text in figure.axes[0].get_legend().get_texts()]
    assert all(above.y0 >= below.y1 - 1 for above, below in itertools.pairwise(boxes))
    marks = {
        (tuple(handle.get_facecolor()[0][:3]), handle.get_paths()[0].vertices.shape[0])
        for handle in figure.axes[0].get_legend().legend_handles
    }
    assert len(marks) == len(texts)  # no two of the same colour and shape


def test_the_most_frequent_keep_their_order():
    codes = np.repeat(np.arange(6), [1, 9, 2, 8, 3, 7])
    kept = most_frequent(categories("abcdef", codes), most=4)
    assert kept.names == ("b", "d", "f", "other (3)")
    assert kept.codes.tolist() == np.repeat([3, 0, 3, 1, 3, 2], [1, 9, 2, 8, 3, 7]).tolist()


def test_numbers_have_a_bar_with_their_unit(points, tmp_path):
    colours = PointColours("time", "time in the video (s)", numbers=np.r_[np.arange(59) / 15, np.nan])
    figure = map_figure(points, colours)
    (bar,) = figure.axes[0].child_axes
    assert bar.get_ylabel() == "time in the video (s)"
    assert bar.get_ylim() == pytest.approx((0, 58 / 15))
    from matplotlib import colormaps

    image = pixels(figure, tmp_path / "m.png")
    for share in (0.0, 0.5, 1.0):
        colour = "#" + "".join(f"{round(255 * part):02x}" for part in colormaps["plasma"](share)[:3])
        assert count_colour(image, colour) > 20


def test_the_longer_axis_lies_across_and_distances_are_kept(points):
    turned = upright(points @ np.array([[0.6, 0.8], [-0.8, 0.6]]) + 5)
    assert np.ptp(turned[:, 0]) == pytest.approx(4, abs=0.02)
    assert np.ptp(turned[:, 1]) == pytest.approx(2, abs=0.02)
    figure = map_figure(points, categories("a", np.zeros(60, int)))
    axes = figure.axes[0]
    figure.draw_without_rendering()
    (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
    assert x1 - x0 == pytest.approx(y1 - y0, rel=0.01)


def test_a_thin_line_still_has_a_box_and_few_points_are_large():
    line = np.stack([np.arange(20.0), np.zeros(20)], axis=1)
    figure = map_figure(line, categories("ab", np.repeat([0, 1], 10)), tracks=np.repeat([0, 1], 10))
    width, height = figure.get_size_inches()
    assert 0.6 <= height / width <= 1
    assert len(figure.axes[0].lines) == 2  # frames of a video are joined
    sizes = [point_area(count) for count in (5, 100, 1000, 10_000, 100_000)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 50 and sizes[-1] < 4


def test_the_earlier_map_lies_below_in_grey(points, tmp_path):
    colours = categories("a", np.zeros(3, int))
    figure = map_figure(points[:3], colours, background=points[3:])
    image = pixels(figure, tmp_path / "m.png")
    assert count_colour(image, LIGHT.palette[0]) > 50
    grey = np.ptp(image, axis=2) < 30
    assert (grey & (image.mean(axis=2) > 150) & (image.mean(axis=2) < 240)).sum() > 100


@pytest.mark.parametrize("suffix", ["jpg", "pdf", "svg", "webp", "PNG"])
def test_formats_and_names_that_are_no_formulas(points, tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    colours = categories(["$a_{$.mp4", "_b\t\x1b[0m"], np.repeat([0, 1], 30))
    save_figure(map_figure(points, colours, title="$x_{"), path)
    assert path.stat().st_size > 1000
    assert [text.strip("\u200b") for text in legend_texts(map_figure(points, colours))][1].startswith("_b")


def test_odd_maps_are_drawn(tmp_path):
    for odd in (np.zeros((5, 2)), np.array([[0.0, 0], [1, 0]]), np.array([[0.0, 1e-9], [0, 0]])):
        colours = PointColours("time", "time", numbers=np.zeros(len(odd)))
        save_figure(map_figure(odd, colours), tmp_path / "m.png")
    assert track_numbers(["b", "a", "b"]).tolist() == [0, 1, 0]


# Viénot, Brettel and Mollon (1999), as matrices for linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deuteranopia": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
}


def lab(colour: str, matrix: np.ndarray) -> np.ndarray:
    """CIELAB of a colour as somebody with a deficiency sees it."""
    shares = np.array(rgb(colour)) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    seen = np.clip(matrix @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    f = xyz / [0.9505, 1, 1.089]
    f = np.where(f > 0.008856, np.cbrt(f), 7.787 * f + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", DEFICIENCIES)
@pytest.mark.parametrize("look", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_are_told_apart_with_any_sight(look, sight):
    seen = [lab(colour, DEFICIENCIES[sight]) for colour in look.palette]
    apart = [np.linalg.norm(a - b) for row, a in enumerate(seen) for b in seen[row + 1 :]]
    assert min(apart) > 12  # 2.3 is just noticeable
    ground = lab(look.panel, DEFICIENCIES[sight])
    assert min(abs(one[0] - ground[0]) for one in seen) > 25
