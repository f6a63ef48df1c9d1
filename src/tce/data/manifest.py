"""What a collection was made with: `options.json`, which later packing must not contradict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tce.data.collection import STORAGE_VERSION, is_collection, read_options
from tce.data.writer import write_json
from tce.errors import OptionError
from tce.options.pack import PackOptions

if TYPE_CHECKING:
    from tce.data.read_catalog import Catalog

PINNED = ("short_side", "quality", "every", "fps", "clip_seconds", "split_scenes", "keep_damaged")
"""Options that decide what frames look like: one collection, one value."""


class Pins:
    """The pinned options of a collection, old or about to be made.

    Attributes:
        complete: whether all footage named so far has been packed.
        was_complete: whether the collection was ever complete, so that someone may be reading it.
    """

    def __init__(self, path: Path, content: dict[str, Any], complete: bool):
        self._path, self._content, self.complete = path, content, complete
        self.was_complete = bool(content.get("was_complete"))

    def write(self, complete: bool) -> None:
        """Write `options.json`."""
        self._content |= {"complete": complete, "was_complete": self.was_complete or complete}
        write_json(self._path, self._content)
        self.complete = complete


def open_pins(out: Path, options: PackOptions, catalog: Catalog) -> Pins:
    """The pins of the collection `out` with the footage of `options`; nothing is written.

    Raises:
        OptionError: the options contradict what the collection was made with.
    """
    from tce import __version__

    given = {name: getattr(options, name) for name in PINNED}
    addition: dict[str, Any] = {
        "footage": [os.path.abspath(place) for place in options.footage],
        "lists": None if options.lists is None else os.path.abspath(options.lists),
        "split": options.split if options.lists is not None else None,
    }
    old = read_options(out) if is_collection(out) else {}
    if not old:
        content = {"pack": given, "additions": [addition], "classes": catalog.classes}
        return Pins(out / "options.json", content | {"tce": __version__, "lance": STORAGE_VERSION}, False)
    for name, value in old["pack"].items():
        if name in given and given[name] != value:
            raise OptionError(
                f"--{name.replace('_', '-')}",
                expected=f"{_told(value)}, with which {out} was made",
                found=_told(given[name]),
                fix="give the same value, or another --out",
            )
    additions = list(old["additions"])
    # The lists may be others: readers take labels and splits from the lists that they are given.
    if addition["footage"] in [other["footage"] for other in additions]:
        return Pins(out / "options.json", old, bool(old.get("complete")))
    if not options.add:
        raise OptionError(
            f"--out {out}",
            expected=f"a collection of {', '.join(addition['footage'])}",
            found=f"one of {', '.join(place for other in additions for place in other['footage'])}",
            fix="--add adds to it; or name another folder",
        )
    classes = [*old["classes"], *(name for name in catalog.classes if name not in old["classes"])]
    content = old | {"additions": [*additions, addition], "classes": classes}
    return Pins(out / "options.json", content, False)


def _told(value: object) -> str:
    return "the default" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
