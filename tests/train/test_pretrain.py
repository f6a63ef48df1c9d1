from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tce.cli import run as run_command
from tce.commands.finetune import finetune
from tce.commands.info import info
from tce.data.pack import pack
from tce.distributed import DistributedContext
from tce.errors import OptionError, TceError
from tce.evaluation.compare import compare
from tce.evaluation.evaluate import evaluate
from tce.model.checkpoint import load_classifier, load_encoder, save_model
from tce.options.compare import CompareOptions
from tce.options.evaluate import EvaluateOptions
from tce.options.finetune import (
    FinetuneDataOptions,
    FinetuneModelOptions,
    FinetuneOptimOptions,
    FinetuneOptions,
    FinetuneRunOptions,
)
from tce.options.info import InfoOptions
from tce.options.pack import PackOptions
from tce.options.pretrain import (
    AugmentOptions,
    ContrastOptions,
    DataOptions,
    MoCoOptions,
    ModelOptions,
    PretrainOptimOptions,
    PretrainOptions,
    PretrainRunOptions,
    TCEOptions,
)
from tce.recipes import apply_recipe
from tce.train.pretrain import make_encoder, open_clips, pretrain, settle_start
from tce.train.pretrain_task import Pretraining
from tce.train.run_folder import FILES, FOLDERS
from tests.helpers.run_files import events, rows, same, saved
from tests.helpers.training_options import pretrain_options as options


def test_a_run_folder_holds_what_it_should(clips: Path, tmp_path: Path) -> None:
    result = pretrain(options(clips, tmp_path / "run", monitor_epochs=1, model="resnet18", image_size=32))
    out = tmp_path / "run"
    held = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert held == {*FILES, *FOLDERS}
    encoder = load_encoder(out / "model.safetensors")
    assert (encoder.config.architecture, encoder.image_size, encoder.embedding_size) == ("resnet18", 32, 8)
    embedded = encoder(encoder.preprocess(np.zeros((2, 50, 60, 3), np.uint8)))
    assert torch.allclose(embedded.norm(dim=1), torch.ones(2))
    state = saved(out)
    assert all(
        torch.equal(value, encoder.state_dict()[name]) for name, value in state["task"]["encoder"].items()
    )
    log = rows(out)
    assert [row["step"] for row in log] == [0, 2, 4, 6]
    assert all({"loss", "lr", "rank", "alignment", "uniformity"} <= set(row) for row in log[1:])
    assert all(0 <= row["knn"] <= 1 for row in log)
    assert [step for step, _ in events(out)["knn"]] == [0, 2, 4, 6]
    described = json.loads((out / "options.json").read_text())
    assert described["options"]["optim"]["batch_size"] == 6 and described["data"]["clips"] == 12
    stored = json.loads((out / "result.json").read_text())
    assert (
        stored["step"] == 6
        and stored["figures"]["knn"] == log[-1]["knn"]
        and stored["first"]["knn"] == log[0]["knn"]
    )
    assert "kNN: too few clips (12 labelled clips" in result.text
    assert str(out / "model.safetensors") in result.text
    assert described["chance"] == pytest.approx({"contrast": np.log(11), "loss": np.log(11), "knn": 1 / 3})
    assert stored["chance"] == described["chance"]


VARIANTS: list[dict[str, Any]] = [
    {"method": "tce", "rotation": 1.0, "views": "separate", "crops": "shared"},
    {"method": "tce", "constant_z": "first-step", "threshold_by": "quantile"},
    {"method": "tce", "exclude_same_source": True, "own_row_positive": "also", "negatives": 11},
    {"method": "moco", "momentum_encoder": 0.9, "positives": "same", "head": "mlp"},
    {"method": "moco", "queue": 7, "exclude_same_source": True},
    {"accumulate": 2, "optimizer": "adamw", "lr": 1e-3, "schedule": "cosine", "warm_up": 1.0},
    {"precision": "bf16", "channels_last": False, "views": "separate"},
    {"batch_groups": 0.5, "group": "group", "backbone_lr": 0.5},
]


