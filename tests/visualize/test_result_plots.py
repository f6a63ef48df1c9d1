"""Pictures of results: what they state, and names that hold anything."""

import itertools
import warnings
from itertools import pairwise

import cv2
import numpy as np
import pytest

from tce.visualize import fonts, result_plots
from tce.visualize.contact_sheet import save_sheet
from tce.visualize.fonts import drawable
from tce.visualize.plots import curves_figure, legend_label, literal, one_line, save_curves
from tce.visualize.result_plots import (
    BarPanel,
    LearningCurve,
    comparison_figure,
    comparison_picture,
    confusion_figure,
    confusion_picture,
    learning_picture,
    neighbour_picture,
    time_line,
)

ODD = ["$x_{$", "_hidden", "a\tb\nc", "\x1b[31mred", "bad\udc80byte", "$\\frac$", "50% ^ off", "拳击"]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, still as objects."""
    kept, save = [], result_plots.save
    monkeypatch.setattr(result_plots, "save", lambda figure, path: (kept.append(figure), save(figure, path)))
    return kept


def picture(shade=128):
    return np.full((12, 16, 3), shade, np.uint8)


@pytest.mark.filterwarnings("error::UserWarning")
def test_odd_names_are_drawn_in_every_picture(tmp_path):
    count, title = len(ODD), " ".join(ODD)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a font may lack a letter
        confusion_picture(tmp_path / "confusion.png", np.eye(count, dtype=int), ODD, title)
        panel = BarPanel(title, title, ODD, [0.5] * count, [None] * count, ODD, 0.1, True)
        comparison_picture(tmp_path / "bars.png", [panel])
        sheet = [((picture(), name), [(picture(), name, True)]) for name in ODD]
        neighbour_picture(tmp_path / "neighbours.png", sheet, title)
        shares = np.full((3, count), 1 / count)
        time_line(tmp_path / "line.png", np.arange(3.0), shares, ODD, [(1.0, picture())], title, 2.0, 0.1)
        save_curves(tmp_path / "curves.png", [{"step": 0, "$x_{$": 1.0}, {"step": 1, "$x_{$": 2.0}], title)
    for path in tmp_path.iterdir():
        assert cv2.imread(str(path)).std() > 3, path.name


def test_text_is_literal():
    assert literal("$x_{$") == r"\$x_{\$" and one_line("a\n b\t\x1b") == r"a b \x1b"
    assert legend_label("_name")[0] != "_" and legend_label("_name").endswith("_name")


def test_letters_without_a_font_are_escaped_and_never_boxes(tmp_path, monkeypatch):
    """U+0CA0 to U+0CA2 are Kannada letters; U+2315 is in Matplotlib's STIX fonts, not in DejaVu Sans."""
    monkeypatch.setattr(fonts, "FALLBACKS", ("STIXGeneral",))
    fonts.fonts.cache_clear()
    try:
        assert literal("cafe\u0301 \u0ca0!") == r"café \u0ca0!" and literal("\u2315") == "\u2315"
        assert drawable("\u2315", ["DejaVu Sans"]) == r"\u2315"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Matplotlib warns of each glyph that is missing
            names = ["\u2315 \u0ca0", "\u0ca1", "拳击"]
            confusion_picture(tmp_path / "confusion.png", np.eye(3, dtype=int), names, names[0])
            save_curves(tmp_path / "curves.png", [{"step": 1, "loss": 2.0}], title=names[0])
            save_sheet(tmp_path / "sheet.png", [(name, picture()) for name in names])
        with monkeypatch.context() as alone:
            alone.setattr(fonts, "FALLBACKS", ())
            fonts.fonts.cache_clear()
            assert literal("\u2315") == r"\u2315"
    finally:
        fonts.fonts.cache_clear()


def test_a_confusion_matrix_is_in_percent_and_says_which_side_is_which(figures, tmp_path):
    confusion_picture(tmp_path / "c.png", np.array([[3, 1], [0, 2]]), ["wave", "jump"], "top-1 83%")
    (figure,) = figures
    axes = figure.axes[0]
    assert axes.get_xlabel() == "predicted class" and axes.get_ylabel() == "true class (test clips)"
    assert [text.get_text() for text in axes.get_yticklabels()] == ["wave (4)", "jump (2)"]
    assert sorted(text.get_text() for text in axes.texts) == ["100", "25", "75"]
    assert axes.images[0].get_clim() == (0, 100)


def test_a_hundred_and_one_classes_keep_their_names(figures, tmp_path):
    names = [f"class number {place}" for place in range(101)]
    confusion_picture(tmp_path / "c.png", np.eye(101, dtype=int), names, "")
    (figure,) = figures
    axes = figure.axes[0]
    assert len(axes.get_yticklabels()) == 101
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.get_yticklabels()]
    assert all(above.y0 >= below.y1 - 1 for above, below in pairwise(boxes)), "no two names overlap"


def test_a_value_stands_beside_its_bar_not_at_the_whiskers_end(figures, tmp_path):
    panel = BarPanel("knn", "d", ["a", "b"], [0.25, 0.5], [(0.1, 0.75), None], ["25.0%", "50.0%"], 0.25, True)
    ratio = BarPanel("coherence", "d", ["a"], [0.4], [None], ["0.4"])
    comparison_picture(tmp_path / "c.png", [panel, ratio])
    (figure,) = figures
    shares, other = figure.axes
    assert shares.get_xlim() == (0, 100) and other.get_xlim()[1] < 1, "a ratio is no percentage"
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in shares.texts if text.get_text() in panel.texts]
    assert len(boxes) == 2 and boxes[0].y0 > boxes[1].y1, "no two values overlap"
    assert all(box.x0 > shares.get_window_extent().x1 for box in boxes)
    assert any("chance 25.0%" in text.get_text() for text in shares.texts)


