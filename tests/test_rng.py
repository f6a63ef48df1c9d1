from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tce import rng
from tests.helpers.splitmix import MASK, slow_uniform, splitmix


def test_splitmix_is_the_published_one() -> None:
    # The reference outputs for seed 1234567.
    state, golden = 1234567, 0x9E3779B97F4A7C15
    first = [splitmix((state + i * golden) & MASK) for i in range(3)]
    assert first == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10_000),
    samples=st.lists(st.integers(0, 2**62), min_size=1, max_size=4),
    stream=st.integers(-1, 30),
)
def test_uniform_equals_the_slow_one(seed: int, epoch: int, samples: list[int], stream: int) -> None:
    drawn = rng.uniform(seed, epoch, samples, stream, 3)
    slow = [[slow_uniform(seed, epoch, sample, stream, place) for place in range(3)] for sample in samples]
    assert drawn.tolist() == slow
    assert drawn.shape == (len(samples), 3) and drawn.min() >= 0 and drawn.max() < 1


def test_uniform_is_uniform_and_independent() -> None:
    n = 100_000
    drawn = {
        "draws": rng.uniform(0, 0, np.arange(n), 0, 2),
        "streams": np.hstack([rng.uniform(0, 0, np.arange(n), stream, 1) for stream in (0, 1)]),
        "epochs": np.hstack([rng.uniform(0, epoch, np.arange(n), 0, 1) for epoch in (0, 1)]),
        "seeds": np.hstack([rng.uniform(seed, 0, np.arange(n), 0, 1) for seed in (0, 1)]),
        "samples": rng.uniform(0, 0, np.arange(n + 1), 0, 1)[np.arange(n)[:, None] + [0, 1], 0],
    }
    for name, pairs in drawn.items():
        # Counts in 16 x 16 cells: chi-squared with 255 degrees of freedom exceeds 350 once in 30,000.
        cells = np.histogram2d(*pairs.T, bins=16, range=[[0, 1], [0, 1]])[0]
        expected = n / cells.size
        assert ((cells - expected) ** 2 / expected).sum() < 350, name


def test_permutation() -> None:
    for n in (0, 1, 2, 1000):
        assert sorted(rng.permutation(1, 2, n)) == list(range(n))
    assert np.array_equal(rng.permutation(1, 2, 1000), rng.permutation(1, 2, 1000))
    assert not np.array_equal(rng.permutation(1, 2, 1000), rng.permutation(1, 3, 1000))
    first = [int(rng.permutation(0, epoch, 5)[0]) for epoch in range(2000)]
    assert np.bincount(first).min() > 320
