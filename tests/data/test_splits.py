import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tce.data.catalog import Catalog
from tce.data.splits import group_names, hold_out, label_subset, matched, subtract_group_means
from tce.errors import OptionError, TceError


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=80),
    st.floats(0.05, 0.6),
    st.integers(0, 3),
)
def test_groups_stay_whole_and_every_class_stays_in_training(pieces, share, seed):
    labels = np.array([label for label, _ in pieces])
    recordings = [f"{label}-{recording}" for label, recording in pieces]
    held, _ = hold_out(labels, recordings, share, seed)
    most = max(2 * share, 1 / 3)
    for label in set(labels.tolist()):
        clips = [i for i, own in enumerate(labels) if own == label]
        names = {recordings[i] for i in clips}
        assert not all(held[clips])
        assert len(clips) == 1 or any(held[clips])
        sizes = [sum(recordings[i] == name for i in clips) for name in names]
        if len(names) > 1 and min(sizes) <= most * len(clips):
            for name in names:
                assert len({bool(held[i]) for i in clips if recordings[i] == name}) == 1


def test_share_is_met_and_seeded():
    labels = np.repeat(np.arange(10), 100)
    recordings = [f"{label}-{i % 20}" for i, label in enumerate(labels)]
    held, strategy = hold_out(labels, recordings, 0.2, seed=1)
    assert strategy == "groups" and held.mean() == pytest.approx(0.2, abs=0.03)
    np.testing.assert_array_equal(held, hold_out(labels, recordings, 0.2, seed=1)[0])
    assert (held != hold_out(labels, recordings, 0.2, seed=2)[0]).any()


def test_a_person_is_held_out_from_every_class():
    draw = np.random.default_rng(0)
    labels, people = draw.integers(0, 30, 3000), draw.integers(0, 25, 3000)
    held, strategy = hold_out(labels, [f"g{person:02d}" for person in people], 0.1)
    assert strategy == "groups" and held.mean() == pytest.approx(0.1, abs=0.05)
    assert not set(people[held]) & set(people[~held])
    # Who alone shows a class stays in training, whatever another class would like.
    labels, people = np.array([0] * 8 + [1] * 2), list("aabbccddaa")
    for seed in range(8):
        held, _ = hold_out(labels, people, 0.25, seed)
        assert not held[:2].any() and held[2:8].any()


def test_single_recordings_give_their_last_pieces():
    held, strategy = hold_out(np.zeros(10, int), ["a"] * 10, 0.2)
    assert strategy == "pieces" and np.flatnonzero(held).tolist() == [8, 9]
    held, strategy = hold_out(np.zeros(20, int), ["a"] * 10 + ["b"] * 10, 0.1)  # half the class is too much
    assert strategy == "pieces" and np.flatnonzero(held).tolist() == [9, 19]
    held, strategy = hold_out(np.array([0]), ["a"], 0.5)
    assert strategy == "none" and not held.any()


def test_label_subsets_keep_every_class_and_nest():
    labels = np.repeat(np.arange(7), 30)
    ten, twenty = label_subset(labels, "10%", 3), label_subset(labels, "20%", 3)
    assert np.bincount(labels[ten]).tolist() == [3] * 7
    assert (twenty | ~ten).all()
    five = label_subset(labels, "5/class", 3)
    assert np.bincount(labels[five]).tolist() == [5] * 7
    assert np.bincount(labels[label_subset(labels, "99/class")]).tolist() == [30] * 7
    assert np.bincount(labels[label_subset(labels, "0.1%")]).tolist() == [1] * 7
    assert (label_subset(labels, "10%", 4) != ten).any()


@pytest.mark.parametrize(
    "amount", ["", "10", "0%", "101%", "-5/class", "0/class", "x%", "1.5/class", "5/clip"]
)
def test_nonsense_amounts_name_the_flag(amount):
    with pytest.raises(OptionError, match=r"--labels; expected a share such as 10% or a number such as"):
        label_subset(np.zeros(3, int), amount)


def catalog():
    names = [f"cam{c}/p{p}_{n}" for c in (1, 2) for p in (1, 2) for n in range(2)]
    return Catalog(names, names, groups=["x"] * 4 + ["y"] * 4, root="/data")


def test_groups_by_column_folder_and_pattern():
    clips = catalog()
    assert group_names(clips, "group") == ["x"] * 4 + ["y"] * 4
    assert group_names(clips, "folder") == ["/data/cam1"] * 4 + ["/data/cam2"] * 4
    assert group_names(clips, r"/(p\d+)_") == ["p1", "p1", "p2", "p2"] * 2


def test_what_names_no_groups_is_reported():
    clips = catalog()
    with pytest.raises(TceError, match="--group recording; expected groups of several clips; found 8 clips"):
        group_names(clips, "recording")
    with pytest.raises(OptionError, match="--center; expected group, recording, folder, or a pattern"):
        group_names(clips, "person", "--center")
    with pytest.raises(OptionError, match="missing"):
        matched(["a"], "(a")
    with pytest.raises(TceError, match="expected a match in the id of every clip; found none in 'b1'"):
        matched(["a1", "b1"], r"a(\d)")


def test_group_means_are_subtracted():
    rows = np.random.default_rng(0).normal(size=(7, 3)) + 5
    groups = ["a", "b", "a", "b", "b", "c", "a"]
    found = subtract_group_means(rows, groups)
    for name in "abc":
        own = np.array(groups) == name
        np.testing.assert_allclose(found[own], rows[own] - rows[own].mean(axis=0))
