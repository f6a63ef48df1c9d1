"""Search in an index of frames: the command `tce search`, and `tce.open_index` for Python."""

from __future__ import annotations

import fnmatch
import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import OptionError, TceError
from tce.options.search import SearchOptions
from tce.retrieval import frame_table
from tce.retrieval.centering import is_centered
from tce.retrieval.frame_table import IndexSettings, VideoRecord, list_indexes
from tce.retrieval.indexed_frames import IndexedFrames
from tce.retrieval.moments import Span, find_spans, least_frames
from tce.retrieval.query import Query, QueryEncoder, normalised_query
from tce.retrieval.search_result import Moment, SearchResult, write_outputs

log = logging.getLogger("tce.index")

BACKGROUND_ROWS = 4096  # from which the background similarity is taken
HITS_A_MOMENT = 20  # frames that the approximate index has to find, since many of them are neighbours
MOST_QUERY_FRAMES = 1000


def search(options: SearchOptions) -> SearchResult:
    """Find moments and write what the options ask for (`tce search`).

    Raises:
        TceError: no index, one of another network, a query that cannot be read, or nothing to search in.
    """
    options.require_given()
    from tce.io import require_writable
    from tce.visualize.contact_sheet import check_suffix

    for flag, path in (("--csv", options.csv), ("--sheet", options.sheet), ("--page", options.page)):
        if path is not None:
            require_writable(path, flag)
    if options.sheet is not None:
        check_suffix(options.sheet)
    result = open_index(options.db, options.ckpt, options.device).find(options)
    write_outputs(result, options)
    return result


def open_index(db: str | os.PathLike[str], ckpt: str | None = None, device: str = "auto") -> FrameIndex:
    """Open an index of frames, to search in it.

    Args:
        db: the database that `tce index` made.
        ckpt: the network whose index is meant; None where the database has only one.
        device: where queries are embedded.

    Returns:
        the index; `index.search(video="clip.mp4", from_=1, to=3)` searches it.

    Raises:
        TceError: no index, several and no `ckpt`, none of that network, or a damaged or empty one.
    """
    place = os.fspath(db)
    found = list_indexes(place)
    if not found:
        there = "an empty or other folder" if os.path.isdir(place) else "nothing there"
        raise TceError(
            f"--db {place}",
            "an index of frames",
            there,
            f"make one: tce index FOOTAGE --ckpt lite2 --db {place}",
        )
    encoder = QueryEncoder(ckpt, device)
    if ckpt is None:
        if len(found) > 1:
            names = ", ".join(str(one.network.get("ckpt")) for one in found)
            raise OptionError("--ckpt", f"one of {names}, which {place} has indexes of", "none")
        return FrameIndex(place, found[0], encoder)
    digest = encoder.hash_for(found[0])
    chosen = [one for one in found if one.hash == digest]
    if not chosen:
        names = ", ".join(str(one.network.get("ckpt")) for one in found)
        raise TceError(
            f"--ckpt {ckpt}",
            f"the network of an index in {place} ({names})",
            "another network",
            f"make its index: tce index FOOTAGE --ckpt {ckpt} --db {place}",
        )
    if len(chosen) > 1:
        preferred = [one for one in chosen if one.layer == encoder.default_layer]
        chosen = preferred or chosen
    return FrameIndex(place, chosen[0], encoder)


@dataclass(frozen=True)
class _Scored:
    """Rows that were scored: int64 [n] rows in the index's order, float32 [Q, n], and whether all were."""

    rows: NDArray[np.int64]
    similarity: NDArray[np.float32]


