"""Commands as Python functions."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tce
from tce import cli
from tce.api import build_options
from tce.errors import OptionError
from tce.options.pack import PackOptions
from tce.options.pretrain import PretrainOptions
from tests.helpers.training_options import pretrain_options


def write_clips(folder: Path, count: int = 4) -> Path:
    """Frame folders of three images each."""
    rng = np.random.default_rng(0)
    for clip in range(count):
        (folder / f"clip{clip}").mkdir(parents=True)
        for frame in range(3):
            pixels = rng.integers(0, 255, (24, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"clip{clip}" / f"{frame}.png")
    return folder


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_is_a_documented_function(name: str) -> None:
    if name == "embed":  # takes a video and an encoder, or a file name as the command does
        assert callable(tce.embed)
        return
    python = name.replace("-", "_")
    function = getattr(tce, python)
    assert function.__name__ == python and python in tce.__all__
    assert function.__doc__.splitlines()[0] == f"{cli.COMMANDS[name].help}."
    assert "Raises:" in function.__doc__
    for parameter in inspect.signature(function).parameters:
        assert f"    {parameter}: " in function.__doc__


def test_the_functions_are_there_after_their_rooms_were_imported() -> None:
    code = (
        "import tce, tce.evaluation.evaluate, tce.commands.info, tce.embedding.embed, tce.data.pack\n"
        "assert all(callable(getattr(tce, name)) for name in tce._COMMANDS) and callable(tce.embed)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_signature_shows_the_defaults() -> None:
    shown = inspect.signature(tce.pretrain).parameters
    assert (shown["epochs"].default, shown["method"].default, shown["force"].default) == (
        100,
        "simclr",
        False,
    )
    assert shown["crop_scale"].default == (0.2, 1.0) and shown["weights"].default is None


def test_values_that_are_no_flags_are_keywords_too() -> None:
    built = build_options("pretrain", ("videos",), {"out": "run", "hue": 0.0, "momentum": 0.5})
    assert (built.augment.hue, built.optim.momentum) == (0.0, 0.5)
    with pytest.raises(OptionError, match="--hue"):
        build_options("pretrain", ("videos",), {"out": "run", "hue": 0.7})


def test_flat_keywords_are_the_flags() -> None:
    keywords = {"out": "run", "epochs": 3, "lr": 0.5, "image_size": 32, "crop_scale": [0.5, 1.0]}
    built = build_options("pretrain", ("videos",), keywords)
    flags = ["videos", "--out", "run", "--epochs", "3", "--lr", "0.5", "--image-size", "32"]
    assert built == cli.parse("pretrain", [*flags, "--crop-scale", "0.5", "1.0"])[0]
    built = build_options("pretrain", ("videos",), {"out": Path("run"), "recipe": "quick"})
    assert built == cli.parse("pretrain", ["videos", "--out", "run", "--recipe", "quick"])[0]


def test_options_objects_are_taken_as_they_are() -> None:
    options = PackOptions(footage=("a",), out="b")
    assert build_options("pack", (options,), {}) is options
    with pytest.raises(TypeError, match="not both"):
        build_options("pack", (options,), {"out": "c"})


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (("a",), {"epoch": 3, "out": "b"}, r"unexpected keyword argument 'epoch'; did you mean 'epochs'\?"),
        (("a", "b"), {"out": "c"}, "takes 1 positional arguments, 2 were given"),
        (("a",), {"data": "b", "out": "c"}, "multiple values for argument 'data'"),
        ((), {}, "misses 'data', 'out'"),
    ],
)
def test_wrong_arguments_raise_as_of_any_function(arguments: tuple, keywords: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        tce.pretrain(*arguments, **keywords)


def test_values_out_of_range_name_the_option() -> None:
    with pytest.raises(OptionError, match="--epochs"):
        tce.pretrain("videos", out="run", epochs=0)


def test_pack_and_info_from_python(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "clips")
    tce.pack(clips, out=tmp_path / "collection", workers=1)
    assert tce.info(tmp_path / "collection").figures["clips"] == 4
    assert tce.check(tmp_path / "collection", workers=1).text


def test_options_from_python_equal_those_of_the_tests() -> None:
    """The helper fills groups by hand; the function fills the same ones."""
    byhand = pretrain_options(Path("a"), Path("b"))
    assert isinstance(byhand, PretrainOptions)
    flat = {"out": "b", "device": "cpu", "log_steps": 2, "model": "tinynet:tiny", "image_size": 24}
    flat |= {"embedding_size": 8, "window": 3, "epochs": 3, "batch_size": 6}
    built = build_options("pretrain", ("a",), flat)
    assert (built.model, built.data, built.optim.epochs) == (byhand.model, byhand.data, byhand.optim.epochs)


def test_a_run_gives_its_network_and_log(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "clips")
    settings = {"model": "tinynet:tiny", "image_size": 24, "embedding_size": 8, "window": 2, "log_steps": 1}
    run = tce.pretrain(clips, out=tmp_path / "run", epochs=2, batch_size=4, device="cpu", **settings)
    with pytest.raises(tce.TceError, match="tinynet"):  # code is named by the user, never by a file
        run.encoder  # noqa: B018
    assert repr(run) == f"RunResult({str(tmp_path / 'run')!r})" and "<pre>" in run._repr_html_()
    pandas = pytest.importorskip("pandas")
    assert isinstance(run.log, pandas.DataFrame) and run.log["step"].max() == 2


def test_tsne_follows_scikit_learns_conventions() -> None:
    from sklearn.base import clone

    vectors = np.random.default_rng(0).normal(size=(40, 6))
    maker = tce.TSNE(perplexity=5, iterations=60, random_state=3)
    points = maker.fit_transform(vectors)
    assert points.shape == (40, 2) and (points == maker.embedding_).all()
    again = clone(maker)
    assert again.get_params() == maker.get_params() and (again.fit_transform(vectors) == points).all()
    same = tce.fit_tsne(vectors, num_iterations=60, seed=3, perplexity=5)
    np.testing.assert_array_equal(points, same)
    with pytest.raises(OptionError):
        tce.TSNE(perplexity=500).fit(vectors)


def test_an_encoder_is_loaded_onto_a_device(tmp_path: Path) -> None:
    assert tce.load_encoder("lite2", device="auto").device.type in ("cpu", "cuda")
    with pytest.raises(OptionError, match="--device"):
        tce.load_encoder("lite2", device="nowhere")
