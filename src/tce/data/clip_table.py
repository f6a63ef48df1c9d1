"""Tables of clips: CSV, TSV and Parquet with a column `path`, Kinetics' lists, and lists without a header."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tce.data.find_clips import SPLIT_NAMES, VIDEO_SUFFIXES
from tce.data.listing import NO_TIME, Entry, Listing, compose, split_in_name, split_number
from tce.data.tables import TABLE_SUFFIXES, Cells, Table, open_table, read_lines, read_names
from tce.errors import OptionError, TceError

_COLUMNS = {
    "path": ("path", "video", "file", "filename", "video_path", "clip", "youtube_id"),
    "label": ("label", "class", "action"),
    "split": ("split", "subset"),
    "start": ("start", "time_start"),
    "end": ("end", "time_end"),
    "group": ("group",),
    "source": ("source", "recording"),
}


def read_table(files: Sequence[Path], split: str) -> Listing:
    """CSV, TSV or Parquet with a column path; without a header, rows `path label` or `path frames label`."""
    tables = [path for path in files if path.suffix.lower() in TABLE_SUFFIXES]
    tables = tables or [path for path in files if is_plain_list(path)] or list(files)
    tables = _of_split(tables, split)
    entries: list[Entry] = []
    headless = False
    for path in tables:
        table = open_table(path, _COLUMNS)
        headless |= not table.header
        stated = split_in_name(path) if len(tables) > 1 or not table.header else None
        entries += _table_entries(table, _COLUMNS, stated) if table.header else _plain_entries(table, stated)
    return _named_by_file(entries, files) if headless else Listing(entries)


def _table_entries(table: Table, names: Mapping[str, Sequence[str]], stated: str | None) -> Iterator[Entry]:
    """The clips of a table with a header; `stated` is the split of those whose row has none."""
    columns = table.columns(names)
    if "path" not in columns:
        raise TceError(
            str(table.path),
            "a column `path`",
            f"columns {', '.join(name for name in table.header if name)}",
            "begin with a line that names the columns, such as path,label,split",
        )
    for row, values in table.rows():
        cells = {key: values[place] for key, place in columns.items()}
        name, part = cells["path"], cells.get("split")
        if name is None:
            raise TceError(table.where(row), "a path", "an empty cell")
        start, end = NO_TIME, NO_TIME
        if cells.get("start") or cells.get("end"):
            start, end = (table.seconds(cells.get(key), row) for key in ("start", "end"))
            start = 0.0 if math.isnan(start) and not math.isnan(end) else start
        split = SPLIT_NAMES.get(part.lower(), part) if part else stated
        yield Entry(name, cells.get("label"), split, start, end, cells.get("group"), cells.get("source"))


# Lists without a header

NUMBERED_NAME = re.compile(r".*split_?(?P<number>\d{1,4})(?!\d).*\.(?:txt|csv|tsv)")
_LABEL_LINE = re.compile(r"(?P<path>.+?)[\s,;]+(?P<label>[0-9]+)")
_FRAMES_LINE = re.compile(r"(?P<path>.+?)[\s,;]+[0-9]+[\s,;]+(?P<label>[0-9]+)")


def is_plain_list(path: Path) -> bool:
    """Whether every line of a text file is "path label" with a number as label."""
    if path.suffix.lower() != ".txt" or path.name.lower() == "classind.txt":
        return False
    try:
        lines = read_lines(path)
    except TceError:
        return False
    return bool(lines) and all(_LABEL_LINE.fullmatch(line) for line in lines)


def _plain_entries(table: Table, stated: str | None) -> list[Entry]:
    """The clips of rows "path label" (PySlowFast) or "path frames label" (MMAction)."""
    rows = list(table.rows())
    if rows and all(len(cells) == 1 for _, cells in rows):
        lines = [str(cells[0]) for _, cells in rows]
        pattern = _FRAMES_LINE if all(map(_FRAMES_LINE.fullmatch, lines)) else _LABEL_LINE
        matches = [pattern.fullmatch(line) for line in lines]
        rows = [
            (row, [match["path"], match["label"]] if match else cells)
            for (row, cells), match in zip(rows, matches)
        ]
    for row, cells in rows:
        frames = "".join(cell or "" for cell in cells[1:-1])
        if not 2 <= len(cells) <= 3 or not cells[0] or not re.fullmatch(r"[0-9]*", frames):
            raise _no_header(table, row, cells)
    if rows and not any(_looks_like_a_path(str(cells[0])) for _, cells in rows):
        raise _no_header(table, *rows[0])
    return [Entry(str(cells[0]), cells[-1], stated) for _, cells in rows]


def _no_header(table: Table, row: int, cells: Cells) -> TceError:
    return TceError(
        table.where(row),
        "a column `path`, or rows of a path and a label",
        f"columns {', '.join(cell or '' for cell in cells)[:100]}",
        "begin with a line that names the columns, such as path,label,split",
    )


def _looks_like_a_path(text: str) -> bool:
    return "/" in text or "\\" in text or os.path.splitext(text)[1].lower() in VIDEO_SUFFIXES


def _of_split(tables: list[Path], split: str) -> list[Path]:
    """Those of a numbered split, where files are numbered as ucf101_train_split_1_videos.txt is."""
    numbers = {path: NUMBERED_NAME.fullmatch(path.name.lower()) for path in tables}
    held = sorted({int(match["number"]) for match in numbers.values() if match})
    if len(held) < 2:
        return tables
    wanted = split_number(split)
    if wanted not in held:
        raise OptionError("--split", f"one of {', '.join(map(str, held))}", repr(split))
    return [path for path, match in numbers.items() if match is None or int(match["number"]) == wanted]


def _named_by_file(entries: list[Entry], files: Sequence[Path]) -> Listing:
    """The clips with class names in place of numbers, where a file beside the lists has them."""
    pattern = r"(?:.*label_?map.*|class(?:es|_?names?|ind)?)\.txt"
    path = next((path for path in files if re.fullmatch(pattern, path.name.lower())), None)
    labels = {entry.label for entry in entries if entry.label}
    if path is None or not all(re.fullmatch(r"[0-9]{1,9}", label) for label in labels):
        return Listing(entries)
    names = {number: compose(name) for number, name in read_names(path).items()}
    unknown = [label for label in labels if int(label) not in names]
    if unknown:
        raise TceError(str(path), "a name for each class of the lists", f"none for {min(unknown, key=int)}")
    named = [replace(entry, label=names[int(entry.label)] if entry.label else None) for entry in entries]
    return Listing(named, list(names.values()), path)


# Kinetics

_KINETICS_COLUMNS = {
    "path": ("youtube_id",),
    "label": ("label",),
    "split": ("split",),
    "start": ("time_start",),
    "end": ("time_end",),
}


def read_kinetics(files: Sequence[Path], split: str) -> Listing:
    """train.csv, val.csv, ...: label, youtube_id, time_start, time_end, split; test lists may lack labels."""
    entries = []
    for path in files:
        if path.suffix.lower() not in TABLE_SUFFIXES or "youtube_id" not in header(path):
            continue
        for entry in _table_entries(open_table(path, _COLUMNS), _KINETICS_COLUMNS, split_in_name(path)):
            label = (entry.label or "").replace("_", " ").strip() or None
            entries.append(replace(entry, label=label, source=entry.name))
    return Listing(entries)


def header(path: Path) -> tuple[str, ...]:
    """The names of a table's columns in lower case; none where it has no header or cannot be read."""
    try:
        return open_table(path, _COLUMNS).header
    except TceError:  # explained by the reader, if it is one of the lists
        return ()
