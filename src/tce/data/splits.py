"""Training and test clips of a split, by the lists or held out; few labels; and groups that a user names.

Groups (a person, a camera, a session) are never guessed for their means: folders named by class would lose
their classes with them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tce.data.collection import is_collection, read_options
from tce.data.frame_store import FrameStore
from tce.data.open_data import find_data
from tce.errors import OptionError, TceError
from tce.options.checks import labels_amount

if TYPE_CHECKING:
    from tce.data.read_catalog import Catalog

log = logging.getLogger("tce.evaluation")

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TEST_SHARE = 0.3
COLUMNS = ("group", "recording", "folder")  # that name groups


@dataclass
class SplitClips:
    """A split of a dataset.

    Attributes:
        store: all clips.
        split: its name; "held-out" where the data has no splits.
        train: rows of the labelled training clips, rising.
        test: rows of the test clips, rising.
        missing: listed clips that have no video.
    """

    store: FrameStore
    split: str
    train: Ints
    test: Ints
    missing: list[str]

    @property
    def classes(self) -> list[str]:
        """The classes' names in the order of their numbers."""
        return self.store.catalog.classes

    @property
    def labels(self) -> Ints:
        """Class of every clip of the store, -1 where unknown."""
        return self.store.catalog.labels

    @property
    def recordings(self) -> npt.NDArray[np.object_]:
        """The recording of every clip of the store."""
        return self.store.catalog.sources

    @property
    def groups(self) -> npt.NDArray[np.object_]:
        """What must not be shared between training and test, of every clip of the store."""
        return self.store.catalog.groups

    @property
    def digest(self) -> str:
        """Hash of which clips train and test, and of their classes: lists may change under one name."""
        catalog = self.store.catalog
        ids, classes = catalog.ids, np.array([*self.classes, ""], object)  # -1 names no class
        sides = [
            [ids[rows].tolist(), classes[self.labels[rows]].tolist()] for rows in (self.train, self.test)
        ]
        return hashlib.sha256(json.dumps(sides).encode()).hexdigest()[:16]

    @property
    def missing_share(self) -> float:
        """Share of the listed clips that have no video."""
        return len(self.missing) / max(self.store.catalog.listed, 1)


def open_split(
    data: str,
    cache: Path,
    lists: str | None,
    split: str,
    max_missing: float,
    need_train: bool = True,
    unlabelled: bool = False,
    check: Callable[[Catalog], None] = lambda catalog: None,
) -> SplitClips:
    """Open a dataset's split; without any splits, hold 30% of each class's clips out as the test clips.

    Those are whole groups (people, recordings), the same ones whatever the seed of a run, so that no run is
    tested on what another one trained on.

    Args:
        data: videos, frame folders or a collection.
        cache: where videos are packed first, if that is needed.
        lists: folder of the dataset's lists.
        split: which split.
        max_missing: largest share of listed clips that may lack a video.
        need_train: training clips are needed too.
        unlabelled: clips without any classes will do; all of them are test clips then.
        check: looks at the clips before any are packed, and may raise.

    Raises:
        OptionError: a collection packed with another split, and no lists to read this one from.
        TceError: nothing to read, no test clips (or training clips, where needed), or too many missing.
    """
    require_split(data, lists, split)
    found = find_data(data, lists, split)
    _require_videos(found.catalog, data, max_missing)
    check(found.catalog)  # before anything is packed
    store = found.open(cache)
    catalog = store.catalog
    if unlabelled and not (catalog.labels >= 0).any():
        return SplitClips(store, "none", np.empty(0, np.int64), np.arange(len(store)), [])
    splits, labelled = catalog.splits, catalog.labels >= 0
    train, test = splits == "train", splits == "test"
    if not (test & labelled).any() and (splits == "val").any():  # Kinetics' tests have no labels
        test = splits == "val"
    if lists is None and not test.any():
        split = "held-out"
        train, test = _held_out(catalog.labels, catalog.groups)
    clips = SplitClips(
        store,
        split,
        np.flatnonzero(train & labelled),
        np.flatnonzero(test & labelled),
        list(catalog.missing),
    )
    _require_clips(clips, data, lists, need_train)
    _note_classes(clips)
    return clips


def require_splits(data: str, lists: str | None, splits: Sequence[str]) -> None:
    """Check the same for several splits, which need lists.

    Raises:
        OptionError: several splits without lists, or one that the data do not hold.
    """
    if len(splits) > 1 and lists is None:
        expected = "one split, as there are no lists"
        raise OptionError(f"--split {','.join(splits)}", expected, str(len(splits)), "give --lists")
    for split in splits:
        require_split(data, lists, split)


