"""Augmentation of frames, batched on the device; draws are pure functions of seed, epoch, sample and view.

By hand, since kornia takes four to six times as long on a CPU.

The four changes of colour are those of the 2020 code (brightness, contrast, saturation, hue), but without
clipping in between and with the hue rotated in the YIQ plane, which keeps luminance. They then commute, so
that no order is drawn, and grey, jitter and normalisation are one 3 x 3 matrix a frame: many times faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tce.model.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise
from tce.options.finetune import FinetuneAugmentOptions
from tce.options.pretrain import AugmentOptions
from tce.rng import uniform

# Streams of the counter-based generator: a kind's stream in a view is VIEW + SPAN * view + kind.
SHARED, VIEW, SPAN = 100, 110, 10
CROP, FLIP, GREY, JITTER, TURN, BLUR = range(6)
STACK_CROP, STACK_FLIP, STACK_COLOR = 200, 201, 202  # of fine-tuning
ROTATED_VIEW = 50  # the rotated view's draws are its own, however many other views there are

TOGETHER = 2**19  # numbers of views worked on together on a CPU: what its cache holds
MOST_SHRINK = 1.5  # source pixels a target pixel, beyond which a bilinear sample skips too many
BLUR_SIGMA = (0.1, 2.0)  # pixels of a 224 pixel view (SimCLR), in proportion for others

Numbers = NDArray[np.float64]

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
TO_YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
LUMINANCE = np.ones((3, 1)) * LUMA  # keeps Y alone
CHROMINANCE = np.eye(3) - LUMINANCE  # keeps I and Q
QUARTER = np.linalg.inv(TO_YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ TO_YIQ  # rotates them by 90°
Channels = NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """What was drawn for M frames, on the CPU."""

    boxes: Numbers
    """Crops: top, left, height and width in pixels, [M, 4]."""
    flip: NDArray[np.bool_]
    """Which are mirrored, [M]."""
    channel: NDArray[np.int64]
    """Channel that replaces the others, -1 none, [M]."""
    factors: Numbers
    """Of brightness, contrast and saturation, and the shift of hue in turns, [M, 4]."""
    sigma: Numbers
    """Blur in pixels of the view, 0 none, [M]."""


class Augmentation:
    """Frames as loaded -> normalised views, ready for the network.

    In order: random resized crop, mirroring, channel-split grey (paper, section 4), colour jitter, blur.

    Args:
        options: kinds and strengths.
        size: side of the views, pixels.
        mean: subtracted from each channel, of pixels in [0, 1].
        std: divides each channel.
        dtype: of the views.
        memory_format: of the views.
    """

    def __init__(
        self,
        options: AugmentOptions,
        size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.channels_last,
    ):
        self.options = options
        self.size = size
        self.dtype = dtype
        self.memory_format = memory_format
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, frames: Tensor, samples: NDArray[np.int64], epoch: int, seed: int) -> Tensor:
        """One view of each frame, [B, V, 3, h, w].

        Args:
            frames: uint8 [B, V, H, W, 3], on the device that is to do the work.
            samples: what the draws are keyed by, int64 [B].
            epoch: likewise.
            seed: likewise.
        """
        batch, views = frames.shape[:2]
        draws = self._draws(self._of_views(views, samples, epoch, seed), frames.shape[2:4])
        return self.apply(frames.flatten(0, 1), draws).unflatten(0, (batch, views))

    def with_rotated(
        self, frames: Tensor, samples: NDArray[np.int64], epoch: int, seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As above, and of each first frame another view, drawn on its own and rotated by quarter turns.

        Returns:
            Views [B, V, 3, h, w], the rotated ones [B, 3, h, w], and by how many quarter turns, int64 [B].
        """
        batch, views = frames.shape[:2]
        own = self._numbers(samples, epoch, seed, ROTATED_VIEW, shared=False)
        numbers = np.concatenate([self._of_views(views, samples, epoch, seed), own])
        flat = torch.cat([frames.flatten(0, 1), frames[:, 0]])  # in one go, which is faster than two
        upright, rotated = self.apply(flat, self._draws(numbers, frames.shape[2:4])).split(batch * views)
        turn = uniform(seed, epoch, samples, VIEW + SPAN * ROTATED_VIEW + TURN, 1)[:, 0]
        label = (turn * 4).astype(np.int64)
        rotated = quarter_turn(rotated, label)
        return upright.unflatten(0, (batch, views)), rotated, torch.from_numpy(label).to(frames.device)

    def _of_views(self, views: int, samples: NDArray[np.int64], epoch: int, seed: int) -> Numbers:
        """Uniform numbers of all views, [B V, 13]."""
        numbers = [self._numbers(samples, epoch, seed, view, shared=True) for view in range(views)]
        return np.stack(numbers, axis=1).reshape(len(samples) * views, -1)

    def apply(self, frames: Tensor, draws: Draws) -> Tensor:
        """Carry out what was drawn on frames uint8 [M, H, W, 3]; [M, 3, h, w]."""
        count, device = len(frames), frames.device
        shape = (count, 3, self.size, self.size)
        views = torch.empty(shape, dtype=self.dtype, device=device, memory_format=self.memory_format)
        crops = Crops(draws.boxes, draws.flip, frames.shape[1:3], self.size, device)
        jitter = ColorJitter(draws.channel, draws.factors, self.mean, self.std, device)
        together = frames_together(self.size) if device.type == "cpu" else max(1, count)
        for first in range(0, count, together):
            part = slice(first, first + together)
            made = blur(jitter(crops(frames[part], part), part), draws.sigma[part])
            views[part] = made.to(self.dtype)
        return views

    def _numbers(self, samples: NDArray[np.int64], epoch: int, seed: int, view: int, shared: bool) -> Numbers:
        """One view's uniform numbers, [B, 13]: crop 4, flip 1, grey 2, jitter 4, blur 2."""
        own = VIEW + SPAN * view
        pair = SHARED if shared else own
        crop = SHARED if shared and self.options.crops == "shared" else own
        streams = ((crop + CROP, 4), (pair + FLIP, 1), (own + GREY, 2), (own + JITTER, 4), (own + BLUR, 2))
        return np.concatenate([uniform(seed, epoch, samples, *stream) for stream in streams], axis=1)

    def _draws(self, numbers: Numbers, shape: Sequence[int]) -> Draws:
        options = self.options
        crop, flip, grey, jitter, blurred = np.split(numbers, (4, 5, 7, 11), axis=1)
        strength = [options.brightness, options.color_contrast, options.saturation, options.hue]
        low, high = (bound * self.size / 224 for bound in BLUR_SIGMA)
        return Draws(
            boxes=crop_boxes(crop, shape, options.crop_scale, options.crop_ratio),
            flip=flip[:, 0] < options.flip,
            channel=np.where(grey[:, 0] < options.grey, (grey[:, 1] * 3).astype(np.int64), -1),
            factors=(2 * jitter - 1) * strength + [1.0, 1.0, 1.0, 0.0],
            sigma=np.where(blurred[:, 0] < options.blur, low + blurred[:, 1] * (high - low), 0.0),
        )


