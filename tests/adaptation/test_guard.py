import numpy as np
import pytest

from tce.adaptation.guard import (
    UNCHECKED_SHRINKAGE,
    Coherence,
    Comparison,
    HeldClip,
    coherence_of,
    cross_validate,
)
from tce.adaptation.linear import Piece, ScatterSums


def make_folds(clips, folds=3, held=40):
    """Sums and held-out clips of every third clip."""
    sums = [ScatterSums(clips[0].shape[1]) for _ in range(folds)]
    kept = [[] for _ in range(folds)]
    for number, clip in enumerate(clips):
        sums[number % folds].add([Piece(clip, np.arange(len(clip)))])
        if len(kept[number % folds]) < held:
            kept[number % folds].append(HeldClip(clip.astype(np.float32), number))
    return sums, kept


def helpful(clips=60, frames=8, seed=0):
    """What a clip is shows in 5 numbers; 20 others change strongly within every clip."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(size=(clips, 1, 5)).repeat(frames, 1), np.zeros((clips, frames, 20))], 2)
    return x + rng.normal(size=x.shape) * np.repeat([0.3, 4.0], [5, 20])


def harmful(clips=120, frames=8, seed=0):
    """What a clip is shows in 5 numbers that also change within clips; 195 others are weak, steady noise.

    Whitening makes the noise as strong as the rest.
    """
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(size=(clips, 1, 5)).repeat(frames, 1), np.zeros((clips, frames, 195))], 2)
    return x * 10 + rng.normal(size=x.shape) * np.repeat([4.0, 1.0], [5, 195])


def figure(clips, embed):
    return coherence_of([HeldClip(clip, number) for number, clip in enumerate(clips)], embed)


def slow_coherence(clips, embed):
    """The figure by its definition, frame by frame."""
    shares = []
    for number, clip in enumerate(clips):
        found = 0
        for frame in clip[: len(clip) // 2]:
            query = embed(frame[None])[0]
            scores = []
            for other in clips:
                rows = [row / np.linalg.norm(row) for row in embed(other[len(other) // 2 :])]
                target = sum(rows) / len(rows)
                scores.append(query @ target / np.linalg.norm(target) / np.linalg.norm(query))
            found += max(range(len(clips)), key=scores.__getitem__) == number
        shares.append(found / (len(clip) // 2))
    return shares


def test_figure_equals_its_definition():
    rng = np.random.default_rng(0)
    turn = rng.normal(size=(6, 4))
    clips = [
        (rng.normal(size=(1, 6)) + rng.normal(size=(n, 6))).astype(np.float32) for n in (2, 3, 8, 5, 4, 7)
    ]
    found = figure(clips, lambda rows: rows @ turn)
    np.testing.assert_allclose(found.found, slow_coherence(clips, lambda rows: rows @ turn))
    assert 0 < found.share < 1
    assert found.chance == pytest.approx(1 / 6)


def test_figure_of_random_and_of_perfect_embeddings():
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=(20, 16)).astype(np.float32) for _ in range(50)]
    assert figure(noise, lambda rows: rows).share == pytest.approx(1 / 50, abs=0.02)
    still = [np.repeat(rng.normal(size=(1, 16)), 4, 0).astype(np.float32) for _ in range(50)]
    perfect = figure(still, lambda rows: rows)
    assert perfect.share == 1
    assert perfect.separation.mean() > 2


def test_all_the_same_finds_nothing():
    same = figure([np.ones((4, 3), np.float32)] * 5, lambda rows: rows)
    assert same.share == 0
    np.testing.assert_allclose(same.separation, 0, atol=0.1)


def test_a_helpful_adaptation_is_kept_and_says_by_how_much():
    sums, held = make_folds(helpful())
    found = cross_validate(sums, held)
    assert not found.keeps_start
    assert found.adapted.share > found.start.share + 0.2
    assert len(found.start) == len(found.adapted) == 60


def test_a_harmful_adaptation_is_refused():
    found = cross_validate(*make_folds(harmful()), sizes=())
    assert found.keeps_start
    assert found.adapted.share < found.start.share - 0.01


def test_where_clips_are_many_enough_to_cut_directions_the_same_data_are_helped():
    found = cross_validate(*make_folds(harmful()), sizes=(5,))
    assert found.size == 5
    assert not found.keeps_start


def test_the_better_shrinkage_is_chosen():
    sums, held = make_folds(helpful())
    each = {share: cross_validate(sums, held, (share,)).adapted.rank for share in (0.9, 0.1)}
    assert cross_validate(sums, held, (0.9, 0.1)).shrinkage == max(each, key=each.get)


def test_few_directions_only_where_clips_are_many_and_nothing_is_lost():
    many, few = make_folds(helpful(clips=60)), make_folds(helpful(clips=12))
    assert cross_validate(*many, sizes=(5, 20)).size == 5  # which hold all there is to know
    assert cross_validate(*few, sizes=(5, 20)).size is None
    assert cross_validate(*many, sizes=(1,)).size is None  # one loses much
    assert cross_validate(*few, sizes=(5,), size=7).size == 7  # asked for


def test_too_few_clips_to_hold_out_are_not_checked():
    for clips in (1, 3):
        sums, held = make_folds(helpful(clips=clips))
        found = cross_validate(sums, held)
        assert (found.start, found.adapted, found.keeps_start) == (None, None, False)
        assert found.shrinkage == UNCHECKED_SHRINKAGE
    assert cross_validate(*make_folds(helpful(clips=4))).start is not None


def test_folds_without_any_motion_are_passed_over():
    x = helpful(clips=6)
    x[[0, 2, 3, 5]] = x[[0, 2, 3, 5], :1]  # only clips 1 and 4, one fold, move
    found = cross_validate(*make_folds(x))
    assert len(found.start) == 4


def test_equal_shares_are_distinguished_by_separation():
    one, far, own = np.ones(3), np.full(3, 2.0), np.arange(3)
    assert Coherence(one, far, own, 0.3).rank > Coherence(one, one, own, 0.3).rank


def compared(found, separation=0.0, recordings=None):
    """A comparison of differences, of a network that finds half."""
    count = len(found)
    recordings = np.arange(count) if recordings is None else recordings
    before = Coherence(np.full(count, 0.5), np.zeros(count), recordings, 0.1)
    change = np.asarray(found, float)
    return Comparison.of(before, Coherence(0.5 + change, np.full(count, separation), recordings, 0.1))


def test_a_tie_or_a_chance_gain_is_no_improvement():
    assert not compared(np.zeros(50)).improves
    assert not compared([0.5] + [0.0] * 49).improves  # one clip alone: half of the resamples are nearly 0
    assert not compared(np.tile([0.3, -0.28], 25)).improves
    found = compared(np.tile([0.2, 0.0], 25))
    assert found.improves
    assert "+10.0 points, 95% interval +" in found.reason
    assert "not clearly above 0" in compared(np.zeros(50)).reason


def test_what_stands_out_less_is_no_improvement():
    assert compared(np.full(50, 0.2), separation=0.1).improves
    worse = compared(np.full(50, 0.2), separation=-0.1)
    assert not worse.improves
    assert "clips stand out less" in worse.reason


def test_clips_of_one_recording_are_no_independent_evidence():
    gain = np.repeat([0.4, -0.05, -0.05, -0.05], 25)  # all of it in one recording of four
    assert compared(gain).improves
    assert not compared(gain, recordings=np.repeat(np.arange(4), 25)).improves
    # Of one recording alone, its pieces are all there is.
    assert compared(np.full(20, 0.1), recordings=np.zeros(20, int)).improves


def test_the_interval_is_that_of_the_mean():
    """The percentile bootstrap of many normal differences approaches mean +- 1.96 standard errors."""
    rng = np.random.default_rng(0)
    change = rng.normal(0.05, 0.2, size=2000)
    low, high = compared(change).share
    half = 1.96 * change.std() / np.sqrt(2000)
    assert low == pytest.approx(change.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(change.mean() + half, abs=0.1 * half)
