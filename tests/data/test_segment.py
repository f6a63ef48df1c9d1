from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from tce.data.segment import cut, frame_range
from tce.errors import OptionError, TceError
from tce.video.base import FrameError, VideoUnreadable
from tce.video.open_video import open_video
from tests.helpers.hard_videos import RATE, encode


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of 40, 60 and 50 frames: still pictures with a little noise, the second in slow motion."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (3, 6, 8, 3)).repeat(8, 1).repeat(8, 2)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=RATE)
        stream.width = 64
        stream.height = 48
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        stamp = 0
        for scene, length in enumerate((40, 60, 50)):
            for _ in range(length):
                image = np.clip(pictures[scene] + rng.integers(-4, 5, pictures[scene].shape), 0, 255)
                frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), "rgb24")
                frame.pts, frame.time_base = stamp, Fraction(1, 100)
                output.mux(stream.encode(frame))
                stamp += 8 if scene == 1 else 4
        output.mux(stream.encode())
    return path


def test_scenes_end_where_the_picture_changes_in_true_time(recording: Path) -> None:
    ranges = cut(recording, scenes=True)
    assert np.allclose(ranges, [(0, 1.6), (1.6, 6.4), (6.4, 8.4)])
    with open_video(recording) as video:
        assert [frame_range(video, *piece) for piece in ranges] == [(0, 40), (40, 100), (100, 150)]


def test_pieces_of_a_length(recording: Path) -> None:
    assert np.allclose(cut(recording, 3), [(0, 3), (3, 6), (6, 8.4)])  # 2.4 s are a piece of their own
    assert np.allclose(cut(recording, 2.5), [(0, 2.5), (2.5, 5), (5, 8.4)])  # 0.9 s are not
    assert np.allclose(cut(recording, 100), [(0, 8.4)])
    assert np.allclose(cut(recording), [(0, 8.4)])


def test_pieces_keep_within_scenes(recording: Path) -> None:
    expected = [(0, 1.6), (1.6, 3.6), (3.6, 6.4), (6.4, 8.4)]
    assert np.allclose(
        cut(recording, 2, scenes=True)[:1] + cut(recording, 2, scenes=True)[-1:], [expected[0], expected[3]]
    )
    assert np.allclose(cut(recording, 2, scenes=True), [(0, 1.6), (1.6, 3.6), (3.6, 6.4), (6.4, 8.4)])


@pytest.mark.parametrize(
    "how", [{"clip_seconds": 0.31}, {"clip_seconds": 0.7, "scenes": True}, {"scenes": True}]
)
def test_every_frame_is_in_exactly_one_piece(recording: Path, how: dict) -> None:
    with open_video(recording) as video:
        ranges = [frame_range(video, *piece) for piece in cut(recording, **how)]
        assert ranges[0][0] == 0 and ranges[-1][1] == len(video)
    assert all(before[1] == after[0] for before, after in pairwise(ranges))


def test_frame_range(hard: dict[str, Path]) -> None:
    with open_video(hard["b_frames.mp4"]) as video:  # 24 frames at 25 a second
        assert frame_range(video, None, None) == (0, 24)
        assert frame_range(video, float("nan"), float("nan")) == (0, 24)
        assert frame_range(video, 0.2, 0.4) == (5, 10)
        assert frame_range(video, 0.21, 0.39) == (6, 10)
        assert frame_range(video, 0.2, 99) == (5, 24)
        with pytest.raises(FrameError, match=r"frames between 5 and 6 s; found none; it lasts 0\.96 s"):
            frame_range(video, 5, 6)
        with pytest.raises(FrameError):
            frame_range(video, 0.4, 0.4)
    with open_video(hard["one_frame.mp4"]) as video:
        assert frame_range(video, 0, None) == (0, 1)


def test_a_damaged_recording_is_cut_as_far_as_it_decodes(hard: dict[str, Path]) -> None:
    assert len(cut(hard["truncated.mp4"], scenes=True)) >= 1
    with pytest.raises(VideoUnreadable):
        cut(hard["text.mp4"], 10)


def test_frame_folders_are_cut_too(hard: dict[str, Path]) -> None:
    assert np.allclose(cut(hard["one_based"], 0.2), [(0, 0.2), (0.2, 0.48)])


def test_bad_options(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (0, -1, float("nan")):
        with pytest.raises(OptionError, match="--clip-seconds; expected a length above 0"):
            cut(recording, seconds)
    monkeypatch.setitem(__import__("sys").modules, "scenedetect", None)
    with pytest.raises(
        TceError, match=r"not installed; install the extra: pip install 'tce-video\[scenes\]'"
    ):
        cut(recording, scenes=True)


def test_flashes_and_fades_of_real_length_make_no_scenes_of_a_frame(tmp_path: Path) -> None:
    """Pictures that change with every frame are one scene a second at most, not one a frame."""
    path = encode(tmp_path / "flicker.mp4", "libx264", frames=100)
    ranges = cut(path, scenes=True)
    assert all(end - start > 0.9 for start, end in ranges[:-1])
