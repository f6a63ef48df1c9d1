"""The lists that come with datasets: which clips there are, in which split, of which class.

Read are the lists of UCF101 (and of anything listed alike), HMDB51, Kinetics and Something-Something, tables
with a column `path`, and lists without a header as PySlowFast and MMAction have them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tce.data.listing import (
    NUMBERED_NAME,
    Entry,
    Layout,
    Listing,
    class_key,
    compose,
    header,
    is_plain_list,
    read_kinetics,
    read_table,
    split_in_name,
    split_number,
    ucf_label,
)
from tce.data.tables import TABLE_SUFFIXES, numbered_lines, read_json, read_lines, read_names
from tce.errors import OptionError, TceError
from tce.options.checks import split_names


def read_lists(lists: str | os.PathLike[str], split: str = "01", layout: Layout = "auto") -> Listing:
    """Read a dataset's lists.

    Args:
        lists: a folder of lists, or one file.
        split: which of the numbered splits, where there are several ("01").
        layout: whose lists they are; "auto" finds out by the names and contents of the files.

    Raises:
        TceError: nothing is there, lists of no known kind, or class numbers that contradict them.
        OptionError: there is no such split.
    """
    files, kind = _files_and_layout(lists, layout)
    listing = _READERS[kind](files, split)
    listing.layout = kind
    if not listing.entries:
        place = f"--lists {lists}" if layout == "auto" else str(lists)
        raise TceError(place, "the names of clips", f"none; it was read as {_DESCRIPTIONS[kind]}")
    return listing


def list_splits(lists: str | os.PathLike[str]) -> tuple[str, ...]:
    """The numbered splits that a dataset's lists hold, such as ("01", "02"); none if they are not numbered.

    Raises:
        TceError: nothing is there, or lists of no known kind.
    """
    files, kind = _files_and_layout(lists, "auto")
    pattern = _NUMBERED.get(kind)
    matches = [pattern.fullmatch(path.name.lower()) for path in files] if pattern is not None else []
    numbers = sorted({int(match["number"]) for match in matches if match})
    return tuple(f"{number:02d}" for number in numbers) if kind != "table" or len(numbers) > 1 else ()


def choose_splits(text: str, lists: str | os.PathLike[str] | None) -> tuple[str, ...]:
    """The splits that `--split` asks for; `all` stands for each split of the lists.

    Args:
        text: `01`, `1`, `01,02` or `all`.
        lists: the dataset's lists; None if none are given.

    Raises:
        OptionError: no name, one twice, a split that the lists do not hold, or `all` without lists.
        TceError: lists that cannot be read.
    """
    if lists is None:
        if text == "all":
            raise OptionError("--split all", "lists whose splits are meant", "no --lists", "give --lists")
        return split_names(text)
    held = list_splits(lists)
    if text == "all":
        return held or ("01",)
    names = split_names(text)
    unknown = [name for name in names if name not in (held or ("01",))]
    if unknown:
        if held:
            raise OptionError("--split", f"one of {', '.join(held)}, the splits of {lists}", repr(unknown[0]))
        found = f"{unknown[0]!r}, and one split in {lists}"
        raise OptionError("--split", "lists that number their splits", found, "leave --split out")
    return names


# Which lists they are


def _files_and_layout(lists: str | os.PathLike[str], layout: Layout) -> tuple[list[Path], Layout]:
    folder = Path(lists)
    if not folder.exists():
        raise TceError(
            f"--lists {folder}", "a folder of lists, or a table", "nothing there", "check the path"
        )
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    kind = _layout(files) if layout in ("auto", "folders") else layout
    if kind is None:
        raise TceError(
            f"--lists {folder}",
            "lists of UCF101, HMDB51, Kinetics or Something-Something, a table with a column `path`, "
            "or lines `path label`",
            ", ".join(path.name for path in files[:3]) or "an empty folder",
        )
    return files, kind


_UCF_NAME = re.compile(r"(?:train|test|val)list(?P<number>\d{1,4})?\.txt")
_HMDB_NAME = re.compile(r"(?P<label>.+)_test_split(?P<number>\d)\.txt")
_NUMBERED: dict[Layout, re.Pattern[str]] = {
    "ucf101": re.compile(_UCF_NAME.pattern.replace(")?", ")", 1)),
    "hmdb51": _HMDB_NAME,
    "table": NUMBERED_NAME,
}


def _layout(files: Sequence[Path]) -> Layout | None:
    names = [path.name.lower() for path in files]
    if any(_UCF_NAME.fullmatch(name) for name in names):
        return "ucf101"
    if any(_HMDB_NAME.fullmatch(name) for name in names):
        return "hmdb51"
    tables = [path for path in files if path.suffix.lower() in TABLE_SUFFIXES]
    # Before the JSON: Kinetics' archives hold the same clips once more as train.json beside train.csv.
    if any("youtube_id" in header(path) for path in tables):
        return "kinetics"
    if any(name.endswith(".json") for name in names):
        return "ssv2"
    if tables or any(is_plain_list(path) for path in files):
        return "table"
    return None


_DESCRIPTIONS: dict[Layout, str] = {
    "ucf101": "UCF101's lists",
    "hmdb51": "HMDB51's lists",
    "kinetics": "Kinetics' lists",
    "ssv2": "Something-Something's lists",
    "table": "a table",
}


# UCF101


def _read_ucf101(files: Sequence[Path], split: str) -> Listing:
    """classInd.txt; trainlist01.txt, "Class/v_Class_g01_c01.avi 1"; testlist01.txt, the same or no number."""
    named = {path.name.lower(): path for path in files}
    number = split_number(split)
    chosen = {
        part: named[name]
        for part in ("train", "val", "test")
        for name in (f"{part}list{number:02d}.txt", f"{part}list{number}.txt", f"{part}list.txt")
        if name in named
    }
    if not chosen:
        matches = [_UCF_NAME.fullmatch(name) for name in named]
        numbers = sorted({match["number"] for match in matches if match and match["number"]})
        raise OptionError("--split", f"one of {', '.join(numbers) or 'the lists'}", repr(split))
    classes = _UcfClasses(named["classind.txt"]) if "classind.txt" in named else None
    entries = []
    for part, path in chosen.items():
        for row, line in numbered_lines(path):
            found = re.fullmatch(r"(.+?)(?:\s+([0-9]{1,9}))?", line)
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
    """What classInd.txt holds.

    Attributes:
        path: the file.
        names: the classes in the order of their numbers.
    """

    def __init__(self, path: Path):
        if not all(re.fullmatch(r"[0-9]{1,9}\s+.+", line) for line in read_lines(path)):
            raise TceError(str(path), 'lines such as "1 ApplyEyeMakeup"', "others")
        self.path = path
        self._by_number = {number: compose(name) for number, name in read_names(path).items()}
        self.names = list(self._by_number.values())
        self._numbers = {name: number for number, name in self._by_number.items()}
        self._spelled = {class_key(name): name for name in self.names}

    def of(self, label: str | None, number: str | None, where: str, line: str) -> str | None:
        """The class of a clip as classInd.txt spells it; as the list does, where it is not in there.

        Args:
            label: the class that folder or name give, if they do.
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


