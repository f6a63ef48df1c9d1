import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import tce
from tce.adaptation import adapt as command
from tce.adaptation import footage_reader
from tce.adaptation.linear import Piece
from tce.data.pack import pack
from tce.errors import OptionError, TceError
from tce.model.checkpoint import load_encoder
from tce.options.adapt import AdaptOptions
from tce.options.pack import PackOptions
from tests.helpers.drifting import write_clip

QUICK = {"workers": 1, "device": "cpu", "engine": "torch", "precision": "float32"}


def features_of(start, folder):
    """The start's features of a clip's frames."""
    encoder = load_encoder(start)
    from tce.video.open_video import open_video

    frames = open_video(folder).frames(range(6))
    with torch.no_grad():
        return encoder.features(encoder.preprocess(frames)).numpy()


def test_the_result_is_an_ordinary_checkpoint_with_a_linear_head(footage, start, tmp_path):
    result = tce.adapt(footage, out=tmp_path / "run", start=start, **QUICK)
    figures = result.figures
    assert (figures["clips"], figures["frames"], figures["skipped"]) == (12, 72, {})
    assert figures["kept_start"] is False
    assert figures["adapted"] > figures["start"] > figures["chance"]
    assert f"start {figures['start']:.1%}, adapted {figures['adapted']:.1%}" in result.text
    assert "at 32 px" in result.text
    encoder = load_encoder(tmp_path / "run")
    assert (encoder.config.head, encoder.embedding_size, encoder.image_size) == ("linear", 512, 32)
    assert encoder.config.provenance["made"] == "tce adapt"
    assert encoder.default_layer == "embedding"
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert stored["adapted"] == figures["adapted"]


def test_embeddings_are_the_whitened_features_of_an_independent_computation(footage, start, tmp_path):
    figures = tce.adapt(footage, out=str(tmp_path / "run"), start=start, **QUICK).figures
    clips = sorted(path.parent for path in footage.rglob("frame000001.jpg"))
    x = np.stack([features_of(start, clip) for clip in clips]).astype(np.float64)  # [12, 6, 512]
    within = np.mean([np.cov(clip.T) for clip in x], axis=0)
    share = figures["shrinkage"]
    within = (1 - share) * within + share * np.trace(within) / 512 * np.eye(512)
    rows = (x - x.mean(axis=(0, 1))).reshape(-1, 512)
    similarity = rows @ np.linalg.solve(within, rows.T)
    lengths = np.sqrt(np.diag(similarity))
    vectors = np.concatenate(
        [tce.embed(clip, load_encoder(tmp_path / "run"), device="cpu") for clip in clips]
    )
    # The network's input passed another resizing here, which hardly shows at these sizes.
    np.testing.assert_allclose(vectors @ vectors.T, similarity / np.outer(lengths, lengths), atol=0.05)


def test_adding_footage_equals_adapting_to_all_of_it(footage, start, tmp_path):
    tce.adapt(footage / "a", out=str(tmp_path / "parts"), start=start, **QUICK)
    later = tce.adapt(footage / "b", out=str(tmp_path / "parts"), start=start, add=True, **QUICK)
    tce.adapt(footage, out=str(tmp_path / "whole"), start=start, **QUICK)
    assert later.figures["clips"] == 12
    parts, whole = (sums_of(tmp_path / name) for name in ("parts", "whole"))
    for name in ("within", "second"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-6, atol=1e-9)


def sums_of(run):
    arrays = load_file(run / "statistics.safetensors")
    return {name: sum(arrays[f"fold{fold}.{name}"] for fold in range(3)) for name in ("within", "second")}


def test_the_same_footage_again_adds_nothing(footage, start, tmp_path):
    first = tce.adapt(footage, out=str(tmp_path / "run"), start=start, **QUICK)
    again = tce.adapt(footage, out=str(tmp_path / "run"), start=start, add=True, **QUICK)
    skip = ("seconds", "model", "engine", "precision", "contrastive_seconds")  # no pass was needed
    assert {k: v for k, v in again.figures.items() if k not in skip} == {
        k: v for k, v in first.figures.items() if k not in skip
    }


