"""A small sample of the clips that a network has seen, to tell later whether others were among them.

Of all clips' hashes the smallest are kept (a bottom-k sketch, Cohen and Kaplan, 2007). Whatever other clips
are asked about, those whose hashes are as small must be in the sample if they were seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

KEPT = 128
DIGITS = 8


def clip_sketch(ids: Iterable[str]) -> str:
    """The sample of the clips of these names: hexadecimal digits, one kilobyte at most."""
    return "".join(sorted({_hash(name) for name in ids})[:KEPT])


def share_seen(ids: Iterable[str], seen: str) -> float:
    """Estimated share of clips that are among those of a sketch, exact where it holds all of them.

    Args:
        ids: the clips' names.
        seen: what `clip_sketch` gave for others.
    """
    kept = [seen[place : place + DIGITS] for place in range(0, len(seen), DIGITS)]
    bound = kept[-1] if len(kept) == KEPT else "g"  # above every hash: all of them are known
    asked = {digest for digest in map(_hash, ids) if digest <= bound}
    return len(asked & set(kept)) / len(asked) if asked else 0.0


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:DIGITS]
