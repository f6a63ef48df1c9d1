"""The losses against loops in double precision, closed forms and an independent implementation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tce.contrast import InfoNCE, NCELoss, NTXent, alignment, effective_rank, uniformity


def unit(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def nce_by_loops(
    positive: list[float], negative: list[list[float]], z: float, k: int, size: int, temperature: float
) -> list[float]:
    losses = []
    for p, row in zip(positive, negative, strict=True):
        chance = math.exp(p / temperature) / z
        loss = -math.log(chance / (chance + k / size))
        for n in row:
            chance = math.exp(n / temperature) / z
            loss -= math.log((k / size) / (chance + k / size))
        losses.append(loss)
    return losses


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.floats(0.05, 1.0), st.floats(1.0, 1e6), st.integers(0, 999))
def test_nce_against_loops(batch: int, k: int, temperature: float, z: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    positive = 2 * torch.rand(batch, generator=generator) - 1
    negative = 2 * torch.rand(batch, k, generator=generator) - 1
    loss = NCELoss(k, 50, temperature)
    loss.Z.fill_(z)
    expected = nce_by_loops(positive.tolist(), negative.tolist(), float(loss.Z), k, 50, temperature)
    torch.testing.assert_close(
        loss(positive, negative), torch.tensor(sum(expected) / batch), rtol=2e-4, atol=1e-5
    )


def test_nce_gradient_against_differences() -> None:
    positive, negative = torch.tensor([0.3, -0.2]), torch.tensor([[0.1, 0.5], [0.9, -0.7]])
    loss = NCELoss(2, 10, 0.2)
    loss.Z.fill_(30.0)
    p, n = positive.clone().requires_grad_(), negative.clone().requires_grad_()
    loss(p, n).backward()

    def value(p: torch.Tensor, n: torch.Tensor) -> float:
        return sum(nce_by_loops(p.tolist(), n.tolist(), 30.0, 2, 10, 0.2)) / 2

    step = 1e-5
    for i in range(2):
        up, down = positive.double(), positive.double()
        up[i] += step
        down[i] -= step
        slope = (value(up, negative.double()) - value(down, negative.double())) / (2 * step)
        assert float(p.grad[i]) == pytest.approx(slope, rel=1e-3)
        for j in range(2):
            up, down = negative.double(), negative.double()
            up[i, j] += step
            down[i, j] -= step
            slope = (value(positive.double(), up) - value(positive.double(), down)) / (2 * step)
            assert float(n.grad[i, j]) == pytest.approx(slope, rel=1e-3)


def test_nce_closed_form_where_every_cosine_is_the_same() -> None:
    """All P equal 1 / N then, so the loss is log(1 + k) + k log(1 + 1 / k)."""
    k, size = 7, 100
    loss = NCELoss(k, size, 0.07)
    value = loss(torch.full((3,), 0.4), torch.full((3, k), 0.4))
    assert float(loss.Z) == pytest.approx(size * math.exp(0.4 / 0.07), rel=1e-5)
    assert float(value) == pytest.approx(math.log(1 + k) + k * math.log(1 + 1 / k), rel=1e-5)


def test_nce_holds_a_constant_beyond_float32() -> None:
    loss = NCELoss(3, 9, temperature=0.005)  # exp(1 / T) is 7e86
    positive, negative = torch.tensor([1.0, 0.9]), torch.tensor([[1.0, 0.9, -1.0], [0.5, 0.2, 0.0]])
    loss.estimate_z(positive, negative)
    cosines = torch.cat([positive[:, None], negative], dim=1).double()
    torch.testing.assert_close(loss.Z, 9 * (cosines / 0.005).exp().mean())
    assert loss(positive, negative).isfinite()


def test_nce_does_not_overflow() -> None:
    loss = NCELoss(2, 1000, 0.01)
    loss.Z.fill_(1e30)
    p, n = torch.tensor([1.0, -1.0]).requires_grad_(), torch.tensor([[1.0, -1.0]] * 2).requires_grad_()
    value = loss(p, n)
    value.backward()
    assert bool(value.isfinite()) and bool(p.grad.isfinite().all()) and bool(n.grad.isfinite().all())


def test_first_batch_sets_z_as_released_and_later_ones_leave_it() -> None:
    loss = NCELoss(3, 20, 0.1)
    positive, negative = torch.tensor([0.2, 0.4]), torch.tensor([[0.1, 0.0, -0.3], [0.5, 0.2, 0.9]])
    assert not loss.z_known
    loss(positive, negative)
    terms = [math.exp(x / 0.1) for x in positive.tolist() + negative.flatten().tolist()]
    assert float(loss.Z) == pytest.approx(20 * sum(terms) / len(terms), rel=1e-5)
    assert loss.z_known
    assert float(loss.z_ratio(positive, negative)) == pytest.approx(1.0, rel=1e-5)
    first = float(loss.Z)
    loss(positive + 0.3, negative)
    assert float(loss.Z) == first
    assert float(loss.z_ratio(None, negative + 0.1)) == pytest.approx(
        sum(math.exp((x + 0.1) / 0.1) for x in negative.flatten().tolist()) / 6 * 20 / first, rel=1e-5
    )


def test_z_belongs_to_the_checkpoint() -> None:
    loss = NCELoss(3, 20, 0.1)
    loss.estimate_z(None, torch.tensor([[0.1, 0.2, 0.3]]))
    other = NCELoss(3, 20, 0.1)
    other.load_state_dict(loss.state_dict())
    assert other.z_known
    assert torch.equal(other.Z, loss.Z)
    fresh = NCELoss(3, 20, 0.1)
    loss.load_state_dict(fresh.state_dict())
    assert not loss.z_known


def infonce_by_loops(positive: float, negative: list[float], temperature: float) -> float:
    return -math.log(
        math.exp(positive / temperature)
        / (math.exp(positive / temperature) + sum(math.exp(n / temperature) for n in negative))
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.floats(0.05, 1.0), st.integers(0, 999))
def test_infonce_against_loops(batch: int, k: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    positive = 2 * torch.rand(batch, generator=generator) - 1
    negative = 2 * torch.rand(batch, k, generator=generator) - 1
    losses = [infonce_by_loops(float(positive[b]), negative[b].tolist(), temperature) for b in range(batch)]
    torch.testing.assert_close(
        InfoNCE(temperature)(positive, negative), torch.tensor(sum(losses) / batch), rtol=1e-4, atol=1e-5
    )


def test_infonce_is_cross_entropy_over_all_rows_but_the_own() -> None:
    similarity, instance_ids = torch.rand(4, 9), torch.tensor([0, 8, 3, 3])
    positive = torch.rand(4)
    mask = torch.zeros(4, 9, dtype=torch.bool).scatter_(1, instance_ids[:, None], True)
    logits = torch.cat([positive[:, None], similarity.masked_fill(mask, -1e9)], dim=1) / 0.07
    expected = F.cross_entropy(logits, torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(InfoNCE(0.07)(positive, similarity, mask), expected)


def test_infonce_closed_form() -> None:
    assert float(InfoNCE(0.07)(torch.zeros(2), torch.zeros(2, 9))) == pytest.approx(math.log(10))


def ntxent_by_loops(
    a: torch.Tensor, p: torch.Tensor, temperature: float, excluded: list[set[int]], used: list[int]
) -> list[float]:
    """Loss of each pair: the mean of its two directions."""
    views = [a.double().tolist(), p.double().tolist()]

    def exp(u: int, i: int, w: int, j: int) -> float:
        return math.exp(sum(x * y for x, y in zip(views[u][i], views[w][j], strict=True)) / temperature)

    losses = []
    for i in range(len(a)):
        both = []
        for u in (0, 1):
            right = exp(u, i, 1 - u, i)
            wrong = sum(exp(u, i, w, j) for w in (0, 1) for j in used if j != i and j not in excluded[i])
            both.append(-math.log(right / (right + wrong)))
        losses.append(sum(both) / 2)
    return losses


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 3), st.floats(0.07, 1.0), st.integers(0, 999), st.booleans())
def test_ntxent_against_loops(batch: int, clips: int, temperature: float, seed: int, failed: bool) -> None:
    a, p = unit(batch, 4, seed), unit(batch, 4, seed + 1000)
    ids = torch.randint(0, clips + 1, (batch,), generator=torch.Generator().manual_seed(seed))
    ok = torch.ones(batch, dtype=torch.bool)
    if failed and batch > 1:
        ok[0] = False
    excluded = [{j for j in range(batch) if int(ids[j]) == int(ids[i])} for i in range(batch)]
    used = ok.nonzero()[:, 0].tolist()
    losses = ntxent_by_loops(a, p, temperature, excluded, used)
    expected = sum(losses[i] for i in used) / len(used)
    found = NTXent(temperature)(a[ok], p[ok], ids[ok, None] == ids[ok])
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-5)
    each = NTXent(temperature, "none")(a[ok], p[ok], ids[ok, None] == ids[ok])
    torch.testing.assert_close(each, torch.tensor([losses[i] for i in used]), rtol=1e-4, atol=1e-5)


def test_ntxent_is_that_of_pytorch_metric_learning() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    raw = [torch.randn(8, 16).requires_grad_() for _ in range(2)]  # theirs normalises once more inside
    a, p = (F.normalize(x, dim=1) for x in raw)
    theirs = losses.NTXentLoss(temperature=0.2)(torch.cat([a, p]), torch.arange(8).repeat(2))
    ours = NTXent(0.2)(a, p)
    torch.testing.assert_close(ours, theirs)
    expected = torch.autograd.grad(theirs, raw, retain_graph=True)
    for found, wanted in zip(torch.autograd.grad(ours, raw), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_ntxent_of_orthogonal_pairs_closed_form() -> None:
    e = torch.eye(5)
    expected = math.log(1 + 8 * math.exp(-1 / 0.5))
    assert float(NTXent(0.5)(e, e)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["nce", "infonce"])
def test_masked_negatives_have_no_effect(name: str) -> None:
    positive, negative = torch.rand(3), torch.rand(3, 5)
    padded = torch.cat([negative, torch.full((3, 2), 0.9)], dim=1)
    mask = torch.zeros(3, 7, dtype=torch.bool)
    mask[:, 5:] = True
    results = []
    for more in ((negative,), (padded, mask)):
        loss = NCELoss(5, 50, 0.1) if name == "nce" else InfoNCE(0.1)
        results.append(loss(positive, *more))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", ["nce", "infonce", "ntxent"])
def test_losses_stay_float32_under_autocast(name: str) -> None:
    a, p, negative = unit(3, 64, 1), unit(3, 64, 2), torch.rand(3, 5)

    def value() -> torch.Tensor:
        if name == "ntxent":
            return NTXent(0.07)(a, p)
        loss = NCELoss(5, 50, 0.07) if name == "nce" else InfoNCE(0.07)
        return loss((a * p).sum(dim=1), negative)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = value()
    assert inside.dtype == torch.float32
    assert torch.equal(inside, value())


@pytest.mark.parametrize("name", ["nce", "infonce", "ntxent"])
def test_an_empty_batch_is_zero_and_not_nan(name: str) -> None:
    """No clip of it could be read."""
    a = torch.empty(0, 4).requires_grad_()
    if name == "ntxent":
        value = NTXent(0.1)(a, torch.empty(0, 4))
    else:
        loss = NCELoss(3, 9) if name == "nce" else InfoNCE(0.1)
        if name == "nce":
            loss.Z.fill_(1.0)
        value = loss((a * a).sum(dim=1), torch.rand(0, 3))
    value.backward()
    assert float(value.detach()) == 0.0


def test_chance_is_the_loss_where_all_cosines_are_the_same() -> None:
    same, nce = torch.full((3,), 0.4), NCELoss(7, 100, 0.07)
    assert nce.chance == pytest.approx(float(nce(same, torch.full((3, 7), 0.4))), rel=1e-5)


def test_an_anchor_without_any_negative_has_loss_and_gradient_zero() -> None:
    a = unit(1, 4).requires_grad_()
    NTXent(0.1)(a, unit(1, 4, 1)).backward()
    assert not a.grad.any()
    cosine = torch.tensor([0.3]).requires_grad_()
    value = InfoNCE(0.1)(cosine, torch.rand(1, 3).requires_grad_(), mask=torch.ones(1, 3, dtype=torch.bool))
    value.backward()
    assert float(value.detach()) == 0.0
    assert not cosine.grad.any()


def test_alignment_is_the_squared_distance_of_pairs() -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert float(alignment(a, p)) == pytest.approx((0 + 2 + 4) / 3)
    assert float(alignment(a, p, alpha=1.0)) == pytest.approx((0 + math.sqrt(2) + 2) / 3)


def test_uniformity_of_points_of_known_distance() -> None:
    assert float(uniformity(torch.tensor([[1.0, 0.0]] * 4))) == pytest.approx(0.0, abs=1e-6)  # collapsed
    assert float(uniformity(torch.eye(6))) == pytest.approx(-4.0)  # every distance squared is 2
    three = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    expected = math.log((math.exp(-8) + 2 * math.exp(-4)) / 3)
    assert float(uniformity(three)) == pytest.approx(expected, rel=1e-5)


def test_uniform_points_on_a_sphere_come_near_the_lowest_value() -> None:
    """On the sphere in three dimensions squared distances are uniform on [0, 4]: log((1 - exp(-8)) / 8)."""
    points = F.normalize(torch.randn(1500, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    assert float(uniformity(points)) == pytest.approx(math.log((1 - math.exp(-8)) / 8), abs=0.02)


def test_effective_rank_in_closed_form() -> None:
    assert effective_rank(torch.eye(7)) == pytest.approx(7.0)
    assert effective_rank(torch.ones(5, 3)) == pytest.approx(1.0)
    two = torch.diag(torch.tensor([3.0, 1.0, 0.0]))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(two) == pytest.approx(math.exp(entropy))
    assert effective_rank(10 * two) == pytest.approx(math.exp(entropy))


def test_effective_rank_of_nothing_is_finite() -> None:
    assert math.isfinite(effective_rank(torch.zeros(4, 3)))


def test_effective_rank_of_a_diverged_network_is_nan_and_no_error() -> None:
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.nan], [0.0, 1.0]])))
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.inf], [0.0, 1.0]])))


def test_one_vector_has_no_pair() -> None:
    assert float(uniformity(torch.eye(3)[:1])) == 0.0
