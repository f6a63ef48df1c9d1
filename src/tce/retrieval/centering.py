"""Means of groups, subtracted from an index's vectors: kept right as videos come and go.

Every video's row holds the sum of its vectors, so a group's mean follows from rows alone. A row also holds
a fingerprint of the group that its vectors were centered with; where it is not the group's present one, the
group is centered again, from the raw vectors beside the centered ones.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tce.data.catalog import Catalog
from tce.errors import TceError
from tce.retrieval.frame_table import VideoRecord, open_frames, read_frames
from tce.retrieval.index_writer import IndexWriter

if TYPE_CHECKING:
    import pyarrow as pa

    from tce.retrieval.frame_table import IndexSettings

Vectors = NDArray[np.float32]

_IDS_AT_ONCE = 500


def group_of_clips(catalog: Catalog, by: str | None) -> Sequence[str | None]:
    """The group of each clip whose mean is subtracted, as `tce embed --center` takes it; None for none.

    Raises:
        OptionError: neither a column nor a pattern.
        TceError: every clip is a group of its own, or the pattern is not found.
    """
    if by is None:
        return [None] * len(catalog)
    return _group_names(catalog, by, several=by != "recording")


def _group_names(catalog: Catalog, by: str, several: bool) -> list[str]:
    from tce.data.splits import group_names

    return group_names(catalog, by, "--center", several=several)


def centered_alone(raw: NDArray[np.floating[Any]]) -> Vectors:
    """Vectors [N, D] less their own mean, of length 1."""
    return _unit(np.asarray(raw, np.float64) - np.asarray(raw, np.float64).mean(axis=0))


def _unit(vectors: NDArray[np.float64]) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def fingerprint(records: Iterable[VideoRecord]) -> str:
    """What changes when a group's videos do."""
    digest = hashlib.sha256()
    for record in sorted(records, key=lambda record: record.video):
        digest.update(f"{record.video}\0{record.key}\0{record.frames}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def group_mean(records: Iterable[VideoRecord]) -> NDArray[np.float64]:
    """The mean of all frames of a group's videos, float64 [D]."""
    found = list(records)
    total = np.sum([np.asarray(record.total) for record in found], axis=0)
    return np.asarray(total / max(1, sum(record.frames for record in found)))


def members(videos: Iterable[VideoRecord]) -> dict[str, list[VideoRecord]]:
    """The videos of each group."""
    groups: dict[str, list[VideoRecord]] = defaultdict(list)
    for record in videos:
        groups[str(record.center_group)].append(record)
    return groups


def center_groups(writer: IndexWriter) -> int:
    """Center the groups again whose videos have changed; how many."""
    if writer.settings.center is None:
        return 0
    changed = 0
    for name, records in members(writer.videos.values()).items():
        now = fingerprint(records)
        if all(record.centered == now for record in records):
            continue
        mean = group_mean(records)
        names = [record.video for record in records]
        for first in range(0, len(names), _IDS_AT_ONCE):
            rows = _frames_of(writer, names[first : first + _IDS_AT_ONCE])
            raw = rows["raw"].combine_chunks().flatten().to_numpy().reshape(-1, writer.settings.size)
            writer.replace_vectors(name, _unit(raw.astype(np.float64) - mean), rows)
        writer.update_records([replace(record, centered=now) for record in records])
        changed += 1
    return changed


def _frames_of(writer: IndexWriter, videos: Sequence[str]) -> pa.Table:
    """All columns of the frames of some videos."""
    listed = ", ".join("'" + video.replace("'", "''") + "'" for video in videos)
    table = open_frames(writer.db, writer.settings.name)
    return read_frames(writer.db, lambda: table.to_table(filter=f"video IN ({listed})"))


def is_centered(records: Iterable[VideoRecord]) -> bool:
    """Whether all vectors were centered with the groups as they are now; not after an interruption."""
    for group in members(records).values():
        now = fingerprint(group)
        if any(record.centered != now for record in group):
            return False
    return True


def center_query(
    vectors: NDArray[np.floating[Any]],
    path: str,
    settings: IndexSettings,
    videos: dict[str, VideoRecord],
) -> Vectors:
    """A query's vectors less the mean of its group: the index's, or its own where the index has none.

    Args:
        vectors: float [Q, D] of the query, not normalised.
        path: the query's file, which names its group.
        settings: of the index.
        videos: of the index.

    Raises:
        TceError: one frame of a group that the index does not know, which has no mean.
    """
    assert settings.center is not None
    groups = members(videos.values())
    name = _group_of_query(path, settings.center, videos)
    if name in groups:
        return _unit(np.asarray(vectors, np.float64) - group_mean(groups[name]))
    if len(vectors) > 1:
        return centered_alone(vectors)
    raise TceError(
        f"the query {path}",
        expected=f"a group that the index knows, since it was made with --center {settings.center}",
        found="one frame of another one" if name is None else f"one frame of {name!r}",
        fix="give several frames, or --frame with an indexed video",
    )


def _group_of_query(path: str, by: str, videos: dict[str, VideoRecord]) -> str | None:
    place = os.path.abspath(path)
    for record in videos.values():
        if record.path == place:
            return record.center_group
    stem = os.path.splitext(place)[0]
    try:
        return _group_names(Catalog([stem], [place]), by, several=False)[0]
    except TceError:
        return None
