from __future__ import annotations

import dataclasses
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tce.cli import main
from tce.commands.finetune import finetune
from tce.errors import OptionError, TceError
from tce.evaluation.compare import compare
from tce.evaluation.protocols import Evaluator
from tce.model.checkpoint import load_classifier, save_model
from tce.model.encoder import FrameEncoder, build_encoder
from tce.options.compare import CompareOptions
from tce.options.finetune import FinetuneOptions
from tce.options.training import require_used_decay
from tce.recipes import apply_recipe
from tce.train.finetune_task import Finetuning
from tce.train.optim import stage_groups
from tce.video.synthetic import make_clips
from tests.helpers.run_files import rows, same, saved
from tests.helpers.training_options import jpegs_256, options, released_classifier

ROOT = Path(__file__).parents[2]


@pytest.fixture
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose the kept network on however few held-out clips."""
    monkeypatch.setattr("tce.train.finetune_task.FEWEST_HELD_OUT", 1)


@pytest.mark.usefixtures("few_are_enough")
def test_a_run_folder_holds_what_it_should(footage: Path, tmp_path: Path) -> None:
    done = finetune(options(footage, tmp_path / "run", model="resnet18", image_size=32, test_looks=True))
    run = tmp_path / "run"
    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert names == {
        "options.json", "log.csv", "tensorboard", "checkpoints", "model.safetensors", "config.json",
        "result.json", "predictions-held-out.csv", "predictions-held-out.npz", "confusion-held-out.png",
    }  # fmt: skip
    assert {"latest.pt", "best.pt", "best-on-test.pt"} <= {
        path.name for path in (run / "checkpoints").iterdir()
    }
    classifier = load_classifier(run)
    assert (classifier.config.classes, classifier.config.differences) == (("C0", "C1", "C2"), 5)
    assert classifier.config.provenance["split"] == "held-out"
    best = load_classifier(run / "checkpoints" / "best.pt").state_dict()
    assert all(torch.equal(value, best[name]) for name, value in classifier.state_dict().items())
    load_classifier(run / "checkpoints" / "best-on-test.pt")
    log = rows(run)
    assert all({"loss", "train_top1", "lr"} <= set(row) for row in log[1:])
    validations = [row for row in log if "held_out_top1" in row]
    assert [row["epoch"] for row in validations] == [0, 1] and all("test_top1" in row for row in validations)
    result = json.loads((run / "result.json").read_text())
    assert result["top1"] == done.figures["top1"] and result["data"]["test_clips"] == 12
    assert result["protocol"] == "frames" and result["settings"]["samples"] == 19
    assert result["chosen"]["held_out_top1"] == max(row["held_out_top1"] for row in validations)
    assert result["best_on_test"]["top1"] == max(row["test_top1"] for row in validations)
    assert "optimistic" in result["best_on_test"]["note"] and "best on test" in done.text
    assert result["last"]["epoch"] == 2 and result["last"]["top1"] == validations[-1]["test_top1"]
    shown = compare(CompareOptions((str(run),), output=str(tmp_path / "c.png")))
    assert shown.figures["comparisons"][0]["figures"]["top1"]["run"]["value"] == result["top1"]


@pytest.mark.usefixtures("few_are_enough")
def test_it_learns_what_differences_show(footage: Path, tmp_path: Path) -> None:
    """Classes are directions of stripes, groups are colours, which cancel out in differences of frames."""
    flags = {
        "model": "tinynet:small",
        "epochs": 40,
        "lr": 0.1,
        "batch_size": 8,
        "image_size": 40,
    }
    flags |= {"flip": 0.0, "crop_scale": (1.0, 1.0), "log_steps": 50, "validate_epochs": 20}
    done = finetune(options(footage, tmp_path / "run", **flags))
    assert done.figures["top1"] > 0.9 > 0.4 > done.figures["chance"], done.text
    assert done.figures["chosen"]["by"] == "held-out groups"


VARIANTS: list[dict[str, Any]] = [
    {"test_looks": True, "color": 0.3, "dropout": 0.2},
    {"input": "rgb", "segments": 3, "balanced": True, "label_smoothing": 0.1},
    {"accumulate": 2, "optimizer": "adamw", "lr": 1e-3, "schedule": "cosine", "warm_up": 1.0},
    {"precision": "bf16", "schedule": "step", "lr_decay_epochs": (1,), "layer_decay": 0.5, "head_lr": 3.0},
    {"held_out": 0.0, "labels": "3/class", "crop_scale": (1.0, 1.0), "flip": 0.0},
]


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("flags", VARIANTS, ids=lambda flags: "-".join(map(str, flags.values())))
def test_every_variant_trains_and_goes_on_exactly(
    footage: Path, tmp_path: Path, flags: dict[str, Any]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    first = finetune(options(footage, whole, workers=3, **flags))
    finetune(options(footage, parts, workers=1, max_steps=3, **flags))
    second = finetune(options(footage, parts, workers=2, resume="", **flags))
    assert same(saved(whole), saved(parts))
    assert rows(whole) == rows(parts)
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    for key in ("top1", "last", "chosen", "best_on_test"):
        assert first.figures[key] == second.figures[key]
    again = finetune(options(footage, parts, resume=str(parts / "checkpoints" / "latest.pt"), **flags))
    assert again.figures["top1"] == second.figures["top1"], "a finished run is tested again, not trained"


def released_encoder(encoder: FrameEncoder) -> dict[str, torch.Tensor]:
    """Its tensors by the names of 2020."""
    backbone = {f"module.{n}": v for n, v in encoder.backbone.state_dict().items()}
    return backbone | {f"module.fc.{n}": v for n, v in encoder.head.state_dict().items()}


def test_weights_of_every_kind(footage: Path, tmp_path: Path) -> None:
    encoder = build_encoder("resnet18", 128, image_size=32, seed=3)
    released = released_encoder(encoder)
    torch.save({"model": released}, tmp_path / "2020.pth")
    imagenet = {n.removeprefix("module."): v for n, v in released.items() if "fc" not in n}
    head = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(imagenet | head, tmp_path / "imagenet.pth")
    save_model(tmp_path / "ours.safetensors", encoder)
    flags = {"image_size": 32, "epochs": 1, "max_steps": 1, "lr": 0.0, "held_out": 0.0}
    hashes = set()
    for name in ("2020.pth", "imagenet.pth", "ours.safetensors"):
        run = tmp_path / f"run-{name}"
        finetune(options(footage, run, model=None, weights=str(tmp_path / name), **flags))
        state = load_classifier(run).state_dict()
        tiled = state["backbone.conv1.weight"]
        for channel in range(15):
            assert torch.equal(
                tiled[:, channel], encoder.state_dict()["backbone.conv1.weight"][:, channel % 3]
            )
        hashes.add(float(state["backbone.layer4.1.conv2.weight"].sum()))
        assert state["fc.weight"].shape == (3, 512)
    assert len(hashes) == 1
    with pytest.raises(
        TceError, match=r"the file holds a resnet18; expected a resnet50.*use --model resnet18"
    ):
        finetune(
            options(footage, tmp_path / "x", model="resnet50", weights=str(tmp_path / "2020.pth"), **flags)
        )


def test_frozen_layers_stay_and_stages_have_their_rates(footage: Path, tmp_path: Path) -> None:
    flags = {"model": "resnet18", "image_size": 32, "epochs": 1, "freeze": "layer3", "held_out": 0.0}
    finetune(options(footage, tmp_path / "run", **flags))
    finetune(options(footage, tmp_path / "still", max_steps=1, lr=0.0, **flags))
    now, first = (load_classifier(tmp_path / name).state_dict() for name in ("run", "still"))
    moved = {n.removeprefix("backbone.").split(".")[0] for n in now if not torch.equal(now[n], first[n])}
    assert {"fc", "layer4"} == moved
    classifier = load_classifier(tmp_path / "run")
    groups = stage_groups(classifier, 0.5, 2.0)
    assert [group["lr_scale"] for group in groups] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2]
    assert sum(len(group["params"]) for group in groups) == len(list(classifier.parameters()))
    classifier.freeze("layer3")
    assert [group["lr_scale"] for group in stage_groups(classifier, 0.5, 2.0)] == [1, 2]


def test_the_commands_of_2020_run_as_written(
    footage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = jpegs_256(footage, tmp_path)
    encoder = build_encoder("resnet18", 128, seed=3)
    torch.save({"model": released_encoder(encoder)}, root / "weights.pth")
    monkeypatch.chdir(root)
    monkeypatch.setenv("TCE_UCF101", "jpegs_256")
    monkeypatch.delenv("TCE_UCF101_LISTS", raising=False)

    def command(*words: str) -> tuple[str, str]:
        """Run the script as a shell does; what it printed, and what it reported meanwhile."""
        script = str(ROOT / "finetune.py")
        monkeypatch.setattr(sys, "argv", [script, "--model", "resnet18", "--split", "01", *words])
        caplog.clear()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        printed = capsys.readouterr()
        assert ended.value.code == 0, printed.err
        return printed.out, caplog.text

    out, _ = command(
        "--weights", "weights.pth", "--savedir", "run", "--epochs", "1", "--batch-size", "12", "--lr", "0.01",
        "--lr_decay_rate", "0.5", "--lr_decay_epochs", "5,7", "--dataset", "ucf101", "--progress",
        "--image-size", "32",
    )  # fmt: skip
    assert "6 test clips" in out and "last: after 1 epochs" in out
    held = json.loads((root / "run" / "options.json").read_text())["options"]
    assert held["run"]["recipe"] == "paper-2020-diff" and held["optim"]["lr_decay_rate"] == 0.5
    assert held["optim"]["schedule"] == "step" and held["optim"]["lr_decay_epochs"] == [5, 7]
    assert held["data"]["held_out"] == 0
    # A file as the 2020 code wrote it, in the place of the release's own.
    content = {"epoch": 1, "state_dict": released_classifier(load_classifier(root / "run"))}
    content |= {"best_prec1": torch.tensor(50.0), "optimizer": {"state": {}}}
    torch.save(content, root / "checkpoint.pth")
    out, _ = command("--evaluate", "--resume", "checkpoint.pth", "--savedir", "tested")
    result = json.loads((root / "tested" / "evaluation" / "result.json").read_text())
    assert result["checkpoint"]["format"] == "TCE 2020 fine-tuning" and result["image_size"] == 224
    assert f"top-1 {result['top1']:.1%}" in " ".join(out.split())
    assert main(["finetune", "--resume", "checkpoint.pth", "--savedir", "on", "--epochs", "1"]) == 1
    error = capsys.readouterr().err
    assert (
        "--epochs; expected more than the 1 epochs for which checkpoint.pth has been trained; found 1"
        in error
    )
    small = ("--image-size", "32", "--batch-size", "12", "--max-steps", "3")
    out, _ = command("--evaluate", "--resume", "run/checkpoints/latest.pt", "--savedir", "tested-run")
    own = json.loads((root / "run" / "result.json").read_text())
    assert f"top-1 {own['top1']:.1%}" in " ".join(out.split()), "a training state names its run's network"
    _, reported = command("--resume", "checkpoint.pth", "--savedir", "on", "--epochs", "2", *small)
    assert "resuming checkpoint.pth after 1 epochs" in reported
    assert saved(root / "on")["step"] == 3


def test_several_splits_give_their_mean(footage: Path, tmp_path: Path) -> None:
    root = jpegs_256(footage, tmp_path)
    lists = root / "UCF_list"
    shutil.copy(lists / "trainlist01.txt", lists / "trainlist02.txt")
    shutil.copy(lists / "testlist01.txt", lists / "testlist02.txt")
    flags = {"lists": str(lists), "split": "01,02", "epochs": 1}
    done = finetune(options(root / "jpegs_256", tmp_path / "runs", **flags))
    parts = [json.loads((tmp_path / "runs" / f"split{n}" / "result.json").read_text()) for n in ("01", "02")]
    assert done.figures["top1"] == pytest.approx(np.mean([part["top1"] for part in parts]))
    assert list(done.figures["splits"]) == ["01", "02"]
    written = json.loads((tmp_path / "runs" / "result.json").read_text())
    assert written["checkpoint"]["name"] == "runs" and written["training"]["02"]["epochs"] == 1
    assert written["chosen"]["01"] == parts[0]["chosen"]
    every = finetune(options(root / "jpegs_256", tmp_path / "all", **{**flags, "split": "all"}))
    assert list(every.figures["splits"]) == ["01", "02"] and every.figures["top1"] == done.figures["top1"]
    assert sorted(path.name for path in (tmp_path / "all").glob("split*")) == ["split01", "split02"]
    with pytest.raises(OptionError, match=r"--split; expected one of 01, 02, the splits of .*; found '03'"):
        finetune(options(root / "jpegs_256", tmp_path / "none", **{**flags, "split": "01,02,03"}))
    assert not (tmp_path / "none").exists()
    with pytest.raises(OptionError, match=r"--split 01,02; expected one split, as there are no lists"):
        finetune(options(footage, tmp_path / "none", split="01,02"))


def test_a_missing_split_is_reported_before_the_first_one_trains(footage: Path, tmp_path: Path) -> None:
    root = jpegs_256(footage, tmp_path)
    with pytest.raises(TceError, match="02"):
        finetune(options(root / "jpegs_256", tmp_path / "runs", lists=str(root / "UCF_list"), split="01,02"))
    assert not (tmp_path / "runs").exists()


def test_a_run_in_the_way_of_a_later_split_is_reported_before_the_first_one_trains(
    footage: Path, tmp_path: Path
) -> None:
    root = jpegs_256(footage, tmp_path)
    lists = root / "UCF_list"
    for kind in ("train", "test"):
        shutil.copy(lists / f"{kind}list01.txt", lists / f"{kind}list02.txt")
    (tmp_path / "runs" / "split02").mkdir(parents=True)
    (tmp_path / "runs" / "split02" / "options.json").write_text("{}")
    with pytest.raises(OptionError, match=r"split02; expected a new folder; found a run"):
        finetune(options(root / "jpegs_256", tmp_path / "runs", lists=str(lists), split="01,02"))
    assert not (tmp_path / "runs" / "split01").exists()


@pytest.fixture
def tests_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the tests of networks: one entry for each, the number of its test clips."""
    counted: list[int] = []
    real = Evaluator.__call__

    def call(self: Evaluator, clips: Any, *more: Any) -> Any:
        counted.append(len(clips.test))
        return real(self, clips, *more)

    monkeypatch.setattr(Evaluator, "__call__", call)
    return counted


