from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tce.cli import main
from tce.video.base import FrameError, VideoTruncated, VideoUnreadable
from tce.video.open_video import open_video
from tests.helpers.hard_videos import FRAMES, cut, encode, numbers, packets, readable, streamed


def test_a_stream_of_unknown_codec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after damage to the header, or from a FFmpeg without that decoder."""
    path = encode(tmp_path / "odd.mp4", "libx264", frames=4)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    reason = f"{path}; expected a video that FFmpeg decodes; found a stream of unknown codec"
    for question in (len, lambda video: video.size, lambda video: video.frames([0]), streamed):
        with pytest.raises(VideoUnreadable) as raised:
            question(open_video(path))
        assert str(raised.value) == reason
    assert main(["info", str(path)]) == 1 and capsys.readouterr().err.count(reason) == 1
    assert main(["check", str(path)]) == 0 and reason in capsys.readouterr().out


def test_truncated_file_gives_what_decodes_and_then_says_so(hard: dict[str, Path]) -> None:
    video = open_video(hard["truncated.mp4"])
    seen: list[int] = []
    with pytest.raises(VideoTruncated, match=r"truncated\.mp4; expected \d+ frames; found \d+ that decode"):
        for indices, frames in video.stream(batch=4):
            seen += numbers(frames)
            assert numbers(frames) == list(indices)
    assert 4 < len(seen) < len(video) < FRAMES and seen == list(range(len(seen)))
    assert numbers(video.frames([2, 0])) == [2, 0]
    with pytest.raises(FrameError, match=f"frame {len(video) - 1} of"):
        video.frames([len(video) - 1])


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_file_cut_between_frames_is_noticed_by_its_stated_length(suffix: str, tmp_path: Path) -> None:
    whole = encode(tmp_path / f"whole.{suffix}", "mjpeg", pixels="yuvj420p")
    _, taken = packets(whole)
    assert len(streamed(open_video(whole))[0]) == FRAMES
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole.read_bytes()[: taken[12].pos])
    seen: list[int] = []
    with pytest.raises(VideoTruncated, match="a complete file"):
        for _, frames in open_video(path).stream():
            seen += numbers(frames)
    assert seen == list(range(12))


def test_damage_in_the_middle_costs_only_what_it_hits(tmp_path: Path) -> None:
    path = encode(tmp_path / "damaged.mkv", "mjpeg", pixels="yuvj420p")
    _, taken = packets(path)
    data = bytearray(path.read_bytes())
    place = data.find(bytes(taken[10]))
    data[place : place + taken[10].size] = bytes(taken[10].size)
    path.write_bytes(data)
    video, seen = open_video(path), []
    with pytest.raises(VideoTruncated, match="24 frames; found 23 that decode"):
        for indices, frames in video.stream(batch=5):
            assert numbers(frames) == list(indices)
            seen += list(indices)
    assert seen == [i for i in range(FRAMES) if i != 10]
    assert numbers(video.frames([11, 9])) == [11, 9]
    with pytest.raises(FrameError, match="frame 10 of"):
        video.frames([10])


@pytest.mark.parametrize("share", [0.75, 0.85, 0.9, 0.97])
def test_decoding_threads_lose_nothing_of_a_cut_file(share: float, tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", "libx264", muxer={"movflags": "faststart"}, crf="1", frames=60)
    path = cut(whole, tmp_path / "cut.mp4", share)
    seen = {}
    for threads in (1, 2, 8):
        seen[threads] = []
        for start in (0, 10):
            with pytest.raises(VideoTruncated):
                for indices, frames in open_video(path, threads).stream(start=start):
                    assert numbers(frames) == list(indices)
                    seen[threads] += list(indices)
        last = max(seen[threads])
        assert numbers(open_video(path, threads).frames([last, last - 3])) == [last, last - 3]
    assert seen[1] == seen[2] == seen[8]


@pytest.mark.parametrize(
    ("name", "codec", "index_name"),
    [("a.avi", "mpeg4", b"idx1"), ("a.avi", "mjpeg", b"idx1"), ("a.mkv", "mpeg4", b"\x1c\x53\xbb\x6b")],
)
def test_a_file_that_lacks_only_its_index_is_complete(
    name: str, codec: str, index_name: bytes, tmp_path: Path
) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    whole = encode(tmp_path / f"whole_{name}", codec, pixels=pixels, muxer={})
    data = whole.read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: data.rfind(index_name)])
    assert len(path.read_bytes()) < len(data)
    indices, frames = streamed(open_video(path))
    assert list(indices) == list(range(FRAMES)) and numbers(frames) == list(range(FRAMES))
    _, taken = packets(whole)
    path.write_bytes(data[: taken[-1].pos + taken[-1].size // 2])
    with pytest.raises(VideoTruncated):
        streamed(open_video(path))


def test_a_nut_file_without_index_loses_only_a_packet_that_is_cut(tmp_path: Path) -> None:
    """As a writer to a pipe leaves it; FFmpeg passes the half of a packet on as a whole one."""
    whole = encode(tmp_path / "whole.nut", "ffv1", muxer={"write_index": "0"}, frames=6)
    data = whole.read_bytes()
    indices, frames = streamed(open_video(whole))
    assert list(indices) == numbers(frames) == list(range(6)) == numbers(open_video(whole).frames(range(6)))
    for missing in (1, 17, 100):
        path = tmp_path / f"cut_{missing}.nut"
        path.write_bytes(data[:-missing])
        seen: list[int] = []
        with pytest.raises(VideoTruncated):
            for _, frames in open_video(path).stream():
                seen += numbers(frames)
        assert seen == list(range(5)) and len(open_video(path)) == 5


@pytest.mark.parametrize("name", ["a.nut", "a.mpg", "a.mkv", "a.avi", "a.ts"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_damaged_last_frame_is_the_same_in_order_and_by_number(
    name: str, threads: int, tmp_path: Path
) -> None:
    codec = {"nut": "ffv1", "mpg": "mpeg2video", "mkv": "ffv1", "avi": "mpeg4", "ts": "mpeg2video"}
    whole = encode(tmp_path / f"whole_{name}", codec[name[2:]], size=(160, 96), frames=32, gop=6)
    for share in (0.9, 0.8, 0.7):
        path = cut(whole, tmp_path / f"{share}_{name}", share)
        expected = readable(open_video(path, threads))
        count = len(open_video(path, threads))
        assert count - 1 <= max(expected) < count and len(expected) >= count - 1
        last = max(expected)
        for before in (0, last // 2, last - 1):
            video = open_video(path, threads)
            found = video.frames([before, last])
            assert (found[0] == expected[before]).all() and (found[1] == expected[last]).all()
            one_by_one = [video.frames([last])[0], video.frames([before])[0], video.frames([last])[0]]
            assert (one_by_one[0] == expected[last]).all() and (one_by_one[2] == expected[last]).all()
        if last < count - 1:
            with pytest.raises(FrameError):
                open_video(path, threads).frames([count - 1])


def test_files_of_public_reports(cases: Path) -> None:
    indices, _ = streamed(open_video(cases / "v/noidx.avi"))
    assert list(indices) == list(range(40))
    for name in ("mpg_cut.mpg", "nut_cut.nut"):
        path = cases / "v" / name
        expected = readable(open_video(path))
        last = max(expected)
        for before in (0, last - 7, last - 1):
            found = open_video(path).frames([before, last])
            assert (found[0] == expected[before]).all() and (found[1] == expected[last]).all()
        later = readable_from(path, last - 7)
        assert sorted(later) == list(range(last - 7, last + 1))
        assert all((frame == expected[number]).all() for number, frame in later.items())


def readable_from(path: Path, start: int) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    try:
        for indices, frames in open_video(path).stream(start=start):
            found.update(zip(indices.tolist(), frames))
    except VideoTruncated:
        pass
    return found
