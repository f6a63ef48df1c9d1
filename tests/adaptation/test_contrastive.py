import math

import numpy as np
import pytest
import torch
from torch import nn

from tce.adaptation.activations import ActivationCache, fair_order
from tce.adaptation.contrastive import (
    Budget,
    ContrastiveTraining,
    PairSampler,
    features_of,
    rate_factor,
)
from tce.adaptation.linear import Piece
from tce.errors import TceError
from tce.model.encoder import build_encoder
from tce.model.partition import LastBlocks, part_backbone

SHAPE = (3, 4, 4)


def fill(folder, clips=24, frames=5, horizon=None, seed=0):
    """Activations in which a clip's own pattern is hidden under changes within the clip."""
    rng = np.random.default_rng(seed)
    cache = ActivationCache(folder, 48, {})
    rows = []
    for clip in range(clips):
        own = rng.normal(size=(1, 48))
        features = (own + rng.normal(size=(frames, 48)) * np.repeat([0.1, 3.0], 24)).astype(np.float32)
        rows.append((f"clip{clip}", [Piece(features, np.arange(float(frames)), horizon)]))
    cache.fill(rows, math.inf)
    return cache


def blocks(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    return LastBlocks(layers, SHAPE).eval()


SIX = Budget(6)


def make(cache, budget=SIX, last=None, **options):
    sampler = PairSampler(cache.pieces, None, seed=1, size=16)
    options = {"seed": 2, "head_steps": 3, **options}
    return ContrastiveTraining(last or blocks(), 8, cache, sampler, budget, **options)


def finish(training):
    while not training.done:
        training.advance()
    return training


def assert_same_state(one, other):
    for name in ("step", "steps", "losses"):
        assert one[name] == other[name]
    for part in ("last", "head"):
        assert all(torch.equal(one[part][name], value) for name, value in other[part].items())


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path, cut):
    cache = fill(tmp_path)
    whole = finish(make(cache)).state_dict()
    first = make(cache)
    for _ in range(cut):
        first.advance()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = make(cache, last=blocks(seed=9))  # whose weights the state replaces
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert_same_state(finish(second).state_dict(), whole)
    assert len(whole["losses"]) == 9


def test_the_head_learns_first_and_batch_statistics_stay(tmp_path):
    training = make(fill(tmp_path))
    before = {name: value.clone() for name, value in training.last.state_dict().items()}
    for _ in range(3):
        training.advance()
    assert all(torch.equal(before[name], value) for name, value in training.last.state_dict().items())
    after = finish(training).last.state_dict()
    assert not torch.equal(before["layers.0.weight"], after["layers.0.weight"])
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(before[f"layers.1.{name}"], after[f"layers.1.{name}"])


def test_it_learns_what_clips_have_in_common(tmp_path):
    cache = fill(tmp_path, clips=60)
    last = blocks()
    rows = cache.map()

    def ratio():
        features = features_of(last, rows).reshape(60, 5, 8)
        return features.mean(axis=1).var(axis=0).sum() / features.var(axis=1).mean(axis=0).sum()

    before = ratio()
    training = finish(make(cache, Budget(60), last, learning_rate=0.01))
    assert np.mean(training.losses[-10:]) < np.mean(training.losses[:10]) - 0.2
    assert ratio() > 1.5 * before


def test_a_budget_of_time_is_repeated_by_its_number_of_steps(tmp_path):
    cache = fill(tmp_path)
    timed = make(cache, Budget(None, 1e-9))  # spent by the first step: as many again, and an end
    assert (timed.total, timed.done) == (None, False)
    finish(timed)
    assert timed.steps == timed.trained == 2
    assert_same_state(finish(make(cache, Budget(timed.steps))).state_dict(), timed.state_dict())


def test_rates_are_constant_and_then_fall_to_nothing():
    assert [rate_factor(step, None) for step in (0, 10**6)] == [1, 1]
    rates = [rate_factor(step, 20) for step in range(20)]
    assert rates[:11] == [1.0] * 11
    np.testing.assert_allclose(rates[10:], (1 + np.cos(np.pi * np.arange(10) / 10)) / 2)


