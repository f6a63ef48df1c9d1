"""The only place where an image is decoded, resized or encoded: bytes of a file to RGB pixels and back.

JPEG goes through simplejpeg, which can decode at 1/2, 1/4 or 1/8 size for a fraction of the work; what it
refuses (CMYK, damage) and every other format goes through Pillow. Neither holds Python's global lock.

How pixels become 8-bit RGB:

- integers keep their most significant 8 bits (of 10, 12 or 16), so white stays white;
- floating-point pixels run from 0 (black) to 1 (white); other values are refused rather than clipped;
- grey, palette, CMYK and the rest are converted by Pillow; transparency is dropped;
- the EXIF orientation is applied.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from tce.errors import OptionError, TceError
from tce.video.base import FrameError, max_pixels, require_pixels, too_many_pixels

if TYPE_CHECKING:
    from PIL import Image

# OpenCV's own thread pool would compete with the loader's threads and with torch.
cv2.setNumThreads(0)

Pixels = NDArray[np.uint8]  # [H, W, 3] RGB
Resize = Literal["squash", "center-crop", "squash-nearest"]
RESIZES = ("squash", "center-crop", "squash-nearest")

CROP_MARGIN = 256 / 224
"""Short side before a centre crop, as a multiple of the crop: the usual way to evaluate on ImageNet."""

_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_ORIENTATION = 0x0112  # EXIF tag
_PREVIEW = 0x00FE  # TIFF tag; bit 0 marks a smaller copy of another page
_PIXELS_A_BIT = 256  # of a JPEG at most: every block of 8x8 pixels takes one bit or more


def check_resize(resize: str) -> None:
    """Raise for an unknown way to resize.

    Raises:
        OptionError: not one of `RESIZES`.
    """
    if resize not in RESIZES:
        raise OptionError("resize", expected=" or ".join(RESIZES), found=repr(resize))


def decode(data: bytes, name: str = "image") -> Pixels:
    """The whole image at its own size.

    Args:
        data: bytes of a JPEG, PNG, TIFF, WebP or other image file.
        name: what errors call it.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        FrameError: not an image, damaged, too large, or several pictures in one file.
    """
    if is_jpeg(data):
        image = _decode_jpeg(data, name)
        if image is not None:
            return image
    return _decode_other(data, name)


def decode_into(data: bytes, out: np.ndarray, resize: Resize = "squash") -> None:
    """Decode an image and resize it into `out`.

    Bilinear, after decoding at the smallest of 1/1, 1/2, 1/4, 1/8 size that is not smaller than the target,
    so that interpolation reduces by a factor of two at most. "squash-nearest" samples the full image.

    Args:
        data: bytes of an image file.
        out: uint8 [H, W, 3], C-contiguous; receives the pixels.
        resize: "squash" ignores the aspect ratio; "center-crop" scales the short side to 256/224 of the
            target and cuts out the middle; "squash-nearest" is "squash" by nearest neighbour.

    Raises:
        FrameError: as `decode`.
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


def image_size(data: bytes, name: str = "image") -> tuple[int, int]:
    """Height and width from an image's header, as `decode` would give them.

    Raises:
        FrameError: no image, too large, or a JPEG with too little data for its size.
    """
    if is_jpeg(data):
        size = _jpeg_size(data, name)
        if size is not None:
            return size[::-1] if _jpeg_orientation(data) > 4 else size
    with open_picture(data, name) as image:
        on_its_side = image.format != "TIFF" and _orientation(image) > 4  # Pillow turns TIFF by itself
        return (image.width, image.height) if on_its_side else (image.height, image.width)


