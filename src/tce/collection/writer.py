"""Writes a collection: one writer at a time, frames before the clip's row, orphans removed.

Lance commits each table atomically, but not two together. So a clip counts once its row is in `clips`, which
is appended after its frames; frames without that row are what an interruption left behind, and are deleted
when the next writer opens the collection.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tce.collection.encode import Encoded, delete_spooled
from tce.collection.rows import frame_heads, read_rows
from tce.collection.tables import (
    CLIPS,
    FAILED,
    FRAMES,
    PACKED,
    STORAGE_VERSION,
    clips_schema,
    frames_schema,
    is_collection,
    open_table,
    table_path,
)
from tce.errors import TceError
from tce.files import atomic

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

log = logging.getLogger("tce.collection")

COMMIT_BYTES = 64 << 20  # of encoded frames; what is held in memory, and lost to an interruption at most
COMMIT_SECONDS = 15.0  # slow decoding commits by time
_CHUNK_BYTES = 64 << 20  # of a spooled clip handed to Lance at a time
_SMALL_ROWS = 4096  # data files with fewer frames are joined at the end
_TARGET_ROWS = 16384  # about 128 MB at 8 KB a frame
_CLIP_ROWS = 1 << 20  # the table of clips is read whole: one file
_ID_CHUNK = 500  # ids in one SQL condition


@dataclass
class Known:
    """What the table says of a clip."""

    path: str
    status: str
    modified: int
    error: str


class CollectionWriter:
    """Appends clips to the collection in `folder`, which is made if it is not there.

    Use as a context manager; what was added and not committed is committed on leaving, also by an exception.

    Attributes:
        known: the clips that the table holds, by id.

    Raises:
        TceError: the folder cannot be written, holds something else, or another process is writing.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.known: dict[str, Known] = {}
        self._rows: list[dict[str, Any]] = []
        self._encoded: list[Encoded] = []
        self._bytes = 0
        self._committed_at = time.monotonic()
        self._changed = False

    def __enter__(self) -> CollectionWriter:
        from filelock import FileLock, Timeout

        _require_place(self.folder)
        self._lock = FileLock(self.folder / ".writer.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise TceError(
                f"collection {self.folder}",
                expected="one writer at a time",
                found="another `tce pack` at work on it",
                fix="wait for it, or choose another --out",
            ) from error
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.commit()
        finally:
            for encoded in self._encoded:
                delete_spooled(encoded)
            shutil.rmtree(self.spool, ignore_errors=True)
            self._lock.release()

    @property
    def spool(self) -> Path:
        """Folder for clips too large for memory; emptied by every writer."""
        return self.folder / ".spool"

    def add(self, row: dict[str, Any], encoded: Encoded | None, error: str = "") -> None:
        """Add a clip: the catalog's columns, and its frames, or the reason why it has none.

        Args:
            row: id, path, label, split, group, source, start, end.
            encoded: the frames; None for a clip that failed.
            error: why, or what was wrong with footage of which the good frames were kept.
        """
        frames = encoded if encoded is not None else Encoded()
        status = FAILED if encoded is None else PACKED
        self._rows.append(
            row
            | {
                "frames": len(frames),
                "fps": frames.fps,
                "width": frames.size[1],
                "height": frames.size[0],
                "bytes": int(frames.ends[-1]),
                "content_hash": frames.content_hash,
                "modified": frames.modified,
                "status": status,
                "error": error or None,
            }
        )
        self._encoded.append(frames)
        self._bytes += len(frames.data) if frames.spooled is None else COMMIT_BYTES
        self.known[row["id"]] = Known(row["path"], status, frames.modified, error)

    def commit_if_due(self) -> None:
        """Commit once enough is pending, in bytes or in time."""
        if self._bytes >= COMMIT_BYTES or time.monotonic() - self._committed_at > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Write what is pending: the frames, then the clips' rows.

        Raises:
            TceError: the disk is full or cannot be written; what was committed before stays.
        """
        if not self._rows:
            return
        import pyarrow as pa

        rows, clips = pa.Table.from_pylist(self._rows, clips_schema()), list(self._encoded)
        ids = [row["id"] for row in self._rows]
        if any(map(len, clips)):
            self._append(FRAMES, _frame_batches(ids, clips), frames_schema())
        self._append(CLIPS, rows.to_batches(), clips_schema())
        for encoded in clips:
            delete_spooled(encoded)
        self._rows, self._encoded, self._bytes = [], [], 0
        self._committed_at, self._changed = time.monotonic(), True

    def discard(self) -> None:
        """Forget what was added since the last commit."""
        for row, encoded in zip(self._rows, self._encoded, strict=True):
            del self.known[row["id"]]
            delete_spooled(encoded)
        self._rows, self._encoded, self._bytes = [], [], 0

    def remove(self, ids: Iterable[str]) -> None:
        """Delete clips, their row first: without it their frames do not count."""
        wanted = [clip for clip in ids if clip in self.known]
        for name, column in ((CLIPS, "id"), (FRAMES, "clip")):
            self._delete(name, column, wanted)
        for clip in wanted:
            del self.known[clip]

    def finish(self) -> None:
        """Commit, join small data files without changing the rows' order, and drop what is older.

        Files of older versions are kept for a day, for readers that still have them open.
        """
        self.commit()
        if not self._changed:
            return
        for name, small, target in ((FRAMES, _SMALL_ROWS, _TARGET_ROWS), (CLIPS, _CLIP_ROWS, _CLIP_ROWS)):
            with self._guarded():
                dataset = open_table(self.folder, name)
                if _worth_joining(dataset, small):
                    _compact(dataset, target)
                open_table(self.folder, name).cleanup_old_versions(older_than=timedelta(days=1))

    def _open(self) -> None:
        shutil.rmtree(self.spool, ignore_errors=True)
        self.spool.mkdir()
        if not is_collection(self.folder):
            self._append(FRAMES, [], frames_schema())
            self._append(CLIPS, [], clips_schema())
        columns = ["id", "path", "status", "modified", "error"]
        table, lost = read_rows(open_table(self.folder, CLIPS), clips_schema(), columns)
        if lost:
            log.warning("%d rows of the table of clips cannot be read; these clips are packed again", lost)
        for row in table.to_pylist():
            self.known[row["id"]] = Known(row["path"], row["status"], row["modified"], row["error"] or "")
        frames = open_table(self.folder, FRAMES)
        heads = frame_heads(frames)[1]
        orphans = sorted({clip for clip in heads if clip is not None and clip not in self.known})
        if orphans:
            log.info("removing the frames of %d clips that an interruption left unfinished", len(orphans))
            self._delete(FRAMES, "clip", orphans)

    def _append(self, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        import lance
        import pyarrow as pa

        path = table_path(self.folder, name)
        mode = "append" if Path(path).exists() else "create"
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        with self._guarded():
            lance.write_dataset(reader, path, mode=mode, data_storage_version=STORAGE_VERSION)

    def _delete(self, name: str, column: str, ids: list[str]) -> None:
        for first in range(0, len(ids), _ID_CHUNK):
            quoted = ", ".join("'" + clip.replace("'", "''") + "'" for clip in ids[first : first + _ID_CHUNK])
            with self._guarded():
                open_table(self.folder, name).delete(f"{column} IN ({quoted})")
            self._changed = True

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Around a write of Lance's: what the disk says becomes one line."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            text = str(error)
            for words in (
                "No space left on device",
                "Permission denied",
                "Read-only file system",
                "File too large",
            ):
                if words in text:
                    raise TceError(
                        f"collection {self.folder}",
                        expected="a disk that can be written",
                        found=words.lower(),
                        fix="make room and give the same command again: it goes on where it stopped",
                    ) from error
            raise


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON, whole or not at all."""
    with atomic(path, "w") as file:
        json.dump(value, file, indent=1, sort_keys=True, ensure_ascii=False)
        file.write("\n")


