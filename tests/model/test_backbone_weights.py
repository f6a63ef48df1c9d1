import pytest
import torch

from tce.errors import TceError
from tce.model.checkpoint import load_backbone_weights, save_model
from tce.model.classifier import classifier_from_encoder
from tce.model.encoder import build_encoder
from tce.model.resnet import resnet


@pytest.fixture(scope="module")
def encoder():
    return build_encoder(seed=1, rotation=True).eval()


def test_rgb_weights_into_a_classifier_of_differences(tmp_path, encoder):
    path = save_model(tmp_path, encoder)
    classifier = classifier_from_encoder(build_encoder(seed=2), 5)
    head = classifier.fc.weight.clone()
    report = load_backbone_weights(classifier, path)
    expected = classifier_from_encoder(encoder, 5).backbone.state_dict()
    for name, value in classifier.backbone.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert torch.equal(classifier.fc.weight, head)
    assert report.tiled
    assert report.taken == tuple(f"backbone.{n}" for n in expected)
    assert set(report.fresh) == {"fc.weight", "fc.bias"}
    assert all(name.startswith(("head.", "rotation_head.")) for name in report.left)
    assert str(report) == (
        "resnet18 of a tce file: 120 tensors taken; first convolution tiled over the differences; "
        "left out: head, rotation_head; new: fc"
    )


def test_imagenet_weights_into_an_encoder(tmp_path):
    torch.manual_seed(0)
    net = resnet("resnet18", num_outputs=1000)
    torch.save(net.state_dict(), tmp_path / "imagenet.pth")
    encoder = build_encoder(seed=2)
    report = load_backbone_weights(encoder, tmp_path / "imagenet.pth")
    for name, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, net.state_dict()[name])
    assert not report.tiled
    assert report.left == ("fc.weight", "fc.bias")


def test_a_classifier_of_differences_serves_its_like_only(tmp_path, encoder):
    source = classifier_from_encoder(build_encoder(seed=3), 4)
    path = save_model(tmp_path, source)
    target = classifier_from_encoder(encoder, 9)
    assert not load_backbone_weights(target, path).tiled
    assert torch.equal(target.backbone.conv1.weight, source.backbone.conv1.weight)
    with pytest.raises(TceError, match="expected a network of RGB frames; found one of stacked differences"):
        load_backbone_weights(build_encoder(seed=0), path)


def test_other_architectures_are_reported(tmp_path, encoder):
    path = save_model(tmp_path, encoder)
    before = build_encoder("resnet34", seed=0)
    with pytest.raises(TceError, match="the file holds a resnet18; expected a resnet34, as --model says"):
        load_backbone_weights(before, path)
