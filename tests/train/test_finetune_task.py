"""Fine-tuning from a strong start: head first, slower backbone, a linear classifier on cached features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tce.commands.finetune import finetune
from tce.data.splits import open_split
from tce.errors import OptionError
from tce.model.checkpoint import load_classifier, load_encoder, save_model
from tce.model.classifier import tile_channels
from tce.model.efficientnet_lite import lite_weights
from tce.model.encoder import build_encoder
from tce.train.finetune_start import settle_defaults
from tce.video.image import decode
from tests.helpers.run_files import same, saved
from tests.helpers.training_options import options

PLAIN = {"crop_scale": (1.0, 1.0), "flip": 0.0, "color": 0.0}


def settled(architecture: str, **flags: Any) -> tuple[Any, ...]:
    chosen = options("d", Path("o"), model=architecture, **flags)
    found = settle_defaults(chosen, build_encoder(architecture, image_size=32, head="none", seed=0))
    return found.optim.head_epochs, found.optim.backbone_lr, found.model.cached_samples


def test_defaults_depend_on_the_start() -> None:
    assert settled("resnet18", epochs=60) == (0, 1.0, 0)
    assert settled("tinynet:tiny", epochs=60, freeze="all", **PLAIN) == (0, 1.0, 0)
    assert settled("lite2", epochs=60) == (6, 0.1, 0)
    assert settled("lite2", epochs=3) == (1, 0.1, 0)
    assert settled("lite2", epochs=60, freeze="all", **PLAIN) == (0, 0.1, 8)
    assert settled("lite2", epochs=60, freeze="all", **{**PLAIN, "flip": 0.5}) == (0, 0.1, 0)
    assert settled("lite2", head_epochs=0, backbone_lr=1.0, cached_samples=0) == (0, 1.0, 0)
    with pytest.raises(OptionError, match=r"--cached-samples 8; expected --freeze all without augmentation"):
        settled("resnet18", cached_samples=8)


def test_without_the_new_options_training_is_as_before(footage: Path, tmp_path: Path) -> None:
    finetune(options(footage, tmp_path / "unset"))
    finetune(options(footage, tmp_path / "set", head_epochs=0, backbone_lr=1.0, cached_samples=0))
    assert same(saved(tmp_path / "unset")["task"]["model"], saved(tmp_path / "set")["task"]["model"])


def test_the_classifier_is_trained_first_then_all_more_slowly(footage: Path, tmp_path: Path) -> None:
    flags = {"head_epochs": 1, "backbone_lr": 0.25, "epochs": 2, "held_out": 0.0}
    finetune(options(footage, tmp_path / "still", max_steps=1, lr=0.0, **flags))
    start = saved(tmp_path / "still")["task"]["model"]
    run = tmp_path / "run"
    finetune(options(footage, tmp_path / "whole", **flags))
    steps = saved(tmp_path / "whole")["step"] // 2
    finetune(options(footage, run, max_steps=steps, **flags))
    head = saved(run)["task"]["model"]
    moved = {name for name in head if not torch.equal(head[name], start[name])}
    assert moved == {"fc.weight", "fc.bias"}, "batch statistics stay, too"
    finetune(options(footage, run, resume="", **flags))  # over the border
    assert saved(run)["step"] == 2 * steps
    model = saved(run)["task"]["model"]
    assert not torch.equal(model["backbone.model.0.weight"], start["backbone.model.0.weight"])
    assert not torch.equal(model["backbone.model.1.running_mean"], start["backbone.model.1.running_mean"])
    rates = [group["lr_scale"] for group in saved(run)["optimizer"]["param_groups"]]
    assert set(rates) == {0.25, 1.0} and rates[-1] == 1.0
    assert same(saved(tmp_path / "whole")["task"]["model"], model), "resumed exactly"


@pytest.mark.parametrize("kind", ["rgb", "differences"])
def test_lite2_by_name(footage: Path, tmp_path: Path, kind: str) -> None:
    """Of the network nothing but the classifier is new; a stem of differences is the RGB one repeated."""
    flags = {"model": None, "image_size": 32, "input": kind, "freeze": "all", "epochs": 1, "max_steps": 1}
    finetune(options(footage, tmp_path / "run", weights="lite2", held_out=0.0, **flags))
    now = load_classifier(tmp_path / "run").backbone.state_dict()
    for name, given in lite_weights("lite2").items():
        wide = tile_channels(given, 15) if (name, kind) == ("_conv_stem.weight", "differences") else given
        torch.testing.assert_close(now[name], wide, rtol=0, atol=0)
    assert now["_conv_stem.weight"].shape[1] == (3 if kind == "rgb" else 15)


CACHED = {
    "freeze": "all", "cached_samples": 1, "input": "rgb", "resize": "squash", "held_out": 0.0,
    "weight_decay": 0.0, **PLAIN,
}  # fmt: skip


def middle_features(footage: Path, run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Backbone features of each training clip's middle frame, one by one, and the clips' classes."""
    classifier = load_classifier(run, "tinynet:tiny")
    vectors, labels = [], []
    clips = open_split(str(footage), run, None, "01", 0.05)
    store = clips.store
    for row in clips.train:
        (data,) = store.read(np.array([row]), np.array([store.lengths[row] // 2]))
        with torch.no_grad():
            vectors.append(classifier.features(classifier.preprocess(decode(data)[None]))[0].double().numpy())
        labels.append(int(clips.labels[row]))
    return np.stack(vectors), np.array(labels)


def test_the_first_step_on_cached_features_in_closed_form(footage: Path, tmp_path: Path) -> None:
    flags = {**CACHED, "batch_size": 100, "epochs": 1, "schedule": "constant", "lr": 0.3}
    flags["image_size"] = 40  # the frames' own: decoders scale in their own ways
    flags["precision"] = "float32"
    finetune(options(footage, tmp_path / "run", **flags))
    x, labels = middle_features(footage, tmp_path / "run")
    z = x - x.mean(axis=0)
    z *= 8 / np.sqrt((z**2).sum(axis=1).mean())  # one factor for all dimensions
    wrong = np.full((len(x), 3), 1 / 3) - np.eye(3)[labels]  # softmax of zeros, less the classes
    weight, bias = -0.3 * wrong.T @ z / len(x), -0.3 * wrong.mean(axis=0)
    classifier = load_classifier(tmp_path / "run", "tinynet:tiny")
    with torch.no_grad():
        found = classifier.fc(torch.from_numpy(x).float()).numpy()
    np.testing.assert_allclose(found, z @ weight.T + bias, atol=2e-2)


def test_training_on_cached_features_learns_and_resumes_exactly(footage: Path, tmp_path: Path) -> None:
    flags = {**CACHED, "cached_samples": 3, "epochs": 20, "held_out": 0.25}
    finetune(options(footage, tmp_path / "whole", **flags))
    finetune(options(footage, tmp_path / "parts", max_steps=7, **flags))
    finetune(options(footage, tmp_path / "parts", resume="", **flags))
    whole, parts = saved(tmp_path / "whole"), saved(tmp_path / "parts")
    assert same(whole["task"]["model"], parts["task"]["model"])
    assert same(whole["task"]["probe"], parts["task"]["probe"])
    assert whole["last"]["loss"] < 1.0 < np.log(3), "below that of guessing"


def test_an_adapted_start_is_seen_through_its_head(footage: Path, tmp_path: Path) -> None:
    encoder = build_encoder("resnet18", 2, image_size=32, seed=0)
    start = save_model(tmp_path / "start.safetensors", encoder, {"made": "tce adapt", "format": "tce adapt"})
    assert load_encoder(start).default_layer == "embedding"
    flags = {**CACHED, "model": None, "image_size": 32, "epochs": 2, "weights": str(start)}
    finetune(options(footage, tmp_path / "run", **flags))
    weight = load_classifier(tmp_path / "run").fc.weight.detach().double()
    rows = encoder.head.weight.detach().double()  # type: ignore[union-attr]
    left = weight - weight @ torch.linalg.pinv(rows) @ rows
    assert left.norm() < 1e-4 * weight.norm(), "a combination of the head's two directions"
