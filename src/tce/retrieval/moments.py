"""From similarities of frames to moments: spans of a video, each with a score, that do not overlap.

Rows are indexed frames, those of a stretch of one video together and in order; a stretch is unbroken, so a
video of which a filter hides the middle is two of them. Costs grow with rows times query frames, never with
a loop over videos.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]
# Similarities [Q, N], first rows of stretches [N] -> best score that ends at each row, and its first row.
Match = Callable[[Scores, Rows], tuple[Scores, Rows]]


@dataclass(frozen=True)
class Span:
    """A moment by its rows.

    Attributes:
        first: row of its first frame.
        last: row of its last frame.
        best: row of the frame that is most similar to a frame of the query.
        score: mean cosine similarity of the query's frames to those they are matched with.
    """

    first: int
    last: int
    best: int
    score: float


def least_frames(query: int) -> int:
    """How many frames a video needs to match a query of so many frames: at twice its speed, the half."""
    return 1 + (query - 1) // 2


def find_spans(
    similarity: Scores, stretches: Rows, top: int, background: float, any_order: bool = False
) -> list[Span]:
    """The best moments of a query, best first.

    A query of one frame: a moment is a frame more similar than its neighbours, and the frames around it down
    to midway between its score and `background`. A lower peak is a moment of its own only if the similarity
    falls below midway of *that* peak in between.

    A query of several frames: a moment is the span of their best alignment, in order and at half to twice the
    query's speed; with `any_order`, a span as long as the query, in which each frame of the query takes
    its most similar frame. The next moment is the best one in the rows that are left, and so on.

    Args:
        similarity: float32 [Q, N], cosine similarities of the query's frames with the rows.
        stretches: int64 [N], number of each row's stretch; rows of one are together.
        top: most moments to return.
        background: similarity that means nothing, for instance the median over the index.
        any_order: the query's frames may match in any order.

    Returns:
        at most `top` spans; equal scores in the order of their rows.
    """
    if similarity.shape[1] == 0:
        return []
    if len(similarity) == 1:
        return _peaks(similarity[0], stretches, _begins(stretches), top, background)
    return _best_apart(similarity, stretches, _unordered if any_order else _aligned, top)


def _begins(stretches: Rows) -> Rows:
    """The first row of each row's stretch, int64 [N]."""
    starts = np.flatnonzero(np.append(True, stretches[1:] != stretches[:-1]))
    return np.repeat(starts, np.diff(np.append(starts, len(stretches))))


def _peaks(scores: Scores, stretches: Rows, begins: Rows, top: int, background: float) -> list[Span]:
    """Moments around the peaks of a query of one frame."""
    before = np.append(-np.inf, scores[:-1])
    after = np.append(scores[1:], -np.inf)
    edge = np.append(stretches[1:] != stretches[:-1], True)  # a stretch's last row
    before[begins == np.arange(len(scores))] = -np.inf
    after[edge] = -np.inf
    peaks = np.flatnonzero((scores >= before) & (scores >= after))
    taken = np.zeros(len(scores), bool)
    found: list[Span] = []
    for peak in peaks[np.argsort(-scores[peaks], kind="stable")].tolist():
        if taken[peak]:
            continue
        level = (float(scores[peak]) + background) / 2
        first, touches_left = _reach(scores, stretches, taken, peak, -1, level)
        last, touches_right = _reach(scores, stretches, taken, peak, 1, level)
        taken[first : last + 1] = True  # the shoulder of a better moment too: it is no moment of its own
        if touches_left or touches_right:
            continue
        found.append(Span(first, last, peak, float(scores[peak])))
        if len(found) == top:
            break
    return found


def _reach(
    scores: Scores, stretches: Rows, taken: NDArray[np.bool_], row: int, step: int, level: float
) -> tuple[int, bool]:
    """How far from a row the scores stay at `level` or above, and whether a taken row ends that."""
    while True:
        following = row + step
        if not 0 <= following < len(scores) or stretches[following] != stretches[row]:
            return row, False
        if scores[following] < level:
            return row, False
        if taken[following]:
            return row, True
        row = following


