"""Decoded frames to RGB arrays: colour conversion, rotation, one size for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

_ONE = 1 << 16  # display matrices hold 16.16 fixed-point numbers


@dataclass(frozen=True)
class Turn:
    """How stored frames are turned to be shown: mirrored left to right first, then rotated.

    Attributes:
        quarters: quarter turns counter-clockwise, 0 to 3.
        mirrored: whether left and right are swapped.
    """

    quarters: int = 0
    mirrored: bool = False

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image [H, W, 3] as it is to be shown; a view."""
        if self.mirrored:
            image = image[:, ::-1]
        return np.rot90(image, self.quarters) if self.quarters else image


def turn_of(frame: VideoFrame) -> Turn:
    """The turn that the frame's display matrix asks for, to the nearest quarter."""
    data = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]  # keys are of this type
    if data is None:
        return Turn()
    # Shown (x, y) = stored (x, y) times [[a, b], [c, d]], y pointing down.
    matrix = np.frombuffer(bytes(data), np.int32)[:9].reshape(3, 3)[:2, :2].astype(np.float64) / _ONE
    mirrored = bool(np.linalg.det(matrix) < 0)
    if mirrored:
        matrix = np.diag([-1.0, 1.0]) @ matrix
    angle = np.degrees(np.arctan2(-matrix[0, 1], matrix[0, 0]))
    return Turn(int(np.rint(angle / 90)) % 4, mirrored)


class Painter:
    """Turns decoded frames into RGB arrays, all in the size and turn of the first.

    Args:
        first: the frame that sets size and turn.
    """

    def __init__(self, first: VideoFrame):
        self.turn = turn_of(first)
        self._width, self._height = first.width, first.height
        self._reformatter = VideoReformatter()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as shown."""
        if self.turn.quarters % 2:
            return self._width, self._height
        return self._height, self._width

    def paint(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """The frame as RGB, uint8 [H, W, 3]: a view of memory of its own, with whatever strides."""
        # One thread: swscale's thread pool is set up anew for each frame and costs more than the conversion.
        shown = self._reformatter.reformat(frame, self._width, self._height, "rgb24", threads=1)
        plane = shown.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(self._height, plane.line_size)
        return self.turn(rows[:, : self._width * 3].reshape(self._height, self._width, 3))
