"""ResNets inside the files that other training code writes."""

import logging
from collections import OrderedDict

import pytest
import torch

from tce.cli import main
from tce.errors import TceError
from tce.model.checkpoint import describe, load_classifier, load_encoder
from tce.model.resnet import resnet
from tests.model.conftest import scramble


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(4)
    return scramble(resnet("resnet18"))


@pytest.fixture
def save(tmp_path):
    def write(content):
        torch.save(content, tmp_path / "checkpoint.pth")
        return tmp_path / "checkpoint.pth"

    return write


def under(prefix, network):
    return OrderedDict((prefix + name, value) for name, value in network.state_dict().items())


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def assert_features(path, network, images):
    encoder = load_encoder(path)
    assert (encoder.config.head, encoder.config.architecture) == ("none", "resnet18")
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), unit(network(images)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "net.",
        "model._orig_mod.",
        "backbone.",
        "module.backbone.",
        "model.backbone.",
        "encoder.",
        "module.encoder_q.",
        "model.net.encoder.",
    ],
)
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "model_state_dict", "net"])
def test_prefixes_and_wrappers(save, network, images, prefix, wrapper):
    state = under(prefix, network)
    assert_features(save(state if wrapper is None else {wrapper: state, "epoch": 3}), network, images)


@pytest.fixture(scope="module")
def copy_of_it():
    torch.manual_seed(5)
    return scramble(resnet("resnet18"), seed=5)


def test_moco(save, network, copy_of_it, images, caplog):
    """MoCo v2: the query encoder is taken, whichever stands first; its projection and its copy are left."""
    head = {f"module.encoder_{k}.fc.{i}.weight": torch.zeros(8, 8) for k in "qk" for i in (0, 2)}
    query, key = under("module.encoder_q.", network), under("module.encoder_k.", copy_of_it)
    queue = {"module.queue": torch.zeros(8, 16), "module.queue_ptr": torch.tensor([3])}
    for state in (query | key | head | queue, key | query | queue | head):
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            assert_features(save({"arch": "resnet18", "state_dict": state}), network, images)
        (line,) = [record.getMessage() for record in caplog.records]
        assert "took 120 tensors of a resnet18 under the prefix module.encoder_q." in line
        for part in ("encoder_q.fc (2)", "encoder_k.fc (2)", "queue (1)"):
            assert part in line or "more" in line
    first = {f"module.encoder_q.fc.{n}": torch.zeros(s) for n, s in (("weight", (128, 512)), ("bias", 128))}
    assert_features(save({"state_dict": query | key | first | queue}), network, images)


@pytest.mark.parametrize("mine, copy", [("online_encoder.", "target_encoder."), ("student.", "teacher.")])
def test_the_trained_one_of_two_networks(save, network, copy_of_it, images, mine, copy):
    for state in (
        under(mine, network) | under(copy, copy_of_it),
        under(copy, copy_of_it) | under(mine, network),
    ):
        assert_features(save({"state_dict": state}), network, images)


def test_other_layers_beside_a_backbone(save, network, images, caplog):
    state = under("backbone.", network) | {"projector.0.weight": torch.zeros(8, 512), "temp": torch.zeros(1)}
    with caplog.at_level(logging.WARNING):
        assert_features(save({"state_dict": state}), network, images)
    assert "left out projector (1), temp (1)" in caplog.text


def test_lightning_classifiers(save, images):
    torch.manual_seed(6)
    net = scramble(resnet("resnet18", num_outputs=10))
    for prefix in ("model.", "net.", "model._orig_mod."):
        classifier = load_classifier(save({"state_dict": under(prefix, net), "epoch": 7, "global_step": 70}))
        with torch.no_grad():
            torch.testing.assert_close(classifier(images), net(images))
    imagenet = scramble(resnet("resnet18", num_outputs=1000))
    state = under("model.", imagenet) | {"loss.weight": torch.ones(1000)}
    with torch.no_grad():
        torch.testing.assert_close(load_classifier(save({"state_dict": state}))(images), imagenet(images))


def test_info_tells_what_is_taken(save, network, capsys):
    path = save({"state_dict": under("module.encoder_q.", network) | {"module.queue": torch.zeros(2, 2)}})
    facts = describe(path)
    assert (
        facts["taken"]
        == "took 120 tensors of a resnet18 under the prefix module.encoder_q.; left out queue (1)"
    )
    assert main(["info", str(path)]) == 0
    assert "module.encoder_q." in capsys.readouterr().out


@pytest.mark.parametrize("key", [0, b"conv1.weight", ("a", "b"), None])
def test_names_that_are_no_text(save, network, key):
    state = {**network.state_dict(), key: torch.zeros(1)}
    for content in (state, {"state_dict": state}):
        for read in (load_encoder, describe):
            with pytest.raises(TceError, match=f"names are text; found a name of type {type(key).__name__}"):
                read(save(content))


def test_words_of_a_file_are_kept_only_where_they_are_few(save, network):
    content = {"state_dict": network.state_dict(), "arch": "x" * 10_000, "epoch": 10**5000, "best_acc1": 61.5}
    assert describe(save(content))["provenance"] == {"format": "torchvision", "best_acc1": 61.5}
