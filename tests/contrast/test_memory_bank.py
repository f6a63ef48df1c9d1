"""The memory bank against plain loops."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from tce.contrast import KeyQueue, MemoryBank
from tce.contrast.memory_bank import last_occurrence, weighted_rows
from tce.errors import OptionError


def unit(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_rows_are_unit_and_reproducible() -> None:
    a = MemoryBank(40, 8, torch.Generator().manual_seed(3))
    b = MemoryBank(40, 8, torch.Generator().manual_seed(3))
    assert torch.equal(a.rows, b.rows)
    torch.testing.assert_close(a.rows.norm(dim=1), torch.ones(40))
    assert not list(a.parameters())


def test_similarity_is_the_cosine_of_every_pair() -> None:
    bank, v = MemoryBank(7, 5), unit(3, 5)
    found = bank.similarity(v)
    for b in range(3):
        for n in range(7):
            expected = sum(float(v[b, d]) * float(bank.rows[n, d]) for d in range(5))
            assert math.isclose(float(found[b, n]), expected, abs_tol=1e-6)


def test_similarity_stays_float32_under_autocast() -> None:
    bank, v = MemoryBank(7, 64), unit(3, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = bank.similarity(v)
    assert found.dtype == torch.float32
    assert torch.equal(found, bank.similarity(v))


def test_update_last_of_several_wins_and_is_normalised() -> None:
    bank, before = MemoryBank(6, 4), None
    before = bank.rows.clone()
    vectors = 3 * unit(5, 4, 1)
    bank.update(torch.tensor([2, 5, 2, 0, 2]), vectors)
    for row, source in ((2, 4), (5, 1), (0, 3)):
        torch.testing.assert_close(bank.rows[row], vectors[source] / 3)
    for row in (1, 3, 4):
        assert torch.equal(bank.rows[row], before[row])


def test_update_does_nothing_in_evaluation_mode_and_takes_no_gradient() -> None:
    bank = MemoryBank(4, 3).eval()
    before = bank.rows.clone()
    bank.update(torch.tensor([1]), unit(1, 3))
    assert torch.equal(bank.rows, before)
    bank.train()
    bank.update(torch.tensor([1]), unit(1, 3).requires_grad_())
    assert not bank.rows.requires_grad


def test_state_is_complete() -> None:
    bank = MemoryBank(9, 4)
    bank.negatives(unit(3, 4), torch.tensor([0, 1, 2]), 0.5, 3)  # leaves its working memory behind
    other = MemoryBank(9, 4)
    other.load_state_dict(bank.state_dict())
    assert list(bank.state_dict()) == ["rows"]
    assert torch.equal(other.rows, bank.rows)
    assert torch.equal(copy.deepcopy(bank).rows, bank.rows)


def test_refuses_what_makes_no_bank() -> None:
    with pytest.raises(OptionError):
        MemoryBank(1, 4)


@pytest.mark.parametrize("ids", [[1], [1, 1, 1], [3, 1, 3, 2, 1], [5, 4, 3]])
def test_last_occurrence(ids: list[int]) -> None:
    expected = sorted(len(ids) - 1 - ids[::-1].index(value) for value in set(ids))
    assert last_occurrence(torch.tensor(ids)).tolist() == expected


@pytest.mark.parametrize("size", [20, 500])  # the dense and the fetching way of the backward pass
def test_gradient_of_mined_cosines_is_that_of_the_plain_product(size: int) -> None:
    bank = MemoryBank(size, 6)
    v, instance_ids = unit(4, 6, 2), torch.tensor([0, 3, 3, 7])
    mine, plain = v.clone().requires_grad_(), v.clone().requires_grad_()
    mined = bank.negatives(mine, instance_ids, 0.3, 5, torch.Generator().manual_seed(0))
    weight = torch.linspace(-1, 2, 20).view(4, 5)
    (mined.cosine.sin() * weight).sum().backward()
    candidates = bank.rows[mined.ids]  # [B, k, D]
    cosine = (candidates * plain[:, None]).sum(dim=2)
    (cosine.sin() * weight).sum().backward()
    torch.testing.assert_close(mined.cosine.detach(), cosine.detach())
    torch.testing.assert_close(mine.grad, plain.grad)


def test_an_update_between_forward_and_backward_is_noticed() -> None:
    bank, v = MemoryBank(30, 6), unit(2, 6).requires_grad_()
    mined = bank.negatives(v, torch.tensor([1, 2]), 2.0, 3)
    bank.update(torch.tensor([1]), unit(1, 6))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        mined.cosine.sum().backward()


@pytest.mark.parametrize("size", [10, 300])
def test_weighted_rows_against_loops(size: int) -> None:
    rows, ids = unit(size, 3), torch.tensor([[1, 1, 9], [0, 2, 4]])
    weights = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, 3.0]])
    expected = torch.zeros(2, 3)
    for b in range(2):
        for j in range(3):
            expected[b] += weights[b, j] * rows[ids[b, j]]
    torch.testing.assert_close(weighted_rows(rows, ids, weights), expected)


MEMORY = """
import re, sys, torch
from tce.contrast import MemoryBank, NCELoss, topk

torch.set_num_threads(1)
B, N, K, D, WHOLE = map(int, sys.argv[1:])

def peak():  # getrusage would also count the parent before this program replaced it
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

def step(bank, loss, b):
    v = torch.nn.functional.normalize(torch.randn(b, D), dim=1).requires_grad_()
    mined = bank.negatives(v, torch.arange(b), 0.1, loss.k)
    loss((v * v).sum(dim=1), mined.cosine).backward()

step(MemoryBank(300, D), NCELoss(20, 300), 4)  # code is loaded
bank, loss = MemoryBank(2, D), NCELoss(K, N)
bank.rows = torch.empty(N, D).normal_()  # in place: nothing above what stays
bank.rows /= bank.rows.norm(dim=1, keepdim=True)
before = peak()
for topk.WHOLE in (0, WHOLE):
    for _ in range(2):
        step(bank, loss, B)
    print(peak() - before)
"""


def test_peak_memory_is_the_stated_formula() -> None:
    b, n, k, dim = 128, 150_000, 2048, 128
    arguments = [str(x) for x in (b, n, k, dim, 2**26)]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    in_blocks, whole = (int(line) for line in done.stdout.split())
    rest = 100 * b * k + 2**24
    assert 4 * 2**22 < in_blocks < 4 * 2**22 + rest
    assert 4 * b * n < whole < 4 * b * n + rest
    assert in_blocks < 4 * b * k * dim / 2  # half of one B x K x D array


def test_a_queue_keeps_the_latest_keys() -> None:
    """Against a list from which the oldest are dropped; a batch may be larger than the queue."""
    queue, expected = KeyQueue(5, 3), [(-1, None)] * 5
    for step, size in enumerate((2, 2, 3, 5, 7, 1)):
        ids, keys = torch.arange(10 * step, 10 * step + size), unit(size, 3, step)
        queue.update(ids, 2 * keys)
        expected = [*expected, *zip(ids.tolist(), keys, strict=True)][-5:]
        held = dict(zip(queue.ids.tolist(), queue.keys, strict=True))
        assert sorted(queue.ids.tolist()) == sorted(number for number, _ in expected)
        for number, key in expected:
            if key is not None:
                torch.testing.assert_close(held[number], key)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(5))
