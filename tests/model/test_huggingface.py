"""An image model of transformers through every command, adapted to footage as its user would."""

import json
import shutil
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from tce.cli import main
from tce.errors import TceError
from tce.model.checkpoint import load_classifier, load_encoder, save_model, tensors_hash
from tce.model.classifier import classifier_from_encoder
from tce.model.encoder import build_encoder
from tce.video.synthetic import make_clips
from tests.helpers.memory import limited_memory


@pytest.fixture
def published(tmp_path):
    """A folder as `save_pretrained` writes it: a small random DINOv2, with a normalisation of its own."""
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    config = transformers.Dinov2Config(patch_size=14, mlp_ratio=2, **sizes)
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "dinov2")
    wishes = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "size": {"shortest_edge": 28}}
    (tmp_path / "dinov2" / "preprocessor_config.json").write_text(json.dumps(wishes))
    return tmp_path / "dinov2"


def test_it_goes_through_every_command(published, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = make_clips(tmp_path / "footage", classes=2, per_class=12, frames=12, size=32)
    model, data = f"hf:{published}", ["--lists", str(made.lists), "--split", "01"]

    def tce(*words):
        assert main(list(map(str, words))) == 0, capsys.readouterr().err

    small = ["--image-size", 28, "--batch-size", 4, "--epochs", 1, "--optimizer", "adamw", "--lr", 1e-3]
    frozen = ["--freeze", "encoder.layer.0"]
    tce(
        "pretrain",
        made.videos,
        *data,
        "--model",
        model,
        *small,
        *frozen,
        "--out",
        "run",
        "--monitor-epochs",
        0,
    )
    shutil.move(published, tmp_path / "elsewhere")  # from here on the run holds all that is needed

    start = load_encoder(f"hf:{tmp_path / 'elsewhere'}").backbone.state_dict()
    tuned = load_encoder("run")
    moved = {
        name for name, value in tuned.backbone.state_dict().items() if not torch.equal(value, start[name])
    }
    assert moved and not any("layer.0." in name or "embeddings" in name for name in moved), moved
    assert tuned.config.mean == (0.4, 0.5, 0.6)

    video = next(made.videos.rglob("*.mp4"))
    tce("embed", "--ckpt", "run", "--input", video, "--output", "e.npz")
    assert np.load("e.npz")["embeddings"].shape == (12, 128)
    tce("tsne", "--ckpt", "run", "--input", video, "--output", "t.png", "--image-size", 28)
    assert (tmp_path / "t.png").stat().st_size > 1000
    tce("evaluate", "--ckpt", "run", "--data", made.videos, *data, "--protocol", "knn")
    tune = [*small, "--input", "rgb", "--held-out", 0]
    tce("finetune", "--weights", "run", "--data", made.videos, *data, *tune, "--savedir", "tuned")
    assert load_classifier("tuned").config.mean == (0.4, 0.5, 0.6)
    tce(
        "finetune",
        "--weights",
        "run",
        "--data",
        made.videos,
        *data,
        *small,
        "--held-out",
        0,
        "--savedir",
        "stacks",
    )
    tce("classify", video, "--ckpt", "tuned")


# ---- folders whose weights are not those of their configuration


@pytest.fixture
def vit(tmp_path):
    """A folder with a small vision transformer, and what changes its files."""
    import transformers
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    config = transformers.ViTConfig(patch_size=7, intermediate_size=32, **sizes)
    folder = tmp_path / "vit"
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(folder)

    class Folder:
        path = folder
        tensors = load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())

        def weights(self, tensors):
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            return folder

        def configuration(self, **changes):
            (folder / "config.json").write_text(json.dumps(self.config | changes))
            return folder

    return Folder()


def without(tensors, part):
    return {n: v for n, v in tensors.items() if part not in n}


