"""The points of a page as a Parquet table, for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tce.explorer.page import PageColumn, PageMap
from tce.explorer.sampled_clips import SampledClip
from tce.io import atomic

JPEG_QUALITY = 80


def write_points(
    path: str, clips: Sequence[SampledClip], page_map: PageMap, columns: Sequence[PageColumn]
) -> None:
    """Write x, y, video, frame, time, image (JPEG bytes and path, as Hugging Face's image type), neighbours.

    `neighbours` holds values of the column `id`, nearest first; the page's colours follow under their names.

    Args:
        path: file to write.
        clips: in order.
        page_map: whose points and nearest frames are written.
        columns: what the points can be coloured by.
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
        "neighbours": [row[row >= 0].tolist() for row in page_map.neighbours],
    }
    for column in columns:
        if column.name not in table:
            table[column.name] = _values(column)
    with atomic(path) as file:
        pq.write_table(pa.table(table), file)


def _values(column: PageColumn) -> Any:
    if column.kind == "number":
        return column.values.astype(np.float64)
    names = np.array([*column.names, None], object)  # code -1: none
    return names[column.values]
