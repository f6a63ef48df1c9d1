from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from tce.cli import main
from tce.errors import TceError
from tce.video import open_video as source
from tce.video.open_video import (
    FrameError,
    Video,
    VideoError,
    VideoMissing,
    VideoTruncated,
    VideoUnreadable,
    open_video,
)
from tests.helpers.hard_footage import (
    FILES,
    FOLDERS,
    FRAMES,
    HEIGHT,
    RATE,
    WIDTH,
    Hard,
    cut,
    encode,
    number,
    numbers,
    packets,
)

GOOD = [piece for piece in [*FILES, *FOLDERS] if not piece.error]
BAD = [piece for piece in [*FILES, *FOLDERS] if piece.error == "VideoUnreadable"]


def streamed(video: Video, **how: int) -> tuple[np.ndarray, np.ndarray]:
    """All that a stream gives, joined."""
    indices, frames = zip(*video.stream(**how))
    return np.concatenate(indices), np.concatenate(frames)


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
        with pytest.raises(VideoUnreadable) as told:
            question(video)
        line = str(told.value)
        assert str(hard[piece.name]) in line and "expected" in line and "found" in line and "\n" not in line


def test_reasons_are_told_apart(hard: dict[str, Path]) -> None:
    def reason(name: str) -> str:
        with pytest.raises(VideoUnreadable) as told:
            len(open_video(hard[name]))
        return told.value.found

    assert reason("zero_bytes.mp4") == "an empty file"
    assert reason("audio_only.wav") == reason("cover_picture.mp4") == "audio only"
    assert reason("text.ans") == "text"


def test_a_stream_of_unknown_codec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after damage to the header, or from a FFmpeg without that decoder."""
    path = encode(tmp_path / "odd.mp4", "libx264", frames=4)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    reason = f"{path}; expected a video that FFmpeg decodes; found a stream of unknown codec"
    for question in (len, lambda video: video.size, lambda video: video.frames([0]), streamed):
        with pytest.raises(VideoUnreadable) as told:
            question(open_video(path))
        assert str(told.value) == reason
    assert main(["info", str(path)]) == 1 and capsys.readouterr().err.count(reason) == 1
    assert main(["check", str(path)]) == 0 and reason in capsys.readouterr().out


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(VideoMissing, match="nothing there"):
        open_video(tmp_path / "no.mp4")
    path = encode(tmp_path / "gone.mp4", "libx264", frames=2)
    video = open_video(path)
    path.unlink()
    with pytest.raises(VideoMissing):
        len(video)


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
    with pytest.raises(VideoTruncated, match="the whole of it"):
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


def test_a_damaged_image_costs_only_itself(hard: dict[str, Path]) -> None:
    video, seen = open_video(hard["damaged_image"]), []
    with pytest.raises(VideoTruncated, match=r"12 frames; found 11 that decode .*005\.jpg"):
        for indices, frames in video.stream(batch=5):
            assert numbers(frames) == list(indices)
            seen += list(indices)
    assert seen == [i for i in range(12) if i != 5]
    with pytest.raises(FrameError, match=r"005\.jpg"):
        video.frames([5])


def test_a_lying_seek_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that seeks too far costs time, but never gives a neighbouring frame."""
    from tce.video.decoder import Decoder

    path = encode(tmp_path / "a.mp4", "libx264", frames=64)
    video = open_video(path)
    stamps = video.index.stamps  # type: ignore[attr-defined]
    honest = Decoder.seek
    for lie in (9, -9, 200):

        def astray(self: Decoder, stamp: int, lie: int = lie) -> None:
            place = min(max(0, int(np.searchsorted(stamps, stamp)) + lie), len(stamps) - 1)
            honest(self, int(stamps[place]))

        monkeypatch.setattr(Decoder, "seek", astray)
        assert numbers(open_video(path).frames([40, 17, 63, 0, 40])) == [40, 17, 63, 0, 40]


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


def test_phone_held_upright(tmp_path: Path) -> None:
    """The matrix that phones write for a portrait recording turns the stored picture clockwise."""
    path = tmp_path / "portrait.mp4"
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2, : WIDTH // 2] = 255  # top left as stored
    one = 1 << 16
    for matrix, corner in [
        ([0, one, 0, -one, 0, 0, 0, 0, 1 << 30], (0, 1)),  # a quarter clockwise: top right
        ([0, -one, 0, one, 0, 0, 0, 0, 1 << 30], (1, 0)),  # a quarter counter-clockwise: bottom left
        ([-one, 0, 0, 0, -one, 0, 0, 0, 1 << 30], (1, 1)),
        ([-one, 0, 0, 0, one, 0, 0, 0, 1 << 30], (0, 1)),  # a selfie: mirrored, not turned
    ]:
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.set_display_matrix(matrix)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            output.mux(stream.encode())
        shown = open_video(path).frames([0])[0, ..., 0] > 128
        height, width = shown.shape
        assert (height, width) == ((WIDTH, HEIGHT) if matrix[0] == 0 else (HEIGHT, WIDTH))
        quarter = shown.reshape(2, height // 2, 2, width // 2).mean((1, 3))
        assert np.unravel_index(quarter.argmax(), (2, 2)) == corner and quarter.max() > 0.95


def test_later_sizes_become_the_first(hard: dict[str, Path]) -> None:
    for name in ("sizes_change.mkv", "sizes_change.ts", "mixed_sizes"):
        video = open_video(hard[name])
        assert video.frames(range(len(video))).shape[1:] == (HEIGHT, WIDTH, 3)


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


def test_errors_survive_pickling() -> None:
    for name in source.__all__:
        kind = getattr(source, name)
        if isinstance(kind, type) and issubclass(kind, VideoError):
            error = kind("clip.mp4", "a video", "text", "convert it")
            twin = pickle.loads(pickle.dumps(error))
            assert (
                type(twin) is kind
                and str(twin) == str(error) == "clip.mp4; expected a video; found text; convert it"
            )
            assert isinstance(error, TceError)


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


LONG = 100_000


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
    from tce.video.seek import Seeker

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