def test_pairs_are_two_frames_of_a_clip_within_the_horizon(tmp_path):
    cache = fill(tmp_path, horizon=2.0)
    sampler = PairSampler(cache.pieces, None, seed=0, size=16)
    distances = set()
    for step in range(50):
        pairs = sampler(step)
        assert len(pairs.first) == len(set(pairs.first // 5)) == 16
        np.testing.assert_array_equal(pairs.first // 5, pairs.second // 5)
        distances |= set((pairs.first - pairs.second).tolist())
        np.testing.assert_array_equal(pairs.first, sampler(step).first)
        np.testing.assert_array_equal(pairs.mask, np.eye(16, dtype=bool))
    assert distances == {-2, -1, 1, 2}


def test_batches_hold_one_group(tmp_path):
    cache = fill(tmp_path, clips=40)
    groups = [f"person{number % 2}" for number in range(40)]
    sampler = PairSampler(cache.pieces, groups, seed=0, size=16)
    seen = [set(sampler(step).first // 5 % 2) for step in range(30)]
    assert {len(each) for each in seen} == {1}
    assert set.union(*seen) == {0, 1}


def test_neighbouring_pieces_of_a_recording_are_not_negatives(tmp_path):
    cache = ActivationCache(tmp_path, 48, {})
    rng = np.random.default_rng(0)
    pieces = [
        Piece(rng.normal(size=(3, 48)).astype(np.float32), 0.5 * np.arange(3 * n, 3 * n + 3), 1.0)
        for n in range(12)
    ]
    cache.fill([("long", pieces)], math.inf)
    sampler = PairSampler(cache.pieces, None, seed=0, size=12)
    pairs = sampler(0)
    number = pairs.first // 3
    np.testing.assert_array_equal(pairs.mask, abs(number[:, None] - number) <= 1)


def test_too_few_clips_are_refused(tmp_path):
    with pytest.raises(TceError, match="8 clips or pieces of recordings or more; found 7"):
        PairSampler(fill(tmp_path / "a", clips=7).pieces, None, 0, 16)
    with pytest.raises(TceError, match="found 0"):
        PairSampler(fill(tmp_path / "b", frames=1).pieces, None, 0, 16)


def test_a_loss_that_is_not_finite_ends_it(tmp_path):
    training = make(fill(tmp_path))
    with torch.no_grad():
        training.last.layers[0].weight.fill_(math.nan)
    with pytest.raises(TceError, match="a finite loss; found nan at step 1"):
        training.advance()


@pytest.mark.parametrize("name", ["lite0", "resnet18"])
def test_both_parts_together_are_the_backbone_and_share_its_weights(name):
    encoder = build_encoder(name, head="none", image_size=48, seed=0).eval()
    parts = part_backbone(encoder)
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(parts.last(parts.trunk.features(images)), encoder.features(images))
        for parameter in parts.last.parameters():
            parameter.mul_(0.9)
        torch.testing.assert_close(parts.last(parts.trunk.features(images)), encoder.features(images))
    trained = {id(parameter) for parameter in parts.last.parameters()}
    trunk = {id(parameter) for parameter in parts.trunk.parameters()}
    own = {id(parameter) for parameter in encoder.backbone.parameters()}
    assert trained | trunk == own
    assert not trained & trunk


class TestCache:
    def test_rows_are_kept_exactly(self, tmp_path):
        cache = fill(tmp_path)
        again = ActivationCache.open(tmp_path, 48, {})
        assert again.clips == cache.clips
        np.testing.assert_array_equal(again.map(), cache.map())
        assert (again.count, again.bytes) == (120, 120 * 48 * 4)
        assert [name for name, _ in again.by_clip()] == cache.clips

    def test_an_interrupted_pass_resumes(self, tmp_path):
        def clips(first, stop):
            for number in range(first, 10):
                if number == stop:
                    raise KeyboardInterrupt
                yield f"clip{number}", [Piece(np.full((2, 48), number, np.float32), np.arange(2.0))]

        with pytest.raises(KeyboardInterrupt):
            ActivationCache(tmp_path, 48, {"a": 1}).fill(clips(0, 4), math.inf)
        with open(tmp_path / "activations.f32", "ab") as file:
            file.write(b"half a row that was not noted")
        cache = ActivationCache.open(tmp_path, 48, {"a": 1})
        assert len(cache.clips) == 4
        cache.fill(clips(4, None), math.inf)
        np.testing.assert_array_equal(cache.map()[:, 0], np.repeat(np.arange(10), 2))

    def test_its_size_is_bounded(self, tmp_path):
        cache = ActivationCache(tmp_path, 48, {})
        rows = ((f"clip{n}", [Piece(np.zeros((2, 48), np.float32), np.arange(2.0))]) for n in range(100))
        cache.fill(rows, 1000)
        assert cache.clips == ["clip0", "clip1", "clip2"]  # of 384 bytes each

    def test_other_settings_or_a_damaged_index_start_anew(self, tmp_path):
        fill(tmp_path)
        assert not ActivationCache.open(tmp_path, 48, {"image_size": 64}).clips
        (tmp_path / "activations.f32").write_bytes(b"short")
        assert not ActivationCache.open(tmp_path, 48, {}).clips
        (tmp_path / "activations.json").write_text("no json")
        assert not ActivationCache.open(tmp_path, 48, {}).clips

    def test_the_order_is_fair_and_does_not_depend_on_the_names_order(self):
        names = [f"clip{number}" for number in range(50)]
        chosen = [names[row] for row in fair_order(names)]
        backwards = names[::-1]
        assert chosen == [backwards[row] for row in fair_order(backwards)]
        assert sorted(chosen) == sorted(names)
        assert chosen != names