def check_whole(data: bytes, name: str = "image") -> None:
    """Check that a JPEG has its end marker; its pixels are not decoded, which would take far longer.

    Raises:
        FrameError: it is cut short.
    """
    if is_jpeg(data) and _JPEG_END not in data[-64:] and _JPEG_END not in data[-4096:]:
        raise FrameError(name, "an image", "a JPEG cut short")


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG does."""
    return data[:3] == _JPEG


def reduced_size(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width of an image of `size` with its short side reduced to `side`; 0 reduces nothing."""
    height, width = size
    if not 0 < side < min(height, width):
        return height, width
    scale = side / min(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def reduce_to(image: np.ndarray, side: int) -> np.ndarray:
    """The image [H, W, 3] reduced to `reduced_size`; smaller ones stay as they are."""
    size = reduced_size(image.shape[:2], side)
    if size == image.shape[:2]:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)  # averages: no aliasing


def resize_to(image: np.ndarray, size: tuple[int, int]) -> Pixels:
    """The image [H, W, 3] at another height and width, bilinear; the aspect ratio is not kept."""
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """The image uint8 [H, W, 3] as JPEG of quality 1 to 100, colour at half resolution."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="420")


def read_file(path: str | Path) -> bytes:
    """A file's bytes, with the fewest system calls: folders of frames are read one small file at a time.

    Raises:
        OSError: it cannot be read, or is no regular file (a named pipe would never end).
    """
    # Opening a named pipe would wait for a writer without O_NONBLOCK, which regular files ignore.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        data = os.read(handle, status.st_size)
        if len(data) == status.st_size:
            return data
    finally:
        os.close(handle)
    return Path(path).read_bytes()  # larger than one read gives


def read_image(path: str | Path) -> Pixels:
    """The image in a file, uint8 [H, W, 3].

    Raises:
        FrameError: the file cannot be read, or as `decode`.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise FrameError(str(path), "an image", error.strerror or str(error)) from error
    return decode(data, str(path))


def open_picture(data: bytes, name: str) -> Image.Image:
    """Open an image with Pillow, whose size is checked; to be closed by the caller.

    Raises:
        FrameError: not an image, or too large.
    """
    from PIL import Image

    if not data:
        raise FrameError(name, "an image", "an empty file")
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels() > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels()  # as the user asked for
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise too_many_pixels(str(error), name) from error
    except Exception as error:
        raise _not_decodable(error, data, name) from error
    try:
        require_pixels(image.height, image.width, name)
    except FrameError:
        image.close()
        raise
    return image


def page_numbers(image: Image.Image) -> list[int]:
    """Which of an opened image's pages are pictures; smaller copies of others in a TIFF are not."""
    pages = getattr(image, "n_frames", 1)
    if pages == 1 or image.format not in ("TIFF", "PNG", "WEBP", "GIF", "AVIF"):
        return [0]  # the second picture in a phone's JPEG is a preview, too
    if image.format != "TIFF":
        return list(range(pages))
    numbers = []
    for page in range(pages):
        image.seek(page)
        if not image.tag_v2.get(_PREVIEW, 0) & 1:  # type: ignore[attr-defined]
            numbers.append(page)
    image.seek(0)
    return numbers or [0]


def picture_to_rgb(image: Image.Image, name: str) -> Pixels:
    """The present page of an opened image as RGB uint8 [H, W, 3], upright.

    Raises:
        FrameError: damaged, or pixels outside the range of their kind.
    """
    try:
        image.load()
        orientation = _orientation(image)
        mode = image.mode
        if mode.startswith("I;16"):
            pixels = _grey(np.asarray(image) >> (_bits(image) - 8))
        elif mode == "I":
            pixels = _grey(_in_range(np.asarray(image), 65535, name) >> 8)
        elif mode == "F":
            pixels = _grey(np.rint(_in_range(np.asarray(image), 1, name) * 255))
        else:
            if mode in ("La", "RGBa"):  # colours multiplied by their opacity
                image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
            pixels = np.array(image.convert("RGB"), np.uint8)
    except TceError:
        raise
    except Exception as error:  # Pillow raises whatever its plug-ins do
        raise FrameError(name, "an image", str(error) or type(error).__name__) from error
    return _upright(pixels, orientation)


