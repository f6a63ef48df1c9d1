"""Weights and descriptions that would load in silence and give wrong numbers, or a traceback."""

import json
import math
import re

import pytest
import torch
from safetensors.torch import save_file

from tce.cli import main
from tce.errors import OptionError, TceError
from tce.model.checkpoint import describe, describe_model, load_classifier, load_encoder, save_model
from tce.model.classifier import classifier_from_encoder
from tce.model.encoder import EncoderConfig, build_encoder
from tce.model.resnet import resnet
from tce.video.synthetic import make_clips


@pytest.fixture(scope="module")
def encoder():
    return build_encoder("resnet18", embedding_size=16, seed=0, image_size=32).eval()


@pytest.fixture
def tampered(tmp_path, encoder):
    """Our file with some of its tensors or of its description changed."""

    def write(tensors=None, model=encoder, text=None, **change):
        path = tmp_path / "model.safetensors"
        state = {n: v.clone() for n, v in model.state_dict().items()} | (tensors or {})
        description = json.dumps(describe_model(model) | change) if text is None else text
        save_file(state, path, metadata={"tce": description})
        return path

    return write


@pytest.mark.parametrize(
    "name, value, found",
    [
        ("conv1.weight", math.nan, "NaN or infinity in backbone.conv1.weight"),
        ("bn1.running_mean", math.inf, "NaN or infinity in backbone.bn1.running_mean"),
        ("bn1.running_var", -1.0, "a negative one in backbone.bn1.running_var"),
        ("conv1.weight", 1e38, "NaN or infinity for a test image"),
        ("layer4.1.bn2.weight", 3e38, "NaN or infinity for a test image"),
    ],
)
def test_weights_that_give_no_numbers(tampered, encoder, name, value, found):
    whole = encoder.state_dict()[f"backbone.{name}"]
    tensors = {f"backbone.{name}": torch.full_like(whole, value)}
    with pytest.raises(TceError, match=re.escape(found)):
        load_encoder(tampered(tensors))
    classifier = classifier_from_encoder(encoder, 3, 0)
    with pytest.raises(TceError, match=re.escape(found)):
        load_classifier(tampered(tensors, classifier))


@pytest.mark.parametrize("field", ["mean", "std"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300, True, "0.5", None])
def test_normalisation_that_gives_no_numbers(tampered, field, value):
    with pytest.raises(TceError, match=r"mean, std three finite numbers"):
        load_encoder(tampered(**{field: [0.5, 0.5, value]}))


@pytest.mark.parametrize("std", [0, -0.0, -0.2, 1e-300])
def test_deviations_of_nothing(tampered, std):
    with pytest.raises(TceError, match="deviations of at least"):
        load_encoder(tampered(std=[0.2, 0.2, std]))
    with pytest.raises(OptionError, match="deviations of at least"):
        EncoderConfig(std=(0.2, 0.2, std))


def test_no_embeddings_are_written_from_them(tampered, tmp_path, monkeypatch, capsys):
    """The whole command: exit code 1 and no file."""
    monkeypatch.chdir(tmp_path)
    made = make_clips(tmp_path / "videos", classes=2, per_class=6, frames=3, size=32)
    video = next(made.videos.rglob("*.mp4"))
    path = tampered({"backbone.conv1.weight": torch.full((64, 3, 7, 7), 1e38)})
    assert main(["embed", "--ckpt", str(path), "--input", str(video), "--output", "e.npz"]) == 1
    assert "NaN or infinity for a test image" in capsys.readouterr().err
    assert not (tmp_path / "e.npz").exists()


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_weights_of_other_types(tampered, tmp_path, kind):
    weight = torch.ones(64, 3, 7, 7).to(kind)
    kept = str(kind).removeprefix("torch.")
    with pytest.raises(TceError, match=f"1 of another type \\(backbone.conv1.weight {kept}\\)"):
        load_encoder(tampered({"backbone.conv1.weight": weight}))
    torch.save({**resnet("resnet18").state_dict(), "conv1.weight": weight}, tmp_path / "a.pth")
    with pytest.raises(TceError, match="of another type"):
        load_encoder(tmp_path / "a.pth")


def test_tensors_that_repeat_their_storage(tmp_path):
    """`expand` gives strides of 0; a small one is a tensor as any other."""
    state = resnet("resnet18").state_dict()
    state["bn1.weight"] = torch.ones(1).expand(64)
    torch.save(state, tmp_path / "a.pth")
    assert load_encoder(tmp_path / "a.pth").backbone.bn1.weight.tolist() == [1.0] * 64


@pytest.mark.parametrize(
    "change, found",
    [
        ({"image_size": True}, "image_size of type int; found True"),
        ({"image_size": 10**6}, "--image-size 1 to 4096 pixels; found 1000000"),
        ({"image_size": 32.0}, "image_size of type int"),
        ({"rotation": 1}, "rotation of type bool"),
        ({"embedding_size": [16]}, "embedding_size of type int; found a list of 1"),
        ({"version": True}, "version 1 of the format; found True"),
        ({"kind": {"a": 1}}, "found a dict of 1"),
        ({"architecture": "nothing known"}, "its architecture; expected one of resnet18"),
        ({"architecture": "hf:owner/model", "network": {}}, "configuration in its description; found none"),
        (
            {"architecture": "hf:owner/model", "network": {"configuration": 3}},
            "in its description; found none",
        ),
        ({"architecture": "some.module:net", "network": {"options": [1]}}, "arguments by name; found list"),
    ],
)
def test_descriptions_that_describe_nothing(tampered, change, found):
    with pytest.raises(TceError, match=re.escape(found)):
        load_encoder(tampered(**change))


@pytest.mark.parametrize(
    "text",
    ['{"a":' * 100_000, "[" * 100_000, json.dumps({"format": "tce", "x": [[[[[]]]]] * 60_000})],
    ids=["objects", "lists", "many"],
)
def test_descriptions_nested_or_large(tampered, text):
    with pytest.raises(TceError, match="its description; expected ") as caught:
        describe(tampered(text=text))
    assert len(str(caught.value)) < 400


def test_classes_that_are_no_names(tampered, encoder):
    classifier = classifier_from_encoder(encoder, 2, 0, ["a", "b"])
    with pytest.raises(TceError, match="classes of type tuple"):
        load_classifier(tampered(model=classifier, classes=["a", {"b": 1}]))


def test_our_weights_beside_another_configuration(tmp_path, encoder, images):
    """A config.json of a vision transformer beside our own file: the file says what it is."""
    save_model(tmp_path / "run", encoder)
    (tmp_path / "run" / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 16}))
    found = load_encoder(tmp_path / "run")
    assert found.config == encoder.config
    with torch.no_grad():
        assert torch.equal(found(images), encoder(images))
