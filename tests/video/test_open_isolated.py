from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tce.cli import main
from tce.video import open_video as isolated
from tce.video.base import DecoderCrashed, FrameError, VideoMissing, VideoTimeout, VideoTruncated
from tce.video.open_video import StreamJob, estimated_length, open_isolated, open_video
from tce.video.pool import DecodePool
from tests.helpers import untrusted
from tests.helpers.hard_videos import FRAMES, encode, numbers, streamed


@pytest.mark.parametrize("name", ["rotated_90.mp4", "asp.avi", "mixed_sizes", "odd.mkv"])
def test_it_is_the_same_video(name: str, hard: dict[str, Path]) -> None:
    plain = open_video(hard[name])
    with open_isolated(hard[name]) as video:
        for fact in ("kind", "fps", "size", "codec", "rotation", "path"):
            assert getattr(video, fact) == getattr(plain, fact)
        assert len(video) == len(plain)
        np.testing.assert_array_equal(video.times(), plain.times())
        np.testing.assert_array_equal(video.times([3, 1]), plain.times([3, 1]))
        np.testing.assert_array_equal(video.frames([5, 2, 5]), plain.frames([5, 2, 5]))
        np.testing.assert_array_equal(video.frames([1]), plain.frames([1]))
        for one, two in zip(video.stream(5, 1, 10, 2), plain.stream(5, 1, 10, 2), strict=True):
            np.testing.assert_array_equal(one[0], two[0])
            np.testing.assert_array_equal(one[1], two[1])
        for (_, one), (_, two) in zip(video.each(), plain.each(), strict=True):
            np.testing.assert_array_equal(one, two)
        twin = pickle.loads(pickle.dumps(video))
        np.testing.assert_array_equal(twin.frames([0]), plain.frames([0]))
        twin.close()
        with pytest.raises(FrameError, match=f"expected 0 to {len(plain) - 1}"):
            video.frames([len(plain)])


def test_streams_at_the_same_time(hard: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "CHUNK_BYTES", 1)  # a frame a chunk: each stream waits for its reader
    with open_isolated(hard["b_frames.mp4"]) as video:
        streams = [video.stream(1) for _ in range(3)]
        for seen in zip(*streams, strict=True):
            assert numbers(np.concatenate([frames for _, frames in seen])) == [int(seen[0][0][0])] * 3
            assert numbers(video.frames([7])) == [7]
        half = video.stream(1)
        next(half)
        half.close()
        assert numbers(streamed(video)[1]) == list(range(FRAMES))


def test_damage(hard: dict[str, Path], tmp_path: Path) -> None:
    with open_isolated(hard["truncated.mp4"]) as video:
        seen: list[int] = []
        with pytest.raises(VideoTruncated):
            for _, frames in video.stream(batch=4):
                seen += numbers(frames)
        assert len(seen) > 4 and seen == list(range(len(seen)))
    with pytest.raises(VideoMissing):
        open_isolated(tmp_path / "nothing.mp4")


def test_a_hang_or_crash_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "stream_chunks", untrusted.stream_or_act)
    for action, kind in (("hang", VideoTimeout), ("segfault", DecoderCrashed)):
        path = encode(tmp_path / f"{action}.mp4", "libx264", frames=3)
        with open_isolated(path, timeout=1.5) as video:
            with pytest.raises(kind):
                list(video.stream())
            assert numbers(video.frames([2])) == [2]  # another child


def test_info_survives_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(isolated, "_answer", untrusted.answer_or_act)
    path = encode(tmp_path / "segfault.mp4", "libx264", frames=3)
    assert main(["info", str(path)]) == 1
    assert "SIGSEGV" in capsys.readouterr().err


def test_closing_ends_the_child_process(hard: dict[str, Path]) -> None:
    video = open_isolated(hard["b_frames.mp4"])
    assert len(video) == FRAMES
    processes = [child._process.pid for child in video._children()._children]
    video.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert numbers(video.frames([1])) == [1]
    video.close()


def test_estimated_length(hard: dict[str, Path]) -> None:
    for name in ("b_frames.mp4", "asp.avi", "open_gop.mkv", "one_based", "vp9.webm", "no_timestamps.h264"):
        job = StreamJob(str(hard[name]))
        assert abs(estimated_length(job) - len(open_video(hard[name]))) <= 1


def test_arrays_of_any_size_arrive(hard: dict[str, Path]) -> None:
    """Small and very large ones through the pipe, those between through shared memory."""
    with DecodePool(workers=1, timeout=60) as pool:
        sizes = [0, 1, 60_000, 70_000, 20 << 20, (32 << 20) - 1, 32 << 20, (32 << 20) + 1, 40 << 20]
        for size, outcome in pool.map(untrusted.two_arrays, sizes):
            one, two = outcome
            assert len(one) == size // 2 and len(two) == size - size // 2 and two.flags.writeable
            assert not len(two) or ((one[:9] == 3).all() and (one[-9:] == 3).all() and two[0] == two[-1] == 5)