@pytest.mark.parametrize("flags", VARIANTS, ids=lambda flags: "-".join(map(str, flags.values())))
def test_every_variant_trains_and_goes_on_exactly(clips: Path, tmp_path: Path, flags: dict[str, Any]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(options(clips, whole, workers=3, **flags))
    pretrain(options(clips, parts, workers=1, max_steps=2, **flags))
    pretrain(options(clips, parts, workers=2, resume=True, **flags))
    assert same(saved(whole), saved(parts))
    assert rows(whole) == rows(parts)
    first = make_encoder(options(clips, whole, **flags)).state_dict()
    now = saved(whole)["task"]["encoder"]
    moved = [name for name, value in first.items() if not torch.equal(value, now[name])]
    assert set(moved) == set(first), "everything is trained"


def test_a_frozen_layer_stays(clips: Path, tmp_path: Path) -> None:
    flags = {"model": "resnet18", "image_size": 32, "epochs": 1, "freeze": "layer1"}
    pretrain(options(clips, tmp_path / "run", **flags))
    first = make_encoder(options(clips, tmp_path / "run", **flags)).state_dict()
    now = saved(tmp_path / "run")["task"]["encoder"]
    still = {name.split(".")[1] for name in first if torch.equal(first[name], now[name])}
    assert {"conv1", "bn1", "layer1"} <= still and "layer4" not in still


def test_training_goes_on_from_weights(clips: Path, tmp_path: Path) -> None:
    pretrain(options(clips, tmp_path / "a", model="resnet18", image_size=32, epochs=1))
    weights = str(tmp_path / "a" / "model.safetensors")
    again = options(
        clips, tmp_path / "b", model="resnet18", weights=weights, image_size=40, method="tce", rotation=1.0
    )
    encoder = make_encoder(again)
    before = load_encoder(weights).state_dict()
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in before.items())
    assert encoder.image_size == 40 and encoder.rotation_head is not None
    with pytest.raises(
        OptionError, match=r"--weights; expected --head linear --embedding-size 128; found .* 8 in"
    ):
        pretrain(options(clips, tmp_path / "c", model="resnet18", weights=weights, embedding_size=128))


def test_a_strong_start_keeps_its_statistics_and_moves_slowly(clips: Path, tmp_path: Path) -> None:
    flags = {"model": None, "weights": "lite0", "image_size": 32, "epochs": 1, "monitor_epochs": 0}
    pretrain(options(clips, tmp_path / "run", **flags))
    now, first = load_encoder(tmp_path / "run"), load_encoder("lite0")
    assert now.config.architecture == "lite0" and now.embedding_size == 8
    recorded = json.loads((tmp_path / "run" / "options.json").read_text())["options"]
    assert recorded["model"]["model"] == "lite0" and recorded["model"]["keep_statistics"] is True
    assert recorded["optim"]["backbone_lr"] == 0.1
    weights, before = now.backbone.state_dict(), first.backbone.state_dict()
    still = {name.rpartition(".")[2] for name in before if torch.equal(before[name], weights[name])}
    assert still == {"running_mean", "running_var", "num_batches_tracked"}
    # From a network that `tce adapt` made: its head served whole vectors, not a loss.
    adapted = save_model(tmp_path / "adapted.safetensors", first, {"made": "tce adapt"})
    made = make_encoder(settle_start(options(clips, tmp_path / "x", **{**flags, "weights": str(adapted)})))
    assert made.config.head == "linear" and made.embedding_size == 8
    with pytest.raises(OptionError, match=r"expected a resnet18, as --model says; found a lite0"):
        pretrain(options(clips, tmp_path / "y", **{**flags, "model": "resnet18"}))


def test_the_start_decides_what_is_not_given(clips: Path, tmp_path: Path) -> None:
    def settled(**flags: Any) -> tuple[str | None, bool | None, float | None]:
        found = settle_start(options(clips, tmp_path / "run", **flags))
        return found.model.model, found.model.keep_statistics, found.optim.backbone_lr

    assert settled(model=None) == ("resnet18", False, 1.0)
    assert settled(model="lite2") == ("lite2", False, 1.0), "from scratch"
    assert settled(model=None, weights="lite2") == ("lite2", True, 0.1)
    chosen = {"keep_statistics": False, "backbone_lr": 1.0}
    assert settled(model=None, weights="lite2", **chosen) == ("lite2", False, 1.0)


