from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tce.data import sampling
from tce.errors import OptionError
from tests.helpers.splitmix import slow_uniform

LENGTHS = [1, 5, 6, 8, 9, 27, 28]


def test_a_draw_does_not_depend_on_its_company() -> None:
    lengths, samples = np.arange(1, 50), np.arange(49)
    for draw in (
        lambda n, s: sampling.positive_pairs(n, 3, 7, s, 1, 5),
        lambda n, s: sampling.stacks(n, 3, 7, s),
        lambda n, s: sampling.segments(n, 3, 3, 7, s),
    ):
        whole = draw(lengths, samples)
        assert np.array_equal(whole[::-1], draw(lengths[::-1], samples[::-1]))
        assert np.array_equal(whole[[8]], draw(lengths[[8]], samples[[8]]))


def slow_pair(n: int, anchor: int, distance: int, forward: bool) -> tuple[int, int]:
    """Walk `distance` frames one way, or the other where the clip ends; less far if neither is enough."""
    while distance:
        for step in (distance, -distance) if forward else (-distance, distance):
            if 0 <= anchor + step < n:
                return anchor, anchor + step
        distance -= 1
    return anchor, anchor


@pytest.mark.parametrize("n", LENGTHS)
def test_pairs_equal_the_slow_ones(n: int) -> None:
    samples = np.arange(300)
    pairs = sampling.positive_pairs(np.full(300, n), 5, 2, samples, 2, 7)
    for sample, pair in zip(samples.tolist(), pairs.tolist()):
        anchor = int(slow_uniform(5, 2, sample, sampling.ANCHOR, 0) * n)
        distance = 2 + int(slow_uniform(5, 2, sample, sampling.DISTANCE, 0) * 6)
        forward = slow_uniform(5, 2, sample, sampling.DIRECTION, 0) < 0.5
        assert tuple(pair) == slow_pair(n, anchor, distance, forward)


@given(n=st.integers(1, 40), low=st.integers(1, 45), width=st.integers(0, 45), seed=st.integers(0, 99))
def test_pairs_stay_in_the_clip_and_in_the_window(n: int, low: int, width: int, seed: int) -> None:
    pairs = sampling.positive_pairs([n] * 20, seed, 0, np.arange(20), low, low + width)
    distance = np.abs(pairs[:, 1] - pairs[:, 0])
    assert pairs.min() >= 0 and pairs.max() < n
    longest = np.maximum(pairs[:, 0], n - 1 - pairs[:, 0])
    assert np.all(distance <= low + width) and np.all(distance >= np.minimum(low, longest))
    assert np.all(distance > 0) or n == 1


def test_both_ends_of_a_clip_are_anchors_like_any_other_frame() -> None:
    n, draws = 12, 60_000
    pairs = sampling.positive_pairs(np.full(draws, n), 0, 0, np.arange(draws), 1, 4)
    assert np.abs(np.bincount(pairs[:, 0], minlength=n) / draws - 1 / n).max() < 0.006
    for end, inwards in ((0, 1), (n - 1, -1)):  # reflected, so as many at each distance as in the middle
        steps = (pairs[pairs[:, 0] == end, 1] - end) * inwards
        assert set(steps) == {1, 2, 3, 4} and np.abs(np.bincount(steps)[1:] / len(steps) - 0.25).max() < 0.03
    middle = pairs[pairs[:, 0] == 6]
    assert abs(np.mean(middle[:, 1] > 6) - 0.5) < 0.03


def test_a_distance_in_seconds_means_the_same_at_any_rate() -> None:
    rates = np.array([60.0, 15.0])
    for sample in range(50):
        how = {"low": 0.2, "high": 0.2, "unit": "seconds", "fps": rates}
        pairs = sampling.positive_pairs([600, 150], 0, 0, [sample, sample], **how)  # type: ignore[arg-type]
        assert np.abs(pairs[:, 1] - pairs[:, 0]).tolist() == [12, 3]
    # Less than a frame apart is a frame apart.
    pair = sampling.positive_pairs([100], 0, 0, [0], 0.001, 0.001, "seconds", [25])
    assert abs(int(pair[0, 1] - pair[0, 0])) == 1


def test_windows_that_cannot_be() -> None:
    for low, high in ((0, 3), (-1, 3), (4, 3)):
        with pytest.raises(OptionError, match="0 < low <= high"):
            sampling.positive_pairs([10], 0, 0, [0], low, high)
    with pytest.raises(OptionError, match="frame rates"):
        sampling.positive_pairs([10], 0, 0, [0], 1, 2, "seconds")


@pytest.mark.parametrize("n", LENGTHS)
def test_stacks(n: int) -> None:
    drawn = sampling.stacks(np.full(500, n), 0, 0, np.arange(500))
    starts = set()
    for stack in drawn.tolist():
        first = stack[0]
        assert stack == [min(first + i, n - 1) for i in range(6)]  # a short clip repeats its last frame
        starts.add(first)
    assert starts == set(range(max(1, n - 5)))  # up to both ends
    wide = sampling.stacks(np.full(500, n), 0, 0, np.arange(500), count=3, every=2)
    assert set(wide[:, 0].tolist()) == set(range(max(1, n - 4))) and wide.max() < n


@pytest.mark.parametrize("n", [*LENGTHS, 46, 47, 300])
def test_test_positions_are_the_released_ones(n: int) -> None:
    released = [1 + i * (max(0, n - 9) // 19) for i in range(19)]  # counted from 1, as it was written
    assert sampling.test_positions(n).tolist() == [start - 1 for start in released]
    frames = sampling.stack_at([n] * 19, sampling.test_positions(n))
    assert frames.shape == (19, 6) and frames.min() >= 0 and frames.max() < n


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("span", [1, 6])
def test_segments(n: int, span: int) -> None:
    count = 3
    drawn = sampling.segments(np.full(2000, n), count, 0, 0, np.arange(2000), span)
    starts = max(1, n - span + 1)
    for part in range(count):
        first, stop = part * starts // count, (part + 1) * starts // count
        assert set(drawn[:, part].tolist()) == set(range(first, max(stop, first + 1)))
    assert drawn.max() < starts and np.all(np.diff(drawn, axis=1) >= 0)


def test_spread_and_whole() -> None:
    assert sampling.spread(10, 1).tolist() == [5]
    assert sampling.spread(9, 3).tolist() == [1, 4, 7]
    assert sampling.spread(1, 4).tolist() == [0, 0, 0, 0]
    assert sampling.whole(7, 3).tolist() == [0, 3, 6] and sampling.whole(1, 5).tolist() == [0]


@settings(max_examples=50)
@given(n=st.integers(1, 400), count=st.integers(1, 40))
def test_spread_is_even(n: int, count: int) -> None:
    places = sampling.spread(n, count)
    assert places.min() >= 0 and places.max() < n
    assert np.array_equal(places, [int((i + 0.5) * n / count + 1e-9) for i in range(count)])
    assert np.ptp(np.diff(places)) <= 1 if count > 1 else True
