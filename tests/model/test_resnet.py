import pytest
import torch

from tce.errors import OptionError
from tce.model.resnet import DEPTHS, resnet

# Parameters with a last layer of 1000 outputs, as published with the ImageNet weights.
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    with torch.device("meta"):
        net = resnet(name, num_outputs=1000)
    assert sum(p.numel() for p in net.parameters()) == PUBLISHED[name]


def test_resnet150_means_152():
    with torch.device("meta"):
        assert sum(p.numel() for p in resnet("resnet150", num_outputs=1000).parameters()) == 60_192_808


def test_unknown_name_is_reported():
    with pytest.raises(OptionError, match=r"--model; expected resnet18.*found 'resnet19'"):
        resnet("resnet19")


def their_names(net):
    """Our parameter names -> those of transformers' ResNetModel."""
    stem = {"conv1": "embedder.embedder.convolution", "bn1": "embedder.embedder.normalization"}
    names = {}
    for ours in net.state_dict():
        parts = ours.split(".")
        if parts[0] in stem:
            names[ours] = f"{stem[parts[0]]}.{parts[1]}"
            continue
        stage, block, kind = int(parts[0].removeprefix("layer")) - 1, parts[1], parts[2]
        place = f"encoder.stages.{stage}.layers.{block}"
        if kind == "downsample":
            part = "convolution" if parts[3] == "0" else "normalization"
            names[ours] = f"{place}.shortcut.{part}.{parts[4]}"
        else:
            part = "convolution" if kind.startswith("conv") else "normalization"
            names[ours] = f"{place}.layer.{int(kind[-1]) - 1}.{part}.{parts[3]}"
    return names


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_same_features_as_an_independent_implementation(name):
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    net = resnet(name).train()
    depth = DEPTHS[name]
    widths = [256, 512, 1024, 2048] if depth.bottleneck else [64, 128, 256, 512]
    theirs = ResNetModel(
        ResNetConfig(
            layer_type="bottleneck" if depth.bottleneck else "basic",
            hidden_sizes=widths,
            depths=list(depth.blocks),
        )
    ).train()
    x = torch.randn(2, 3, 64, 80)
    net(torch.randn(2, 3, 64, 64))  # statistics that differ from their initial values
    state = net.state_dict()
    theirs.load_state_dict({their: state[ours] for ours, their in their_names(net).items()})
    for mode in (False, True):
        with torch.no_grad():
            expected = theirs.train(mode)(x).pooler_output.flatten(1)
            torch.testing.assert_close(net.train(mode)(x), expected, rtol=1e-4, atol=1e-5)
    assert net.feature_size == expected.shape[1]


def test_initial_values_are_kaiming_of_the_fan_out():
    torch.manual_seed(0)
    net = resnet("resnet18", in_channels=15)
    weight = net.layer3[0].conv2.weight  # [256, 256, 3, 3]
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert net.conv1.weight.shape == (64, 15, 7, 7)
    assert net.conv1.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.02)
    assert torch.equal(net.bn1.weight, torch.ones(64))
    assert torch.equal(net.bn1.bias, torch.zeros(64))
