"""Alignment, uniformity and effective rank in closed form."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tce.contrast import alignment, effective_rank, uniformity


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
