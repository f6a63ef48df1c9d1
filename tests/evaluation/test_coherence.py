import numpy as np
import pytest

from tce.evaluation import coherence
from tce.evaluation.coherence import Tracks, anchors


def unit(v):
    v = np.asarray(v, "f8")
    return (v / np.linalg.norm(v, axis=-1, keepdims=True)).astype("f4")


def random_tracks(seed=0, sizes=(3, 5, 1, 4), dim=6):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    return Tracks(unit(rng.normal(size=(n, 3, dim))), np.repeat(np.arange(len(sizes)), sizes), rng.random(n))


def circle(degrees):
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def test_anchors_of_long_and_short_clips():
    assert anchors(32, 4, 1).tolist() == [0, 10, 19, 29]
    assert anchors(5, 16, 1).tolist() == [0, 1, 2]
    assert anchors(3, 16, 1).tolist() == [0]
    assert anchors(2, 16, 1).tolist() == []
    assert anchors(10, 16, 4).tolist() == [0, 1]


def test_distances_equal_loops_over_pairs():
    tracks, recordings = random_tracks(), ["a", "b", "a", "c"]
    v = tracks.vectors.astype("f8")
    near, within, across = [], [], []
    for clip in range(4):
        rows = [i for i in range(len(v)) if tracks.clip[i] == clip]
        steps = [1 - v[i, j] @ v[i, j + 1] for i in rows for j in (0, 1)]
        near.append(np.mean(steps))
        pairs = [1 - v[i, 0] @ v[j, 0] for i in rows for j in rows if i != j]
        within.append(np.mean(pairs) if pairs else np.nan)
        others = [j for j in range(len(v)) if recordings[tracks.clip[j]] != recordings[clip]]
        across.append(np.mean([1 - v[i, 0] @ v[j, 0] for i in rows for j in others]))
    np.testing.assert_allclose(coherence.neighbour_distance(tracks), near, atol=1e-5)
    np.testing.assert_allclose(coherence.within_distance(tracks), within, atol=1e-5)
    np.testing.assert_allclose(coherence.across_distance(tracks, recordings), across, atol=1e-5)
    assert np.isnan(coherence.across_distance(tracks, ["a"] * 4)).all()


def test_curvature_of_an_arc_a_zigzag_and_a_still():
    arc = np.stack([circle([a, a + 10, a + 20]) for a in (0, 30, 60)])
    zigzag = np.stack([circle([a, a + 10, a]) for a in (0, 30, 60)])
    still = np.stack([circle([a, a, a]) for a in (0, 30, 60)])
    tracks = Tracks(unit(np.concatenate([arc, zigzag, still])), np.repeat([0, 1, 2], 3), np.zeros(9))
    found = coherence.curvature(tracks)
    assert found[0] == pytest.approx(10, abs=0.05)
    assert found[1] == pytest.approx(180, abs=0.1)
    assert np.isnan(found[2])


def test_kendall_tau_of_known_orders():
    clip = unit(circle(np.arange(0, 90, 10)))
    assert coherence.kendall_tau(clip, clip) == 1
    assert coherence.kendall_tau(clip, clip[::-1]) == -1
    assert coherence.kendall_tau(clip, clip[:1]) == 0
    swapped = clip[[1, 0, 2, 3, 4, 5, 6, 7, 8]]
    assert coherence.kendall_tau(swapped, clip) == pytest.approx(1 - 2 / 36)


def phased(clips, reverse=False, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    degrees = np.linspace(0, 80, 9)
    rows = []
    for clip in range(clips):
        path = np.stack([circle(degrees), circle(degrees + 1), circle(degrees + 2)], axis=1)
        path = path[::-1] if reverse and clip % 2 else path
        rows.append(path + noise * rng.normal(size=path.shape))
    phase = np.tile(np.arange(9) / 8, clips)
    return Tracks(unit(np.concatenate(rows)), np.repeat(np.arange(clips), 9), phase)


def test_tau_across_clips_sees_classes_only():
    tracks = phased(4, reverse=True)  # clips 0 and 2 run forwards, 1 and 3 backwards
    together = coherence.tau_across_clips(tracks, np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(together, 1)
    opposed = coherence.tau_across_clips(tracks, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(opposed, -1)
    alone = coherence.tau_across_clips(tracks, np.array([0, 1, 2, -1]))
    assert np.isnan(alone).all()


def test_phase_progression():
    labels = np.array([0, 0, 0])
    score, by_class = coherence.phase_progression(phased(3), labels, phased(3), labels)
    assert score > 0.85 and by_class == {0: pytest.approx(score)}
    lost, _ = coherence.phase_progression(
        phased(2, noise=9), labels[:2], phased(2, noise=9, seed=1), labels[:2]
    )
    assert lost < 0.3
    missing, by_class = coherence.phase_progression(phased(1), labels[:1], phased(1), labels[:1] + 1)
    assert np.isnan(missing) and by_class == {}


def test_spread_of_a_collapsed_and_a_spread_network():
    collapsed = Tracks(unit(np.ones((50, 3, 8))), np.arange(50), np.zeros(50))
    found = coherence.spread(collapsed)
    assert found["alignment"] == 0 and found["uniformity"] == pytest.approx(0, abs=1e-5)
    assert found["effective_rank"] == pytest.approx(1, abs=1e-3)
    spread = coherence.spread(random_tracks(sizes=(500,), dim=8))
    assert spread["effective_rank"] > 7 and spread["uniformity"] < -2.5
