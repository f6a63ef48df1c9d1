"""The frames of an opened index as columns: which video and when, their vectors and small pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError
from tce.retrieval.frame_table import IndexSettings, VideoRecord, open_frames, read_frames, read_videos

if TYPE_CHECKING:
    import lance

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

PROBES = 50  # partitions of the approximate index that are looked at
FIRST_HITS, MOST_HITS = 200, 20_000  # frames asked of the approximate index, for each frame of the query
AROUND = 64  # rows on both sides of such a frame that are scored exactly


class IndexedFrames:
    """The frames of an index at its latest version, in the order of video and frame.

    Attributes:
        db: the database.
        settings: what all vectors have in common.
        videos: the indexed videos by name.
        names: the videos' names.
        code: int64 [N], each frame's video, a place in `names`.
        frame: int64 [N], frame numbers.
        time: float64 [N], seconds.

    Raises:
        TceError: damaged, or without frames.
    """

    def __init__(self, db: str, settings: IndexSettings):
        self.db, self.settings = db, settings
        self.videos: dict[str, VideoRecord] = read_videos(db, settings)
        self._table: lance.LanceDataset = read_frames(db, lambda: open_frames(db, settings.name))
        columns = read_frames(
            db, lambda: self._table.to_table(columns=["video", "frame", "time"], with_row_id=True)
        )
        names = columns["video"].combine_chunks().dictionary_encode()
        self.names: list[str] = names.dictionary.to_pylist()
        code, frame = np.asarray(names.indices), np.asarray(columns["frame"])
        order = np.lexsort((frame, code))
        known = np.array([name in self.videos for name in self.names] or [False], bool)
        if len(order):  # frames without a video do not count
            order = order[known[code[order]]]
        if not len(order):
            raise TceError(f"index {db}", "frames", "none", "index some footage: tce index FOOTAGE ...")
        self._order = order
        self.code = code[order].astype(np.int64)
        self.frame, self.time = frame[order], np.asarray(columns["time"])[order]
        self._ids = np.asarray(columns["_rowid"])[order]

    def __len__(self) -> int:
        return len(self._order)

    def vectors(self, rows: Rows) -> Vectors:
        """Unit vectors float32 [n, D] of some rows."""
        table = read_frames(self.db, lambda: self._table.take(self._order[rows], columns=["vector"]))
        return _matrix(table["vector"], self.settings.size)

    def thumbnails(self, rows: Rows) -> list[bytes]:
        """Small pictures of some rows, JPEG files."""
        table = read_frames(self.db, lambda: self._table.take(self._order[rows], columns=["thumbnail"]))
        found: list[bytes] = table["thumbnail"].to_pylist()
        return found

    def all_vectors(self) -> Vectors:
        """Unit vectors float32 [N, D] of all rows; reads the table once."""
        found = np.empty((self._table.count_rows(), self.settings.size), np.float32)
        self._each_part(lambda first, part: found.__setitem__(slice(first, first + len(part)), part))
        return found if np.array_equal(self._order, np.arange(len(found))) else found[self._order]

    def scan(self, query: Vectors) -> Vectors:
        """Similarities float32 [Q, N] of a query [Q, D] with all rows; reads the table once."""
        found = np.empty((len(query), self._table.count_rows()), np.float32)

        def multiply(first: int, part: Vectors) -> None:
            found[:, first : first + len(part)] = query @ part.T

        self._each_part(multiply)
        return found[:, self._order]

    def _each_part(self, use: Callable[[int, Vectors], None]) -> None:
        """Call with the first row and the vectors of each part of the table, as it is stored."""

        def read() -> None:
            first = 0
            for batch in self._table.to_batches(columns=["vector"]):
                part = _matrix(batch["vector"], self.settings.size)
                use(first, part)
                first += len(part)

        read_frames(self.db, read)

    @cached_property
    def has_ann(self) -> bool:
        """Whether LanceDB has built an approximate index."""
        return bool(self._lancedb_table.list_indices())

    @cached_property
    def _lancedb_table(self) -> Any:
        import lancedb

        table = lancedb.connect(self.db).open_table(self.settings.name)
        table.checkout(self._table.version)
        return table

    @cached_property
    def _by_id(self) -> Rows:
        return np.argsort(self._ids)

    def near(self, query: Vectors, rows: Rows, wanted: int) -> Rows:
        """Rows around the frames that the approximate index finds, of those allowed.

        Args:
            query: float32 [Q, D].
            rows: those allowed.
            wanted: hits among them that are enough.
        """
        allowed = np.zeros(len(self), bool)
        allowed[rows] = True
        count = max(FIRST_HITS, wanted)
        while True:
            hits = np.unique(np.concatenate([self.hits(vector, count) for vector in query]))
            hits = hits[allowed[hits]]
            if len(hits) >= wanted or count >= min(MOST_HITS, len(self)):
                break
            count *= 4
        around = AROUND + 2 * len(query)
        near = np.zeros(len(self) + 1, np.int64)  # +1 where a neighbourhood begins, -1 behind its end
        np.add.at(near, np.maximum(hits - around, 0), 1)
        np.add.at(near, np.minimum(hits + around + 1, len(self)), -1)
        return np.flatnonzero((np.cumsum(near[:-1]) > 0) & allowed)

    def hits(self, vector: Vectors, count: int) -> Rows:
        """Rows of the frames most like one vector, by the approximate index."""
        asked = self._lancedb_table.search(vector, vector_column_name="vector").distance_type("cosine")
        asked = asked.nprobes(PROBES).limit(count).with_row_id(True).select(["frame", "_distance"])
        ids = np.asarray(read_frames(self.db, asked.to_arrow)["_rowid"])
        places = np.searchsorted(self._ids, ids, sorter=self._by_id)
        places = self._by_id[np.minimum(places, len(self._by_id) - 1)]
        return places[self._ids[places] == ids]  # not frames without a video


def _matrix(column: Any, size: int) -> Vectors:
    """A column of vectors as float32 [n, D]."""
    flat = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    return np.asarray(flat.flatten()).reshape(-1, size)