def test_stills_stand_over_their_times(figures, tmp_path):
    stills = [(second, picture()) for second in (1.25, 3.75, 6.25, 8.75)]
    time_line(tmp_path / "l.png", np.arange(10.0), np.ones((10, 1)), ["a"], stills, "", 10.0, 0.5)
    (figure,) = figures
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for (second, _), place in zip(stills, axes.child_axes, strict=True):
        box = place.get_window_extent()
        middle = axes.transData.inverted().transform(((box.x0 + box.x1) / 2, 0))[0]
        assert middle == pytest.approx(second, abs=0.05)
    assert any(line.get_label() == "chance (50.0%)" for line in axes.lines)


def test_accuracy_along_the_number_of_labels_has_its_chance_line(figures, tmp_path):
    lines = [
        LearningCurve("a", [1, 5, 20], [0.3, 0.5, 0.6], [(0.2, 0.4), (0.4, 0.6), None]),
        LearningCurve("b", [1, 5, 20], [0.2, 0.4, 0.61], [None, None, None]),
    ]
    learning_picture(tmp_path / "l.png", lines, 0.25, "title", 7)
    (figure,) = figures
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "5", "20"]
    assert any(line.get_ydata()[0] == line.get_ydata()[-1] == 25 for line in axes.lines)
    texts = {text.get_text(): text for text in axes.texts}
    assert set(texts) == {"a 60%", "b 61%", "chance 25.0%"}
    figure.draw_without_rendering()
    below, above = texts["a 60%"].get_window_extent(), texts["b 61%"].get_window_extent()
    assert below.y1 <= above.y0, "names at the lines' ends do not overlap"


def test_accuracy_over_steps_is_shown_beside_chance_the_start_and_the_untrained_network():
    rows = [{"step": 0, "knn": 0.2}, {"step": 5, "loss": 3.0}, {"step": 10, "knn": 0.5, "loss": 2.0}]
    figure = curves_figure(rows, "title", {"knn": 0.1, "loss": 4.0}, {"knn": {"start lite2": 0.44}})
    by_title = {axes.get_title(): axes for axes in figure.axes}
    knn = {line.get_label(): line.get_ydata() for line in by_title["kNN accuracy (%)"].lines}
    assert knn["chance"][0] == pytest.approx(10) and knn["before training"][0] == pytest.approx(20)
    assert knn["start lite2"][0] == pytest.approx(44) and list(knn["knn"]) == [20, 50]
    loss = {line.get_label(): line.get_ydata() for line in by_title["Loss (nats)"].lines}
    assert loss["chance"][0] == 4.0 and "before training" not in loss


@pytest.mark.parametrize("count", [3, 101, 300])
def test_names_of_a_confusion_matrix_do_not_overlap(count):
    names = [f"class {number} of a dataset" for number in range(count)]
    figure = confusion_figure(np.eye(count, dtype=int) * 5, names, "top-1 100%")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    if count > 200:  # named by nobody, and said so on the axes alone
        assert axes.get_ylabel() == "true class"
        return
    for labels, low, high in ((axes.get_yticklabels(), "y0", "y1"), (axes.get_xticklabels(), "x0", "x1")):
        boxes = sorted(
            (getattr(b, low), getattr(b, high)) for b in (one.get_window_extent() for one in labels)
        )
        assert len(boxes) == count
        assert all(after[0] >= before[1] - 1.5 for before, after in itertools.pairwise(boxes))
        assert all(one.get_text().startswith("class") for one in labels)


@pytest.mark.parametrize("count", [3, 300])
def test_bars_of_many_networks_do_not_overlap(count):
    names = [f"network {number}" for number in range(count)]
    values = list(np.linspace(0.1, 0.9, count))
    panel = BarPanel("kNN", "data", names, values, [(0.1, 0.9)] * count, ["50%"] * count, 0.25, True)
    figure = comparison_figure([panel])
    figure.draw_without_rendering()
    boxes = sorted(
        (b.y0, b.y1) for b in (one.get_window_extent() for one in figure.axes[0].get_yticklabels())
    )
    assert len(boxes) == count
    assert all(after[0] >= before[1] for before, after in itertools.pairwise(boxes))
    tight = figure.axes[0].get_tightbbox()
    assert tight.x0 >= figure.bbox.x0 - 1 and tight.y0 >= figure.bbox.y0 - 1


@pytest.mark.parametrize("count", [3, 300])
def test_a_contact_sheet_holds_every_picture_with_its_name_and_label(tmp_path, count):
    shades = [(40 + number % 200, 90, 200 - number % 150) for number in range(count)]
    cells = [
        (f"clip {number}.mp4\nlabel {number % 7}", np.full((90, 160, 3), shade, np.uint8))
        for number, shade in enumerate(shades)
    ]
    assert save_sheet(tmp_path / "s.png", cells) == count
    image = cv2.imread(str(tmp_path / "s.png"))[..., ::-1].astype(int)
    columns = min(6, count)
    assert image.shape[1] == columns * 186 + 10
    row_height = (image.shape[0] - 10) // -(-count // columns)
    for number in {0, count // 2, count - 1}:
        top, left = number // columns * row_height, number % columns * 186 + 10
        cell = image[top : top + row_height, left : left + 176]
        assert (np.abs(cell - shades[number]).max(axis=2) < 3).mean() > 0.4
        text = cell[-34:]
        assert (text.max(axis=2) < 120).sum() > 40  # two lines of text