def _require_place(folder: Path) -> None:
    """Make `folder`; raise unless it is a collection, or empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
        content = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        found = "a file" if folder.is_file() else error.strerror or str(error)
        raise TceError(f"--out {folder}", expected="a folder that can be written", found=found) from error
    if is_collection(folder) or not [name for name in content if not _own(name)]:
        return
    raise TceError(
        f"--out {folder}",
        expected="a collection or a new folder",
        found=f"a folder with other content ({sorted(content)[0]}, ...)"
        if len(content) > 1
        else f"a folder with {content[0]}",
        fix="name a new folder",
    )


def _own(name: str) -> bool:
    """Whether a file of that name can stand beside tables that were not yet made."""
    return name in {
        ".writer.lock",
        ".spool",
        "options.json",
        "report.json",
        f"{FRAMES}.lance",
        f"{CLIPS}.lance",
    }


def _frame_batches(ids: list[str], clips: list[Encoded]) -> Iterator[pa.RecordBatch]:
    for clip, encoded in zip(ids, clips, strict=True):
        for first, last, data in _pieces(encoded):
            yield _frame_batch(clip, encoded, first, last, data)


def _pieces(encoded: Encoded) -> Iterator[tuple[int, int, pa.Buffer]]:
    """Runs of frames [first, last) with their bytes, each small enough for memory and for Arrow's offsets."""
    import pyarrow as pa

    if encoded.spooled is None:
        yield 0, len(encoded), pa.py_buffer(encoded.data)
        return
    with pa.memory_map(encoded.spooled) as file:
        first = 0
        while first < len(encoded):
            limit = encoded.ends[first] + _CHUNK_BYTES
            last = max(first + 1, int(np.searchsorted(encoded.ends, limit, side="right")) - 1)
            file.seek(int(encoded.ends[first]))
            yield first, last, file.read_buffer(int(encoded.ends[last] - encoded.ends[first]))
            first = last


def _frame_batch(clip: str, encoded: Encoded, first: int, last: int, data: pa.Buffer) -> pa.RecordBatch:
    """One record batch, whose images are views of `data`."""
    import pyarrow as pa

    offsets = pa.py_buffer((encoded.ends[first : last + 1] - encoded.ends[first]).astype(np.int32).tobytes())
    count = last - first
    columns = [
        pa.array([clip] * count, pa.string()),
        pa.array(np.arange(first, last, dtype=np.int32)),
        pa.array(encoded.times[first:last], pa.float64()),
        pa.Array.from_buffers(pa.binary(), count, [None, offsets, data]),
        pa.array(encoded.checksums[first:last], pa.uint32()),
    ]
    return pa.record_batch(columns, schema=frames_schema())


def _worth_joining(dataset: lance.LanceDataset, small: int) -> bool:
    """Whether there are neighbouring data files so small that reading at random suffers, or deleted rows."""
    fragments = dataset.get_fragments()
    rows = [fragment.count_rows() for fragment in fragments]
    pairs = sum(a < small and b < small for a, b in itertools.pairwise(rows))
    return pairs > 0 or any(fragment.num_deletions for fragment in fragments)


def _compact(dataset: lance.LanceDataset, target_rows: int) -> None:
    dataset.optimize.compact_files(
        target_rows_per_fragment=target_rows, materialize_deletions_threshold=0.0, num_threads=1
    )
