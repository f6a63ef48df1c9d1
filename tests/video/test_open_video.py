from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from tce.video.base import FrameError, VideoMissing, VideoTruncated, VideoUnreadable
from tce.video.open_video import open_video
from tests.helpers.hard_videos import (
    FILES,
    FOLDERS,
    FRAMES,
    HEIGHT,
    WIDTH,
    Hard,
    encode,
    numbers,
    streamed,
)

GOOD = [piece for piece in [*FILES, *FOLDERS] if not piece.error]
BAD = [piece for piece in [*FILES, *FOLDERS] if piece.error == "VideoUnreadable"]


@pytest.mark.parametrize("piece", GOOD, ids=lambda piece: piece.name)
def test_every_frame_in_order_and_at_random(piece: Hard, hard: dict[str, Path]) -> None:
    video = open_video(hard[piece.name])
    indices, frames = streamed(video, batch=7)
    assert frames.dtype == np.uint8 and frames.shape[1:] == (*piece.size, 3)
    assert video.size == piece.size and video.rotation == 90 * piece.turn
    assert list(indices) == list(range(len(video)))
    if piece.shows is not None:
        assert numbers(np.rot90(frames, -piece.turn, (1, 2))) == piece.shows

    other = open_video(hard[piece.name])  # nothing seen yet: its own index, and seeks
    assert len(other) == len(frames)
    order = np.random.default_rng(0).permutation(len(frames))
    assert np.array_equal(other.frames(order), frames[order])
    for one in order[:5]:
        assert np.array_equal(open_video(hard[piece.name]).frames([one])[0], frames[one])
    assert np.array_equal(other.times(), video.times())


