"""A film of a map: on the left all frames with the current one in red, on the right the video itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError
from tce.io import atomic

FILMS = (".mp4", ".m4v", ".mov", ".mkv")
FRAMES_PER_SECOND = 15
# The panel's height follows the video's within these; upscaled thumbnails and full HD maps help nobody.
LOWEST, HIGHEST, WIDEST = 360, 720, 1280
BACKGROUND = (255, 255, 255)
BLUE, RED = (31, 90, 200), (220, 30, 30)  # RGB, as everything here
BOX = (160, 160, 160)
BEHIND_VIDEO = (24, 24, 24)
SUBPIXEL_BITS = 4  # cv2 draws circles at sixteenths of a pixel: the point moves without jumping

Image = NDArray[np.uint8]  # [H, W, 3] RGB


def save_film(
    path: str | os.PathLike[str],
    points: NDArray[np.floating[Any]],
    frames: Iterable[Image],
    fps: int = FRAMES_PER_SECOND,
) -> int:
    """Write the film of one video as H.264, each frame encoded as soon as it is drawn.

    Memory does not grow with the length: the map is drawn once, and a frame adds one disc and one image.

    Args:
        path: film to write, one of `FILMS` by its suffix; replaced if it exists.
        points: [N, 2] map, a row a frame of the video.
        frames: N images uint8 [H, W, 3] of one size, RGB, in the order of `points`.
        fps: frames a second of the film; the video's own rate does not matter.

    Returns:
        Number of frames written.

    Raises:
        TceError: a suffix that is no film's, or another number of images than points.
    """
    path = Path(path)
    if path.suffix.lower() not in FILMS:
        raise TceError(f"film {path}", f"a name ending in {', '.join(FILMS)}", path.suffix or "no suffix")
    import av

    container = {".mov": "mov", ".mkv": "matroska"}.get(path.suffix.lower(), "mp4")
    written = 0
    with atomic(path) as file, av.open(file, "w", format=container) as output:
        stream: Any = None
        for picture in side_by_side(points, frames):
            if stream is None:
                stream = output.add_stream("libx264", rate=Fraction(fps), options={"crf": "18"})
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"  # what every player shows
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            written += 1
        if stream is not None:
            output.mux(stream.encode())
        if written != len(points):
            raise TceError(f"film {path}", f"{len(points)} frames, one a point", str(written))
    return written


def side_by_side(points: NDArray[np.floating[Any]], frames: Iterable[Image]) -> Iterator[Image]:
    """The film's pictures, map left and video right, of even height and width.

    Args:
        points: [N, 2] map.
        frames: images uint8 [H, W, 3] of one size.

    Yields:
        uint8 [h, h + w, 3], one a frame; as many as the shorter of the two arguments.
    """
    panel: Map | None = None
    for row, frame in zip(range(len(points)), frames):
        if panel is None:
            shown = _shown_size(*frame.shape[:2])
            height, width = max(shown[0], LOWEST), max(shown[1], LOWEST // 2)
            panel = Map(points, height)
            picture = np.empty((height, height + width, 3), np.uint8)
            picture[:, height:] = BEHIND_VIDEO
            top, left = (height - shown[0]) // 2, height + (width - shown[1]) // 2
        panel.draw(row, picture[:, : picture.shape[0]])
        picture[top : top + shown[0], left : left + shown[1]] = _resized(frame, shown)
        yield picture


def _shown_size(height: int, width: int) -> tuple[int, int]:
    """A video's even height and width in the film: between `LOWEST` and `HIGHEST`, `WIDEST` at most."""
    scale = min(max(1.0, LOWEST / height), HIGHEST / height, WIDEST / width)
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


def _resized(frame: Image, size: tuple[int, int]) -> Image:
    if frame.shape[:2] == size:
        return frame
    shrinking = size[0] < frame.shape[0]
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, size[::-1], interpolation=interpolation), np.uint8)


class Map:
    """A square picture of all points in blue, on which one point at a time is shown in red.

    Args:
        points: [N, 2] map.
        size: height and width in pixels.
    """

    def __init__(self, points: NDArray[np.floating[Any]], size: int):
        low, high = points.min(axis=0), points.max(axis=0)
        margin = size * 0.06
        scale = (size - 2 * margin) / max(float((high - low).max()), 1e-12)
        centred = (points - (low + high) / 2) * scale * (1, -1)  # rows of an image count downwards
        self.pixels = centred + size / 2  # [N, 2] x and y
        self.radius = size / 60
        self.background = np.full((size, size, 3), BACKGROUND, np.uint8)
        cv2.rectangle(self.background, (2, 2), (size - 3, size - 3), BOX, 1)
        dot = float(np.clip(size / 18 / np.sqrt(len(points)), size / 320, size / 110))
        for x, y in self.pixels:
            _disc(self.background, x, y, dot, BLUE)

    def draw(self, row: int, image: Image) -> None:
        """Copy the map into `image` [size, size, 3] and mark the point of `row`."""
        image[:] = self.background
        canvas = np.ascontiguousarray(image)
        x, y = self.pixels[row]
        _disc(canvas, x, y, self.radius * 1.35, BACKGROUND)  # a white rim parts it from its neighbours
        _disc(canvas, x, y, self.radius, RED)
        image[:] = canvas


def _disc(image: Image, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
    unit = 1 << SUBPIXEL_BITS
    cv2.circle(
        image,
        (round(x * unit), round(y * unit)),
        round(radius * unit),
        colour,
        thickness=-1,
        lineType=cv2.LINE_AA,
        shift=SUBPIXEL_BITS,
    )
