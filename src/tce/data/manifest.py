"""What a collection was made with: `options.json`, which later packing must not contradict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tce.data.collection import STORAGE_VERSION, is_collection, read_options
from tce.data.writer import holds_clips
from tce.errors import OptionError
from tce.io import write_json
from tce.options.pack import PackOptions

if TYPE_CHECKING:
    from tce.data.catalog import Catalog

FIXED = ("short_side", "quality", "every", "fps", "clip_seconds", "split_scenes", "keep_damaged")
"""Options that decide what frames look like: one collection, one value."""


class Manifest:
    """The fixed options and the footage of a collection, old or about to be made.

    Attributes:
        complete: whether all footage named so far has been packed.
        was_complete: whether the collection was ever complete, so that someone may be reading it.
        starts_over: whether what an earlier packing left behind, without a single clip, is to be given up.
    """

    def __init__(self, path: Path, content: dict[str, Any], complete: bool, starts_over: bool = False):
        self._path, self._content, self.complete = path, content, complete
        self.was_complete = bool(content.get("was_complete"))
        self.starts_over = starts_over

    def write(self, complete: bool) -> None:
        """Write `options.json`."""
        self._content |= {"complete": complete, "was_complete": self.was_complete or complete}
        write_json(self._path, self._content)
        self.complete = complete


def open_manifest(out: Path, options: PackOptions, catalog: Catalog) -> Manifest:
    """The manifest of the collection `out` with the footage of `options`; nothing is written.

    A collection without a single packed clip, which a failed packing leaves, takes any options and footage.

    Raises:
        OptionError: the options contradict those that the collection was made with.
    """
    from tce import __version__

    given = {name: getattr(options, name) for name in FIXED}
    addition: dict[str, Any] = {
        "footage": [os.path.abspath(place) for place in options.footage],
        "lists": None if options.lists is None else os.path.abspath(options.lists),
        "split": options.split if options.lists is not None else None,
    }
    new = {"pack": given, "additions": [addition], "classes": catalog.classes}
    new |= {"tce": __version__, "lance": STORAGE_VERSION}
    old = read_options(out) if is_collection(out) else {}
    if not old:
        return Manifest(out / "options.json", new, False)
    additions = list(old["additions"])
    # The lists may be others: readers take labels and splits from the lists that they are given.
    known_footage = addition["footage"] in [other["footage"] for other in additions]
    differing = [name for name, value in old["pack"].items() if name in given and given[name] != value]
    if (differing or not known_footage) and not holds_clips(out):
        return Manifest(out / "options.json", new, False, starts_over=True)
    if differing:
        name = differing[0]
        flag = f"--{name.replace('_', '-')}"
        raise OptionError(
            f"--out {out}",
            expected=f"{_with_flag(flag, old['pack'][name])}, as when it was made",
            found=_with_flag(flag, given[name]),
            fix="give the same value, or another --out",
        )
    if known_footage:
        return Manifest(out / "options.json", old, bool(old.get("complete")))
    if not options.add:
        raise OptionError(
            f"--out {out}",
            expected=f"a collection of {', '.join(addition['footage'])}",
            found=f"one of {', '.join(place for other in additions for place in other['footage'])}",
            fix="--add adds to it; or name another folder",
        )
    classes = [*old["classes"], *(name for name in catalog.classes if name not in old["classes"])]
    content = old | {"additions": [*additions, addition], "classes": classes}
    return Manifest(out / "options.json", content, False)


def _with_flag(flag: str, value: object) -> str:
    """A flag with its value, as one would type it."""
    if value is True:
        return flag
    return f"no {flag}" if value is None or value is False else f"{flag} {value}"
