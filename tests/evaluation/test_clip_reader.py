from itertools import pairwise

import numpy as np
import pytest
import torch

from tce.data.open_data import open_store
from tce.evaluation.clip_reader import (
    Reader,
    _Assembly,
    clip_means,
    even_samples,
    paper_samples,
    stack_differences,
    ten_crops,
)
from tce.model.checkpoint import load_classifier, load_encoder
from tce.model.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise

LENGTHS = [1, 5, 6, 8, 9, 27, 28, 100, 1000]


def released_positions(n):
    """Frames of the 19 stacks of the released test, counted from 1, as its description says."""
    found = []
    for i in range(19):
        start = 1 + i * (max(0, n - 9) // 19)
        found.append([min(start + j, n) for j in range(6)])
    return found


@pytest.mark.parametrize("n", LENGTHS)
def test_positions_of_the_paper(n):
    samples = paper_samples(np.array([50, n]), np.array([1]), 19, 6)
    got = []
    for row, weight in zip(samples.index, samples.weight, strict=True):
        got += [(row + 1).tolist()] * weight
    assert sorted(got) == sorted(released_positions(n))
    assert set(samples.clip.tolist()) == {1}
    if n <= 27:
        assert len(samples) == 1 and samples.weight[0] == 19, "equal stacks pass the network once"


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("span", [1, 6])
def test_even_samples_stay_inside(n, span):
    samples = even_samples(np.array([n]), np.array([0]), 8, span)
    assert samples.weight.sum() == 8
    assert samples.index.min() >= 0 and samples.index.max() <= n - 1
    if n >= span:
        assert (np.diff(samples.index, axis=1) == 1).all()
    assert (np.diff(samples.index[:, 0]) > 0).all()


class CountingStore:
    """Passes on to a store, and counts how often each frame is read."""

    def __init__(self, store):
        self._store = store
        self.asked = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    def read(self, clips, frames):
        self.asked += zip(clips.tolist(), frames.tolist(), strict=True)
        return self._store.read(clips, frames)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_each_frame_is_decoded_once_and_stacks_are_right(data, networks, batch_size):
    store = CountingStore(open_store(data.footage, data.lists))
    classifier = load_classifier(networks.stacks)
    rows = np.arange(len(store._store))
    samples = paper_samples(store.lengths, rows, 19, 6)
    reader = Reader(store, 32, "squash", batch_size)
    seen, sizes = [], []

    def keep(inputs):
        sizes.append(len(inputs))
        return inputs[:, :, ::8, ::8].flatten(1).clone()

    for part, outputs in reader.outputs(classifier, keep, samples, "testing"):
        assert part.stop - part.start == len(outputs)
        seen.append(outputs)
    assert len(store.asked) == len(set(store.asked)), "a frame was read twice"
    needed = {(int(c), int(f)) for c, index in zip(samples.clip, samples.index) for f in index}
    assert set(store.asked) == needed
    assert max(sizes) <= batch_size and sizes[:-1] == [batch_size] * (len(sizes) - 1)
    inputs = torch.cat(seen)
    assert len(inputs) == len(samples)
    alone = Reader(store, 32, "squash", 1)
    for number in (0, 7, len(samples) - 1):
        one = type(samples)(*(column[number : number + 1] for column in vars(samples).values()))
        ((_, expected),) = alone.outputs(classifier, keep, one, "testing")
        torch.testing.assert_close(inputs[number : number + 1], expected)


def test_assembly_holds_no_more_than_it_needs():
    member = np.arange(88)[:, None] + np.arange(4)  # every sample shares frames with its neighbours
    assembly = _Assembly(member, batch_size=5)
    stream = torch.arange(91.0).view(91, 1, 1, 1)
    given = []
    for start in range(0, 91, 10):
        for part, held, places in assembly.add(stream[start : start + 10]):
            given.append((part, held[places][:, :, 0, 0, 0]))
        assert assembly.seen - assembly.first < 5 + 3
    assert len(assembly.buffer) <= 2 * (5 + 3 + 10)
    assert [part.start for part, _ in given] == list(range(0, 88, 5)) and given[-1][0].stop == 88
    torch.testing.assert_close(torch.cat([stacks for _, stacks in given]), torch.from_numpy(member).float())


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_differences_of_a_stream_are_those_of_the_normalised_stacks(dtype, tolerance):
    draw = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (7, 4, 5, 3), dtype=torch.uint8, generator=draw)
    places = torch.tensor([[0, 1, 2], [1, 2, 3], [4, 5, 5], [6, 6, 6], [2, 3, 4]])
    normalised = normalise(frames.permute(0, 3, 1, 2), IMAGENET_MEAN, IMAGENET_STD)
    steps = [[normalised[i] - normalised[j] for i, j in pairwise(row)] for row in places.tolist()]
    expected = torch.stack([torch.cat(row) for row in steps])
    out = torch.empty(5, 6, 4, 5, dtype=dtype).to(memory_format=torch.channels_last)
    assert stack_differences(frames, places, IMAGENET_STD, out) is out
    torch.testing.assert_close(out.float(), expected, rtol=tolerance, atol=1e-6)
    assert (out[3] == 0).all(), "a frame that repeats has no difference"


def test_means_are_weighted_and_failed_clips_are_named(data, networks, tmp_path, caplog):
    import shutil

    shutil.copytree(data.footage, tmp_path / "footage")
    broken = tmp_path / "footage" / "v_Left_g02_c01" / "frame000004.jpg"
    broken.write_bytes(broken.read_bytes()[:80])
    store = open_store(tmp_path / "footage", data.lists)
    encoder = load_encoder(networks.encoder)
    rows = np.arange(len(store))
    reader = Reader(store, 32, "squash")
    samples = even_samples(store.lengths, rows, 8, 1)
    means = clip_means(reader, encoder, encoder.features, samples, "features")
    (failed,) = reader.failed
    assert store.catalog.ids[failed] == "v_Left_g02_c01" and reader.failed[failed].startswith("frame 3: ")
    assert sum("left out: v_Left_g02_c01, frame 3" in record.message for record in caplog.records) == 1
    assert reader.readable(rows).sum() == len(rows) - 1
    clip = int(np.flatnonzero(store.lengths == 5)[0])  # 8 samples of 5 frames: weights differ
    mine = samples.clip == clip
    frames = [store.read(np.array([clip]), np.array([f]))[0] for f in samples.index[mine, 0]]
    from tce.video.image import decode_into

    pixels = np.empty((len(frames), 32, 32, 3), np.uint8)
    for image, out in zip(frames, pixels):
        decode_into(image, out, "squash")
    with torch.no_grad():
        features = encoder.features(encoder.preprocess(pixels, resize="none")).numpy()
    weight = samples.weight[mine][:, None]
    assert len(set(weight.ravel().tolist())) == 2
    np.testing.assert_allclose(means[clip], (features * weight).sum(axis=0) / 8, rtol=2e-4, atol=1e-4)


def test_ten_crops_are_corners_middle_and_mirrors():
    image = torch.arange(36.0).view(1, 1, 6, 6)
    crops = ten_crops(image, 4)
    assert [int(crop[0, 0, 0, 0]) for crop in crops[:5]] == [0, 2, 12, 14, 7]
    for crop, mirrored in zip(crops[:5], crops[5:], strict=True):
        assert torch.equal(crop.flip(-1), mirrored) and crop.shape == (1, 1, 4, 4)
