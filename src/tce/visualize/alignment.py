"""Which frame of one video belongs to which of another: dynamic time warping."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BOTH, DOWN, RIGHT = 0, 1, 2  # the step that led to a cell: both videos, the first one, the second one


def align(similarity: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """The path of least summed 1 - similarity from the first pair of frames to the last one.

    Steps go one frame on in the first video, in the second, or in both (Sakoe and Chiba, 1978). Cells of one
    anti-diagonal depend on the two before it only, so each is computed at once. Memory: a byte a cell.

    Args:
        similarity: [n, m] of each pair of frames.

    Returns:
        [k, 2] frames of the first and of the second video, neither falling.
    """
    n, m = similarity.shape
    steps = np.zeros((n, m), np.uint8)
    before = np.full(n + 1, np.inf)  # row i at i + 1: the anti-diagonal before, and the one before it
    earlier = np.full(n + 1, np.inf)
    for diagonal in range(n + m - 1):
        rows = np.arange(max(0, diagonal - m + 1), min(n, diagonal + 1))
        cost = 1.0 - similarity[rows, diagonal - rows].astype(np.float64)
        if diagonal == 0:
            least = np.zeros(1)
        else:
            ways = np.stack([earlier[rows], before[rows], before[rows + 1]])  # BOTH, DOWN, RIGHT
            best = ways.argmin(axis=0)
            steps[rows, diagonal - rows] = best
            least = ways[best, np.arange(len(rows))]
        current = np.full(n + 1, np.inf)
        current[rows + 1] = least + cost
        earlier, before = before, current
    path = [(n - 1, m - 1)]
    while path[-1] != (0, 0):
        row, column = path[-1]
        step = int(steps[row, column])
        path.append((row - (step != RIGHT), column - (step != DOWN)))
    return np.array(path[::-1], np.int64)


def partner_frames(path: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The second video's frame [count] for each of the first one's: the middle of its partners."""
    first = np.searchsorted(path[:, 0], np.arange(count), side="left")
    stop = np.searchsorted(path[:, 0], np.arange(count), side="right")
    return path[(first + stop - 1) // 2, 1]