@pytest.mark.parametrize("piece", GOOD, ids=lambda piece: piece.name)
def test_ranges_and_steps(piece: Hard, hard: dict[str, Path]) -> None:
    _, frames = streamed(open_video(hard[piece.name]))
    n = len(frames)
    for start, stop, step in [
        (0, n, 3),
        (n // 2, n, 1),
        (n // 3, n - 1, 2),
        (0, n // 2, 1),
        (n - 1, n + 9, 1),
    ]:
        expected = np.arange(n)[start:stop:step]
        got = list(open_video(hard[piece.name]).stream(batch=4, start=start, stop=stop, step=step))
        assert [index for indices, _ in got for index in indices] == list(expected)
        for indices, part in got:
            assert np.array_equal(part, frames[indices])
    assert list(open_video(hard[piece.name]).stream(start=n)) == []


@pytest.mark.parametrize("name", ["rotated_90.mp4", "odd.mkv", "asp.avi", "mixed_sizes", "alpha.mov"])
def test_one_at_a_time(name: str, hard: dict[str, Path]) -> None:
    _, frames = streamed(open_video(hard[name]))
    kept = list(open_video(hard[name]).each())  # all at once: none is overwritten by the next
    assert [index for index, _ in kept] == list(range(len(frames)))
    assert all(np.array_equal(image, frames[index]) and image.flags.c_contiguous for index, image in kept)
    some = list(open_video(hard[name]).each(3, 11, 4))
    assert [index for index, _ in some] == [3, 7] and np.array_equal(some[1][1], frames[7])


@pytest.mark.parametrize("name", ["b_frames.mp4", "interlaced.mpg", "vp9.webm", "asp.avi", "ten_bit.mp4"])
def test_pixels_are_those_of_plain_decoding(name: str, hard: dict[str, Path]) -> None:
    with av.open(str(hard[name])) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(streamed(open_video(hard[name]))[1], plain)


@pytest.mark.parametrize("piece", BAD, ids=lambda piece: piece.name)
def test_what_is_no_video(piece: Hard, hard: dict[str, Path]) -> None:
    video = open_video(hard[piece.name])
    for question in (
        len,
        lambda video: video.size,
        lambda video: list(video.stream()),
        lambda video: video.fps,
    ):
        with pytest.raises(VideoUnreadable) as raised:
            question(video)
        line = str(raised.value)
        assert str(hard[piece.name]) in line and "expected" in line and "found" in line and "\n" not in line


def test_errors_name_the_reason(hard: dict[str, Path]) -> None:
    def reason(name: str) -> str:
        with pytest.raises(VideoUnreadable) as raised:
            len(open_video(hard[name]))
        return raised.value.found

    assert reason("zero_bytes.mp4") == "an empty file"
    assert reason("audio_only.wav") == reason("cover_picture.mp4") == "audio only"
    assert reason("text.ans") == "text"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(VideoMissing, match="nothing there"):
        open_video(tmp_path / "no.mp4")
    path = encode(tmp_path / "gone.mp4", "libx264", frames=2)
    video = open_video(path)
    path.unlink()
    with pytest.raises(VideoMissing):
        len(video)


def test_a_damaged_image_costs_only_itself(hard: dict[str, Path]) -> None:
    video, seen = open_video(hard["damaged_image"]), []
    with pytest.raises(VideoTruncated, match=r"12 frames; found 11 that decode .*005\.jpg"):
        for indices, frames in video.stream(batch=5):
            assert numbers(frames) == list(indices)
            seen += list(indices)
    assert seen == [i for i in range(12) if i != 5]
    with pytest.raises(FrameError, match=r"005\.jpg"):
        video.frames([5])


def test_indices(hard: dict[str, Path]) -> None:
    for name in ("b_frames.mp4", "one_based"):
        video = open_video(hard[name])
        assert numbers(video.frames([5, 5, 2, 11, 5])) == [5, 5, 2, 11, 5]
        assert video.frames([]).shape == (0, HEIGHT, WIDTH, 3)
        assert numbers(video.frames(range(3))) == [0, 1, 2]
        for wrong in (len(video), -1):
            with pytest.raises(FrameError, match=f"expected 0 to {len(video) - 1}; found {wrong}"):
                video.frames([0, wrong])
            with pytest.raises(FrameError):
                video.times([wrong])
        with pytest.raises(FrameError, match="whole frame numbers"):
            video.frames([0.5])  # type: ignore[list-item]


def test_opens_lazily_closes_and_pickles(hard: dict[str, Path]) -> None:
    for name in ("b_frames.mp4", "one_based", "text.mp4"):
        open_video(hard[name])  # reads nothing yet
    for name in ("b_frames.mp4", "one_based"):
        video = open_video(hard[name])
        video.frames([3])
        twin = pickle.loads(pickle.dumps(video))
        assert twin.path == video.path and numbers(twin.frames([3])) == [3]
        with video:
            pass
        assert numbers(video.frames([4])) == [4]


@pytest.mark.parametrize(
    "name", ["with space.mp4", "new\nline.mp4", "ünïcödé 視頻.mp4", "rtsp:a.mp4", "50%d.mp4", "a#b?c.mp4"]
)
def test_odd_names(name: str, tmp_path: Path) -> None:
    plain = encode(tmp_path / "plain.mp4", "libx264", frames=2)
    path = plain.rename(tmp_path / name)
    assert numbers(open_video(path).frames([1, 0])) == [1, 0]


def test_streams_side_by_side_and_in_threads(hard: dict[str, Path]) -> None:
    video = open_video(hard["b_frames.mp4"])
    for (_, one), (_, two) in zip(video.stream(batch=3), video.stream(batch=3)):
        assert np.array_equal(one, two)
    seen: dict[int, list[int]] = {}

    def read(worker: int) -> None:
        seen[worker] = numbers(streamed(open_video(hard["b_frames.mp4"]), batch=5)[1])

    threads = [threading.Thread(target=read, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(seen[worker] == list(range(FRAMES)) for worker in range(4))


def test_import_is_light() -> None:
    modules = "tce.video.open_video, tce.data.read_catalog, tce.data.sampling, tce.video.pool"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_real_clips(real_data: Path) -> None:
    for path in sorted((real_data / "fights" / "videos").rglob("*.mp4"))[:6]:
        with av.open(str(path)) as container:
            plain = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        video = open_video(path)
        assert len(video) == len(plain)
        order = np.random.default_rng(0).permutation(len(plain))[:10]
        assert np.array_equal(video.frames(order), plain[order])
        assert np.array_equal(streamed(open_video(path))[1], plain)