def test_a_network_is_tested_once(footage: Path, tmp_path: Path, tests_run: list[int]) -> None:
    finetune(options(footage, tmp_path / "last", held_out=0.0))
    assert len(tests_run) == 1
    root = jpegs_256(footage, tmp_path)
    lists = root / "UCF_list"
    for kind in ("train", "test"):
        shutil.copy(lists / f"{kind}list01.txt", lists / f"{kind}list02.txt")
    flags = {"lists": str(lists), "split": "01,02", "epochs": 1, "held_out": 0.0}
    finetune(options(root / "jpegs_256", tmp_path / "runs", **flags))
    assert len(tests_run) == 3, "the mean of two splits needs no further tests"


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("best", ["first", "last"])
def test_the_last_network_is_tested_once_where_it_is_the_best(
    footage: Path, tmp_path: Path, tests_run: list[int], monkeypatch: pytest.MonkeyPatch, best: str
) -> None:
    scores = iter([0.9, 0.1] if best == "first" else [0.1, 0.9])
    monkeypatch.setattr(Finetuning, "_accuracy", lambda *_: (next(scores), 1.0))
    done = finetune(options(footage, tmp_path / "run"))
    assert done.figures["chosen"]["epoch"] == (1 if best == "first" else 2)
    assert len(tests_run) == (2 if best == "first" else 1)
    assert done.figures["last"]["epoch"] == 2