def test_other_settings_cannot_be_added(footage, start, tmp_path):
    tce.adapt(footage / "a", out=str(tmp_path / "run"), start=start, **QUICK)
    with pytest.raises(TceError, match="expected image_size 32, as the run has; found image_size 48"):
        tce.adapt(footage / "b", out=str(tmp_path / "run"), start=start, add=True, image_size=48, **QUICK)
    with pytest.raises(OptionError, match="expected a new folder; found a run; --add"):
        tce.adapt(footage / "b", out=str(tmp_path / "run"), start=start, **QUICK)
    with pytest.raises(OptionError, match="--add; expected a run of tce adapt"):
        tce.adapt(footage / "b", out=str(tmp_path / "none"), start=start, add=True, **QUICK)


def test_an_interrupted_run_resumes_to_the_same_result(footage, start, tmp_path, monkeypatch):
    whole = tce.adapt(footage, out=str(tmp_path / "whole"), start=start, **QUICK)
    real = footage_reader.clip_features

    def cut_short(*arguments):
        for number, item in enumerate(real(*arguments)):
            if number == 5:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(footage_reader, "clip_features", cut_short)
    with pytest.raises(
        KeyboardInterrupt, match=r"5 clips are in .*statistics\.safetensors; --resume continues"
    ):
        tce.adapt(footage, out=str(tmp_path / "run"), start=start, **QUICK)
    monkeypatch.setattr(footage_reader, "clip_features", real)
    resumed = tce.adapt(footage, out=str(tmp_path / "run"), start=start, resume=True, **QUICK)
    for name in ("start", "adapted", "shrinkage", "clips", "frames"):
        assert resumed.figures[name] == pytest.approx(whole.figures[name], abs=1e-9), name
    one, other = (sums_of(tmp_path / name) for name in ("run", "whole"))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-7)


def test_bad_clips_are_named_and_skipped(footage, start, tmp_path, caplog):
    shutil.copytree(footage / "a", tmp_path / "clips")
    (tmp_path / "clips" / "bad.mp4").write_bytes(b"no video")
    broken = write_clip(tmp_path / "clips" / "torn", 5)
    (broken / "frame000003.jpg").write_bytes(b"\xff\xd8\xff torn")
    result = tce.adapt(tmp_path / "clips", out=str(tmp_path / "run"), start=start, **QUICK)
    assert result.figures["clips"] == 6
    assert set(result.figures["skipped"]) == {"bad", "torn"}
    assert "skipped 2 clips" in result.text
    assert "bad.mp4" in caplog.text
    with pytest.raises(TceError, match=r"none of 1 clips could be read; the first: .*bad.mp4"):
        tce.adapt(tmp_path / "clips" / "bad.mp4", out=str(tmp_path / "other"), start=start, **QUICK)


def test_three_clips_are_adapted_without_a_check_and_one_is_refused(start, tmp_path):
    for number in range(3):
        write_clip(tmp_path / "three" / f"clip{number}", number)
    result = tce.adapt(tmp_path / "three", out=str(tmp_path / "run"), start=start, **QUICK)
    assert (result.figures["held_out"], result.figures["shrinkage"]) == (0, 0.5)
    assert "too few clips to hold any out" in result.text
    with pytest.raises(TceError, match=r"two clips or more.*found one short clip"):
        tce.adapt(tmp_path / "three" / "clip0", out=str(tmp_path / "one"), start=start, **QUICK)
    assert not (tmp_path / "one" / "model.safetensors").exists()


def test_one_long_recording_is_enough(start, tmp_path):
    write_clip(tmp_path / "long", 1, frames=400)
    result = tce.adapt(tmp_path / "long", out=str(tmp_path / "run"), start=start, **QUICK)
    assert result.figures["clips"] == 1
    assert result.figures["held_out"] >= 3


def test_still_footage_is_reported(start, tmp_path):
    for number in range(6):
        write_clip(tmp_path / "still" / f"clip{number}", number, moving=False)
    with pytest.raises(TceError, match="expected clips in which something moves"):
        tce.adapt(tmp_path / "still", out=str(tmp_path / "run"), start=start, **QUICK)


