import numpy as np
import pytest

from tce.reporting.verdict import LEAST_RECORDINGS, collapse, difference, difference_words, verdict


def names(count: int, clips: int = 2) -> list[str]:
    return [f"r{number:02d}" for number in range(count) for _ in range(clips)]


def compared(change, count: int, clips: int = 2):
    """A start that is right half of the time, and a network that differs by `change` (one value a clip)."""
    start = np.full(count * clips, 0.5)
    return difference(start, start + change, names(count, clips), 0)


def test_a_difference_counts_recordings_and_means():
    change = np.array([0.5, 0.5, 0.0, 0.2, -0.5, 0.5, -0.1, -0.1])  # means 0.5, 0.1, 0, -0.1
    found = compared(change, 4)
    assert (found.better, found.worse, found.recordings) == (2, 1, 4)
    assert found.gain == pytest.approx(change.mean())
    assert found.each == pytest.approx({"r00": 0.5, "r01": 0.1, "r02": 0.0, "r03": -0.1})


def test_clips_without_a_value_are_left_out_on_both_sides():
    start = np.array([1.0, np.nan, 0.0, 0.0])
    other = np.array([1.0, 1.0, np.nan, 1.0])
    found = difference(start, other, ["a", "b", "c", "d"], 0)
    assert found.recordings == 2 and found.start == 0.5 and found.other == 1.0
    assert difference(start[1:2], other[1:2], ["b"], 0) is None


@pytest.mark.parametrize(
    ("change", "count", "decision", "words"),
    [
        (0.12, 50, "better", "better on 50 of 50 recordings, +12 points [12, 12]"),
        (-0.03, 12, "worse", "worse on 12 of 12 recordings, -3.0 points [-3.0, -3.0]"),
        (
            0.0,
            30,
            "none",
            "no difference seen: 0.0 points [0.0, 0.0], better on 0 and worse on 0 of 30 recordings",
        ),
        (0.4, 6, "too little", "too little footage to tell: 6 recordings"),
        (0.4, 1, "too little", "too little footage to tell: 1 recording"),
    ],
)
def test_the_rules_in_words(change, count, decision, words):
    found = verdict(compared(np.full(2 * count, change), count), count)
    assert found.decision == decision
    assert found.text == words
    assert found.advice == ("use it" if decision == "better" else "keep the start")


def test_near_the_ceiling_nothing_is_told_without_labels():
    start = np.full(40, 0.97)
    found = difference(start, start + 0.02, names(20), 0)
    without = verdict(found, 20, labelled=False)
    assert without.decision == "none" and without.advice == "keep the start"
    assert "97.0% of the frames find their own clip with the start, +2.0 points" in without.text
    assert verdict(found, 20).decision == "better"
    worse = difference(start, start - 0.02, names(20), 0)
    assert verdict(worse, 20, labelled=False).decision == "worse"


def test_an_interval_that_holds_zero_is_no_difference():
    change = np.tile([0.5, -0.4], 20)
    found = compared(np.repeat(change, 2), 40)
    assert found.interval[0] < 0 < found.interval[1]
    assert verdict(found, 40).decision == "none"


def test_nothing_measured_is_too_little():
    assert verdict(None, 3).text == "too little footage to tell: 3 recordings"
    assert LEAST_RECORDINGS > 3


def test_a_collapsed_network_is_not_used_however_well_it_does():
    words = collapse(rank=2.0, start_rank=40.0, across=0.5, start_across=0.4)
    found = verdict(compared(np.full(40, 0.3), 20), 20, words)
    assert found.decision == "collapsed" and "effective rank is 2.0, the start's 40.0" in found.text
    assert collapse(30.0, 40.0, 0.001, 0.4) and not collapse(30.0, 40.0, 0.3, 0.4)
    assert not collapse(30.0, 40.0, 0.001, 0.001), "the start is no less alike"
    assert not collapse(None, None, None, None)


def test_points_are_whole_from_ten_on():
    assert difference_words(compared(np.full(20, 0.1234), 10)) == "+12 points [12, 12]"
    assert difference_words(compared(np.full(20, -0.0412), 10)) == "-4.1 points [-4.1, -4.1]"
