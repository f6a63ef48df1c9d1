"""Pairs of near-duplicates as a page that plays both videos, and as a contact sheet."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tce.errors import printable
from tce.retrieval.frame_table import VideoRecord
from tce.retrieval.result_page import page_with, preview

MOST_ON_SHEET = 60  # pairs
STYLE = """
ol { grid-template-columns: repeat(auto-fill, minmax(430px, 1fr)); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2px; }
.side { display: inline-block; padding: 0 6px; border-radius: 4px; background: #eee; }
"""


@dataclass(frozen=True)
class DuplicatePair:
    """A span that two videos share.

    Attributes:
        group: number of the group of videos that share spans, from 1.
        score: how well the changes of the pictures correlate, at most 1.
        video: the first video.
        from_: seconds of it at which the span begins.
        to: seconds of its last frame.
        other: the second video.
        other_from: seconds of that at which the span begins.
        other_to: seconds of its last frame.
        mirrored: left and right are exchanged.
        side: split of the first video, or which of the compared sets it is in.
        other_side: that of the second video.
        load: gives a small picture of both, JPEG files.
    """

    group: int
    score: float
    video: VideoRecord
    from_: float
    to: float
    other: VideoRecord
    other_from: float
    other_to: float
    mirrored: bool
    side: str | None
    other_side: str | None
    load: Callable[[], tuple[bytes, bytes]] = field(repr=False, compare=False)


def pairs_page(title: str, pairs: Sequence[DuplicatePair], page: str) -> str:
    """The page as text; names are escaped, and nothing is loaded but the videos.

    Args:
        title: shown at the top.
        pairs: in the order of groups they are shown.
        page: where it will be written; the videos' paths are relative to it.
    """
    folder = os.path.dirname(os.path.abspath(page))
    cells = [_cell(pair, folder) for pair in sorted(pairs, key=lambda one: one.group)]
    return page_with(title, cells, STYLE)


def _cell(pair: DuplicatePair, folder: str) -> str:
    one, two = pair.load()
    media = preview(pair.video.path, pair.video.offset, pair.from_, pair.to, one, folder)
    media += preview(pair.other.path, pair.other.offset, pair.other_from, pair.other_to, two, folder)
    lines = []
    for record, begin, end, side in (
        (pair.video, pair.from_, pair.to, pair.side),
        (pair.other, pair.other_from, pair.other_to, pair.other_side),
    ):
        mark = f'<span class="side">{html.escape(printable(side))}</span> ' if side else ""
        lines.append(f"{mark}{html.escape(printable(record.video))}, {begin:.2f} to {end:.2f} s")
    kind = " · mirrored" if pair.mirrored else ""
    return (
        f'<li><div class="pair">{media}</div><p><span class="score">{pair.score:.3f}</span>'
        f'Group {pair.group}{kind}</p><p class="more">{"<br>".join(lines)}</p></li>'
    )


def save_pairs_sheet(path: str, pairs: Sequence[DuplicatePair]) -> int:
    """Write a contact sheet of the best pairs, the two pictures of each beside each other."""
    from tce.video.image import decode
    from tce.visualize.contact_sheet import save_sheet

    cells = []
    for number, pair in enumerate(pairs[:MOST_ON_SHEET], 1):
        pictures = pair.load()
        times = (pair.from_, pair.to), (pair.other_from, pair.other_to)
        for record, (begin, end), picture in zip((pair.video, pair.other), times, pictures, strict=True):
            name = os.path.basename(record.video)
            mark = " mirrored" if pair.mirrored and record is pair.other else ""
            text = f"{number}. {name}\n{begin:.2f}-{end:.2f} s, {pair.score:.3f}{mark}"
            cells.append((text, decode(picture, name)))
    return save_sheet(path, cells)
