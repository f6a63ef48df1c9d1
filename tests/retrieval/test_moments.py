"""Moments against slow oracles that try everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tce.retrieval.moments import find_spans, least_frames


def random_case(seed: int, query: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, size=5)
    stretches = np.repeat(np.arange(5), lengths)
    return rng.uniform(-1, 1, size=(query, len(stretches))).astype(np.float32), stretches


def paths(length: int, query: int):
    """Every alignment of a query with a stretch: steps of 0, 1 or 2, never 0 twice in a row."""
    for first in range(length):
        for steps in itertools.product((0, 1, 2), repeat=query - 1):
            if any(a == b == 0 for a, b in itertools.pairwise(steps)):
                continue
            places = first + np.append(0, np.cumsum(steps)).astype(int)
            if places[-1] < length:
                yield places


def windows(length: int, query: int):
    if length < query:
        if length >= least_frames(query):
            yield 0, length - 1
        return
    for first in range(length - query + 1):
        yield first, first + query - 1


def slow_spans(similarity: np.ndarray, first: int, last: int, any_order: bool) -> list[float]:
    """Scores of the best span among these rows, then of the best on both sides of it, and so on."""
    part = similarity[:, first:last]
    if any_order:
        found = [(part[:, a : b + 1].max(axis=1).mean(), a, b) for a, b in windows(part.shape[1], len(part))]
    else:
        found = [
            (np.mean([part[i, place] for i, place in enumerate(path)]), path[0], path[-1])
            for path in paths(part.shape[1], len(part))
        ]
    if not found:
        return []
    # Two windows around one frame that is the best for all of the query are equal: the earlier one counts.
    score, a, b = max(found, key=lambda one: (round(float(one[0]), 5), -one[2]))
    rest = [(first, first + a), (first + b + 1, last)]
    return [score, *(one for left, right in rest for one in slow_spans(similarity, left, right, any_order))]


@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize("query", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(8))
def test_sequences_match_the_best_of_all_alignments(seed: int, query: int, any_order: bool) -> None:
    similarity, stretches = random_case(seed, query)
    spans = find_spans(similarity, stretches, 1000, 0.0, any_order)
    for stretch in np.unique(stretches):
        rows = np.flatnonzero(stretches == stretch)
        expected = sorted(slow_spans(similarity, rows[0], rows[-1] + 1, any_order), reverse=True)
        own = [span.score for span in spans if stretches[span.first] == stretch]
        assert own == pytest.approx(expected, abs=1e-5)
    for span in spans:
        assert stretches[span.first] == stretches[span.last]
        part = similarity[:, span.first : span.last + 1]
        assert part.max(axis=0)[span.best - span.first] == part.max()


@pytest.mark.parametrize("query", [1, 3])
@pytest.mark.parametrize("any_order", [False, True])
def test_moments_do_not_overlap_and_come_best_first(query: int, any_order: bool) -> None:
    for seed in range(20):
        similarity, stretches = random_case(seed, query)
        spans = find_spans(similarity, stretches, 1000, -1.0, any_order)
        scores = [span.score for span in spans]
        if query == 1:  # what is left beside a window can suit less wide a window better
            assert scores == sorted(scores, reverse=True)
        rows = [row for span in spans for row in range(span.first, span.last + 1)]
        assert len(rows) == len(set(rows))
        assert find_spans(similarity, stretches, 2, -1.0, any_order) == spans[:2]


def slow_peaks(scores: np.ndarray, stretches: np.ndarray, background: float) -> list[tuple[int, int, int]]:
    """Moments of a query of one frame, straight from their definition."""
    found: list[tuple[int, int, int]] = []
    taken: set[int] = set()

    def neighbours(row: int) -> list[int]:
        return [
            other
            for other in (row - 1, row + 1)
            if 0 <= other < len(scores) and stretches[other] == stretches[row]
        ]

    for peak in sorted(range(len(scores)), key=lambda row: (-scores[row], row)):
        if peak in taken or any(scores[other] > scores[peak] for other in neighbours(peak)):
            continue
        level, rows, reaches_better = (scores[peak] + background) / 2, {peak}, False
        edge = [peak]
        while edge:
            for other in neighbours(edge.pop()):
                if other in rows or scores[other] < level:
                    continue
                if other in taken:
                    reaches_better = True
                else:
                    rows.add(other)
                    edge.append(other)
        taken |= rows
        if not reaches_better:
            found.append((min(rows), max(rows), peak))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_frames_merge_into_moments_as_defined(seed: int) -> None:
    similarity, stretches = random_case(seed, 1)
    background = float(np.median(similarity))
    spans = find_spans(similarity, stretches, 1000, background)
    expected = slow_peaks(similarity[0].astype(float), stretches, background)
    assert [(span.first, span.last, span.best) for span in spans] == expected
    assert all(span.score == similarity[0, span.best] for span in spans)


def test_shoulder_belongs_to_its_hill_and_a_valley_parts_two() -> None:
    hill = np.array([[0.0, 0.6, 0.9, 0.58, 0.59, 0.1, 0.0, 0.8, 0.7, 0.0]], np.float32)
    spans = find_spans(hill, np.zeros(10, np.int64), 10, background=0.2)
    assert [(span.first, span.last) for span in spans][:2] == [(1, 4), (7, 8)]


def test_speeds_from_half_to_double_match_and_order_counts() -> None:
    sizes = 12
    same = np.eye(sizes, dtype=np.float32)
    zeros = np.zeros(sizes, np.int64)
    assert find_spans(same, zeros, 1, 0.0)[0].score == 1
    fast = same[:, ::2]  # twice as fast: every other frame
    assert find_spans(fast, zeros[::2], 1, 0.0)[0].score >= 0.5
    slow = np.repeat(same, 2, axis=1)  # half as fast
    assert find_spans(slow, np.repeat(zeros, 2), 1, 0.0)[0].score == 1
    backwards = same[:, ::-1]
    assert find_spans(backwards, zeros, 1, 0.0)[0].score < 0.3
    assert find_spans(backwards, zeros, 1, 0.0, any_order=True)[0].score == 1


def test_nothing_to_search_and_stretches_too_short() -> None:
    empty = np.zeros((3, 0), np.float32)
    assert find_spans(empty, np.zeros(0, np.int64), 5, 0.0) == []
    short = np.ones((9, 4), np.float32)  # nine frames at double speed need five
    assert find_spans(short, np.zeros(4, np.int64), 5, 0.0) == []
    assert find_spans(short, np.zeros(4, np.int64), 5, 0.0, any_order=True) == []
    assert least_frames(9) == 5 and find_spans(np.ones((9, 5), np.float32), np.zeros(5, np.int64), 5, 0.0)
