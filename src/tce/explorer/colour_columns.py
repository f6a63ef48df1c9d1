"""What the points of a page can be coloured by: what is known of the clips, and the columns of a table."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError
from tce.explorer.page import PageColumn, category
from tce.explorer.sampled_clips import SampledClip
from tce.visualize.table_columns import TableColumns, as_numbers


def frame_columns(
    clips: Sequence[SampledClip], owner: NDArray[np.int64], table: TableColumns | None
) -> list[PageColumn]:
    """The columns of the page that come from what is known of the clips and from a table.

    A column of the table takes the place of one of the same name.

    Args:
        clips: in order.
        owner: [N], each frame's clip.
        table: of the clips, their segments or frames.

    Raises:
        TceError: the table names none of the clips.
    """
    columns = []
    given = [] if table is None else table.names
    for name in ("class", "group", "split"):
        texts = [clip.columns.get(name) for clip in clips]
        if any(texts) and name not in given:
            columns.append(_spread(category(name, texts), owner))
    found = False
    for name in given:
        assert table is not None
        texts = [text for clip in clips for text in table.values(name, _names(clip), clip.time, clip.frame)]
        found |= any(text is not None for text in texts)
        columns.append(_column(name, texts))
    if table is not None and not found:
        raise TceError("--table", f"clips as {clips[0].path}", f"none of them, but {table.first_clip}")
    if "video" not in given:
        columns.append(_spread(category("video", [clip.name for clip in clips]), owner))
    return columns


def _names(clip: SampledClip) -> list[str]:
    """What a table may call a clip."""
    return [clip.path, clip.name, *([os.path.abspath(clip.file)] if clip.file else [])]


def _column(name: str, texts: Sequence[str | None]) -> PageColumn:
    """Numbers where all texts are and there are more than a few; else a category."""
    numbers = as_numbers(texts)
    return category(name, texts) if numbers is None else PageColumn(name, "number", numbers)


def _spread(column: PageColumn, owner: NDArray[np.int64]) -> PageColumn:
    return PageColumn(column.name, column.kind, column.values[owner], column.names)
