"""An image model of transformers through every command, adapted to footage as its user would."""

import json
import shutil

import numpy as np
import pytest
import torch

from tce.cli import main
from tce.model.checkpoint import load_classifier, load_encoder
from tce.video.synthetic import make_clips


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
