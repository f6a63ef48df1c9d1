"""Columns of a table of clips, or of their segments or frames, looked up for the frames of a video."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tce.data.tables import Table, open_table
from tce.errors import TceError

KEYS = ("path", "video", "clip", "id", "name", "file", "filename")
STARTS = ("start", "start_time", "begin", "from", "time", "seconds")
ENDS = ("end", "end_time", "stop", "to")
FRAMES = ("frame", "frame_number", "start_frame")
FEW = 12  # a column of numbers with at most so many distinct ones counts as classes
TOLERANCE = 1e-3  # seconds by which a table's rounded times may differ from a frame's


@dataclass
class _Rows:
    """The rows of one clip.

    Attributes:
        start: where each begins, in seconds or frames; -inf for the whole clip.
        end: where it ends; NaN where the next row begins.
        cells: the table's columns.
    """

    start: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    cells: list[dict[str, str]] = field(default_factory=list)


class TableColumns:
    """A table with a column that names clips and others that say something of them.

    With a column `start` (and `end`) in seconds, or `time` or `frame`, a row is of a part of its clip: until
    `end`, or until the clip's next row.

    Attributes:
        names: of the columns, in the table's order, without those that name clips and times.
        first_clip: how the table names its first clip.
    """

    def __init__(self, table: Table, place: dict[str, int], names: Sequence[str], path: str):
        self.names = list(names)
        self.first_clip = "none"
        self._by_frame = "start" not in place and "frame" in place
        self._rows: dict[str, _Rows] = {}
        columns = {name: table.header.index(name) for name in names}
        key, start = place["path"], place.get("start", place.get("frame"))
        for number, cells in table.rows():
            clip = cells[key]
            if clip is None:
                continue
            if not self._rows:
                self.first_clip = clip
            rows = self._rows.setdefault(_normal(clip), _Rows())
            begin = float("nan") if start is None else table.seconds(cells[start], number)
            rows.start.append(-np.inf if np.isnan(begin) else begin)
            rows.end.append(table.seconds(cells[place["end"]], number) if "end" in place else float("nan"))
            known = {name: cells[column] for name, column in columns.items()}
            rows.cells.append({name: value for name, value in known.items() if value is not None})

    @classmethod
    def read(cls, path: str) -> TableColumns:
        """Read a .csv, .tsv or .parquet file.

        Raises:
            TceError: it cannot be read, has no column that names the clips, or no other one.
        """
        place = Path(path)
        if not place.exists():
            raise TceError(f"--table {path}", "a table", "nothing there", "check the path")
        table = open_table(place, {"path": KEYS, "others": _parquet_names(place)})
        found = table.columns({"path": KEYS, "start": STARTS, "end": ENDS, "frame": FRAMES})
        used = {table.header[number] for number in found.values()} | set(KEYS)
        others = list(dict.fromkeys(name for name in table.header if name and name not in used))
        if "path" not in found or not others:
            header = ", ".join(table.header) or "none"
            raise TceError(f"--table {path}", "a header with a column `path` and others", header)
        return cls(table, found, others, path)

    def values(
        self,
        name: str,
        clips: Iterable[str],
        time: NDArray[np.floating],
        frame: NDArray[np.int64] | None = None,
    ) -> list[str | None]:
        """What a column says of the frames of a clip; None where it says nothing.

        Args:
            name: of the column.
            clips: the clip's path and other names. The table may leave out leading folders and the suffix.
            time: [n] seconds of the frames.
            frame: [n] their numbers, for a table that goes by frames.
        """
        rows = next((self._rows[key] for clip in clips for key in _keys(clip) if key in self._rows), None)
        if rows is None:
            return [None] * len(time)
        where = np.asarray(frame if self._by_frame and frame is not None else time, np.float64) + TOLERANCE
        order = np.argsort(rows.start, kind="stable")
        start = np.array(rows.start)[order]
        row = np.searchsorted(start, where, side="right") - 1  # the last one that has begun
        out: list[str | None] = []
        for at, place in zip(where.tolist(), row.tolist()):
            number = int(order[place]) if place >= 0 else -1
            over = number < 0 or (
                rows.end[number] == rows.end[number] and at > rows.end[number] + 2 * TOLERANCE
            )
            out.append(None if over else rows.cells[number].get(name))
        return out


def as_numbers(texts: Sequence[str | None]) -> NDArray[np.float64] | None:
    """The texts as numbers [N], NaN for none, where all are numbers and more than a few distinct ones."""
    try:
        numbers = np.array([np.nan if text is None else float(text) for text in texts])
    except ValueError:
        return None
    finite = numbers[np.isfinite(numbers)]
    if len(finite) == 0 or len(np.unique(finite)) <= FEW:
        return None
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _normal(name: str) -> str:
    return os.path.normpath(name.replace("\\", "/")).replace(os.sep, "/")


def _keys(clip: str) -> Iterable[str]:
    """A clip's path, then ever fewer of its last parts, each with and without suffix."""
    parts = _normal(clip).split("/")
    for first in range(len(parts)):
        path = "/".join(parts[first:])
        yield path
        yield os.path.splitext(path)[0]


def _parquet_names(path: Path) -> tuple[str, ...]:
    """The columns of a Parquet file, which opens only those that are named; nothing of another file.

    Raises:
        TceError: it is no Parquet file.
    """
    if path.suffix.lower() != ".parquet":
        return ()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise TceError(f"--table {path}", "a Parquet table", str(error).splitlines()[0][:100]) from error
    return tuple(name.strip().lower() for name in schema.names)
