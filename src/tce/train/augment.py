"""Augmentation of frames, batched on the device; draws are pure functions of seed, epoch, sample and view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tce.options.pretrain import AugmentOptions
from tce.rng import uniform
from tce.train.color import LinearJitter, ReleasedJitter
from tce.train.geometry import Crops, blur, crop_boxes, quarter_turn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Streams of the counter-based generator: a kind's stream in a view is VIEW + SPAN * view + kind.
SHARED, VIEW, SPAN = 100, 110, 10
CROP, FLIP, GREY, JITTER, TURN, BLUR = range(6)
ROTATED_VIEW = 50  # the rotated view's draws are its own, however many other views there are

TOGETHER = 2**19  # numbers of views worked on together on a CPU: what its cache holds
BLUR_SIGMA = (0.1, 2.0)  # pixels of a 224 pixel view (SimCLR), in proportion for others

Numbers = NDArray[np.float64]


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
    order: NDArray[np.int64]
    """Order of those four, where it matters, [M, 4]."""
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
        self.options, self.size, self.dtype, self.memory_format = options, size, dtype, memory_format
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
        """As above, and of each first frame another view, drawn on its own and turned by a random quarter.

        Returns:
            The views [B, V, 3, h, w], the turned ones [B, 3, h, w], and by how many quarters, int64 [B].
        """
        batch, views = frames.shape[:2]
        own = self._numbers(samples, epoch, seed, ROTATED_VIEW, shared=False)
        numbers = np.concatenate([self._of_views(views, samples, epoch, seed), own])
        flat = torch.cat([frames.flatten(0, 1), frames[:, 0]])  # in one go, which is faster than two
        upright, turned = self.apply(flat, self._draws(numbers, frames.shape[2:4])).split(batch * views)
        turn = uniform(seed, epoch, samples, VIEW + SPAN * ROTATED_VIEW + TURN, 1)[:, 0]
        turns = (turn * 4).astype(np.int64)
        turned = quarter_turn(turned, turns)
        return upright.unflatten(0, (batch, views)), turned, torch.from_numpy(turns).to(frames.device)

    def _of_views(self, views: int, samples: NDArray[np.int64], epoch: int, seed: int) -> Numbers:
        """Uniform numbers of all views, [B V, 17]."""
        numbers = [self._numbers(samples, epoch, seed, view, shared=True) for view in range(views)]
        return np.stack(numbers, axis=1).reshape(len(samples) * views, -1)

    def apply(self, frames: Tensor, draws: Draws) -> Tensor:
        """Carry out what was drawn on frames uint8 [M, H, W, 3]; [M, 3, h, w]."""
        count, device = len(frames), frames.device
        shape = (count, 3, self.size, self.size)
        views = torch.empty(shape, dtype=self.dtype, device=device, memory_format=self.memory_format)
        crops = Crops(draws.boxes, draws.flip, frames.shape[1:3], self.size, device)
        kind = LinearJitter if self.options.jitter == "linear" else ReleasedJitter
        jitter = kind(draws.channel, draws.factors, draws.order, self.mean, self.std, device)
        together = frames_together(self.size) if device.type == "cpu" else max(1, count)
        for part in jitter.parts(together):
            made = blur(jitter(crops(frames[part], part), part), draws.sigma[part])
            views[part] = made.to(self.dtype)
        return views

    def _numbers(self, samples: NDArray[np.int64], epoch: int, seed: int, view: int, shared: bool) -> Numbers:
        """One view's uniform numbers, [B, 17]: crop 4, flip 1, grey 2, jitter 4 and its order 4, blur 2."""
        own = VIEW + SPAN * view
        pair = SHARED if shared else own
        crop = SHARED if shared and self.options.crops == "shared" else own
        streams = ((crop + CROP, 4), (pair + FLIP, 1), (own + GREY, 2), (own + JITTER, 8), (own + BLUR, 2))
        return np.concatenate([uniform(seed, epoch, samples, *stream) for stream in streams], axis=1)

    def _draws(self, numbers: Numbers, shape: Sequence[int]) -> Draws:
        options = self.options
        crop, flip, grey, jitter, order, blurred = np.split(numbers, (4, 5, 7, 11, 15), axis=1)
        strength = [options.brightness, options.color_contrast, options.saturation, options.hue]
        low, high = (bound * self.size / 224 for bound in BLUR_SIGMA)
        return Draws(
            boxes=crop_boxes(crop, shape, options.crop_scale, options.crop_ratio),
            flip=flip[:, 0] < options.flip,
            channel=np.where(grey[:, 0] < options.grey, (grey[:, 1] * 3).astype(np.int64), -1),
            factors=(2 * jitter - 1) * strength + [1.0, 1.0, 1.0, 0.0],
            order=order.argsort(axis=1),
            sigma=np.where(blurred[:, 0] < options.blur, low + blurred[:, 1] * (high - low), 0.0),
        )


def frames_together(size: int) -> int:
    """How many frames a CPU works on together, for views of that side."""
    return max(1, TOGETHER // (3 * size * size))
