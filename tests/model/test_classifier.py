import numpy as np
import pytest
import torch

from tce.errors import OptionError, TceError
from tce.model.classifier import classifier_from_encoder, frames_to_differences, tile_channels
from tce.model.encoder import build_encoder


def test_differences_against_a_slow_loop():
    frames = torch.randn(2, 6, 3, 4, 5)
    found = frames_to_differences(frames)
    assert found.shape == (2, 15, 4, 5)
    for sample in range(2):
        for step in range(5):
            for colour in range(3):
                expected = frames[sample, step, colour] - frames[sample, step + 1, colour]
                assert torch.equal(found[sample, 3 * step + colour], expected)


def test_tiling_against_a_slow_loop():
    weight = torch.randn(4, 3, 2, 2)
    found = tile_channels(weight, 15)
    assert found.shape == (4, 15, 2, 2)
    for out in range(4):
        for channel in range(15):
            assert torch.equal(found[out, channel], weight[out, channel % 3])


def test_classifier_starts_from_the_encoders_backbone(images):
    encoder = build_encoder(seed=0, image_size=32).eval()
    classifier = classifier_from_encoder(encoder, 7, seed=0).eval()
    stacked = torch.randn(3, 15, 32, 32)
    with torch.no_grad():
        # A tiled kernel on 15 channels is the RGB kernel on the sum of the five differences.
        summed = stacked.unflatten(1, (5, 3)).sum(1)
        torch.testing.assert_close(
            classifier.features(stacked), encoder.features(summed), rtol=1e-4, atol=1e-5
        )
        assert classifier(stacked).shape == (3, 7)
        rgb = classifier_from_encoder(encoder, 7, differences=0).eval()
        assert torch.equal(rgb.features(images), encoder.features(images))
        assert torch.equal(rgb(images), rgb.fc(rgb.features(images)))
    assert encoder.backbone.conv1.weight.shape == (64, 3, 7, 7)  # left alone
    assert "fc.weight" in classifier.state_dict()
    assert not any("head" in name for name in classifier.state_dict())


def test_own_copy_of_the_weights():
    encoder = build_encoder(seed=0)
    classifier = classifier_from_encoder(encoder, 3, differences=0)
    with torch.no_grad():
        classifier.backbone.conv1.weight.zero_()
    assert encoder.backbone.conv1.weight.abs().sum() > 0


def test_preprocess_stacks_frames_in_order():
    encoder = build_encoder(seed=0, image_size=24)
    classifier = classifier_from_encoder(encoder, 3)
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 30, 40, 3), dtype=np.uint8)
    found = classifier.preprocess(frames)
    assert found.shape == (2, 15, 24, 24)
    for sample in range(2):
        single = encoder.preprocess(frames[sample], resize="squash")  # [6, 3, 24, 24]
        for step in range(5):
            expected = single[step] - single[step + 1]
            torch.testing.assert_close(found[sample, 3 * step : 3 * step + 3], expected)
    rgb = classifier_from_encoder(encoder, 3, differences=0)
    assert rgb.preprocess(frames[0]).shape == (6, 3, 24, 24)
    assert rgb.preprocess(frames[:, :1]).shape == (2, 3, 24, 24)


def test_wrong_stacks_are_reported():
    classifier = classifier_from_encoder(build_encoder(seed=0), 3)
    with pytest.raises(TceError, match=r"expected uint8 \[B, 6, H, W, 3\]; found \[2, 5, 8, 8, 3\]"):
        classifier.preprocess(np.zeros((2, 5, 8, 8, 3), np.uint8))
    with pytest.raises(TceError, match=r"\[B, 6, H, W, 3\]"):
        classifier.preprocess(np.zeros((6, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    "wrong", [{"num_classes": 0}, {"num_classes": 2, "classes": ["a"]}, {"num_classes": 2, "differences": -1}]
)
def test_contradictions_are_reported(wrong):
    with pytest.raises(OptionError):
        classifier_from_encoder(build_encoder(seed=0), **wrong)


def test_dropout_and_freezing_act_in_training_only():
    classifier = classifier_from_encoder(build_encoder(seed=0), 3, differences=0, dropout=0.5)
    x = torch.randn(2, 3, 32, 32)
    classifier.freeze("all")
    classifier.train()
    assert not torch.equal(classifier(x), classifier(x))  # dropout, in front of the last layer
    assert torch.equal(classifier.features(x), classifier.features(x))  # batch norm is frozen
    classifier.eval()
    assert torch.equal(classifier(x), classifier(x))
