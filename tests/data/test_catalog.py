from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from tce.data.catalog import SKETCH_HASHES, Catalog, Clip, clip_sketch, describe_sketch, share_seen
from tce.errors import OptionError, TceError


def small() -> Catalog:
    return Catalog(
        ids=["Run/v_Run_g01_c01", "Run/v_Run_g01_c02", "Jump/v_Jump_g02_c01", "other/x"],
        paths=["Run/v_Run_g01_c01.avi", "Run/v_Run_g01_c02.avi", "/far/j.avi", "other/x.mp4"],
        labels=["Run", "Run", "Jump", None],
        splits=["train", "test", "train", None],
        root="/data",
    )


def test_rows() -> None:
    catalog = small()
    assert len(catalog) == 4
    assert catalog[0] == Clip(
        id="Run/v_Run_g01_c01",
        path="/data/Run/v_Run_g01_c01.avi",
        start=None,
        end=None,
        label="Run",
        split="train",
        group="g01",
        source="Run_g01",
    )
    assert catalog[-1].label is None and catalog[3].source == catalog[3].group == "other/x"
    assert [clip.id for clip in catalog] == catalog.ids.tolist()
    for row in (4, -5):
        with pytest.raises(IndexError):
            catalog[row]


def test_columns() -> None:
    catalog = small()
    assert catalog.classes == ["Jump", "Run"]
    assert catalog.labels.tolist() == [1, 1, 0, -1] and catalog.labels.dtype == np.int64
    assert catalog.paths.tolist()[2:] == ["/far/j.avi", "/data/other/x.mp4"]
    assert catalog.splits.tolist() == ["train", "test", "train", None]
    assert catalog.sources.tolist() == ["Run_g01", "Run_g01", "Jump_g02", "other/x"]
    assert catalog.groups.tolist() == ["g01", "g01", "g02", "other/x"]
    for numbers, names in (
        (catalog.source_numbers, catalog.sources),
        (catalog.group_numbers, catalog.groups),
    ):
        assert np.array_equal(numbers[:, None] == numbers, names[:, None] == names)
    assert np.isnan(catalog.starts).all() and np.isnan(catalog.ends).all()


def test_given_columns_are_kept() -> None:
    catalog = Catalog(
        ids=pa.chunked_array([["a"], ["b"]]),
        paths=np.array(["a.mp4", "b.mp4"]),
        labels=pa.array(["y", "x"]).dictionary_encode(),
        groups=["anna", None],
        sources=(name for name in ("film", "film")),
        starts=[0.0, np.nan],
        ends=np.array([1.5, np.nan]),
        classes=["z", "y", "x"],
    )
    assert catalog.classes == ["z", "y", "x"] and catalog.labels.tolist() == [1, 2]
    assert [(clip.group, clip.source, clip.start, clip.end) for clip in catalog] == [
        ("anna", "film", 0.0, 1.5),
        ("film", "film", None, None),
    ]


def test_select_and_where() -> None:
    catalog = small()
    assert catalog.select(np.array([True, False, False, True])).ids.tolist() == catalog.ids[[0, 3]].tolist()
    back = catalog.select([2, 0, 2])
    assert back.ids.tolist() == catalog.ids[[2, 0, 2]].tolist() and back.labels.tolist() == [0, 1, 0]
    assert back.sources.tolist() == ["Jump_g02", "Run_g01", "Jump_g02"]
    train = catalog.where("train")
    assert train.ids.tolist() == catalog.ids[[0, 2]].tolist()
    assert train.classes == catalog.classes  # numbers mean the same
    assert len(catalog.select([])) == 0 and catalog.select([]).sources.tolist() == []
    with pytest.raises(OptionError, match="test, train"):
        catalog.where("val")
    with pytest.raises(ValueError, match="a mask of 2 for 4"):
        catalog.select(np.array([True, False]))


def test_cut() -> None:
    pieces = small().cut([[(0.0, 1.0), (1.0, 2.5)], [], [(0.0, 9.0)], [(3.0, 4.0)]])
    assert pieces.ids.tolist() == [
        "Run/v_Run_g01_c01#0000",
        "Run/v_Run_g01_c01#0001",
        "Run/v_Run_g01_c02",
        "Jump/v_Jump_g02_c01#0000",
        "other/x#0000",
    ]
    assert pieces.sources.tolist() == ["Run_g01", "Run_g01", "Run_g01", "Jump_g02", "other/x"]
    assert pieces.groups.tolist() == ["g01", "g01", "g01", "g02", "other/x"]
    assert (pieces[1].start, pieces[1].end) == (1.0, 2.5) and pieces[2].start is None
    assert pieces[1].path == pieces[0].path == small()[0].path
    assert pieces.labels.tolist() == [1, 1, 1, 0, -1]