def frames_together(size: int) -> int:
    """How many frames a CPU works on together, for views of that side."""
    return max(1, TOGETHER // (3 * size * size))


def crop_boxes(u: Numbers, shape: Sequence[int], scale: Sequence[float], ratio: Sequence[float]) -> Numbers:
    """Boxes (top, left, height, width) in pixels of random area and shape inside a frame, [M, 4].

    Area is uniform, the aspect ratio log-uniform, the place uniform; a box larger than the frame is cut to
    it. Whole frames (scale 1 to 1) keep their shape.

    Args:
        u: uniform numbers [M, 4].
        shape: height and width of the frames.
        scale: smallest and largest share of the frame's area.
        ratio: smallest and largest width over height.
    """
    height, width = shape[:2]
    area = height * width * (scale[0] + u[:, 0] * (scale[1] - scale[0]))
    aspect = np.exp(math.log(ratio[0]) + u[:, 1] * math.log(ratio[1] / ratio[0]))
    if min(scale) == 1:
        aspect = np.full_like(aspect, width / height)
    w = np.minimum(np.sqrt(area * aspect), width)
    h = np.minimum(np.sqrt(area / aspect), height)
    return np.stack([u[:, 2] * (height - h), u[:, 3] * (width - w), h, w], axis=1)


class Crops:
    """Cuts boxes out of frames, resizes them bilinearly and mirrors some.

    Where a box is more than `MOST_SHRINK` times as large as the view, the frame is halved first, as often as
    that takes, so that no pixel is skipped.

    Args:
        boxes: top, left, height and width in pixels, [M, 4].
        flip: which to mirror, [M].
        shape: height and width of the frames.
        size: side of the views.
        device: where the frames are.
    """

    def __init__(
        self, boxes: Numbers, flip: NDArray[np.bool_], shape: Sequence[int], size: int, device: torch.device
    ):
        self.size, self.shape = size, np.array(shape[:2])
        starts, lengths = boxes[:, :2].copy(), boxes[:, 2:].copy()  # [M, 2], along height and width
        shrink = lengths.max(axis=1) / size
        self.halvings = np.ceil(np.log2(np.maximum(shrink / MOST_SHRINK, 1))).astype(np.int64)
        self.copies = bool((self.shape == size).all() and (lengths == size).all())
        starts[flip, 1] += lengths[flip, 1]
        lengths[flip, 1] *= -1  # read from right to left
        middles = (np.arange(size) + 0.5) / size
        places = starts[:, :, None] + lengths[:, :, None] * middles  # [M, 2, size], pixels
        places = places / self._edges(self.halvings)[:, :, None] * 2 - 1  # [-1, 1] is edge to edge
        self.places = torch.from_numpy(places.astype(np.float32)).to(device)
        self.flip = torch.from_numpy(flip).to(device)[:, None, None, None]

    def __call__(self, frames: Tensor, part: slice) -> Tensor:
        """The views of the frames of a part, float32 [m, 3, size, size] in [0, 255].

        Args:
            frames: uint8 [m, H, W, 3].
            part: which of the M frames they are.
        """
        planes = frames.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        if self.copies:
            return torch.where(self.flip[part], planes.flip(3), planes)
        halvings = self.halvings[part]
        if not halvings.any():
            return self._sample(planes, self.places[part])
        views = planes.new_empty(len(planes), 3, self.size, self.size)
        for times in np.unique(halvings):
            index = torch.from_numpy(np.flatnonzero(halvings == times)).to(planes.device)
            smaller = planes[index]
            for _ in range(times):
                smaller = halve(smaller)
            views[index] = self._sample(smaller, self.places[part][index])
        return views

    def _edges(self, halvings: NDArray[np.int64]) -> Numbers:
        """Height and width [M, 2], in pixels of the frame, of what is left after halving."""
        factor = 2 ** halvings[:, None]
        return (self.shape // factor * factor).astype(np.float64)

    def _sample(self, planes: Tensor, places: Tensor) -> Tensor:
        """Bilinear samples at the middles of the views' pixels."""
        y, x = places.unbind(1)  # [m, size]
        grid = torch.stack(
            [x[:, None].expand(-1, self.size, -1), y[:, :, None].expand(-1, -1, self.size)], dim=3
        )
        return F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)


def halve(planes: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, [M, 3, H // 2, W // 2]; several times as fast on a CPU as pooling."""
    height, width = planes.shape[2] // 2 * 2, planes.shape[3] // 2 * 2
    rows = planes[:, :, 0:height:2] + planes[:, :, 1:height:2]
    return (rows[..., 0:width:2] + rows[..., 1:width:2]).mul_(0.25)


def blur(images: Tensor, sigma: Numbers) -> Tensor:
    """Gaussian blur of the images [M, 3, h, h] whose sigma [M], in pixels, is not 0; the others stay."""
    some = np.flatnonzero(sigma)
    if not len(some):
        return images
    pixel = np.arange(images.shape[2])
    squared = (pixel[:, None] - pixel) ** 2
    weights = np.exp(-squared / (2 * sigma[some, None, None] ** 2))  # [S, h, h]
    weights[weights < 1e-8] = 0  # denormal numbers make a CPU's product thirty times as slow
    weights /= weights.sum(axis=2, keepdims=True)
    kernel = torch.from_numpy(weights.astype(np.float32)).to(images.device).mT
    index = torch.from_numpy(some).to(images.device)
    blurred = images[index]
    for _ in range(2):  # along the width, then, turned over, along the height
        blurred = (blurred.flatten(1, 2) @ kernel).view_as(blurred).mT.contiguous()
    return images.index_copy(0, index, blurred)


def quarter_turn(images: Tensor, label: NDArray[np.int64]) -> Tensor:
    """Rotate square images [M, 3, h, h] counter-clockwise by `label` [M] quarter turns."""
    rotated = images.clone(memory_format=torch.preserve_format)
    for quarter in (1, 2, 3):
        index = torch.from_numpy(np.flatnonzero(label == quarter)).to(images.device)
        rotated[index] = torch.rot90(images[index], quarter, (2, 3))
    return rotated


class ColorJitter:
    """Grey, jitter without clipping in between, clipping, normalisation.

    Args:
        channel: replaces the other two, -1 for none, [M].
        factors: of brightness, contrast and saturation, and the hue's shift in turns, [M, 4].
        mean: subtracted from each channel, of pixels in [0, 1].
        std: divides each channel.
        device: where the images are.
    """

    def __init__(
        self,
        channel: Channels,
        factors: Numbers,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ):
        self.changes = bool((channel >= 0).any() or (factors != [1, 1, 1, 0]).any())
        brightness, contrast, saturation, hue = (column[:, None, None] for column in factors.T)
        angle = 2 * np.pi * hue
        rotated = LUMINANCE + np.cos(angle) * CHROMINANCE + np.sin(angle) * QUARTER  # [M, 3, 3]
        grey = channel_matrix(channel)
        matrix = brightness * contrast * (saturation * rotated + (1 - saturation) * LUMINANCE) @ grey
        # Contrast moves pixels away from the mean luminance, which is linear in the channels' means.
        from_mean = brightness * (1 - contrast) * LUMA @ grey  # [M, 1, 3]
        centre, spread = np.array(mean)[:, None], np.array(std)[:, None]
        weights = np.concatenate([matrix / spread, from_mean / spread], axis=1) / 255  # [M, 6, 3]
        self.weights = torch.from_numpy(weights.astype(np.float32)).to(device)
        ends = torch.from_numpy(np.array([(0 - centre) / spread, (1 - centre) / spread], np.float32))
        self.black, self.white = ends.to(device)  # [3, 1], normalised

    def __call__(self, images: Tensor, part: slice) -> Tensor:
        """The images of a part, float32 [m, 3, h, w] in [0, 255], normalised."""
        if not self.changes:
            scale = (self.white - self.black) / 255
            return torch.addcmul(self.black[..., None], scale[..., None], images)
        weights = self.weights[part]
        shift = weights[:, 3:] @ images.mean(dim=(2, 3))[:, :, None]  # [m, 3, 1]
        pixels = torch.baddbmm(shift + self.black, weights[:, :3], images.flatten(2))  # [m, 3, h w]
        return torch.clamp_(pixels, self.black, self.white).view_as(images)


def channel_matrix(channel: Channels) -> Numbers:
    """Matrices [M, 3, 3] that replace all channels by one, or for -1 leave them."""
    choices = np.zeros((4, 3, 3))
    for single in range(3):
        choices[single, :, single] = 1
    choices[-1] = np.eye(3)
    return choices[channel]


class StackAugmentation:
    """Normalised frames with random crop, mirroring and colour, the same for all frames of a sample.

    Args:
        options: kinds and strengths.
        size: side of the result in pixels.
        mean: per-channel mean, of pixels in [0, 1].
        std: per-channel standard deviation.
    """

    def __init__(
        self,
        options: FinetuneAugmentOptions,
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        self.options = options
        self.mean = mean
        self.std = std
        planar = torch.contiguous_format  # the layout that differences are computed in
        self._augment = Augmentation(AugmentOptions(), size, mean, std, memory_format=planar)

    def __call__(self, frames: Tensor, samples: NDArray[np.int64], epoch: int, seed: int) -> Tensor:
        """Normalised frames float32 [B F, 3, h, w], sample by sample.

        Args:
            frames: uint8 [B, F, H, W, 3], on the device that computes.
            samples: keys of the random draws, [B].
            epoch: of the random draws.
            seed: of the random draws.
        """
        flat = frames.flatten(0, 1)  # [B F, H, W, 3]
        if self.options.none:
            return normalise(flat.permute(0, 3, 1, 2), self.mean, self.std)
        options, count = self.options, len(samples)
        crop = uniform(seed, epoch, samples, STACK_CROP, 4)
        color = uniform(seed, epoch, samples, STACK_COLOR, 4)
        strength = options.color * np.array([1, 1, 1, 0.5])
        draws = Draws(
            boxes=crop_boxes(crop, flat.shape[1:3], options.crop_scale, options.crop_ratio),
            flip=uniform(seed, epoch, samples, STACK_FLIP, 1)[:, 0] < options.flip,
            channel=np.full(count, -1),
            factors=(2 * color - 1) * strength + np.array([1, 1, 1, 0]),
            sigma=np.zeros(count),
        )
        each_frame = np.repeat(np.arange(count), frames.shape[1])
        return self._augment.apply(
            flat, Draws(**{name: value[each_frame] for name, value in vars(draws).items()})
        )