def _aligned(similarity: Scores, begins: Rows) -> tuple[Scores, Rows]:
    """Mean similarity of the best alignment that ends at each row, and the row where it begins.

    From one frame of the query to the next the alignment advances by 0, 1 or 2 rows, and never by 0 twice:
    half to twice the query's speed.
    """
    rows = np.arange(similarity.shape[1])
    one, two = np.maximum(rows - 1, 0), np.maximum(rows - 2, 0)
    has_one, has_two = rows - 1 >= begins, rows - 2 >= begins
    moved, moved_from = similarity[0].astype(np.float64), rows.copy()  # the last step went on
    stayed, stayed_from = np.full(len(rows), -np.inf), rows.copy()  # the last step was 0
    for scores in similarity[1:]:
        better = stayed > moved
        best, best_from = np.where(better, stayed, moved), np.where(better, stayed_from, moved_from)
        by_one = np.where(has_one, best[one], -np.inf)
        by_two = np.where(has_two, best[two], -np.inf)
        longer = by_two > by_one
        stayed, stayed_from = moved + scores, moved_from
        moved = np.where(longer, by_two, by_one) + scores
        moved_from = np.where(longer, best_from[two], best_from[one])
    better = stayed > moved
    total = np.where(better, stayed, moved) / len(similarity)
    return total.astype(np.float32), np.where(better, stayed_from, moved_from)


def _unordered(similarity: Scores, begins: Rows) -> tuple[Scores, Rows]:
    """Mean over the query of the highest similarity within the last Q rows, and the first of those rows."""
    count, rows = len(similarity), np.arange(similarity.shape[1])
    highest, width = similarity, 1
    while width * 2 <= count:
        highest = np.maximum(highest, highest[:, np.maximum(rows - width, begins)])
        width *= 2
    highest = np.maximum(highest, highest[:, np.maximum(rows - (count - width), begins)])
    scores = highest.mean(axis=0, dtype=np.float64).astype(np.float32)
    ends = np.append(begins[1:] != begins[:-1], True)
    shortest = least_frames(count)
    lengths = rows - begins + 1
    # A window is as long as the query, or the whole of a shorter stretch.
    whole = (lengths >= count) | (ends & (lengths >= shortest))
    scores[~whole] = -np.inf
    return scores, np.maximum(rows - count + 1, begins)


def _best_apart(similarity: Scores, stretches: Rows, match: Match, top: int) -> list[Span]:
    """The best span of all, then the best in what it leaves, and so on: a heap of pieces of stretches."""
    scores, firsts = match(similarity, _begins(stretches))
    starts = np.flatnonzero(np.append(True, stretches[1:] != stretches[:-1]))
    bounds = [*starts.tolist(), len(stretches)]
    heap = [
        _best_of(scores[begin:end], firsts[begin:end] - begin, begin, end) for begin, end in pairwise(bounds)
    ]
    heapq.heapify(heap)
    found: list[Span] = []
    while heap and len(found) < top:
        score, first, last, begin, end = heapq.heappop(heap)
        if score == np.inf:  # too short for the query
            break
        best = first + int(np.argmax(similarity[:, first : last + 1].max(axis=0)))
        found.append(Span(first, last, best, -score))
        for left, right in ((begin, first), (last + 1, end)):
            if right - left >= least_frames(len(similarity)):
                inside = match(similarity[:, left:right], np.zeros(right - left, np.int64))
                heapq.heappush(heap, _best_of(*inside, left, right))
    return found


def _best_of(scores: Scores, firsts: Rows, begin: int, end: int) -> tuple[float, int, int, int, int]:
    """A piece's best span, as its negative score, first and last row; and the piece itself."""
    last = int(np.argmax(scores))
    return -float(scores[last]), begin + int(firsts[last]), begin + last, begin, end
