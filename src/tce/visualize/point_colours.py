"""What the points of a map are coloured by: class, video, time, or a column of a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from tce.embedding.embedding_file import Embeddings
from tce.errors import OptionError, TceError
from tce.visualize.table_columns import TableColumns, as_numbers
from tce.visualize.themes import MOST_ENTRIES

AUTO = "auto"
KNOWN = ("class", "video", "folder", "group", "time", "frame")
OTHER = "other"


@dataclass(frozen=True)
class PointColours:
    """A value of every point.

    Attributes:
        name: what the values are, such as "class".
        label: the same for a legend or colour bar, with its unit.
        codes: int64 [N] numbers of `names`, -1 for none; None where the values are numbers.
        names: of the categories, distinct.
        numbers: float64 [N], NaN for none; None where there are categories.
    """

    name: str
    label: str
    codes: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    numbers: NDArray[np.float64] | None = None


def choose_colours(
    stored: Embeddings,
    by: str = AUTO,
    labels: Sequence[str | None] | None = None,
    table: TableColumns | None = None,
) -> PointColours:
    """What to colour frames by.

    By itself: the table's first column; else the class where there are two or more, of several videos; else
    the video, of up to 20; else the group of UCF101-style names or the folder, where there are 2 to 20; else
    the time, which is what one video has.

    Args:
        stored: the frames.
        by: "auto", one of `KNOWN`, or a column of the table.
        labels: N classes, None where unknown; unset: the folders that the videos lie in.
        table: of the clips or their segments.

    Raises:
        OptionError: `by` is nothing that these frames have.
        TceError: the table names none of the videos.
    """
    videos = [] if stored.video is None else stored.video.tolist()
    several = len(set(videos)) > 1
    classes = list(labels) if labels is not None else folder_classes(videos)
    has_classes = len({name for name in classes if name is not None}) > 1
    if by == AUTO:
        if table is not None:
            by = table.names[0]
        elif has_classes and (labels is not None or len(set(classes)) < len(set(videos))):
            by = "class"
        elif not several:
            by = "time"
        elif len(set(videos)) <= MOST_ENTRIES:
            by = "video"
        else:
            by = next(
                (one for one in ("group", "folder") if 2 <= len(_distinct(one, videos)) <= MOST_ENTRIES),
                "time",
            )
    if table is not None and by in table.names:
        return _from_table(stored, by, table)
    if by == "class" and not has_classes and labels is None:
        raise OptionError(
            "--color-by class",
            "videos in a folder for each class, or --lists",
            "neither",
            "use --color-by video",
        )
    if by == "class":
        return _categories("class", classes)
    if by in ("video", "group", "folder"):
        if not videos:
            raise OptionError(
                f"--color-by {by}", "embeddings that name their videos", "none", "use --color-by time"
            )
        return _categories(by, videos if by == "video" else _values(by, videos))
    if by in ("time", "frame"):
        return _over_time(stored, by)
    known = ", ".join([*KNOWN, *(table.names if table is not None else ())])
    fix = "" if table is not None else "--table FILE adds the columns of a table"
    raise OptionError(f"--color-by {by}", f"one of {known}", repr(by), fix)


def most_frequent(colours: PointColours, most: int = MOST_ENTRIES) -> PointColours:
    """At most `most` categories: where there are more, the most frequent ones, then "other (COUNT)".

    Those that are left keep their order.
    """
    if colours.codes is None or len(colours.names) <= most:
        return colours
    counts = np.bincount(colours.codes[colours.codes >= 0], minlength=len(colours.names))
    kept = np.sort(np.argsort(-counts, kind="stable")[: most - 1])
    place = np.full(len(colours.names), most - 1)
    place[kept] = np.arange(most - 1)
    names = [colours.names[row] for row in kept]
    rest = f"{OTHER} ({len(colours.names) - len(kept)})"
    codes = np.where(colours.codes >= 0, place[colours.codes], -1)
    return PointColours(colours.name, colours.label, codes, (*names, rest))


def folder_classes(videos: Sequence[str]) -> list[str | None]:
    """The class of each frame out of the folder its video lies in, as for `tce pack`; None where none.

    Args:
        videos: N names of videos, repeated for their frames.
    """
    from tce.data.find_clips import label_folders

    paths = list(dict.fromkeys(map(str, videos)))
    if len(paths) < 2:
        return [None] * len(videos)
    found, _ = label_folders([os.path.normpath(path) for path in paths])
    by_path = dict(zip(paths, found))
    if None in found:  # a video beside the folders: they are no classes
        return [None] * len(videos)
    return [by_path[str(path)] for path in videos]


def _distinct(by: str, videos: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(_values(by, list(dict.fromkeys(videos)))))


def _values(by: str, videos: Sequence[str]) -> list[str]:
    if by == "folder":
        return [str(PurePath(name).parent) for name in videos]
    from tce.data.catalog import Catalog

    distinct = list(dict.fromkeys(videos))
    groups = Catalog([f"{row}/{Path(name).stem}" for row, name in enumerate(distinct)], distinct).groups
    named = [str(group) for group in groups]
    known = dict(zip(distinct, named if len(set(named)) < len(named) else [""] * len(named)))
    return [known[name] for name in videos]


def _categories(name: str, values: Sequence[str | None]) -> PointColours:
    names = tuple(dict.fromkeys(value for value in values if value is not None))
    if name != "video":  # videos keep the order in which they were given
        from tce.data.listing import class_order

        names = tuple(class_order(names))
    place = {value: row for row, value in enumerate(names)}
    codes = np.array([-1 if value is None else place[value] for value in values], np.int64)
    return PointColours(name, name, codes, names)


def _over_time(stored: Embeddings, by: str) -> PointColours:
    if by == "time" and stored.time is not None:
        return PointColours("time", "time in the video (s)", numbers=stored.time.astype(np.float64))
    frame = stored.frame if stored.frame is not None else np.arange(len(stored))
    return PointColours("frame", "frame", numbers=frame.astype(np.float64))


def _from_table(stored: Embeddings, by: str, table: TableColumns) -> PointColours:
    if stored.video is None:
        raise OptionError("--table", "embeddings that name their videos", "none")
    names, owner = np.unique(stored.video.astype(str), return_inverse=True)
    time = stored.time if stored.time is not None else np.zeros(len(stored))
    texts = np.full(len(stored), None, object)
    for row, name in enumerate(names.tolist()):
        mine = owner == row
        frame = None if stored.frame is None else stored.frame[mine]
        texts[mine] = table.values(by, [name], time[mine], frame)
    values: list[str | None] = texts.tolist()
    if all(value is None for value in values):
        raise TceError("--table", f"clips as {names[0]}", f"none of them, but {table.first_clip}")
    numbers = as_numbers(values)
    if numbers is not None:
        return PointColours(by, by, numbers=numbers)
    return _categories(by, values)