def test_a_network_tells_what_it_was_trained_on(
    clips: Path, make_folders: Callable[..., Path], tmp_path: Path
) -> None:
    done = pretrain(options(clips, tmp_path / "a", model="resnet34", image_size=32, max_steps=1))
    assert "(step 1)" in done.text, "no loss before the first row of the log"
    reported = load_encoder(tmp_path / "a").config.provenance
    assert (reported["made"], reported["split"], reported["seed"], reported["epochs"]) == (
        "tce pretrain",
        None,
        0,
        3,
    )
    assert reported["data"]["path"] == str(clips) and len(reported["data"]["fingerprint"]) >= 32
    evaluation = EvaluateOptions(str(tmp_path / "a"), str(clips), "knn", samples=1, out=str(tmp_path / "e"))
    seen = "pre-trained, without labels, on 100% of these test clips"
    assert (reported["step"], reported["steps"]) == (1, 6)
    notes = " ".join(evaluate(evaluation).figures["notes"])
    assert seen in notes and "the network's training (tce pretrain) is unfinished: step 1 of 6" in notes
    assert "unfinished: step 1 of 6" in info(InfoOptions(str(tmp_path / "a" / "model.safetensors"))).text
    compared = compare(CompareOptions((str(tmp_path / "e"),), output=str(tmp_path / "chart.png")))
    assert "unfinished: step 1 of 6" in compared.text
    tuning = FinetuneOptions(
        FinetuneDataOptions(str(clips)),
        FinetuneModelOptions(weights=str(tmp_path / "a"), image_size=32),
        optim=FinetuneOptimOptions(epochs=1, batch_size=4),
        run=FinetuneRunOptions(savedir=str(tmp_path / "f"), max_steps=1),
    )
    tuned = finetune(tuning)
    assert seen in " ".join(tuned.figures["notes"]), "known of what it started from"
    assert "unfinished: step 1 of 6" in " ".join(tuned.figures["notes"])
    made = load_classifier(tmp_path / "f").config.provenance
    assert (made["made"], made["step"], made["steps"]) == ("tce finetune", 1, 1), "run to its end"
    with pytest.raises(OptionError, match=r"expected a resnet18, .*; found a resnet34; add --model resnet34"):
        pretrain(options(clips, tmp_path / "b", model="resnet18", weights=str(tmp_path / "a")))
    one = make_folders(tmp_path / "one", classes=1, people=1)
    with pytest.raises(OptionError, match="--exclude-same-source; expected clips of two recordings"):
        pretrain(options(one, tmp_path / "c", batch_size=2, exclude_same_source=True))


def test_a_packed_split_is_not_taken_for_another(clips: Path, tmp_path: Path) -> None:
    names = [f"{path.parent.name}/{path.name}.avi" for path in sorted(clips.glob("*/v_*"))]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "classInd.txt").write_text("1 C0\n2 C1\n3 C2\n")
    train = [f"{name} {int(name[1]) + 1}" for name in names if "_g01" in name]
    (tmp_path / "lists" / "trainlist01.txt").write_text("\n".join(train))
    (tmp_path / "lists" / "testlist01.txt").write_text("\n".join(n for n in names if "_g02" in n))
    packed = tmp_path / "packed"
    pack(PackOptions(footage=(str(clips),), out=str(packed), lists=str(tmp_path / "lists")))
    with pytest.raises(OptionError, match=r"--split 02; expected split 01, .*give --lists as well"):
        pretrain(options(packed, tmp_path / "run", split="02"))
    done = pretrain(options(packed, tmp_path / "run", split="1", max_steps=1))
    assert done.figures["clips"] == len(train)
    assert load_encoder(tmp_path / "run", "tinynet:tiny").config.provenance["split"] == "01"


