"""Moments that were found: as text, table, CSV, contact sheet and page."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tce.errors import printable
from tce.io import Result, atomic, require_pandas, write_csv
from tce.options.search import SearchOptions
from tce.retrieval.result_page import page_html

COLUMNS = ("rank", "video", "from", "to", "score", "frame", "time", "label", "group", "path", "offset")


@dataclass(frozen=True)
class Moment:
    """A part of a video that is like the query.

    Attributes:
        video: name in the index.
        from_: seconds at which its first frame is shown.
        to: seconds at which its last frame is shown.
        score: mean cosine similarity, at most 1.
        frame: number of its best frame.
        time: seconds of its best frame.
        label: the video's class, if known.
        group: the video's group, if known.
        path: the file that plays it.
        offset: seconds of that file at which the video's time 0 lies.
        row: its best frame's row in the opened index.
    """

    video: str
    from_: float
    to: float
    score: float
    frame: int
    time: float
    label: str | None
    group: str | None
    path: str
    offset: float
    row: int = field(repr=False, compare=False)

    def values(self, rank: int) -> tuple[Any, ...]:
        """A row of `COLUMNS`."""
        return (
            *(rank, self.video, round(self.from_, 3), round(self.to, 3), round(self.score, 4), self.frame),
            *(round(self.time, 3), self.label, self.group, self.path, round(self.offset, 3)),
        )


@dataclass
class SearchResult(Result):
    """What a search found, best first; also a sequence of `Moment`.

    Attributes:
        moments: the moments.
        query: what was searched for.
    """

    moments: list[Moment] = field(default_factory=list)
    query: str = ""
    _load_thumbnails: Callable[[], list[bytes]] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        moments: list[Moment],
        query: str,
        frames: int,
        searched: int,
        thumbnails: Callable[[], list[bytes]],
    ) -> SearchResult:
        """The result of one search.

        Args:
            moments: best first.
            query: what was searched for.
            frames: of the query.
            searched: frames that were searched.
            thumbnails: gives the best frames' JPEG files.
        """
        rows = [dict(zip(COLUMNS, moment.values(rank))) for rank, moment in enumerate(moments, 1)]
        figures = {"query": query, "query_frames": frames, "searched_frames": searched, "moments": rows}
        text = _text(moments, query, frames, searched)
        return cls(text, figures, moments, query, thumbnails)

    def __len__(self) -> int:
        return len(self.moments)

    def __iter__(self) -> Iterator[Moment]:
        return iter(self.moments)

    def __getitem__(self, rank: int) -> Moment:
        return self.moments[rank]

    def thumbnails(self) -> list[bytes]:
        """Small pictures of the best frames, JPEG files."""
        return [] if self._load_thumbnails is None or not self.moments else self._load_thumbnails()

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, a row a moment; needs pandas.

        Raises:
            TceError: pandas is not installed.
        """
        rows = [moment.values(rank) for rank, moment in enumerate(self.moments, 1)]
        return require_pandas().DataFrame(rows, columns=list(COLUMNS))

    def _repr_html_(self) -> str:
        import base64

        head = "".join(f"<th>{name}</th>" for name in ("", *COLUMNS[:5]))
        body = ""
        for rank, (moment, picture) in enumerate(zip(self.moments, self.thumbnails()), 1):
            image = f'<img src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">'
            cells = "".join(f"<td>{html.escape(printable(str(one)))}</td>" for one in moment.values(rank)[:5])
            body += f"<tr><td>{image}</td>{cells}</tr>"
        return f"<p>{html.escape(printable(self.query))}</p><table><tr>{head}</tr>{body}</table>"


def short_names(videos: list[str]) -> list[str]:
    """Videos relative to the working folder where they lie below it."""
    here = os.getcwd() + os.sep
    return [video.removeprefix(here) for video in videos]


def _text(moments: list[Moment], query: str, frames: int, searched: int) -> str:
    head = f"{query}: {frames} frame{'s' * (frames != 1)} against {searched:,}"
    if not moments:
        return head + "\nnothing found"
    names = short_names([moment.video for moment in moments])
    labels = [moment.label or "" for moment in moments]
    width = max(map(len, [*map(printable, names), "video"]))
    rows = [f"{'':>4}  {'score':>6}  {'from':>8}  {'to':>8}  {'video':<{width}}  label"]
    for rank, (moment, name, label) in enumerate(zip(moments, names, labels), 1):
        rows.append(
            f"{rank:>4}  {moment.score:>6.3f}  {moment.from_:>8.2f}  {moment.to:>8.2f}  "
            f"{printable(name):<{width}}  {printable(label)}"
        )
    return "\n".join([head, *(row.rstrip() for row in rows)])


def write_outputs(result: SearchResult, options: SearchOptions) -> None:
    """Write the table, the contact sheet and the page that the options name."""
    if options.csv is not None:
        with atomic(options.csv, "w") as file:
            write_csv(file, [COLUMNS, *(one.values(rank) for rank, one in enumerate(result.moments, 1))])
    if options.sheet is not None and result.moments:
        _write_sheet(result, options.sheet)
    if options.page is not None:
        with atomic(options.page, "w") as file:
            file.write(page_html(result.query, result.moments, result.thumbnails(), options.page))
    written = [path for path in (options.csv, options.sheet, options.page) if path is not None]
    if written:
        result.text += f"\nwritten: {', '.join(written)}"
        result.figures["written"] = written


def _write_sheet(result: SearchResult, path: str) -> None:
    from tce.video.image import decode
    from tce.visualize.contact_sheet import save_sheet

    cells = []
    for rank, (moment, picture) in enumerate(zip(result.moments, result.thumbnails()), 1):
        name = os.path.basename(moment.video)
        text = f"{rank}. {name}\n{moment.time:.2f} s, score {moment.score:.3f}"
        cells.append((text, decode(picture, name)))
    save_sheet(path, cells)
