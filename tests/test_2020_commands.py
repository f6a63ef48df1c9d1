"""The commands of the 2020 README, as written there."""

import os
import runpy
import subprocess
import sys
import sysconfig
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tce.model.encoder import build_encoder
from tce.video.synthetic import draw_clip, write_video

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a video, the same frames as images, and a pre-training checkpoint as released in 2020."""
    folder = tmp_path_factory.mktemp("files")
    frames = draw_clip("Wave", 0, 0, 10, 64, fps=15, seed=0)
    write_video(folder / "input.mp4", frames, fps=15)
    (folder / "frames").mkdir()
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / "frames" / f"frame{number:06d}.jpg")
    encoder = build_encoder("resnet18", seed=0)
    state = {f"module.{key.removeprefix('backbone.')}": value for key, value in encoder.state_dict().items()}
    for kind in ("weight", "bias"):
        state[f"module.fc.{kind}"] = state.pop(f"module.head.{kind}")
    torch.save({"model": state}, folder / "ckpt.pth", _use_new_zipfile_serialization=False)
    return folder


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run a script of the repository's root in an empty folder and give its exit code."""

    def run(line: str) -> int:
        script, *arguments = line.split()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        return end.value.code

    return run


def test_film(files, command, tmp_path):
    line = "make_tsne.py --vid --model resnet18 --input {0}/input.mp4 --output out.mp4 --ckpt {0}/ckpt.pth"
    assert command(line.format(files)) == 0
    with av.open(str(tmp_path / "out.mp4")) as film:
        assert film.streams.video[0].average_rate == 15
        assert sum(1 for _ in film.decode(video=0)) == 10


def test_picture_of_a_folder_of_frames_under_a_films_name(files, command, tmp_path, caplog):
    line = "make_tsne.py --model resnet18 --input {0}/frames --output out.mp4 --ckpt {0}/ckpt.pth"
    assert command(line.format(files)) == 0
    assert "out.png" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["out.png"]
    assert Image.open(tmp_path / "out.png").format == "PNG"


def test_several_inputs_without_checkpoint(files, command, tmp_path, caplog):
    line = "make_tsne.py --model resnet18 --input {0}/input.mp4 {0}/frames --output out.png --output_size 32"
    assert command(line.format(files)) == 0
    assert "random weights" in caplog.text
    assert (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("make_tsne.py --vid --input {0}/input.mp4 --output out.png", "--output out.png"),
        ("make_tsne.py --input {0}/input.mp4 --output out.txt", "--output out.txt"),
        ("make_tsne.py --input {0}/nothing.mp4 --output out.png", "nothing.mp4"),
        ("make_tsne.py --input {0}/input.mp4 --output out.png --ckpt {0}/input.mp4", "input.mp4"),
        (
            "make_tsne.py --model resnet50 --input {0}/input.mp4 --output o.png --ckpt {0}/ckpt.pth",
            "resnet",
        ),
        ("make_tsne.py --input {0}/input.mp4 --output o.png --every 100", "one"),
        ("make_tsne.py --input {0}/input.mp4 --embeddings e.npy --output o.png", "--embeddings"),
    ],
)
def test_mistakes_cost_one_line(files, command, capsys, line, message):
    assert command(line.format(files)) == 1
    printed = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in printed
    assert printed.startswith("tce: ")


def test_embeddings_with_the_readmes_typing_slip(command, tmp_path, capsys):
    embeddings = np.random.default_rng(0).normal(size=(40, 16))
    embeddings.dump(tmp_path / "embeddings")
    for script in ("make_tsne_from_embedding.py", "make_tsne_from_embeddings.py"):
        assert command(f"{script} --embeddings embeddings --output --path/to/output.png") == 0
        assert "taken as path/to/output.png" in capsys.readouterr().err
        (tmp_path / "path/to/output.png").unlink()
    assert command("make_tsne_from_embedding.py --embeddings embeddings --output plain.png") == 0
    assert (tmp_path / "plain.png").exists()


def test_scripts_find_the_package_in_a_fresh_clone(tmp_path):
    np.save(tmp_path / "e.npy", np.random.default_rng(0).normal(size=(8, 4)))
    # Without site, an editable installation is not seen: only the libraries are.
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    arguments = ["--embeddings", "e.npy", "--output", "out.png"]
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / "make_tsne_from_embedding.py"), *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.png").exists()


@pytest.mark.parametrize("script", ["pretrain.py", "finetune.py"])
def test_training_scripts_find_the_package_in_a_fresh_clone(script, tmp_path):
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    line = [sys.executable, "-S", str(ROOT / script), "--help"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and script in done.stdout, done.stderr


def test_tsne_utils_keeps_its_names(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    names = runpy.run_path(str(ROOT / "tsne_utils.py"))
    data = np.random.default_rng(0).normal(size=(20, 8))
    assert names["fit_pca"](data, num_dims=3).shape == (20, 3)
    assert names["fit_tsne"](data, num_iterations=50).shape == (20, 2)


def test_environment_files():
    for name in ("TCE_env.yml", "environment.yml"):
        assert "\nname: env\n" in (ROOT / name).read_text()
    assert (ROOT / "UCF_list").is_dir()