def write_lasting_and_passing(folder: Path) -> Path:
    """Frames of four flat cells, twelve numbers: half of them noise, three a class's sign, three a person's.

    What is noise and what is not shows in time alone.
    """
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    for person in range(4):
        colour = rng.normal(0, 6, 3)
        for label, clip in itertools.product(range(3), range(4)):
            target = folder / f"C{label}" / f"v_C{label}_g{person + 1:02d}_c{clip + 1:02d}"
            target.mkdir(parents=True)
            lasting = np.concatenate([25 * np.eye(3)[label] + rng.normal(0, 3, 3), colour])
            for frame in range(8):
                cells = 128 + basis @ np.concatenate([rng.normal(0, 35, 6), lasting])
                image = np.kron(cells.reshape(2, 2, 3), np.ones((20, 20, 1)))
                cv2.imwrite(str(target / f"{frame + 1:03d}.png"), np.clip(image, 0, 255).astype(np.uint8))
    return folder


def test_time_teaches_what_lasts(tmp_path: Path) -> None:
    """Without labels and augmentation, kNN across people goes from noise to nearly all right."""
    footage = write_lasting_and_passing(tmp_path / "clips")
    plain = {"crop_scale": (1.0, 1.0), "flip": 0.0, "grey": 0.0, "hue": 0.0}
    plain |= {"brightness": 0.0, "color_contrast": 0.0, "saturation": 0.0}
    network = {"model": "tinynet:linear_in_pixels", "image_size": 40, "frame_size": 40}
    training = {"batch_size": 24, "epochs": 50, "lr": 0.1, "window": 7, "log_steps": 50}
    result = pretrain(options(footage, tmp_path / "run", **network, **plain, **training))
    before, after = result.figures["first"]["knn"], result.figures["figures"]["knn"]
    assert f"kNN across groups, 48 clips: {before:.1%} before, {after:.1%} after" in result.text
    assert before < 0.7 and after > 0.9, (before, after)


def black_clips(folder: Path) -> Path:
    """Twelve clips of three classes by two people, all black."""
    for label, person, clip in itertools.product(range(3), range(2), range(2)):
        target = folder / f"C{label}" / f"v_C{label}_g{person + 1:02d}_c{clip + 1:02d}"
        target.mkdir(parents=True)
        for frame in range(4):
            cv2.imwrite(str(target / f"{frame + 1:03d}.png"), np.zeros((40, 40, 3), np.uint8))
    return folder


