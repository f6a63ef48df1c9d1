"""Mining against a slow oracle that shares no code with it."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tce.contrast import (
    MemoryBank,
    Mined,
    Sources,
    curriculum_threshold,
    mine,
    quantile_threshold,
)
from tce.contrast import mining as mining_module
from tce.contrast import topk as select_module
from tce.contrast.mining import nth_free, random_bits
from tce.contrast.topk import Product
from tce.errors import OptionError


def check(
    mined: Mined,
    similarity: np.ndarray,
    instance_ids: list[int],
    threshold: list[float],
    k: int,
    excluded_rows: list[set[int]],
) -> None:
    """Every anchor's negatives are what the paper says, by loops."""
    ids = mined.ids.tolist()
    assert mined.ids.shape == (len(instance_ids), k)
    for b, row in enumerate(similarity.tolist()):
        allowed = [n for n in range(len(row)) if n != instance_ids[b] and n not in excluded_rows[b]]
        below = sorted((row[n] for n in allowed if row[n] < threshold[b]), reverse=True)
        hard = min(k, len(below))
        assert int(mined.hard[b]) == hard
        first, rest = ids[b][:hard], ids[b][hard:]
        assert len(set(first)) == hard  # nothing twice
        assert set(first) <= set(allowed)
        assert sorted((row[n] for n in first), reverse=True) == below[:hard]
        free = set(allowed) - set(first)
        assert set(rest) <= (free or set(first))
        assert [float(x) for x in mined.cosine[b]] == [row[n] for n in ids[b]]


@st.composite
def cases(draw: st.DrawFn) -> dict:
    n, b = draw(st.integers(2, 24)), draw(st.integers(1, 6))
    levels = draw(st.sampled_from([2, 5, 1000]))  # few levels: many ties
    values = draw(st.lists(st.integers(-levels, levels), min_size=n * b, max_size=n * b))
    instance_ids = draw(st.lists(st.integers(0, n - 1), min_size=b, max_size=b))  # doubles in the batch, too
    ends = [-1.0, 1.0, 1.5, 0.0]
    threshold = draw(st.lists(st.sampled_from(ends) | st.floats(-1, 1, width=32), min_size=b, max_size=b))
    return {
        "similarity": torch.tensor(values, dtype=torch.float32).view(b, n) / levels,
        "own": torch.tensor(instance_ids),
        "threshold": torch.tensor(threshold),
        "k": draw(st.integers(1, n - 1)),
        "sources": torch.tensor(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))),
        "seed": draw(st.integers(0, 2**31)),
    }


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from(["pool", "top-k", "small lists"]))
def test_against_the_oracle(case: dict, strategy: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if strategy == "top-k":  # the way of a GPU
            patch.setattr(select_module, "best_by_pool", select_module.best_by_topk)
        if strategy == "small lists":
            patch.setattr(mining_module, "LIST_RATIO", 0)
            patch.setattr(mining_module, "SLOTS", 1)
        mined = mine(
            case["similarity"],
            case["own"],
            case["threshold"],
            case["k"],
            torch.Generator().manual_seed(case["seed"]),
        )
    b = len(case["own"])
    check(
        mined,
        case["similarity"].numpy(),
        case["own"].tolist(),
        case["threshold"].tolist(),
        case["k"],
        [set()] * b,
    )


@settings(max_examples=80, deadline=None)
@given(cases(), st.sampled_from(["sources", "mask"]))
def test_excluded_rows_against_the_oracle(case: dict, kind: str) -> None:
    sources, instance_ids = case["sources"].tolist(), case["own"].tolist()
    excluded_rows = [{n for n in range(len(sources)) if sources[n] == sources[o]} for o in instance_ids]
    mask = torch.tensor([[n in bars for n in range(len(sources))] for bars in excluded_rows])
    excluded = Sources(case["sources"]) if kind == "sources" else mask
    arguments = (case["similarity"], case["own"], case["threshold"], case["k"])
    if any(len(bars) == len(sources) for bars in excluded_rows):
        with pytest.raises(OptionError, match="exclude-same-source"):
            mine(*arguments, excluded=excluded)
        return
    mined = mine(*arguments, torch.Generator().manual_seed(case["seed"]), excluded)
    check(
        mined, case["similarity"].numpy(), instance_ids, case["threshold"].tolist(), case["k"], excluded_rows
    )


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(1, 30), st.booleans(), st.booleans())
def test_blocks_give_the_same_result(case: dict, block: int, whole: bool, topk: bool) -> None:
    """Vectors of few levels have exact cosines, so that both ways see the same numbers."""
    n, b = case["similarity"].shape[1], len(case["own"])
    generator = torch.Generator().manual_seed(case["seed"])
    rows = torch.randint(-2, 3, (n, 3), generator=generator).float()
    vectors = torch.randint(-2, 3, (b, 3), generator=generator).float()
    threshold = case["threshold"] * 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select_module, "WHOLE", 2**26 if whole else 0)
        patch.setattr(select_module, "BLOCK", {"cpu": 2 * n})
        if topk:
            patch.setattr(select_module, "best_by_pool", select_module.best_by_topk)
        product = Product(vectors, rows)
        every = Sources(torch.arange(n))
        mined = mine(product, case["own"], threshold, case["k"], generator, every, block=block)
    similarity = (vectors @ rows.T).numpy()
    check(mined, similarity, case["own"].tolist(), threshold.tolist(), case["k"], [set()] * b)


