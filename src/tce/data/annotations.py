"""The lists that come with datasets: which clips there are, in which split, of which class.

UCF101 (and anything listed alike), HMDB51, Kinetics, Something-Something and plain tables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tce.data.find_clips import SPLIT_NAMES
from tce.data.tables import (
    header,
    lines,
    numbered_lines,
    read_json,
    read_table,
    rows,
    seconds,
    text_or_none,
)
from tce.errors import OptionError, TceError

Layout = Literal["auto", "folders", "ucf101", "hmdb51", "kinetics", "ssv2", "table"]


@dataclass(frozen=True)
class Entry:
    """One clip as a list names it.

    Attributes:
        name: path or bare name, with or without suffix.
        label: its class, if the list says.
        split: "train", "val", "test" or None.
        start: seconds at which it begins in its recording, NaN where the file is the clip.
        end: seconds at which it ends.
        group: see `catalog.Clip`.
        source: see `catalog.Clip`.
    """

    name: str
    label: str | None = None
    split: str | None = None
    start: float = float("nan")
    end: float = float("nan")
    group: str | None = None
    source: str | None = None


@dataclass
class Listing:
    """A dataset's lists, read.

    Attributes:
        entries: the clips that they name.
        classes: class names in the order of their numbers; None for sorted names.
        classes_file: the file that says so.
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


def read_lists(lists: str | os.PathLike[str], split: str = "01", layout: Layout = "auto") -> Listing:
    """Read a dataset's lists.

    Args:
        lists: a folder of lists, or one file.
        split: which of the numbered splits, where there are several ("01").
        layout: whose lists they are; "auto" tells by the names and contents of the files.

    Raises:
        TceError: nothing is there, lists of no known kind, or numbers of classes that contradict them.
        OptionError: there is no such split.
    """
    folder = Path(lists)
    if not folder.exists():
        raise TceError(
            f"--lists {folder}", "a folder of lists, or a table", "nothing there", "check the path"
        )
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    kind = _kind(files) if layout in ("auto", "folders") else layout
    if kind is None:
        known = "lists of UCF101, HMDB51, Kinetics or Something-Something, or a table with a column `path`"
        found = ", ".join(path.name for path in files[:3]) or "an empty folder"
        raise TceError(f"--lists {folder}", known, found)
    listing = _READERS[kind](files, split)
    listing.layout = kind
    if not listing.entries:
        raise TceError(
            f"--lists {folder}", f"lists in the manner of {kind} that name clips", "no clips in them"
        )
    return listing


def _kind(files: Sequence[Path]) -> Layout | None:
    names = [path.name.lower() for path in files]
    if any(re.fullmatch(r"(train|test|val)list\d*\.txt", name) for name in names):
        return "ucf101"
    if any(_HMDB_NAME.fullmatch(name) for name in names):
        return "hmdb51"
    # Before the JSON: Kinetics' archives hold the same clips once more as train.json beside train.csv.
    if any(path.suffix.lower() == ".csv" and "youtube_id" in header(path) for path in files):
        return "kinetics"
    if any(name.endswith(".json") for name in names):
        return "ssv2"
    if any(name.endswith((".csv", ".tsv", ".parquet")) for name in names):
        return "table"
    return None


def _read_ucf101(files: Sequence[Path], split: str) -> Listing:
    """classInd.txt; trainlist01.txt, "Class/v_Class_g01_c01.avi 1"; testlist01.txt, the same or no number."""
    named = {path.name.lower(): path for path in files}
    number = _split_number(split)
    chosen = {
        part: named[name]
        for part in ("train", "val", "test")
        for name in (f"{part}list{number:02d}.txt", f"{part}list{number}.txt", f"{part}list.txt")
        if name in named
    }
    if not chosen:
        pattern = r"(?:train|test|val)list(\d+)\.txt"
        numbers = sorted({found[1] for name in named if (found := re.fullmatch(pattern, name))})
        raise OptionError("--split", f"one of {', '.join(numbers) or 'the lists'}", repr(split))
    classes = _UcfClasses(named["classind.txt"]) if "classind.txt" in named else None
    entries = []
    for part, path in chosen.items():
        for row, line in numbered_lines(path):
            found = re.fullmatch(r"(.+?)(?:\s+(\d+))?", line)
            assert found is not None
            name = found[1]
            label = name.replace("\\", "/").rpartition("/")[0].rpartition("/")[2] or ucf_label(name)
            if classes is not None:
                label = classes.of(label, found[2], f"{path}, line {row}", line)
            entries.append(Entry(name, label, part))
    if classes is None:
        return Listing(entries)
    return Listing(entries, classes.names, classes.path)


