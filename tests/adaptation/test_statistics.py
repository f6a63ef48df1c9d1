import numpy as np
import pytest

from tce.adaptation.linear import Piece, ScatterSums
from tce.adaptation.statistics import FOLDS, HELD_OUT, FootageStatistics, require_settings
from tce.data.catalog import clip_sketch
from tce.errors import TceError

SETTINGS = {"start": "abc", "fps": None}


def pieces(seed, count=1, frames=4, size=5):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, frames, size)).astype(np.float32)
    return [Piece(part, np.arange(frames) / 2) for part in features]


def filled(clips, names=None, order=None):
    found = FootageStatistics(5, SETTINGS)
    found.place(f"recording{clip // 2}" for clip in (names or clips))
    for clip in order or clips:
        found.add(f"clip{clip}", f"recording{clip // 2}", pieces(clip))
    return found


def assert_same(one, other):
    assert (len(one), one.frames, one.pieces) == (len(other), other.frames, other.pieces)
    for a, b in zip(one.folds, other.folds):
        assert a.clips == b.clips
        if a.clips:
            np.testing.assert_allclose(a.within, b.within, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(a.total, b.total, rtol=1e-9, atol=1e-12)
    for a, b in zip(one.held, other.held):
        assert [clip.recording for clip in a] == [clip.recording for clip in b]
        np.testing.assert_array_equal([clip.frames for clip in a], [clip.frames for clip in b])


def test_recordings_stay_together_and_are_dealt_out_evenly():
    found = filled(range(60))
    assert [fold.clips for fold in found.folds] == [20, 20, 20]
    assert sum(map(len, found.held)) == 60
    held = [{part.frames.tobytes() for part in fold} for fold in found.held]
    for clip in range(0, 60, 2):
        both = [pieces(number)[0].features.tobytes() for number in (clip, clip + 1)]
        assert sum(set(both) <= fold for fold in held) == 1


def test_order_does_not_matter():
    clips = list(range(40))
    assert_same(filled(clips), filled(clips, order=clips[::-1]))


def test_parts_of_several_processes_add_up():
    whole = filled(range(40))
    first, second = (filled(range(start, 40, 2), names=range(40)) for start in (0, 1))
    first.merge(second)
    assert_same(first, whole)
    with pytest.raises(TceError, match="found 20 clips in both"):
        first.merge(second)


def test_a_file_gives_the_same_back(tmp_path):
    whole = filled(range(20))
    whole.save(tmp_path / "statistics.safetensors")
    again = FootageStatistics.load(tmp_path / "statistics.safetensors")
    assert_same(again, whole)
    assert again.settings == SETTINGS
    assert "clip3" in again and "clip20" not in again
    assert again.sketch() == clip_sketch(f"clip{clip}" for clip in range(20))
    again.place(["recording10"])
    again.add("clip20", "recording10", pieces(20))
    assert len(again) == 21


def test_added_clips_give_the_sums_of_all_at_once(tmp_path):
    filled(range(20)).save(tmp_path / "s")
    later = FootageStatistics.load(tmp_path / "s")
    later.place(f"recording{clip // 2}" for clip in range(20, 50))
    for clip in range(20, 50):
        later.add(f"clip{clip}", f"recording{clip // 2}", pieces(clip))
    one, other = ScatterSums.merged(later.folds), ScatterSums.merged(filled(range(50)).folds)
    np.testing.assert_allclose(one.within, other.within, rtol=1e-9)
    np.testing.assert_allclose(one.total, other.total, rtol=1e-9)


def test_no_more_clips_are_kept_than_needed_and_the_same_ones_in_any_order():
    clips = list(range(4 * FOLDS * HELD_OUT))
    one, other = filled(clips), filled(clips, order=clips[::-1])
    assert max(map(len, one.held)) <= 2 * HELD_OUT
    one.finish()
    other.finish()
    assert [len(fold) for fold in one.held] == [HELD_OUT] * FOLDS
    assert_same(one, other)


def test_one_long_recording_is_cut_into_the_folds():
    found = FootageStatistics(5, SETTINGS)
    found.place(["alone"])
    found.add("alone", "alone", pieces(0, count=30))
    assert [fold.clips for fold in found.folds] == [1, 1, 1]
    assert all(2 <= len(held) <= 10 for held in found.held)
    assert (len(found), found.pieces, found.frames) == (1, 30, 120)


def test_other_settings_and_other_files_are_reported(tmp_path):
    with pytest.raises(TceError, match=r"expected fps 2\.0, as the run has; found fps None"):
        require_settings(SETTINGS, {**SETTINGS, "fps": 2.0})
    (tmp_path / "s").write_bytes(b"something else")
    with pytest.raises(TceError, match="expected the sums of an adaptation"):
        FootageStatistics.load(tmp_path / "s")
