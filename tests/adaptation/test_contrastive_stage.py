import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tce
from tce.adaptation import adapt as command
from tce.adaptation import contrastive, contrastive_stage
from tce.cli import main
from tce.errors import OptionError, TceError
from tce.model.checkpoint import load_encoder
from tce.options.adapt import AdaptOptions
from tests.helpers.drifting import write_clip

QUICK = {"workers": 1, "device": "cpu", "engine": "torch", "precision": "float32"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Thirty clips of four frames: thirty recordings, of which five are left out."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(30):
        write_clip(root / f"clip{number:02d}_p{1 + number % 2}", number, frames=4)
    return root


@pytest.fixture(autouse=True)
def few_steps_of_the_head(monkeypatch):
    monkeypatch.setattr(contrastive_stage, "HEAD_STEPS", 3)


@pytest.fixture
def always(monkeypatch):
    """Any training is taken for an improvement, so that there is one to look at."""
    monkeypatch.setattr(command.Comparison, "improves", property(lambda self: True))


def run(clips, start, out, **options):
    given = {"method": "contrastive", "steps": 4, **QUICK, **options}
    return tce.adapt(clips, out=str(out), start=start, **given)


def check_the_map_is_fitted_to_the_trained_features(clips, folder):
    """Embeddings are as after adapting linearly with the trained network as the start."""
    bare = folder / "bare.safetensors"
    command.save_model(bare, load_encoder(folder / "run"), {})
    tce.adapt(clips, out=str(folder / "again"), start=str(bare), method="linear", **QUICK)
    similarity = []
    for name in ("run", "again"):
        vectors = [
            tce.embed(clips / clip, load_encoder(folder / name)) for clip in ("clip02_p1", "clip07_p2")
        ]
        similarity.append(np.concatenate(vectors) @ np.concatenate(vectors).T)
    np.testing.assert_allclose(*similarity, atol=1e-3)


def assert_same_network(one, other):
    one, other = (load_file(out / "model.safetensors") for out in (one, other))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.usefixtures("always")
def test_the_result_is_an_ordinary_checkpoint_with_trained_last_blocks(clips, start, tmp_path):
    result = run(clips, start, tmp_path / "run")
    figures = result.figures
    assert (figures["method"], figures["clips"], figures["contrastive"]["steps"]) == ("contrastive", 30, 4)
    assert (figures["contrastive"]["held_out"], figures["contrastive"]["held_out_recordings"]) == (5, 5)
    assert re.search(r"on 5 clips of 5 recordings left out of the training: start [\d.]+%", result.text)
    old, new = load_encoder(start).backbone.state_dict(), load_encoder(tmp_path / "run").backbone.state_dict()
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"layer4"}
    assert not [n for n in old if "running" in n and not torch.equal(old[n], new[n])]
    assert not (tmp_path / "run" / "activations").exists()
    out = str(tmp_path / "e.npz")
    ckpt = ["--ckpt", str(tmp_path / "run"), "--device", "cpu"]
    assert main(["embed", *ckpt, "--input", str(clips / "clip00_p1"), "--output", out]) == 0
    assert np.load(out)["embeddings"].shape == (4, figures["embedding_size"])
    check_the_map_is_fitted_to_the_trained_features(clips, tmp_path)
    with pytest.raises(OptionError, match=r"--add; expected a run of linear adaptation"):
        run(clips, start, tmp_path / "run", method="linear", steps=None, add=True)