CHANGES = {
    "missing": lambda t: without(t, "layer.1."),
    "renamed": lambda t: {n.replace("layer.1.", "block.1."): v for n, v in t.items()},
    "none that match": lambda t: {f"other.{i}": v.clone() for i, v in enumerate(t.values())},
    "another shape": lambda t: t | {"layernorm.weight": torch.ones(5)},
    "NaN": lambda t: t | {"layernorm.weight": torch.full((16,), torch.nan)},
    "too large": lambda t: t | {"layernorm.weight": torch.full((16,), 3e38)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_weight_stays_random(vit, change, capsys):
    folder = vit.weights(CHANGES[change](vit.tensors))
    reported = {
        "NaN": "NaN or infinity in layernorm.weight",
        "too large": "NaN or infinity for a test image",
    }.get(change, r"tensors of a ViTModel; found \d+ missing or of another shape")
    for path in (folder, f"hf:{folder}"):
        with pytest.raises(TceError, match=reported):
            load_encoder(path)
    if change != "too large":
        with pytest.raises(TceError, match=reported):
            build_encoder(f"hf:{folder}")
    assert main(["embed", "--ckpt", str(folder), "--input", "no.mp4", "--output", "e.npz"]) == 1


def test_all_weights_come_from_the_file(vit):
    one, other = load_encoder(vit.path), load_encoder(vit.path)
    found = list(one.state_dict().values())
    assert len(found) == len(vit.tensors)  # under names of transformers' own version
    for value in vit.tensors.values():
        assert any(torch.equal(v, value) for v in found if v.shape == value.shape)
    assert tensors_hash(one.state_dict()) == tensors_hash(other.state_dict())


def test_pickled_and_sharded_weights(vit, tmp_path):
    expected = tensors_hash(load_encoder(vit.path).state_dict())
    names = sorted(vit.tensors)
    (vit.path / "model.safetensors").unlink()
    torch.save(vit.tensors, vit.path / "pytorch_model.bin")
    assert tensors_hash(load_encoder(vit.path).state_dict()) == expected
    (vit.path / "pytorch_model.bin").unlink()
    from safetensors.torch import save_file

    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: vit.tensors[name] for name in own}, vit.path / file)
    index = vit.path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, own in parts.items() for name in own}}))
    assert tensors_hash(load_encoder(vit.path).state_dict()) == expected
    index.write_text(json.dumps({"weight_map": {name: "../" + next(iter(parts)) for name in names}}))
    with pytest.raises(TceError, match="expected files of its folder"):
        load_encoder(vit.path)
    index.unlink()
    with pytest.raises(TceError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        load_encoder(vit.path)


def test_info_on_a_folder(vit, capsys):
    assert main(["info", str(vit.path)]) == 0
    out = capsys.readouterr().out
    assert "checkpoint, Hugging Face" in out and "encoder" in out


# ---- configurations of strangers


@pytest.fixture
def offline(monkeypatch):
    """Every way to the Hub and to other servers fails the test."""
    import socket

    import huggingface_hub

    def refuse(*arguments, **options):
        raise AssertionError("something was fetched")

    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited with RLIMIT_AS")
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 1 << 18, "intermediate_size": 1 << 20},
        {"num_hidden_layers": 1 << 19},
        {"num_hidden_layers": 10**12},
        {"hidden_size": 10**12},
        {"image_size": 1 << 19},
        {"extra": [1 << 20] * 100},
    ],
    ids=["wide", "deep", "deeper", "wider", "large", "sum"],
)
def test_configurations_of_huge_networks(vit, tmp_path, changes, offline):
    """Nothing is allocated for what a configuration declares before it is compared with the file."""
    encoder = load_encoder(vit.path)
    configuration = encoder.config.network["configuration"] | changes
    encoder.config = replace(encoder.config, network={"configuration": configuration})
    path = save_model(tmp_path / "ours.safetensors", encoder)
    vit.configuration(**changes)
    for place in (path, vit.path):
        start = time.monotonic()
        with limited_memory(400), pytest.raises(TceError, match=r"its configuration; expected|other shape"):
            load_encoder(place)
        assert time.monotonic() - start < 30


