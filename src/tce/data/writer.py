"""Writes a collection: one writer at a time, frames before the clip's row, orphans removed.

Lance commits each table atomically, but not two together. So a clip counts once its row is in `clips`, which
is appended after its frames; frames without that row are what an interruption left behind, and are deleted
when the next writer opens the collection.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tce.data.collection import (
    CLIPS,
    FAILED,
    FRAMES,
    PACKED,
    STORAGE_VERSION,
    ClipRecord,
    clips_schema,
    frames_schema,
    has_table,
    is_collection,
    known_clips,
    open_table,
    table_path,
)
from tce.data.encode import FrameChunk, Summary
from tce.data.lance_rows import (
    clip_starts,
    compact,
    disk_error,
    drop_unreadable,
    frame_runs,
    try_read,
)
from tce.errors import TceError
from tce.io import require_folder, writer_lock

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("tce.data")

LOCK = ".writer.lock"
OWN_FILES = ("options.json", "report.json", "cuts.json")

COMMIT_BYTES = 128 << 20  # of encoded frames: what is held in memory at most
COMMIT_SECONDS = 5.0  # between commits at first
COMMIT_SHARE = 0.02  # of the time so far, later: each commit rewrites a list of all data files
_SMALL_ROWS = 4096  # data files with fewer frames are joined at the end
_TARGET_ROWS = 16384  # about 128 MB at 8 KB a frame
_CLIP_ROWS = 1 << 20  # the table of clips is read whole: one file
_ID_CHUNK = 500  # ids in one SQL condition


class CollectionWriter:
    """Appends clips to the collection in `folder`, which is made if it is not there.

    Use as a context manager; clips that were finished and not committed are committed on leaving, also by an
    exception.

    Attributes:
        known: the clips that the table holds, by id.
        waiting: those of them that are to be packed again and keep their rows until then.

    Raises:
        TceError: the folder cannot be written, holds something else, or another process is writing.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.known: dict[str, ClipRecord] = {}
        self.waiting: set[str] = set()
        self._rows: list[dict[str, Any]] = []  # of finished clips, not yet committed
        self._batches: list[pa.RecordBatch] = []  # of frames, not yet committed
        self._bytes = 0
        self._open_clip, self._open_frames = "", 0  # the clip whose frames are arriving, and how many came
        self._open_batches = 0  # of them not yet committed
        self._started_at = self._committed_at = time.monotonic()
        self._failed = False  # whether the last commit did

    def __enter__(self) -> CollectionWriter:
        _require_place(self.folder)
        lock = writer_lock(self.folder / LOCK, f"collection {self.folder}", "tce pack", "--out")
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock)
            self._open()
            self._lock = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not self._failed:
                self.abandon()
                self.commit()
        finally:
            self._lock.close()

    def add_frames(self, clip: str, chunk: FrameChunk) -> None:
        """Add the next frames of a clip; commits when enough is pending, so that memory stays bounded."""
        if clip != self._open_clip:
            assert not self._open_frames, "the clip before is not finished"
            self._open_clip = clip
        self._batches.append(_frame_batch(clip, chunk, self._open_frames))
        self._open_batches += 1
        self._open_frames += len(chunk)
        self._bytes += len(chunk.data)
        if self._bytes >= COMMIT_BYTES:
            self.commit()

    def add_clip(self, row: dict[str, Any], summary: Summary | None, error: str = "") -> None:
        """Finish a clip: its frames are there, or it failed and has none.

        A clip that was to be packed again and failed keeps its rows.

        Args:
            row: id, path, label, split, group, source, start, end.
            summary: what is known of its frames; None for a clip that failed.
            error: why it failed, or what was wrong with footage of which the good frames were kept.
        """
        if summary is None:
            self.abandon()
            if row["id"] in self.waiting:  # what was packed is the better copy
                self.waiting.remove(row["id"])
                return
        else:
            assert (row["id"], summary.frames) == (self._open_clip, self._open_frames)
        found = summary or Summary(0, 0, 0.0, (0, 0), "", 0)
        status = PACKED if summary is not None else FAILED
        self._rows.append(
            row
            | {
                "frames": found.frames,
                "fps": found.fps,
                "width": found.size[1],
                "height": found.size[0],
                "bytes": found.bytes,
                "content_hash": found.content_hash,
                "modified": found.modified,
                "status": status,
                "error": error or None,
            }
        )
        self.known[row["id"]] = ClipRecord(
            row["path"], status, found.frames, found.bytes, found.modified, error
        )
        self._close_clip()

    def abandon(self) -> None:
        """Forget the clip whose frames are arriving."""
        clip, committed = self._open_clip, self._open_frames
        if self._open_batches:
            committed -= sum(map(len, self._batches[-self._open_batches :]))
            del self._batches[-self._open_batches :]
        self._close_clip()
        if committed:
            self._delete(FRAMES, "clip", [clip])

    def commit_if_due(self) -> None:
        """Commit if the last one was a while ago, which bounds the work that an interruption costs."""
        now = time.monotonic()
        if now - self._committed_at > max(COMMIT_SECONDS, COMMIT_SHARE * (now - self._started_at)):
            self.commit()

    def commit(self) -> None:
        """Write what is pending: the frames, then the rows of the finished clips.

        Raises:
            TceError: the disk is full or cannot be written; what was committed before stays.
        """
        import pyarrow as pa

        if self._failed:  # frames that were not written must not get their clip's row
            return
        self._failed = True
        self._drop_replaced()
        if self._batches:
            self._append(FRAMES, self._batches, frames_schema())
            self._batches = []
            self._bytes = 0
            self._open_batches = 0
        if self._rows:
            self._append(CLIPS, pa.Table.from_pylist(self._rows, clips_schema()).to_batches(), clips_schema())
            self._rows = []
        self._failed = False
        self._committed_at = time.monotonic()

    def discard(self) -> None:
        """Forget the clips added since the last commit."""
        self.abandon()
        for row in self._rows:
            del self.known[row["id"]]
        self._rows = []
        self._batches = []
        self._bytes = 0

    def clear_failed(self) -> None:
        """Delete the rows of all clips that failed, so that they are tried again."""
        self.remove([name for name in self.known if self.failed(name)])

    def remove(self, ids: Iterable[str]) -> None:
        """Delete clips."""
        wanted = [clip for clip in ids if clip in self.known]
        self._delete_clips(wanted)
        for clip in wanted:
            del self.known[clip]

    def replace(self, ids: Iterable[str]) -> None:
        """Mark clips to be packed again; they keep their rows until the new ones are committed."""
        self.waiting.update(clip for clip in ids if clip in self.known)

    def failed(self, clip: str) -> bool:
        """Whether the table names the clip as one that could not be packed."""
        return clip in self.known and self.known[clip].status == FAILED

    def damaged(self) -> dict[str, str]:
        """Packed clips whose frames are lost or incomplete, with the reason."""
        import pyarrow as pa

        lengths = {name: clip.frames for name, clip in self.known.items() if clip.status == PACKED}
        counts = np.array(list(lengths.values()), dtype=np.int64)
        runs = frame_runs(open_table(self.folder, FRAMES))
        return clip_starts(runs, pa.array(list(lengths), pa.string()), counts)[1]

    def finish(self, keep_old: bool) -> None:
        """Commit, join small data files without changing the rows' order, and delete what is older.

        Args:
            keep_old: keep the files of older versions for a day, for readers that still have them open.
        """
        self.commit()
        for name, small, target in ((FRAMES, _SMALL_ROWS, _TARGET_ROWS), (CLIPS, _CLIP_ROWS, _CLIP_ROWS)):
            with self._guarded():
                dataset = open_table(self.folder, name)
                _, error = try_read(partial(compact, dataset, small, target, timedelta(days=int(keep_old))))
                if error is not None and disk_error(error):
                    raise error
                if error is not None:
                    log.warning(
                        "damaged data files were not joined; `tce check %s` names the clips", self.folder
                    )

    def _drop_replaced(self) -> None:
        """Delete the old rows of the clips about to be written; ids must not meet in one table."""
        written = {row["id"] for row in self._rows}
        if self._open_batches:
            written.add(self._open_clip)
        self._delete_clips(sorted(self.waiting & written))
        self.waiting -= written

    def _delete_clips(self, ids: list[str]) -> None:
        for name, column in (
            (CLIPS, "id"),
            (FRAMES, "clip"),  # second: without its row, a clip's frames do not count
        ):
            self._delete(name, column, ids)

    def _close_clip(self) -> None:
        self._open_clip = ""
        self._open_frames = 0
        self._open_batches = 0

    def _open(self) -> None:
        for name, schema in ((FRAMES, frames_schema()), (CLIPS, clips_schema())):
            if not has_table(self.folder, name):
                self._append(name, [], schema)
        self.known = known_clips(self.folder)
        names = frame_runs(open_table(self.folder, FRAMES)).names.drop_null().to_pylist()
        orphans = sorted(name for name in set(names) if name not in self.known)
        if orphans:
            log.info("removing frames of %d clips that an interruption left unfinished", len(orphans))
            self._delete(FRAMES, "clip", orphans)

    def _append(self, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        import lance
        import pyarrow as pa

        path, mode = table_path(self.folder, name), "append" if has_table(self.folder, name) else "create"
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        with self._guarded():
            lance.write_dataset(reader, path, mode=mode, data_storage_version=STORAGE_VERSION)

    def _delete(self, name: str, column: str, ids: list[str]) -> None:
        for first in range(0, len(ids), _ID_CHUNK):
            quoted = ", ".join("'" + clip.replace("'", "''") + "'" for clip in ids[first : first + _ID_CHUNK])
            condition = f"{column} IN ({quoted})"
            with self._guarded():
                dataset = open_table(self.folder, name)
                _, error = try_read(partial(dataset.delete, condition))
                if error is None:
                    continue
                if disk_error(error) or not drop_unreadable(dataset, column):
                    raise error
                open_table(self.folder, name).delete(condition)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn an error of Lance's about the disk into one line."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            words = disk_error(error)
            if not words:
                raise
            raise TceError(
                f"collection {self.folder}",
                expected="a disk that can be written",
                found=words.lower(),
                fix="make room, then repeat the command: it resumes",
            ) from error


def _require_place(folder: Path) -> None:
    """Make `folder`; raise unless it is a collection, or empty but for what a failed packing leaves."""
    foreign = sorted(name for name in require_folder(folder) if not _is_own(name))
    if is_collection(folder) or not foreign:
        return
    more = ", ..." if len(foreign) > 1 else ""
    raise TceError(
        f"--out {folder}",
        expected="a collection or a new folder",
        found=f"a folder with other content ({foreign[0]}{more})",
        fix="name a new folder",
    )


def _is_own(name: str) -> bool:
    """Whether a file of that name can stand beside tables that were not yet made."""
    if name.startswith(".") and name.endswith(".part"):  # a killed process was writing it
        return True
    return name in {LOCK, *OWN_FILES, f"{FRAMES}.lance", f"{CLIPS}.lance"}


def _frame_batch(clip: str, chunk: FrameChunk, first: int) -> pa.RecordBatch:
    """Rows of frames, whose images are views of the chunk's bytes; `first` is the first frame's index."""
    import pyarrow as pa

    count = len(chunk)
    offsets = pa.py_buffer(chunk.ends.astype(np.int32).tobytes())
    columns = [
        pa.array([clip] * count, pa.string()),
        pa.array(np.arange(first, first + count, dtype=np.int32)),
        pa.array(chunk.times, pa.float64()),
        pa.Array.from_buffers(pa.binary(), count, [None, offsets, pa.py_buffer(chunk.data)]),
        pa.array(chunk.checksums, pa.uint32()),
    ]
    return pa.record_batch(columns, schema=frames_schema())