def test_a_collapse_from_the_first_step_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Black clips give one and the same embedding whatever is learned."""
    black = black_clips(tmp_path / "clips")
    flags = {"model": "resnet18", "image_size": 32, "crop_scale": (1.0, 1.0), "log_steps": 1}
    result = pretrain(options(black, tmp_path / "run", **flags))
    assert sum("the embeddings of all clips are the same" in r.message for r in caplog.records) == 1
    assert "this run learned nothing: contrastive loss 2.398 (chance 2.398), effective rank" in result.text
    assert "next: tce embed" not in result.text and result.figures["learned_nothing"]
    assert "too few clips" in result.text and "kNN from" not in result.text, (
        "too few clips say nothing either"
    )
    with pytest.raises(TceError, match="the embeddings of all clips are the same"):
        pretrain(options(black, tmp_path / "stopped", stop_on_collapse=True, **flags))


def test_a_recipes_batch_size_is_reduced_to_the_clips(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = pretrain(options(clips, tmp_path / "run", batch_size=64, epochs=1))
    assert "--batch-size reduced from 64 to 12: there are 12 clips" in caplog.text
    assert done.figures["step"] == 1
    stored = json.loads((tmp_path / "run" / "options.json").read_text())["options"]
    assert stored["optim"]["batch_size"] == 12
    pretrain(options(clips, tmp_path / "run", batch_size=64, epochs=2, resume=True))
    with pytest.raises(OptionError, match="--batch-size; expected at most the 12 clips; found 65"):
        pretrain(options(clips, tmp_path / "asked", batch_size=65))


def test_a_missing_out_is_reported_before_anything_is_imported(clips: Path) -> None:
    program = (
        "import sys; from tce.cli import run; code = run('pretrain', sys.argv[1:]); "
        "sys.exit(code if 'torch' not in sys.modules else 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(clips)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == "tce: --out; expected a folder; found nothing; see tce pretrain --help\n"


def test_a_broken_clip_is_left_out_and_named(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    for image in (tmp_path / "clips/C1/v_C1_g01_c02").iterdir():
        image.write_bytes(image.read_bytes()[:100])
    result = pretrain(options(tmp_path / "clips", tmp_path / "run", method="tce"))
    assert list(result.figures["failed"]) == ["C1/v_C1_g01_c02"]
    assert "1 clips could not be read" in result.text
    assert sum("left out" in record.message for record in caplog.records) == 1, "once, not every epoch"
    assert all(np.isfinite(value) for row in rows(tmp_path / "run") for value in row.values())


def test_resuming_what_is_finished_changes_nothing(clips: Path, tmp_path: Path) -> None:
    first = pretrain(options(clips, tmp_path / "run"))
    before = saved(tmp_path / "run")
    again = pretrain(options(clips, tmp_path / "run", resume=True))
    assert same(before, saved(tmp_path / "run"))
    assert again.figures["figures"]["loss"] == first.figures["figures"]["loss"]


def test_contradictions_on_resume_are_errors_that_name_them(clips: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(options(clips, run, method="tce", max_steps=2))
    before = (run / "checkpoints" / "latest.pt").read_bytes()
    with pytest.raises(
        OptionError,
        match=r"--model, --lr contradict .*tinynet:tiny, --lr 0.06; found resnet18, 0.1",
    ):
        pretrain(options(clips, run, method="tce", model="resnet18", lr=0.1, resume=True))
    with pytest.raises(OptionError, match=r"expected a new folder; found a run; --resume"):
        pretrain(options(clips, run, method="tce"))
    shutil.copytree(clips, tmp_path / "fewer")
    shutil.rmtree(tmp_path / "fewer" / "C2")
    with pytest.raises(OptionError, match=r"the data the run was started on; found other data"):
        pretrain(options(tmp_path / "fewer", run, method="tce", resume=True))
    assert (run / "checkpoints" / "latest.pt").read_bytes() == before


def test_another_runs_checkpoint_is_refused(clips: Path, tmp_path: Path) -> None:
    pretrain(options(clips, tmp_path / "a", max_steps=2, method="tce"))
    pretrain(options(clips, tmp_path / "b", max_steps=2, method="tce", embedding_size=16))
    shutil.copy(tmp_path / "b/checkpoints/latest.pt", tmp_path / "a/checkpoints/latest.pt")
    with pytest.raises(TceError, match=r"the checkpoint to resume from; expected the state of a tinynet"):
        pretrain(options(clips, tmp_path / "a", max_steps=2, method="tce", resume=True))


def test_a_single_video_is_refused_before_it_is_packed(tmp_path: Path) -> None:
    """With the remedy for long recordings: to cut them into clips."""
    video = tmp_path / "v" / "one.mp4"
    video.parent.mkdir()
    video.write_bytes(b"never opened")
    with pytest.raises(TceError, match=r"found one; .*tce pack .*--clip-seconds 10.*tce pretrain COLLECTION"):
        open_clips(
            DataOptions(data=str(video.parent)), tmp_path / "cache", DistributedContext(torch.device("cpu"))
        )
    assert not (tmp_path / "cache").exists()


def test_what_cannot_be_learned_from_is_one_line(
    clips: Path, make_folders: Callable[..., Path], tmp_path: Path
) -> None:
    one = make_folders(tmp_path / "one", classes=1, people=1, clips=1)
    with pytest.raises(TceError, match="two clips or more"):
        pretrain(options(one, tmp_path / "run", batch_size=2))
    still = make_folders(tmp_path / "still", frames=1)
    with pytest.raises(OptionError, match="--positives same"):
        pretrain(options(still, tmp_path / "run"))
    with pytest.raises(OptionError, match="--batch-size; expected at most the 12 clips; found 13"):
        pretrain(options(clips, tmp_path / "run", batch_size=13))
    with pytest.raises(TceError, match="nowhere"):
        pretrain(options(tmp_path / "nowhere", tmp_path / "run"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TceError, match="empty"):
        pretrain(options(tmp_path / "empty", tmp_path / "run"))
    with pytest.raises(OptionError, match="DATA; expected a folder; found nothing"):
        pretrain(options(Path(""), tmp_path / "run", data=""))
    assert not (tmp_path / "run" / "options.json").exists()
    pretrain(options(clips, tmp_path / "run", epochs=1))  # the name is still free


def test_ctrl_c_on_the_command_line(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Pretraining.step

    def step(self: Pretraining, batch: Any, progress: Any) -> Any:
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, batch, progress)

    monkeypatch.setattr(Pretraining, "step", step)
    command = [
        str(clips),
        "--out",
        str(tmp_path / "run"),
        "--model",
        "tinynet:tiny",
        "--image-size",
        "24",
    ]
    command += ["--batch-size", "6", "--epochs", "2", "--window", "3"]
    assert run_command("pretrain", command) == 130
    assert "step 3 is saved" in capsys.readouterr().err
    monkeypatch.undo()
    assert run_command("pretrain", [*command, "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 4


def test_show_prints_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("default", "quick", "paper-kinetics400"):
        assert run_command("pretrain", ["--recipe", name, "--show"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"# {name}:") and "[optim]" in shown
        values = [line for line in shown.splitlines() if "=" in line and not line.startswith("#")]
        assert all("#" in line for line in values), "every value says why"


def test_recipes_are_options(tmp_path: Path) -> None:
    assert apply_recipe(PretrainOptions, "pretrain", "default") == PretrainOptions()
    paper = apply_recipe(PretrainOptions, "pretrain", "paper-kinetics400")
    assert (paper.tce.negatives, paper.optim.batch_size, paper.optim.lr) == (8192, 100, 0.03)
    assert paper.optim.lr_decay_epochs == (25,) and paper.contrast.views == "separate"


CONTRADICTIONS: list[tuple[Callable[[], object], str]] = [
    (
        lambda: PretrainOptions(tce=TCEOptions(negatives=5)),
        "--negatives; expected --method tce; found --method simclr",
    ),
    (
        lambda: PretrainOptions(contrast=ContrastOptions(method="moco"), tce=TCEOptions(rotation=1)),
        "--rotation; expected --method tce; found --method moco",
    ),
    (
        lambda: PretrainOptions(moco=MoCoOptions(queue=9)),
        "--queue; expected --method moco; found --method simclr",
    ),
    (
        lambda: MoCoOptions(momentum_encoder=1.0),
        "--momentum-encoder; expected from 0 to 0.999999; found 1",
    ),
    (
        lambda: TCEOptions(threshold_by="quantile", threshold_low=-1),
        "threshold_low; expected from 0 to 1 with --threshold-by quantile; found -1",
    ),
    (
        lambda: ContrastOptions(method="tce", temperature=1e-3),
        "--temperature; expected at least 0.002 with --method tce",
    ),
    (lambda: ContrastOptions(window=float("inf")), "--window; expected a number; found inf"),
    (lambda: TCEOptions(rotation=float("nan")), "--rotation; expected at least 0; found nan"),
    (lambda: ContrastOptions(window=0.5), "--window; expected at least --window-from 1"),
    (
        lambda: TCEOptions(threshold_low=0.5, threshold_high=0.1),
        "threshold_low; expected at most",
    ),
    (lambda: ContrastOptions(method="byol"), "--method; expected one of tce, simclr, moco; found 'byol'"),  # type: ignore[arg-type]
    (lambda: PretrainOptimOptions(schedule="step"), "--lr-decay-epochs; expected one epoch or more"),
    (lambda: PretrainOptimOptions(warm_up=2), "--warm-up; expected 0 for --schedule one-cycle"),
    (lambda: PretrainRunOptions(resume=True, force=True), "--resume and --force; expected one of them"),
    (lambda: AugmentOptions(crop_scale=(0.5, 0.2)), "--crop-scale; expected 0 < smallest"),
    (lambda: ModelOptions(embedding_size=1), "--embedding-size; expected at least 2; found 1"),
    (
        lambda: PretrainOptions(data=DataOptions(frame_size=64), model=ModelOptions(image_size=112)),
        "--frame-size; expected at least --image-size 112",
    ),
]


@pytest.mark.parametrize(("make", "reported"), CONTRADICTIONS, ids=[text[:30] for _, text in CONTRADICTIONS])
def test_contradictions_name_the_flag(make: Callable[[], object], reported: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()
    assert str(caught.value).startswith(reported)


EARLIER = {
    "mining": "curriculum",
    "fill_bank": True,
    "bank_momentum": 0.0,
    "momentum_encoder": 0.0,
    "own_row_positive": "no",
    "rotation": 0.0,
    "negatives": None,
    "threshold_low": None,
    "threshold_high": 1.0,
    "threshold_rate": 5.0,
    "threshold_by": "similarity",
    "constant_z": "estimated",
}


def write_as_earlier(out: Path, loss: str, augment: dict[str, Any] | None = None, **contrast: Any) -> None:
    """Turn a run's options.json into what the earlier version wrote."""
    record = json.loads((out / "options.json").read_text())
    groups = record["options"]
    del groups["contrast"]["method"]
    tce = {name: value for name, value in groups.pop("tce").items() if value != EARLIER[name]}
    groups["contrast"] |= {"loss": loss, **EARLIER, **tce, **contrast}
    del groups["moco"]
    groups["augment"] |= {"jitter": "linear", **(augment or {})}
    groups["optim"]["chunks"], groups["run"]["bank"] = 1, "copies"
    (out / "options.json").write_text(json.dumps(record))


