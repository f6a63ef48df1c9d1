from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from tce.video.open_video import open_video
from tests.helpers.hard_footage import HEIGHT, RATE, WIDTH


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
