import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tce.data.open_data import open_store
from tce.errors import TceError
from tce.evaluation.clip_reader import Reader, score_clips
from tce.evaluation.frozen_network import match_classes
from tce.model.checkpoint import load_classifier
from tce.model.classifier import classifier_from_encoder
from tce.model.encoder import build_encoder


def released_scores(classifier, folder, stacked):
    """The published test of one clip, written out: one stack at a time, counted from 1."""
    files = sorted(folder.iterdir())
    n = len(files)
    mean = np.array([0.485, 0.456, 0.406])
    std = np.array([0.229, 0.224, 0.225])
    total = 0.0
    for i in range(19):
        start = 1 + i * (max(0, n - 9) // 19)
        frames = []
        for j in range(6 if stacked else 1):
            image = cv2.imread(str(files[min(start + j, n) - 1]))[:, :, ::-1]
            image = cv2.resize(np.ascontiguousarray(image), (32, 32), interpolation=cv2.INTER_LINEAR)
            frames.append((image / 255.0 - mean) / std)
        if stacked:
            channels = []
            for j in range(5):
                difference = frames[j] - frames[j + 1]
                channels += [difference[:, :, 0], difference[:, :, 1], difference[:, :, 2]]
        else:
            channels = [frames[0][:, :, c] for c in range(3)]
        stack = torch.tensor(np.stack(channels)[None], dtype=torch.float32)
        with torch.no_grad():
            total = total + classifier(stack)[0].numpy().astype(np.float64)
    return total


@pytest.mark.parametrize("kind", ["stacks", "rgb"])
def test_scores_equal_the_released_loop(data, networks, kind):
    classifier = load_classifier(getattr(networks, kind))
    store = open_store(data.footage, data.lists)
    reader = Reader(store, 32, "squash", batch_size=7)
    lengths = [1, 5, 6, 8, 9, 27, 28]
    rows = np.sort([np.flatnonzero(store.lengths == n)[i % 4] for i, n in enumerate(lengths)])
    found = score_clips(classifier, reader, rows)
    assert found.rows.tolist() == rows.tolist()
    assert found.short == (2 if kind == "stacks" else 0)  # the clips of 1 and 5 frames
    for row, scores in zip(rows, found.scores, strict=True):
        expected = released_scores(classifier, data.footage / store.catalog.ids[row], kind == "stacks")
        # The decoder's and OpenCV's JPEG rounding differ by a level here and there.
        np.testing.assert_allclose(scores, expected, rtol=0.02, atol=0.15)
        assert scores.argmax() == expected.argmax()


def test_the_first_convolution_is_tiled(networks):
    rgb = load_file(networks.encoder)["backbone.conv1.weight"].numpy()
    tiled = load_file(networks.stacks)["backbone.conv1.weight"].numpy()
    assert tiled.shape == (64, 15, 7, 7)
    for channel in range(15):
        np.testing.assert_array_equal(tiled[:, channel], rgb[:, channel % 3])


def test_ten_crops_see_more_than_the_whole(data, networks):
    classifier = load_classifier(networks.rgb)
    store = open_store(data.footage, data.lists)
    rows = np.arange(4)
    whole = score_clips(classifier, Reader(store, 32, "squash"), rows)
    ten = score_clips(classifier, Reader(store, 32, "ten-crop", 3), rows)
    assert ten.scores.shape == whole.scores.shape
    assert not np.allclose(ten.scores, whole.scores)
    again = score_clips(classifier, Reader(store, 32, "ten-crop", 64), rows)
    np.testing.assert_allclose(ten.scores, again.scores, rtol=1e-3, atol=1e-2)


def test_classes_are_matched_by_name_or_number():
    encoder = build_encoder("resnet18", image_size=32, seed=0)
    named = classifier_from_encoder(encoder, 3, 0, ("walk", "run", "jump"))
    assert match_classes(named, ["jump", "walk"]).tolist() == [2, 0]
    accented = classifier_from_encoder(encoder, 3, 0, ("walk", "cafe\u0301", "th\u00e9"))
    assert match_classes(accented, ["the\u0301", "caf\u00e9"]).tolist() == [2, 1]
    with pytest.raises(TceError, match="3 classes without fly"):
        match_classes(named, ["run", "fly"])
    nameless = classifier_from_encoder(encoder, 3, 0)
    assert match_classes(nameless, ["a", "b", "c"]).tolist() == [0, 1, 2]
    with pytest.raises(TceError, match="expected 2 classes, as in the data; found 3 in the checkpoint"):
        match_classes(nameless, ["a", "b"])
