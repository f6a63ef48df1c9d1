"""The clips of a dataset from folders, the lists of known datasets, and tables."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tce.data.annotations import read_lists
from tce.data.catalog import PIECE_SUFFIX, Catalog, Clip
from tce.data.find_clips import FoundClips, find_clips, label_folders
from tce.data.listing import Entry, Layout, Listing, NameIndex, class_key, class_order, compose, ucf_label
from tce.data.tables import TABLE_SUFFIXES
from tce.errors import OptionError, TceError

__all__ = ["Catalog", "Clip", "Layout", "apply_lists", "read_catalog", "read_catalogs"]

log = logging.getLogger("tce.video")


def read_catalog(
    data: str | os.PathLike[str],
    lists: str | os.PathLike[str] | None = None,
    split: str = "01",
    layout: Layout = "auto",
) -> Catalog:
    """Every clip of a dataset, with label and split where folders or lists give them.

    Without lists, the label is the first folder that not all clips share (after one named train, val or test,
    which gives the split); clips named in UCF101's way in one flat folder carry it in the name. With lists,
    clips are found by name in any folder, as files or as frame folders; clips that no list names stay in the
    catalog without a split.

    Args:
        data: a folder of videos or frame folders at any depth, one video, or a table of clips.
        lists: the dataset's lists: a folder or a file.
        split: which of the numbered splits of UCF101 or HMDB51.
        layout: whose lists they are; "auto" finds out by names and contents, "folders" ignores lists.

    Raises:
        TceError: nothing at the path, no footage, lists of no known kind, of other clips or at odds with
            their classes, or a clip that is listed twice.
        OptionError: there is no such split.
    """
    root = os.fspath(data)
    if lists is None and layout != "folders" and root.lower().endswith((*TABLE_SUFFIXES, ".txt")):
        return _table_catalog(root, read_lists(root, split, "table"))
    videos = find_clips(root)
    if lists is None or layout == "folders":
        if layout not in ("auto", "folders"):
            raise TceError(f"layout {layout}", "the lists of that dataset", "none", "give --lists")
        return _folder_catalog(videos)
    return _listed_catalog(videos, read_lists(lists, split, layout), os.fspath(lists))


def read_catalogs(places: Sequence[str], lists: str | None, split: str) -> Catalog:
    """The catalog of one folder, video or table, or of several one after the other.

    Clips of several folders are named after their folder too, so that their ids differ.

    Raises:
        TceError: nothing there, no videos, or two of several places have the same name.
        OptionError: `lists` with several places.
    """
    if len(places) == 1:
        return read_catalog(os.path.abspath(places[0]), lists=lists, split=split)
    if lists is not None:
        fix = "pack one after the other with --add"
        raise OptionError("--lists", expected="one FOOTAGE", found=str(len(places)), fix=fix)
    parts = [read_catalog(os.path.abspath(place)) for place in places]
    names = [_place_name(place) for place in places]
    ids = [
        str(clip) if os.path.isfile(place) else f"{name}/{clip}"
        for place, name, part in zip(places, names, parts, strict=True)
        for clip in part.ids
    ]
    if len(set(ids)) != len(ids):
        raise TceError(
            "FOOTAGE",
            expected="files and folders with different names",
            found=f"{_twice(ids)!r} twice",
            fix="give the folder above them",
        )
    return Catalog(
        ids=ids,
        paths=[str(path) for part in parts for path in part.paths],
        labels=[None if code < 0 else part.classes[code] for part in parts for code in part.labels.tolist()],
        splits=[name for part in parts for name in part.splits],
        groups=[name for part in parts for name in part.groups],
        sources=[name for part in parts for name in part.sources],
        starts=np.concatenate([part.starts for part in parts]),
        ends=np.concatenate([part.ends for part in parts]),
        missing=[name for part in parts for name in part.missing],
        skipped=[reason for part in parts for reason in part.skipped],
        listed=sum(part.listed for part in parts),
    )


def apply_lists(
    catalog: Catalog, lists: str | os.PathLike[str], split: str = "01", warn: bool = True
) -> Catalog:
    """The same clips in the same order, with labels and splits from a dataset's lists.

    For videos that were packed once and are used with several splits. Pieces of a cut recording take the
    entry of the recording, or of that piece where the lists cut it.

    Args:
        catalog: clips whose ids are their names in the dataset.
        lists: the dataset's lists: a folder or a file.
        split: which of the numbered splits of UCF101 or HMDB51.
        warn: whether to warn of listed clips without a video.

    Raises:
        TceError: lists of no known kind, of other clips or at odds with their classes, or a clip that is
            listed twice.
        OptionError: there is no such split.
    """
    whole = np.isnan(catalog.starts)  # the name of a whole file may end as a piece's does
    recordings = [
        name if alone else re.sub(PIECE_SUFFIX, "", name) for name, alone in zip(catalog.ids, whole.tolist())
    ]
    videos = FoundClips(catalog.root, list(dict.fromkeys(recordings)))
    videos.folders.update(videos.paths)  # none has a suffix to take off
    listing = read_lists(lists, split)
    found, missing = _match(videos, listing)
    if not found:
        raise _no_clip_listed(lists, catalog.root or "the collection", listing)
    listing.require_classes(entry for _, entry in found)
    _require_once(f"--lists {lists}", [(place, entry.name) for place, entry in found])
    if warn:
        _warn_missing(missing, listing)
    classes = listing.classes or class_order(entry.label for entry in listing.entries if entry.label)
    entries = dict(_unlisted(videos, {place for place, _ in found}, classes))
    entries.update(found)
    by_name = {name: entries[place] for place, name in enumerate(videos.paths)}
    return Catalog(
        catalog.ids,
        catalog.paths,
        labels=[by_name[name].label for name in recordings],
        splits=[by_name[name].split for name in recordings],
        sources=catalog.sources,
        groups=catalog.groups,
        starts=catalog.starts,
        ends=catalog.ends,
        classes=classes,
        root=catalog.root,
        missing=missing,
        skipped=catalog.skipped,
        listed=len(listing.entries),
    )


def _no_clip_listed(lists: str | os.PathLike[str], where: str, listing: Listing) -> TceError:
    count, example = len(listing.entries), listing.entries[0].name
    return TceError(
        f"--lists {lists}",
        f"lists of the clips in {where}",
        f"none of the {count} listed clips there, such as {example}",
    )


def _require_once(lists: str, clips: Sequence[tuple[Hashable, str]]) -> None:
    """Raise if a list names a clip twice, maybe with different labels or splits.

    Args:
        lists: the lists, as a message names them.
        clips: what identifies each clip, and its name.
    """
    first: dict[Hashable, str] = {}
    for key, name in clips:
        if key in first:
            found = f"{name!r} twice" if first[key] == name else f"{first[key]!r} and {name!r}, the same clip"
            raise TceError(lists, "each clip once", found, "remove one of its lines")
        first[key] = name


def _warn_missing(missing: list[str], listing: Listing) -> None:
    if missing:
        log.warning(
            "%d of %d listed clips (%.1f%%) have no footage, such as %s",
            len(missing),
            len(listing.entries),
            100 * len(missing) / len(listing.entries),
            missing[0],
        )


def _folder_catalog(videos: FoundClips) -> Catalog:
    labels, splits = label_folders(videos.paths)
    labels = [label or ucf_label(videos.stem(path)) for label, path in zip(labels, videos.paths)]
    labels = [label and compose(label) for label in labels]
    return Catalog(
        _ids(videos, videos.paths),
        videos.paths,
        labels=labels,
        splits=splits,
        root=videos.root,
        skipped=videos.skipped,
    )


def _listed_catalog(videos: FoundClips, listing: Listing, lists: str) -> Catalog:
    found, missing = _match(videos, listing)
    if not found:
        raise _no_clip_listed(lists, videos.root, listing)
    listing.require_classes(entry for _, entry in found)
    _require_once(f"--lists {lists}", [((place, _range(entry)), entry.name) for place, entry in found])
    _warn_missing(missing, listing)
    classes = listing.classes or class_order(entry.label for entry in listing.entries if entry.label)
    listed = {place for place, _ in found}
    rows = sorted([*found, *_unlisted(videos, listed, classes)], key=lambda row: (row[0], _start(row[1])))
    return _catalog(
        videos,
        [place for place, _ in rows],
        [entry for _, entry in rows],
        classes,
        missing,
        len(listing.entries),
    )


def _table_catalog(table: str, listing: Listing) -> Catalog:
    """Clips that a table names by their paths, relative to the table's folder; nothing else is looked at."""
    videos = FoundClips(os.path.dirname(table) or ".")
    finder = _PathFinder(videos.root)
    entries, files, missing = [], [], []
    for entry in listing.entries:
        path = finder.find(entry.name)
        if path is None:
            missing.append(entry.name)
            continue
        status = os.stat(os.path.join(videos.root, path))
        videos.paths.append(path)
        if stat.S_ISDIR(status.st_mode):
            videos.folders.add(path)
        entries.append(entry)
        files.append((status.st_dev, status.st_ino))
    if not entries:
        found = f"none of the {len(missing)} clips that it names, such as {missing[0]}"
        raise TceError(
            table,
            f"paths of clips, absolute or below {videos.root}",
            found,
            "correct the paths, or give the table as --lists and the folder of the videos in its place",
        )
    _require_once(table, [((file, _range(entry)), entry.name) for file, entry in zip(files, entries)])
    _warn_missing(missing, listing)
    classes = listing.classes or class_order(entry.label for entry in entries if entry.label)
    return _catalog(videos, range(len(entries)), entries, classes, missing, len(listing.entries))


