"""The collection: a folder that is an ordinary LanceDB database with the tables `clips` and `frames`.

A clip's row in `clips` is its commit mark: frames without one do not count. Readers pin one version of both
tables and build the position of every clip's frames from it in memory; positions are never stored, because
they shift when rows are deleted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tce.data.frame_store import FrameRequest, FrameStore
from tce.data.lance_rows import catalog_of, clip_starts, first_line, frame_runs, read_rows, try_read
from tce.errors import TceError

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

log = logging.getLogger("tce.data")

STORAGE_VERSION: Literal["2.1"] = "2.1"
"""Lance's file format; pinned, so that every release of tce writes what every other reads."""

CLIPS, FRAMES = "clips", "frames"
PACKED, FAILED = "packed", "failed"  # values of the column `status`
_CONTENT = ["id", "start", "end", "frames", "width", "height", "bytes", "content_hash"]  # what a clip shows


def clips_schema() -> pa.Schema:
    """One row a clip; `start` and `end` are seconds of the source file, null for a whole file."""
    import pyarrow as pa

    return pa.schema(
        [
            ("id", pa.string()),
            ("path", pa.string()),  # of the footage, as it was given
            ("label", pa.string()),
            ("split", pa.string()),
            ("group", pa.string()),
            ("source", pa.string()),  # the recording that the clip is a piece of
            ("start", pa.float64()),
            ("end", pa.float64()),
            ("frames", pa.int64()),
            ("fps", pa.float64()),  # of the stored frames
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("bytes", pa.int64()),  # of the stored images
            ("content_hash", pa.string()),  # SHA-256 of the footage
            ("modified", pa.int64()),  # of the footage, nanoseconds since 1970
            ("status", pa.string()),
            ("error", pa.string()),
        ]
    )


def frames_schema() -> pa.Schema:
    """One row a frame, a clip's frames together and in order; `index` counts them from 0."""
    import pyarrow as pa

    return pa.schema(
        [
            ("clip", pa.string()),  # clips.id
            ("index", pa.int32()),
            ("time", pa.float64()),  # seconds since the clip's first frame
            ("image", pa.binary()),  # JPEG, or the bytes of the image file it came from
            ("checksum", pa.uint32()),  # CRC-32 of `image`
        ]
    )


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a URI, as of object storage ("s3://bucket/collection"), rather than a folder."""
    return "://" in os.fspath(path)


def table_path(folder: str | os.PathLike[str], name: str) -> str:
    """Where LanceDB keeps the table `name` of the database `folder`."""
    return f"{os.fspath(folder).rstrip('/')}/{name}.lance"


def is_collection(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a folder with a collection's tables."""
    return all(has_table(path, name) for name in (CLIPS, FRAMES))


def has_table(folder: str | os.PathLike[str], name: str) -> bool:
    """Whether a collection's table was ever committed; a killed writer can leave a folder without one."""
    if is_remote(folder):
        import lance

        return try_read(partial(lance.dataset, table_path(folder, name)))[0] is not None
    versions = Path(table_path(folder, name)) / "_versions"
    return versions.is_dir() and any(versions.iterdir())


def open_table(folder: str | os.PathLike[str], name: str, version: int | None = None) -> lance.LanceDataset:
    """One table of a collection, at one version.

    Raises:
        TceError: there is no such table or version, or its manifest cannot be read.
    """
    import lance

    try:
        return lance.dataset(table_path(folder, name), version=version)
    except (ValueError, OSError) as error:
        found = (
            "no collection"
            if not is_collection(folder)
            else f"a table that does not open ({first_line(error)})"
        )
        raise TceError(
            f"collection {folder}",
            expected=f"a folder with the tables {CLIPS}.lance and {FRAMES}.lance"
            + (f", version {version}" if version is not None else ""),
            found=found,
            fix="make one with `tce pack FOOTAGE --out COLLECTION`",
        ) from error


def open_collection(
    path: str | os.PathLike[str], version: tuple[int, int] | list[int] | None = None, verify: bool = False
) -> Collection:
    """Open a collection for reading.

    Args:
        path: its folder, or a URI of object storage; Lance takes credentials from the environment.
        version: versions of `clips` and `frames` as `Collection.version` gives them; None is the latest.
        verify: compare every image read with its checksum.

    Raises:
        TceError: not a collection, or none of that version.
    """
    return Collection(path, version, verify)


@dataclass(frozen=True)
class ClipRecord:
    """A clip's row in the table of clips.

    Attributes:
        path: of the footage.
        status: `PACKED` or `FAILED`.
        frames: stored frames.
        bytes: of the stored frames.
        modified: when the footage was last changed, nanoseconds since 1970.
        error: why it failed, or what was wrong with footage of which the good frames were kept.
    """

    path: str
    status: str
    frames: int
    bytes: int
    modified: int
    error: str


