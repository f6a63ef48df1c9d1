from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tce.errors import TceError
from tce.model.preprocess import normalise
from tce.options.finetune import FinetuneAugmentOptions
from tce.train.stacks import StackAugmentation, StackPlan, balance, occurrences

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def plan(clips: int = 23, **changes: object) -> StackPlan:
    """A plan over every second row of a store."""
    rng = np.random.default_rng(0)
    base = {
        "labels": np.arange(clips) % 3,
        "lengths": rng.integers(1, 40, clips),
        "batch_size": 5,
        "epochs": 3,
    }
    return StackPlan(np.arange(clips) * 2 + 7, **{**base, "span": 6, **changes})  # type: ignore[arg-type]


def test_an_epoch_takes_every_clip_once_in_its_own_order() -> None:
    made = plan()
    assert made.per_epoch == 5 and len(made) == 15
    epochs = [np.concatenate([made[e * 5 + i][0] for i in range(5)]) for e in range(3)]
    for order in epochs:
        assert sorted(order.tolist()) == made.rows.tolist()
    assert epochs[0].tolist() != epochs[1].tolist()


@pytest.mark.parametrize("parts", [1, 3])
def test_stacks_are_consecutive_and_repeat_the_last_frame(parts: int) -> None:
    made = plan(parts=parts)
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
    assert plan(21).per_epoch == 4
    assert plan(22).per_epoch == 5
    assert plan(3).per_epoch == 1 and len(plan(3)[0][0]) == 3
    assert plan(23, accumulate=2).per_epoch == 4
    few = plan(6, accumulate=4)
    assert few.per_epoch == 4 and [len(few[i][0]) for i in range(4)] == [5, 5, 5, 5]
    with pytest.raises(TceError, match="the training clips; expected at least 2; found 1"):
        plan(1)


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
    made = plan(30, labels=np.array([0] * 28 + [1, 2]), balanced=True, lengths=np.full(30, 500))
    rare = [
        (int(sample), int(index[0]))
        for position in range(made.per_epoch)
        for clip, sample, index in zip(*(made[position][:1]), made.samples(position), made[position][1])
        if clip == made.rows[28]
    ]
    assert len(rare) == 10 and len(set(rare)) == 10 and len({start for _, start in rare}) > 5


def test_samples_are_a_function_of_seed_epoch_and_clip_alone() -> None:
    made, again, other = plan(), plan(), plan(seed=1)
    backwards = [again[i] for i in reversed(range(15))][::-1]
    for position in range(15):
        for a, b in zip(made[position], backwards[position], strict=True):
            np.testing.assert_array_equal(a, b)
    assert any((made[i][1] != other[i][1]).any() for i in range(15) if made[i][1].shape == other[i][1].shape)


def test_a_stack_is_cropped_mirrored_and_coloured_as_one() -> None:
    still = np.random.default_rng(0).integers(0, 256, (4, 1, 40, 40, 3), dtype=np.uint8)
    frames = torch.from_numpy(np.repeat(still, 6, axis=1))
    options = FinetuneAugmentOptions(crop_scale=(0.3, 0.9), flip=0.5, color=0.5)
    augment = StackAugmentation(options, 24, MEAN, STD)
    images = augment(frames, np.arange(4), 0, 0).unflatten(0, (4, 6))
    assert images.shape == (4, 6, 3, 24, 24)
    torch.testing.assert_close(images, images[:, :1].expand_as(images))
    assert not torch.allclose(images[0], images[1])
    torch.testing.assert_close(augment(frames, np.arange(4), 0, 0).unflatten(0, (4, 6)), images)
    assert not torch.allclose(augment(frames, np.arange(4), 1, 0).unflatten(0, (4, 6)), images)
    alone = augment(frames[2:3], np.arange(2, 3), 0, 0)
    torch.testing.assert_close(alone, images[2])


def test_mirroring_alone_leaves_the_pixels() -> None:
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 2, 16, 16, 3), dtype=np.uint8))
    plain = normalise(frames.flatten(0, 1).permute(0, 3, 1, 2), MEAN, STD)
    whole = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    none = StackAugmentation(FinetuneAugmentOptions(flip=0.0, **whole), 16, MEAN, STD)
    torch.testing.assert_close(none(frames, np.arange(8), 0, 0), plain)
    flipped = StackAugmentation(FinetuneAugmentOptions(flip=1.0, **whole), 16, MEAN, STD)
    torch.testing.assert_close(flipped(frames, np.arange(8), 0, 0), plain.flip(-1), rtol=1e-4, atol=1e-4)
