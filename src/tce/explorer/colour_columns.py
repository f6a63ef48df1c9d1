"""What the points of a page can be coloured by: what is known of the clips, and the columns of a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError
from tce.explorer.page import PageColumn, category
from tce.explorer.sampled_clips import SampledClip

KEYS = ("path", "video", "clip", "id", "name", "file", "filename")
FEW = 12  # a column of numbers with at most so many distinct ones counts as classes

Extra = dict[str, dict[str, str]]  # by column, by clip: a text


def read_table_columns(path: str) -> Extra:
    """The columns of a table of clips, by name; each maps a clip, as the table names it, to a text.

    Raises:
        TceError: the table cannot be read, has no column that names the clips, or no other one.
    """
    from tce.data.tables import open_table

    place = Path(path)
    every: tuple[str, ...] = ()
    if place.suffix.lower() == ".parquet" and place.is_file():
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            every = tuple(name.strip().lower() for name in pq.read_schema(place).names)
        except (pa.ArrowException, OSError) as error:
            raise TceError(f"--table {path}", "a Parquet table", str(error).splitlines()[0][:100]) from error
    table = open_table(place, {"path": KEYS, "others": every})
    found = table.columns({"path": KEYS})
    others = [name for name in table.header if name and name not in KEYS]
    if "path" not in found or not others:
        raise TceError(
            f"--table {path}", "a header with a column `path` and others", ", ".join(table.header) or "none"
        )
    extra: Extra = {name: {} for name in others}
    for _, cells in table.rows():
        key = cells[found["path"]]
        for name in others:
            value = cells[table.header.index(name)]
            if key is not None and value is not None:
                extra[name][_key(key)] = value
    return extra


def _key(name: str) -> str:
    return os.path.normpath(name.replace("\\", "/")).replace(os.sep, "/")


def _lookup(clip: SampledClip, values: dict[str, str]) -> str | None:
    """What a table says of a clip, which it may name by path, path without suffix, or file name."""
    path = _key(clip.path)
    names = [path, os.path.splitext(path)[0], _key(clip.name), path.rpartition("/")[2]]
    names += [os.path.splitext(names[-1])[0]] + ([_key(os.path.abspath(clip.file))] if clip.file else [])
    return next((values[name] for name in names if name in values), None)


def clip_columns(
    clips: Sequence[SampledClip], owner: NDArray[np.int64], extra: Extra | None
) -> list[PageColumn]:
    """The columns of the page that are the same for all frames of a clip.

    Args:
        clips: in order.
        owner: [N], each frame's clip.
        extra: columns of `read_table_columns`.

    Raises:
        TceError: the table names none of the clips.
    """
    columns = []
    for name in ("class", "group", "split"):
        texts = [clip.columns.get(name) for clip in clips]
        if any(texts):
            columns.append(_spread(category(name, texts), owner))
    matched = False
    for name, values in (extra or {}).items():
        texts = [_lookup(clip, values) for clip in clips]
        matched |= any(text is not None for text in texts)
        columns.append(_spread(_column(name, texts), owner))
    if extra and not matched:
        first = next((key for values in extra.values() for key in values), "none")
        raise TceError("--table", f"clips as {clips[0].path}", f"none of them, but {first}")
    columns.append(_spread(category("video", [clip.name for clip in clips]), owner))
    return columns


def _column(name: str, texts: Sequence[str | None]) -> PageColumn:
    """Numbers where all texts are and there are more than a few; else a category."""
    try:
        numbers = np.array([np.nan if text is None else float(text) for text in texts])
    except ValueError:
        return category(name, texts)
    finite = numbers[np.isfinite(numbers)]
    if len(finite) == 0 or len(np.unique(finite)) <= FEW:
        return category(name, texts)
    return PageColumn(name, "number", np.where(np.isfinite(numbers), numbers, np.nan))


def _spread(column: PageColumn, owner: NDArray[np.int64]) -> PageColumn:
    return PageColumn(column.name, column.kind, column.values[owner], column.names)
