"""Encoded images -> RGB pixels of a wanted size, and back, without holding Python's global lock.

JPEG goes through simplejpeg, which can decode at 1/2, 1/4 or 1/8 size for a fraction of the work; everything
it refuses (PNG, CMYK, damaged but readable files) goes through Pillow.
"""

from __future__ import annotations

import io
from typing import Literal

import cv2
import numpy as np
import simplejpeg

from tce.errors import OptionError

# OpenCV's own thread pool would compete with the loader's threads and with torch.
cv2.setNumThreads(0)

Resize = Literal["squash", "center-crop", "squash-nearest"]
RESIZES = ("squash", "center-crop", "squash-nearest")

CROP_MARGIN = 256 / 224
"""Short side before a centre crop, as a multiple of the crop: ImageNet's evaluation habit."""

_JPEG = b"\xff\xd8\xff"


def check_resize(resize: str) -> None:
    """Raise for a way of resizing that is not known.

    Raises:
        OptionError: not one of `RESIZES`.
    """
    if resize not in RESIZES:
        raise OptionError("resize", expected=" or ".join(RESIZES), found=repr(resize))


def decode(data: bytes) -> np.ndarray:
    """The whole image at its own size.

    Args:
        data: a JPEG, PNG or other image file's bytes.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        ValueError: the bytes are not an image that can be read.
    """
    if data[:3] == _JPEG:
        try:
            return simplejpeg.decode_jpeg(data)
        except ValueError:
            pass  # CMYK, or damage that Pillow may describe better
    return _decode_any(data)


def decode_into(data: bytes, out: np.ndarray, resize: Resize = "squash") -> None:
    """Decode an image and resize it into `out`.

    Bilinear, after decoding at the smallest of 1/1, 1/2, 1/4, 1/8 size that is not smaller than the target,
    so that no more than a factor of two is left to interpolation. "squash-nearest" samples the full image.

    Args:
        data: a JPEG, PNG or other image file's bytes.
        out: uint8 [H, W, 3], C-contiguous; receives the pixels.
        resize: "squash" ignores the aspect; "center-crop" scales the short side to 256/224 of the target and
            cuts the middle out; "squash-nearest" is "squash" by nearest neighbour.

    Raises:
        ValueError: the bytes are not an image that can be read.
    """
    height, width = out.shape[:2]
    image = _decode_reduced(data, height, width, resize)
    if resize == "center-crop":
        image = _middle(image, height, width)
    if image.shape == out.shape:
        np.copyto(out, image)
        return
    how = cv2.INTER_NEAREST if resize == "squash-nearest" else cv2.INTER_LINEAR
    cv2.resize(image, (width, height), dst=out, interpolation=how)


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width out of an image's header.

    Raises:
        ValueError: the bytes are not an image that can be read.
    """
    if data[:3] == _JPEG:
        try:
            return simplejpeg.decode_jpeg_header(data)[:2]
        except ValueError:
            pass
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.height, image.width
    except Exception as error:
        raise ValueError(_refusal(error)) from error


def reduced_size(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width of an image of `size` with its short side reduced to `side`; 0 reduces nothing."""
    height, width = size
    if not 0 < side < min(height, width):
        return height, width
    scale = side / min(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def reduce_to(image: np.ndarray, side: int) -> np.ndarray:
    """The image [H, W, 3] reduced to `reduced_size`; smaller ones stay."""
    size = reduced_size(image.shape[:2], side)
    if size == image.shape[:2]:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)  # averages: no aliasing


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """The image uint8 [H, W, 3] as JPEG of quality 1 to 100, colour at half resolution."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="420")


def _decode_reduced(data: bytes, height: int, width: int, resize: Resize) -> np.ndarray:
    if resize == "squash-nearest":
        return decode(data)
    if resize == "center-crop":
        height = width = round(max(height, width) * CROP_MARGIN)
    if data[:3] == _JPEG:
        try:
            return simplejpeg.decode_jpeg(data, min_height=height, min_width=width, min_factor=2)
        except ValueError:
            pass
    return _decode_any(data)


def _middle(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The part of `image` that a centre crop of the resized image would show."""
    rows, columns = image.shape[:2]
    scale = min(rows, columns) / (max(height, width) * CROP_MARGIN)  # source pixels a target pixel
    tall, wide = min(rows, round(height * scale)), min(columns, round(width * scale))
    top, left = (rows - tall) // 2, (columns - wide) // 2
    return image[top : top + max(tall, 1), left : left + max(wide, 1)]


def _decode_any(data: bytes) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises many kinds, SyntaxError among them
        raise ValueError(_refusal(error)) from error


def _refusal(error: Exception) -> str:
    """What Pillow's error means; of bytes of no known kind it only names the object that holds them."""
    from PIL import UnidentifiedImageError

    reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
    return f"not an image that can be decoded{reason}"