@pytest.mark.usefixtures("always")
def test_a_run_stopped_in_the_training_resumes_to_the_same_network(clips, start, tmp_path, monkeypatch):
    run(clips, start, tmp_path / "whole", seed=3)
    advance = contrastive.ContrastiveTraining.advance

    def stop(training):
        if training.step == contrastive_stage.HEAD_STEPS + 2:
            raise KeyboardInterrupt
        return advance(training)

    monkeypatch.setattr(contrastive.ContrastiveTraining, "advance", stop)
    monkeypatch.setattr(contrastive_stage, "SECONDS_BETWEEN_SAVES", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(clips, start, tmp_path / "run", seed=3)
    assert (tmp_path / "run" / "checkpoints" / "latest.pt").exists()
    monkeypatch.setattr(contrastive.ContrastiveTraining, "advance", advance)
    with pytest.raises(TceError, match="expected seed 3, as the run has; found seed 4"):
        run(clips, start, tmp_path / "run", seed=4, resume=True)
    resumed = run(clips, start, tmp_path / "run", seed=3, resume=True)
    assert resumed.figures["contrastive"]["steps"] == 4
    assert_same_network(tmp_path / "whole", tmp_path / "run")
    # A finished run's --resume trains no further.
    monkeypatch.setattr(contrastive.ContrastiveTraining, "advance", lambda training: 1 / 0)
    run(clips, start, tmp_path / "run", seed=3, resume=True)
    assert_same_network(tmp_path / "whole", tmp_path / "run")


@pytest.mark.usefixtures("always")
def test_minutes_are_repeated_by_steps_and_footage_beyond_the_file_takes_part_in_the_map(
    clips, start, tmp_path
):
    timed = run(clips, start, tmp_path / "timed", steps=None, minutes=1e-6)
    steps = timed.figures["contrastive"]["steps"]
    assert steps == 2
    run(clips, start, tmp_path / "counted", steps=steps)
    assert_same_network(tmp_path / "timed", tmp_path / "counted")
    few = run(clips, start, tmp_path / "few", cache_gb=20 * 4 * 1024 * 4 / 2**30).figures
    assert (few["clips"], few["contrastive"]["clips"]) == (30, 20)


def test_a_harmful_training_is_refused_and_the_network_stays(clips, start, tmp_path, monkeypatch):
    """Weights that are destroyed by training leave the linear adaptation of the start's own features."""
    advance = contrastive.ContrastiveTraining.advance

    def destroy(training):
        loss = advance(training)
        with torch.no_grad():
            for parameter in training.last.parameters():
                parameter.mul_(0.0)
        return loss

    linear = tce.adapt(clips, out=str(tmp_path / "linear"), start=start, method="linear", **QUICK)
    monkeypatch.setattr(contrastive.ContrastiveTraining, "advance", destroy)
    result = run(clips, start, tmp_path / "run")
    trained = result.figures["contrastive"]
    assert trained["kept"] is False
    assert trained["contrastive"] < trained["linear"]
    assert result.figures["method"] == linear.figures["method"]
    assert "so the last blocks stay as they were" in result.text
    old, new = load_encoder(start).backbone.state_dict(), load_encoder(tmp_path / "run").backbone.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_auto_says_what_contrastive_would_cost(clips, start, tmp_path, capsys):
    words = ["adapt", str(clips), "--out", str(tmp_path / "run"), "--start", start, "--json"]
    words += [f"--{name}={value}" for name, value in QUICK.items()]
    assert main(words) == 0
    out = capsys.readouterr().out
    found = json.loads(out)
    assert found["contrastive"] is None
    assert found["contrastive_seconds"] > 0
    assert found["method"] in ("start", "linear")
    again = tce.adapt(clips, out=str(tmp_path / "again"), start=start, **QUICK).text
    assert re.search(r"--method contrastive would take about .* more on this machine", again)


def test_too_few_clips_are_refused_before_the_training(start, tmp_path):
    for number in range(7):
        write_clip(tmp_path / "few" / f"clip{number}", number, frames=3)
    with pytest.raises(TceError, match="--method contrastive; expected 12 clips or pieces"):
        run(tmp_path / "few", start, tmp_path / "run")


def test_options_that_contradict_are_reported():
    for options, message in (
        ({"method": "linear", "minutes": 1.0}, "--minutes; expected --method contrastive"),
        ({"steps": 4, "minutes": 1.0}, "--minutes, --steps; expected one of them"),
        ({"steps": 1}, "--steps; expected at least 2"),
    ):
        with pytest.raises(OptionError, match=message):
            AdaptOptions(**{"footage": "x", "out": "y", **options})
