"""Every augmentation against slow loops, and what its draws may and may not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from tce.errors import OptionError
from tce.model.preprocess import normalise
from tce.options.finetune import FinetuneAugmentOptions
from tce.options.pretrain import AugmentOptions
from tce.train.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    ColorJitter,
    Crops,
    StackAugmentation,
    blur,
    crop_boxes,
    quarter_turn,
)

CPU = torch.device("cpu")
ALL = slice(None)
PLAIN = {"flip": 0.0, "grey": 0.0, "brightness": 0.0, "color_contrast": 0.0, "saturation": 0.0, "hue": 0.0}
LUMA = (0.299, 0.587, 0.114)


def frames_of(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


def pixels_of(views: torch.Tensor) -> torch.Tensor:
    """Normalised views as pixels in [0, 1]."""
    mean, std = (torch.tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    return views * std + mean


# Geometry.


def bilinear(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """The image [H, W, 3] at a place in pixels, edges repeated."""
    y, x = y - 0.5, x - 0.5
    top, left = math.floor(y), math.floor(x)
    out = np.zeros(3)
    for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, across in ((left, 1 - (x - left)), (left + 1, x - left)):
            inside = min(max(row, 0), image.shape[0] - 1), min(max(column, 0), image.shape[1] - 1)
            out += down * across * image[inside]
    return out


@pytest.mark.parametrize("shape", [(12, 12), (9, 14), (31, 23)])  # the last is halved first
def test_crops_against_loops(shape: tuple[int, int]) -> None:
    size, count = 8, 5
    frames = frames_of(count, *shape)
    boxes = crop_boxes(np.random.default_rng(0).random((count, 4)), shape, (0.2, 1.0), (0.75, 1.333))
    boxes[0] = (0, 0, *shape)
    flip = np.array([False, True, False, True, True])
    crops = Crops(boxes, flip, shape, size, CPU)
    found = torch.cat([crops(frames[part], part) for part in (slice(0, 2), slice(2, 5))])
    assert found.shape == (count, 3, size, size)
    for m in range(count):
        image, (top, left, height, width) = frames[m].numpy().astype(float), boxes[m]
        while max(height, width) > 1.5 * size:
            even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
            image = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
            top, left, height, width = (number / 2 for number in (top, left, height, width))
        for i in range(size):
            for j in range(size):
                across = (size - 1 - j if flip[m] else j) + 0.5
                expected = bilinear(image, top + (i + 0.5) / size * height, left + across / size * width)
                np.testing.assert_allclose(found[m, :, i, j], expected, atol=2e-3)


def test_a_smooth_image_is_resized_as_by_pil() -> None:
    y, x = np.mgrid[0:96, 0:128] / 20
    image = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=2) * 100 + 127
    frames = torch.from_numpy(image.astype(np.uint8))[None]
    box = np.array([[10.3, 20.7, 60.0, 81.5]])
    found = Crops(box, np.array([False]), (96, 128), 28, CPU)(frames, ALL)[0].permute(1, 2, 0)
    top, left, height, width = box[0]
    wanted = Image.fromarray(frames[0].numpy()).resize(
        (28, 28), Image.Resampling.BILINEAR, (left, top, left + width, top + height)
    )
    assert np.abs(found.numpy() - np.asarray(wanted, dtype=float)).max() < 6


def test_whole_frames_of_the_views_size_are_copied_exactly() -> None:
    frames = frames_of(3, 8, 8)
    boxes = np.tile([0.0, 0.0, 8.0, 8.0], (3, 1))
    found = Crops(boxes, np.array([False, True, False]), (8, 8), 8, CPU)(frames, ALL)
    expected = frames.permute(0, 3, 1, 2).float()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
    assert torch.equal(found[1], expected[1].flip(2))


def test_boxes_lie_inside_and_have_the_wanted_area_and_shape() -> None:
    u = np.random.default_rng(1).random((4000, 4))
    top, left, height, width = crop_boxes(u, (100, 160), (0.2, 0.5), (0.8, 1.25)).T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 100 + 1e-9).all() and (left + width <= 160 + 1e-9).all()
    area, ratio = height * width / 16_000, width / height
    assert 0.2 <= area.min() < 0.21 and 0.49 < area.max() <= 0.5
    assert 0.8 <= ratio.min() < 0.81 and 1.24 < ratio.max() <= 1.2501
    assert abs(area.mean() - 0.35) < 0.01 and abs(np.log(ratio).mean()) < 0.01
    assert abs((top / (100 - height)).mean() - 0.5) < 0.02
    whole = crop_boxes(u, (100, 160), (1.0, 1.0), (0.75, 1.333))
    np.testing.assert_allclose(whole, np.tile([0, 0, 100, 160], (4000, 1)), atol=1e-9)


def test_blur_against_loops() -> None:
    images = torch.rand(3, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    sigma = np.array([0.7, 0.0, 2.0])
    found = blur(images, sigma)
    assert torch.equal(found[1], images[1])
    for m in (0, 2):
        for i in range(9):
            for j in range(9):
                total, value = 0.0, np.zeros(3)
                for a in range(9):
                    for b in range(9):
                        weight = math.exp(-((a - i) ** 2 + (b - j) ** 2) / (2 * sigma[m] ** 2))
                        total += weight
                        value += weight * images[m, :, a, b].numpy()
                np.testing.assert_allclose(found[m, :, i, j], value / total, atol=1e-5)


def test_quarter_turns_are_those_of_numpy() -> None:
    images = torch.rand(6, 3, 5, 5)
    rotation_label = np.array([0, 1, 2, 3, 1, 0])
    found = quarter_turn(images, rotation_label)
    for m in range(6):
        assert np.array_equal(found[m], np.rot90(images[m].numpy(), rotation_label[m], (1, 2)))


# Colours.


def luminance(pixel: np.ndarray) -> float:
    return sum(weight * value for weight, value in zip(LUMA, pixel, strict=True))


def rotated_in_yiq(pixel: np.ndarray, turn: float) -> np.ndarray:
    to_yiq = np.array([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    y, i, q = to_yiq @ pixel
    number = complex(i, q) * complex(math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn))
    return np.linalg.solve(to_yiq, [y, number.real, number.imag])


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_linear_jitter_against_loops_in_any_order(order: tuple[int, ...]) -> None:
    """Its four steps commute: one result is right for every order."""
    images = torch.rand(4, 3, 3, 5, generator=torch.Generator().manual_seed(0)) * 255
    factors = np.array([[0.6, 1.4, 0.5, 0.1], [1.3, 0.7, 1.5, -0.25], [1, 1, 1, 0], [0.9, 1.2, 0.0, 0.2]])
    channel = np.array([-1, -1, 2, 0])
    jitter = ColorJitter(channel, factors, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), CPU)
    found = torch.cat([jitter(images[part], part) for part in (slice(0, 3), slice(3, 4))])
    for m in range(4):
        image = images[m].permute(1, 2, 0).double().numpy().reshape(-1, 3) / 255
        if channel[m] >= 0:
            image = np.repeat(image[:, channel[m], None], 3, axis=1)
        for kind in order:
            factor = factors[m, kind]
            middle = np.mean([luminance(pixel) for pixel in image])
            for n, pixel in enumerate(image):
                if kind == 0:
                    image[n] = factor * pixel
                elif kind == 1:
                    image[n] = factor * pixel + (1 - factor) * middle
                elif kind == 2:
                    image[n] = factor * pixel + (1 - factor) * luminance(pixel)
                else:
                    image[n] = rotated_in_yiq(pixel, factor)
        wanted = (image.clip(0, 1) - (0.4, 0.5, 0.6)) / (0.2, 0.3, 0.4)
        np.testing.assert_allclose(found[m].permute(1, 2, 0).reshape(-1, 3), wanted, atol=2e-5)


def test_nothing_drawn_leaves_the_frames_as_they_are() -> None:
    frames = frames_of(3, 2, 16, 16)
    options = AugmentOptions(crop_scale=(1.0, 1.0), **PLAIN)
    views = Augmentation(options, 16)(frames, np.arange(3), 0, 0)
    expected = frames.permute(0, 1, 4, 2, 3) / 255
    torch.testing.assert_close(pixels_of(views), expected, atol=2e-6, rtol=0)


# What is drawn.


def augmented(
    options: AugmentOptions, frames: torch.Tensor, samples: list[int], epoch: int = 0, seed: int = 0
) -> torch.Tensor:
    return Augmentation(options, 12)(frames, np.array(samples), epoch, seed)


def test_a_samples_views_do_not_depend_on_the_batch() -> None:
    options, frames = AugmentOptions(blur=0.5), frames_of(40, 2, 14, 14)
    whole = augmented(options, frames, list(range(100, 140)), epoch=3, seed=5)
    some = [31, 2, 17]
    part = augmented(options, frames[some], [100 + n for n in some], epoch=3, seed=5)
    torch.testing.assert_close(part, whole[some], atol=1e-5, rtol=0)
    again = augmented(options, frames, list(range(100, 140)), epoch=3, seed=5)
    assert torch.equal(whole, again)


def test_another_sample_epoch_seed_or_view_is_drawn_anew() -> None:
    frame = frames_of(1, 1, 14, 14).expand(1, 2, -1, -1, -1)
    options = AugmentOptions()
    first = augmented(options, frame, [7])
    others = [augmented(options, frame, [8])[0, 0], augmented(options, frame, [7], epoch=1)[0, 0]]
    others += [augmented(options, frame, [7], seed=1)[0, 0], first[0, 1]]
    for other in others:
        assert (first[0, 0] - other).abs().max() > 0.1


def test_a_view_does_not_depend_on_how_many_there_are() -> None:
    frames, options = frames_of(6, 3, 14, 14), AugmentOptions()
    samples = list(range(6))
    three, one = augmented(options, frames, samples), augmented(options, frames[:, :1], samples)
    torch.testing.assert_close(one, three[:, :1], atol=1e-5, rtol=0)
    augmentation = Augmentation(options, 12)
    views, rotated, label = augmentation.with_rotated(frames, np.arange(6), 0, 0)
    torch.testing.assert_close(views, three, atol=1e-5, rtol=0)
    assert rotated.shape == (6, 3, 12, 12) and label.shape == (6,)
    for m in range(6):
        upright = torch.rot90(rotated[m], -int(label[m]), (1, 2))
        assert (upright - three[m, 0]).abs().max() > 0.1  # re-augmented on its own


def test_the_pair_shares_what_it_should() -> None:
    frames = frames_of(60, 1, 14, 14).expand(60, 2, -1, -1, -1)
    samples = list(range(60))
    flips = {**PLAIN, "flip": 0.5}
    shared = augmented(AugmentOptions(crops="shared", **flips), frames, samples)
    torch.testing.assert_close(shared[:, 0], shared[:, 1], atol=1e-5, rtol=0)
    independent = augmented(AugmentOptions(crops="independent", **flips), frames, samples)
    assert bool(((independent[:, 0] - independent[:, 1]).abs().amax(dim=(1, 2, 3)) > 0.1).all())
    mirrored = augmented(AugmentOptions(crop_scale=(1.0, 1.0), **flips), frames, samples)
    torch.testing.assert_close(mirrored[:, 0], mirrored[:, 1], atol=1e-5, rtol=0)
    plain = augmented(AugmentOptions(crop_scale=(1.0, 1.0), **PLAIN), frames, samples)
    share = float((mirrored - plain).abs().amax(dim=(1, 2, 3, 4)).gt(1e-3).float().mean())
    assert 0.3 < share < 0.7


def test_draws_have_the_stated_ranges_and_probabilities() -> None:
    options = AugmentOptions(blur=0.5, brightness=0.4, hue=0.1)
    augmentation = Augmentation(options, 112)
    numbers = augmentation._numbers(np.arange(4000), 0, 0, 1, shared=True)
    draws = augmentation._draws(numbers, (128, 128))
    assert abs(draws.flip.mean() - 0.5) < 0.03
    assert abs((draws.channel >= 0).mean() - 0.5) < 0.03
    assert set(draws.channel.tolist()) == {-1, 0, 1, 2}
    np.testing.assert_allclose(draws.factors.min(axis=0), [0.6, 0.5, 0.5, -0.1], atol=2e-3)
    np.testing.assert_allclose(draws.factors.max(axis=0), [1.4, 1.5, 1.5, 0.1], atol=2e-3)
    blurred = draws.sigma[draws.sigma > 0]
    assert abs(len(blurred) / 4000 - 0.5) < 0.03
    assert 0.05 <= blurred.min() < 0.06 and 0.99 < blurred.max() <= 1.0
    numbers = np.corrcoef(numbers.T)
    assert np.abs(numbers - np.eye(len(numbers))).max() < 0.06  # nothing drawn twice


def test_rotations_are_uniform_and_undone_by_turning_back() -> None:
    frames = frames_of(400, 12, 12)
    options = AugmentOptions(crop_scale=(1.0, 1.0), **PLAIN)
    _, rotated, label = Augmentation(options, 12).with_rotated(frames[:, None], np.arange(400), 0, 0)
    counts = torch.bincount(label, minlength=4)
    assert int(counts.min()) > 70
    expected = frames.permute(0, 3, 1, 2) / 255
    for quarter in range(4):
        some = label == quarter
        back = torch.rot90(pixels_of(rotated[some]), -quarter, (2, 3))
        torch.testing.assert_close(back, expected[some], atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_views_are_channels_last_of_the_wanted_type(dtype: torch.dtype) -> None:
    views = Augmentation(AugmentOptions(), 12, dtype=dtype)(frames_of(3, 2, 14, 10), np.arange(3), 0, 0)
    assert views.shape == (3, 2, 3, 12, 12) and views.dtype == dtype
    assert views.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("field, value", [("blur", 1.5), ("crop_scale", (0.5, 0.2))])
def test_options_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(OptionError):
        AugmentOptions(**{field: value})


def test_a_stack_is_cropped_mirrored_and_coloured_as_one() -> None:
    still = np.random.default_rng(0).integers(0, 256, (4, 1, 40, 40, 3), dtype=np.uint8)
    frames = torch.from_numpy(np.repeat(still, 6, axis=1))
    options = FinetuneAugmentOptions(crop_scale=(0.3, 0.9), flip=0.5, color=0.5)
    augment = StackAugmentation(options, 24, IMAGENET_MEAN, IMAGENET_STD)
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
    plain = normalise(frames.flatten(0, 1).permute(0, 3, 1, 2), IMAGENET_MEAN, IMAGENET_STD)
    whole = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    none = StackAugmentation(FinetuneAugmentOptions(flip=0.0, **whole), 16, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(none(frames, np.arange(8), 0, 0), plain)
    flipped = StackAugmentation(FinetuneAugmentOptions(flip=1.0, **whole), 16, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(flipped(frames, np.arange(8), 0, 0), plain.flip(-1), rtol=1e-4, atol=1e-4)
