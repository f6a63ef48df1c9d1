import json
import os
from collections import OrderedDict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tce.errors import TceError
from tce.model.checkpoint import (
    checkpoint_hash,
    describe,
    describe_model,
    load_classifier,
    load_encoder,
    save_model,
    tensors_hash,
)
from tce.model.checkpoint_formats import translate
from tce.model.classifier import classifier_from_encoder
from tce.model.encoder import RotationHead, build_encoder
from tce.model.resnet import resnet


def without_counters(state):
    return OrderedDict((n, v) for n, v in state.items() if not n.endswith("num_batches_tracked"))


def unit(x):
    return x / x.pow(2).sum(dim=1, keepdim=True).sqrt()


@pytest.fixture
def save(tmp_path):
    def write(content, zipped=True):
        torch.save(content, tmp_path / "checkpoint.pth", _use_new_zipfile_serialization=zipped)
        return tmp_path / "checkpoint.pth"

    return write


LAYOUTS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])


# ---- every format of others


@LAYOUTS
def test_2020_pretraining(save, trained, images, prefixed, zipped):
    path = save(
        {"model": prefixed(without_counters(trained.state_dict())), "epoch": 12, "opt": {"lr": 0.03}}, zipped
    )
    encoder = load_encoder(path, "resnet18")
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), unit(trained(images)), rtol=0, atol=1e-6)
    assert not encoder.training
    assert (encoder.embedding_size, encoder.config.head, encoder.image_size) == (128, "linear", 224)
    assert encoder.config.resize == "center-crop"
    assert encoder.config.provenance == {"format": "TCE 2020 pre-training", "epoch": 12}
    assert all(p.requires_grad for p in encoder.parameters())


@LAYOUTS
def test_2020_finetuning(save, prefixed, zipped):
    torch.manual_seed(1)
    net = resnet("resnet18", in_channels=15, num_outputs=11).eval()
    renamed = {
        "conv1.weight": "conv1_custom.weight",
        "fc.weight": "fc_custom.weight",
        "fc.bias": "fc_custom.bias",
    }
    state = OrderedDict((renamed.get(n, n), v) for n, v in net.state_dict().items())
    path = save(
        {
            "epoch": 600,
            "state_dict": prefixed(state),
            "best_prec1": torch.tensor(61.5),
            "optimizer": {"state": {}},
        }
    )
    classifier = load_classifier(path, "resnet18")
    x = torch.randn(2, 15, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(classifier(x), net(x))
    config = classifier.config
    assert (config.num_classes, config.differences, config.resize) == (11, 5, "squash")
    assert config.provenance == {"format": "TCE 2020 fine-tuning", "epoch": 600, "best_prec1": 61.5}
    with pytest.raises(TceError, match=r"expected an encoder; found a classifier.*give the pre-training"):
        load_encoder(path)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("rotation", [True, False])
def test_later_pretraining(save, trained, images, prefixed, prefix, rotation):
    torch.manual_seed(2)
    backbone = OrderedDict(
        (f"backbone.{n}", v) for n, v in trained.state_dict().items() if not n.startswith("fc.")
    )
    head = RotationHead(512).eval()
    state = backbone | {
        "fc_contrastive.weight": trained.fc.weight.detach(),
        "fc_contrastive.bias": trained.fc.bias.detach(),
    }
    if rotation:
        state |= head.state_dict()
    path = save(
        {
            "state_dict": prefixed(state, prefix),
            "optimizer": {},
            "NCELoss": {"params": torch.zeros(5)},
            "epoch": 50,
        }
    )
    encoder = load_encoder(path)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), unit(trained(images)), rtol=0, atol=1e-6)
        if rotation:
            torch.testing.assert_close(encoder.rotation(images), head(encoder.features(images)))
    assert encoder.config.rotation == rotation


@pytest.mark.parametrize("layer", ["fc", "classifier"])
def test_later_finetuning(save, trained, images, prefixed, layer):
    state = OrderedDict((f"backbone.{n}", v) for n, v in trained.state_dict().items())
    state = OrderedDict((n.replace("backbone.fc.", f"{layer}."), v) for n, v in state.items())
    path = save({"state_dict": prefixed(state), "epoch": 1})
    classifier = load_classifier(path)
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), trained(images))
    assert classifier.config.differences == 0
    # A trunk that kept its own ImageNet layer beside the new one.
    state["backbone.fc.weight"], state["backbone.fc.bias"] = torch.zeros(1000, 512), torch.zeros(1000)
    with torch.no_grad():
        torch.testing.assert_close(load_classifier(save({"state_dict": state}))(images), trained(images))