class _UcfClasses:
    """What classInd.txt says.

    Attributes:
        path: the file.
        names: the classes in the order of their numbers.
    """

    def __init__(self, path: Path):
        numbered = [line.split(maxsplit=1) for line in lines(path)]
        if not all(len(line) == 2 and line[0].isdecimal() for line in numbered):
            raise TceError(str(path), 'lines such as "1 ApplyEyeMakeup"', "others")
        ordered = sorted(((int(number), name) for number, name in numbered), key=lambda pair: pair[0])
        self.path = path
        self.names = [name for _, name in ordered]
        self._by_number = dict(ordered)
        self._numbers = {name: number for number, name in ordered}
        self._spelled = {class_key(name): name for name in self.names}

    def of(self, label: str | None, number: str | None, where: str, line: str) -> str | None:
        """The class of a clip as classInd.txt spells it; as the list does, where it is not in there.

        Args:
            label: the class that folder or name tell, if they do.
            number: the number behind the name, if there is one.
            where: the list and the line, for errors.
            line: the line itself.

        Raises:
            TceError: the number is another class's, or nobody's.
        """
        named = self._spelled.get(class_key(label)) if label else None
        if number is None or (label and named is None):
            return named or label
        numbered = self._by_number.get(int(number))
        if numbered is not None and (named is None or class_key(numbered) == class_key(named)):
            return named or numbered
        expected = f"{self._numbers[named]}, the number of {named}" if named else "the number of a class"
        found = f"{line!r}, and {number} is {numbered or 'no class'} there"
        raise TceError(where, f"{expected} in {self.path}", found, "correct the line, or that file")


def ucf_label(name: str) -> str | None:
    """The class in a UCF101-style name, "Archery" of "v_Archery_g01_c02"; None for another name."""
    found = re.search(r"(?:^|/)v_([^/]+)_g\d+_c\d+(?:\.\w+)?$", name)
    return found[1] if found else None


_HMDB_NAME = re.compile(r"(?P<label>.+)_test_split(?P<number>\d)\.txt")
_HMDB_CLIP = r"_[fhlu]_(?:cm|nm)_np\d_(?:ba|bo|fr|le|ri)_(?:bad|med|goo)_\d+$"


def _read_hmdb51(files: Sequence[Path], split: str) -> Listing:
    """brush_hair_test_split1.txt: "name.avi 1" for training, 2 for testing, 0 for neither."""
    number, numbers = _split_number(split), set()
    entries = []
    for path in files:
        found = _HMDB_NAME.fullmatch(path.name)
        if found is None:
            continue
        numbers.add(found["number"])
        if int(found["number"]) != number:
            continue
        for line in lines(path):
            name, _, flag = line.rpartition(" ")
            part = {"1": "train", "2": "test"}.get(flag)
            source = re.sub(_HMDB_CLIP, "", os.path.splitext(name.strip())[0])
            entries.append(Entry(f"{found['label']}/{name.strip()}", found["label"], part, source=source))
    if not entries and numbers:
        raise OptionError("--split", f"one of {', '.join(sorted(numbers))}", repr(split))
    return Listing(entries)


