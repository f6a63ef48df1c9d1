import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from tce.cli import main
from tce.errors import OptionError, TceError
from tce.model.checkpoint import (
    checkpoint_hash,
    describe,
    load_backbone_weights,
    load_classifier,
    load_encoder,
    save_model,
)
from tce.model.classifier import classifier_from_encoder
from tce.model.encoder import build_encoder
from tce.video.synthetic import make_clips

PROCESSOR = {
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "size": {"shortest_edge": 64},
    "crop_size": {"height": 56, "width": 56},
    "do_center_crop": True,
}

SIZES = {"dinov2": 28, "vit": 28, "convnext": 32, "swin": 32}  # pixels


def tiny(kind):
    """A small random image model of transformers."""
    import transformers as hf

    torch.manual_seed(0)
    common = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    if kind == "dinov2":
        return hf.Dinov2Model(hf.Dinov2Config(patch_size=14, mlp_ratio=2, **common))
    if kind == "vit":
        return hf.ViTModel(hf.ViTConfig(patch_size=7, intermediate_size=32, **common))
    if kind == "convnext":
        return hf.ConvNextModel(hf.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]))
    return hf.SwinModel(
        hf.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
        )
    )


@pytest.fixture(params=["dinov2", "vit", "convnext", "swin"])
def published(request, tmp_path):
    """A model, and the folder in which `save_pretrained` wrote it."""
    model = tiny(request.param).eval()
    folder = tmp_path / request.param
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return request.param, model, folder


def expected_features(kind, model, x):
    with torch.no_grad():
        if kind == "vit":
            return model(x, interpolate_pos_encoding=True).last_hidden_state[:, 0]
        out = model(x)
        if kind == "dinov2":
            return out.last_hidden_state[:, 0]
        if kind == "convnext":  # mean over the map, then the network's last layer norm
            return model.layernorm(out.last_hidden_state.mean(dim=(2, 3)))
        return out.last_hidden_state.mean(dim=1)


def test_published_image_models_are_backbones(published, tmp_path):
    kind, model, folder = published
    encoder = build_encoder(f"hf:{folder}", embedding_size=8, seed=0).eval()
    assert (encoder.image_size, encoder.config.mean, encoder.config.resize) == (
        56,
        (0.4, 0.5, 0.6),
        "center-crop",
    )
    size = SIZES[kind] + 14
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.features(x), expected_features(kind, model, x), rtol=1e-4, atol=1e-5
        )
    assert encoder.features(x).shape == (2, encoder.feature_size)

    path = save_model(tmp_path / "ours", encoder)
    shutil.rmtree(folder)  # loading needs neither the folder nor a network
    found = load_encoder(path)
    with torch.no_grad():
        assert torch.equal(found(x), encoder(x))
        assert torch.equal(load_encoder(path, f"hf:/elsewhere/{kind}")(x), encoder(x))
    with pytest.raises(TceError, match=f"the file holds a hf:.*{kind}; expected hf:other"):
        load_encoder(path, "hf:other")
    assert found.config == encoder.config
    assert describe(path)["architecture"] == f"hf:{folder}"
    frames = np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), dtype=np.uint8)
    assert found.preprocess(frames).shape == (2, 3, 56, 56)


def test_their_weights_learn_and_none_idles(published):
    kind, _, folder = published
    encoder = build_encoder(f"hf:{folder}", embedding_size=8, seed=0)
    size = SIZES[kind]
    encoder(torch.randn(4, 3, size, size))[:, 0].sum().backward()
    idle = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle  # an idle parameter stalls training on many processes


def test_classifiers_of_differences_from_them(published, tmp_path):
    kind, _, folder = published
    encoder = build_encoder(f"hf:{folder}", head="none", seed=0, image_size=SIZES[kind]).eval()
    classifier = classifier_from_encoder(encoder, 5, seed=0).eval()
    size = encoder.image_size
    stacked = torch.randn(2, 15, size, size)
    with torch.no_grad():
        torch.testing.assert_close(
            classifier.features(stacked),
            encoder.features(stacked.unflatten(1, (5, 3)).sum(1)),
            rtol=1e-4,
            atol=1e-5,
        )
        path = save_model(tmp_path / "c", classifier)
        assert torch.equal(load_classifier(path)(stacked), classifier(stacked))
    fresh = classifier_from_encoder(build_encoder(f"hf:{folder}", head="none", image_size=size), 5)
    report = load_backbone_weights(fresh, save_model(tmp_path / "e", encoder))
    assert report.tiled
    for name, value in classifier.backbone.state_dict().items():
        assert torch.equal(fresh.backbone.state_dict()[name], value)