def test_imagenet_state_dict_is_an_encoder_without_a_head(save, images):
    torch.manual_seed(3)
    net = resnet("resnet18", num_outputs=1000).eval()
    path = save(net.state_dict())
    encoder = load_encoder(path)
    body = resnet("resnet18").eval()
    body.load_state_dict({n: v for n, v in net.state_dict().items() if not n.startswith("fc.")})
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), unit(body(images)), rtol=0, atol=1e-6)
        assert encoder.embedding_size == 512
        torch.testing.assert_close(load_classifier(path)(images), net(images))
    assert load_classifier(path).num_classes == 1000
    training_file = save({"epoch": 90, "arch": "resnet18", "state_dict": net.state_dict(), "best_acc1": 69.8})
    assert checkpoint_hash(training_file) == checkpoint_hash(path)
    facts = describe(training_file)
    assert (facts["format"], facts["kind"], facts["provenance"]["arch"]) == (
        "torchvision",
        "backbone",
        "resnet18",
    )


def test_bare_files_by_their_last_layer(save, trained, images):
    state = trained.state_dict()
    with torch.no_grad():  # 128 outputs: the embedding
        torch.testing.assert_close(
            load_encoder(save(state))(images), unit(trained(images)), rtol=0, atol=1e-6
        )
    headless = {n: v for n, v in state.items() if not n.startswith("fc.")}
    assert load_encoder(save(headless)).config.head == "none"
    with pytest.raises(TceError, match=r"expected a classifier; found an encoder.*tce finetune --weights"):
        load_classifier(save(headless))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_the_architecture_is_read_off_the_tensors(name, prefixed):
    with torch.device("meta"):
        state = resnet(name, num_outputs=128).state_dict()
    contents = translate({"model": prefixed(state)}, "file.pth")
    assert contents.config.architecture == name
    assert contents.config.feature_size == (512 if name in ("resnet18", "resnet34") else 2048)
    assert {n for n in contents.state if not n.startswith("head.")} == {
        f"backbone.{n}" for n in state if not n.startswith("fc.")
    }


# ---- wrong files


def test_another_model_than_named(save, trained, prefixed):
    path = save({"model": prefixed(trained.state_dict())})
    with pytest.raises(
        TceError, match="the file holds a resnet18; expected resnet50, as --model says; use --model resnet18"
    ):
        load_encoder(path, "resnet50")
    with pytest.raises(TceError, match="the file holds a resnet18; expected resnet150"):
        load_encoder(path, "resnet150")


def test_wrong_tensors_are_named(save, trained):
    state = dict(trained.state_dict())
    del state["layer1.0.bn1.weight"]
    state["layer2.0.extra"] = torch.zeros(1)
    state["layer3.0.conv1.weight"] = torch.zeros(256, 128, 1, 1)
    with pytest.raises(TceError) as caught:
        load_encoder(save({"model": state}))
    reported = str(caught.value)
    assert "1 missing (backbone.layer1.0.bn1.weight)" in reported
    assert "1 unknown (backbone.layer2.0.extra)" in reported
    assert "backbone.layer3.0.conv1.weight [256, 128, 1, 1] in place of [256, 128, 3, 3]" in reported


def test_unknown_heads_beside_a_later_backbone(save, trained):
    backbone = {f"backbone.{n}": v for n, v in trained.state_dict().items() if not n.startswith("fc.")}
    with pytest.raises(TceError, match=r"1 unknown \(projector.weight\)"):
        load_classifier(
            save(
                {
                    "state_dict": backbone
                    | {
                        "fc.weight": torch.zeros(2, 512),
                        "fc.bias": torch.zeros(2),
                        "projector.weight": torch.zeros(1),
                    }
                }
            )
        )