def _decode_jpeg(data: bytes, name: str, height: int = 0, width: int = 0) -> Pixels | None:
    """A JPEG, reduced to no less than a size if one is given; None where Pillow has to try."""
    if _jpeg_size(data, name) is None:
        return None
    orientation = _jpeg_orientation(data)
    if orientation > 4:
        height, width = width, height
    try:
        if height:
            image = simplejpeg.decode_jpeg(data, min_height=height, min_width=width, min_factor=2)
        else:
            image = simplejpeg.decode_jpeg(data)
    except ValueError:
        return None  # CMYK, or damage that Pillow may describe better
    return image if orientation == 1 else _upright(image, orientation)


def _jpeg_size(data: bytes, name: str) -> tuple[int, int] | None:
    """Height and width as the header has them, before any rotation; None where Pillow has to try."""
    try:
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
    except ValueError:
        return None
    require_pixels(height, width, name)
    if len(data) * 8 * _PIXELS_A_BIT < height * width:
        raise FrameError(name, "an image", f"{len(data)} bytes that declare {width} x {height} pixels")
    return height, width


def _jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation, 1 to 8; only a JPEG that has EXIF data costs more than a look."""
    place = 2
    while data[place : place + 1] == b"\xff" and len(data) > place + 10:
        marker = data[place + 1]
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):  # neither application data nor a comment
            return 1
        if marker == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
            with open_picture(data, "image") as image:
                return _orientation(image)
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return 1


def _orientation(image: Image.Image) -> int:
    found = image.getexif().get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def _upright(image: Pixels, orientation: int) -> Pixels:
    """The image as EXIF's orientation (1 to 8) wants it shown."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _decode_reduced(data: bytes, height: int, width: int, resize: Resize) -> Pixels:
    if resize == "squash-nearest":
        return decode(data)
    if resize == "center-crop":
        height = width = round(max(height, width) * CROP_MARGIN)
    if is_jpeg(data):
        image = _decode_jpeg(data, "image", height, width)
        if image is not None:
            return image
    return _decode_other(data, "image")


def _middle(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The part of `image` that a centre crop of the resized image would show."""
    rows, columns = image.shape[:2]
    scale = min(rows, columns) / (max(height, width) * CROP_MARGIN)  # source pixels a target pixel
    tall, wide = min(rows, round(height * scale)), min(columns, round(width * scale))
    top, left = (rows - tall) // 2, (columns - wide) // 2
    return image[top : top + max(tall, 1), left : left + max(wide, 1)]


def _decode_other(data: bytes, name: str) -> Pixels:
    with open_picture(data, name) as image:
        pages = len(page_numbers(image))
        if pages > 1:
            raise FrameError(
                name,
                "one picture a file",
                f"{pages} of them",
                "give the file by itself, as a video, or write each picture to a file of its own",
            )
        return picture_to_rgb(image, name)


def _grey(values: np.ndarray) -> Pixels:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def _bits(image: Image.Image) -> int:
    """Bits of a grey value that is stored in 16: TIFF also has 10 and 12."""
    bits = image.tag_v2.get(258, (16,)) if image.format == "TIFF" else (16,)  # type: ignore[attr-defined]
    return int(bits[0]) if 8 < bits[0] <= 16 else 16


def _in_range(values: np.ndarray, most: int, name: str) -> np.ndarray:
    """The values, if all lie between 0 and `most`; else how bright they are meant to be is unknown."""
    low, high = values.min(), values.max()
    if low >= 0 and high <= most:  # false for NaN, too
        return values
    kind = "floating-point" if most == 1 else "integer"
    raise FrameError(
        name,
        f"{kind} pixels between 0 and {most}",
        f"{low:g} to {high:g}",
        "scale them, or save the image with 8 or 16 bits",
    )


def _not_decodable(error: Exception, data: bytes, name: str) -> FrameError:
    """What Pillow's error means; of unknown bytes it only names the object that holds them."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        found = "a JPEG without a readable header" if is_jpeg(data) else "other data"
    else:
        found = str(error) or type(error).__name__
    return FrameError(name, "an image", found)
