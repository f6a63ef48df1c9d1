"""Counter-based random numbers: each is a pure function of a seed and of what it is for.

They depend neither on what was drawn before nor on which thread asks, so samples are the same for any
number of loader threads and after a resume. The bits are those of SplitMix64 (Steele, Lea and Flood, 2014):
one round for each argument and one for the output. `tce.contrast.mining` has its own form for tensors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ORDER = -1  # the stream of `permutation`


def uniform(seed: int, epoch: int, samples: ArrayLike, stream: int, n: int) -> NDArray[np.float64]:
    """`n` numbers in [0, 1) for each sample.

    Args:
        seed: the run's seed.
        epoch: pass over the data.
        samples: sample numbers int64 [B].
        stream: what the numbers are for; different streams are independent.
        n: numbers a sample.

    Returns:
        float64 [B, n].
    """
    return (random_bits(seed, epoch, samples, stream, n) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The numbers 0 to n-1 in random order, int64 [n]."""
    keys = random_bits(seed, epoch, np.arange(n), _ORDER, 1)[:, 0]
    return np.argsort(keys, kind="stable").astype(np.int64)


def random_bits(seed: int, epoch: int, samples: ArrayLike, stream: int, n: int) -> NDArray[np.uint64]:
    """64 random bits for each sample and number, uint64 [B, n]; arguments as in `uniform`."""
    state = np.zeros(1, np.uint64)
    for part in (seed, epoch, stream):
        state = _splitmix64(state + np.array([part % 2**64], np.uint64))
    state = _splitmix64(state + np.asarray(samples, np.int64).astype(np.uint64))  # [B]
    return _splitmix64(state[:, None] + np.arange(n, dtype=np.uint64) * _GOLDEN)  # [B, n]


def _splitmix64(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's step and output function."""
    z = state + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
