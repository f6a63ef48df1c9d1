"""From decoded pixels to what a network reads: resizing, cropping, normalising."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tce.errors import OptionError, TceError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST_IMAGE = 4096  # pixels a side; more would only fill the memory
LARGEST_MEAN, SMALLEST_STD = 1e6, 1e-6  # of pixels in [0, 1]
RESIZES = ("center-crop", "squash", "none")


def check_input(image_size: int, mean: tuple[float, ...], std: tuple[float, ...], resize: str) -> None:
    """Raise an OptionError for a way to prepare images that cannot be."""
    if not 1 <= image_size <= LARGEST_IMAGE:
        expected = f"1 to {LARGEST_IMAGE} pixels"
        raise OptionError("--image-size", expected, str(image_size)[:40])
    if resize not in RESIZES:
        raise OptionError("--resize", expected=", ".join(RESIZES), found=repr(resize))
    numbers = [n for n in (*mean, *std) if isinstance(n, int | float) and not isinstance(n, bool)]
    finite = len(numbers) == 6 and all(abs(n) < LARGEST_MEAN for n in numbers)  # NaN is not
    if len(mean) != 3 or len(std) != 3 or not finite or min(std) < SMALLEST_STD:
        raise OptionError(
            "mean, std",
            expected=f"three finite numbers each, deviations of at least {SMALLEST_STD:g}",
            found=f"{mean}, {std}"[:200],
        )


def to_tensor(frames: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Frames uint8 [B, H, W, 3], from NumPy or torch, as a tensor on `device`.

    Raises:
        TceError: another shape or type.
    """
    shape, dtype = tuple(frames.shape), str(frames.dtype).removeprefix("torch.")
    if len(shape) != 4 or shape[-1] != 3 or dtype != "uint8" or 0 in shape:
        raise TceError(
            "frames", expected="uint8 [B, H, W, 3], none of them 0", found=f"{dtype} {list(shape)}"
        )
    if isinstance(frames, np.ndarray):
        # A read-only or reversed view cannot be shared with torch.
        shareable = frames.flags.writeable and all(stride >= 0 for stride in frames.strides)
        frames = torch.from_numpy(frames if shareable else frames.copy())
    return frames.to(device, non_blocking=True)


def scaled_size(height: int, width: int, image_size: int) -> tuple[int, int]:
    """Height and width once the short side is 256/224 of `image_size`, as before a centre crop."""
    short = round(image_size * 256 / 224)
    scale = short / min(height, width)
    return max(short, round(height * scale)), max(short, round(width * scale))


def resize_frames(frames: Tensor, image_size: int, how: str = "center-crop") -> Tensor:
    """Frames uint8 [B, H, W, 3] -> uint8 [B, 3, h, w] (strided channels last), antialiased bilinear.

    Args:
        frames: any height and width.
        image_size: side of the square that comes out, in pixels.
        how: "center-crop": short side to 256/224 of `image_size`, then the square in the middle;
            "squash": both sides to `image_size`, whatever the aspect; "none": the size stays as it is.

    Raises:
        OptionError: another way to resize.
    """
    if how not in RESIZES:
        raise OptionError("--resize", expected=", ".join(RESIZES), found=repr(how))
    images = frames.permute(0, 3, 1, 2)  # [B, 3, H, W]
    height, width = images.shape[-2:]
    if how == "none":
        return images
    size = (image_size, image_size) if how == "squash" else scaled_size(height, width, image_size)
    if size != (height, width):
        images = _interpolate(images, size)
    if how == "squash":
        return images
    top, left = (size[0] - image_size) // 2, (size[1] - image_size) // 2
    return images[:, :, top : top + image_size, left : left + image_size]


def _interpolate(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.device.type == "cpu":  # torch resizes bytes on the CPU only; several times faster than floats
        return functional.interpolate(images, size, mode="bilinear", antialias=True)
    resized = functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Images uint8 [..., 3, h, w] -> float32 of the same shape, strided channels last.

    Each channel divided by 255, less its mean, by its deviation.
    """
    width = int(images.shape[-1])
    # Along whole rows of pixels: broadcast over three channels alone, the processor's vectors stay empty.
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device).repeat(width)  # [3 w]
    shift = torch.tensor([-m / s for m, s in zip(mean, std)], device=images.device).repeat(width)
    rows = images.movedim(-3, -1).flatten(-2).to(torch.float32, copy=True)  # [..., h, 3 w]
    return rows.mul_(scale).add_(shift).unflatten(-1, (width, 3)).movedim(-1, -3)
