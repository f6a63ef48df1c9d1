"""Rows and data files of a collection's tables: which rows are which clip's, which are lost, compaction."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

    from tce.data.read_catalog import Catalog

log = logging.getLogger("tce.data")

_LOST, _NONE = -2, -9  # numbers of a frame that cannot be read, and of none; 0 counts on from neither


T = TypeVar("T")


def try_read(read: Callable[[], T]) -> tuple[T, None] | tuple[None, BaseException]:
    """What `read` returns, or the error it raises, a panic of Lance's over damaged bytes included."""
    try:
        return read(), None
    except Exception as error:
        return None, error
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of Rust; not an Exception
            return None, error
        raise


def read_rows(
    dataset: lance.LanceDataset, schema: pa.Schema, columns: list[str] | None = None
) -> tuple[pa.Table, int]:
    """A table's readable rows, and how many are lost to damaged data files."""
    import pyarrow as pa

    names = columns or schema.names
    whole, error = try_read(lambda: dataset.to_table(columns=names))
    if error is None:
        return whole, 0
    tables, lost = [], 0
    for fragment in dataset.get_fragments():  # some data file is damaged: take what can be read
        table, error = try_read(partial(fragment.to_table, columns=names))
        if error is None:
            tables.append(table)
        else:
            lost += fragment.count_rows()
    schema = pa.schema([schema.field(name) for name in names])
    return pa.concat_tables([schema.empty_table(), *tables]), lost


@dataclass(frozen=True)
class Runs:
    """Stretches of the table `frames` in which the frames' numbers count on: a clip each, n of them.

    Attributes:
        names: strings [n], the clips' ids; null where they cannot be read.
        starts: int64 [n], position of the first frame.
        lengths: int64 [n], how many frames.
        firsts: int64 [n], number of the first frame, 0 unless some are lost.
        order: None where positions are rows; else int64 [positions], the row of each position.
    """

    names: pa.Array
    starts: np.ndarray
    lengths: np.ndarray
    firsts: np.ndarray
    order: np.ndarray | None = None


def frame_runs(frames: lance.LanceDataset) -> Runs:
    """Which rows are which clip's.

    Only the numbers of the frames are read, file by file, and the clips' names where the numbers restart:
    a column of names as long as the frames would not fit into memory for a large collection.
    """
    starts, firsts, total = _jumps(frames)
    names = _names_at(frames, starts)
    if len(names.drop_null().unique()) != len(names) - names.null_count:
        # Some clip's rows do not lie together: another program has rewritten the table.
        return _sorted_runs(frames)
    return Runs(names, starts, np.diff(np.append(starts, total)), firsts)