def test_pickles() -> None:
    catalog = small()
    twin = pickle.loads(pickle.dumps(catalog))
    assert list(twin) == list(catalog) and twin.classes == catalog.classes


def test_empty() -> None:
    catalog = Catalog([], [])
    assert len(catalog) == 0 and catalog.classes == []
    for column in (
        catalog.ids,
        catalog.paths,
        catalog.splits,
        catalog.sources,
        catalog.groups,
        catalog.labels,
    ):
        assert len(column) == 0


def test_columns_that_do_not_fit() -> None:
    with pytest.raises(TceError, match="a name of its own for each clip; found 'a' twice"):
        Catalog(["a", "b", "a"], ["1", "2", "3"])
    with pytest.raises(TceError, match="columns of one length"):
        Catalog(["a", "b"], ["1"])
    with pytest.raises(TceError, match="columns of one length"):
        Catalog(["a", "b"], ["1", "2"], sources=["s"])
    with pytest.raises(TceError, match="labels that are among the classes; found 'y'"):
        Catalog(["a", "b"], ["1", "2"], labels=["x", "y"], classes=["x"])


MILLION = """
import pyarrow as pa, tce.data.catalog
n = 1_000_000
def names():
    return (f"Class{i % 101}/v_Class{i % 101}_g{i % 25:02d}_c{i:07d}" for i in range(n))
catalog = tce.data.catalog.Catalog(
    ids=names(),
    paths=(f"{name}.avi" for name in names()),
    labels=(f"Class{i % 101}" for i in range(n)),
    splits=("train" if i % 4 else "test" for i in range(n)),
    root="/footage",
)
assert len(catalog.where("test")) == n // 4
assert catalog.source_numbers.max() == 101 * 25 - 1 and catalog.group_numbers.max() == 24
assert catalog[n - 1].id.endswith("c0999999")
held = sum(column.nbytes for column in vars(catalog).values() if hasattr(column, "nbytes"))
print(held, pa.default_memory_pool().max_memory())
"""


def test_a_million_clips_take_little_memory() -> None:
    # Bytes of the columns, counted: what the process holds besides depends on the allocator.
    done = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, check=True)
    held, peak = (int(number) / 1_000_000 for number in done.stdout.split())  # bytes a clip
    assert 100 < held < 180
    assert peak < 250  # while it is built; of the columns' strings alone


@pytest.mark.parametrize("seen, asked", [(range(50), range(25, 75)), (range(60), range(30))])
def test_few_clips_are_known_exactly(seen: range, asked: range) -> None:
    held = clip_sketch(f"clip{n}" for n in seen)
    assert share_seen((f"clip{n}" for n in asked), held) == len(set(seen) & set(asked)) / len(asked)


def test_many_clips_are_estimated_in_a_kilobyte() -> None:
    held = clip_sketch(f"clip{n}" for n in range(50_000))
    assert len(held) == 8 * SKETCH_HASHES <= 1024
    assert share_seen((f"clip{n}" for n in range(10_000, 30_000)), held) == 1.0
    assert share_seen((f"clip{n}" for n in range(40_000, 60_000)), held) == pytest.approx(0.5, abs=0.15)
    assert share_seen((f"clip{n}" for n in range(50_000, 90_000)), held) == 0.0
    assert share_seen([], held) == 0.0


def test_order_and_repetition_do_not_matter() -> None:
    assert clip_sketch(["b", "a", "b"]) == clip_sketch(["a", "b"])
    assert clip_sketch([]) == "" and share_seen(["a"], "") == 0.0


def test_a_description_counts_the_clips() -> None:
    assert describe_sketch("") == "0" and describe_sketch(clip_sketch(map(str, range(77)))) == "77"
    text = describe_sketch(clip_sketch(f"clip{n}" for n in range(9537)))
    assert text.startswith("about ") and float(text[6:].replace(",", "")) == pytest.approx(9537, rel=0.25)
    assert len(text) < 20 and describe_sketch("x" * 1024) == "unknown"
