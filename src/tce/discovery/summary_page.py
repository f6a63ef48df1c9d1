"""index.html of a discovery: its pictures, figures and films on one page, without script or network."""

from __future__ import annotations

import base64
import hashlib
import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tce.discovery.segment_plots import PICTURES, colour_of
from tce.discovery.segment_table import BoutTable
from tce.errors import printable
from tce.io import atomic

PAGE = "index.html"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 24px; max-width: 1180px; color: #222; }
h1 { font-size: 20px; } h2 { font-size: 16px; margin: 32px 0 8px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; text-align: right; border-bottom: 1px solid #eee; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; color: #555; }
img { max-width: 100%; display: block; } video { width: 100%; background: #fff; border-radius: 6px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 24px; align-items: start; }
.dot { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 8px; }
.warn { color: #b3402a; } p { color: #555; max-width: 75ch; } summary { cursor: pointer; color: #3b6ea5; }
"""


def write_page(folder: Path, table: BoutTable, names: Sequence[str], figures: dict[str, Any]) -> None:
    """Write index.html beside the pictures, which it shows by their relative paths.

    Args:
        folder: of the discovery.
        table: the bouts.
        names: of the behaviours, with a star for those that did not come back.
        figures: of the result.
    """
    # Colours of behaviours are the only other style: a class each, so that no inline style is needed.
    style = STYLE + "".join(
        f".c{number} {{ background: {colour_of(number)}; }}\n" for number in range(len(names))
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src 'self' file:; media-src 'self' file:; style-src 'sha256-{digest}'"
    parts = [_overview(names, figures)]
    if figures["labels"]:
        parts.append(_scores(figures["labels"]))
    ethogram, durations, transitions, budget, tree = (_image(name) for name in PICTURES)
    parts.append(f"<h2>When</h2>{ethogram}")
    parts.append(f'<h2>How long, and which are alike</h2><div class="pair">{durations}{tree}</div>')
    parts.append(f"<h2>What follows what</h2>{transitions}<h2>Time budget</h2>{budget}")
    for number, (name, one) in enumerate(zip(names, figures["behaviours"], strict=True)):
        if one["film"]:
            parts.append(_example(number, name, one["film"], folder))
    title = f"{len(names)} behaviours in {figures['videos']:,} video{'s' * (figures['videos'] != 1)}"
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy, quote=True)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
    with atomic(folder / PAGE, "w") as file:
        file.write(text)


def _overview(names: Sequence[str], figures: dict[str, Any]) -> str:
    rows = []
    for number, (name, one) in enumerate(zip(names, figures["behaviours"], strict=True)):
        median = f"{one['median_bout']:.2f} s" if one["median_bout"] is not None else ""
        back = [f"{one[key]:.2f}" if one.get(key) is not None else "" for key in ("seeds", "halves")]
        warn = "" if one.get("stable", True) else ' class="warn"'
        rows.append(
            f'<tr{warn}><td><span class="dot c{number}"></span>{html.escape(printable(name))}</td>'
            f"<td>{one['cluster']}</td>"
            f"<td>{one['share']:.1%}</td><td>{one['bouts']:,}</td><td>{median}</td>"
            f"<td>{back[0]}</td><td>{back[1]}</td></tr>"
        )
    head = "".join(
        f"<th>{name}</th>"
        for name in ("behaviour", "cluster", "time", "bouts", "median bout", "other seeds", "halves")
    )
    text = (
        "The last two columns are how well each behaviour comes back when clusters are fitted with other "
        "seeds, and on halves of the recordings (Jaccard similarity, 1 is best). Below 0.6 it is marked with "
        "a star: do not build on it. To name, merge or split clusters, edit names.csv and run tce discover "
        "on this folder again."
    )
    return f"<table><tr>{head}</tr>{''.join(rows)}</table><p>{text}</p>"


def _scores(scores: dict[str, Any]) -> str:
    keys = ("adjusted_rand", "mutual_information", "accuracy", "f1@10", "f1@25", "f1@50")
    titles = ("", "adjusted Rand", "mutual information", "frames right", "F1@10", "F1@25", "F1@50")
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{own[key]:.2f}</td>" for key in keys) + "</tr>"
        for name, own in scores["figures"].items()
    )
    head = "".join(f"<th>{title}</th>" for title in titles)
    about = f"Against {len(scores['labels'])} labels on {scores['frames']:,} frames"
    return f"<h2>{about}</h2><table><tr>{head}</tr>{rows}</table>"


def _image(name: str) -> str:
    return f'<img src="{name}" alt="{name.partition(".")[0]}">'


def _example(number: int, name: str, film: str, folder: Path) -> str:
    video = quote(os.path.relpath(film, folder).replace(os.sep, "/"))
    sheet = quote(os.path.relpath(film, folder).replace(os.sep, "/").removesuffix(".mp4") + ".png")
    return (
        f'<h2><span class="dot c{number}"></span>{html.escape(printable(name))}</h2>'
        f'<video src="{video}" autoplay muted loop playsinline controls></video>'
        f"<details><summary>stills, with recordings and times</summary>"
        f'<img src="{sheet}" alt="stills"></details>'
    )
