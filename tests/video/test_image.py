"""Decoding and resizing of single images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tce.video.image import decode, decode_into, image_size
from tests.helpers import hard_footage


def scene(height: int, width: int) -> np.ndarray:
    """A smooth picture with a gradient in each channel, so that a place can be told by its colour."""
    rows, columns = np.mgrid[:height, :width]
    red, green = rows * 255 / (height - 1), columns * 255 / (width - 1)
    return np.stack([red, green, 255 - (red + green) / 2], axis=2).round().astype(np.uint8)


def resized(data: bytes, height: int, width: int, resize: str) -> np.ndarray:
    out = np.zeros((height, width, 3), np.uint8)
    decode_into(data, out, resize)
    return out


def pillow_squash(data: bytes, height: int, width: int) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("size", [(64, 64), (40, 90), (160, 200), (30, 30), (240, 320)])
def test_squash_is_what_pillow_makes_of_it(size: tuple[int, int]) -> None:
    """Larger, smaller and far smaller targets, through the reduced decoding too."""
    data = hard_footage.jpeg(scene(160, 200), subsampling=0)
    difference = np.abs(resized(data, *size, "squash").astype(int) - pillow_squash(data, *size))
    assert difference.mean() < 1.5 and difference.max() < 12


def test_centre_crop_shows_the_middle() -> None:
    """The short side becomes 256/224 of the crop: the same as resizing all of it first and cutting then."""
    image = scene(240, 360)
    data = hard_footage.jpeg(image, subsampling=0)
    whole = np.asarray(Image.fromarray(image).resize((384, 256), Image.Resampling.BILINEAR))
    expected = whole[16 : 16 + 224, 80 : 80 + 224].astype(int)
    difference = np.abs(resized(data, 224, 224, "center-crop") - expected)
    assert difference.mean() < 2 and difference.max() < 8


def test_nearest_takes_pixels_as_they_are() -> None:
    """No colour that is not in the picture, from the full image even for a small target."""
    rng = np.random.default_rng(0)
    image = rng.choice(np.array([0, 255], np.uint8), (64, 80))[..., None].repeat(3, 2)
    data = hard_footage.png(image)
    small = resized(data, 16, 20, "squash-nearest")
    assert set(np.unique(small)) <= {0, 255}
    assert np.array_equal(small, image[::4, ::4])


@pytest.mark.parametrize("kind", ["cmyk", "gray", "png", "progressive", "palette"])
def test_any_kind_of_image(kind: str) -> None:
    """What simplejpeg refuses goes through Pillow; the numbers stay legible."""
    image = hard_footage.picture(1234)
    palette = io.BytesIO()
    Image.fromarray(image).convert("P").save(palette, "PNG")
    data = {
        "cmyk": hard_footage.jpeg(image, "CMYK"),
        "gray": hard_footage.jpeg(image, "L"),
        "png": hard_footage.png(image),
        "progressive": hard_footage.jpeg(image, progressive=True),
        "palette": palette.getvalue(),
    }[kind]
    assert hard_footage.number(decode(data)) == 1234
    assert hard_footage.number(resized(data, 60, 60, "squash")) == 1234
    assert image_size(data) == image.shape[:2]


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff", hard_footage.jpeg(scene(50, 50))[:200]])
def test_what_is_no_image_raises_one_kind_of_error(data: bytes) -> None:
    for read in (decode, lambda data: resized(data, 8, 8, "squash")):
        with pytest.raises(ValueError, match="not an image that can be decoded") as caught:
            read(data)
        assert "object at" not in str(caught.value)