def test_blocks_draw_the_same_rows() -> None:
    bank, instance_ids = MemoryBank(200, 16, torch.Generator().manual_seed(1)), torch.arange(9)
    v = F.normalize(torch.randn(9, 16, generator=torch.Generator().manual_seed(2)), dim=1)
    for threshold in (-1.0, 0.0, 0.2, 1.0):
        whole = mine(v @ bank.rows.T, instance_ids, threshold, 90, torch.Generator().manual_seed(5)).ids
        for block in (7, 64, 500):
            draws = torch.Generator().manual_seed(5)
            ids = mine(Product(v, bank.rows), instance_ids, threshold, 90, draws, block=block).ids
            assert torch.equal(ids.sort().values, whole.sort().values)


@pytest.mark.parametrize("kind", ["normal", "misleading sample", "half is excluded", "ties"])
def test_a_large_bank_where_a_sample_gives_the_floor(kind: str) -> None:
    """The sample sets the time and never the result, even where it is made to mislead."""
    n, k, b = 20_000, 300, 5
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(b, n, generator=generator) - 0.5
    excluded = None
    stride = n // select_module.SAMPLE
    if kind == "misleading sample":
        similarity[:, ::stride] += 0.3
        similarity[:3, : 200 * stride : stride] += 0.1
    if kind == "half is excluded":
        excluded = torch.zeros(b, n, dtype=torch.bool)
        excluded[:, ::stride] = True
        similarity[:, ::stride] += 0.4
    if kind == "ties":
        similarity = (similarity * 8).round() / 8
    instance_ids, threshold = torch.arange(b), torch.tensor([0.9, 0.5, 0.3, 0.0, -0.49])
    mined = mine(similarity, instance_ids, threshold, k, generator, excluded)
    open_rows = similarity.double()
    open_rows[torch.arange(b), instance_ids] = math.nan
    if excluded is not None:
        open_rows[excluded] = math.nan
    for i in range(b):
        row = open_rows[i][open_rows[i] < threshold[i].item()].sort(descending=True).values[:k]
        hard = int(mined.hard[i])
        assert hard == len(row)
        assert mined.ids[i, :hard].unique().numel() == hard
        assert torch.equal(open_rows[i][mined.ids[i, :hard]].sort(descending=True).values, row)
        assert bool((open_rows[i][mined.ids[i, hard:]] >= threshold[i].item()).all())


def test_k_may_be_every_other_row_and_not_one_more() -> None:
    similarity, instance_ids = torch.rand(3, 6), torch.tensor([0, 5, 2])
    ids = mine(similarity, instance_ids, 2.0, 5).ids
    for b in range(3):
        assert set(ids[b].tolist()) == set(range(6)) - {int(instance_ids[b])}
    for k in (6, 0):
        with pytest.raises(OptionError, match="--negatives"):
            mine(similarity, instance_ids, 2.0, k)


def test_random_rows_are_uniform_over_what_is_free() -> None:
    n, b, k = 40, 400, 30
    similarity = torch.linspace(0, 1, n).repeat(b, 1)  # rows 0..9 lie below 0.25
    instance_ids = torch.full((b,), 20)
    for ratio in (0, 100):  # by binary search and by list
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mining_module, "LIST_RATIO", ratio)
            mined = mine(similarity, instance_ids, 0.25, k, torch.Generator().manual_seed(0))
        assert bool((mined.hard == 10).all())
        counts = Counter(mined.ids[:, 10:].flatten().tolist())
        assert set(counts) == set(range(10, n)) - {20}
        expected = b * 20 / 29
        chi_square = sum((counts[row] - expected) ** 2 / expected for row in counts)
        assert chi_square < 58.3  # 28 degrees of freedom, p = 0.0007


def test_draws_do_not_depend_on_how_the_batch_is_divided() -> None:
    similarity = torch.rand(8, 50, generator=torch.Generator().manual_seed(0))
    instance_ids = torch.arange(8)
    whole = mine(similarity, instance_ids, 0.2, 30, torch.Generator().manual_seed(7))
    for parts in (2, 4):
        size = 8 // parts
        for rank in range(parts):
            part = slice(rank * size, (rank + 1) * size)
            generator = torch.Generator().manual_seed(7)
            mined = mine(similarity[part], instance_ids[part], 0.2, 30, generator, first_anchor=rank * size)
            assert torch.equal(mined.ids.sort().values, whole.ids[part].sort().values)


