import copy

import numpy as np
import pytest
import torch

from tce.errors import OptionError, TceError
from tce.model.encoder import EncoderConfig, RotationHead, build_encoder


def test_embeddings_are_the_normalised_projection_of_the_features(images):
    encoder = build_encoder("resnet18", embedding_size=16, seed=0, image_size=32).eval()
    with torch.no_grad():
        features = encoder.features(images)
        raw = features.numpy() @ encoder.head.weight.numpy().T + encoder.head.bias.numpy()
        expected = raw / np.sqrt((raw**2).sum(axis=1, keepdims=True))
        found = encoder(images)
    assert features.shape == (3, 512)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    torch.testing.assert_close(encoder.project(features), found)


def test_mlp_head_against_plain_arithmetic(images):
    encoder = build_encoder("resnet18", embedding_size=16, head="mlp", seed=0).eval()
    assert encoder.head.hidden.weight.shape == (512, 512)
    with torch.no_grad():
        features = encoder.features(images)
        state = {name: value.numpy() for name, value in encoder.head.state_dict().items()}
        hidden = np.maximum(features.numpy() @ state["hidden.weight"].T + state["hidden.bias"], 0)
        raw = hidden @ state["output.weight"].T + state["output.bias"]
        found = encoder.project(features).numpy()
    np.testing.assert_allclose(found, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)


def test_no_head_gives_normalised_features(images):
    encoder = build_encoder("resnet18", head="none", seed=0).eval()
    assert encoder.embedding_size == encoder.feature_size == 512
    with torch.no_grad():
        features = encoder.features(images)
        torch.testing.assert_close(encoder(images), features / features.norm(dim=1, keepdim=True))


def test_rotation_head_is_linear_relu_norm_twice_then_linear():
    torch.manual_seed(0)
    head = RotationHead(24)
    for norm in (head.bn_rotation_1, head.bn_rotation_2):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    state = {name: value.double().numpy() for name, value in head.state_dict().items()}
    x = torch.randn(5, 24)
    expected = x.double().numpy()
    for layer in ("1", "2"):
        expected = expected @ state[f"fc_rotation_{layer}.weight"].T + state[f"fc_rotation_{layer}.bias"]
        expected = np.where(expected > 0, expected, 0)
        mean, var = state[f"bn_rotation_{layer}.running_mean"], state[f"bn_rotation_{layer}.running_var"]
        expected = (expected - mean) / np.sqrt(var + 1e-5)
        expected = expected * state[f"bn_rotation_{layer}.weight"] + state[f"bn_rotation_{layer}.bias"]
    expected = expected @ state["fc_rotation_3.weight"].T + state["fc_rotation_3.bias"]
    with torch.no_grad():
        np.testing.assert_allclose(head.eval()(x).numpy(), expected, atol=1e-5)
    assert state["fc_rotation_1.weight"].shape == (200, 24)
    assert state["fc_rotation_3.weight"].shape == (4, 200)


def test_rotation_needs_its_head(images):
    with pytest.raises(TceError, match="rotation head"):
        build_encoder(seed=0).rotation(images)
    encoder = build_encoder(rotation=True, seed=0).eval()
    with torch.no_grad():
        features = encoder.backbone(images)
        torch.testing.assert_close(encoder.rotation(images), encoder.rotation_logits(features))


def test_seed_decides_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = (build_encoder(seed=3).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = build_encoder(seed=4).state_dict()
    assert not torch.equal(first["backbone.conv1.weight"], other["backbone.conv1.weight"])


def test_length_is_taken_in_float32_under_bf16(images):
    encoder = build_encoder(seed=0).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3), rtol=0, atol=1e-6)


def test_frozen_layers_stay_bit_for_bit(images):
    encoder = build_encoder(seed=0)
    count = encoder.freeze("layer2")
    frozen = ("conv1.", "bn1.", "layer1.", "layer2.")
    parts = dict(encoder.backbone.named_parameters())
    assert count == sum(p.numel() for n, p in parts.items() if n.startswith(frozen))
    assert all(p.requires_grad != n.startswith(frozen) for n, p in parts.items())
    before = copy.deepcopy(encoder.backbone.state_dict())
    encoder.train()
    optimiser = torch.optim.SGD((p for p in encoder.parameters() if p.requires_grad), lr=0.1)
    encoder(images).sum().backward()
    optimiser.step()
    for name, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(frozen), name
    encoder.freeze(None)
    encoder.train()
    assert all(p.requires_grad for p in encoder.parameters())
    assert all(module.training for module in encoder.modules())


def test_freezing_inside_a_stage_and_everything():
    encoder = build_encoder(seed=0)
    encoder.freeze("layer1.0")
    assert not encoder.backbone.layer1[0].conv1.weight.requires_grad
    assert encoder.backbone.layer1[1].conv1.weight.requires_grad
    assert not encoder.backbone.layer1[0].training
    assert encoder.backbone.layer1[1].training
    assert encoder.freeze("all") == sum(p.numel() for p in encoder.backbone.parameters())
    assert encoder.head.weight.requires_grad


def test_unknown_layer_lists_the_known_ones():
    with pytest.raises(
        OptionError, match=r"--freeze; expected a layer such as conv1.*layer4, all; found 'layer9'"
    ):
        build_encoder(seed=0).freeze("layer9")


@pytest.mark.parametrize(
    "wrong, flag",
    [
        ({"head": "deep"}, "--head"),
        ({"embedding_size": 0}, "--embedding-size"),
        ({"image_size": -1}, "--image-size"),
        ({"resize": "stretch"}, "--resize"),
        ({"std": (0.1, 0.0, 0.1)}, "mean, std"),
        ({"head": "none", "embedding_size": 7}, "--embedding-size"),
    ],
)
def test_contradictory_configurations_are_reported(wrong, flag):
    with pytest.raises(OptionError, match=flag):
        EncoderConfig(**wrong)


def test_unknown_architecture_is_reported():
    with pytest.raises(OptionError, match=r"--model; expected resnet18.*hf:FOLDER_OR_NAME"):
        build_encoder("vgg16")
