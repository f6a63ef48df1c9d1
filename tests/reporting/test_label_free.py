import numpy as np
import pytest

from tce.adaptation.linear import Piece
from tce.adaptation.statistics import FootageStatistics
from tce.reporting import own_adaptation
from tce.reporting.label_free import group_recall, held_out_halves, motion_of
from tce.reporting.own_adaptation import adapt_to, fold_of_pieces, stability_of

RNG = np.random.default_rng(3)


def still(count: int, size: int = 8, frames: int = 4) -> list[np.ndarray]:
    """Clips that stand still, each along an axis of its own."""
    return [np.tile(np.eye(size, dtype=np.float32)[n], (frames, 1)) for n in range(count)]


def drifting(count: int, size: int = 12, frames: int = 6) -> list[Piece]:
    """Clips of a content that differs little, under a change in time that is large and shared."""
    pieces = []
    for number in range(count):
        content = np.zeros(size)
        content[number % (size - 2)] = 1.0
        rows = np.tile(content, (frames, 1)) + 0.02 * RNG.normal(size=(frames, size))
        rows[:, -1] += 6 * RNG.normal(size=frames)
        pieces.append(Piece(rows.astype(np.float32), np.arange(frames, dtype=float)))
    return pieces


def test_clips_of_their_own_direction_find_themselves_and_equal_ones_do_not():
    found = held_out_halves(still(6), np.zeros(6, int))
    assert found.found.tolist() == [1.0] * 6 and found.chance == pytest.approx(1 / 6)
    same = [np.ones((4, 5), np.float32)] * 6
    assert held_out_halves(same, np.zeros(6, int)).found.max() == 0.0


def test_pieces_compete_within_their_fold_only():
    pieces = still(3) + still(3)  # the second three are copies of the first
    apart = held_out_halves(pieces, np.array([0, 0, 0, 1, 1, 1]))
    together = held_out_halves(pieces, np.zeros(6, int))
    assert apart.found.min() == 1.0 and together.found.max() == 0.0
    assert apart.chance == pytest.approx(1 / 3)


def test_what_cannot_be_asked_is_left_out():
    assert held_out_halves(still(3), np.array([0, 1, 2])) is None
    found = held_out_halves([*still(3), np.ones((1, 8), np.float32)], np.zeros(4, int))
    assert np.isnan(found.found[3]) and np.isfinite(found.found[:3]).all()


def test_motion_of_known_paths():
    moved = motion_of(still(4), ["a", "b", "c", "d"], 0)
    assert moved.figures["neighbour"] == pytest.approx(0) and moved.figures["across"] == pytest.approx(1)
    assert moved.figures["smoothness"] == pytest.approx(1) and moved.figures["curvature"] is None
    assert moved.figures["effective_rank"] == pytest.approx(4)
    assert motion_of([np.ones((2, 3), np.float32)], ["a"], 0).figures == {}


def test_groups_that_are_recognised_and_groups_that_are_not():
    axes = np.eye(4, dtype=np.float32)
    vectors = np.stack([axes[n // 6] for n in range(12)])  # two persons, each in a direction of its own
    recordings = [f"r{n // 2}" for n in range(12)]
    told = group_recall(vectors, ["p1"] * 6 + ["p2"] * 6, recordings, 4, 0)
    assert told.hits.mean() == 1.0 and told.chance < 0.7
    assert group_recall(vectors, ["one"] * 12, recordings, 4, 0) is None
    alone = group_recall(vectors[::6], ["p1", "p2"], ["r1", "r2"], 1, 0)
    assert alone is None  # no group has a second recording


def fitted(pieces: list[Piece], recordings: list[str]):
    statistics = FootageStatistics(12, {})
    ids = [f"c{n}" for n in range(len(pieces))]
    return statistics, adapt_to(statistics, ids, recordings, [[piece] for piece in pieces], None)


def test_the_adaptation_is_checked_by_maps_that_have_not_seen_the_recording(monkeypatch):
    pieces = drifting(24)
    recordings = [f"r{n // 2}" for n in range(24)]
    statistics, own = fitted(pieces, recordings)
    assert own.map is not None and own.held is not None and own.why_not == ""
    folds = fold_of_pieces(statistics, recordings, [[piece] for piece in pieces])
    before = held_out_halves([np.asarray(piece.features) for piece in pieces], folds)
    after = held_out_halves(own.held, folds)
    assert after.found.mean() > before.found.mean() + 0.2, "the shared change in time is removed"
    # Another recording of the same fold changes: the map that checks this fold is fitted without either.
    first = int(np.flatnonzero(folds == folds[0])[0])
    partner = next(n for n in np.flatnonzero(folds == folds[0]) if recordings[n] != recordings[first])
    changed = list(pieces)
    changed[partner] = Piece(pieces[partner].features * 3 + 1, pieces[partner].time)
    monkeypatch.setattr(own_adaptation, "SHRINKAGES", (0.5,))
    held, again = (fitted(part, recordings)[1].held[first] for part in (pieces, changed))
    assert held.shape == again.shape
    np.testing.assert_allclose(held, again, rtol=1e-4, atol=1e-5)


def test_three_recordings_cannot_be_checked_and_that_is_said():
    own = fitted(drifting(3), ["a", "b", "c"])[1]
    assert own.map is not None and own.held is None and "too few clips" in own.why_not
    own = fitted([Piece(np.ones((4, 12), np.float32), np.arange(4.0))] * 3, ["a", "b", "c"])[1]
    assert own.map is None and "nothing can be fitted" in own.why_not


def test_halves_of_one_kind_of_footage_agree():
    pieces = drifting(40)
    clips = [[piece] for piece in pieces]
    found = stability_of([f"r{n}" for n in range(40)], clips, 0.1, 0)
    assert len(found.gains) == 6 and min(found.gains) > 0 and found.agreement > 0.5
    again = stability_of([f"r{n}" for n in range(40)], clips, 0.1, 0)
    assert again == found
    assert stability_of(["a", "b"], clips[:2], 0.1, 0).gains == []