class _PathFinder:
    """Finds the files that a table names, whatever system it was written on.

    Args:
        root: folder below which relative paths lie.
    """

    def __init__(self, root: str):
        self._root = root
        self._listed: dict[str, dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """The path on the disk, relative to the root unless `name` is absolute; None if there is none.

        Backslashes may stand for slashes, and composed characters for decomposed ones.
        """
        for path in (name, name.replace("\\", "/"), os.path.expanduser(name)):
            if os.path.exists(os.path.join(self._root, path)):
                # Where ".." follows a link, only the system knows what it leads to.
                return path if ".." in path.split(os.sep) else os.path.normpath(path)
        folder = os.sep if os.path.isabs(name) else ""
        for part in name.replace("\\", "/").split("/"):
            if part in ("", "."):
                continue
            inside = self._names_in(os.path.join(self._root, folder))
            folder = os.path.join(folder, part if part == ".." else inside.get(compose(part), part))
        return folder if os.path.exists(os.path.join(self._root, folder)) else None

    def _names_in(self, folder: str) -> dict[str, str]:
        """The names in a folder by their composed and stripped forms."""
        if folder not in self._listed:
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            self._listed[folder] = {compose(name).strip(): name for name in names}
        return self._listed[folder]


def _catalog(
    videos: FoundClips,
    places: Sequence[int],
    entries: list[Entry],
    classes: list[str],
    missing: list[str],
    listed: int,
) -> Catalog:
    paths = [videos.paths[place] for place in places]
    ids = _ids(videos, paths)
    ids = [name + _range(entry) for name, entry in zip(ids, entries)]
    sources = [entry.source for entry in entries]
    if not any(sources) and len(set(paths)) < len(paths):  # parts of one file are of one recording
        uses = Counter(paths)
        sources = [path if uses[path] > 1 else None for path in paths]
    return Catalog(
        ids,
        paths,
        labels=[entry.label for entry in entries],
        splits=[entry.split for entry in entries],
        sources=sources if any(sources) else None,
        groups=[entry.group for entry in entries] if any(entry.group for entry in entries) else None,
        starts=np.array([entry.start for entry in entries]),
        ends=np.array([entry.end for entry in entries]),
        classes=classes,
        root=videos.root,
        missing=missing,
        skipped=videos.skipped,
        listed=listed,
    )


def _match(videos: FoundClips, listing: Listing) -> tuple[list[tuple[int, Entry]], list[str]]:
    """The listed clips with the place of their footage in `footage.paths`; names of those without any."""
    names = NameIndex(videos)
    found: list[tuple[int, Entry]] = []
    missing: list[str] = []
    for entry in listing.entries:
        place = None
        if not np.isnan(entry.start):
            # Clips that are cut already carry their range in the name; a recording is cut at it.
            if listing.layout == "kinetics" and not np.isnan(entry.end):
                place = names.find(entry.name, f"_{int(entry.start):06d}_{int(entry.end):06d}")
            if place is None:
                place = names.find(entry.name, _range(entry))
            if place is not None:
                entry = replace(entry, start=float("nan"), end=float("nan"))
        if place is None:
            place = names.find(entry.name)
        if place is None:
            missing.append(entry.name)
        else:
            found.append((place, entry))
    return found, missing


def _unlisted(videos: FoundClips, listed: set[int], classes: list[str]) -> list[tuple[int, Entry]]:
    spelled = {class_key(name): name for name in classes}
    folders, _ = label_folders(videos.paths)
    rest = []
    for place, path in enumerate(videos.paths):
        if place not in listed:
            label = folders[place] or ucf_label(videos.stem(path))
            rest.append((place, Entry(path, spelled.get(class_key(label)) if label else None)))
    return rest


def _ids(videos: FoundClips, paths: Sequence[str]) -> list[str]:
    """Paths without suffix where those are unique, else with it."""
    stems = {path: videos.stem(path).replace(os.sep, "/") for path in paths}
    whole = {path: path.replace(os.sep, "/") for path in paths}
    counts = Counter(stems.values())
    kept = {path for path in stems if counts[stems[path]] > 1}  # these keep their suffix
    taken = {whole[path] for path in kept}
    # clip.mp4 beside clip.webm keeps its suffix, and so clip.mp4.webm must keep its own, and so on.
    clashing = [path for path in stems if path not in kept and stems[path] in taken]
    while clashing:
        kept.update(clashing)
        taken.update(whole[path] for path in clashing)
        clashing = [path for path in stems if path not in kept and stems[path] in taken]
    return [whole[path] if path in kept else stems[path] for path in paths]


def _range(entry: Entry) -> str:
    """What the id of a piece cut by a list has behind the recording's name; empty for a whole file."""
    if np.isnan(entry.start):
        return ""
    end = "" if np.isnan(entry.end) else f"{entry.end:g}"
    return f"#{entry.start:g}-{end}"


def _start(entry: Entry) -> float:
    return -1.0 if np.isnan(entry.start) else entry.start


def _place_name(place: str) -> str:
    return Path(os.path.abspath(place)).name


def _twice(ids: list[str]) -> str:
    seen: set[str] = set()
    return next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
