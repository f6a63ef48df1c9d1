from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tce.video.open_video import open_video
from tests.helpers.hard_footage import RATE, encode, numbers, packets

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
                packet.stream, packet.time_base, packet.is_keyframe = copy, taken[0].time_base, is_key
                packet.pts, packet.dts = pts + turn * step, dts + turn * step
                output.mux(packet)
    return path


def test_a_hundred_thousand_frames(long_video: Path) -> None:
    from tce.video.seeker import Seeker

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
