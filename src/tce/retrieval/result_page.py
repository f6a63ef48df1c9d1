"""A page of found moments that plays them from the disk: one file, no script from elsewhere, no network."""

from __future__ import annotations

import base64
import hashlib
import html
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from tce.errors import printable
from tce.video.base import DEFAULT_FPS

if TYPE_CHECKING:
    from tce.retrieval.search_result import Moment

PLAYABLE = (".mp4", ".m4v", ".mov", ".webm", ".ogv", ".mkv")  # what browsers play; others show the picture
SHORTEST = 1.0  # seconds that a preview plays at least

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 24px; color: #222; background: #fff; }
h1 { font-size: 18px; font-weight: 600; overflow-wrap: anywhere; }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 16px; padding: 0; }
li { list-style: none; border: 1px solid #ddd; border-radius: 8px; overflow: hidden; }
video, img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #111; display: block; }
p { margin: 8px 10px; overflow-wrap: anywhere; }
.score { float: right; font-variant-numeric: tabular-nums; color: #555; }
.more { color: #555; font-size: 13px; }
"""
# A preview plays while the pointer is over it, and starts again at its beginning when its end is reached.
SCRIPT = """
for (const video of document.querySelectorAll("video")) {
  const begin = Number(video.dataset.begin), end = Number(video.dataset.end);
  const rewind = () => { video.currentTime = begin; };
  video.addEventListener("timeupdate", () => { if (video.currentTime >= end) rewind(); });
  video.addEventListener("mouseenter", () => { rewind(); video.play().catch(() => {}); });
  video.addEventListener("mouseleave", () => video.pause());
}
"""


def page_html(query: str, moments: Sequence[Moment], thumbnails: Sequence[bytes], page: str) -> str:
    """The page as text.

    Names are escaped, and the Content-Security-Policy lets nothing run but the page's own script and nothing
    load but the videos: a file name cannot do anything.

    Args:
        query: what was searched for.
        moments: what was found, best first.
        thumbnails: a JPEG of each one's best frame.
        page: where it will be written; the videos' paths are relative to it.
    """
    folder = os.path.dirname(os.path.abspath(page))
    cells = [
        _cell(rank, moment, picture, folder)
        for rank, (moment, picture) in enumerate(zip(moments, thumbnails, strict=True), 1)
    ]
    return page_with(f"Moments like {query}", cells)


def page_with(title: str, cells: Sequence[str], style: str = "") -> str:
    """A page of cells in a grid, whose videos play while the pointer is over them.

    Args:
        title: of the page, as plain text.
        cells: `<li>` elements, whose texts are escaped.
        style: more CSS.
    """
    style = STYLE + style
    policy = (
        "default-src 'none'; img-src data:; media-src 'self' file:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(SCRIPT)}'; base-uri 'none'; form-action 'none'"
    )
    title = html.escape(printable(title))
    body = "\n".join(cells)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy, quote=True)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n<ol>\n{body}\n</ol>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _digest(text: str) -> str:
    """How a Content-Security-Policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _cell(rank: int, moment: Moment, picture: bytes, folder: str) -> str:
    shown = f"{moment.from_:.2f} to {moment.to:.2f} s" if moment.to > moment.from_ else f"{moment.time:.2f} s"
    media = preview(moment.path, moment.offset, moment.from_, moment.to, picture, folder)
    name = html.escape(printable(os.path.basename(moment.video)))
    place = html.escape(printable(os.path.dirname(moment.video)))
    label = f" · {html.escape(printable(moment.label))}" if moment.label else ""
    return (
        f'<li>{media}<p><span class="score">{moment.score:.3f}</span>{rank}. {name}</p>'
        f'<p class="more">{shown}{label}<br>{place}</p></li>'
    )


def preview(path: str, offset: float, begin: float, end: float, picture: bytes, folder: str) -> str:
    """A video element that plays a span, or a picture where browsers do not play the file.

    Args:
        path: the file.
        offset: seconds of it at which the video's time 0 lies.
        begin: seconds of the span's first frame.
        end: seconds of its last one.
        picture: JPEG shown until it plays.
        folder: the page's.
    """
    image = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
    if not path.lower().endswith(PLAYABLE) or not os.path.isfile(path):
        return f'<img src="{image}" alt="best frame">'
    start, stop = offset + begin, offset + max(end + 1 / DEFAULT_FPS, begin + SHORTEST)
    source = html.escape(f"{_address(path, folder)}#t={start:.3f},{stop:.3f}", quote=True)
    return (
        f'<video src="{source}" poster="{image}" data-begin="{start:.3f}" data-end="{stop:.3f}" '
        'controls muted playsinline preload="none"></video>'
    )


def _address(path: str, folder: str) -> str:
    """A file's address relative to the page's folder."""
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # another drive
        return "file:///" + quote(path.replace(os.sep, "/"))
    return quote(relative.replace(os.sep, "/"), safe="/~-_.()!'*", errors="surrogateescape").replace(
        "'", "%27"
    )
