from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tce.video.base import FrameError, VideoMissing, VideoUnreadable
from tce.video.folder import FrameFolder
from tce.video.open_video import open_video
from tests.helpers.hard_videos import HEIGHT, WIDTH, jpeg, numbers, picture, png


def test_facts(hard: dict[str, Path]) -> None:
    video = open_video(hard["one_based"])
    assert (video.kind, video.codec, video.fps, video.rotation, len(video)) == ("folder", "jpeg", 25.0, 0, 12)
    assert np.allclose(video.times([0, 5]), [0, 0.2])
    assert np.allclose(FrameFolder(hard["one_based"], fps=10).times([0, 5]), [0, 0.5])
    assert open_video(hard["one_based"]).names[0] == "frame000001.jpg"  # type: ignore[attr-defined]


def test_grown_images_are_shrunk_to_the_first(hard: dict[str, Path]) -> None:
    frames = open_video(hard["mixed_sizes"]).frames(range(12))
    assert frames.shape == (12, HEIGHT, WIDTH, 3) and numbers(frames) == list(range(12))


def test_size_is_that_of_the_first_image_that_decodes(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(b"")
    (tmp_path / "1.png").write_bytes(png(picture(1, 32, 24)))
    assert open_video(tmp_path).size == (24, 32)


def test_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(VideoUnreadable, match="no images in it"):
        len(open_video(tmp_path))
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(VideoUnreadable, match=r"images that decode; found none \(first: .*an empty file"):
        _ = open_video(tmp_path).size
    with pytest.raises(VideoMissing):
        len(FrameFolder(tmp_path / "no"))


def test_image_removed_after_listing(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(picture(i)))
    video = open_video(tmp_path)
    assert len(video) == 3
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(FrameError, match=r"1\.jpg; expected an image; found No such file"):
        video.frames([1])
    assert numbers(video.frames([2])) == [2]


def test_optical_flow_beside_the_frames_is_left_out(tmp_path: Path) -> None:
    """TSN's and MMAction's layout: flow sorts before `img_`, and would be most of the video."""
    for kind, first in (("img", 0), ("flow_x", 50), ("flow_y", 60)):
        for i in range(8):
            (tmp_path / f"{kind}_{i + 1:05d}.jpg").write_bytes(jpeg(picture(first + i)))
    video = open_video(tmp_path)
    assert len(video) == 8 and numbers(video.frames(range(8))) == list(range(8))
    for i in range(8):
        (tmp_path / f"img_{i + 1:05d}.jpg").unlink()
    assert len(open_video(tmp_path)) == 16, "nothing but flow is what was asked for"


def test_names_that_only_contain_flow_are_frames(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"flower_{i}.jpg").write_bytes(jpeg(picture(i)))
        (tmp_path / f"flow_x_{i}.jpg").write_bytes(jpeg(picture(9)))
    assert numbers(open_video(tmp_path).frames(range(2))) == [0, 1]


def test_a_named_pipe_among_the_frames_is_a_bad_frame(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(jpeg(picture(0)))
    os.mkfifo(tmp_path / "1.jpg")
    video = open_video(tmp_path)
    with pytest.raises(FrameError, match="not a regular file"):
        video.frames([1])
    with pytest.raises(VideoUnreadable, match="a named pipe"):
        open_video(tmp_path / "1.jpg")