def clip_starts(runs: Runs, ids: pa.Array, lengths: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """Where each clip's frames begin.

    Args:
        runs: as `frame_runs` found them.
        ids: the clips' ids, in the wanted order.
        lengths: int64 [clips], frames each clip should have.

    Returns:
        int64 [clips], position of each clip's first frame, -1 for a damaged clip; and the damaged clips' ids
        with the reason.
    """
    import pyarrow.compute as pc

    found = pc.index_in(ids, value_set=runs.names.drop_null()).fill_null(-1)
    known = np.flatnonzero(np.asarray(runs.names.is_valid()))
    run = np.append(known, -1)[np.asarray(found)]  # [clips], -1 for none
    if len(runs.starts) == 0:
        whole, starts = np.zeros(len(ids), dtype=bool), np.full(len(ids), -1, dtype=np.int64)
    else:
        whole = (run >= 0) & (runs.lengths[run] == lengths) & (runs.firsts[run] == 0)
        starts = np.where(whole, runs.starts[run], -1)
    damaged = {}
    for row in np.flatnonzero(~whole).tolist():
        left = 0 if run[row] < 0 else runs.lengths[run[row]]
        reason = f"{left} of its {lengths[row]} frames are left" if left else "its frames cannot be read"
        damaged[ids[row].as_py()] = reason
    return starts, damaged


def catalog_of(clips: pa.Table, classes: Sequence[str] | None = None) -> Catalog:
    """The catalog of rows of the table `clips`.

    Args:
        clips: the rows.
        classes: class names in the order of their numbers; sorted if not given, or if a label is missing.
    """
    from tce.data.read_catalog import Catalog

    labels = set(clips["label"].unique().to_pylist()) - {None}
    return Catalog(
        ids=clips["id"],
        paths=clips["path"],
        labels=clips["label"],
        splits=clips["split"],
        groups=clips["group"],
        sources=clips["source"],
        starts=np.asarray(clips["start"].fill_null(np.nan)),
        ends=np.asarray(clips["end"].fill_null(np.nan)),
        classes=classes if classes is not None and labels <= set(classes) else None,
    )


def first_line(error: BaseException | None) -> str:
    """The first line of an error's message, without the place in Lance's source that follows."""
    text = str(error).strip().splitlines()
    return re.sub(r", /\S+:\d+:\d+$", "", text[0])[:200] if text else type(error).__name__


def _worth_joining(dataset: lance.LanceDataset, small: int) -> bool:
    """Whether data files are so small that reading at random suffers, or hold deleted rows."""
    fragments = dataset.get_fragments()
    rows = [fragment.count_rows() for fragment in fragments]
    pairs = any(a < small and b < small for a, b in itertools.pairwise(rows))
    return pairs or any(fragment.num_deletions for fragment in fragments)


def compact(dataset: lance.LanceDataset, small: int, target_rows: int, age: timedelta) -> None:
    """Join data files of fewer than `small` rows, keeping the order, and delete versions older than `age`."""
    if _worth_joining(dataset, small):
        dataset.optimize.compact_files(
            target_rows_per_fragment=target_rows, materialize_deletions_threshold=0.0
        )
    dataset.cleanup_old_versions(older_than=age)


def drop_unreadable(dataset: lance.LanceDataset, column: str) -> int:
    """Take data files that cannot be read out of the table; how many.

    Their rows are lost anyway, and Lance neither deletes nor joins rows beside them.
    """
    import lance

    bad = [
        fragment.fragment_id
        for fragment in dataset.get_fragments()
        if try_read(partial(fragment.to_table, columns=[column]))[1] is not None
    ]
    if bad:
        operation = lance.LanceOperation.Delete([], bad, "true")
        lance.LanceDataset.commit(dataset.uri, operation, read_version=dataset.version)
    return len(bad)


def disk_error(error: BaseException) -> str:
    """The system's message in an error of Lance's about a disk that cannot be written; empty for others."""
    known = ("No space left on device", "Permission denied", "Read-only file system", "File too large")
    return next((words for words in known if words.lower() in str(error).lower()), "")


def _jumps(frames: lance.LanceDataset) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows at which the numbers do not just count on, int64 [n], their numbers, and the rows in all."""
    starts: list[np.ndarray] = []
    firsts: list[np.ndarray] = []
    total, before = 0, _NONE
    for numbers in _numbers(frames):
        steps = np.diff(numbers, prepend=before)
        places = np.flatnonzero((steps != 1) & ~((steps == 0) & (numbers == _LOST)))
        starts.append(places + total)
        firsts.append(numbers[places].astype(np.int64))
        total, before = total + len(numbers), numbers[-1]
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *starts]), np.concatenate([empty, *firsts]), total


def _numbers(frames: lance.LanceDataset) -> Iterator[np.ndarray]:
    """The column `index`, int32, in pieces; `_LOST` for rows that cannot be read."""
    for fragment in frames.get_fragments():
        # A fragment is read as a whole or not at all, so that damage in the middle cannot count rows twice.
        table, error = try_read(partial(fragment.to_table, columns=["index"]))
        if table is None:
            log.warning("a data file of the frames cannot be read: %s", first_line(error))
            yield np.full(fragment.count_rows(), _LOST, dtype=np.int32)
        elif len(table):
            yield np.asarray(table["index"])


def _names_at(frames: lance.LanceDataset, rows: np.ndarray) -> pa.Array:
    import pyarrow as pa

    if len(rows) == 0:
        return pa.array([], pa.string())
    table, _ = try_read(partial(frames.take, rows, columns=["clip"]))
    if table is not None:
        return table["clip"].combine_chunks()
    singly = [try_read(partial(frames.take, [int(row)], columns=["clip"]))[0] for row in rows]
    return pa.array([None if one is None else one["clip"][0].as_py() for one in singly], pa.string())


def _sorted_runs(frames: lance.LanceDataset) -> Runs:
    """The runs in an order that puts each clip's frames together; reads all names."""
    import pyarrow as pa

    codes, numbers = [], []
    known: dict[str, int] = {}
    for fragment in frames.get_fragments():
        table, _ = try_read(partial(fragment.to_table, columns=["clip", "index"]))
        if table is None:
            rows = fragment.count_rows()
            codes.append(np.full(rows, -1, dtype=np.int64))
            numbers.append(np.full(rows, _LOST, dtype=np.int32))
            continue
        coded = table["clip"].combine_chunks().dictionary_encode()
        own = [known.setdefault(name, len(known)) for name in coded.dictionary.to_pylist()]
        codes.append(np.array(own, dtype=np.int64)[np.asarray(coded.indices)])
        numbers.append(np.asarray(table["index"]))
    code, number = np.concatenate(codes), np.concatenate(numbers)
    order = np.lexsort((number, code))
    order = order[np.searchsorted(code[order], 0) :]  # without the lost ones
    starts, lengths = np.unique(code[order], return_index=True, return_counts=True)[1:]
    firsts = number[order][starts].astype(np.int64)
    return Runs(pa.array(list(known), pa.string()), starts, lengths, firsts, order)
