"""The HTML page: data as JSON and base64, and the style and scripts that lie beside this module."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SCRIPTS = ("data.js", "scatter.js", "timeline.js", "player.js", "explorer.js")
PER_ROW = 16  # pictures in a row, and rows, of a sprite sheet
PICTURE_BYTES = 12e6  # of all pictures' JPEGs together, so that 10,000 frames fit into 20 MB as base64
MOST_BYTES, LEAST_BYTES = 3000, 1200  # of one picture of 64 pixels
QUALITIES = (90, 82, 74, 66, 58, 50, 40, 30)


@dataclass
class PageMap:
    """One map of the frames.

    Attributes:
        name: of the network.
        points: float32 [N, 2] within 0 and 1.
        neighbours: int32 [N, k], nearest frames; -1 for none.
    """

    name: str
    points: NDArray[np.float32]
    neighbours: NDArray[np.int32]


@dataclass
class PageVideo:
    """One video of the page.

    Attributes:
        name: what is shown.
        path: what exported tables name it by.
        frames: number of its frames, which follow one another.
        size: width and height of its pictures in pixels; None without pictures.
        source: address of its footage relative to the page; None where it cannot be played.
        start: seconds where the clip begins in its file; None for the beginning.
        end: seconds where it ends; None for the end.
        embedded: an MP4 to put into the page; its time 0 is the clip's first frame.
        offset: seconds in the file of the first frame of `embedded`.
    """

    name: str
    path: str
    frames: int
    size: tuple[int, int] | None = None
    source: str | None = None
    start: float | None = None
    end: float | None = None
    embedded: bytes | None = None
    offset: float = 0.0


@dataclass
class PageColumn:
    """Something that the points can be coloured by.

    Attributes:
        name: what is shown.
        kind: "category" or "number".
        values: [N]: numbers, or codes of `names`; NaN or -1 for none.
        names: of a category's codes.
    """

    name: str
    kind: Literal["category", "number"]
    values: NDArray[Any]
    names: list[str] = field(default_factory=list)


def category(name: str, texts: Sequence[str | None]) -> PageColumn:
    """A column of texts, the names in their order of appearance."""
    codes = {text: code for code, text in enumerate(dict.fromkeys(text for text in texts if text))}
    values = np.array([codes.get(text or "", -1) for text in texts], np.int32)
    return PageColumn(name, "category", values, [text for text in codes if text is not None])


def build_page(
    title: str,
    maps: Sequence[PageMap],
    videos: Sequence[PageVideo],
    frame: NDArray[np.int64],
    time: NDArray[np.float64],
    columns: Sequence[PageColumn],
    sheets: Sequence[bytes],
    side: int,
    note: str = "",
) -> str:
    """The page as text.

    Args:
        title: of the page.
        maps: one or two maps of the same N frames.
        videos: in order; each owns the next `frames` rows.
        frame: int64 [N], frame numbers.
        time: float64 [N], seconds in the file.
        columns: what the points can be coloured by, the first one at the start.
        sheets: of `sprite_sheets`; none: no pictures.
        side: of a picture's cell in a sheet.
        note: a few words on the networks and the frames.
    """
    data = {
        "title": title,
        "note": note,
        "maps": [
            {
                "name": one.name,
                "points": _packed(np.round(one.points * 65535), np.uint16),
                "neighbours": _packed(one.neighbours, np.int32),
            }
            for one in maps
        ],
        "videos": [_video(one) for one in videos],
        "frame": _packed(frame, np.int32),
        "time": _packed(time, np.float32),
        "columns": [
            {
                "name": one.name,
                "kind": one.kind,
                "names": one.names,
                "values": _packed(one.values, np.int32 if one.kind == "category" else np.float32),
            }
            for one in columns
        ],
        "sprites": {"side": side, "perRow": PER_ROW, "sheets": [_base64(sheet) for sheet in sheets]},
    }
    parts = {
        "TITLE": html.escape(title),
        "POLICY": content_policy(),
        "STYLE": style(),
        "DATA": script_json(data),
        "SCRIPT": script(),
    }
    pieces = template().split("@@")
    return "".join(parts.get(piece, piece) for piece in pieces)


def _video(one: PageVideo) -> dict[str, Any]:
    return {
        "name": one.name,
        "path": one.path,
        "frames": one.frames,
        "size": one.size,
        "source": one.source,
        "start": one.start,
        "end": one.end,
        "embedded": None if one.embedded is None else _base64(one.embedded),
        "offset": one.offset,
    }


def script_json(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in, whatever texts it holds."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def content_policy() -> str:
    """The page's Content Security Policy: its own script and style by their hashes, and no network at all.

    Footage is played from the disk (`file:`), pictures and embedded films out of the page itself.
    """
    return (
        "default-src 'none'; "
        f"script-src '{_hash(script())}'; style-src '{_hash(style())}'; "
        "img-src data: blob:; media-src file: data: blob:; "
        "connect-src 'none'; form-action 'none'; base-uri 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return files("tce.explorer").joinpath(name).read_text(encoding="utf-8")


def template() -> str:
    """The page without data, with the places @@TITLE@@, @@POLICY@@, @@STYLE@@, @@DATA@@ and @@SCRIPT@@."""
    return _asset("page.html")


def style() -> str:
    """The page's style sheet."""
    return _asset("page.css")


def script() -> str:
    """The page's scripts, one after the other, in a scope of their own."""
    return '"use strict";\n(() => {\n' + "\n".join(map(_asset, SCRIPTS)) + "\n})();\n"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _packed(values: NDArray[Any], kind: type[np.generic]) -> str:
    return _base64(np.ascontiguousarray(values).astype(np.dtype(kind).newbyteorder("<")).tobytes())


def sprite_sheets(
    pictures: Sequence[NDArray[np.uint8] | None], counts: Sequence[int], side: int
) -> list[bytes]:
    """JPEG sheets of 16 x 16 pictures, in the order of the frames; each picture in the corner of its cell.

    The quality is lowered until all pictures take about `PICTURE_BYTES`, estimated from the first sheet.

    Args:
        pictures: of each video uint8 [n, h, w, 3], no side longer than `side`; None leaves its cells empty.
        counts: frames of each video.
        side: of a cell, in pixels.
    """
    from tce.video.image import encode_jpeg

    total, per_sheet = sum(counts), PER_ROW * PER_ROW
    if all(one is None for one in pictures):
        return []
    starts = np.concatenate([[0], np.cumsum(counts)])
    sheets: list[bytes] = []
    quality = None
    for first in range(0, total, per_sheet):
        count = min(per_sheet, total - first)
        sheet = np.zeros((-(-count // PER_ROW) * side, min(count, PER_ROW) * side, 3), np.uint8)
        for place in range(count):
            video = int(np.searchsorted(starts, first + place, side="right")) - 1
            own = pictures[video]
            if own is None:
                continue
            picture = own[first + place - starts[video]]
            top, left = place // PER_ROW * side, place % PER_ROW * side
            # The last row and column are repeated to the cell's edge: no black seeps in at the border.
            height, width = picture.shape[:2]
            edge = ((0, side - height), (0, side - width), (0, 0))
            sheet[top : top + side, left : left + side] = np.pad(picture, edge, mode="edge")
        if quality is None:
            least = LEAST_BYTES * (side / 64) ** 2
            limit = count * min(MOST_BYTES, max(least, PICTURE_BYTES / total))
            quality = next((q for q in QUALITIES if len(encode_jpeg(sheet, q)) <= limit), QUALITIES[-1])
        sheets.append(encode_jpeg(sheet, quality))
    return sheets
