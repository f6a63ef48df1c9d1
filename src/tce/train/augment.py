"""Augmentation of frames, batched on the device; draws are pure functions of seed, epoch, sample and view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tce.train.options import AugmentOptions
from tce.video.sampling import uniform

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, what PIL's grayscale takes

# Streams of the counter-based generator. A view's own draws start at VIEW + SPAN * view.
SHARED, VIEW, SPAN = 100, 110, 10
CROP, FLIP, GREY, JITTER, TURN = range(5)
ROTATED_VIEW = 50  # the rotated view's number: its draws are its own, however many other views there are


class Augmentation:
    """Frames as loaded -> normalised views, ready for the network.

    Args:
        options: kinds and strengths.
        size: side of the views, pixels.
        mean: subtracted from each channel, of pixels in [0, 1].
        std: divides each channel.
        dtype: of the views.
    """

    def __init__(
        self,
        options: AugmentOptions,
        size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
    ):
        self.options, self.size, self.dtype = options, size, dtype
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, frames: Tensor, samples: np.ndarray, epoch: int, seed: int) -> Tensor:
        """Views of the frames, [B, V, 3, h, w], each view's images channels_last.

        Args:
            frames: uint8 [B, V, H, W, 3], on the device that is to do the work; one view of each frame.
            samples: what the draws are keyed by, int64 [B].
            epoch: likewise.
            seed: likewise.
        """
        batch, views = frames.shape[:2]
        draws = [self._draws(samples, epoch, seed, view) for view in range(views)]
        out = self._views(frames.flatten(0, 1), np.stack(draws, axis=1).reshape(batch * views, -1))
        return out.unflatten(0, (batch, views))

    def rotated(self, frames: Tensor, samples: np.ndarray, epoch: int, seed: int) -> tuple[Tensor, Tensor]:
        """A view of its own, turned by a random quarter: [B, 3, h, w], and the quarter turns, int64 [B].

        Args:
            frames: uint8 [B, H, W, 3].
            samples: as above.
            epoch: as above.
            seed: as above.
        """
        draws = self._draws(samples, epoch, seed, ROTATED_VIEW, shared=False)
        turn = uniform(seed, epoch, samples, VIEW + SPAN * ROTATED_VIEW + TURN, 1)[:, 0]
        turns = torch.from_numpy((turn * 4).astype(np.int64)).to(frames.device)
        return quarter_turn(self._views(frames, draws), turns), turns

    def _draws(
        self, samples: np.ndarray, epoch: int, seed: int, view: int, shared: bool = True
    ) -> np.ndarray:
        """One view's uniform numbers, float64 [B, 15]: crop 4, flip 1, grey 2, jitter 4 and its order 4."""

        def draw(kind: int, n: int, shared: bool) -> np.ndarray:
            return uniform(seed, epoch, samples, kind + (SHARED if shared else VIEW + SPAN * view), n)

        return np.concatenate(
            [
                draw(CROP, 4, shared and self.options.crops == "shared"),
                draw(FLIP, 1, shared),
                draw(GREY, 2, False),
                draw(JITTER, 8, False),
            ],
            axis=1,
        )

    def _views(self, frames: Tensor, draws: np.ndarray) -> Tensor:
        options, device = self.options, frames.device
        crop, flip, grey, jitter = np.split(draws, (4, 5, 7), axis=1)
        boxes = crop_boxes(crop, frames.shape[1:3], options.crop_scale, options.crop_ratio)
        numbers = np.concatenate(
            [
                boxes,
                flip < options.flip,
                (grey[:, :1] < options.grey) * (1 + np.floor(grey[:, 1:] * 3)),
                self._factors(jitter[:, :4]),
            ],
            axis=1,
        )
        sent = torch.from_numpy(numbers.astype(np.float32)).to(device, non_blocking=True)  # one transfer
        images = crop_resize(frames, sent[:, :4], sent[:, 4] > 0, self.size)  # [B, 3, h, w] in [0, 1]
        images = channel_grey(images, sent[:, 5].long())
        order = jitter[:, 4:].argsort(axis=1)
        images = color_jitter(images, sent[:, 6:], torch.from_numpy(order).to(device))
        mean = torch.tensor(self.mean, device=device)[:, None, None]
        std = torch.tensor(self.std, device=device)[:, None, None]
        return ((images - mean) / std).to(self.dtype, memory_format=torch.channels_last)

    def _factors(self, u: np.ndarray) -> np.ndarray:
        """Brightness, contrast and saturation factors and the hue shift, [B, 4]."""
        o = self.options
        strength = np.array([o.brightness, o.color_contrast, o.saturation, o.hue])
        return (2 * u - 1) * strength + np.array([1.0, 1.0, 1.0, 0.0])


