"""The subset against slow definitions, and what is written."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

import tce
from tce.errors import OptionError
from tce.retrieval.subset import farthest_points, outliers, typical_frames
from tests.helpers import blobs

NET = {"ckpt": "random", "model": "tinynet:linear_in_pixels", "image_size": 32, "device": "cpu"}


def vectors_of(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    found = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True), np.arange(count) // 8


@pytest.mark.parametrize("per_video", [None, 1, 2])
def test_each_next_frame_is_the_farthest_that_the_limit_allows(per_video: int | None) -> None:
    vectors, videos = vectors_of(0)
    rows, distances, radius = farthest_points(vectors, videos, 5, per_video)
    between = 1 - vectors.astype(np.float64) @ vectors.T
    for place in range(1, 5):
        before = rows[:place].tolist()
        allowed = [
            row
            for row in range(len(vectors))
            if row not in before
            and (per_video is None or sum(videos[one] == videos[row] for one in before) < per_video)
        ]
        far = {row: between[row, before].min() for row in allowed}
        assert far[rows[place]] == pytest.approx(max(far.values()), abs=1e-5)
        assert distances[place] == pytest.approx(far[rows[place]], abs=1e-5)
    assert radius == pytest.approx(between[:, rows].min(axis=1).max(), abs=1e-5)
    if per_video:
        assert np.bincount(videos[rows]).max() <= per_video


def test_outliers_and_typical_frames_of_a_plain_case() -> None:
    rng = np.random.default_rng(1)
    centers = np.eye(6, dtype=np.float32)
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    vectors = centers[labels] + rng.normal(0, 0.05, (60, 6)).astype(np.float32)
    vectors[17] = centers[5]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows, distance = outliers(vectors, np.arange(60) % 4, 3)
    assert rows[0] == 17 and distance[0] > 0.5 and len(set((rows % 4).tolist())) == 3
    rows, shares = typical_frames(vectors, 3, 0)
    assert labels[rows].tolist() == [0, 1, 2] and shares == pytest.approx([0.5, 1 / 3, 1 / 6], abs=0.02)
    rows, shares = typical_frames(np.repeat(vectors[:1], 9, axis=0), 4, 0)  # all frames equal
    assert len(rows) == 1 and shares.tolist() == [1.0]


def test_what_is_written_and_refused(tmp_path: Path) -> None:
    tce.index(blobs.write_folder(tmp_path / "videos"), db=tmp_path / "db", every=2, **NET)
    sheet, table = tmp_path / "frames.png", tmp_path / "frames.csv"
    result = tce.subset(
        tmp_path / "db", size=7, per_video=2, outliers=3, typical=2, csv=str(table), sheet=str(sheet)
    )
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert [row["kind"] for row in rows] == ["diverse"] * 7 + ["outlier"] * 3 + ["typical"] * 2
    assert len({(row["video"], row["frame"]) for row in rows[:7]}) == 7 and len(result) == 12
    assert cv2.imread(str(sheet)) is not None
    with pytest.raises(OptionError, match=r"--size; expected at most 5, .* --per-video 1"):
        tce.subset(tmp_path / "db", size=7, per_video=1)