def test_nan_weights_are_reported(save, trained):
    state = {n: v.clone() for n, v in trained.state_dict().items()}
    state["layer4.1.conv2.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(TceError, match=r"NaN or infinity in backbone\.layer4\.1\.conv2\.weight"):
        load_encoder(save({"model": state}))


@pytest.mark.parametrize(
    "content, found",
    [
        ({"epoch": 3, "loss": [1.0]}, "a mapping with epoch, loss"),
        ({"task": {}, "optimizer": {}, "step": 3}, "the state of a training run; give the run's folder"),
        ([1, 2], "a list"),
        (torch.zeros(3), "a Tensor"),
        ({}, "a mapping with nothing"),
        ({"model": {}}, "a mapping with model"),
        ({"features.0.weight": torch.zeros(3)}, "other layers: features.0.weight"),
        ({"model": {"layer1.0.conv1.weight": torch.zeros(1)}}, "other layers"),
    ],
)
def test_files_without_a_known_network(save, content, found):
    path = save(content)
    for load in (load_encoder, load_classifier, describe, checkpoint_hash):
        with pytest.raises(TceError, match=found):
            load(path)


@pytest.mark.parametrize(
    "name, shape", [("conv1.weight", (64, 4, 7, 7)), ("conv1.weight", (64,)), ("fc.weight", (128,))]
)
def test_odd_first_and_last_layers(trained, name, shape):
    with pytest.raises(TceError, match=r"checkpoint\.pth; expected"):
        translate({"model": trained.state_dict() | {name: torch.zeros(shape)}}, "checkpoint.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_no_checkpoint_at_all(tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    with pytest.raises(TceError, match="expected a checkpoint; found no such file; check the path"):
        load_encoder(path)
    path.write_bytes(b"")
    with pytest.raises(TceError, match="an empty file"):
        load_encoder(path)
    path.write_bytes(b"this is not a checkpoint, it only says so" * 9)
    with pytest.raises(TceError, match="damaged"):
        load_encoder(path)
    with pytest.raises(TceError, match="found a folder without model"):
        load_encoder(tmp_path)


# ---- our format


@pytest.fixture(scope="module")
def ours():
    return build_encoder(
        "resnet18", embedding_size=24, head="mlp", rotation=True, image_size=48, resize="squash", seed=5
    ).eval()


def test_ours_comes_back_whole(tmp_path, ours, images):
    path = save_model(tmp_path / "run", ours, {"run": "a", "epochs": 3})
    assert path == tmp_path / "run" / "model.safetensors"
    for place in (path, tmp_path / "run"):
        found = load_encoder(place, "resnet18")
        assert found.config.provenance == {"run": "a", "epochs": 3}
        for name, value in ours.state_dict().items():
            assert torch.equal(found.state_dict()[name], value)
        with torch.no_grad():
            assert torch.equal(found(images), ours(images))
            assert torch.equal(found.rotation(images), ours.rotation(images))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    with safe_open(path, "pt") as file:
        assert list(file.metadata()) == ["tce"]
        header = file.metadata()["tce"]
    assert json.loads(header) == config
    assert header == json.dumps(config, sort_keys=True)
    assert (config["kind"], config["head"], config["image_size"], config["embedding_size"]) == (
        "encoder",
        "mlp",
        48,
        24,
    )
    assert sorted(os.listdir(tmp_path / "run")) == ["config.json", "model.safetensors"]  # no temporary files


def test_our_classifier_comes_back_whole(tmp_path, ours):
    classifier = classifier_from_encoder(ours, 3, classes=["run", "jump", "wave"], dropout=0.3).eval()
    path = save_model(tmp_path / "c.safetensors", classifier)
    assert os.listdir(tmp_path) == ["c.safetensors"]
    found = load_classifier(path)
    assert found.config == classifier.config
    assert found.config.classes == ("run", "jump", "wave")
    x = torch.randn(2, 15, 48, 48)
    with torch.no_grad():
        assert torch.equal(found(x), classifier(x))


def test_files_are_the_same_bytes_each_time(tmp_path, ours):
    first, second = (save_model(tmp_path / name, ours) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_channels_last_and_wrapped_models_are_saved_plainly(tmp_path, ours):
    strided = load_encoder(save_model(tmp_path / "a", ours)).to(memory_format=torch.channels_last)
    wrapped = torch.nn.DataParallel(strided)
    assert checkpoint_hash(save_model(tmp_path / "b", wrapped)) == checkpoint_hash(tmp_path / "a")
    with pytest.raises(TypeError, match="neither a FrameEncoder nor a Classifier"):
        save_model(tmp_path / "c", torch.nn.Linear(1, 1))


def test_an_interrupted_write_leaves_the_old_file(tmp_path, ours, monkeypatch):
    path = save_model(tmp_path, ours)
    before = path.read_bytes()

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_model(tmp_path, build_encoder(seed=9))
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


def test_provenance_of_other_types_is_reported(tmp_path, ours):
    with pytest.raises(TceError, match="provenance"):
        save_model(tmp_path, ours, {"when": object()})
    with pytest.raises(TceError, match="provenance"):
        save_model(tmp_path, ours, {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_training_states_are_checkpoints(tmp_path, ours, images):
    state = {"tce": describe_model(ours), "model": ours.state_dict(), "optimiser": {"step": 3}, "step": 3}
    torch.save(state, tmp_path / "latest.pt")
    with torch.no_grad():
        assert torch.equal(load_encoder(tmp_path / "latest.pt")(images), ours(images))


@pytest.mark.parametrize(
    "change, reported",
    [
        ({"version": 2}, "expected version 1 of the format; found 2; update tce"),
        ({"format": "other"}, "a description of a tce model"),
        ({"kind": "decoder"}, "encoder or classifier; found 'decoder'"),
        ({"architecture": "resnet34"}, "the tensors of a resnet34; found those of a resnet18"),
        ({"architecture": "os:system"}, r"network is made by Python code, os:system\(\); expected"),
        ({"image_size": "large"}, "image_size of type int; found 'large'"),
        ({"image_size": -5}, "--image-size"),
        ({"head": "deep"}, "--head"),
        ({"head": "linear"}, "missing.*head.weight"),
        ({"embedding_size": 999_999_999}, "of another shape"),
        ({"mean": [1, 2]}, "mean, std"),
        ({"provenance": 3}, "provenance of type dict"),
    ],
)
def test_descriptions_are_checked(tmp_path, ours, change, reported):
    path = tmp_path / "model.safetensors"
    save_file(ours.state_dict(), path, metadata={"tce": json.dumps(describe_model(ours) | change)})
    with pytest.raises(TceError, match=reported) as caught:
        load_encoder(path)
    assert str(path) in str(caught.value)


def test_a_description_that_is_no_json(tmp_path, ours):
    path = save_model(tmp_path, ours)
    save_file(load_file(path), path, metadata={"tce": "{"})
    with pytest.raises(TceError, match="its description; expected JSON"):
        load_encoder(path)


def test_truncated_safetensors_are_reported(tmp_path, ours):
    path = save_model(tmp_path, ours)
    whole = path.read_bytes()
    for size in (1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(TceError, match="damaged"):
            load_encoder(path)


def test_safetensors_of_other_makers_and_other_names(tmp_path, trained, ours, images):
    save_file(trained.state_dict(), tmp_path / "torchvision.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(
            load_encoder(tmp_path / "torchvision.safetensors")(images), unit(trained(images))
        )
    path = save_model(tmp_path, ours)
    path.rename(tmp_path / "renamed.bin")  # recognised by its bytes
    assert load_encoder(tmp_path / "renamed.bin").config == ours.config


# ---- hashes and descriptions


def test_the_hash_is_of_the_tensors_alone(tmp_path, ours, trained, prefixed):
    first = save_model(tmp_path / "a", ours, {"a": 1})
    second = save_model(tmp_path / "b", ours, {"b": 2})
    assert checkpoint_hash(first) == checkpoint_hash(second) == tensors_hash(ours.state_dict())
    torch.save({"model": prefixed(trained.state_dict())}, tmp_path / "old.pth")
    converted = save_model(tmp_path / "c", load_encoder(tmp_path / "old.pth"))
    assert checkpoint_hash(converted) == checkpoint_hash(tmp_path / "old.pth")


def test_the_hash_tells_names_types_shapes_and_values_apart():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(2)},
        {"a": torch.zeros(2, 3), "c": torch.ones(2)},
        {"a": torch.zeros(2, 3), "b": torch.tensor([1.0, 2.0])},
        {"a": torch.zeros(2, 3)},
    ]
    hashes = {tensors_hash(tensors) for tensors in [base, *others]}
    assert len(hashes) == 6
    assert tensors_hash(dict(reversed(base.items()))) == tensors_hash(base)
    assert tensors_hash({"a": torch.zeros(3, 2).T, "b": base["b"]}) == tensors_hash(base)
    assert tensors_hash({"x": torch.tensor(1, dtype=torch.bfloat16), "y": torch.zeros(0)})


def test_describe_counts_learned_numbers(tmp_path, ours):
    facts = describe(save_model(tmp_path, ours))
    assert facts["parameters"] == sum(p.numel() for p in ours.parameters())
    assert (facts["format"], facts["kind"], facts["architecture"]) == ("tce", "encoder", "resnet18")
    assert facts["hash"] == tensors_hash(ours.state_dict())
    assert "network" not in facts


def test_half_precision_files_are_read_as_float32(tmp_path, trained):
    torch.save(
        {"model": {n: v.half() if v.is_floating_point() else v for n, v in trained.state_dict().items()}},
        tmp_path / "half.pth",
    )
    encoder = load_encoder(tmp_path / "half.pth")
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert torch.equal(encoder.head.weight, trained.fc.weight.half().float())
