"""The points of a page as a Parquet table, for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.explorer.page import PageColumn, PageMap
from tce.explorer.sampled_clips import SampledClip
from tce.io import atomic

JPEG_QUALITY = 80


def write_points(
    path: str,
    clips: Sequence[SampledClip],
    page_map: PageMap,
    columns: Sequence[PageColumn],
    vectors: NDArray[np.floating[Any]],
) -> None:
    """Write x, y, video, frame, time, image (JPEG bytes and path, as Hugging Face's image type), neighbours.

    `neighbours` holds ids (values of the column `id`, nearest first) and distances, as Embedding Atlas reads
    them; the page's colours follow under their names.

    Args:
        path: file to write.
        clips: in order.
        page_map: whose points and nearest frames are written.
        columns: what the points can be coloured by.
        vectors: [N, d] in which the neighbours were found.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tce.video.image import encode_jpeg

    images: list[dict[str, Any] | None] = []
    for clip in clips:
        pictures = clip.pictures
        images += (
            [None] * len(clip.frame)
            if pictures is None
            else [{"bytes": encode_jpeg(picture, JPEG_QUALITY), "path": None} for picture in pictures]
        )
    counts = [len(clip.frame) for clip in clips]
    table: dict[str, Any] = {
        "id": np.arange(sum(counts)),
        "x": page_map.points[:, 0],
        "y": page_map.points[:, 1],
        "video": np.repeat(np.array([clip.path for clip in clips], object), counts),
        "frame": np.concatenate([clip.frame for clip in clips]),
        "time": np.concatenate([clip.time for clip in clips]),
        "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "neighbours": _neighbours(page_map.neighbours, vectors),
    }
    for column in columns:
        if column.name not in table:
            table[column.name] = _values(column)
    with atomic(path) as file:
        pq.write_table(pa.table(table), file)


def _neighbours(found: NDArray[np.int32], vectors: NDArray[np.floating[Any]]) -> list[dict[str, list[Any]]]:
    """Ids and Euclidean distances of each frame's nearest ones."""
    rows = []
    for own, near in zip(vectors, found):
        ids = near[near >= 0]
        apart = np.linalg.norm(vectors[ids] - own, axis=1)
        rows.append({"ids": ids.tolist(), "distances": apart.astype(float).tolist()})
    return rows


def _values(column: PageColumn) -> Any:
    if column.kind == "number":
        return column.values.astype(np.float64)
    names = np.array([*column.names, None], object)  # code -1: none
    return names[column.values]
