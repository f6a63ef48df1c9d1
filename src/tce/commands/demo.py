"""See it work (`tce demo`): generated clips, adaptation and pre-training, their figures, maps and a film."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tce.io import Result, require_writable
from tce.options.demo import DemoOptions

if TYPE_CHECKING:
    from tce.options.pretrain import PretrainOptions
    from tce.video.synthetic import SyntheticClips

log = logging.getLogger("tce.commands.demo")

CLASSES, CLIPS_PER_CLASS, GROUPS, TEST_GROUPS = 6, 48, 6, 2
FRAMES, SIZE, FPS = 24, 96, 15
IMAGE_SIZE, BATCH_SIZE = 40, 64  # so small that a minute and a half is enough on any CPU
NEIGHBOURS = 10
START, START_SIZE = "lite2", 112
MAPPED, EVERY, PAGE_FRAMES = ("start", "adapted"), 8, 400
SAMPLES = 4  # frames of a clip that vote in the evaluation
# The clips that are reported come from a seed of their own: the generator and the recipe were tuned on other
# seeds only, and nothing may be changed because of the figures that this one gives.
REPORTED_SEED = 20201127
CALIBRATION_STEPS = 8


def demo(options: DemoOptions) -> Result:
    """Generate clips, learn from some without labels in two ways, and evaluate on the others.

    The networks are an untrained one, one pre-trained from scratch, the packaged start (ImageNet weights) and
    the start adapted to the clips.

    Raises:
        TceError: the folder cannot be written.
    """
    from tce.model.checkpoint import save_model
    from tce.train.pretrain import make_encoder, settle_start
    from tce.video.synthetic import make_clips

    out = Path(options.out)
    require_writable(out / "film.mp4", "--out")
    log.info("1/5 generating clips of a moving figure into %s", out / "clips")
    clips = make_clips(
        out / "clips",
        CLASSES,
        CLIPS_PER_CLASS,
        FRAMES,
        SIZE,
        FPS,
        options.seed,
        GROUPS,
        TEST_GROUPS,
        REPORTED_SEED,
        clutter=True,
    )
    collection = _pack(clips, out, options)
    training = _pretrain_options(clips, collection, out, options)
    save_model(out / "untrained", make_encoder(settle_start(training)))

    people = GROUPS - TEST_GROUPS
    log.info("2/5 adapting the start %s to the clips of %d people, without labels", START, people)
    adapting, kept = _adapt(clips, collection, out, options)
    log.info("3/5 pre-training a network from scratch on the same clips, without labels")
    seconds = _pretrain(training, options, max(1.0, options.seconds - adapting))

    log.info("4/5 evaluating on the clips of %d other people", TEST_GROUPS)
    networks = {
        "untrained": str(out / "untrained"),
        "pretrained": training.run.out,
        "start": START,
        "adapted": str(out / "adapted"),
    }
    accuracies: dict[str, Any] = {}
    for name, ckpt in networks.items():
        for figure, value in _evaluate(name, ckpt, clips, collection, out, options).items():
            accuracies[f"{figure}_{name}"] = value

    log.info("5/5 drawing maps and a film")
    pictures = _pictures(clips, networks, out, options)
    figures: dict[str, Any] = {
        **accuracies,
        "chance": 1 / CLASSES,
        "classes": CLASSES,
        "adapting_seconds": round(adapting, 1),
        "kept_start": kept,
        "training_seconds": round(seconds, 1),
        "ckpt": str(out / "adapted" / "model.safetensors"),
        **pictures,
    }
    return Result(_text(figures, out), figures)


def _adapt(clips: SyntheticClips, collection: Path, out: Path, options: DemoOptions) -> tuple[float, bool]:
    """Adapt the start to the training clips; the seconds that it took, and whether the start was kept."""
    from tce.adaptation.adapt import adapt
    from tce.options.adapt import AdaptOptions

    started = time.monotonic()
    result = adapt(
        AdaptOptions(
            footage=str(collection),
            lists=str(clips.lists),
            out=str(out / "adapted"),
            start=START,
            image_size=START_SIZE,
            crop="squash",
            workers=options.workers,
            device=options.device,
            force=True,
        )
    )
    return time.monotonic() - started, bool(result.figures["kept_start"])


def _pretrain(training: PretrainOptions, options: DemoOptions, seconds: float) -> float:
    """Pre-train for `seconds`, or for as many epochs as the options give; the seconds that it took."""
    from tce.train.pretrain import pretrain

    try:
        if options.epochs is None:
            training = _within_budget(training, seconds)
        started = time.monotonic()
        pretrain(training)
    except KeyboardInterrupt as interrupt:  # its text explains how a run is resumed; the demo cannot be
        raise KeyboardInterrupt("stopped; repeat tce demo to start it again") from interrupt
    return time.monotonic() - started


def _pack(clips: SyntheticClips, out: Path, options: DemoOptions) -> Path:
    from tce.data.pack import pack
    from tce.options.pack import PackOptions

    collection = out / "collection"
    pack(PackOptions(footage=(str(clips.videos),), out=str(collection), workers=options.workers))
    return collection


def _pretrain_options(
    clips: SyntheticClips, collection: Path, out: Path, options: DemoOptions
) -> PretrainOptions:
    """The recipe `quick`, with what a minute and these clips ask for."""
    from tce.options.pretrain import PretrainOptions
    from tce.recipes import apply_recipe

    quick: PretrainOptions = apply_recipe(PretrainOptions, "pretrain", "quick")
    replace = dataclasses.replace
    return replace(
        quick,
        data=replace(quick.data, data=str(collection), lists=str(clips.lists), split="01"),
        model=replace(quick.model, image_size=IMAGE_SIZE),
        contrast=replace(quick.contrast, window=8, temperature=0.2),
        # The figure fills the picture, and its lamps change the colours already.
        augment=replace(
            quick.augment,
            crop_scale=(0.5, 1.0),
            grey=0.2,
            brightness=0.2,
            color_contrast=0.2,
            saturation=0.2,
            hue=0.05,
        ),
        optim=replace(quick.optim, epochs=options.epochs or 1, batch_size=BATCH_SIZE, lr=0.06),
        run=replace(
            quick.run,
            out=str(out / "run"),
            seed=options.seed,
            workers=options.workers,
            device=options.device,
            force=True,
        ),
    )


def _seconds_since(started: float) -> float:
    return time.monotonic() - started


def _within_budget(training: PretrainOptions, seconds: float) -> PretrainOptions:
    """The same training with as many epochs as fit into the time; a few steps of it are timed first.

    The first steps load kernels and fill queues; the median of the others counts. A fifth of the time is for
    what is no step: start-up, and looking at the embeddings.
    """
    started = time.monotonic()
    from tce.train.pretrain import pretrain
    from tce.train.run_record import read_log

    replace = dataclasses.replace
    run = replace(
        training.run,
        out=training.run.out + "-timing",
        max_steps=CALIBRATION_STEPS,
        log_steps=1,
        monitor_epochs=0,
    )
    pretrain(replace(training, run=run, optim=replace(training.optim, epochs=CALIBRATION_STEPS)))
    steps = [row["seconds"] for row in read_log(Path(run.out) / "log.csv") if "seconds" in row]
    shutil.rmtree(run.out)
    clips = CLASSES * CLIPS_PER_CLASS * (GROUPS - TEST_GROUPS) // GROUPS
    per_epoch = statistics.median(steps[2:]) * max(1, clips // BATCH_SIZE)
    left = seconds - _seconds_since(started)
    epochs = max(2, int(0.8 * left / per_epoch))
    log.info("%.2f s an epoch: %d epochs in %.0f s", per_epoch, epochs, left)
    return replace(training, optim=replace(training.optim, epochs=epochs))


def _evaluate(
    name: str, ckpt: str, clips: SyntheticClips, collection: Path, out: Path, options: DemoOptions
) -> dict[str, float]:
    """Shares of the held-out clips that are classified correctly from the training clips' labels.

    Returns:
        `knn`: all labels, by the nearest clips; `one`: one labelled clip a class, by the nearest of them.
    """
    from tce.evaluation.evaluate import evaluate
    from tce.options.evaluate import EvaluateOptions

    metrics = {}
    for protocol in ("knn", "fewshot"):
        result = evaluate(
            EvaluateOptions(
                ckpt=ckpt,
                data=str(collection),
                lists=str(clips.lists),
                protocol=protocol,
                k=NEIGHBOURS if protocol == "knn" else EvaluateOptions.k,
                shots=(1,) if protocol == "fewshot" else EvaluateOptions.shots,
                samples=SAMPLES,
                image_size=START_SIZE if name in ("start", "adapted") else None,
                crop="squash",
                out=str(out / "evaluation" / f"{name}-{protocol}"),
                workers=options.workers,
                device=options.device,
            )
        )
        metrics[protocol] = result.metrics
    return {"knn": float(metrics["knn"]["top1"]), "one": float(metrics["fewshot"]["centroid@1"])}


def _pictures(
    clips: SyntheticClips, networks: dict[str, str], out: Path, options: DemoOptions
) -> dict[str, str]:
    """Maps of the held-out clips, a film of a held-out person at all motions, and a page of all clips."""
    import numpy as np

    from tce.explorer.explore import explore
    from tce.options.explore import ExploreOptions
    from tce.options.network import NetworkOptions
    from tce.options.tsne import TsneOptions
    from tce.video.synthetic import draw_clip, write_video
    from tce.visualize.tsne import tsne

    held_out = (clips.lists / "testlist01.txt").read_text().split()
    videos = tuple(str(clips.videos / name) for name in held_out)
    written = {}
    for name in MAPPED:
        written[f"map_{name}"] = str(out / f"map_{name}.png")
        size = START_SIZE if name in ("start", "adapted") else None
        network = NetworkOptions(
            ckpt=networks[name], image_size=size, device=options.device, seed=options.seed
        )
        tsne(TsneOptions(output=written[f"map_{name}"], input=videos, network=network, every=EVERY))

    everything = out / "everything.mp4"
    group = GROUPS - 1
    parts = [
        draw_clip(name, group, 99, 2 * FRAMES, 2 * SIZE, FPS, REPORTED_SEED, True) for name in clips.classes
    ]
    write_video(everything, np.concatenate(parts), FPS)
    written["film"] = str(out / "film.mp4")
    tsne(TsneOptions(output=written["film"], input=(str(everything),), network=network, vid=True))
    written["page"] = str(out / "page.html")
    explore(
        ExploreOptions(
            footage=str(clips.videos),
            output=written["page"],
            ckpt=networks["adapted"],
            max_frames=PAGE_FRAMES,
            title="Generated clips",
            image_size=START_SIZE,
            device=options.device,
        )
    )
    return written


def _text(figures: dict[str, Any], out: Path) -> str:
    names = {
        "untrained": "untrained network",
        "pretrained": f"pre-trained from scratch, {figures['training_seconds']:.0f} s",
        "start": f"start {START}, ImageNet weights",
        "adapted": f"start adapted to the clips, {figures['adapting_seconds']:.0f} s",
    }
    rows = [
        f"  {label:<36}{100 * figures[f'knn_{name}']:6.1f}%{100 * figures[f'one_{name}']:16.1f}%"
        for name, label in names.items()
    ]
    kept = ""
    if figures["kept_start"]:
        kept = "\n  (adapting was not clearly better on held-out clips, so the start was kept as it is)"
    return f"""
Generated clips: accuracy on {TEST_GROUPS} people no network has seen; no label was used to learn.
({CLASSES} classes, chance {100 * figures["chance"]:.1f}%; these people's seed had no part in any choice)
{"":<38}    kNN   1 label a class
{chr(10).join(rows)}{kept}

clips               {out / "clips"}
adapted network     {figures["ckpt"]}
pre-trained run     tce info {out / "run"}
map, start          {figures["map_start"]}
map, adapted        {figures["map_adapted"]}
film                {figures["film"]}
page, in a browser  {figures["page"]}

Next, on your own videos:
  tce explore FOLDER --output page.html
  tce adapt FOLDER --out runs/mine
  tce tsne --ckpt runs/mine --input FOLDER --output map.png
  tce embed --ckpt runs/mine --input FOLDER --output embeddings.npz""".strip()
