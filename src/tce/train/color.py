"""Colours of a view: channel-split grey, colour jitter, normalisation; batched.

The four changes are those of the 2020 code (brightness, contrast, saturation, hue), but without clipping in
between and with the hue rotated in the YIQ plane, which keeps luminance. They then commute, so that no order
is drawn, and grey, jitter and normalisation are one 3 x 3 matrix a frame: many times faster.
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
QUARTER = np.linalg.inv(TO_YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ TO_YIQ  # rotates them by 90°

Numbers = NDArray[np.float64]
Channels = NDArray[np.int64]


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
