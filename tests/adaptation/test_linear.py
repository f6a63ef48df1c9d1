import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tce.adaptation.linear import BLOCK_ROWS, Piece, ScatterSums, decompose, shrink
from tce.errors import OptionError, TceError


def make_clips(clips=40, frames=6, size=12, seed=0, groups=1):
    """Clips around different means, with noise of very different strength along each direction."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(size, size)) * np.geomspace(0.1, 3, size)
    means = (
        rng.normal(size=(clips, 1, size))
        + 5 * rng.normal(size=(groups, 1, 1, size))[np.arange(clips) % groups, 0]
    )
    return means + rng.normal(size=(clips, frames, size)) @ noise + 3


def sums_of(clips, horizon=None, groups=None, step=1.0):
    sums = ScatterSums(clips[0].shape[1])
    for number, clip in enumerate(clips):
        sums.add(
            [Piece(clip, np.arange(len(clip)) * step, horizon)], "" if groups is None else groups[number]
        )
    return sums


def cosines(x):
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("size", [12, 3])
def test_agrees_with_scikit_learns_discriminant_analysis(shrinkage, size):
    x = make_clips()
    clips, frames, _ = x.shape
    rows, label = x.reshape(-1, x.shape[2]), np.repeat(np.arange(clips), frames)
    oracle = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage, n_components=size)
    expected = oracle.fit(rows, label).transform(rows - rows.mean(axis=0))  # it leaves the mean in
    found = decompose(sums_of(x)).solve(shrinkage, size)(rows)
    # scikit-learn divides by n where we divide by n - 1, which scales all directions alike.
    np.testing.assert_allclose(cosines(found), cosines(expected), atol=1e-7)
    assert found.shape == (clips * frames, size)


def test_whitening_makes_the_shrunk_within_scatter_the_identity():
    sums = sums_of(make_clips())
    found = decompose(sums).solve(0.2)
    np.testing.assert_allclose(
        found.weight @ shrink(sums.within, 0.2) @ found.weight.T, np.eye(12), atol=1e-9
    )
    np.testing.assert_allclose(
        found.weight @ shrink(sums.total, 0.2) @ found.weight.T, np.diag(found.ratio), atol=1e-8
    )
    assert (np.diff(found.ratio) <= 1e-9).all()
    np.testing.assert_allclose(found(sums.mean), 0, atol=1e-9)
    np.testing.assert_allclose(found.first(2)(sums.mean + 1), found(sums.mean + 1)[:2])


def test_streaming_equals_one_batch():
    x = make_clips(clips=500, frames=7)  # more rows than a block
    assert x.shape[0] * x.shape[1] > 3 * BLOCK_ROWS
    sums = sums_of(x)
    mean = x.mean(axis=(0, 1))
    rows = (x - mean).reshape(-1, x.shape[2])
    within = np.mean([np.cov(clip.T) for clip in x], axis=0)
    np.testing.assert_allclose(sums.within, within, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(sums.total, rows.T @ rows / len(rows), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(sums.mean, mean, rtol=1e-9)


def test_every_clip_weighs_the_same_however_long():
    rng = np.random.default_rng(0)
    short, long = rng.normal(size=(3, 4)), 10 * rng.normal(size=(200, 4)) + 7
    sums = sums_of([short, long])
    np.testing.assert_allclose(sums.within, (np.cov(short.T) + np.cov(long.T)) / 2)
    np.testing.assert_allclose(sums.mean, (short.mean(axis=0) + long.mean(axis=0)) / 2)
    second = (short.T @ short / 3 + long.T @ long / 200) / 2
    np.testing.assert_allclose(sums.total, second - np.outer(sums.mean, sums.mean))


def test_sums_of_parts_equal_the_sums_of_all():
    x = make_clips(groups=3)
    names = [f"g{number % 3}" for number in range(len(x))]
    whole = sums_of(x, groups=names)
    parts = [sums_of(x[part], groups=names[part]) for part in (slice(0, 11), slice(11, 12), slice(12, None))]
    merged = ScatterSums.merged(parts)
    assert (merged.clips, merged.paired) == (whole.clips, whole.paired) == (40, 40)
    for name in ("within", "total", "mean"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(parts[0].within, sums_of(x[:11]).within)  # the parts stay as they are
    ours, theirs = decompose(merged).solve(0.1), decompose(whole).solve(0.1)
    np.testing.assert_allclose(cosines(ours(x[:, 0])), cosines(theirs(x[:, 0])), atol=1e-9)


def test_arrays_of_a_file_give_the_same_sums():
    x = make_clips(groups=2)
    sums = sums_of(x, horizon=2.0, groups=["Ä", "b"] * 20)
    again = ScatterSums.from_arrays(sums.to_arrays(), 12)
    for name in ("within", "total", "mean", "clips", "paired"):
        np.testing.assert_array_equal(getattr(again, name), getattr(sums, name))
    again.add([Piece(x[0], np.arange(6.0))], "Ä")
    assert again.clips == 41


def test_only_frames_within_the_horizon_count_as_the_same():
    """A recording whose phases differ: over all frames the phases would count as within-clip variation."""
    rng = np.random.default_rng(0)
    recording = rng.normal(size=(30, 5))
    time = np.sort(rng.uniform(0, 20, 30))
    sums = ScatterSums(5)
    sums.add([Piece(recording, time, horizon=1.5)])
    expected, pairs = np.zeros((5, 5)), 0
    for i in range(30):
        for j in range(30):
            if i != j and abs(time[i] - time[j]) <= 1.5:
                d = recording[i] - recording[j]
                expected += np.outer(d, d) / 2
                pairs += 1
    np.testing.assert_allclose(sums.within, expected / pairs)


def test_a_horizon_that_covers_the_clip_is_the_whole_clip():
    x = make_clips(clips=3)
    for horizon in (5.0, 100.0):
        np.testing.assert_allclose(sums_of(x, horizon).within, sums_of(x).within)


def test_pieces_of_a_recording_share_its_weight():
    x = make_clips(clips=3)
    sums = ScatterSums(12)
    sums.add([Piece(x[0], np.arange(6.0)), Piece(x[1], np.arange(6.0) + 6)])
    sums.add([Piece(x[2], np.arange(6.0))])
    parts = [np.cov(clip.T) for clip in x]
    np.testing.assert_allclose(sums.within, ((parts[0] + parts[1]) / 2 + parts[2]) / 2)
    assert sums.clips == 2


def test_group_means_do_not_count_as_differences_of_clips():
    x = make_clips(groups=2)
    names = ["a", "b"] * 20
    sums = sums_of(x, groups=names)
    centred = x.copy()
    for group in (0, 1):
        centred[group::2] -= x[group::2].mean(axis=(0, 1))
    np.testing.assert_allclose(sums.total, sums_of(centred).total, atol=1e-9)
    np.testing.assert_allclose(sums.within, sums_of(x).within)
    assert np.trace(sums.total) < 0.6 * np.trace(sums_of(x).total)


def test_fewer_clips_than_dimensions_still_give_a_map_of_all_dimensions():
    x = make_clips(clips=2, frames=3, size=50)
    found = decompose(sums_of(x)).solve(0.5)
    assert found.weight.shape == (50, 50)
    assert np.isfinite(found.weight).all()
    with pytest.raises(OptionError, match="--shrinkage; expected above 0"):
        decompose(sums_of(x)).solve(0.0)


def test_bad_features_are_reported():
    x = make_clips(clips=2)
    with pytest.raises(TceError, match="NaN or infinity"):
        sums_of(np.where(np.arange(12) == 3, np.nan, x))
    with pytest.raises(TceError, match=r"expected \[n, 12\]"):
        sums_of(x).add([Piece(x[0, :, :5], np.arange(6.0))])
    with pytest.raises(TceError, match="expected frames that differ"):
        decompose(sums_of(np.full((4, 5, 12), 0.7)))
    with pytest.raises(TceError, match="something moves"):
        decompose(sums_of(np.repeat(x[:, :1], 6, axis=1)))
    with pytest.raises(TceError, match="two frames or more within the horizon; found none among 2"):
        decompose(sums_of(x[:, :1]))
    with pytest.raises(TceError, match="within the horizon"):
        decompose(sums_of(x, horizon=0.5))
    with pytest.raises(TceError, match="expected 12 features; found 5"):
        sums_of(x).merge(sums_of(x[:, :, :5]))
