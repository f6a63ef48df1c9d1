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
    policy = (
        "default-src 'none'; img-src data:; media-src 'self' file:; "
        f"style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'; base-uri 'none'; form-action 'none'"
    )
    folder = os.path.dirname(os.path.abspath(page))
    cells = "\n".join(
        _cell(rank, moment, picture, folder)
        for rank, (moment, picture) in enumerate(zip(moments, thumbnails, strict=True), 1)
    )
    title = html.escape(printable(query))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy, quote=True)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Moments like {title}</h1>\n<ol>\n{cells}\n</ol>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _digest(text: str) -> str:
    """How a Content-Security-Policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _cell(rank: int, moment: Moment, picture: bytes, folder: str) -> str:
    image = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
    begin = moment.offset + moment.from_
    end = moment.offset + max(moment.to + 1 / DEFAULT_FPS, moment.from_ + SHORTEST)
    shown = f"{moment.from_:.2f} to {moment.to:.2f} s" if moment.to > moment.from_ else f"{moment.time:.2f} s"
    if moment.path.lower().endswith(PLAYABLE) and os.path.isfile(moment.path):
        source = html.escape(f"{_address(moment.path, folder)}#t={begin:.3f},{end:.3f}", quote=True)
        media = (
            f'<video src="{source}" poster="{image}" data-begin="{begin:.3f}" data-end="{end:.3f}" '
            'controls muted playsinline preload="none"></video>'
        )
    else:
        media = f'<img src="{image}" alt="best frame">'
    name = html.escape(printable(os.path.basename(moment.video)))
    place = html.escape(printable(os.path.dirname(moment.video)))
    label = f" · {html.escape(printable(moment.label))}" if moment.label else ""
    return (
        f'<li>{media}<p><span class="score">{moment.score:.3f}</span>{rank}. {name}</p>'
        f'<p class="more">{shown}{label}<br>{place}</p></li>'
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
