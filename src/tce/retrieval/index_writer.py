"""Writing an index of frames: videos are added and removed, one writer at a time.

Lance commits each table atomically, but not two together. A video's row is written after its frames; frames
without it are what an interruption left, and the next writer deletes them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tce.data.collection import has_table, table_path
from tce.data.lance_rows import disk_error, first_line
from tce.errors import TceError
from tce.io import require_folder, writer_lock
from tce.retrieval import frame_table
from tce.retrieval.frame_table import (
    VIDEOS,
    FrameRows,
    IndexSettings,
    VideoRecord,
    frames_schema,
    open_frames,
    read_frames,
    read_videos,
    videos_schema,
)

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("tce.index")

STORAGE_VERSION: Literal["2.1"] = "2.1"  # of Lance's files, as the collection's
LOCK = ".index.lock"
COMMIT_SECONDS = 5.0  # between commits: the work that an interruption costs
COMMIT_ROWS = 20_000  # frames that wait for a commit at most
_IDS_AT_ONCE = 500  # in one SQL condition
_KEEP = timedelta(hours=1)  # how long older versions stay, for readers that have them open


class IndexWriter:
    """Adds and removes videos of one index; the database is made if it is not there. A context manager.

    Attributes:
        videos: the indexed videos by name.

    Raises:
        TceError: the folder cannot be written or holds something else, another process is writing, or the
            index is damaged.
    """

    def __init__(self, db: str, settings: IndexSettings):
        self.db, self.settings = db, settings
        self.videos: dict[str, VideoRecord] = {}
        self.changed = False
        self._is_new = True  # whether it held no video when it was opened
        self._waiting: list[tuple[VideoRecord, FrameRows]] = []
        self._committed_at = time.monotonic()

    def __enter__(self) -> IndexWriter:
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(index_lock(Path(self.db)))
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or not issubclass(kind, TceError):  # interrupted: keep what is finished
                self.commit()
        finally:
            self._stack.close()

    def add(self, record: VideoRecord, rows: FrameRows) -> None:
        """Add a video, or replace it; commits when that is due."""
        self._waiting.append((record, rows))
        count = sum(len(rows.frame) for _, rows in self._waiting)
        if count >= COMMIT_ROWS or time.monotonic() - self._committed_at >= COMMIT_SECONDS:
            self.commit()

    def remove(self, names: Iterable[str]) -> None:
        """Remove videos and their frames."""
        wanted = [name for name in names if name in self.videos]
        self._delete(self.settings.name + VIDEOS, wanted)  # first: without it, the frames do not count
        self._delete(self.settings.name, wanted)
        for name in wanted:
            del self.videos[name]

    def commit(self) -> None:
        """Write what waits: the frames, then their videos' rows.

        Raises:
            TceError: the disk is full or cannot be written; what was committed before stays.
        """
        waiting, self._waiting = self._waiting, []
        if waiting:
            self.remove([record.video for record, _ in waiting])
            schema = frames_schema(self.settings.size, self.settings.center is not None)
            self._append(
                self.settings.name, [_batch(record, rows, schema) for record, rows in waiting], schema
            )
            self._put([record for record, _ in waiting])
        self._committed_at = time.monotonic()

    def _put(self, records: list[VideoRecord]) -> None:
        """Add rows to the table of videos, whose old rows are gone."""
        table = self._table(records)
        self._append(self.settings.name + VIDEOS, table.to_batches(), table.schema)
        self.videos.update({record.video: record for record in records})

    def update_records(self, records: list[VideoRecord]) -> None:
        """Replace rows of the table of videos, in one commit."""
        with self._guarded():
            dataset = open_frames(self.db, self.settings.name + VIDEOS)
            dataset.merge_insert("video").when_matched_update_all().execute(self._table(records))
        self.videos.update({record.video: record for record in records})
        self.changed = True

    def _table(self, records: list[VideoRecord]) -> pa.Table:
        import pyarrow as pa

        return pa.Table.from_pylist(list(map(dataclasses.asdict, records)), videos_schema(self.settings))

    def relabel(self, records: list[VideoRecord]) -> None:
        """Write other labels, groups and recordings of videos whose frames stay."""
        alike: dict[tuple[str | None, ...], list[VideoRecord]] = {}
        for record in records:
            alike.setdefault((record.label, record.group, record.recording), []).append(record)
        for texts, those in alike.items():
            values = dict(zip(("label", "group", "recording"), map(_literal, texts), strict=True))
            for first in range(0, len(those), _IDS_AT_ONCE):
                listed = ", ".join(_quoted(record.video) for record in those[first : first + _IDS_AT_ONCE])
                with self._guarded():
                    open_frames(self.db, self.settings.name).update(values, where=f"video IN ({listed})")
        if records:
            self.update_records(records)  # last: until then the next run relabels again

    def replace_vectors(self, name: str, vectors: NDArray[np.float32], rows: pa.Table) -> None:
        """Replace the vectors of frames of one group: one commit of the table of frames.

        Args:
            name: group, for messages.
            vectors: float32 [n, D].
            rows: [n] rows of all columns; the new vectors belong to them.
        """
        import pyarrow as pa

        place = rows.schema.get_field_index("vector")
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.settings.size)
        new = rows.set_column(place, rows.schema.field("vector"), column)
        with self._guarded():
            dataset = open_frames(self.db, self.settings.name)
            dataset.merge_insert(["video", "frame"]).when_matched_update_all().execute(new)
        self.changed = True
        log.debug("centered %d frames of group %s again", len(new), name)

    def finish(self) -> str:
        """Commit, join small files, and build or extend the approximate index where the table is large.

        Returns:
            "exact", or the kind of the approximate index.
        """
        self.commit()
        import lancedb

        count = open_frames(self.db, self.settings.name).count_rows()
        database = lancedb.connect(self.db)
        with self._guarded():
            table = database.open_table(self.settings.name)
            kind = "exact"
            if count > frame_table.ANN_ABOVE and not table.list_indices():
                from lancedb.index import IvfFlat

                log.info("building the approximate index over %d frames", count)
                table.create_index("vector", config=IvfFlat(distance_type="cosine"))
                self.changed = True
            if table.list_indices():
                kind = "approximate (IVF)"
            if self.changed:
                # Nobody reads an index that is being made, and Lance warns of 0.
                keep = timedelta(milliseconds=1) if self._is_new else _KEEP
                for one in (table, database.open_table(self.settings.name + VIDEOS)):
                    one.optimize(cleanup_older_than=keep)
        return kind

    def _open(self) -> None:
        videos = self.settings.name + VIDEOS
        for name, schema in (
            (self.settings.name, frames_schema(self.settings.size, self.settings.center is not None)),
            (videos, videos_schema(self.settings)),
        ):
            if not has_table(self.db, name):
                self._append(name, [], schema)
        self.videos = read_videos(self.db, self.settings)
        names = read_frames(
            self.db,
            lambda: open_frames(self.db, self.settings.name).to_table(columns=["video"])["video"].unique(),
        )
        self._is_new = not self.videos
        orphans = sorted(set(names.to_pylist()) - set(self.videos))
        if orphans:
            log.info("removing frames of %d videos that an interruption left unfinished", len(orphans))
            self._delete(self.settings.name, orphans)

    def _append(self, name: str, batches: list[pa.RecordBatch], schema: pa.Schema) -> None:
        import lance
        import pyarrow as pa

        path, mode = table_path(self.db, name), "append" if has_table(self.db, name) else "create"
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        with self._guarded():
            lance.write_dataset(reader, path, mode=mode, data_storage_version=STORAGE_VERSION)
        self.changed = True

    def _delete(self, name: str, videos: list[str]) -> None:
        for first in range(0, len(videos), _IDS_AT_ONCE):
            listed = ", ".join(map(_quoted, videos[first : first + _IDS_AT_ONCE]))
            with self._guarded():
                open_frames(self.db, name).delete(f"video IN ({listed})")
            self.changed = True

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn an error of Lance's into one line."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            words = disk_error(error)
            raise TceError(
                f"index {self.db}",
                expected="a disk that can be written" if words else "tables that can be written",
                found=words.lower() or first_line(error),
                fix="make room, then repeat the command: it resumes"
                if words
                else "make it again in a new --db",
            ) from error


def _batch(record: VideoRecord, rows: FrameRows, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    count, size = rows.vectors.shape
    vectors = [rows.vectors] if rows.raw is None else [rows.vectors, rows.raw]
    texts = (record.label, record.group, record.recording)
    return pa.record_batch(
        [
            pa.array([record.video] * count, pa.string()),
            pa.array(rows.frame, pa.int64()),
            pa.array(rows.time, pa.float64()),
            *(pa.array([text] * count, pa.string()) for text in texts),
            pa.array(rows.thumbnails, pa.binary()),
            *(
                pa.FixedSizeListArray.from_arrays(
                    pa.array(np.ascontiguousarray(one, np.float32).ravel()), size
                )
                for one in vectors
            ),
        ],
        schema=schema,
    )


def _literal(text: str | None) -> str:
    return "NULL" if text is None else _quoted(text)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def index_lock(db: Path) -> contextlib.AbstractContextManager[None]:
    """The lock that a database's one writer holds.

    Raises:
        TceError: the folder cannot be written or holds something else; on entering, another process writes.
    """
    _require_place(db)
    return writer_lock(db / LOCK, f"index {db}", "tce index", "--db")


def _require_place(db: Path) -> None:
    """Make the folder; raise unless it is new, empty or a LanceDB database."""
    content = require_folder(db, "--db")
    tables = any(name.endswith(".lance") for name in content)
    foreign = sorted(name for name in content if not name.startswith(".") and not name.endswith(".lance"))
    if foreign and not tables:
        raise TceError(
            f"--db {db}",
            expected="a database or a new folder",
            found=f"a folder with other content ({foreign[0]})",
            fix="name a new folder",
        )
