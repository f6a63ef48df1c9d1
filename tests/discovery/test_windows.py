"""Windows against a slow loop and closed forms; correlation times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tce.discovery.windows import WindowSpace, correlation_frames, fit_windows, window_blocks
from tce.errors import TceError


def test_blocks_are_those_of_a_loop() -> None:
    rows = np.random.default_rng(0).normal(size=(13, 3))
    half = 3
    found = window_blocks(rows, half)
    for at in range(len(rows)):
        before, after = rows[max(0, at - half) : at + 1], rows[at : at + half + 1]
        whole = rows[max(0, at - half) : at + half + 1]
        change = after.mean(axis=0) - before.mean(axis=0)
        expected = np.concatenate([whole.mean(axis=0), change, whole.std(axis=0)])
        np.testing.assert_allclose(found[at], expected, atol=1e-9)


def test_a_ramp_changes_by_half_a_window_and_a_reversed_one_by_its_negative() -> None:
    ramp = np.arange(40, dtype=float)[:, None]
    inner = window_blocks(ramp, 6)[6:-6]
    np.testing.assert_allclose(inner[:, 1], 6)  # both halves' means lie 3 from the middle
    np.testing.assert_allclose(window_blocks(ramp[::-1], 6)[6:-6, 1], -6)
    assert inner[:, 2] == pytest.approx(np.sqrt((13**2 - 1) / 12))  # of 13 equally spaced values


def test_the_spread_of_an_oscillation_does_not_depend_on_its_phase() -> None:
    wave = np.sin(2 * np.pi * np.arange(200) / 21)[:, None]
    np.testing.assert_allclose(window_blocks(wave, 10)[10:-10, 2], np.sqrt(0.5), atol=1e-6)


def test_stored_directions_describe_new_videos_as_the_fit_does(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(60, 9)).astype(np.float32)
    spans, rates = [slice(0, 40), slice(40, 60)], [10.0, 5.0]
    space, windows = fit_windows(vectors, spans, rates, 0.8, 0.5)
    np.savez(tmp_path / "space.npz", **space.arrays())
    with np.load(tmp_path / "space.npz") as arrays:
        again = WindowSpace.of(dict(arrays))
    np.testing.assert_allclose(again.describe(vectors, spans, rates), windows, atol=1e-4)
    alone = again.describe(vectors[40:], [slice(0, 20)], [5.0])  # no video sees another one
    np.testing.assert_allclose(alone, windows[40:], atol=1e-4)


def test_without_weight_for_change_only_the_means_count() -> None:
    vectors = np.random.default_rng(2).normal(size=(80, 4))
    space, windows = fit_windows(vectors, [slice(0, 80)], [10.0], 1.0, 0.0)
    means = window_blocks((vectors - space.frame_mean) @ space.frame_basis, 5)[:, :4]
    distances = np.linalg.norm(means[:, None] - means[None], axis=2)
    found = np.linalg.norm(windows[:, None] - windows[None], axis=2)
    assert np.corrcoef(distances.ravel(), found.ravel())[0, 1] == pytest.approx(1, abs=1e-6)


def test_equal_frames_are_refused() -> None:
    with pytest.raises(TceError, match="frames that differ"):
        fit_windows(np.ones((30, 4)), [slice(0, 30)], [10.0], 1.0, 0.5)


def test_correlation_time_of_an_autoregressive_process_is_its_closed_form() -> None:
    rng = np.random.default_rng(3)
    rows = np.zeros((20_000, 1))
    for at in range(1, len(rows)):
        rows[at] = 0.8 * rows[at - 1] + rng.normal()
    # 1 + 2 times the sum of 0.8^k is 9; it is cut where the correlation is below 0.05.
    whole = [slice(0, len(rows))]
    assert correlation_frames(rows, whole, 1.0) == pytest.approx(8.5, abs=1.0)
    shifted = np.concatenate([rows, rows + 100])  # a difference between videos is no correlation in time
    spans = [slice(0, len(rows)), slice(len(rows), len(shifted))]
    assert correlation_frames(shifted, spans, 1.0) == pytest.approx(8.5, abs=1.0)
    assert correlation_frames(rows, whole, 30.0) == 30.0
