from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tce.errors import TceError
from tce.video import base
from tce.video.base import VideoError, VideoMissing, VideoTruncated, VideoUnreadable, max_pixels
from tce.video.open_video import open_video
from tests.helpers.hard_videos import encode, gif, numbers, streamed


def test_errors_survive_pickling() -> None:
    for name in vars(base):
        kind = getattr(base, name)
        if isinstance(kind, type) and issubclass(kind, VideoError):
            error = kind("clip.mp4", "a video", "text", "convert it")
            twin = pickle.loads(pickle.dumps(error))
            assert (
                type(twin) is kind
                and str(twin) == str(error) == "clip.mp4; expected a video; found text; convert it"
            )
            assert isinstance(error, TceError)


@pytest.mark.parametrize("name", ["a.mp4", "a.jpg"])
def test_only_regular_files_are_opened(name: str, tmp_path: Path) -> None:
    """Opening a named pipe waits for a writer: each of these would hang or read without end."""
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(tmp_path / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for target, found in (
        (tmp_path / "pipe", "a named pipe"),
        (Path("/dev/zero"), "a device"),
        (tmp_path / "socket", "a socket"),
    ):
        path = tmp_path / name
        path.symlink_to(target)
        with pytest.raises(VideoUnreadable, match=f"{name}; expected a video .*found {found}"):
            open_video(path)
        path.unlink()
    with pytest.raises(VideoMissing, match=r"found a link to .*nothing, which does not exist"):
        open_video(tmp_path / "link")
    listener.close()


def test_a_file_replaced_by_a_pipe_is_not_opened(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", "libx264", frames=2)
    videos = [open_video(path) for _ in range(3)]
    path.unlink()
    os.mkfifo(path)
    for video, question in zip(videos, (len, lambda video: video.size, streamed)):
        with pytest.raises(VideoUnreadable, match="found a named pipe"):
            question(video)


def test_frames_of_too_many_pixels_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = gif(tmp_path / "bomb.gif", 16_000, 16_000, 1000)
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))  # one frame alone has 1 GB
from tce.video.base import VideoError
from tce.video.open_video import open_video
for question in (len, lambda video: video.size, lambda video: list(video.stream())):
    try:
        question(open_video(sys.argv[1], threads=1))
    except VideoError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    reason = "expected at most 89,478,485 pixels a frame; found 16000 x 16000; set the environment variable"
    assert [reason in line for line in done.stdout.splitlines()] == [True] * 3, done.stdout


def test_the_limit_of_pixels_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", "libx264", frames=2, size=(64, 48))
    for limit, works in (("3071", False), ("3072", True)):
        monkeypatch.setenv("TCE_MAX_PIXELS", limit)
        if works:
            assert numbers(streamed(open_video(path))[1]) == [0, 1]
            continue
        for question in (len, lambda video: video.size, streamed):
            with pytest.raises(VideoUnreadable, match="at most 3,071 pixels a frame; found 64 x 48"):
                question(open_video(path))
    for wrong in ("0", "-1", "many", ""):
        monkeypatch.setenv("TCE_MAX_PIXELS", wrong)
        with pytest.raises(TceError, match="TCE_MAX_PIXELS"):
            max_pixels()


def test_frames_that_grow_beyond_the_limit(hard: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """In mid-stream the size doubles: the larger frames are refused by the decoder, as damage."""
    monkeypatch.setenv("TCE_MAX_PIXELS", str(64 * 48))
    with pytest.raises(VideoTruncated):
        streamed(open_video(hard["sizes_change.mkv"]))


def test_batches_of_large_frames_are_smaller(monkeypatch: pytest.MonkeyPatch, hard: dict[str, Path]) -> None:
    monkeypatch.setattr(base, "MAX_BATCH_BYTES", 64 * 48 * 3 * 5 + 7)
    for name in ("b_frames.mp4", "one_based"):
        counts = [len(indices) for indices, _ in open_video(hard[name]).stream(batch=8)]
        assert counts == {"b_frames.mp4": [5, 5, 5, 5, 4], "one_based": [5, 5, 2]}[name]
    monkeypatch.setattr(base, "MAX_BATCH_BYTES", 1)
    assert numbers(streamed(open_video(hard["b_frames.mp4"]), batch=8)[1]) == list(range(24))
