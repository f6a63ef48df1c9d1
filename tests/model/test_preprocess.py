import numpy as np
import pytest
import torch
from PIL import Image

from tce.errors import OptionError, TceError
from tce.model.encoder import build_encoder
from tce.model.preprocess import normalise, resize_frames, scaled_size, to_tensor


def photo(height, width, seed=0):
    """Smooth and noisy parts: [height, width, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=-1)
    return np.where(
        rng.random((height, width, 1)) < 0.3, rng.integers(0, 256, (height, width, 3)), smooth
    ).astype(np.uint8)


def pillow(frame, how, size):
    """Resized and cropped by Pillow, whose bilinear filter is antialiased too."""
    image = Image.fromarray(frame)
    if how == "squash":
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    short = round(size * 256 / 224)
    scale = short / min(image.size)
    width, height = (max(short, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("shape", [(240, 320), (321, 111), (20, 30), (64, 64), (73, 73), (1, 5)])
@pytest.mark.parametrize("how", ["center-crop", "squash"])
def test_resizing_is_pillows_within_one_level(shape, how):
    frames = np.stack([photo(*shape, seed) for seed in range(2)])
    found = resize_frames(torch.from_numpy(frames), 64, how)
    assert found.shape == (2, 3, 64, 64)
    assert found.dtype == torch.uint8
    for frame, image in zip(frames, found):
        expected = pillow(frame, how, 64).astype(int)
        difference = np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected)
        assert difference.max() <= 1
        assert difference.mean() < 0.3


def test_no_resizing_leaves_pixels_alone():
    frames = torch.from_numpy(photo(17, 19)[None])
    assert torch.equal(resize_frames(frames, 64, "none"), frames.permute(0, 3, 1, 2))


def test_paper_sizes():
    assert scaled_size(240, 320, 224) == (256, 341)
    assert scaled_size(320, 240, 112) == (171, 128)


def test_normalising_is_the_textbook_formula():
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = normalise(image, mean, std)
    for channel in range(3):
        expected = (image[:, channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(found[:, channel].double(), expected, rtol=0, atol=1e-6)


def test_preprocess_takes_arrays_and_tensors_of_any_layout():
    encoder = build_encoder(image_size=32, seed=0)
    frames = np.stack([photo(40, 60, seed) for seed in range(3)])
    expected = encoder.preprocess(frames)
    assert expected.shape == (3, 3, 32, 32)
    assert expected.dtype == torch.float32
    assert expected.is_contiguous(memory_format=torch.channels_last)
    frozen = frames.copy()
    frozen.flags.writeable = False
    assert torch.equal(encoder.preprocess(frozen), expected)
    assert torch.equal(encoder.preprocess(torch.from_numpy(frames)), expected)
    flipped = encoder.preprocess(frames[:, :, ::-1])  # a view with a negative stride
    assert torch.equal(flipped, encoder.preprocess(frames[:, :, ::-1].copy()))
    assert encoder.preprocess(frames, image_size=16).shape == (3, 3, 16, 16)
    assert encoder.preprocess(frames, resize="none").shape == (3, 3, 40, 60)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        torch.zeros(2, 8, 8, 3),
    ],
)
def test_other_frames_are_refused(frames):
    with pytest.raises(TceError, match=r"frames; expected uint8 \[B, H, W, 3\]"):
        to_tensor(frames, torch.device("cpu"))


def test_unknown_resizing_is_refused():
    with pytest.raises(OptionError, match="--resize"):
        resize_frames(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), 4, "crop")
