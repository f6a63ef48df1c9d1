"""Decoding and resizing of single images."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from tce.data.encode import Encoding, Job, Summary, encode_clip
from tce.data.find_clips import find_clips
from tce.data.loader import Loader
from tce.data.open_data import open_store
from tce.errors import OptionError
from tce.video.base import FrameError
from tce.video.image import decode, decode_into, image_size
from tce.video.open_video import FrameChunk, StreamJob, open_video, stream_chunks
from tests.helpers import hard_videos


def scene(height: int, width: int) -> np.ndarray:
    """A smooth picture with a gradient in each channel, so that a colour shows its place."""
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
    data = hard_videos.jpeg(scene(160, 200), subsampling=0)
    difference = np.abs(resized(data, *size, "squash").astype(int) - pillow_squash(data, *size))
    assert difference.mean() < 1.5 and difference.max() < 12


def test_centre_crop_shows_the_middle() -> None:
    """The short side becomes 256/224 of the crop: the same as resizing all of it first and cutting then."""
    image = scene(240, 360)
    data = hard_videos.jpeg(image, subsampling=0)
    whole = np.asarray(Image.fromarray(image).resize((384, 256), Image.Resampling.BILINEAR))
    expected = whole[16 : 16 + 224, 80 : 80 + 224].astype(int)
    difference = np.abs(resized(data, 224, 224, "center-crop") - expected)
    assert difference.mean() < 2 and difference.max() < 8


def test_nearest_takes_pixels_as_they_are() -> None:
    """No colour that is not in the picture, from the full image even for a small target."""
    rng = np.random.default_rng(0)
    image = rng.choice(np.array([0, 255], np.uint8), (64, 80))[..., None].repeat(3, 2)
    data = hard_videos.png(image)
    small = resized(data, 16, 20, "squash-nearest")
    assert set(np.unique(small)) <= {0, 255}
    assert np.array_equal(small, image[::4, ::4])


@pytest.mark.parametrize("kind", ["cmyk", "gray", "png", "progressive", "palette"])
def test_any_kind_of_image(kind: str) -> None:
    """What simplejpeg refuses goes through Pillow; the numbers stay legible."""
    image = hard_videos.picture(1234)
    palette = io.BytesIO()
    Image.fromarray(image).convert("P").save(palette, "PNG")
    data = {
        "cmyk": hard_videos.jpeg(image, "CMYK"),
        "gray": hard_videos.jpeg(image, "L"),
        "png": hard_videos.png(image),
        "progressive": hard_videos.jpeg(image, progressive=True),
        "palette": palette.getvalue(),
    }[kind]
    assert hard_videos.number(decode(data)) == 1234
    assert hard_videos.number(resized(data, 60, 60, "squash")) == 1234
    assert image_size(data) == image.shape[:2]


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff", hard_videos.jpeg(scene(50, 50))[:200]])
def test_what_is_no_image_raises_one_kind_of_error(data: bytes) -> None:
    for read in (decode, lambda data: resized(data, 8, 8, "squash")):
        with pytest.raises(FrameError, match="expected an image") as caught:
            read(data)
        assert "object at" not in str(caught.value)


def huge_jpeg(side: int) -> bytes:
    """A small JPEG that declares `side` x `side` pixels."""
    data = bytearray(hard_videos.jpeg(np.full((8, 8, 3), 128, np.uint8)))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = side.to_bytes(2, "big") * 2
    return bytes(data)


def huge_png(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.mark.parametrize("data", [huge_jpeg(60_000), huge_png(60_000)], ids=["jpeg", "png"])
@pytest.mark.parametrize(
    "ask", [decode, image_size, lambda data: resized(data, 8, 8, "squash")], ids=["decode", "size", "into"]
)
def test_a_declared_size_is_bounded_before_memory_is_taken(data: bytes, ask: Any) -> None:
    assert len(data) < 2000
    with pytest.raises(
        FrameError, match=r"at most 89,478,485 pixels.*(60000 x 60000|3600000000).*TCE_MAX_PIXELS"
    ):
        ask(data)


def test_the_bound_on_pixels_can_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    data = hard_videos.png(scene(20, 30))
    monkeypatch.setenv("TCE_MAX_PIXELS", "599")
    with pytest.raises(FrameError, match="at most 599 pixels"):
        decode(data)
    monkeypatch.setenv("TCE_MAX_PIXELS", "600")
    assert decode(data).shape == (20, 30, 3)
    monkeypatch.setenv("TCE_MAX_PIXELS", "many")
    with pytest.raises(OptionError, match="TCE_MAX_PIXELS"):
        decode(data)


def test_a_jpeg_too_small_for_its_size_is_refused_unread() -> None:
    for ask in (decode, image_size):
        with pytest.raises(FrameError, match="bytes that declare 8000 x 8000 pixels"):
            ask(huge_jpeg(8000))
    plain = simplejpeg.encode_jpeg(np.zeros((4000, 4000, 3), np.uint8), quality=1, colorsubsampling="420")
    assert image_size(plain) == (4000, 4000), "the smallest that an encoder writes"
    assert decode(plain).shape == (4000, 4000, 3)


def saved(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(data, kind, **options)
    return data.getvalue()


def tiff_of_bits(grey: np.ndarray, bits: int) -> bytes:
    """Grey values uint16 [H, W] of so many bits in an uncompressed TIFF."""
    height, width = grey.shape
    packed = np.packbits((grey[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8), axis=None)
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1)]
    entries += [(278, height), (279, len(packed))]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries) + b"\0" * 4
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed.tobytes() + directory


GREY = scene(24, 32)[..., 0]  # [24, 32]
RGB = scene(24, 32)
ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # a quarter clockwise
PICTURES = {  # file suffix and bytes, and the pixels that they mean
    "rgb": (".png", saved(RGB, "PNG"), RGB),
    "grey": (".png", saved(GREY, "PNG"), GREY),
    "grey with alpha": (".png", saved(Image.fromarray(GREY).convert("LA"), "PNG"), GREY),
    "black and white": (".png", saved(Image.fromarray(GREY > 99), "PNG"), (GREY > 99) * 255),
    "16 bits": (".png", saved(GREY.astype(np.uint16) * 257, "PNG"), GREY),
    "16 bits, TIFF": (".tif", saved(GREY.astype(np.uint16) * 257, "TIFF"), GREY),
    "12 bits": (".tif", tiff_of_bits(GREY.astype(np.uint16) * 16 + 7, 12), GREY),
    "10 bits": (".pgm", b"P5 32 24 1023\n" + (GREY.astype(int) * 4 + 2).astype(">u2").tobytes(), GREY),
    "16 bits in colour": (
        ".png",
        cv2.imencode(".png", RGB[..., ::-1].astype(np.uint16) * 257)[1].tobytes(),
        RGB,
    ),
    "floats": (".tif", saved(GREY.astype(np.float32) / 255, "TIFF"), GREY),
    "palette": (".png", saved(Image.fromarray(GREY).convert("P"), "PNG"), GREY),
    "alpha": (".png", saved(Image.fromarray(RGB).convert("RGBA"), "PNG"), RGB),
    "lossless WebP": (".webp", saved(RGB, "WEBP", lossless=True), RGB),
    "bitmap": (".bmp", saved(RGB, "BMP"), RGB),
    "rotated PNG": (".png", saved(RGB, "PNG", exif=ROTATED), np.rot90(RGB, -1)),
    "rotated TIFF": (".tif", saved(RGB, "TIFF", tiffinfo={0x0112: 6}), np.rot90(RGB, -1)),
    "JPEG": (".jpg", saved(RGB, "JPEG", quality=100, subsampling=0), RGB),
    "rotated JPEG": (".jpg", saved(RGB, "JPEG", quality=100, subsampling=0, exif=ROTATED), np.rot90(RGB, -1)),
    "grey JPEG": (".jpg", saved(GREY, "JPEG", quality=100), GREY),
    "CMYK JPEG": (".jpg", saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=100), RGB),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_every_way_into_the_program_gives_the_same_pixels(kind: str, tmp_path: Path) -> None:
    """What is embedded (and so mapped), packed, trained on in place and evaluated is one picture."""
    suffix, data, meant = PICTURES[kind]
    folder = tmp_path / "clips" / "one"
    folder.mkdir(parents=True)
    for number in range(2):
        (folder / f"{number}{suffix}").write_bytes(data)
    meant = np.broadcast_to(meant[..., None] if meant.ndim == 2 else meant, (*meant.shape[:2], 3))
    size = meant.shape[:2]
    pixels = decode(data)
    assert pixels.dtype == np.uint8 and pixels.shape == meant.shape
    off = np.abs(pixels.astype(int) - meant).max()
    assert off <= (6 if "JPEG" in kind else 0), "JPEG at its best quality rounds"
    assert image_size(data) == size

    video = open_video(folder)
    assert video.size == size and np.array_equal(video.frames([1])[0], pixels)
    chunk, _ = stream_chunks(StreamJob(str(folder)))  # what `tce embed` decodes
    assert isinstance(chunk, FrameChunk) and np.array_equal(chunk.frames, np.stack([pixels, pixels]))
    alone = open_video(folder / f"0{suffix}")
    assert (alone.kind, len(alone), alone.size) == ("image", 1, size)
    assert np.array_equal(alone.frames([0])[0], pixels)

    store = open_store(tmp_path / "clips")
    assert store.sizes.tolist() == [list(size)]
    (batch,) = Loader(store, [(np.zeros(1, int), np.ones((1, 1), int))], size)
    assert batch.ok.all() and np.array_equal(batch.frames[0, 0], pixels)

    part, summary = encode_clip(Job(str(folder), Encoding(quality=100)))
    assert isinstance(summary, Summary) and summary.size == size
    packed = decode(part.data[part.ends[0] : part.ends[1]])  # type: ignore[union-attr]
    if suffix == ".jpg":
        assert np.array_equal(packed, pixels), "JPEG files are copied"
    else:
        assert np.abs(packed.astype(int) - pixels).mean() < 4, "others become JPEG"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(orientation: int) -> None:
    tag = Image.Exif()
    tag[0x0112] = orientation
    data = saved(scene(40, 64), "JPEG", quality=95, exif=tag)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(decode(data), expected) and image_size(data) == expected.shape[:2]
    small = resized(data, 10, 16, "squash")
    assert np.abs(small.astype(int) - pillow_squash(saved(expected, "PNG"), 10, 16)).mean() < 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 255]], np.float32), "floating-point pixels between 0 and 1; found 0 to 255"),
        (np.array([[np.nan, 1]], np.float32), "floating-point pixels"),
        (np.array([[-1, 5]], np.int32), "integer pixels between 0 and 65535; found -1 to 5"),
        (np.array([[0, 70000]], np.int32), "integer pixels"),
    ],
)
def test_pixels_of_unknown_range_are_refused_and_not_clipped(values: np.ndarray, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        decode(saved(values, "TIFF"))


def pages(kind: str, levels: Sequence[int]) -> bytes:
    """One file with a picture of each grey level, lossless."""
    first, *rest = (Image.fromarray(np.full((24, 32, 3), level, np.uint8)) for level in levels)
    extra = (
        {"duration": 100, "lossless": True} if kind == "WEBP" else {"duration": 100} if kind == "PNG" else {}
    )
    return saved(first, kind, save_all=True, append_images=rest, **extra)


@pytest.mark.parametrize(
    ("kind", "suffix", "fps"), [("TIFF", ".tif", 25), ("WEBP", ".webp", 10), ("PNG", ".png", 10)]
)
def test_an_image_file_with_several_pictures_is_a_video(
    kind: str, suffix: str, fps: float, tmp_path: Path
) -> None:
    levels = [10, 110, 210, 60]
    path = tmp_path / f"stack{suffix}"
    path.write_bytes(pages(kind, levels))
    with open_video(path) as video:
        assert (video.kind, len(video), video.size) == ("image", 4, (24, 32))
        assert video.fps == pytest.approx(fps) and video.times() == pytest.approx(np.arange(4) / fps)
        assert video.frames([3, 0, 2, 3]).mean((1, 2, 3)).tolist() == [60, 10, 210, 60]
        streamed = np.concatenate([frames for _, frames in pickle.loads(pickle.dumps(video)).stream(3)])
        assert streamed.mean((1, 2, 3)).tolist() == levels
    assert find_clips(tmp_path).paths == [path.name]
    part, summary = encode_clip(Job(str(path), Encoding()))
    assert isinstance(summary, Summary) and (len(part), summary.frames) == (4, 4)  # type: ignore[arg-type]
    with pytest.raises(FrameError, match="expected one picture a file; found 4"):
        decode(path.read_bytes())


def test_a_smaller_copy_in_a_tiff_is_no_second_picture() -> None:
    page = Image.fromarray(RGB)
    preview = page.resize((8, 6))
    preview.encoderinfo = {"tiffinfo": {254: 1}}
    assert np.array_equal(decode(saved(page, "TIFF", save_all=True, append_images=[preview])), RGB)
