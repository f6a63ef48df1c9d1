"""The videos that `tce near-duplicates` compares: vectors and small pictures at even steps in time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError
from tce.progress import Progress
from tce.retrieval.frame_table import VideoRecord
from tce.retrieval.indexed_frames import IndexedFrames
from tce.retrieval.pixel_match import SIDE, Small, small_pictures
from tce.video.image import decode

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ComparedVideos:
    """Frames of the videos of one or two indexes, at even steps in time, those of a video together.

    Attributes:
        records: the videos.
        sides: int64 [V], what each belongs to; only videos of different sides are compared. None: all are.
        side_names: of the sides.
        video: int64 [N], each frame's video.
        time: float64 [N], seconds.
        vectors: float32 [N, D].
        small: uint8 [N, SIDE, SIDE].
        source: the index and row of each frame, int64 [N, 2].
        indexes: the opened indexes.
    """

    records: Sequence[VideoRecord]
    sides: Ints | None
    side_names: Sequence[str]
    video: Ints
    time: NDArray[np.float64]
    vectors: NDArray[np.float32]
    small: Small
    source: Ints
    indexes: Sequence[IndexedFrames]

    @property
    def starts(self) -> Ints:
        """First frame of each video, and the end, int64 [V + 1]."""
        return np.searchsorted(self.video, np.arange(len(self.records) + 1))

    def thumbnail(self, frame: int) -> bytes:
        """A frame's small picture, a JPEG file."""
        index, row = self.source[frame].tolist()
        return self.indexes[index].thumbnails(np.array([row]))[0]


def even_rows(time: NDArray[np.float64], step: float) -> Ints:
    """Rows of a video's frames nearest in time to 0, step, 2 steps, ...; a frame may occur twice."""
    grid = np.arange(time[0], time[-1] + step / 2, step)
    after = np.clip(np.searchsorted(time, grid), 1, max(1, len(time) - 1))
    if len(time) == 1:
        return np.zeros(1, np.int64)
    return np.where(grid - time[after - 1] <= time[after] - grid, after - 1, after)


def read_videos_to_compare(
    indexes: Sequence[IndexedFrames], splits: dict[str, str] | None, parts: Sequence[Sequence[str]]
) -> ComparedVideos:
    """Read indexes.

    Args:
        indexes: one, or two whose videos are compared across.
        splits: the split of each video's path; videos without one are left out. None: no splits.
        parts: with one index, the sources (FOOTAGE) of either side; empty: one side.

    Raises:
        TceError: indexes of two networks, damaged ones, or nothing on one side.
    """
    if len({one.settings.name for one in indexes}) > 1:
        networks = " and ".join(str(one.settings.network.get("ckpt")) for one in indexes)
        raise TceError("--against", "an index of the same network", f"those of {networks}", "index it again")
    records: list[VideoRecord] = []
    sides: list[int] = []
    names = sorted(set(splits.values())) if splits is not None else ["first", "second"]
    video, source, spans = [], [], []
    steps = [np.diff(one.time)[np.diff(one.code) == 0] for one in indexes]
    known = np.concatenate(steps)
    step = float(np.median(known[known > 0])) if (known > 0).any() else 1.0
    for number, index in enumerate(indexes):
        begins = np.flatnonzero(np.append(True, index.code[1:] != index.code[:-1]))
        for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(index)], strict=True):
            record = index.videos[index.names[index.code[begin]]]
            side = _side(record, number, names, splits, parts)
            if side is None:
                continue
            rows = begin + even_rows(index.time[begin:end], step)
            video.append(np.full(len(rows), len(records)))
            source.append(np.stack([np.full(len(rows), number), rows], axis=1))
            spans.append((number, begin, end, rows))
            records.append(record)
            sides.append(side)
    several = len(indexes) > 1 or splits is not None or bool(parts)
    if not records or (several and len(set(sides)) < 2):
        raise TceError(
            "what is compared", "videos on both sides" if several else "videos", "none on one of them"
        )
    vectors = np.concatenate([_vectors(index, number, spans) for number, index in enumerate(indexes)])
    return ComparedVideos(
        records,
        np.array(sides) if several else None,
        names,
        np.concatenate(video).astype(np.int64),
        np.concatenate([indexes[number].time[rows] for number, _, _, rows in spans]),
        vectors,
        _small(indexes, spans),
        np.concatenate(source).astype(np.int64),
        indexes,
    )


def _side(
    record: VideoRecord,
    index: int,
    names: Sequence[str],
    splits: dict[str, str] | None,
    parts: Sequence[Sequence[str]],
) -> int | None:
    if splits is not None:
        split = splits.get(record.video) or splits.get(record.path)
        return None if split is None else names.index(split)
    for number, part in enumerate(parts):
        if any(record.video == one or record.video.startswith(one + os.sep) for one in part):
            return number
    return None if parts else index


def _vectors(
    index: IndexedFrames, number: int, spans: Sequence[tuple[int, int, int, Ints]]
) -> NDArray[np.float32]:
    rows = [rows for owner, _, _, rows in spans if owner == number]
    if not rows:
        return np.empty((0, index.settings.size), np.float32)
    return index.all_vectors()[np.concatenate(rows)]


def _small(indexes: Sequence[IndexedFrames], spans: Sequence[tuple[int, int, int, Ints]]) -> Small:
    """Small pictures of all frames; thumbnails are read and decoded video by video."""
    found = [np.empty((0, SIDE, SIDE), np.uint8)]
    with Progress(len(spans), "reading", "video") as progress:
        for number, begin, end, rows in spans:
            pictures = indexes[number].thumbnails(np.arange(begin, end))
            small = small_pictures([decode(picture) for picture in pictures])
            found.append(small[rows - begin])
            progress.update(1)
    return np.concatenate(found)