def test_where_it_does_not_help_the_start_is_kept(footage, start, tmp_path, monkeypatch):
    """Features whose within-clip changes are what tells clips apart, beside much weak, steady noise."""
    rng = np.random.default_rng(0)

    def harmful(clips, *_):
        for row, pieces in clips:
            list(pieces)
            rows = np.concatenate([rng.normal(size=(1, 5)).repeat(8, 0), np.zeros((8, 507))], axis=1) * 10
            rows += rng.normal(size=rows.shape) * np.repeat([4.0, 1.0], [5, 507])
            yield row, [Piece(rows.astype(np.float32), np.arange(8.0))]

    monkeypatch.setattr(footage_reader, "clip_features", harmful)
    for number in range(60):
        write_clip(tmp_path / "many" / f"clip{number}", number, frames=2)
    result = tce.adapt(tmp_path / "many", out=str(tmp_path / "run"), start=start, **QUICK)
    assert result.figures["kept_start"] is True
    assert result.figures["adapted"] <= result.figures["start"]
    assert "not clearly better there, so the start is kept" in result.text
    encoder = load_encoder(tmp_path / "run")
    assert (encoder.config.head, encoder.default_layer) == ("none", "embedding")
    assert all(
        torch.equal(value, load_encoder(start).state_dict()[name])
        for name, value in encoder.state_dict().items()
    )


def test_a_collection_gives_nearly_the_same(footage, start, tmp_path):
    pack(PackOptions(footage=(str(footage),), out=str(tmp_path / "collection"), workers=1))
    stored = tce.adapt(tmp_path / "collection", out=str(tmp_path / "a"), start=start, **QUICK).figures
    direct = tce.adapt(footage, out=str(tmp_path / "b"), start=start, **QUICK).figures
    assert (stored["clips"], stored["frames"]) == (direct["clips"], direct["frames"])
    assert stored["adapted"] == pytest.approx(direct["adapted"], abs=0.1)


def test_lists_choose_the_train_clips(tmp_path, start):
    for label in ("Jump", "Run"):
        for group in range(1, 5):
            write_clip(tmp_path / "clips" / f"v_{label}_g{group:02d}_c01", group)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "classInd.txt").write_text("1 Jump\n2 Run\n")
    names = {
        part: [f"{label}/v_{label}_g{g:02d}_c01.avi" for label in ("Jump", "Run") for g in groups]
        for part, groups in (("train", (1, 2, 3)), ("test", (4,)))
    }
    (tmp_path / "lists" / "testlist01.txt").write_text("\n".join(names["test"]))
    numbered = [f"{name} {1 + name.startswith('Run')}" for name in names["train"]]
    (tmp_path / "lists" / "trainlist01.txt").write_text("\n".join(numbered))
    lists = str(tmp_path / "lists")
    run = str(tmp_path / "run")
    result = tce.adapt(tmp_path / "clips", out=run, start=start, lists=lists, group="group", **QUICK)
    assert result.figures["clips"] == 6


def test_options_that_contradict_are_reported():
    for options, message in (
        ({"add": True, "resume": True}, "--add, --resume, --force"),
        ({"split": "01"}, "--split; expected --lists"),
        ({"frames_per_clip": 1}, "--frames-per-clip; expected at least 2"),
        ({"horizon": 0.0}, "--horizon; expected more than 0"),
        ({"out": ""}, "--out; expected a path"),
    ):
        with pytest.raises(OptionError, match=message):
            AdaptOptions(**{"footage": "x", "out": "y", **options})


def test_two_processes_see_each_clip_once_and_write_one_run(footage, start, tmp_path):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["-m", "--", "tce"]  # -- because of the launcher's own --start-method
    words += ["adapt", str(footage), "--out", str(tmp_path / "two"), "--start", start, "--json"]
    words += [f"--{name}={value}" for name, value in QUICK.items()]
    root = Path(command.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["clips"] == 12
    tce.adapt(footage, out=str(tmp_path / "one"), start=start, **QUICK)
    one, two = sums_of(tmp_path / "one"), sums_of(tmp_path / "two")
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-7)
