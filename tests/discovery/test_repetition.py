"""Repetition of signals whose period is known; the command on a swinging square."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import tce
from tce.cli import main
from tce.discovery.repetition import find_repetition
from tce.embedding.embedding_file import Embeddings, save_embeddings
from tce.errors import TceError
from tce.video.open_video import open_video
from tce.video.synthetic import write_video

NET = {"ckpt": "random", "model": "tinynet:small", "image_size": 32, "engine": "torch", "device": "cpu"}


def motion(periods: np.ndarray) -> np.ndarray:
    """A closed curve in 10 dimensions with some noise, run through at the given periods in frames."""
    rng = np.random.default_rng(0)
    phase = 2 * np.pi * np.cumsum(1 / periods)
    curve = np.stack([np.cos(phase), np.sin(phase), 0.5 * np.cos(2 * phase), 0.3 * np.sin(3 * phase)], axis=1)
    return curve @ rng.normal(size=(4, 10)) + 0.1 * rng.normal(size=(len(periods), 10))


@pytest.mark.parametrize("period", [8.0, 15.0, 23.5, 40.0])
def test_a_constant_period_is_found_between_frames(period: float) -> None:
    found = find_repetition(motion(np.full(400, period)), 4, 60, 0.3)
    assert found.total == pytest.approx(400 / period, rel=0.02)
    assert np.nanmedian(found.period) == pytest.approx(period, rel=0.02)


def test_a_changing_period_is_followed() -> None:
    periods = np.linspace(12, 30, 600)
    found = find_repetition(motion(periods), 4, 60, 0.3)
    assert found.total == pytest.approx((1 / periods).sum(), rel=0.03)
    np.testing.assert_allclose(found.period[60:-60], periods[60:-60], rtol=0.1)


def test_only_the_repeated_part_is_counted() -> None:
    rest = np.random.default_rng(1).normal(size=(150, 10))
    found = find_repetition(np.concatenate([rest, motion(np.full(300, 15.0)), rest]), 4, 60, 0.3)
    assert found.total == pytest.approx(20, abs=1.5)
    assert np.isnan(found.period[:100]).all() and np.isnan(found.period[-100:]).all()


def test_noise_does_not_repeat() -> None:
    assert find_repetition(np.random.default_rng(2).normal(size=(500, 10)), 4, 60, 0.3).total == 0


def swinging(path: Path, period: int, count: int) -> Path:
    """A bright square that swings to and fro, `period` frames each time, at 15 frames a second."""
    frames = np.full((count, 48, 48, 3), 30, np.uint8)
    for row in range(count):
        left = round(16 + 14 * np.sin(2 * np.pi * row / period))
        frames[row, 16:32, left : left + 16] = (230, 200, 40)
    write_video(path, frames, 15)
    return path


def test_a_swinging_square_is_counted_with_its_picture_and_table(tmp_path: Path) -> None:
    video = swinging(tmp_path / "swing.mp4", 20, 160)
    picture, table = tmp_path / "swing.png", tmp_path / "swing.csv"
    result = tce.cycles(video, output=picture, csv=table, longest=2.5, **NET)
    assert result.figures["count"] == pytest.approx(8, abs=0.5)
    assert result.figures["period"] == pytest.approx(20 / 15, abs=0.05)
    with open_video(picture) as image:
        assert min(image.size) > 300
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 160
    assert float(rows[-1]["count"]) == pytest.approx(result.figures["count"], abs=0.01)
    assert float(rows[80]["period"]) == pytest.approx(20 / 15, abs=0.1)


def test_stored_embeddings_are_counted_without_footage(tmp_path: Path) -> None:
    frame = np.arange(200)
    vectors = motion(np.full(200, 20.0)).astype(np.float32)
    save_embeddings(str(tmp_path / "a.npz"), Embeddings(vectors, np.full(200, "a.mp4"), frame, frame / 10))
    result = tce.cycles(tmp_path / "a.npz", shortest=0.5, longest=4)
    assert result.figures["period"] == pytest.approx(2, abs=0.05)


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = swinging(tmp_path / "short.mp4", 10, 20)
    with pytest.raises(TceError, match="--longest; expected at most half of the video"):
        tce.cycles(video, **NET)
    with pytest.raises(TceError, match=r"--shortest; expected at least 0.27 s, 4 frames"):
        tce.cycles(video, shortest=0.1, longest=0.6, **NET)
    still = tmp_path / "still.mp4"
    write_video(still, np.full((40, 32, 32, 3), 90, np.uint8), 15)
    with pytest.raises(TceError, match="frames that differ"):
        tce.cycles(still, longest=1, **NET)
    assert main(["cycles", str(tmp_path / "none.mp4")]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "none.mp4" in printed
