from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from tce.video.open_video import open_video
from tests.helpers.hard_videos import HEIGHT, RATE, WIDTH, streamed


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
            stream.width = WIDTH
            stream.height = HEIGHT
            stream.pix_fmt = "yuv420p"
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


def smooth_picture(height: int, width: int) -> np.ndarray:
    """Colours that change slowly, so that the position and filter of colour samples hardly matter."""
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(5 * rows + 3 * columns), np.cos(4 * columns), np.sin(3 * rows - 4 * columns)]
    return np.stack([128 + 80 * wave for wave in waves], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("pixels", "size", "matrix", "interlaced"),
    [
        ("yuv420p", (128, 96), 5, False),
        ("yuv420p", (127, 95), 5, False),
        ("yuv420p10le", (128, 96), 5, False),
        ("yuv420p10le", (127, 95), 5, False),
        ("yuv422p10le", (128, 96), 5, False),
        ("yuv444p12le", (128, 96), 5, False),
        ("yuv420p", (128, 96), 1, False),  # BT.709
        ("yuv420p10le", (128, 96), 9, False),  # BT.2020
        ("yuv420p", (128, 96), 5, True),
        ("yuv420p10le", (128, 96), 5, True),
    ],
)
def test_colours_are_right_whatever_the_format(
    pixels: str, size: tuple[int, int], matrix: int, interlaced: bool, tmp_path: Path
) -> None:
    """Coded without loss: what differs from the picture is the conversion, by a few levels."""
    width, height = size
    path = tmp_path / "a.mkv"
    picture = smooth_picture(height, width)
    with av.open(str(path), "w") as output:
        options = {"qp": "0", "x264-params": "tff=1"} if interlaced else {}
        stream: Any = output.add_stream("libx264" if interlaced else "ffv1", rate=RATE, options=options)
        stream.width = width
        stream.height = height
        stream.pix_fmt = pixels
        if matrix != 5:
            stream.codec_context.colorspace = matrix
        exact = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        output.mux(stream.encode(frame.reformat(format=pixels, dst_colorspace=matrix, interpolation=exact)))
        output.mux(stream.encode())
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0))
        assert stored.interlaced_frame == interlaced and stored.format.name == pixels
    difference = np.abs(open_video(path).frames([0])[0].astype(int) - picture)
    assert difference.mean() < 2.5 and difference.max() <= 16


@pytest.mark.parametrize("name", ["b_frames.mp4", "vp9.webm", "asp.avi", "mjpeg.avi"])
def test_8_bit_colours_are_those_of_libavfilter(name: str, hard: dict[str, Path]) -> None:
    """The conversion of the command `ffmpeg -pix_fmt rgb24`, without the command."""
    with av.open(str(hard[name])) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        source, scale, sink = (
            graph.add_buffer(template=stream),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        )
        source.link_to(scale)
        scale.link_to(sink)
        graph.configure()
        expected = []
        for frame in container.decode(stream):
            graph.push(frame)
            expected.append(graph.pull().to_ndarray(format="rgb24"))
    np.testing.assert_array_equal(streamed(open_video(hard[name]))[1], expected)