@pytest.mark.parametrize("kind", ["detr", "upernet", "mask2former", "dpt", "timm_wrapper", "timm_backbone"])
def test_configurations_that_take_a_backbone_from_elsewhere(vit, tmp_path, kind, offline):
    encoder = load_encoder(vit.path)
    stranger = {"model_type": kind, "backbone": "owner/model", "use_pretrained_backbone": True}
    encoder.config = replace(encoder.config, network={"configuration": stranger})
    path = save_model(tmp_path / "ours.safetensors", encoder)
    (vit.path / "config.json").write_text(json.dumps(stranger))
    for place in (path, vit.path):
        with pytest.raises(TceError, match="expected a network that is itself a backbone"):
            load_encoder(place)


def test_a_file_never_contacts_the_hub(vit, tmp_path, monkeypatch, offline, capsys):
    """Headers that name a repository, with and without a configuration, in every command that loads them."""
    monkeypatch.chdir(tmp_path)
    made = make_clips(tmp_path / "videos", classes=2, per_class=6, frames=4, size=32)
    video, data = next(made.videos.rglob("*.mp4")), [made.videos, "--lists", made.lists, "--split", "01"]
    encoder = load_encoder(vit.path)
    classifier = classifier_from_encoder(encoder, 2, 0)
    for kind, model in (("encoder", encoder), ("classifier", classifier)):
        model.config = replace(model.config, architecture="hf:owner/model", network={})
        path = save_model(tmp_path / f"{kind}.safetensors", model)
        commands = {
            "embed": ["--ckpt", path, "--input", video, "--output", "e.npz"],
            "evaluate": ["--ckpt", path, "--data", *data, "--protocol", "knn"],
            "convert": [path, "--output", "converted"],
            "export": ["--ckpt", path, "--output", "e.onnx"],
            "finetune": ["--weights", path, "--data", *data, "--savedir", f"tuned-{kind}"],
        }
        for command, words in commands.items():
            assert main([command, *map(str, words)]) == 1, command
            assert "owner/model" in capsys.readouterr().err or (command, kind) == ("embed", "classifier")


def test_a_folder_that_refers_to_another_repository(vit, offline):
    (vit.path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/model"}))
    assert load_encoder(vit.path).feature_size == 16


def test_names_of_code_are_dropped_on_every_level(vit, offline):
    code = {"attn_implementation": "owner/kernel", "_attn_implementation_internal": "owner/kernel"}
    nested = code | {
        "auto_map": {"AutoModel": "owner/code--module.Class"},
        "kernel_config": {"a": "owner/kernel"},
    }
    vit.configuration(**nested, vision_config=nested, parts=[nested])
    encoder = load_encoder(vit.path)
    assert "owner" not in json.dumps(encoder.config.network)
    assert "owner" not in str(encoder.backbone.model.config)


def test_normalisation_of_a_folder_is_checked(vit):
    for wishes in ({"image_std": [0.5, 0, 0.5]}, {"image_mean": [0.5, "x", 0.5]}, {"image_mean": [0.5]}):
        (vit.path / "preprocessor_config.json").write_text(json.dumps(wishes))
        with pytest.raises(TceError, match="mean, std"):
            load_encoder(vit.path)
    (vit.path / "preprocessor_config.json").write_text('{"size": {"height": true}, "crop_size": [[]]}')
    assert load_encoder(vit.path).image_size == 28


def test_the_hub_is_asked_for_weights_and_descriptions_only(vit, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, allow_patterns):
        asked.append((name, tuple(allow_patterns)))
        return str(vit.path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_encoder("hf:owner/model").config.architecture == "hf:owner/model"
    ((name, patterns),) = asked
    assert name == "owner/model"
    assert all(pattern.endswith((".json", ".safetensors")) for pattern in patterns)
