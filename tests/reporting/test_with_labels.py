import numpy as np
import pytest

from tce.data.catalog import Catalog
from tce.reporting.with_labels import (
    LabelSplit,
    centred,
    clip_vectors,
    confused_pairs,
    label_figures,
    split_labels,
)


def catalog(labels, sources=None, splits=None, groups=None) -> Catalog:
    ids = [f"clip{n}" for n in range(len(labels))]
    return Catalog(ids, [f"{name}.mp4" for name in ids], labels, splits, groups, sources)


def test_the_lists_split_is_used_as_it_is():
    found = split_labels(catalog(list("abab"), splits=["train", "train", "test", "test"]), True, 0)
    ((train, test),) = found.folds
    assert train.tolist() == [0, 1] and test.tolist() == [2, 3] and found.classes == ["a", "b"]


def test_groups_are_held_out_whole_and_every_clip_is_tested_once():
    labels = ["a", "b"] * 20
    groups = [f"p{n // 4}" for n in range(40)]
    found = split_labels(catalog(labels, groups, groups=groups), False, 0)
    assert sorted(found.tested.tolist()) == list(range(40)) and len(found.folds) == 5
    for train, test in found.folds:
        assert not {groups[n] for n in train} & {groups[n] for n in test}
        assert not set(train.tolist()) & set(test.tolist())


@pytest.mark.parametrize(
    ("labels", "sources", "words"),
    [
        ([None, None, None], None, "no classes"),
        (["a", "a", "a"], None, "all labelled clips are of one class, 'a'"),
        (["a", "a", "b", "b"], ["r1", "r1", "r2", "r2"], "cannot be told from its recording"),
    ],
)
def test_why_there_is_no_split(labels, sources, words):
    assert words in split_labels(catalog(labels, sources), False, 0)


def test_a_class_of_one_recording_is_left_out_and_named():
    labels = ["a", "a", "b", "b", "c", "c"]
    sources = ["r1", "r2", "r3", "r4", "r5", "r5"]
    found = split_labels(catalog(labels, sources), False, 0)
    assert sorted(found.tested.tolist()) == [0, 1, 2, 3] and found.notes == [
        "left out: 1 classes that one of the groups alone shows"
    ]


def test_figures_of_classes_that_are_apart_and_of_ones_that_are_not():
    axes = np.eye(4, dtype=np.float32)
    labels = np.tile([0, 1], 12)
    folds = [(np.arange(12), np.arange(12, 24))]
    split = LabelSplit(folds, "", ["a", "b"], labels)
    groups = [f"g{n // 2}" for n in range(24)]
    apart = label_figures(axes[labels] + 0.01, split, groups, 3, 0)
    assert apart.knn.mean() == 1.0 and apart.linear.mean() == 1.0
    assert set(apart.few) == {1, 2, 5} and apart.few[1].shape == (20, 12) and apart.few[1].mean() == 1.0
    swapped = axes[np.where(np.arange(24) < 12, labels, 1 - labels)]
    wrong = label_figures(swapped, split, groups, 3, 0)
    assert wrong.knn.mean() == 0.0 and wrong.predicted.tolist() == (1 - labels[12:]).tolist()
    pairs = confused_pairs(labels[12:], wrong.predicted, ["a", "b"])
    assert sorted(pairs) == [("a", "b", 6), ("b", "a", 6)]


def test_a_clips_vector_is_the_mean_of_its_frames_of_all_pieces():
    pieces = [np.array([[2.0, 0], [0, 4]], np.float32), np.array([[0, 2.0]], np.float32)]
    owners = np.array([0, 0])
    assert clip_vectors(pieces, owners, 1, unit=True) == pytest.approx(np.array([[1 / 3, 2 / 3]]))
    assert clip_vectors(pieces, owners, 1, unit=False) == pytest.approx(np.array([[2 / 3, 2.0]]))


def test_centring_removes_what_a_group_shares():
    rows = np.array([[1.0, 0], [3, 0], [10, 1], [10, 3]], np.float32)
    assert centred(rows, ["p", "p", "q", "q"]).tolist() == [[-1, 0], [1, 0], [0, -1], [0, 1]]
