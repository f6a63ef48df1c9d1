import numpy as np
import pytest

from tce.adaptation.clip_frames import (
    LONG_HORIZON,
    MOST_PIECES,
    FrameJob,
    FrameSampling,
    read_pieces,
    to_square,
)
from tce.video.base import VideoError
from tce.video.open_video import open_video
from tests.helpers.drifting import write_clip


def test_a_short_clip_gives_frames_spread_evenly():
    (part,), horizon = FrameSampling(8).pieces(32, 30.0)
    np.testing.assert_array_equal(part, [2, 6, 10, 14, 18, 22, 26, 30])
    assert horizon is None
    (part,), _ = FrameSampling(8).pieces(3, 30.0)
    np.testing.assert_array_equal(part, [0, 1, 2])  # none twice


def test_a_long_recording_gives_pieces_whose_neighbours_are_within_the_horizon():
    parts, horizon = FrameSampling(8).pieces(25 * 60, 25.0)
    assert horizon == LONG_HORIZON
    assert [len(part) for part in parts] == [8] * 15 + [5]
    together = np.concatenate(parts)
    assert (np.diff(together) == 12).all()  # half a second
    assert together.min() >= 0 and together.max() < 25 * 60


def test_no_piece_of_a_recording_is_a_frame_alone():
    for count in range(260, 700):
        parts, _ = FrameSampling(4).pieces(count, 25.0)
        assert min(map(len, parts)) > 1


def test_the_work_on_one_recording_is_bounded():
    parts, _ = FrameSampling(8).pieces(25 * 3600 * 10, 25.0)
    assert len(parts) == MOST_PIECES
    assert parts[-1][-1] > 0.99 * 25 * 3600 * 10  # spread over all of it


def test_rate_and_horizon_as_asked_for():
    (part,), horizon = FrameSampling(8, fps=10.0).pieces(60, 30.0)
    np.testing.assert_array_equal(np.diff(part), 3)
    assert (len(part), horizon) == (20, None)
    parts, horizon = FrameSampling(4, horizon=0.2).pieces(60, 30.0)
    assert horizon == 0.2
    assert all((np.diff(part) == 3).all() for part in parts)
    (part,), horizon = FrameSampling(4, horizon=5.0).pieces(60, 30.0)  # longer than the clip: all of it
    assert (len(part), horizon) == (4, None)


def test_time_lapse_footage_has_neighbours_too():
    parts, horizon = FrameSampling(8).pieces(100, 0.2)
    assert horizon == 5.0
    assert all((np.diff(part) == 1).all() for part in parts)


def test_frames_become_squares():
    frame = np.zeros((48, 96, 3), np.uint8)
    frame[:, 48:] = 255
    squashed, cropped = to_square(frame, 24, "squash"), to_square(frame, 24, "center-crop")
    assert squashed.shape == cropped.shape == (24, 24, 3)
    assert squashed[:, :11].max() == 0 and squashed[:, 13:].min() == 255
    assert cropped[:, :11].max() == 0 and cropped[:, 13:].min() == 255
    np.testing.assert_array_equal(to_square(frame, 48, "squash").shape, (48, 48, 3))
    assert to_square(frame[:, :48], 96, "squash").shape == (96, 96, 3)


def test_a_job_reads_the_frames_of_its_part_of_the_clip(tmp_path):
    folder = write_clip(tmp_path / "clip", 0, frames=25)
    job = FrameJob(str(folder), 0.4, 0.8, FrameSampling(5), 48, "squash")  # at 25 frames a second
    (piece,) = read_pieces(job)
    expected = open_video(folder).frames([11, 13, 15, 17, 19])
    np.testing.assert_array_equal(piece.frames, [to_square(frame, 48, "squash") for frame in expected])
    np.testing.assert_allclose(piece.time, np.array([11, 13, 15, 17, 19]) / 25)


def test_bad_footage_is_an_error_of_its_own(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError):
        list(read_pieces(FrameJob(str(tmp_path / "bad.mp4"), None, None, FrameSampling(), 32, "squash")))
