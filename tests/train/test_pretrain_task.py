from __future__ import annotations

import numpy as np
import pytest

from tce.errors import OptionError, TceError
from tce.options.pretrain import ContrastOptions, PretrainOptimOptions
from tce.train.pretrain_task import FillPlan, PairPlan

LENGTHS = np.arange(3, 26)  # 23 clips


def plan(
    lengths: np.ndarray = LENGTHS,
    rank: int = 0,
    processes: int = 1,
    epochs: int = 3,
    batch: int = 4,
    accumulate: int = 1,
    **contrast: object,
) -> PairPlan:
    optim = PretrainOptimOptions(epochs=epochs, batch_size=batch, accumulate=accumulate)
    options = ContrastOptions(**{"window": 5, **contrast})  # type: ignore[arg-type]
    return PairPlan(lengths, np.full(len(lengths), 25.0), options, optim, 7, rank, processes)


def test_an_epoch_takes_each_clip_at_most_once_in_its_own_order() -> None:
    pairs = plan(epochs=9)
    assert len(pairs) == 9 * 5
    epochs = [np.concatenate([pairs[e * 5 + b][0] for b in range(5)]) for e in range(9)]
    for clips in epochs:
        assert len(set(clips)) == 20 and set(clips) <= set(range(23))
    assert not np.array_equal(epochs[0], epochs[1])
    assert set(np.concatenate(epochs)) == set(range(23)), "what one epoch drops another takes"


def test_positives_lie_within_the_window_and_the_clip() -> None:
    pairs = plan()
    for batch in range(len(pairs)):
        clips, frames, *_ = pairs[batch]
        assert frames.shape == (4, 2) and (frames >= 0).all() and (frames < LENGTHS[clips, None]).all()
        distance = np.abs(frames[:, 0] - frames[:, 1])
        assert (distance >= 1).all() and (distance <= 5).all()


def test_a_window_in_seconds_follows_the_frame_rate() -> None:
    pairs = plan(np.full(12, 200), window=1.0, window_from=0.4, window_unit="seconds")
    distances = [np.abs(np.diff(pairs[batch][1], axis=1)) for batch in range(len(pairs))]
    assert np.min(distances) >= 10 and np.max(distances) <= 25, "0.4 to 1 second at 25 frames a second"


def test_one_frame_is_loaded_where_one_is_enough() -> None:
    assert plan(positives="same")[0][1].shape == (4, 1)
    assert np.array_equal(plan(positives="same")[0][1], plan()[0][1][:, :1])


def test_processes_take_contiguous_blocks_of_the_same_batches() -> None:
    whole, halves = plan(), [plan(rank=rank, processes=2) for rank in range(2)]
    for batch in range(len(whole)):
        for part, place in enumerate(("clips", "frames")):
            joined = np.concatenate([half[batch][part] for half in halves])
            assert np.array_equal(joined, whole[batch][part]), place


def test_samples_do_not_depend_on_the_length_of_the_run() -> None:
    for batch in range(10):
        for a, b in zip(plan(epochs=2)[batch], plan(epochs=9)[batch], strict=True):
            assert np.array_equal(a, b)


def test_accumulation_drops_what_does_not_fill_a_step() -> None:
    assert plan(accumulate=2).per_epoch == 4


def test_the_fill_takes_every_clip_in_whole_batches() -> None:
    fill = FillPlan(plan(batch=5))
    batches = [fill[batch] for batch in range(len(fill))]
    assert all(len(clips) == 5 and frames.shape == (5, 1) for clips, frames, *_ in batches)
    assert set(np.concatenate([clips for clips, *_ in batches])) == set(range(23))
    halves = [FillPlan(plan(batch=6), rank, 2) for rank in range(2)]
    joined = np.concatenate([half[3][0] for half in halves])
    assert np.array_equal(joined, FillPlan(plan(batch=6))[3][0])


def test_clips_that_cannot_be_learned_from_are_reported() -> None:
    with pytest.raises(TceError, match=r"training clips; expected at least two, .*; found 1"):
        plan(LENGTHS[:1], batch=2)
    with pytest.raises(OptionError, match="--batch-size; expected at most the 23 clips; found 24"):
        plan(batch=24)
    with pytest.raises(
        OptionError, match="--batch-size x --accumulate; expected at most the 23 clips; found 32"
    ):
        plan(batch=8, accumulate=4)
    with pytest.raises(
        OptionError, match=r"--positives neighbour; .*23 clips of one frame; use --positives same"
    ):
        plan(np.ones_like(LENGTHS))
    assert len(plan(np.ones_like(LENGTHS), positives="same")) == 15
    with pytest.raises(OptionError, match="a multiple of the 3 processes"):
        plan(processes=3)
