"""From differences on the same clips to a verdict in words, by rules that the report states.

The rules look at one figure: accuracy of the nearest neighbours where there are labels, else the share of
frames that find their own clip. What counts are recordings, not clips: pieces of one resemble each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tce.evaluation.metrics import Interval, bootstrap_interval

Values = npt.NDArray[np.float64]
Decision = Literal["better", "worse", "none", "too little", "collapsed"]

LEAST_RECORDINGS = 10  # fewer do not give an interval that can be relied on
LEAST_RANK = 0.25  # of the start's effective rank: below it a network has collapsed
LEAST_DISTANCE = 0.02  # mean cosine distance of different recordings: below it everything is alike
CEILING = 0.95  # share of frames that find their clip with the start; above it nothing can be told
KEEP = "keep the start"

RULES = (
    f"Fewer than {LEAST_RECORDINGS} recordings: too little footage to tell.",
    f"Effective rank below {LEAST_RANK:.0%} of the start's, or recordings less than {LEAST_DISTANCE:g} apart "
    "(cosine distance): collapsed; keep the start.",
    f"Without labels, and the start above {CEILING:.0%}: hardly room to be better; keep the start.",
    "The 95% interval of the difference to the start, on the same clips, lies above 0: better; use it.",
    "It lies below 0: worse; keep the start.",
    "It holds 0: no difference seen; keep the start.",
)


@dataclass(frozen=True)
class Difference:
    """A network less the start, on the same clips.

    Attributes:
        start: the start's mean.
        other: the network's.
        interval: 95%, of the difference, over recordings; None with fewer than two.
        better: recordings in which the network's mean is higher.
        worse: in which it is lower.
        recordings: how many there are.
        each: recording -> difference of its means.
    """

    start: float
    other: float
    interval: Interval | None
    better: int
    worse: int
    recordings: int
    each: dict[str, float]

    @property
    def gain(self) -> float:
        """The difference of the means."""
        return self.other - self.start


def difference(start: Values, other: Values, recordings: Sequence[str], seed: int) -> Difference | None:
    """Compare two networks clip by clip; clips that lack a value in either are left out.

    Args:
        start: [n].
        other: [n].
        recordings: [n].
        seed: of the bootstrap.

    Returns:
        None where no clip has both values.
    """
    known = np.isfinite(start) & np.isfinite(other)
    if not known.any():
        return None
    names = np.asarray(recordings, str)[known]
    change = (other - start)[known]
    kinds, number = np.unique(names, return_inverse=True)
    means = np.bincount(number, change) / np.bincount(number)
    rounded = np.round(means, 9)
    return Difference(
        float(start[known].mean()),
        float(other[known].mean()),
        bootstrap_interval(change, names, seed=seed),
        int((rounded > 0).sum()),
        int((rounded < 0).sum()),
        len(kinds),
        dict(zip(map(str, kinds), map(float, means))),
    )


@dataclass(frozen=True)
class Verdict:
    """What the rules say of one network.

    Attributes:
        decision: which rule applied.
        text: the verdict in words, without the network's name.
        advice: what to do.
    """

    decision: Decision
    text: str
    advice: str


def collapse(
    rank: float | None, start_rank: float | None, across: float | None, start_across: float | None
) -> str:
    """Why a network counts as collapsed beside its start, in words; empty where it does not."""
    if rank is not None and start_rank is not None and rank < LEAST_RANK * start_rank:
        return f"its effective rank is {rank:.1f}, the start's {start_rank:.1f}"
    apart = start_across is None or start_across >= LEAST_DISTANCE
    if across is not None and across < LEAST_DISTANCE and apart:
        return f"different recordings are only {across:.3f} apart"
    return ""


def verdict(found: Difference | None, recordings: int, collapsed: str = "", labelled: bool = True) -> Verdict:
    """Apply the rules.

    Args:
        found: the difference to the start; None where it could not be measured.
        recordings: of the footage, for the words.
        collapsed: of `collapse`.
        labelled: the figure is one with labels.
    """
    count = recordings if found is None else found.recordings
    words = f"{count} recording{'s' * (count != 1)}"
    if found is None or count < LEAST_RECORDINGS or found.interval is None:
        return Verdict("too little", f"too little footage to tell: {words}", KEEP)
    points = difference_words(found)
    if collapsed:
        return Verdict("collapsed", f"collapsed: {collapsed}", KEEP)
    low, high = found.interval
    if not labelled and found.start > CEILING and high >= 0:
        text = f"hardly room to be better: {found.start:.1%} of the frames find their own clip with the start"
        return Verdict("none", f"{text}, {points}", KEEP)
    if low > 0:
        text = f"better on {found.better} of {words}, {points}"
        return Verdict("better", text, "use it")
    if high < 0:
        text = f"worse on {found.worse} of {words}, {points}"
        return Verdict("worse", text, KEEP)
    words = f"no difference seen: {points}, better on {found.better} and worse on {found.worse} of {words}"
    return Verdict("none", words, KEEP)


def difference_words(found: Difference) -> str:
    """The gain in points and its interval, as in "+12 points [8, 16]"."""
    text = f"{_points(found.gain)} points"
    if found.interval is None:
        return text
    low, high = found.interval
    return f"{text} [{_points(low, sign=False)}, {_points(high, sign=False)}]"


def _points(share: float, sign: bool = True) -> str:
    """A share as points: whole above 10, one decimal below."""
    value = 100 * share
    digits = 0 if abs(value) >= 9.95 else 1
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    zero = {"-0.0": "0.0", "+0.0": "0.0", "-0": "0"}
    return zero.get(text, text)