def require_split(data: str, lists: str | None, split: str) -> None:
    """Check that, where no lists are given, the data hold the split that is asked for.

    Args:
        data: videos, frame folders or a collection.
        lists: folder of the dataset's lists; with them, any split can be read.
        split: the split asked for.

    Raises:
        OptionError: the collection was packed with another split of its lists, or there are no lists at all,
            and so one split at most.
    """
    if lists is not None:
        return
    additions = read_options(data).get("additions", ()) if is_collection(data) else ()
    packed = sorted({addition["split"] for addition in additions if addition["lists"] is not None})
    if packed and split.lstrip("0") not in [name.lstrip("0") for name in packed]:
        raise OptionError(
            f"--split {split}",
            expected=f"split {' or '.join(packed)}, with which {data} was packed",
            found="no --lists",
            fix="give --lists as well",
        )
    if not packed and split.lstrip("0") != "1":
        raise OptionError(
            f"--split {split}",
            expected="lists that number their splits",
            found="no --lists",
            fix="give --lists, or leave --split out",
        )


def _held_out(labels: Ints, groups: npt.NDArray[np.object_]) -> tuple[np.ndarray, np.ndarray]:
    labelled = np.flatnonzero(labels >= 0)
    held, strategy = hold_out(labels[labelled], groups[labelled].tolist(), TEST_SHARE)
    if len(labelled):
        log.info("no lists: %.0f%% of each class are test clips (%s)", 100 * TEST_SHARE, strategy)
    test = np.zeros(len(labels), bool)
    test[labelled[held]] = True
    return ~test, test


def _require_clips(clips: SplitClips, data: str, lists: str | None, need_train: bool) -> None:
    if len(clips.test) and (len(clips.train) or not need_train):
        return
    if lists is None and not (clips.labels >= 0).any():
        raise TceError(
            data,
            expected="clips with classes",
            found=f"{len(clips.store)} clips without",
            fix="give --lists, or put the clips of each class in a folder of its name",
        )
    found = f"{len(clips.train)} training clips, {len(clips.test)} test clips"
    raise TceError(
        f"split {clips.split} of {data}",
        expected="labelled training and test clips",
        found=found + (f", {len(clips.missing)} listed clips without a video" if clips.missing else ""),
        fix="check --data, --lists and --split: the lists' paths are compared with the videos'",
    )


def _require_videos(catalog: Catalog, data: str, most: float) -> None:
    share = len(catalog.missing) / max(catalog.listed, 1)
    if share > most:
        raise TceError(
            f"{data} lacks {len(catalog.missing)} of the clips in the lists ({share:.1%})",
            expected=f"at most {most:.1%}",
            found=f"no {catalog.missing[0]}, for one",
            fix="add the missing videos, or allow it with --max-missing",
        )


def _note_classes(clips: SplitClips) -> None:
    if len(clips.train) == 0:
        return
    unseen = np.setdiff1d(clips.labels[clips.test], clips.labels[clips.train])
    if len(unseen):
        names = ", ".join(clips.classes[label] for label in unseen[:3])
        log.warning("%d classes of the test clips have no training clips: %s", len(unseen), names)


def hold_out(labels: Ints, groups: Sequence[str], share: float, seed: int = 0) -> tuple[Bools, str]:
    """Choose clips to hold out: whole groups, up to about `share` of every class's clips.

    A group (a person, a recording) that is chosen for one class is held out with all its clips, of other
    classes too. A class whose groups are too few for that (each more than twice the share, and more than a
    third of the class) gives the last clips of each group instead, which follow the others in time; one with
    a single clip gives none. Every class stays in training.

    Args:
        labels: [N] class of each clip.
        groups: [N] the group of each clip; clips of one group stand in time order.
        share: of the clips, between 0 and 1.
        seed: of the choice.

    Returns:
        [N], True where held out; and how it was done: "groups", "pieces", "groups and pieces" or "none".
    """
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    members = np.split(np.argsort(number, kind="stable"), np.bincount(number, minlength=len(names)).cumsum())
    kinds, kind = np.unique(labels, return_inverse=True)
    left = np.bincount(kind)  # clips of each class that are not held out
    held = np.zeros(len(labels), bool)
    strategies = set()
    for place in np.flatnonzero(left > 1):
        clips = np.flatnonzero(kind == place)
        wanted, count = share * len(clips), int(held[clips].sum())
        rng = np.random.default_rng([seed, int(kinds[place])])
        # What other classes' groups hold is enough from half the wanted number on: it must not add up.
        for group in _fitting_groups(number[clips], share, rng) if 2 * count < wanted else ():
            fresh = members[group][~held[members[group]]]
            lost = np.bincount(kind[fresh], minlength=len(kinds))
            # Take it where that comes nearer to the wanted number; the first one is taken anyhow.
            if count and count + lost[place] / 2 > wanted:
                break
            if (left[lost > 0] > lost[lost > 0]).all():
                held[fresh] = True
                left -= lost
                count += int(lost[place])
        strategies.add("groups" if count else "pieces")
        if not count:
            pieces = _last_pieces(clips, number[clips], share)
            held[pieces] = True
            left[place] -= len(pieces)
    return held, " and ".join(sorted(strategies)) or "none"


