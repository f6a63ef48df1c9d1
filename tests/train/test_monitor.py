from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tce.data.open_data import open_store
from tce.errors import TceError
from tce.model.encoder import build_encoder
from tce.train.monitor import CollapseWatch, Monitor, has_rivals, knn_accuracy, learned_nothing


def slow_knn(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, k: int) -> float:
    right = 0
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if groups[j] != groups[i]]
        others.sort(key=lambda j: -float(features[i] @ features[j]))
        votes: dict[int, float] = {}
        for j in others[:k]:
            votes[labels[j]] = votes.get(labels[j], 0.0) + math.exp(float(features[i] @ features[j]) / 0.07)
        right += max(votes, key=lambda label: votes[label]) == labels[i]
    return right / len(labels)


def test_knn_follows_a_slow_oracle() -> None:
    rng = np.random.default_rng(0)
    for clips, k in ((40, 10), (40, 3), (8, 10)):
        features = rng.normal(size=(clips, 16)).astype(np.float32)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        labels, groups = rng.integers(0, 4, clips), rng.integers(0, 3, clips)
        found = knn_accuracy(torch.from_numpy(features), labels, groups, k)
        assert found == slow_knn(features, labels, groups, k)


def test_pieces_of_one_recording_have_no_vote() -> None:
    """Recordings are far apart, so that a clip's own would always win."""
    recording = torch.nn.functional.one_hot(torch.arange(40) % 4, 8).float()
    features = torch.nn.functional.normalize(recording + 0.1 * torch.randn(40, 8), dim=1)
    labels = np.arange(40) % 4 // 2  # two recordings a class
    assert knn_accuracy(features, labels, np.arange(40)) == 1.0
    assert knn_accuracy(features, labels, np.arange(40) % 4) < 0.8


def test_only_classes_with_two_groups_are_evaluated() -> None:
    labels = np.array([0, 0, 1, 1, 2, -1])
    groups = np.array([0, 1, 0, 0, 5, 6])
    rows = np.flatnonzero(labels >= 0)
    assert has_rivals(labels, groups, rows).tolist() == [True, True, False, False, False]


def test_clips_that_cannot_be_read_are_not_evaluated(clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    store = open_store(tmp_path / "clips")
    encoder = build_encoder("tinynet:small", embedding_size=8, image_size=16, seed=0)
    whole = Monitor(store, 16, 100, 1, "float32", "squash")
    others = np.flatnonzero(np.arange(len(store)) % 3 != 1)
    expected = Monitor(store.select(others), 16, 100, 1, "float32", "squash")(encoder)
    for row in set(range(len(store))) - set(others.tolist()):
        for frame in (tmp_path / "clips" / store.catalog.ids[row]).iterdir():
            frame.write_bytes(b"")
    found = whole(encoder)
    assert found == pytest.approx(expected, rel=1e-5)
    for frame in (tmp_path / "clips").rglob("*.jpg"):
        frame.write_bytes(b"")
    with pytest.raises(TceError, match="none of the monitor's clips could be read"):
        whole(encoder)


def test_a_collapse_is_reported_once_and_only_after_the_start() -> None:
    watch = CollapseWatch()
    assert all(watch.see(rank, 0.01) is None for rank in (40.0, 5.0, 2.0, 2.0)), (
        "an untrained network's rank is low"
    )
    assert all(watch.see(rank, 0.1) is None for rank in (10.0, 20.0, 30.0, 30.0, 25.0, 30.0))
    reported = [watch.see(2.0, 0.5) for _ in range(12)]
    assert sum(news is not None for news in reported) == 1
    first = next(news for news in reported if news)
    assert "collapsing: effective rank" in first
    assert reported[0] is None, "one poor batch is no collapse"


def test_embeddings_that_are_the_same_from_the_first_step_are_reported_once() -> None:
    watch = CollapseWatch()
    assert watch.see(1.0, 0.01) is None
    reported = [watch.see(1.0, share) for share in (0.1, 0.2, 0.3)]
    assert (
        reported[0]
        and "the embeddings of all clips are the same" in reported[0]
        and reported[1:] == [None, None]
    )


UNTRAINED = {"rank_all": 8.0, "knn": 0.4}


@pytest.mark.parametrize(
    ("last", "nothing"),
    [
        ({"contrast": 3.0, "rank_all": 1.5, "knn": 0.3}, True),
        ({"contrast": 3.0, "rank_all": 1.5}, True),  # no kNN to speak for it
        ({"contrast": 2.5, "rank_all": 1.5, "knn": 0.3}, False),  # the loss fell
        ({"contrast": 3.0, "rank_all": 7.0, "knn": 0.3}, False),  # not collapsed
        ({"contrast": 3.0, "rank_all": 1.5, "knn": 0.5}, False),  # kNN rose
        ({"contrast": 3.0}, False),  # no monitor: unknown
    ],
)
def test_a_run_that_learned_nothing(last: dict[str, float], nothing: bool) -> None:
    reported = learned_nothing(UNTRAINED if "knn" in last else {"rank_all": 8.0}, last, chance=3.01)
    assert (reported is not None) == nothing


def test_the_watch_goes_on_after_a_resume() -> None:
    ranks = [20.0] * 10 + [2.0] * 10
    whole, first = CollapseWatch(), CollapseWatch()
    reported = [whole.see(rank, 0.5) for rank in ranks]
    begun = [first.see(rank, 0.5) for rank in ranks[:12]]
    second = CollapseWatch()
    second.load_state_dict(first.state_dict())
    assert begun + [second.see(rank, 0.5) for rank in ranks[12:]] == reported
