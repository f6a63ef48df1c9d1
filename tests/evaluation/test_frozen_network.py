"""The untrained network beside the evaluated one: the same input and backbone, random weights, no head."""

import pytest
import torch

from tce.evaluation.frozen_network import FrozenNetwork, untrained_like
from tce.model.encoder import build_encoder


@pytest.mark.parametrize("model", ["lite0", "lite2", "resnet18"])
def test_the_untrained_counterpart_has_the_same_input_and_no_head(model):
    made = build_encoder(model, 16, head="mlp", image_size=64, seed=5, resize="squash").eval()
    trained = FrozenNetwork.of(made, "made", {})
    one, other = (untrained_like(trained, seed, "cpu").network for seed in (0, 1))
    for name in ("architecture", "image_size", "mean", "std", "resize", "feature_size"):
        assert getattr(one.config, name) == getattr(made.config, name)
    assert (one.config.head, one.default_layer, one.embedding_size) == (
        "none",
        "embedding",
        made.feature_size,
    )
    weights, others = one.state_dict(), other.state_dict()
    moved = [name for name, value in weights.items() if not torch.equal(value, others[name])]
    assert moved and all("weight" in name for name in moved), "the seed decides the weights"
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = one.features(x)
    torch.testing.assert_close(one(x), torch.nn.functional.normalize(features, dim=1))
    # Also through twenty depthwise layers a signal of ones stays one.
    assert 0.01 < features.std() < 100 and features.std(dim=0).mean() > 1e-3


def test_a_hugging_face_network_is_built_again_from_its_configuration(tmp_path):
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    transformers.Dinov2Model(transformers.Dinov2Config(patch_size=14, mlp_ratio=2, **sizes)).save_pretrained(
        tmp_path / "dinov2"
    )
    made = FrozenNetwork.of(build_encoder(f"hf:{tmp_path / 'dinov2'}", head="none").eval(), "made", {})
    other = untrained_like(made, 0, "cpu").network
    x = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    assert other(x).shape == made.network(x).shape
    assert not torch.allclose(other(x), made.network(x), atol=1e-2)


def test_a_callable_has_no_untrained_counterpart():
    made = build_encoder("tests.helpers.tinynet:tiny", head="none", image_size=32)
    assert untrained_like(FrozenNetwork.of(made.eval(), "tiny", {}), 0, "cpu") is None