def _read_kinetics(files: Sequence[Path], split: str) -> Listing:
    """train.csv, val.csv, ...: label, youtube_id, time_start, time_end, split; test lists may lack labels."""
    entries = []
    for path in files:
        if path.suffix.lower() != ".csv" or "youtube_id" not in header(path):
            continue
        stated = _split_in_name(path)
        for row in rows(path):
            start, end = seconds(row.get("time_start"), path), seconds(row.get("time_end"), path)
            label = (row.get("label") or "").replace("_", " ").strip() or None
            part = (row.get("split") or "").strip().lower()
            video = (row.get("youtube_id") or "").strip()
            entries.append(Entry(video, label, SPLIT_NAMES.get(part, stated), start, end, source=video))
    return Listing(entries)


def _read_ssv2(files: Sequence[Path], split: str) -> Listing:
    """something-something-v2-train.json, ...-validation.json, ...-test.json and ...-labels.json."""
    classes: list[str] | None = None
    classes_file: Path | None = None
    entries = []
    for path in files:
        if path.suffix.lower() != ".json":
            continue
        content = read_json(path)
        if isinstance(content, dict) and all(str(number).isdigit() for number in content.values()):
            classes, classes_file = sorted(content, key=lambda name: int(content[name])), path
            continue
        part = _split_in_name(path)
        if not isinstance(content, list):
            raise TceError(str(path), "a list of clips with `id` and `template`", type(content).__name__)
        for clip in content:
            if not isinstance(clip, dict) or "id" not in clip:
                raise TceError(str(path), "clips with `id` and `template`", str(clip)[:60])
            template = clip.get("template")
            label = re.sub(r"[\[\]]", "", template) if template else None
            entries.append(Entry(str(clip["id"]), label, part))
    if not classes:
        return Listing(entries)
    return Listing(entries, [re.sub(r"[\[\]]", "", name) for name in classes], classes_file)


_COLUMNS = {
    "path": ("path", "video", "file", "filename", "video_path", "clip"),
    "label": ("label", "class", "action"),
    "split": ("split", "subset"),
    "start": ("start", "time_start"),
    "end": ("end", "time_end"),
    "group": ("group",),
    "source": ("source", "recording"),
}


def _read_table(files: Sequence[Path], split: str) -> Listing:
    """CSV, TSV or Parquet with columns path, label, split, and at will start, end, group, source."""
    entries: list[Entry] = []
    for path in files:
        if path.suffix.lower() in (".csv", ".tsv", ".parquet"):
            entries += _table_entries(path)
    return Listing(entries)


def _table_entries(path: Path) -> Iterator[Entry]:
    table = read_table(path)
    lower = {name.lower(): name for name in table.column_names}
    columns = {
        key: table[lower[name]].to_pylist()
        for key, names in _COLUMNS.items()
        if (name := next((name for name in names if name in lower), None))
    }
    if "path" not in columns:
        raise TceError(str(path), "a column `path`", f"columns {', '.join(table.column_names)}")
    for row, name in enumerate(columns["path"]):
        if name is None or not str(name).strip():
            raise TceError(f"{path}, row {row + 2}", "a path", "an empty cell")
        cells = {key: column[row] for key, column in columns.items()}
        part = text_or_none(cells.get("split"))
        yield Entry(
            str(name),
            text_or_none(cells.get("label")),
            SPLIT_NAMES.get(part.lower(), part) if part else None,
            seconds(cells.get("start"), path),
            seconds(cells.get("end"), path),
            text_or_none(cells.get("group")),
            text_or_none(cells.get("source")),
        )


_READERS = {
    "ucf101": _read_ucf101,
    "hmdb51": _read_hmdb51,
    "kinetics": _read_kinetics,
    "ssv2": _read_ssv2,
    "table": _read_table,
}


def class_key(name: str) -> str:
    """What all spellings of a class share: HandStandPushups, Handstand pushups, handstand_pushups."""
    return re.sub(r"[\s_]+", "", name).lower()


def _split_in_name(path: Path) -> str | None:
    words = re.findall(r"[a-z]+", path.stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def _split_number(split: str) -> int:
    try:
        return int(split)
    except ValueError:
        raise OptionError("--split", 'the number of a split, as "01"', repr(split)) from None