# HMDB51

_HMDB_TAGS = r"_[fhlu]_(?:cm|nm)_np\d_(?:ba|bo|fr|le|ri)_(?:bad|med|goo)_\d+$"


def _read_hmdb51(files: Sequence[Path], split: str) -> Listing:
    """brush_hair_test_split1.txt: "name.avi 1" for training, 2 for testing, 0 for neither."""
    number, numbers = split_number(split), set()
    entries = []
    for path in files:
        found = _HMDB_NAME.fullmatch(path.name)
        if found is None:
            continue
        numbers.add(found["number"])
        if int(found["number"]) != number:
            continue
        for row, line in numbered_lines(path):
            clip = re.fullmatch(r"(.+?)\s+([012])", line)
            if clip is None:
                raise TceError(f"{path}, line {row}", "a name and 0, 1 or 2", repr(line[:60]))
            part = {"1": "train", "2": "test"}.get(clip[2])
            source = re.sub(_HMDB_TAGS, "", os.path.splitext(clip[1])[0])
            entries.append(Entry(f"{found['label']}/{clip[1]}", found["label"], part, source=source))
    if not entries and numbers:
        raise OptionError("--split", f"one of {', '.join(sorted(numbers))}", repr(split))
    return Listing(entries)


# Something-Something


def _read_ssv2(files: Sequence[Path], split: str) -> Listing:
    """something-something-v2-train.json, ...-validation.json, ...-test.json and ...-labels.json."""
    listing = Listing()
    for path in files:
        if path.suffix.lower() != ".json":
            continue
        content = read_json(path)
        if isinstance(content, dict):
            listing.classes, listing.classes_file = _ssv2_classes(path, content), path
        elif isinstance(content, list):
            listing.entries += [_ssv2_entry(path, clip) for clip in content]
        else:
            raise TceError(str(path), "a list of clips with `id` and `template`", type(content).__name__)
    return listing


def _ssv2_classes(path: Path, content: dict[str, object]) -> list[str]:
    numbers = {name: re.fullmatch(r"[0-9]{1,9}", str(number)) for name, number in content.items()}
    if not numbers or not all(numbers.values()):
        raise TceError(
            str(path),
            "a list of clips with `id` and `template`, or classes with their numbers",
            "other entries",
        )
    ordered = sorted(numbers, key=lambda name: int(str(content[name])))
    return list(dict.fromkeys(_without_brackets(name) for name in ordered))


def _ssv2_entry(path: Path, clip: object) -> Entry:
    name = clip.get("id") if isinstance(clip, dict) else None
    template = clip.get("template") if isinstance(clip, dict) else None
    usable = isinstance(name, str | int) and not isinstance(name, bool) and isinstance(template, str | None)
    if not usable or not str(name).strip():
        raise TceError(str(path), "clips with `id` and `template`", str(clip)[:60])
    return Entry(str(name).strip(), _without_brackets(template) if template else None, split_in_name(path))


def _without_brackets(template: str) -> str:
    return compose(re.sub(r"[\[\]]", "", template).strip())


_READERS: dict[Layout, Callable[[Sequence[Path], str], Listing]] = {
    "ucf101": _read_ucf101,
    "hmdb51": _read_hmdb51,
    "kinetics": read_kinetics,
    "ssv2": _read_ssv2,
    "table": read_table,
}
