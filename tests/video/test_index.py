from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tce.data.encode import Encoding, Job, chosen
from tce.video.index import index_of_frames
from tce.video.open_video import open_video
from tests.helpers.hard_videos import FRAMES, RATE, encode, number, numbers, packets


def test_times_of_variable_rate(hard: dict[str, Path]) -> None:
    for name in ("variable_rate.mp4", "variable_rate.mkv"):
        assert np.allclose(open_video(hard[name]).times(), 7 * np.arange(FRAMES) ** 2 / 1000)
    for name in (
        "b_frames.mp4",
        "negative_start.mov",
        "negative_start.mkv",
        "wrong_timestamps.avi",
        "asp_packed.avi",
    ):
        assert np.allclose(open_video(hard[name]).times([3, 0, 3]), np.array([3, 0, 3]) / RATE)
        assert open_video(hard[name]).fps == RATE


def test_frames_that_an_edit_list_hides_do_not_count(hard: dict[str, Path]) -> None:
    video = open_video(hard["edit_list.mp4"])
    assert len(video) == FRAMES - 5 and number(video.frames([0])[0]) == 5
    assert video.times([0, 1]).tolist() == [0, 1 / RATE]


def assert_times(path: Path, fps: float, count: int, tolerance: float = 1e-9) -> None:
    """A constant rate, whether the index is read first or built by a stream, also for packing."""
    for video in (open_video(path), open_video(path)):
        assert video.fps == pytest.approx(fps) and len(video) == count
        np.testing.assert_allclose(video.times(), np.arange(count) / fps, atol=tolerance)
        assert sum(len(indices) for indices, _ in open_video(path).stream()) == count
        half = Job(str(path), Encoding(), end=count / fps / 2)
        assert chosen(video, half).tolist() == list(range(-(-count // 2)))
        fifth = Job(str(path), Encoding(fps=fps / 5))
        assert chosen(video, fifth).tolist() == list(range(0, count, 5))
        list(video.stream())


@pytest.mark.parametrize("threads", ["1", "2"])
def test_h264_with_b_frames_in_avi_between_empty_chunks(threads: str, tmp_path: Path) -> None:
    """Copied into AVI, such a file has two chunks a frame, one of them empty, and no presentation times."""
    path = encode(
        tmp_path / "b.avi",
        "libx264",
        base=Fraction(1, 2 * RATE),
        stamps=lambda i: 2 * i,
        b_frames=3,
        threads=threads,
    )
    assert_times(path, RATE, FRAMES)
    assert numbers(open_video(path).frames(range(FRAMES))) == list(range(FRAMES))


def test_variable_rate_with_b_frames_in_avi(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "v.avi",
        "libx264",
        base=Fraction(1, 100),
        stamps=lambda i: 4 * i if i < 12 else 8 * i - 48,
        b_frames=2,
    )
    expected = [0.04 * i if i < 12 else 0.08 * i - 0.48 for i in range(FRAMES)]
    # Decoding times run ahead of presentation times by two frames where the rate changes.
    np.testing.assert_allclose(open_video(path).times(), expected, atol=0.13)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_two_thousand_frames_a_second(suffix: str, tmp_path: Path) -> None:
    """Matroska rounds times to milliseconds, so that two frames have the same."""
    path = encode(
        tmp_path / f"fast.{suffix}", "libx264", frames=100, base=Fraction(1, 2000), rate=2000, b_frames=2
    )
    assert_times(path, 2000, 100)
    assert numbers(open_video(path).frames([99, 0, 50])) == [99, 0, 50]


def test_equal_times_are_spread_where_the_rate_varies() -> None:
    stamps = [0, 0, 0, 0, 2, 2, 10]
    index = index_of_frames([(stamp, True, 0) for stamp in stamps], Fraction(1, 1000), 2000.0)
    np.testing.assert_allclose(index.times * 1000, [0, 0.5, 1, 1.5, 2, 6, 10])
    assert np.all(np.diff(index.times) > 0)


def test_times_out_of_order_come_from_the_packets_or_the_rate() -> None:
    seen = [(stamp, True, 0) for stamp in (0, 6, 2, 4)]
    base = Fraction(1, 50)
    with_packets = index_of_frames(seen, base, 10.0, 0, [0, 2, 4, 9])
    np.testing.assert_allclose(with_packets.times, [0, 0.04, 0.08, 0.18])
    for useless in ([0, 2, 4], [0, 2, 2, 4], [0, None, 2, 4], [4, 2, 1, 0]):
        np.testing.assert_allclose(index_of_frames(seen, base, 10.0, 0, useless).times, [0, 0.1, 0.2, 0.3])
    nothing = index_of_frames([(None, True, 0)] * 3, base, 10.0)
    np.testing.assert_allclose(nothing.times, [0, 0.1, 0.2])


@pytest.mark.parametrize(
    ("name", "fps", "frames"), [("h264.avi", 25, 40), ("hs.mkv", 2000, 100), ("hs.mp4", 2000, 100)]
)
def test_files_of_public_reports(name: str, fps: float, frames: int, cases: Path) -> None:
    assert_times(cases / "v" / name, fps, frames)


LONG = 100_000


def test_a_seek_that_lands_elsewhere_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that seeks too far costs time, but never gives a neighbouring frame."""
    from tce.video.decoder import Decoder

    path = encode(tmp_path / "a.mp4", "libx264", frames=64)
    video = open_video(path)
    stamps = video.index.stamps  # type: ignore[attr-defined]
    seek = Decoder.seek
    for offset in (9, -9, 200):

        def astray(self: Decoder, stamp: int, offset: int = offset) -> None:
            place = min(max(0, int(np.searchsorted(stamps, stamp)) + offset), len(stamps) - 1)
            seek(self, int(stamps[place]))

        monkeypatch.setattr(Decoder, "seek", astray)
        assert numbers(open_video(path).frames([40, 17, 63, 0, 40])) == [40, 17, 63, 0, 40]


@pytest.fixture(scope="session")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100,000 frames of 32x32: each picture is encoded once, its packets are written many times over."""
    folder = tmp_path_factory.mktemp("long")
    size, piece = (32, 32), 1000
    short = encode(
        folder / "short.mp4", "libx264", frames=piece, size=size, gop=50, b_frames=2, preset="ultrafast"
    )
    stream, taken = packets(short)
    path = folder / "long.mp4"
    step = piece * taken[0].duration
    contents = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe) for packet in taken]
    with av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(stream)
        for turn in range(LONG // piece):
            for data, pts, dts, is_key in contents:
                packet = av.Packet(data)
                packet.stream = copy
                packet.time_base = taken[0].time_base
                packet.is_keyframe = is_key
                packet.pts, packet.dts = pts + turn * step, dts + turn * step
                output.mux(packet)
    return path


def test_a_hundred_thousand_frames(long_video: Path) -> None:
    from tce.video.index import Seeker

    video = open_video(long_video)
    assert len(video) == LONG
    assert video.times([LONG - 1])[0] == pytest.approx((LONG - 1) / RATE)
    wanted = np.random.default_rng(0).integers(0, LONG, 40)
    assert numbers(video.frames(wanted)) == [frame % 1000 for frame in wanted]
    # Quick because few frames are decoded for one that is asked for, not because the machine is.
    decoded = 0
    seeker = Seeker(long_video, video.index)  # type: ignore[attr-defined]
    for frame in wanted:
        for at, _ in seeker._decode_from(seeker._key_before(int(frame))):
            decoded += 1
            if at == frame:
                break
    assert decoded <= 50 * len(wanted)


def test_memory_stays_flat_over_a_long_video(long_video: Path) -> None:
    """The process's memory after 15,000 more frames is what it was after the first 5,000."""
    code = """
import sys
from tce.video.open_video import open_video
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * 4096
early = 0
for indices, frames in open_video(sys.argv[1], threads=1).stream(stop=20_000):
    if early == 0 and indices[-1] > 5_000:
        early = resident()
print((resident() - early) / 2**20)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, long_video], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 12  # MiB; one batch has 0.2, the 15,000 frames have 34
