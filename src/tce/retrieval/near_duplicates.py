"""The command `tce near-duplicates`: copies and overlapping pieces of videos, grouped and reported."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tce.errors import OptionError, TceError, printable
from tce.io import Result, atomic, require_pandas, require_writable, write_csv
from tce.options.index import IndexOptions
from tce.options.near_duplicates import NearDuplicatesOptions
from tce.retrieval.compared_videos import ComparedVideos, read_videos_to_compare
from tce.retrieval.copy_search import CopySpan, find_copies
from tce.retrieval.duplicate_page import DuplicatePair, pairs_page, save_pairs_sheet
from tce.retrieval.frame_table import list_indexes
from tce.retrieval.search_index import open_index
from tce.retrieval.search_result import short_names

log = logging.getLogger("tce.index")

FPS = 10.0  # frames a second of footage that are compared
THUMBNAIL = 96  # pixels, the longer side of its small pictures
_SHOWN = 20  # pairs in the text

COLUMNS = (
    *("group", "score", "video", "from", "to", "other", "other_from", "other_to"),
    *("mirrored", "side", "other_side", "path", "other_path"),
)


@dataclass
class NearDuplicates(Result):
    """Pairs of videos that share a span, best first; also a sequence of `DuplicatePair`.

    Attributes:
        pairs: the pairs.
    """

    pairs: list[DuplicatePair] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[DuplicatePair]:
        return iter(self.pairs)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, a row a pair; needs pandas.

        Raises:
            TceError: pandas is not installed.
        """
        return require_pandas().DataFrame(map(_values, self.pairs), columns=list(COLUMNS))


def near_duplicates(options: NearDuplicatesOptions) -> NearDuplicates:
    """Find copies and overlapping pieces among videos, and write what the options ask for.

    Raises:
        TceError: footage or a database that cannot be read, or nothing to compare.
    """
    from tce.visualize.contact_sheet import check_suffix

    for flag, path in (("--csv", options.csv), ("--sheet", options.sheet), ("--page", options.page)):
        if path is not None:
            require_writable(path, flag)
    if options.sheet is not None:
        check_suffix(options.sheet)
    with contextlib.ExitStack() as stack:
        videos = _open(options, stack)
        spans = find_copies(videos, options.threshold, options.mirror)
        pairs = _pairs(videos, spans)
        result = _result(options, videos, pairs)
        if options.csv is not None:
            with atomic(options.csv, "w") as file:
                write_csv(file, [COLUMNS, *map(_values, pairs)])
        if options.page is not None:
            with atomic(options.page, "w") as file:
                file.write(pairs_page(result.text.splitlines()[0], pairs, options.page))
        if options.sheet is not None and pairs:
            save_pairs_sheet(options.sheet, pairs)
    written = [path for path in (options.csv, options.sheet, options.page) if path and os.path.exists(path)]
    if written:
        result.text += f"\nwritten: {', '.join(written)}"
        result.figures["written"] = written
    return result


def _open(options: NearDuplicatesOptions, stack: contextlib.ExitStack) -> ComparedVideos:
    """Open the databases, or index the footage."""
    ckpt, device = options.network.ckpt, options.network.device
    place = options.footage[0]
    if list_indexes(place):
        if len(options.footage) > 1:
            raise OptionError("DB_OR_FOOTAGE", "one database", " ".join(options.footage), "use --against")
        indexes = [open_index(place, ckpt, device).frames]
        if options.against is not None:
            if not list_indexes(options.against):
                raise OptionError(
                    f"--against {options.against}",
                    f"a database, as {place} is one",
                    "none",
                    f"make it: tce index {options.against} --ckpt {indexes[0].settings.network['ckpt']}",
                )
            indexes.append(open_index(options.against, ckpt, device).frames)
        return read_videos_to_compare(indexes, _splits(options, indexes[0].videos.values()), ())
    db = options.db or stack.enter_context(tempfile.TemporaryDirectory(prefix="tce-near-duplicates-"))
    both = (*options.footage, *([options.against] if options.against is not None else []))
    _index(options, both, db)
    frames = open_index(db, ckpt or "lite2", device).frames
    parts = [] if options.against is None else [options.footage, (options.against,)]
    absolute = [[os.path.abspath(one) for one in part] for part in parts]
    mine = tuple(os.path.abspath(one) for one in both)
    sources = [record for record in frames.videos.values() if record.source in mine]
    return read_videos_to_compare([frames], _splits(options, sources), absolute)


