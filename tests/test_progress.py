from __future__ import annotations

import pytest

from tce.progress import Progress, format_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (44.6, "45 s"),
        (59.7, "1 min"),
        (725, "12 min"),
        (3599, "1 h 0 min"),
        (105558, "29 h 19 min"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_the_time_left_is_in_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress(1001, "training", "step")
    now[0] = 100.0
    progress.update(1)
    assert progress.line(loss=0.5) == "training: 1/1001 steps, 0.0/s, 27 h 47 min left, loss 0.5"


def test_a_total_that_was_too_low_is_no_longer_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress(400, "embedding", "frame")
    now[0] = 20.0
    progress.update(504)
    assert progress.line() == "embedding: 504 frames, 25.2/s"