class FrameIndex:
    """An index of frames, opened at its latest version.

    Attributes:
        db: the database.
        settings: what all its vectors have in common.
        frames: the frames.
        videos: the indexed videos by name.

    Raises:
        TceError: damaged, or without frames.
    """

    def __init__(self, db: str, settings: IndexSettings, encoder: QueryEncoder):
        self.db, self.settings = db, settings
        self._encoder = encoder
        self.frames = IndexedFrames(db, settings)
        self.videos = self.frames.videos
        if settings.center is not None and not is_centered(self.videos.values()):
            log.warning("%s: indexing was interrupted before groups were centered; run `tce index` again", db)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        return (
            f"FrameIndex({len(self)} frames of {len(self.videos)} videos, {self.settings.size} numbers each, "
            f"{self.settings.network.get('ckpt')})"
        )

    def search(self, query: Any = None, **keywords: Any) -> SearchResult:
        """The moments that are most like a query.

        Args:
            query: frames uint8 [N, H, W, 3], or vectors float [Q, D]; None: `video`, `image` or `frame`.
            keywords: those of `tce search` without outputs: `video`, `at`, `from_`, `to`, `image`, `frame`,
                `top`, `any_order`, `exclude_same_video`, `label`, `path`, `group`, `from_time`, `to_time`.

        Raises:
            TceError: no query, or one that cannot be read; nothing to search in; an option out of range.
        """
        options = SearchOptions(db=self.db, **{name: _plain(value) for name, value in keywords.items()})
        if query is None:
            options.require_given()
        return self.find(options, query)

    def find(self, options: SearchOptions, query: Any = None) -> SearchResult:
        """As `search`, with an options object."""
        rows = self._allowed(options)
        asked = self._query(options, query)
        if options.exclude_same_video:
            rows = rows[~np.isin(self.frames.code[rows], self._codes_of(asked.path))]
        if not len(rows):
            raise TceError(
                "the filters",
                f"some of the {len(self):,} indexed frames",
                "none",
                "widen or leave out a filter",
            )
        self._require_long_enough(len(asked.vectors), rows)
        scored = self._score(asked.vectors, rows, options.top)
        spans = find_spans(
            scored.similarity,
            self._stretches(scored.rows),
            options.top,
            self._background(asked.vectors[:1]),
            options.any_order,
        )
        moments = [self._moment(span, scored.rows) for span in spans]
        best = np.array([moment.row for moment in moments], np.int64)
        return SearchResult.of(
            moments,
            asked.name,
            len(asked.vectors),
            len(rows),
            partial(self.frames.thumbnails, best),
        )

    def _query(self, options: SearchOptions, query: Any) -> Query:
        if query is not None:
            array = np.asarray(query)
            if array.dtype != np.uint8:
                return normalised_query(array, self.settings.size)
            return self._encoder.embed(options, self.settings, self.videos, array)
        if options.frame is not None:
            row = self._named_frame(options.frame)
            name = self.frames.names[self.frames.code[row]]
            shown = f"{name} at {self.frames.time[row]:.2f} s"
            return Query(shown, self.videos[name].path, self.frames.vectors(np.array([row])))
        found = self._encoder.embed(options, self.settings, self.videos)
        if len(found.vectors) > MOST_QUERY_FRAMES:
            raise TceError(
                "the query",
                f"at most {MOST_QUERY_FRAMES} frames, sampled as the index is ({self.settings.sampling})",
                f"{len(found.vectors)}",
                "give a part of it with --from and --to",
            )
        return found

    def _named_frame(self, text: str) -> int:
        """The row of `VIDEO:SECONDS`."""
        name, _, number = text.rpartition(":")
        try:
            seconds = float(number)
        except ValueError:
            seconds = -1.0
        if not name or not 0 <= seconds < float("inf"):
            raise OptionError("--frame", "VIDEO:SECONDS, such as cam1.mp4:12.5", repr(text))
        names = [
            one for one in self.frames.names if one in self.videos and _is_called(one, self.videos[one], name)
        ]
        if len(names) != 1:
            found = "none" if not names else f"{len(names)} of them, such as {names[0]} and {names[1]}"
            fix = "look at the paths that were indexed" if not names else "give more of its path"
            raise TceError(f"--frame {text}", f"one indexed video called {name}", found, fix)
        rows = np.flatnonzero(self.frames.code == self.frames.names.index(names[0]))
        return int(rows[np.argmin(np.abs(self.frames.time[rows] - seconds))])

    def _codes_of(self, path: str | None) -> list[int]:
        """The videos that a query comes from."""
        if path is None:
            return []
        place = os.path.realpath(path)
        return [
            code
            for code, name in enumerate(self.frames.names)
            if name in self.videos and os.path.realpath(self.videos[name].path) == place
        ]

    def _allowed(self, options: SearchOptions) -> NDArray[np.int64]:
        """The rows that the filters leave."""
        for flag, given, has in (
            ("--label", options.label, self._known("label")),
            ("--group", options.group, self._known("group")),
        ):
            unknown = sorted(set(given) - has)
            if unknown:
                some = ", ".join(sorted(has)[:9]) + (", ..." if len(has) > 9 else "")
                raise OptionError(flag, f"one of {some}" if has else "an index with these", repr(unknown[0]))
        wanted = np.array([self._passes(name, options) for name in self.frames.names], bool)
        keep = wanted[self.frames.code]
        if options.from_time is not None:
            keep &= self.frames.time >= options.from_time
        if options.to_time is not None:
            keep &= self.frames.time < options.to_time
        return np.flatnonzero(keep)

    def _known(self, name: str) -> set[str]:
        return {value for record in self.videos.values() if (value := getattr(record, name)) is not None}

    def _passes(self, name: str, options: SearchOptions) -> bool:
        record = self.videos.get(name)
        if record is None:
            return False
        paths = options.path
        return (
            (not options.label or record.label in options.label)
            and (not options.group or record.group in options.group)
            and (not paths or any(fnmatch.fnmatchcase(name, pattern) for pattern in paths))
        )

    def _require_long_enough(self, query: int, rows: NDArray[np.int64]) -> None:
        longest = int(np.bincount(self._stretches(rows)).max())
        if longest < least_frames(query):
            raise TceError(
                "the query",
                f"no longer than twice the longest video searched, which has {longest} indexed frames",
                f"{query} frames ({self.settings.sampling})",
                "give a part of it with --from and --to, or one frame with --at",
            )

    def _stretches(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the unbroken stretches of a video that rows form."""
        breaks = (np.diff(rows) != 1) | (np.diff(self.frames.code[rows]) != 0)
        return np.append(0, np.cumsum(breaks)).astype(np.int64)

    def _score(self, query: NDArray[np.float32], rows: NDArray[np.int64], top: int) -> _Scored:
        """Similarities of all rows, or of those near what the approximate index finds in a large table."""
        if len(rows) > frame_table.ANN_ABOVE and self.frames.has_ann:
            rows = self.frames.near(query, rows, HITS_A_MOMENT * top)
        if len(rows) == len(self):
            return _Scored(rows, self.frames.scan(query))
        return _Scored(rows, query @ self.frames.vectors(rows).T)

    def _background(self, query: NDArray[np.float32]) -> float:
        """Median similarity of the query's first frame with frames spread evenly over the index."""
        count = min(BACKGROUND_ROWS, len(self))
        rows = np.unique(np.linspace(0, len(self) - 1, count).astype(np.int64))
        return float(np.median(self.frames.vectors(rows) @ query[0]))

    def _moment(self, span: Span, rows: NDArray[np.int64]) -> Moment:
        first, last, best = (int(rows[place]) for place in (span.first, span.last, span.best))
        record = self.videos[self.frames.names[self.frames.code[first]]]
        return Moment(
            video=record.video,
            from_=float(self.frames.time[first]),
            to=float(self.frames.time[last]),
            score=span.score,
            frame=int(self.frames.frame[best]),
            time=float(self.frames.time[best]),
            label=record.label,
            group=record.group,
            path=record.path,
            offset=record.offset,
            row=best,
        )


def _plain(value: Any) -> Any:
    """Paths as text and lists as tuples, as the options hold them."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(value) if isinstance(value, list) else value


def _is_called(video: str, record: VideoRecord, name: str) -> bool:
    """Whether a name means this video: its path or the path's end, with or without suffix."""
    if os.path.abspath(name) in (video, record.path):
        return True
    ends = os.sep + os.path.normpath(name)
    return any(one.endswith(ends) for one in (video, record.path, os.path.splitext(video)[0]))
