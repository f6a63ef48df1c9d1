"""Where a view's pixels come from: crops, mirroring, quarter turns, blur; batched."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

MOST_SHRINK = 1.5  # source pixels a target pixel, beyond which a bilinear sample skips too many

Numbers = NDArray[np.float64]


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

    def __call__(self, frames: Tensor, part: slice | NDArray[np.int64]) -> Tensor:
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


def quarter_turn(images: Tensor, turns: NDArray[np.int64]) -> Tensor:
    """Turn square images [M, 3, h, h] counter-clockwise by `turns` [M] quarters."""
    turned = images.clone(memory_format=torch.preserve_format)
    for quarter in (1, 2, 3):
        index = torch.from_numpy(np.flatnonzero(turns == quarter)).to(images.device)
        turned[index] = torch.rot90(images[index], quarter, (2, 3))
    return turned
