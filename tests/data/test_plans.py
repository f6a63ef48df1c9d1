"""The batches of a run: which clips and frames, in which order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tce.data.sampling import (
    FillPlan,
    PairPlan,
    StackPlan,
    balance,
    group_batches,
    occurrences,
)
from tce.errors import OptionError, TceError
from tce.options.pretrain import ContrastOptions, PretrainOptimOptions

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


def stack_plan(clips: int = 23, **changes: object) -> StackPlan:
    """A plan over every second row of a store."""
    rng = np.random.default_rng(0)
    base = {
        "labels": np.arange(clips) % 3,
        "lengths": rng.integers(1, 40, clips),
        "batch_size": 5,
        "epochs": 3,
    }
    return StackPlan(np.arange(clips) * 2 + 7, **{**base, "span": 6, **changes})  # type: ignore[arg-type]


def test_an_epoch_of_stacks_takes_every_clip_once_in_its_own_order() -> None:
    made = stack_plan()
    assert made.per_epoch == 5 and len(made) == 15
    epochs = [np.concatenate([made[e * 5 + i][0] for i in range(5)]) for e in range(3)]
    for order in epochs:
        assert sorted(order.tolist()) == made.rows.tolist()
    assert epochs[0].tolist() != epochs[1].tolist()


@pytest.mark.parametrize("parts", [1, 3])
def test_stacks_are_consecutive_and_repeat_the_last_frame(parts: int) -> None:
    made = stack_plan(parts=parts)
    starts = set()
    for position in range(len(made)):
        clips, index, *_ = made[position]
        assert index.shape == (len(clips), parts * 6)
        for clip, frames in zip(clips, index, strict=True):
            n = int(made.lengths[made.rows.tolist().index(clip)])
            for stack in frames.reshape(parts, 6):
                expected = [min(stack[0] + j, n - 1) for j in range(6)]
                assert stack.tolist() == expected and stack[0] >= 0
                assert n < 6 or stack[-1] == stack[0] + 5, "a clip that is long enough repeats nothing"
                starts.add((int(clip), int(stack[0])))
    assert len(starts) > 40, "starts differ from epoch to epoch"


def test_a_last_batch_of_one_clip_is_left_out_and_steps_are_whole() -> None:
    assert stack_plan(21).per_epoch == 4
    assert stack_plan(22).per_epoch == 5
    assert stack_plan(3).per_epoch == 1 and len(stack_plan(3)[0][0]) == 3
    assert stack_plan(23, accumulate=2).per_epoch == 4
    few = stack_plan(6, accumulate=4)
    assert few.per_epoch == 4 and [len(few[i][0]) for i in range(4)] == [5, 5, 5, 5]
    with pytest.raises(TceError, match="the training clips; expected at least 2; found 1"):
        stack_plan(1)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(0, 5))
def test_balanced_draws_take_classes_equally_and_clips_in_turn(labels: list[int], epoch: int) -> None:
    held = np.array(labels)
    order = np.random.default_rng(epoch).permutation(len(held))
    drawn = balance(order, held, 3, epoch)
    assert len(drawn) == len(held)
    counts = np.bincount(held[drawn], minlength=5)[np.unique(held)]
    assert counts.max() - counts.min() <= 1
    for label in set(labels):
        times = np.bincount(drawn[held[drawn] == label], minlength=len(held))[held == label]
        assert times.max() - times.min() <= 1


def test_a_clip_drawn_again_gets_a_draw_of_its_own() -> None:
    assert occurrences(np.array([4, 2, 4, 4, 2, 0])).tolist() == [0, 0, 1, 2, 1, 0]
    made = stack_plan(30, labels=np.array([0] * 28 + [1, 2]), balanced=True, lengths=np.full(30, 500))
    rare = [
        (int(sample), int(index[0]))
        for position in range(made.per_epoch)
        for clip, sample, index in zip(*(made[position][:1]), made[position].samples, made[position][1])
        if clip == made.rows[28]
    ]
    assert len(rare) == 10 and len(set(rare)) == 10 and len({start for _, start in rare}) > 5


def test_samples_are_a_function_of_seed_epoch_and_clip_alone() -> None:
    made, again, other = stack_plan(), stack_plan(), stack_plan(seed=1)
    backwards = [again[i] for i in reversed(range(15))][::-1]
    for position in range(15):
        for a, b in zip(made[position], backwards[position], strict=True):
            np.testing.assert_array_equal(a, b)
    assert any((made[i][1] != other[i][1]).any() for i in range(15) if made[i][1].shape == other[i][1].shape)


# Batches of one group.


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    batch=st.integers(2, 5),
    share=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_share_of_the_batches_is_of_one_group(
    sizes: list[int], batch: int, share: float, seed: int
) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    order = np.random.default_rng(seed).permutation(len(groups))
    blocks = group_batches(order, groups, batch, share)
    assert len(blocks) == len(groups) // batch and all(len(block) == batch for block in blocks)
    taken = np.concatenate([*blocks, order[:0]])
    assert len(set(taken)) == len(taken), "each clip at most once"
    possible = sum(size // batch for size in sizes)
    wanted = min(round(share * len(blocks)), possible)
    assert all(len(set(groups[block])) == 1 for block in blocks[:wanted])
    whole = [block for block in blocks if len(set(groups[block])) == 1]
    assert len(whole) >= wanted


def test_single_batches_come_at_any_time_and_from_every_group() -> None:
    groups = ["one"] * 12 + ["two"] * 12
    optim, contrast = (
        PretrainOptimOptions(epochs=20, batch_size=4),
        ContrastOptions(batch_groups=0.5, group="g"),
    )
    pairs = PairPlan(np.full(24, 9), np.full(24, 25.0), contrast, optim, 7, groups=groups)
    of_one = np.array([len({groups[clip] for clip in pairs[batch][0]}) == 1 for batch in range(len(pairs))])
    assert 0.5 <= of_one.mean() < 0.65, "mixed batches are of one group by chance now and then"
    by_place = of_one.reshape(20, 6).mean(axis=0)
    assert (by_place > 0.2).all() and (by_place < 0.9).all(), "neither first nor last in an epoch"
    seen = {groups[pairs[batch][0][0]] for batch in np.flatnonzero(of_one).tolist()}
    assert seen == {"one", "two"}
    halves = [
        PairPlan(np.full(24, 9), np.full(24, 25.0), contrast, optim, 7, rank, 2, groups) for rank in (0, 1)
    ]
    joined = np.concatenate([half[5][0] for half in halves])
    assert np.array_equal(joined, pairs[5][0])


def test_groups_smaller_than_a_batch_are_refused() -> None:
    optim, contrast = PretrainOptimOptions(batch_size=4), ContrastOptions(batch_groups=1.0, group="g")
    with pytest.raises(
        OptionError, match=r"--batch-groups; expected a group of 4 clips.*found 3 in the largest"
    ):
        PairPlan(np.full(9, 9), np.full(9, 25.0), contrast, optim, 7, groups=list("aaabbbccc"))
    with pytest.raises(OptionError, match=r"--batch-groups; expected --group as well"):
        ContrastOptions(batch_groups=0.5)
