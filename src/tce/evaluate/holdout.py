"""Clips held out for choosing a checkpoint or a strength, and clips kept when labels are scarce.

Clips of one recording are near-copies, so what is held out are whole recordings. Everything is a pure
function of the seed and the clips.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tce.errors import OptionError

log = logging.getLogger("tce.evaluate")

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def hold_out(labels: Ints, recordings: Sequence[str], share: float, seed: int = 0) -> tuple[Bools, str]:
    """Choose clips to hold out: of every class, whole recordings up to about `share` of its clips.

    A class with a single recording gives the last `share` of its clips instead (they follow the others in
    time), and one with a single clip gives none: every class stays in training.

    Args:
        labels: [N] class of each clip.
        recordings: [N] the recording each clip is a piece of; clips of one recording stand in time order.
        share: of the clips, between 0 and 1.
        seed: of the choice.

    Returns:
        [N], True where held out; and how it was done: "recordings", "pieces" or "recordings and pieces".
    """
    names = np.asarray(recordings)
    held = np.zeros(len(labels), bool)
    ways = set()
    for label in np.unique(labels):
        clips = np.flatnonzero(labels == label)
        groups = np.unique(names[clips])
        wanted = share * len(clips)
        if len(groups) > 1:
            order = np.random.default_rng([seed, int(label)]).permutation(groups)
            for group in order[:-1]:  # the last one always stays in training
                members = clips[names[clips] == group]
                # Take it where that comes nearer to the wanted number; at least one is taken.
                if held[clips].sum() and held[clips].sum() + len(members) / 2 > wanted:
                    break
                held[members] = True
            ways.add("recordings")
        elif len(clips) > 1:
            held[clips[-max(1, round(wanted)) :]] = True
            ways.add("pieces")
    return held, " and ".join(sorted(ways, reverse=True)) or "none"


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
    share, count = _amount(amount)
    kept = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        clips = np.flatnonzero(labels == label)
        order = np.random.default_rng([seed, int(label)]).permutation(clips)
        kept[order[: count or max(1, round(share * len(clips)))]] = True
    return kept


def _amount(text: str) -> tuple[float, int]:
    """Share and count of `10%` or `5/class`; the one that is not given is 0."""
    number, sign, rest = text.partition("%") if text.endswith("%") else text.partition("/class")
    try:
        value = float(number) if sign == "%" else int(number)
        good = bool(sign) and not rest and (0 < value <= 100 if sign == "%" else value > 0)
    except ValueError:
        good = False
    if not good:
        raise OptionError(
            "--labels", expected="a share such as 10% or a number such as 5/class", found=repr(text)
        )
    return (value / 100, 0) if sign == "%" else (0.0, int(value))
