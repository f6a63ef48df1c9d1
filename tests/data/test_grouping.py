import numpy as np
import pytest

from tce.data.catalog import Catalog
from tce.data.grouping import group_names, matched, subtract_group_means
from tce.errors import OptionError, TceError


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
