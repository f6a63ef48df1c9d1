"""Clips held out for choosing a checkpoint or a strength, and clips kept when labels are scarce.

Clips of one recording are near-copies and a person is known again, so what is held out are whole groups.
Everything is a pure function of the seed and the clips.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tce.options.checks import labels_amount

log = logging.getLogger("tce.evaluation")

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


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
    ways = set()
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
        ways.add("groups" if count else "pieces")
        if not count:
            pieces = _last_pieces(clips, number[clips], share)
            held[pieces] = True
            left[place] -= len(pieces)
    return held, " and ".join(sorted(ways)) or "none"


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


def scarce_labels(labels: Ints, amount: str, seed: int = 0) -> Bools:
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
