"""Writing films and composing their pictures."""

from __future__ import annotations

import tracemalloc

import av
import numpy as np
import pytest

from tce.errors import TceError
from tce.visualize.film import save_film
from tce.visualize.film_scene import Scene


def watch(path) -> tuple[np.ndarray, list[float], object]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        about = (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate)
        frames, times = [], []
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
            times.append(float(frame.pts * stream.time_base))
    return np.stack(frames), times, about


def flat(n: int, height: int = 90, width: int = 120) -> np.ndarray:
    """Grey frames, each brighter than the one before: uint8 [n, H, W, 3]."""
    levels = np.linspace(30, 220, n).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (n, height, width, 3))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "m4v", "gif"])
def test_pictures_and_their_times_come_back(tmp_path, suffix):
    frames, seconds = flat(6), [0, 0.1, 0.2, 0.5, 0.6, 0.7]  # a pause, as in videos of a variable rate
    path = tmp_path / f"f.{suffix}"
    assert save_film(path, zip(seconds, frames), rate=10, expected=6, samples=frames) == 6
    found, times, (codec, pixels, _) = watch(path)
    assert times == pytest.approx(seconds, abs=0.011)
    assert codec == ("gif" if suffix == "gif" else "h264")
    if suffix != "gif":
        assert pixels == "yuv420p"  # what browsers play
    assert found.shape == (6, 90, 120, 3)
    assert np.abs(found.mean(axis=(1, 2, 3)) - frames.mean(axis=(1, 2, 3))).max() < 4


@pytest.mark.parametrize("rate", [15, 29.97, 250])
def test_a_steady_rate_is_kept(tmp_path, rate):
    save_film(tmp_path / "f.mp4", ((n / rate, picture) for n, picture in enumerate(flat(10))), rate)
    _, times, (_, _, found) = watch(tmp_path / "f.mp4")
    assert float(found) == pytest.approx(rate, rel=1e-3)
    assert times[-1] == pytest.approx(9 / rate, abs=1e-3)


def test_a_gif_keeps_the_colours_of_later_pictures(tmp_path):
    pictures = np.zeros((3, 64, 64, 3), np.uint8)
    pictures[0, ..., 0], pictures[1, ..., 1], pictures[2, ..., 2] = 200, 190, 180
    save_film(tmp_path / "f.gif", zip([0, 0.1, 0.2], pictures), 10, samples=list(pictures))
    found, _, _ = watch(tmp_path / "f.gif")
    assert np.abs(found.astype(int) - pictures).mean() < 6


@pytest.mark.parametrize("highest", [720, 320])
@pytest.mark.parametrize(
    "size", [(2, 2), (145, 143), (1080, 1920), (1920, 1080), (40, 1000), (1000, 33)], ids=str
)
def test_any_size_becomes_even_and_keeps_its_aspect(size, highest):
    scene = Scene([size], ["a name"], [None], highest=highest)
    scene.show(0, np.full((*size, 3), 255, np.uint8), 1.25)
    height, width = scene.picture.shape[:2]
    assert height % 2 == width % 2 == 0
    assert min(400, highest) <= scene.side <= highest and height <= highest + 40
    assert width <= scene.side + 1280 + 40
    (cell,) = scene.cells
    assert cell.height / cell.width == pytest.approx(size[0] / size[1], rel=0.15)


@pytest.mark.parametrize("count", [2, 3, 5, 16])
def test_a_grid_lies_beside_the_panel_without_overlaps(count):
    sizes = [(120, 160), (160, 120), (100, 100)] * 6
    scene = Scene(sizes[:count], [f"video {n}" for n in range(count)], ["#ff0000"] * count, "dark")
    seen = np.zeros(scene.picture.shape[:2], int)
    seen[14 : 14 + scene.side, 14 : 14 + scene.side] += 1
    for cell in scene.cells:
        seen[cell.top : cell.top + cell.height + 24, cell.left : cell.left + cell.width] += 1
        assert cell.top >= 0 and cell.top + cell.height + 24 <= scene.picture.shape[0] - 14
        assert cell.left + cell.width <= scene.picture.shape[1]
    assert seen.max() == 1
    assert sum(cell.height * cell.width for cell in scene.cells) > 0.25 * scene.side**2


def test_captions_and_progress_are_drawn_and_changed():
    scene = Scene([(90, 120)], ["a rather long name of a video, longer than its place" * 3], ["#00ff00"])
    cell = scene.cells[0]
    rows = slice(cell.top + cell.height + 3, cell.top + cell.height + 23)
    scene.show(0, flat(1)[0], 1.0)
    before = scene.picture[rows].copy()
    scene.show(0, flat(1)[0], 12.5)
    changed = np.nonzero((scene.picture[rows] != before).any(axis=(0, 2)))[0]
    assert changed.min() > cell.left + cell.width / 2  # the time, at the right; the name stays
    bars = []
    for share in (0, 0.5, 1):
        scene.progress(share)
        row = scene.picture[-10]
        bars.append(int((row.mean(axis=1) < 150).sum()))
    assert bars[0] == 0 and bars[1] == pytest.approx(bars[2] / 2, abs=2)


def test_memory_does_not_grow_with_the_length(tmp_path):
    def peak(n: int) -> int:
        pictures = ((k / 10, np.full((64, 64, 3), k % 255, np.uint8)) for k in range(n))
        tracemalloc.start()
        save_film(tmp_path / "f.mp4", pictures, 10)
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    peak(2)  # imports
    assert peak(200) < 1.2 * peak(20)


def test_a_film_is_whole_or_not_there(tmp_path):
    path = tmp_path / "f.mp4"
    path.write_bytes(b"old")
    with pytest.raises(TceError, match="5 frames; found 4"):
        save_film(path, enumerate(flat(4)), 1, expected=5)

    def broken():
        yield from enumerate(flat(2))
        raise TceError("the footage ends")

    with pytest.raises(TceError, match="footage ends"):
        save_film(path, broken(), 1)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["f.mp4"]
    with pytest.raises(TceError, match=r"\.mp4"):
        save_film(tmp_path / "f.png", enumerate(flat(2)), 1)
