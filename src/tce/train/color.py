"""Colours of a view: channel-split grey, colour jitter, normalisation; batched.

Two jitters of the same strengths. `ReleasedJitter` is what the 2020 code did: brightness, contrast,
saturation and hue one after the other, in an order drawn for each frame, clipped after each, hue by HSV.
`LinearJitter` leaves the clipping in between out and turns hue in the YIQ plane, which keeps luminance. The
four then commute, so that no order is drawn, and grey, jitter and normalisation are one 3 x 3 matrix a frame:
many times faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
TO_YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
LUMINANCE = np.ones((3, 1)) * LUMA  # keeps Y alone
CHROMINANCE = np.eye(3) - LUMINANCE  # keeps I and Q
QUARTER = np.linalg.inv(TO_YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ TO_YIQ  # turns them by 90°

Numbers = NDArray[np.float64]
Channels = NDArray[np.int64]
Part = slice | NDArray[np.int64]  # images worked on together


class LinearJitter:
    """Grey, jitter without clipping in between, clipping, normalisation.

    Args:
        channel: replaces the other two, -1 for none, [M].
        factors: of brightness, contrast and saturation, and the hue's shift in turns, [M, 4].
        order: of no account here.
        mean: subtracted from each channel, of pixels in [0, 1].
        std: divides each channel.
        device: where the images are.
    """

    def __init__(
        self,
        channel: Channels,
        factors: Numbers,
        order: Channels,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ):
        self.changes = bool((channel >= 0).any() or (factors != [1, 1, 1, 0]).any())
        brightness, contrast, saturation, hue = (column[:, None, None] for column in factors.T)
        angle = 2 * np.pi * hue
        turned = LUMINANCE + np.cos(angle) * CHROMINANCE + np.sin(angle) * QUARTER  # [M, 3, 3]
        grey = channel_matrix(channel)
        matrix = brightness * contrast * (saturation * turned + (1 - saturation) * LUMINANCE) @ grey
        # Contrast moves pixels away from the mean luminance, which is linear in the channels' means.
        from_mean = brightness * (1 - contrast) * LUMA @ grey  # [M, 1, 3]
        centre, spread = np.array(mean)[:, None], np.array(std)[:, None]
        weights = np.concatenate([matrix / spread, from_mean / spread], axis=1) / 255  # [M, 6, 3]
        self.weights = torch.from_numpy(weights.astype(np.float32)).to(device)
        ends = torch.from_numpy(np.array([(0 - centre) / spread, (1 - centre) / spread], np.float32))
        self.black, self.white = ends.to(device)  # [3, 1], normalised

    def parts(self, together: int) -> list[Part]:
        """All images, at most so many together."""
        return [slice(first, first + together) for first in range(0, len(self.weights), together)]

    def __call__(self, images: Tensor, part: Part) -> Tensor:
        """The images of a part, float32 [m, 3, h, w] in [0, 255], normalised."""
        if not self.changes:
            scale = (self.white - self.black) / 255
            return torch.addcmul(self.black[..., None], scale[..., None], images)
        weights = self.weights[part]
        shift = weights[:, 3:] @ images.mean(dim=(2, 3))[:, :, None]  # [m, 3, 1]
        pixels = torch.baddbmm(shift + self.black, weights[:, :3], images.flatten(2))  # [m, 3, h w]
        return torch.clamp_(pixels, self.black, self.white).view_as(images)


class ReleasedJitter:
    """Grey, jitter step by step in each frame's own order, normalisation.

    Args:
        channel: as in `LinearJitter`.
        factors: as in `LinearJitter`.
        order: order in which brightness 0, contrast 1, saturation 2 and hue 3 are applied, [M, 4].
        mean: as in `LinearJitter`.
        std: as in `LinearJitter`.
        device: as in `LinearJitter`.
    """

    def __init__(
        self,
        channel: Channels,
        factors: Numbers,
        order: Channels,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ):
        self.order = order
        self.grey = torch.from_numpy((channel_matrix(channel) / 255).astype(np.float32)).to(device)
        self.factors = torch.from_numpy(factors.astype(np.float32)).to(device)
        self.mean, self.std = (torch.tensor(numbers, device=device)[:, None, None] for numbers in (mean, std))

    def parts(self, together: int) -> list[Part]:
        """All images, at most so many together, those of a part of one order: no step has to pick its own."""
        number = self.order @ (64, 16, 4, 1)
        groups = [np.flatnonzero(number == one) for one in np.unique(number)]
        return [group[i : i + together] for group in groups for i in range(0, len(group), together)]

    def __call__(self, images: Tensor, part: Part) -> Tensor:
        """The images of a part, float32 [m, 3, h, w] in [0, 255], normalised."""
        images = (self.grey[part] @ images.flatten(2)).view_as(images)
        factors = self.factors[part]
        for kind in self.order[part][0]:
            images = STEPS[kind](images, factors[:, kind])
        return (images - self.mean) / self.std


def channel_matrix(channel: Channels) -> Numbers:
    """Matrices [M, 3, 3] that replace all channels by one, or for -1 leave them."""
    choices = np.zeros((4, 3, 3))
    for single in range(3):
        choices[single, :, single] = 1
    choices[-1] = np.eye(3)
    return choices[channel]


def scale_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Images [M, 3, h, w] in [0, 1] towards (or away from) black by factors [M]."""
    return (images * factor[:, None, None, None]).clamp_(0, 1)


def scale_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Towards (or away from) their mean luminance."""
    mean = images.mean(dim=(2, 3)) @ images.new_tensor(LUMA)  # [M]
    rest, factor = (number[:, None, None, None] for number in (mean * (1 - factor), factor))
    return torch.addcmul(rest, images, factor).clamp_(0, 1)


def scale_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Towards (or away from) their luminance."""
    own, grey = images.new_tensor(np.eye(3)), images.new_tensor(LUMINANCE)
    matrix = torch.lerp(grey, own, factor[:, None, None])  # [M, 3, 3]
    return (matrix @ images.flatten(2)).clamp_(0, 1).view_as(images)


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of HSV by shifts [M], in turns."""
    red, green, blue = images.unbind(1)  # [M, h, w]
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    sixth = (chroma * 6).clamp_(min=6e-8).reciprocal_()
    after_green = (blue - red).mul_(sixth).add_(1 / 3)
    after_blue = (red - green).mul_(sixth).add_(2 / 3)
    # 1 where green, or red, is the largest, else 0: with `torch.where` the choice takes three times as long.
    by_green, by_red = (channel.sub(value).sign_().add_(1) for channel in (green, red))
    hue = torch.lerp(after_blue, after_green, by_green)
    hue.lerp_((green - blue).mul_(sixth), by_red).add_(shift[:, None, None])
    peaks = images.new_tensor([0, 1 / 3, 2 / 3])[:, None, None]  # the hues at which channels are strongest
    away = hue[:, None] - peaks
    away.sub_(away.round()).abs_()  # [0, 1/2] turns, [M, 3, h, w]
    less = away.mul_(-6).add_(1).clamp_(-1, 0)  # 0 up to 1/6 turn away, -1 from 1/3 on
    return torch.addcmul(value[:, None], chroma[:, None], less)


STEPS = (scale_brightness, scale_contrast, scale_saturation, shift_hue)
