"""A small sample of the clips that a network was trained on, to find out later whether it knows others.

The smallest hashes of the clips' names are kept (a bottom-k sketch, Cohen and Kaplan, 2007). Of other clips,
those with hashes as small as these must be in the sample if the network was trained on them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

KEPT = 128
DIGITS = 8


def clip_sketch(ids: Iterable[str]) -> str:
    """The sample of the clips of these names: hexadecimal digits, one kilobyte at most."""
    return "".join(sorted({_hash(name) for name in ids})[:KEPT])


def share_seen(ids: Iterable[str], sketch: str) -> float:
    """Estimated share of clips that are among those of a sketch, exact where it holds all of them.

    Args:
        ids: the clips' names.
        sketch: what `clip_sketch` returned for others.
    """
    kept = _hashes(sketch)
    bound = kept[-1] if len(kept) == KEPT else "g"  # above every hash: all of them are known
    asked = {digest for digest in map(_hash, ids) if digest <= bound}
    return len(asked & set(kept)) / len(asked) if asked else 0.0


def describe_sketch(sketch: str) -> str:
    """How many clips a sketch is of, "12" or "about 9,500"; "unknown" if it is none."""
    if not re.fullmatch(rf"(?:[0-9a-f]{{{DIGITS}}})*", sketch):
        return "unknown"
    kept = _hashes(sketch)
    if len(kept) != KEPT:
        return f"{len(kept):,}"
    # The k-th smallest of n uniform numbers in [0, 1) lies near k / n; (k - 1) makes the estimate unbiased.
    estimate = (KEPT - 1) * 16**DIGITS / max(int(kept[-1], 16), 1)
    return f"about {float(f'{estimate:.2g}'):,.0f}"


def _hashes(sketch: str) -> list[str]:
    return [sketch[place : place + DIGITS] for place in range(0, len(sketch), DIGITS)]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:DIGITS]
