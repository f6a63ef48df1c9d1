import tracemalloc

import av
import numpy as np
import pytest

from tce.errors import TceError
from tce.visualize.film import FRAMES_PER_SECOND, Map, save_film, side_by_side


def watch(path) -> tuple[np.ndarray, object]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        about = (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames), about


def red_centre(panel: np.ndarray) -> np.ndarray:
    red = (panel[..., 0] > 170) & (panel[..., 1] < 90) & (panel[..., 2] < 90)
    rows, columns = np.nonzero(red)
    return np.array([columns.mean(), rows.mean()])


def flat(n: int, height: int = 90, width: int = 120) -> np.ndarray:
    """Grey frames, each brighter than the one before: uint8 [n, H, W, 3]."""
    levels = np.linspace(30, 220, n).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (n, height, width, 3))


def test_film_shows_map_left_frame_right_and_the_current_point(tmp_path):
    points = np.stack([np.linspace(0, 1, 12), np.linspace(0, 1, 12) ** 2], axis=1)
    assert save_film(tmp_path / "f.mp4", points, flat(12)) == 12
    frames, (codec, pixels, rate) = watch(tmp_path / "f.mp4")
    assert (codec, pixels, rate) == ("h264", "yuv420p", FRAMES_PER_SECOND)
    assert frames.shape == (12, 360, 360 + 480, 3)
    expected = Map(points, 360).pixels
    for row, frame in enumerate(frames):
        np.testing.assert_allclose(red_centre(frame[:, :360]), expected[row], atol=1.5)
        assert np.abs(frame[:, 370:].mean() - flat(12)[row].mean()) < 6
    # Later points lie to the right and higher up.
    assert (np.diff(expected[:, 0]) > 0).all()
    assert (np.diff(expected[:, 1]) < 0).all()


@pytest.mark.parametrize(
    "size", [(2, 2), (145, 143), (1080, 1920), (1920, 1080), (40, 1000), (1000, 33)], ids=str
)
def test_any_size_becomes_even_and_keeps_its_aspect(tmp_path, size):
    points = np.random.default_rng(0).normal(size=(3, 2))
    save_film(tmp_path / "f.mp4", points, flat(3, *size))
    frames, _ = watch(tmp_path / "f.mp4")
    height, width = frames.shape[1:3]
    assert height % 2 == width % 2 == 0
    assert 360 <= height <= 720
    assert width <= height + 1280
    # What is neither map nor background is the frame, of the right shape.
    bright = frames[-1, :, height:].min(axis=2) > 120
    rows, columns = np.nonzero(bright)
    shape = (np.ptp(rows) + 1) / (np.ptp(columns) + 1)
    assert shape == pytest.approx(size[0] / size[1], rel=0.12)


def test_memory_does_not_grow_with_the_length():
    def peak(n: int) -> int:
        points = np.random.default_rng(0).normal(size=(n, 2))
        frames = (np.zeros((90, 120, 3), np.uint8) for _ in range(n))
        tracemalloc.start()
        for _ in side_by_side(points, frames):
            pass
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    assert peak(200) < 1.1 * peak(20)


def test_a_film_is_whole_or_not_there(tmp_path):
    points = np.zeros((5, 2))
    path = tmp_path / "f.mp4"
    path.write_bytes(b"old")
    with pytest.raises(TceError, match="5 frames, one a point; found 4"):
        save_film(path, points, flat(4))

    def broken():
        yield from flat(2)
        raise TceError("the footage ends")

    with pytest.raises(TceError, match="footage ends"):
        save_film(path, points, broken())
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["f.mp4"]
    with pytest.raises(TceError, match=r"\.mp4"):
        save_film(tmp_path / "f.png", points, flat(5))


@pytest.mark.parametrize("suffix", ["mov", "mkv", "m4v"])
def test_other_containers(tmp_path, suffix):
    save_film(tmp_path / f"f.{suffix}", np.eye(2), flat(2))
    assert watch(tmp_path / f"f.{suffix}")[0].shape[0] == 2