def test_folder_itself_is_a_checkpoint(published):
    kind, model, folder = published
    encoder = load_encoder(folder)
    size = SIZES[kind]
    x = torch.randn(2, 3, size, size)
    features = expected_features(kind, model, x)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(x), features / features.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5
        )
    assert encoder.config == load_encoder(f"hf:{folder}").config


def test_their_state_dicts_with_heads_around(tmp_path, published):
    kind, _, folder = published
    other = tiny(kind).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01)
    state = {f"module.{kind}.{n}": v for n, v in other.state_dict().items()} | {
        "module.classifier.weight": torch.zeros(3, 16)
    }
    torch.save({"state_dict": state}, tmp_path / "whole.pth")
    encoder = load_encoder(tmp_path / "whole.pth", model=f"hf:{folder}")
    size = SIZES[kind]
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.features(x), expected_features(kind, other, x), rtol=1e-4, atol=1e-5
        )


def test_freezing_their_layers(tmp_path):
    tiny("dinov2").save_pretrained(tmp_path / "m")
    encoder = build_encoder(f"hf:{tmp_path / 'm'}", embedding_size=8, seed=0)
    encoder.freeze("encoder.layer.0")
    frozen = {n for n, p in encoder.backbone.model.named_parameters() if not p.requires_grad}
    for name, _ in encoder.backbone.model.named_parameters():
        assert (name in frozen) == name.startswith(("embeddings.", "encoder.layer.0.")), name
    copied = copy.deepcopy(encoder)  # as a momentum encoder is
    assert copied._frozen[0] is not encoder._frozen[0]
    with pytest.raises(OptionError, match="--freeze"):
        encoder.freeze("encoder.layer.9")
    encoder.freeze(None)
    idle = [n for n, p in encoder.backbone.model.named_parameters() if not p.requires_grad]
    assert idle == ["embeddings.mask_token"]  # features do not pass through it


@pytest.mark.parametrize(
    "processor, size, resize",
    [
        ({"size": 48}, 48, "center-crop"),
        ({"size": {"height": 40, "width": 40}}, 40, "squash"),
        ({"size": {"shortest_edge": 50}, "crop_size": 44, "do_center_crop": True}, 44, "center-crop"),
        ({}, 28, "center-crop"),
        (None, 28, "center-crop"),
    ],
)
def test_sizes_in_all_their_spellings(tmp_path, processor, size, resize):
    tiny("vit").save_pretrained(tmp_path)
    if processor is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    config = build_encoder(f"hf:{tmp_path}").config
    assert (config.image_size, config.resize) == (size, resize)
    assert config.mean == (0.485, 0.456, 0.406)


def test_what_is_no_image_model_is_reported(tmp_path):
    import transformers as hf

    with pytest.raises(
        TceError, match=r"^hf:.*none; expected a folder written by save_pretrained, or a model"
    ) as caught:
        build_encoder(f"hf:{tmp_path / 'none'}")
    assert "\n" not in str(caught.value)
    text = hf.BertModel(
        hf.BertConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    )
    text.save_pretrained(tmp_path / "text")
    with pytest.raises(TceError, match="expected a model of images alone; found BertModel"):
        build_encoder(f"hf:{tmp_path / 'text'}")


def test_stored_configurations_fetch_nothing(tmp_path, monkeypatch):
    tiny("vit").save_pretrained(tmp_path / "m")
    encoder = build_encoder(f"hf:{tmp_path / 'm'}", embedding_size=8)
    configuration = encoder.config.network["configuration"]
    configuration |= {
        "auto_map": {"AutoModel": "someone/code--module.Class"},
        "_attn_implementation": "someone/kernel",
        "attn_implementation": "someone/kernel",
    }
    path = save_model(tmp_path / "ours", encoder)
    import huggingface_hub

    def refuse(*arguments, **options):
        raise AssertionError("something was fetched")

    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, refuse)
    assert load_encoder(path).embedding_size == 8