def test_the_generator_moves_by_one_draw_whatever_is_mined() -> None:
    similarity, states = torch.rand(8, 50), set()
    for threshold, batch in ((-1.0, 8), (0.5, 3), (2.0, 8)):
        generator = torch.Generator().manual_seed(1)
        mine(similarity[:batch], torch.arange(batch), threshold, 9, generator)
        states.add(generator.get_state().numpy().tobytes())
    assert len(states) == 1


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.data())
def test_nth_free_against_counting(size: int, data: st.DataObject) -> None:
    taken = data.draw(st.sets(st.integers(0, size - 1), max_size=size - 1))
    padded = data.draw(st.permutations([*taken, size, size]))
    free = [n for n in range(size) if n not in taken]
    wanted = data.draw(st.lists(st.integers(0, len(free) - 1), min_size=1, max_size=9))
    for ratio in (0, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mining_module, "LIST_RATIO", ratio)
            found = nth_free(torch.tensor([padded]), torch.tensor([wanted]), size)
        assert found[0].tolist() == [free[n] for n in wanted]


def test_random_bits_are_the_top_of_splitmix64() -> None:
    mask = 2**64 - 1
    for counter, seed in ((0, 0), (1, 5), (123_456_789, 2**61 + 17), (8191, 2**62 - 1)):
        x = (counter * 0x9E3779B97F4A7C15 + seed) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        x ^= x >> 31
        assert int(random_bits(torch.tensor([counter]), seed)) == x >> 33


def test_threshold_rises_from_low_to_high() -> None:
    assert curriculum_threshold(0.0) == -1.0
    assert curriculum_threshold(0.0, 0.2, 0.9, 3.0) == pytest.approx(0.2)
    assert curriculum_threshold(0.5) == pytest.approx(-1 + 2 * (1 - math.exp(-2.5)))
    assert curriculum_threshold(1.0, -0.5, 0.5, 2.0) == pytest.approx(0.5 - math.exp(-2.0))
    levels = [curriculum_threshold(t / 10) for t in range(11)]
    assert levels == sorted(levels)


def test_quantile_threshold_splits_each_anchors_rows() -> None:
    similarity = torch.stack([torch.linspace(-1, 1, 1001), torch.linspace(0.7, 0.8, 1001)])
    for share in (0.0, 0.25, 0.5, 0.999):
        threshold = quantile_threshold(similarity, share)
        below = (similarity < threshold[:, None]).double().mean(dim=1)
        torch.testing.assert_close(below, torch.full((2,), share, dtype=torch.float64), atol=1.5e-3, rtol=0)
    assert bool((quantile_threshold(similarity, 1.0) > similarity.max()).all())


@pytest.mark.parametrize("rows", [16, 61, 256])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.5, 1.0])
def test_quantile_threshold_lies_between_two_rows(rows: int, share: float) -> None:
    """Also where share (n - 1) is whole: a row at the threshold would be mined on one processor only."""
    similarity = torch.stack([torch.linspace(low, 0.8, rows) for low in (-1.0, 0.7)])
    threshold = quantile_threshold(similarity, share)
    assert (similarity < threshold[:, None]).sum(dim=1).tolist() == [round(share * rows)] * 2
    assert bool(((similarity - threshold[:, None]).abs() > 1e-6).all())


def test_quantile_zero_mines_nothing_and_one_everything() -> None:
    similarity = torch.rand(3, 20, generator=torch.Generator().manual_seed(0))
    for share, hard in ((0.0, 0), (0.4, 8), (1.0, 19)):
        instance_ids = similarity.argmax(dim=1)  # above the threshold unless everything passes
        mined = mine(similarity, instance_ids, quantile_threshold(similarity, share), 19)
        assert mined.hard.tolist() == [hard] * 3


def test_quantile_threshold_of_a_large_bank_is_close() -> None:
    similarity = torch.rand(2, 50_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(quantile_threshold(similarity, 0.3), torch.full((2,), 0.3), atol=0.02, rtol=0)


def test_the_bank_gives_the_quantile_of_its_cosines() -> None:
    bank = MemoryBank(9000, 8)
    v = F.normalize(torch.randn(3, 8), dim=1)
    torch.testing.assert_close(bank.quantile(v, 0.4), quantile_threshold(bank.similarity(v), 0.4))


def test_half_precision_similarities_are_taken() -> None:
    similarity = torch.rand(3, 20).bfloat16()
    ids = mine(similarity, torch.arange(3), 2.0, 4).ids
    for b in range(3):
        others = [float(similarity[b, n]) for n in range(20) if n != b]
        found = sorted((float(similarity[b, n]) for n in ids[b]), reverse=True)
        assert found == sorted(others, reverse=True)[:4]


def test_nan_is_never_mined() -> None:
    similarity = torch.tensor([[0.1, math.nan, 0.3, 0.2, 0.0]])
    mined = mine(similarity, torch.tensor([0]), 2.0, 3)
    assert sorted(mined.ids[0].tolist()) == [2, 3, 4]