def _index(options: NearDuplicatesOptions, footage: Sequence[str], db: str) -> None:
    from tce.retrieval.indexing import index

    network = options.network
    if network.ckpt is None and network.model is None:
        network = dataclasses.replace(network, ckpt="lite2")
    known = list_indexes(db)
    fps = None if known and options.fps is None else options.fps or FPS
    index(IndexOptions(tuple(footage), db, network, fps=fps, thumbnail=THUMBNAIL))


def _splits(options: NearDuplicatesOptions, records: Any) -> dict[str, str] | None:
    """The split of each video, by its name in the index and by its path, as the lists say."""
    if options.lists is None:
        return None
    from tce.data.collection import is_collection
    from tce.data.open_data import open_store
    from tce.data.read_catalog import read_catalog

    found: dict[str, str] = {}
    for source in sorted({record.source for record in records}):
        if is_collection(source):
            catalog = open_store(source, options.lists, options.split).catalog
            names = [os.path.join(source, clip.id) for clip in catalog]
        else:
            catalog = read_catalog(source, options.lists, options.split)
            names = [clip.path for clip in catalog]
        found |= {name: clip.split for name, clip in zip(names, catalog, strict=True) if clip.split}
    if len(set(found.values())) < 2:
        raise TceError(
            f"--lists {options.lists}",
            "clips of two splits among the videos, such as train and test",
            f"{', '.join(sorted(set(found.values()))) or 'none'} of split {options.split}",
        )
    return found


def _pairs(videos: ComparedVideos, spans: Sequence[CopySpan]) -> list[DuplicatePair]:
    groups = _groups(len(videos.records), spans)

    def side(video: int) -> str | None:
        return None if videos.sides is None else videos.side_names[videos.sides[video]]

    return [
        DuplicatePair(
            group=groups[span.one],
            score=span.score,
            video=videos.records[span.one],
            from_=float(videos.time[span.first]),
            to=float(videos.time[span.last]),
            other=videos.records[span.other],
            other_from=float(videos.time[span.other_first]),
            other_to=float(videos.time[span.other_last]),
            mirrored=span.mirrored,
            side=side(span.one),
            other_side=side(span.other),
            load=partial(_thumbnails, videos, span),
        )
        for span in spans
    ]


def _thumbnails(videos: ComparedVideos, span: CopySpan) -> tuple[bytes, bytes]:
    """A frame in the middle of the span, of both videos."""
    half = (span.last - span.first) // 2
    return videos.thumbnail(span.first + half), videos.thumbnail(span.other_first + half)


def _groups(count: int, spans: Sequence[CopySpan]) -> dict[int, int]:
    """Numbers from 1 of the groups of videos that pairs connect, the largest group first."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = np.array([(span.one, span.other) for span in spans], np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    sizes = np.bincount(label)
    order = [one for one in np.argsort(-sizes, kind="stable").tolist() if sizes[one] > 1]
    number = {one: place for place, one in enumerate(order, 1)}
    return {video: number[one] for video, one in enumerate(label.tolist()) if one in number}


def _values(pair: DuplicatePair) -> tuple[Any, ...]:
    return (
        *(pair.group, round(pair.score, 4), pair.video.video, round(pair.from_, 3), round(pair.to, 3)),
        *(pair.other.video, round(pair.other_from, 3), round(pair.other_to, 3), pair.mirrored),
        *(pair.side, pair.other_side, pair.video.path, pair.other.path),
    )


def _result(
    options: NearDuplicatesOptions, videos: ComparedVideos, pairs: list[DuplicatePair]
) -> NearDuplicates:
    groups = len({pair.group for pair in pairs})
    what = "leaks between splits" if options.lists is not None else "pairs"
    head = (
        f"{len(pairs):,} {what} in {groups:,} group{'s' * (groups != 1)} among {len(videos.records):,} "
        f"videos ({len(videos.video):,} frames), score at least {options.threshold:g}"
    )
    lines = [head]
    for pair in pairs[:_SHOWN]:
        one, other = short_names([pair.video.video, pair.other.video])
        sides = f"{pair.side} | {pair.other_side}  " if options.lists is not None else ""
        lines.append(
            f"{pair.score:.3f}  {sides}{printable(one)} {pair.from_:.2f}-{pair.to:.2f} s  =  "
            f"{printable(other)} {pair.other_from:.2f}-{pair.other_to:.2f} s{'  mirrored' * pair.mirrored}"
        )
    if len(pairs) > _SHOWN:
        lines.append(f"... and {len(pairs) - _SHOWN:,} more (--csv, --page)")
    figures = {
        "videos": len(videos.records),
        "frames": len(videos.video),
        "groups": groups,
        "threshold": options.threshold,
        "pairs": [dict(zip(COLUMNS, _values(pair), strict=True)) for pair in pairs],
    }
    return NearDuplicates("\n".join(lines), figures, pairs=pairs)