# ---- package.module:callable


MODULE = """
import pathlib
import torch
from torch import nn

pathlib.Path({mark!r}).write_text("imported")

class Net(nn.Module):
    def __init__(self, width=6, spatial=False):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.spatial = spatial

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x))).mean(dim=(2, 3), keepdim=True)
        return x if self.spatial else x.flatten(1)

def whole_map():
    return nn.Conv2d(3, 4, 3)

def number():
    return 3

def broken():
    raise ValueError("no weights here")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the working folder, its name, and the file that its import leaves behind."""
    mark = tmp_path / "mark"
    (tmp_path / "users_networks.py").write_text(MODULE.format(mark=str(mark)))
    monkeypatch.chdir(tmp_path)
    import sys

    sys.modules.pop("users_networks", None)
    yield "users_networks", mark
    sys.modules.pop("users_networks", None)


@pytest.mark.parametrize("spatial", [False, True])
def test_any_network_is_a_backbone(module, tmp_path, spatial):
    import sys

    place = f"{module[0]}:Net"
    path_before = list(sys.path)
    encoder = build_encoder(
        place, embedding_size=4, seed=0, image_size=20, options={"width": 5, "spatial": spatial}
    )
    assert sys.path == path_before
    assert encoder.feature_size == 5
    x = torch.randn(2, 3, 20, 20)
    path = save_model(tmp_path / "ours", encoder.eval())
    called = f"{place}(width=5, spatial={spatial})"
    with torch.no_grad():
        assert torch.equal(load_encoder(path, called)(x), encoder(x))
        assert build_encoder(called, image_size=20).config.network == encoder.config.network
    classifier = classifier_from_encoder(encoder, 3).eval()
    assert classifier.backbone.model.stem.weight.shape == (5, 15, 3, 3)
    stored = save_model(tmp_path / "c", classifier)
    assert torch.equal(load_classifier(stored, called).fc.weight, classifier.fc.weight)


def test_a_file_never_imports_what_it_names(module, tmp_path):
    import sys

    name, mark = module
    path = save_model(tmp_path / "ours", build_encoder(f"{name}:Net", embedding_size=4, image_size=20))
    mark.unlink()
    del sys.modules[name]
    with pytest.raises(
        TceError, match=r"made by Python code.*from you, as --model.*can name any code"
    ) as caught:
        load_encoder(path)
    assert f"--model {name}" not in str(caught.value)
    with pytest.raises(TceError, match=f"the file holds a {name}:Net; expected resnet18"):
        load_encoder(path, "resnet18")
    assert describe(path)["architecture"] == f"{name}:Net"
    assert len(checkpoint_hash(path)) == 64
    assert not mark.exists()
    assert name not in sys.modules


def test_a_state_dict_of_any_network(module, tmp_path):
    import importlib
    import sys

    sys.path.insert(0, str(tmp_path))
    try:
        net = importlib.import_module(module[0]).Net().eval()
    finally:
        sys.path.remove(str(tmp_path))
    torch.save({"state_dict": {f"module.{n}": v for n, v in net.state_dict().items()}}, tmp_path / "net.pth")
    encoder = load_encoder(tmp_path / "net.pth", f"{module[0]}:Net")
    x = torch.randn(2, 3, 30, 30)
    with torch.no_grad():
        torch.testing.assert_close(encoder.features(x), net(x))
    torch.save({"stem.weight": net.stem.weight}, tmp_path / "part.pth")
    with pytest.raises(TceError, match="missing"):
        load_encoder(tmp_path / "part.pth", f"{module[0]}:Net")


