"""What a dataset's lists name: clips with their classes and splits; how names are compared and sorted."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tce.data.find_clips import SPLIT_NAMES, VIDEO_SUFFIXES, FoundClips
from tce.errors import OptionError, TceError

Layout = Literal["auto", "folders", "ucf101", "hmdb51", "kinetics", "ssv2", "table"]

NO_TIME = float("nan")


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

    def __init__(self, footage: FoundClips):
        self._root = os.path.abspath(footage.root)
        self._by_path: dict[str, int] = {}
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        self._by_folder: dict[tuple[str, str], int] = {}
        self._by_name: dict[str, list[int]] = defaultdict(list)
        self._by_caseless: dict[str, list[int]] = defaultdict(list)
        for place, path in enumerate(footage.paths):
            stem = _path_key(footage.stem(path).replace(os.sep, "/"))
            folder, _, name = stem.rpartition("/")
            self._by_path[path] = place
            self._by_stem[stem].append(place)
            self._by_folder.setdefault((class_key(folder.rpartition("/")[2]), name.lower()), place)
            self._by_name[name].append(place)
            self._by_caseless[name.lower()].append(place)

    def find(self, listed: str, piece: str = "") -> int | None:
        """The clip's place; None where there is none, or several with nothing to tell them apart.

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
    """The split that a file's name tells, "val" of something-something-v2-validation.json."""
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