def _fitting_groups(number: Ints, share: float, rng: np.random.Generator) -> Ints:
    """Groups of a class in random order, without those that are a large part of it."""
    groups, sizes = np.unique(number, return_counts=True)
    most = max(2 * share, 1 / 3) * len(number)
    return rng.permutation(groups[(sizes <= most) & (sizes < len(number))])


def _last_pieces(clips: Ints, number: Ints, share: float) -> Ints:
    """The last `share` of each group's clips, at least one in all."""
    taken: list[Ints] = []
    for group in np.unique(number):
        members = clips[number == group]
        count = round(share * len(members))
        taken.append(members[len(members) - count :])
    found = np.concatenate(taken)
    return found if len(found) else clips[-1:]


def label_subset(labels: Ints, amount: str, seed: int = 0) -> Bools:
    """Choose which clips keep their labels; at least one of every class, the same ones for the same seed.

    A larger amount with the same seed keeps every clip that a smaller one keeps.

    Args:
        labels: [N] class of each clip.
        amount: "10%" of each class, or "5/class".
        seed: of the choice.

    Returns:
        [N], True where the label is kept.

    Raises:
        OptionError: an amount in another form, or not above 0.
    """
    share, count = labels_amount(amount)
    kept = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        clips = np.flatnonzero(labels == label)
        order = np.random.default_rng([seed, int(label)]).permutation(clips)
        kept[order[: count or max(1, round(share * len(clips)))]] = True
    return kept


def group_names(catalog: Catalog, by: str, flag: str = "--group", several: bool = True) -> list[str]:
    """The group of every clip.

    Args:
        catalog: the clips.
        by: "group" (the column of lists and tables), "recording", "folder" (the folder that holds the clip),
            or a regular expression with one group in parentheses, searched in the clip's id.
        flag: the option, for messages.
        several: groups must be of several clips, or nothing would be left of their means.

    Raises:
        OptionError: neither a column nor such a pattern.
        TceError: the pattern is not in a clip's id, or every clip is a group of its own.
    """
    if by == "group":
        names = [str(name) for name in catalog.groups]
    elif by == "recording":
        names = [str(name) for name in catalog.sources]
    elif by == "folder":
        names = [os.path.dirname(path) for path in catalog.paths]
    else:
        names = matched(catalog.ids.tolist(), by, flag)
    if several and len(names) > 1 and len(set(names)) == len(names):
        raise TceError(
            f"{flag} {by}",
            expected="groups of several clips",
            found=f"{len(names)} clips, each a group of its own",
            fix="name another column, or a pattern",
        )
    return names


def matched(ids: Sequence[str], pattern: str, flag: str = "--group") -> list[str]:
    """What a pattern's one group in parentheses finds in each id.

    Raises:
        OptionError: the pattern is none, or has not one group.
        TceError: it is not found in an id.
    """
    expected = f"{', '.join(COLUMNS)}, or a pattern with one group in parentheses"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise OptionError(flag, expected=expected, found=f"{pattern!r}: {error}") from error
    if compiled.groups != 1:
        raise OptionError(flag, expected=expected, found=repr(pattern))
    names = []
    for name in ids:
        match = compiled.search(name)
        if match is None or match[1] is None:
            raise TceError(
                f"{flag} {pattern}", expected="a match in the id of every clip", found=f"none in {name!r}"
            )
        names.append(match[1])
    return names


def subtract_group_means(
    rows: npt.NDArray[np.floating], groups: Sequence[str] | npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Rows [N, D] less the mean of the rows of the same group."""
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    rows = np.asarray(rows, np.float64)
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, number, rows)
    return rows - (sums / np.bincount(number)[:, None])[number]
