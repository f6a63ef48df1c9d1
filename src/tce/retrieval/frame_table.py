"""The index on disk: a LanceDB database with two tables a checkpoint, one row a frame and one row a video.

A video's frames count once its row is in the table of videos. `index_writer` writes them; readers take the
latest version of both tables.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tce.data.collection import has_table, table_path
from tce.data.lance_rows import first_line, try_read
from tce.errors import TceError

if TYPE_CHECKING:
    from collections.abc import Callable

    import lance
    import pyarrow as pa

ANN_ABOVE = 100_000
"""Frames above which LanceDB builds an approximate index; below it every search looks at every frame."""

_KEY = b"tce"  # of the settings in the schema's metadata
VIDEOS = "_videos"  # ending of the table of videos
_HASH_DIGITS = 16

T = TypeVar("T")


@dataclass(frozen=True)
class IndexSettings:
    """What all vectors of an index have in common.

    Attributes:
        hash: SHA-256 of the network's tensors.
        layer: "features" or "embedding".
        size: numbers a vector, D.
        network: the options that open the network again: ckpt, model, output_size, image_size, seed.
        center: groups whose mean is subtracted, as `--center` takes them.
        every: every n-th frame is indexed; None where `fps` decides.
        fps: frames a second that are indexed.
    """

    hash: str
    layer: str
    size: int
    network: dict[str, Any] = field(default_factory=dict)
    center: str | None = None
    every: int | None = 1
    fps: float | None = None

    @property
    def name(self) -> str:
        """The name of the table of frames."""
        return f"{self.hash[:_HASH_DIGITS]}_{self.layer}"

    @property
    def sampling(self) -> str:
        """How frames are chosen, as flags."""
        return f"--fps {self.fps:g}" if self.fps is not None else f"--every {self.every}"


@dataclass
class VideoRecord:
    """One indexed video; a row of the table of videos.

    Attributes:
        video: unique name: the file's absolute path, with its time span or the clip's id where it is a piece.
        path: file or folder that plays it.
        offset: seconds of that file at which the video's time 0 lies.
        source: what was given as FOOTAGE.
        key: changes when the footage does.
        label: class, if known.
        group: who or what it shows, if known.
        recording: what it was cut from.
        center_group: group whose mean was subtracted, where the index is centered.
        frames: how many are indexed.
        total: sum of its vectors before centering, float64 [D].
        centered: fingerprint of the group that its vectors were centered with.
    """

    video: str
    path: str
    offset: float
    source: str
    key: str
    label: str | None = None
    group: str | None = None
    recording: str | None = None
    center_group: str | None = None
    frames: int = 0
    total: list[float] | None = None
    centered: str | None = None


@dataclass(frozen=True)
class FrameRows:
    """The indexed frames of one video, n of them.

    Attributes:
        frame: int64 [n], frame numbers.
        time: float64 [n], seconds.
        vectors: float32 [n, D], of length 1.
        thumbnails: n JPEG files.
        raw: float32 [n, D], the vectors before centering; None where nothing is subtracted.
    """

    frame: NDArray[np.int64]
    time: NDArray[np.float64]
    vectors: NDArray[np.float32]
    thumbnails: list[bytes]
    raw: NDArray[np.float32] | None = None


def frames_schema(size: int, raw: bool) -> pa.Schema:
    """One row a frame, with vectors of `size` numbers, and those before centering where `raw`."""
    import pyarrow as pa

    vector = pa.list_(pa.float32(), size)
    return pa.schema(
        [
            ("video", pa.string()),
            ("frame", pa.int64()),
            ("time", pa.float64()),  # seconds since the video's first frame
            ("label", pa.string()),
            ("group", pa.string()),
            ("recording", pa.string()),
            ("thumbnail", pa.binary()),  # JPEG
            ("vector", vector),
            *([("raw", vector)] if raw else []),
        ]
    )


def videos_schema(settings: IndexSettings) -> pa.Schema:
    """One row a video; the settings are in the schema's metadata."""
    import pyarrow as pa

    kinds = {"offset": pa.float64(), "frames": pa.int64(), "total": pa.list_(pa.float64())}
    fields = [(one.name, kinds.get(one.name, pa.string())) for one in dataclasses.fields(VideoRecord)]
    return pa.schema(fields, metadata={_KEY: json.dumps(dataclasses.asdict(settings)).encode()})


def list_indexes(db: str) -> list[IndexSettings]:
    """The settings of every index in a database, empty where there is none.

    Raises:
        TceError: a table's settings cannot be read.
    """
    folder = Path(db)
    if not folder.is_dir():
        return []
    ending = f"{VIDEOS}.lance"
    names = sorted(
        entry.name.removesuffix(".lance") for entry in folder.iterdir() if entry.name.endswith(ending)
    )
    return [_settings(db, name) for name in names if has_table(db, name)]


def _settings(db: str, name: str) -> IndexSettings:
    def read() -> IndexSettings:
        metadata = open_frames(db, name).schema.metadata or {}
        return IndexSettings(**json.loads(metadata[_KEY]))

    return read_frames(db, read)


def open_frames(db: str, name: str) -> lance.LanceDataset:
    """A table of a database at its latest version."""
    import lance

    return lance.dataset(table_path(db, name))


def read_videos(db: str, settings: IndexSettings) -> dict[str, VideoRecord]:
    """The indexed videos by name.

    Raises:
        TceError: the table is damaged.
    """
    table = read_frames(db, lambda: open_frames(db, settings.name + VIDEOS).to_table())
    return {row["video"]: VideoRecord(**row) for row in table.to_pylist()}


def read_frames(db: str, read: Callable[[], T]) -> T:
    """What `read` reads of a table.

    Raises:
        TceError: the table is damaged.
    """
    found, error = try_read(read)
    if error is not None:
        raise TceError(
            f"index {db}",
            expected="tables that can be read",
            found=f"a damaged one ({first_line(error)})",
            fix="make the index again in a new --db",
        ) from error
    return found  # type: ignore[return-value]
