"""Agreement with labels in closed form and on a worked example; tables of labels; baselines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tce.discovery.label_scores import agreement, baselines, label_frames, read_label_spans, segment_f1
from tce.errors import TceError


def row(text: str) -> np.ndarray:
    """Digits as labels, a dot for none."""
    return np.array([-1 if one == "." else int(one) for one in text], np.int64)


def test_renamed_clusters_agree_completely() -> None:
    same = agreement([row("00011122"), row("2200")], [row("55533399"), row("9955")])
    assert (same.adjusted_rand, same.mutual_information, same.accuracy) == pytest.approx((1, 1, 1))
    assert same.f1 == (1, 1, 1)


def test_one_cluster_agrees_with_the_largest_label_only() -> None:
    got = agreement([row("0001122.")], [row("33333333")])
    assert got.adjusted_rand == 0 and got.accuracy == pytest.approx(3 / 7)
    # One segment of seven frames, against a true one of three: 3 / 7 of their union.
    assert got.f1 == pytest.approx((2 / 4, 2 / 4, 0))


def test_segment_f1_of_a_worked_example() -> None:
    truth, found = [row("0000011111")], [row("0001111011")]
    # Runs 0:[0,3) 1:[3,7) 0:[7,8) 1:[8,10), their share of the union with a true run: 3/5, 2/7, none, 2/5.
    assert segment_f1(truth, found, 0.5) == pytest.approx(2 * 1 / (1 + 3 + 2))
    # At 25% both ones overlap the same true run; one of them counts.
    assert segment_f1(truth, found, 0.25) == pytest.approx(2 * 2 / (2 + 2 + 2))


def test_unlabelled_frames_do_not_count() -> None:
    assert agreement([row("00..11")], [row("770099")]).accuracy == 1


def test_baselines_know_less_than_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = [np.repeat(rng.permutation(4), rng.integers(5, 40, 4)) for _ in range(6)]
    raw = [np.eye(4)[one] * 2.5 + rng.normal(size=(len(one), 4)) for one in truth]
    by = baselines(truth, truth, 4, raw, 0)
    assert all(by[name].adjusted_rand < 0.6 for name in ("chance", "uniform"))
    assert by["k-means on frozen features"].accuracy > 0.75
    assert by["k-means on frozen features"].f1[2] < 0.8  # single frames flicker
    assert set(baselines(truth, truth, 4, None, 0)) == {"chance", "uniform"}


def test_labels_find_their_videos_by_path_name_or_stem(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("video,start_s,end_s,label\na.mp4,0,1,walk\nb,0.5,2,rest\n")
    times = [np.arange(4) / 2, np.arange(4) / 2]
    found, names = label_frames(read_label_spans(str(path)), ["/x/a.mp4", "/x/b.mp4"], times, str(path))
    assert names == ["rest", "walk"]
    assert [one.tolist() for one in found] == [[1, 1, -1, -1], [-1, 0, 0, 0]]


def test_labels_of_one_video_need_no_name(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("start,end,label\n0,1,walk\n")
    found, _ = label_frames(read_label_spans(str(path)), ["v.mp4"], [np.array([0.0, 2.0])], str(path))
    assert found[0].tolist() == [0, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,start,label\na,0,x\n", "no end"),
        ("video,start,end,label\na,2,1,x\n", "line 2; expected a start before its end; found 2 to 1"),
        ("video,start,end,label\na,0,x,x\n", "times in seconds"),
        ("video,start,end,label\n", "labelled stretches; found none"),
    ],
)
def test_bad_labels_are_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(TceError, match=message):
        read_label_spans(str(path))


def test_labels_of_other_videos_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("video,start,end,label\nother.mp4,0,9,x\n")
    with pytest.raises(TceError, match=r"labels of videos as a\.mp4; found labels of other\.mp4"):
        label_frames(read_label_spans(str(path)), ["a.mp4", "b.mp4"], [np.arange(3.0)] * 2, str(path))
