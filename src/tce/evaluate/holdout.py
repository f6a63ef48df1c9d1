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

    A class whose recordings are too few for that (each more than twice the share, and more than a third of
    the class) gives the last clips of each recording instead, which follow the others in time; one with a
    single clip gives none. Every class stays in training.

    Args:
        labels: [N] class of each clip.
        recordings: [N] the recording each clip is a piece of; clips of one recording stand in time order.
        share: of the clips, between 0 and 1.
        seed: of the choice.

    Returns:
        [N], True where held out; and how it was done: "recordings", "pieces", "recordings and pieces" or
        "none".
    """
    names = np.asarray(recordings)
    held = np.zeros(len(labels), bool)
    ways = set()
    for label in np.unique(labels):
        clips = np.flatnonzero(labels == label)
        if len(clips) < 2:
            continue
        rng = np.random.default_rng([seed, int(label)])
        chosen = _whole_recordings(clips, names[clips], share, rng)
        ways.add("recordings" if len(chosen) else "pieces")
        held[chosen if len(chosen) else _last_pieces(clips, names[clips], share)] = True
    return held, " and ".join(sorted(ways, reverse=True)) or "none"


def _whole_recordings(
    clips: Ints, names: npt.NDArray[np.str_], share: float, rng: np.random.Generator
) -> Ints:
    """Clips of whole recordings, about `share` of a class's clips; none where each recording is large."""
    recordings, sizes = np.unique(names, return_counts=True)
    wanted, most = share * len(clips), max(2 * share, 1 / 3) * len(clips)
    fitting = rng.permutation(recordings[(sizes <= most) & (sizes < len(clips))])
    chosen = np.zeros(len(clips), bool)
    for recording in fitting:
        members = names == recording
        # Take it where that comes nearer to the wanted number; the first one is taken anyhow.
        if chosen.any() and chosen.sum() + members.sum() / 2 > wanted:
            break
        chosen |= members
    return clips[chosen]


def _last_pieces(clips: Ints, names: npt.NDArray[np.str_], share: float) -> Ints:
    """The last `share` of each recording's clips, at least one in all."""
    taken: list[Ints] = []
    for recording in np.unique(names):
        members = clips[names == recording]
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