@pytest.mark.parametrize(
    "place, reported",
    [
        ("no_such_package:net", "No module named 'no_such_package'"),
        ("users_networks:Missing", "has no attribute 'Missing'"),
        ("users_networks:nn", "expected a callable: a network class.*found module"),
        ("users_networks:number", "returns a torch.nn.Module"),
        ("users_networks:broken", "ValueError: no weights here"),
        ("users_networks:whole_map", r"features \[B, F\] or \[B, F, 1, 1\]; found \[1, 4, 222, 222\]"),
    ],
)
def test_what_is_no_backbone_is_reported(module, place, reported):
    with pytest.raises(TceError, match=reported):
        build_encoder(place)


# ---- a file's callable and its arguments


@pytest.mark.parametrize(
    "place", ["os:system", "os:getcwd", "subprocess:Popen", "builtins:exec", "shutil:rmtree"]
)
def test_functions_of_python_are_no_networks(place):
    with pytest.raises(TceError, match="expected a network class, or a function of your own"):
        build_encoder(place)


@pytest.mark.parametrize("place", ["torch.hub:load", "torch:load", "torch:compile", "users_networks:loaded"])
def test_functions_of_torch_are_no_networks(module, tmp_path, place):
    source = tmp_path / "users_networks.py"
    source.write_text(source.read_text() + "\nfrom torch.hub import load as loaded\n")
    with pytest.raises(TceError, match="found a function of torch"):
        build_encoder(place)


@pytest.mark.parametrize("place", ["users_networks:pathlib.Path", "users_networks:factory"])
def test_other_callables_are_no_networks(module, tmp_path, place):
    source = tmp_path / "users_networks.py"
    source.write_text(source.read_text() + "\nimport functools\nfactory = functools.partial(print, 'ran')\n")
    with pytest.raises(TceError, match="a network class, or a function that makes a network"):
        build_encoder(place)


def test_arguments_come_from_the_user(module, tmp_path, capsys):
    """Consent to a callable is none to the arguments that a stranger's file gives it."""
    import sys

    name, mark = module
    source = tmp_path / "users_networks.py"
    source.write_text(
        source.read_text() + "\nimport os\n\n"
        "def net(command='true', width=6):\n    os.system(command)\n    return Net(width)\n"
    )
    encoder = build_encoder(f"{name}:net", embedding_size=4, image_size=20, options={"width": 5})
    command = f"touch {tmp_path / 'it-ran'}"
    for options in ({"command": command, "width": 5}, {"command": command}):
        encoder.config = replace(encoder.config, network={"options": options})
        path = save_model(tmp_path / "ours", encoder)
        classifier = classifier_from_encoder(encoder, 2, 0)
        stored = save_model(tmp_path / "c", classifier)
        for given in (None, f"{name}:net", f"{name}:net(width=5)", f"{name}:net(command='true')"):
            sys.modules.pop(name, None)
            mark.unlink(missing_ok=True)
            for load, place in ((load_encoder, path), (load_classifier, stored)):
                with pytest.raises(TceError, match=r"made by Python code, users_networks:net\(") as caught:
                    load(place, given)
                assert "touch" in str(caught.value)  # shown, and not put behind a flag to copy
                assert "--model users_networks:net(command='touch" not in str(caught.value)
            assert not mark.exists() and name not in sys.modules
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("call", ["(", "(5)", "(width=open('x'))", "(width=5", "(**{})", "(width=5) + 1"])
def test_arguments_that_are_no_plain_values(module, call):
    with pytest.raises(OptionError, match=r"arguments such as package\.module:callable"):
        build_encoder(f"{module[0]}:Net{call}")


def test_finetuning_imports_nothing_that_a_file_names(module, tmp_path, capsys):
    """The classifier's file alone named what was imported and called."""
    import sys

    name, mark = module
    encoder = build_encoder(f"{name}:Net", embedding_size=4, image_size=20)
    classifier = classifier_from_encoder(encoder, 2, 0)
    path = save_model(tmp_path / "c.safetensors", classifier)
    mark.unlink()
    del sys.modules[name]
    made = make_clips(tmp_path / "videos", classes=2, per_class=6, frames=4, size=32)
    words = ["--weights", path, "--data", made.videos, "--lists", made.lists, "--savedir", tmp_path / "tuned"]
    assert main(["finetune", *map(str, words)]) == 1
    assert "can name any code" in capsys.readouterr().err
    assert not mark.exists() and name not in sys.modules