def test_too_few_held_out_clips_choose_no_epoch(footage: Path, tmp_path: Path) -> None:
    done = finetune(options(footage, tmp_path / "run"))
    chosen, training = done.figures["chosen"], done.figures["training"]
    assert chosen["by"] == "last epoch" and chosen["epoch"] == 2 and training["held_out"] > 0
    few = f"{training['held_out']} held-out clips are too few to choose an epoch on, 100 or more are needed"
    assert chosen["reason"] == few and f"the last one: {few}; top-1" in done.text
    assert f"{training['held_out']} more held out for validation" in done.text
    assert done.figures["data"]["held_out_clips"] == training["held_out"]
    assert not (tmp_path / "run" / "checkpoints" / "best.pt").exists()
    assert any("held_out_top1" in row for row in rows(tmp_path / "run")), "they still validate"
    last = saved(tmp_path / "run")["task"]["model"]
    kept = load_classifier(tmp_path / "run", "tinynet:tiny").state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in last.items())


def test_a_picture_that_fails_does_not_cost_the_result(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("tce.evaluation.report.write_pictures", fail)
    with pytest.raises(RuntimeError, match="no fonts"):
        finetune(options(footage, tmp_path / "run"))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["command"] == "finetune" and "top1" in result["last"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_in_the_test_says_what_is_kept(
    footage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    run = tmp_path / "run"
    flags = ["--data", str(footage), "--savedir", str(run), "--model", "tinynet:tiny", "--image-size", "24"]
    flags += ["--epochs", "1", "--batch-size", "4", "--device", "cpu", "--precision", "float32"]
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "__call__", lambda *_: os.kill(os.getpid(), number))
        assert main(["finetune", *flags]) == 130
    printed = capsys.readouterr().err.splitlines()[-1]
    cause = "stopped by Ctrl-C" if number == signal.SIGINT else f"stopped by {number.name}"
    assert printed.startswith(f"{cause}: the trained network is saved in {run}, its test is not finished")
    assert (run / "model.safetensors").exists() and not (run / "result.json").exists()
    assert main(["finetune", *flags, "--resume"]) == 0
    assert (run / "result.json").exists()


def test_a_full_disk_at_the_best_networks_file_is_one_line(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.save hides the disk's error behind one about its own counters."""
    script = textwrap.dedent("""
        import resource, signal, sys
        import tce.train.finetune_task
        from tce.cli import main
        tce.train.finetune_task.FEWEST_HELD_OUT = 1
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        flags = ["--data", sys.argv[1], "--savedir", sys.argv[2], "--model", "resnet18", "--image-size", "32"]
        flags += ["--epochs", "1", "--batch-size", "12", "--device", "cpu", "--precision", "float32"]
        sys.exit(main(["finetune", *flags]))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(footage), str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"tce: {tmp_path / 'run'} cannot be written at step")
    assert "File too large; nothing was saved before" in done.stderr
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr


def test_evaluate_finds_the_footage_that_a_run_has_packed(tmp_path: Path) -> None:
    made = make_clips(tmp_path, classes=2, per_class=3, frames=7, size=32, groups=3, test_groups=1)
    flags = {"lists": str(made.lists), "epochs": 1, "held_out": 0.0, "batch_size": 2}
    finetune(options(made.videos, tmp_path / "run", **flags))
    tested = {**flags, "evaluate": True}
    finetune(options(made.videos, tmp_path / "run", **tested))
    latest = str(tmp_path / "run" / "checkpoints" / "latest.pt")
    finetune(options(made.videos, tmp_path / "elsewhere", **tested, resume=latest))
    assert (tmp_path / "elsewhere" / "evaluation" / "result.json").exists()
    assert list(tmp_path.rglob("collection")) == [tmp_path / "run" / "footage" / "collection"]


def test_videos_are_packed_once_for_all_splits(tmp_path: Path) -> None:
    made = make_clips(tmp_path, classes=2, per_class=3, frames=7, size=32, groups=3, test_groups=1)
    for kind in ("train", "test"):
        shutil.copy(made.lists / f"{kind}list01.txt", made.lists / f"{kind}list02.txt")
    flags = {"lists": str(made.lists), "split": "01,02", "epochs": 1, "held_out": 0.0, "batch_size": 2}
    finetune(options(made.videos, tmp_path / "runs", **flags))
    ckpt = str(tmp_path / "runs" / "split01")
    finetune(options(made.videos, tmp_path / "runs", **flags, evaluate=True, resume=ckpt))
    one = {**flags, "split": "02", "evaluate": True}
    finetune(options(made.videos, tmp_path / "runs" / "split02", **one))
    assert list(tmp_path.rglob("collection")) == [tmp_path / "runs" / "footage" / "collection"]


def test_recipes_hold_what_was_published() -> None:
    paper = apply_recipe(FinetuneOptions, "finetune", "paper-2020-diff")
    assert (paper.optim.epochs, paper.optim.batch_size, paper.optim.lr) == (600, 25, 0.05)
    assert (paper.optim.lr_decay_epochs, paper.optim.lr_decay_rate, paper.optim.momentum) == (
        (375,),
        0.1,
        0.9,
    )
    assert paper.model.differences == 5 and paper.augment.none and paper.run.validate_epochs == 3
    later = apply_recipe(FinetuneOptions, "finetune", "paper-2021-rgb")
    assert (later.optim.epochs, later.optim.batch_size, later.optim.weight_decay) == (900, 100, 0)
    assert (
        later.model.differences == 0 and later.model.segments == 3 and later.optim.lr_decay_epochs == (375,)
    )
    default = apply_recipe(FinetuneOptions, "finetune", "default")
    assert default.optim.epochs * 10 <= paper.optim.epochs and default.data.held_out > 0


def test_another_schedule_overrides_a_recipes_steps() -> None:
    paper = apply_recipe(FinetuneOptions, "finetune", "paper-2020-diff").optim
    require_used_decay(dataclasses.replace(paper, schedule="cosine"), "finetune", "paper-2020-diff")
    with pytest.raises(OptionError, match="--lr-decay-epochs; expected --schedule step"):
        asked = dataclasses.replace(paper, schedule="cosine", lr_decay_epochs=(3,))
        require_used_decay(asked, "finetune", "paper-2020-diff")


def test_what_is_wrong_is_reported_before_footage_is_packed(tmp_path: Path) -> None:
    made = make_clips(tmp_path, classes=2, per_class=2, frames=7, size=32, groups=2, test_groups=1)
    encoder = str(save_model(tmp_path / "encoder.safetensors", build_encoder("resnet18", 8, image_size=32)))
    for flags, reported in (
        ({"weights": str(tmp_path / "nothing.pth")}, "no such file"),
        ({"weights": encoder, "model": "resnet34"}, "the file holds a resnet18"),
        ({"model": "resnet99"}, "resnet99"),
        ({"freeze": "layer9", "model": "resnet18"}, "--freeze"),
    ):
        with pytest.raises((TceError, OptionError), match=reported):
            finetune(options(made.videos, tmp_path / "run", lists=str(made.lists), **flags))
    assert not list(tmp_path.rglob("collection"))


def test_a_broken_clip_is_left_out_and_named(footage: Path, tmp_path: Path) -> None:
    shutil.copytree(footage, tmp_path / "footage")
    for image in (tmp_path / "footage" / "C1" / "v_C1_g01_c02").iterdir():
        image.write_bytes(image.read_bytes()[:100])
    done = finetune(options(tmp_path / "footage", tmp_path / "run"))
    named = {part: list(done.figures[part]["failed"]) for part in ("data", "training")}
    assert sorted(named["data"] + named["training"]) == ["C1/v_C1_g01_c02"]
    assert "could not be read and were left out: C1/v_C1_g01_c02" in " ".join(done.figures["notes"])
    assert all(np.isfinite(row["loss"]) for row in rows(tmp_path / "run")[1:])


def test_bad_flags_are_one_line(footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*words: str, say: str) -> None:
        assert main(["finetune", *words]) == 1
        error = capsys.readouterr().err.strip().splitlines()
        assert error[-1].startswith("tce: ") and say in error[-1], error

    data = ["--data", str(footage), "--savedir", str(tmp_path / "run"), "--device", "cpu"]
    fails("--data", str(footage), say="--savedir; expected a folder to write to")
    fails("--savedir", str(tmp_path / "run"), say="the variable TCE_UCF101")
    fails(*data, "--labels", "many", say="--labels; expected a share")
    fails(*data, "--held-out", "0.9", say="--held-out")
    fails(*data, "--schedule", "step", say="--lr-decay-epochs; expected one epoch or more")
    fails(*data, "--lr_decay_epochs", "3,5", say="--lr-decay-epochs; expected --schedule step")
    fails(*data, "--lr-decay-rate", "0.5", say="found --schedule one-cycle; add --schedule step")
    fails(*data, "--resume", "--force", say="one of them")
    fails(*data, "--freeze", "layer9", "--model", "resnet18", say="--freeze; expected a layer such as")
    fails("--recipe", "nothing", say="paper-2020-diff")
