"""What a dataset's lists name: clips with classes and splits, how names are compared, tables of clips.

Tables are CSV, TSV and Parquet with a column `path`, Kinetics' lists, and lists without a header.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tce.data.find_clips import SPLIT_NAMES, VIDEO_SUFFIXES, FoundClips
from tce.data.tables import TABLE_SUFFIXES, Cells, Table, open_table, read_lines, read_names
from tce.errors import OptionError, TceError

Layout = Literal["auto", "folders", "ucf101", "hmdb51", "kinetics", "ssv2", "table"]

NO_TIME = float("nan")

_COLUMNS = {
    "path": ("path", "video", "file", "filename", "video_path", "clip", "youtube_id"),
    "label": ("label", "class", "action"),
    "split": ("split", "subset"),
    "start": ("start", "time_start"),
    "end": ("end", "time_end"),
    "group": ("group",),
    "source": ("source", "recording"),
}
NUMBERED_NAME = re.compile(r".*split_?(?P<number>\d{1,4})(?!\d).*\.(?:txt|csv|tsv)")
_LABEL_LINE = re.compile(r"(?P<path>.+?)[\s,;]+(?P<label>[0-9]+)")
_FRAMES_LINE = re.compile(r"(?P<path>.+?)[\s,;]+[0-9]+[\s,;]+(?P<label>[0-9]+)")
_KINETICS_COLUMNS = {
    "path": ("youtube_id",),
    "label": ("label",),
    "split": ("split",),
    "start": ("time_start",),
    "end": ("time_end",),
}


@dataclass(frozen=True)
class Entry:
    """One clip as a list names it.

    Attributes:
        name: path or bare name, with or without suffix.
        label: its class, if the list has it.
        split: "train", "val", "test" or None.
        start: seconds at which it begins in its recording, NaN where the file is the clip.
        end: seconds at which it ends, NaN for the end of the file.
        group: see `catalog.Clip`.
        source: see `catalog.Clip`.
    """

    name: str
    label: str | None = None
    split: str | None = None
    start: float = NO_TIME
    end: float = NO_TIME
    group: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        for name in ("label", "split", "group", "source"):
            text = getattr(self, name)
            if text is not None and not text.isascii():
                object.__setattr__(self, name, compose(text))


@dataclass
class Listing:
    """A dataset's lists, read.

    Attributes:
        entries: the clips that they name.
        classes: class names in the order of their numbers; None where no file numbers them.
        classes_file: the file that does.
        layout: whose lists they are.
    """

    entries: list[Entry] = field(default_factory=list)
    classes: list[str] | None = None
    classes_file: Path | None = None
    layout: Layout = "table"

    def require_classes(self, entries: Iterable[Entry]) -> None:
        """Check that the classes of these of its entries are among `classes`, where there are any.

        Raises:
            TceError: one is not; names the file of the classes.
        """
        known = set(self.classes or ())
        for entry in entries:
            if known and entry.label is not None and entry.label not in known:
                raise TceError(
                    str(self.classes_file),
                    "all classes of the lists",
                    f"no {entry.label!r}, the class of {entry.name!r}",
                    "add it, or correct the list",
                )


class NameIndex:
    """Finds clips by the names that lists give them.

    Lists and folders spell classes differently, and the same file name may lie in several class folders: so a
    name is looked up as a path below the dataset's folder, then with its folder alone, then without, then
    without regard to case (UCF101's lists write HandStandPushups where its files write HandstandPushups).
    Composed and decomposed characters are the same.
    """

    def __init__(self, videos: FoundClips):
        self._root = os.path.abspath(videos.root)
        self._by_path: dict[str, int] = {}
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        self._by_folder: dict[tuple[str, str], int] = {}
        self._by_name: dict[str, list[int]] = defaultdict(list)
        self._by_caseless: dict[str, list[int]] = defaultdict(list)
        for place, path in enumerate(videos.paths):
            stem = _path_key(videos.stem(path).replace(os.sep, "/"))
            folder, _, name = stem.rpartition("/")
            self._by_path[path] = place
            self._by_stem[stem].append(place)
            self._by_folder.setdefault((class_key(folder.rpartition("/")[2]), name.lower()), place)
            self._by_name[name].append(place)
            self._by_caseless[name.lower()].append(place)

    def find(self, listed: str, piece: str = "") -> int | None:
        """The clip's place; None where there is none, or several that cannot be distinguished.

        Args:
            listed: the name, with or without folder and suffix.
            piece: what the clip's name has in addition, at its end, where it is a piece of a recording.
        """
        if not piece and listed in self._by_path:
            return self._by_path[listed]
        path = os.path.normpath(listed.replace("\\", "/"))
        if os.path.isabs(path) and path.startswith(self._root + os.sep):
            path = os.path.relpath(path, self._root)
        if not piece and path in self._by_path:
            return self._by_path[path]
        stem, suffix = os.path.splitext(path.replace(os.sep, "/"))
        stem = _path_key((stem if suffix.lower() in VIDEO_SUFFIXES else stem + suffix) + piece)
        folder, _, name = stem.rpartition("/")
        if folder and len(self._by_stem.get(stem, ())) != 1:
            place = self._by_folder.get((class_key(folder.rpartition("/")[2]), name.lower()))
            if place is not None:
                return place
        for places in (self._by_stem.get(stem), self._by_name.get(name), self._by_caseless.get(name.lower())):
            if places is not None and len(places) == 1:
                return places[0]
        return None


def _path_key(path: str) -> str:
    return compose(path).strip()


def class_order(names: Iterable[str]) -> list[str]:
    """Class names sorted: numbers by their value if all are numbers, else as text."""
    names = sorted(set(names))
    if all(re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", name) for name in names):
        names.sort(key=float)
    return names


def class_key(name: str) -> str:
    """What all spellings of a class share: HandStandPushups, Handstand pushups, handstand_pushups."""
    return re.sub(r"[\s_]+", "", compose(name)).lower()


def ucf_label(name: str) -> str | None:
    """The class in a UCF101-style name, "Archery" of "v_Archery_g01_c02"; None for another name."""
    found = re.search(r"(?:^|/)v_([^/]+)_g\d+_c\d+(?:\.\w+)?$", name)
    return found[1] if found else None


def compose(text: str) -> str:
    """`text` with composed characters, as lists mostly have them and some file systems do not."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def split_in_name(path: Path) -> str | None:
    """The split in a file's name, "val" of something-something-v2-validation.json."""
    words = re.findall(r"[a-z]+", path.stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def split_number(split: str) -> int:
    """The number of a split, 1 of "01".

    Raises:
        OptionError: no number.
    """
    if not re.fullmatch(r"[0-9]{1,4}", split):
        raise OptionError("--split", 'the number of a split, as "01"', repr(split))
    return int(split)


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
