"""`tce.rng` in Python's own integers."""

from __future__ import annotations

MASK = 2**64 - 1


def splitmix(state: int) -> int:
    """SplitMix64's next output, in Python's own integers."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def slow_uniform(seed: int, epoch: int, sample: int, stream: int, place: int) -> float:
    state = 0
    for part in (seed, epoch, stream, sample):
        state = splitmix((state + part) & MASK)
    return (splitmix((state + place * 0x9E3779B97F4A7C15) & MASK) >> 11) / 2**53