@pytest.mark.parametrize(("loss", "flags"), [("ntxent", {}), ("nce", {"method": "tce", "rotation": 0.5})])
def test_a_run_whose_method_exists_is_resumed_exactly(
    clips: Path, tmp_path: Path, loss: str, flags: dict[str, Any]
) -> None:
    pretrain(options(clips, tmp_path / "whole", **flags))
    pretrain(options(clips, tmp_path / "run", max_steps=2, **flags))
    write_as_earlier(tmp_path / "run", loss)
    pretrain(options(clips, tmp_path / "run", resume=True, **flags))
    assert same(saved(tmp_path / "whole"), saved(tmp_path / "run"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "run")


def test_other_options_than_the_earlier_run_had_are_named(clips: Path, tmp_path: Path) -> None:
    pretrain(options(clips, tmp_path, max_steps=2))
    write_as_earlier(tmp_path, "ntxent")
    with pytest.raises(OptionError, match=r"--method contradicts .*; expected --method simclr; found tce"):
        pretrain(options(clips, tmp_path, method="tce", resume=True))


@pytest.mark.parametrize(
    ("loss", "contrast", "augment", "reported"),
    [
        ("nce", {}, {"jitter": "released"}, "--jitter released"),
        ("infonce", {"mining": "all", "momentum_encoder": 0.99}, {}, "--loss infonce"),
        ("nce", {"bank_momentum": 0.5}, {}, "--bank-momentum"),
        ("nce", {"own_row_positive": "only"}, {}, "--own-row-positive only"),
        ("ntxent", {"rotation": 0.5}, {}, "--rotation beside --loss ntxent"),
    ],
)
def test_a_method_that_no_longer_exists_is_one_line(
    clips: Path, tmp_path: Path, loss: str, contrast: dict, augment: dict, reported: str
) -> None:
    pretrain(options(clips, tmp_path, max_steps=1))
    before = (tmp_path / "checkpoints" / "latest.pt").read_bytes()
    write_as_earlier(tmp_path, loss, augment, **contrast)
    with pytest.raises(OptionError) as caught:
        pretrain(options(clips, tmp_path, resume=True))
    assert f"found one with {reported}, which this version does not have" in str(caught.value)
    assert f"--weights {tmp_path}" in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "checkpoints" / "latest.pt").read_bytes() == before
    restarted = options(clips, tmp_path / "new", model="tinynet:tiny", weights=str(tmp_path), max_steps=1)
    pretrain(restarted)  # the network still loads