def crop_boxes(
    u: np.ndarray, shape: Sequence[int], scale: Sequence[float], ratio: Sequence[float]
) -> np.ndarray:
    """Boxes (top, left, height, width) in pixels of random area and shape inside a frame, [B, 4].

    Area is uniform, the aspect ratio log-uniform, the place uniform; a box larger than the frame is cut to
    it.

    Args:
        u: uniform numbers [B, 4].
        shape: height and width of the frames.
        scale: smallest and largest share of the frame's area.
        ratio: smallest and largest width over height; a whole frame of another ratio stays whole.
    """
    height, width = shape[:2]
    area = height * width * (scale[0] + u[:, 0] * (scale[1] - scale[0]))
    aspect = np.exp(np.log(ratio[0]) + u[:, 1] * (np.log(ratio[1]) - np.log(ratio[0])))
    if scale[0] == scale[1] == 1:
        aspect = np.full_like(aspect, width / height)
    w = np.minimum(np.sqrt(area * aspect), width)
    h = np.minimum(np.sqrt(area / aspect), height)
    return np.stack([u[:, 2] * (height - h), u[:, 3] * (width - w), h, w], axis=1)


def crop_resize(frames: Tensor, boxes: Tensor, flip: Tensor, size: int) -> Tensor:
    """Cut boxes out, resize them (antialiased bilinear) and mirror some: [B, 3, size, size] in [0, 1].

    Resizing is linear along each axis, so it is one matrix product an axis.

    Args:
        frames: uint8 [B, H, W, 3].
        boxes: top, left, height, width in pixels, [B, 4].
        flip: which to mirror, bool [B].
        size: side of the result.
    """
    rows = resize_matrix(boxes[:, 0], boxes[:, 2], frames.shape[1], size)  # [B, h, H]
    columns = resize_matrix(boxes[:, 1], boxes[:, 3], frames.shape[2], size)  # [B, w, W]
    columns = torch.where(flip[:, None, None], columns.flip(1), columns) / 255
    planes = frames.permute(0, 3, 1, 2).to(
        torch.float32, memory_format=torch.contiguous_format
    )  # [B, 3, H, W]
    return rows[:, None] @ (planes @ columns.mT[:, None])


def resize_matrix(start: Tensor, length: Tensor, source: int, target: int) -> Tensor:
    """Weights that resample `length` of `source` pixels from `start` to `target` pixels, [B, target, source].

    A triangle of one target pixel's width where the image shrinks (antialiasing), of one source pixel's where
    it grows; its part beyond the edge is left out and the rest scaled to one.
    """
    step = (length / target)[:, None, None]
    middle = start[:, None, None] + (torch.arange(target, device=start.device)[:, None] + 0.5) * step
    pixel = torch.arange(source, device=start.device) + 0.5
    weights = (1 - (pixel - middle).abs() / step.clamp(min=1)).clamp_(min=0)
    return weights / weights.sum(dim=2, keepdim=True)


def channel_grey(images: Tensor, channel: Tensor) -> Tensor:
    """Replace all channels by one: `channel` [B] is 0 (leave as it is), 1 (red), 2 or 3."""
    table = torch.tensor([[0, 1, 2], [0, 0, 0], [1, 1, 1], [2, 2, 2]], device=images.device)
    index = table[channel][:, :, None, None].expand_as(images)
    return images.gather(1, index)


def color_jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue of images [B, 3, h, w] in [0, 1], in each image's own order.

    Args:
        images: [B, 3, h, w].
        factors: of brightness, contrast and saturation, and the hue's shift in turns, [B, 4].
        order: order in which the four are applied, int64 [B, 4].
    """
    del order
    images = blend(images, 0.0, factors[:, 0])
    images = blend(images, grey(images).mean(dim=(1, 2, 3), keepdim=True), factors[:, 1])
    images = blend(images, grey(images), factors[:, 2])
    return shift_hue(images, factors[:, 3])


def grey(images: Tensor) -> Tensor:
    """Luminance, [B, 1, h, w]."""
    red, green, blue = images.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def blend(images: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    """`factor * images + (1 - factor) * other`, clipped to [0, 1]; factor [B]."""
    factor = factor[:, None, None, None]
    return (factor * images + (1 - factor) * other).clamp_(0, 1)


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of HSV by `shift` [B], in turns."""
    value, _ = images.max(dim=1)  # [B, h, w]
    chroma = value - images.amin(dim=1)
    red, green, blue = images.unbind(1)
    safe = chroma.clamp(min=1e-8)
    hue = (
        torch.where(
            value == red,
            (green - blue) / safe,
            torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
        )
        + 6 * shift[:, None, None]
    )
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = (hue + offset).remainder(6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)


def quarter_turn(images: Tensor, turns: Tensor) -> Tensor:
    """Turn square images [B, 3, h, h] counter-clockwise by `turns` [B] quarters."""
    choices = torch.stack([torch.rot90(images, quarter, (2, 3)) for quarter in range(4)])  # [4, B, 3, h, h]
    picked = choices[turns, torch.arange(len(images), device=images.device)]
    return picked.contiguous(memory_format=torch.channels_last)
