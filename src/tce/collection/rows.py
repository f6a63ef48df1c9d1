"""From a collection's rows to arrays: which rows of `frames` are which clip's, and which are lost."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

    from tce.video.catalog import Catalog

log = logging.getLogger("tce.collection")

_LOST = -2  # a frame's number that cannot be read; no frame counts on from it, as 0 would from -1


T = TypeVar("T")


def attempt(read: Callable[[], T]) -> tuple[T, None] | tuple[None, BaseException]:
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
    whole, error = attempt(lambda: dataset.to_table(columns=names))
    if error is None:
        return whole, 0
    tables, lost = [], 0
    for fragment in dataset.get_fragments():  # some data file is damaged: take what can be read
        table, error = attempt(partial(fragment.to_table, columns=names))
        if error is None:
            tables.append(table)
        else:
            lost += fragment.count_rows()
    schema = pa.schema([schema.field(name) for name in names])
    return pa.concat_tables([schema.empty_table(), *tables]), lost


def frame_rows(
    frames: lance.LanceDataset, ids: Sequence[str], lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, dict[str, str]]:
    """Where each clip's frames are.

    Only the numbers of the frames are read, and the clips' names where the numbers start anew: a column of
    names as long as the frames would not fit into memory for a large collection.

    Args:
        frames: the table `frames`.
        ids: the clips' ids, in the wanted order.
        lengths: int64 [clips], frames each clip should have.

    Returns:
        int64 [clips] row of each clip's first frame, -1 for a damaged clip; None, or the order int64 [rows]
        through which these positions have to be looked up; the damaged clips' ids with the reason.
    """
    index = _indices(frames)
    heads, names = frame_heads(frames, index)
    order = None
    runs = np.diff(np.append(heads, len(index)))
    known = [name for name in names if name is not None]
    if len(set(known)) != len(known):
        # Some clip's rows do not lie together: another program has rewritten the table.
        heads, runs, names, order = _sorted_rows(frames)
        index = index[order]
    where = {name: run for run, name in enumerate(names) if name is not None}
    starts = np.full(len(ids), -1, dtype=np.int64)
    damaged: dict[str, str] = {}
    for row, clip in enumerate(ids):
        run = where.get(clip)
        if run is None:
            damaged[clip] = "its frames are missing or cannot be read"
        elif runs[run] != lengths[row] or index[heads[run]] != 0:
            damaged[clip] = f"{runs[run]} of its {lengths[row]} frames are left"
        else:
            starts[row] = heads[run]
    return starts, order, damaged


def frame_heads(
    frames: lance.LanceDataset, index: np.ndarray | None = None
) -> tuple[np.ndarray, list[str | None]]:
    """Rows at which another clip begins, int64 [n], and that clip's id; None where it cannot be read."""
    heads = _heads(_indices(frames) if index is None else index)
    return heads, _names_at(frames, heads)


def catalog_of(clips: pa.Table, classes: Sequence[str] | None = None) -> Catalog:
    """The catalog of rows of the table `clips`.

    Args:
        clips: the rows.
        classes: class names in the order of their numbers; sorted if not given, or if a label is missing.
    """
    from tce.video.catalog import Catalog

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
    """The beginning of an error's message: Lance's go on with places in its source."""
    text = str(error).strip().splitlines()
    return re.sub(r", /\S+:\d+:\d+$", "", text[0])[:200] if text else type(error).__name__


def _indices(frames: lance.LanceDataset) -> np.ndarray:
    """int32 [rows], the column `index`; `_LOST` for rows that cannot be read."""
    whole, error = attempt(lambda: frames.to_table(columns=["index"]))
    if whole is not None:
        return np.asarray(whole["index"])
    parts = []
    for fragment in frames.get_fragments():
        part, error = attempt(partial(fragment.to_table, columns=["index"]))
        if part is not None:
            parts.append(np.asarray(part["index"]))
        else:
            log.warning("a data file of the frames cannot be read: %s", first_line(error))
            parts.append(np.full(fragment.count_rows(), _LOST, dtype=np.int32))
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)


def _heads(index: np.ndarray) -> np.ndarray:
    """Rows at which the numbers do not just count on: the first frames of the clips."""
    if len(index) == 0:
        return np.empty(0, dtype=np.int64)
    lost = index == _LOST
    jumps = (index[1:] != index[:-1] + 1) & ~(lost[1:] & lost[:-1])
    return np.concatenate([[0], np.flatnonzero(jumps) + 1])


def _names_at(frames: lance.LanceDataset, rows: np.ndarray) -> list[str | None]:
    if len(rows) == 0:
        return []
    table, _ = attempt(lambda: frames.take(rows, columns=["clip"]))  # type: ignore[arg-type]
    if table is not None:
        return table["clip"].to_pylist()
    singly = [attempt(partial(frames.take, [int(row)], columns=["clip"]))[0] for row in rows]
    return [None if one is None else one["clip"][0].as_py() for one in singly]


def _sorted_rows(
    frames: lance.LanceDataset,
) -> tuple[np.ndarray, np.ndarray, list[str | None], np.ndarray]:
    """First position, number of frames and name of each clip, in an order that puts its frames together."""
    import pyarrow as pa
    import pyarrow.compute as pc

    codes, index = [], []
    known: dict[str, int] = {}
    for fragment in frames.get_fragments():
        table, _ = attempt(partial(fragment.to_table, columns=["clip", "index"]))
        if table is None:
            rows = fragment.count_rows()
            codes.append(np.full(rows, -1, dtype=np.int64))
            index.append(np.zeros(rows, dtype=np.int32))
            continue
        coded = pc.dictionary_encode(table["clip"].combine_chunks())
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        own = np.array(
            [known.setdefault(name, len(known)) for name in coded.dictionary.to_pylist()], np.int64
        )
        codes.append(own[np.asarray(coded.indices)])
        index.append(np.asarray(table["index"]))
    ids: list[str | None] = list(known)
    code = np.concatenate(codes)
    order = np.lexsort((np.concatenate(index), code))
    order = order[np.searchsorted(code[order], 0) :]
    heads, runs = np.unique(code[order], return_index=True, return_counts=True)[1:]
    return heads, runs, ids, order