class Collection(FrameStore):
    """The packed clips of a collection, at one version.

    Clips whose footage failed to pack are left out, and so are clips whose rows are damaged or incomplete:
    these are named in `damaged` and in a warning.

    Attributes:
        path: the folder or URI.
        version: versions of `clips` and `frames`.
        damaged: ids of clips left out, with the reason.
        options: what the collection was packed with (`options.json`), empty if there is none.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        version: tuple[int, int] | list[int] | None = None,
        verify: bool = False,
    ):
        versions = (None, None) if version is None else tuple(version)
        # Clips first: every clip's frames were committed before it.
        clips = open_table(path, CLIPS, versions[0])
        self._frames = open_table(path, FRAMES, versions[1])
        self.path = os.fspath(path)
        self.version = (clips.version, self._frames.version)
        self.verify = verify
        self.options = read_options(path)
        table, lost = read_rows(clips, clips_schema())
        if lost:
            log.warning("%s: %d rows of the table of clips cannot be read; run `tce check`", path, lost)
        packed = np.asarray(table["status"]) == PACKED
        table = table.filter(packed)
        runs = frame_runs(self._frames)
        self._order = runs.order
        lengths = np.asarray(table["frames"])
        starts, self.damaged = clip_starts(runs, table["id"].combine_chunks(), lengths)
        if self.damaged:
            first, reason = next(iter(self.damaged.items()))
            log.warning(
                "%s: %d of %d clips are damaged and left out, %s first (%s); run `tce check`",
                path, len(self.damaged), len(table), first, reason,
            )  # fmt: skip
        whole = starts >= 0
        table = table.filter(whole)
        self._starts = starts[whole]
        self.catalog = catalog_of(table, self.options.get("classes"))
        self.lengths = lengths[whole].astype(np.int64)
        self.fps = np.asarray(table["fps"]).astype(np.float64)
        self._content = table.select(_CONTENT)

    @property
    def sizes(self) -> np.ndarray:
        """int64 [clips, 2], height and width of each clip's first frame, pixels."""
        columns = [np.asarray(self._content[name]) for name in ("height", "width")]
        return np.stack(columns, axis=1).astype(np.int64)

    def read(self, clips: np.ndarray, frames: np.ndarray) -> list[bytes | Exception]:
        """Encoded images of single frames.

        Args:
            clips: int64 [n], rows of `catalog`.
            frames: int64 [n], position of the frame in its clip, from 0.

        Returns:
            n items: the image's bytes, or the error that stands in its place.
        """
        wanted = FrameRequest(self.lengths, clips, frames)
        rows = self._starts[wanted.clips] + wanted.frames
        if self._order is not None:
            rows = self._order[rows]
        images, _ = try_read(lambda: self._take(rows))
        if images is None:  # some row is damaged: read the others one at a time
            images = [self._take_one(row) for row in rows]
        return wanted.fill(images)

    @property
    def content_hashes(self) -> list[str]:
        """SHA-256 of each clip's footage."""
        return [str(found) for found in self._content["content_hash"].to_pylist()]

    def frame_at(self, row: int) -> tuple[int, int]:
        """Clip and position of the frame in this row of the table `frames`; clip -1 for one of no clip."""
        if self._order is not None:
            places = np.flatnonzero(self._order == row)
            row = int(places[0]) if len(places) else -1
        inside = np.flatnonzero((self._starts <= row) & (row < self._starts + self.lengths))
        return (int(inside[0]), row - int(self._starts[inside[0]])) if len(inside) else (-1, 0)

    def fingerprint(self) -> str:
        """Hash of the clips' content in their order: what a run's samples depend on."""
        digest = hashlib.sha256()
        for name in _CONTENT:
            digest.update(json.dumps(self._content[name].to_pylist()).encode())
        return digest.hexdigest()

    def _subset(self, rows: np.ndarray) -> None:
        self._starts, self._content = self._starts[rows], self._content.take(rows)

    def _take(self, rows: np.ndarray) -> list[bytes | Exception]:
        columns = ["image", "checksum"] if self.verify else ["image"]
        table = self._frames.take(rows, columns=columns)  # type: ignore[arg-type]
        images = table["image"].to_pylist()
        if not self.verify:
            return images
        return [
            image if zlib.crc32(image) == checksum else ValueError("the image does not match its checksum")
            for image, checksum in zip(images, table["checksum"].to_pylist(), strict=True)
        ]

    def _take_one(self, row: int) -> bytes | Exception:
        images, error = try_read(lambda: self._take(np.array([row])))
        return images[0] if images is not None else OSError(f"damaged collection: {first_line(error)}")


def known_clips(folder: str | os.PathLike[str]) -> dict[str, ClipRecord]:
    """The clips that a collection's table holds, failed ones too, by id; without those it cannot read."""
    columns = ["id", "path", "status", "frames", "bytes", "modified", "error"]
    table, lost = read_rows(open_table(folder, CLIPS), clips_schema(), columns)
    if lost:
        log.warning("%d rows of the table of clips cannot be read: these clips count as not packed", lost)
    return {row.pop("id"): ClipRecord(**row | {"error": row["error"] or ""}) for row in table.to_pylist()}


def holds_clips(folder: str | os.PathLike[str]) -> bool:
    """Whether any clip was packed into a collection, also if it is damaged by now or its row unreadable."""
    columns = ["status"]
    table, lost = read_rows(open_table(folder, CLIPS), clips_schema(), columns)
    return lost > 0 or any(status != FAILED for status in table["status"].to_pylist())


def read_options(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the collection `path` was packed with; empty without a readable `options.json`."""
    try:
        if not is_remote(path):
            return json.loads((Path(path) / "options.json").read_text(encoding="utf-8"))
        from pyarrow.fs import FileSystem

        storage, place = FileSystem.from_uri(f"{os.fspath(path).rstrip('/')}/options.json")
        with storage.open_input_file(place) as file:
            return json.loads(file.read())
    except (OSError, ValueError):
        return {}
