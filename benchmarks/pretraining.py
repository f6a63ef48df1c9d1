"""A pre-training step, data from a collection, against the bare network, on the same cores and in one run.

The bare network is what no method can do without: forward passes of the same shapes and number, backward, and
the optimiser's step. The two are timed in turn, so that a change of the machine's load meets both. "wall" is
the ratio of seconds, "CPU" of processor time over all threads, which other programs hardly disturb.

    python benchmarks/pretraining.py [--data COLLECTION] [--model resnet18] [--image-size 112]
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from costs import in_turn, median, ratios

from tce.data.open_data import open_store
from tce.data.pack import pack
from tce.device import autocast
from tce.distributed import init_distributed
from tce.options.pack import PackOptions
from tce.options.pretrain import PretrainOptions
from tce.recipes import apply_recipe
from tce.train.optim import make_optimizer
from tce.train.pretrain import make_encoder, settle_start
from tce.train.pretrain_task import Pretraining
from tce.train.trainer import Trainer
from tce.video.synthetic import make_clips


def footage(folder: Path) -> Path:
    """A collection of generated clips, 256 pixels high."""
    clips = make_clips(folder / "footage", classes=8, per_class=36, frames=12, size=256)
    pack(PackOptions(footage=(str(clips.videos),), out=str(folder / "collection")))
    return folder / "collection"


def bare_step(task: Pretraining) -> Callable[[], None]:
    """Forward, backward and optimiser step of the task's network, on images that are there already."""
    options, device = task.options, task.context.device
    network = make_encoder(options).to(device)
    if options.run.channels_last:
        network.to(memory_format=torch.channels_last)
    network.train()
    optimizer = make_optimizer(network.parameters(), options.optim)
    size, batch = options.model.image_size, options.optim.batch_size
    rotated = options.tce.rotation > 0
    passes = [batch * (2 + rotated)] if options.contrast.views == "joint" else [batch] * (2 + rotated)
    images = [torch.randn(n, 3, size, size, device=device) for n in passes]
    images = [image.contiguous(memory_format=torch.channels_last) for image in images]

    def step() -> None:
        with autocast(device, options.run.precision):
            loss = torch.stack([network(image).square().sum() for image in images]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def whole_step(task: Pretraining) -> Callable[[], None]:
    """A step of the training loop: data, augmentation, passes, mining, loss, backward, optimiser, bank."""
    run = dataclasses.replace(task.options.run, monitor_epochs=0)
    trainer = Trainer(task, task.options.optim, run, task.context, None)
    trainer.begin_rows()
    batches = task.batches(0)

    def step() -> None:
        trainer.one_step(batches)

    return step


def repeated(step: Callable[[], None], times: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            step()

    return run


def measure(name: str, options: PretrainOptions, data: Path, rounds: int, steps: int) -> None:
    options = settle_start(options)
    with init_distributed(options.run.device) as context:
        encoder = make_encoder(options).to(context.device)
        if options.run.channels_last:
            encoder.to(memory_format=torch.channels_last)
        task = Pretraining(options, open_store(data), encoder, context)
        task.fill_bank()
        kinds = {"bare": bare_step(task), "whole": whole_step(task)}
        taken = in_turn({kind: repeated(step, steps) for kind, step in kinds.items()}, rounds)
        task.loader.close()
    wall, cores = ratios(taken, "bare", "whole")
    seconds = {kind: median(costs) / steps for kind, costs in taken.items()}
    images = task.images_per_step / seconds["whole"]
    times = f"{1000 * seconds['bare']:.0f} | {1000 * seconds['whole']:.0f}"
    figures = f"{times} | {images:.0f} | {wall:.2f} | {cores:.2f}"
    print(f"| {name} | {figures} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a collection; generated clips by default")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps a round")
    parser.add_argument("--recipes", nargs="+", default=["default", "paper-kinetics400"])
    chosen = parser.parse_args()
    logging.getLogger("tce").setLevel(logging.WARNING)
    print(f"{torch.get_num_threads()} torch threads, {chosen.workers} loading threads")
    print("| recipe | bare, ms a step | whole, ms a step | images a second | bare/whole, wall | CPU |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        data = chosen.data or footage(Path(folder))
        for recipe in chosen.recipes:
            base = apply_recipe(PretrainOptions, "pretrain", recipe)
            options = dataclasses.replace(
                base,
                # A recipe that loads frames of the network's own size does so at this size too.
                data=dataclasses.replace(base.data, frame_size=base.data.frame_size and chosen.image_size),
                model=dataclasses.replace(base.model, model=chosen.model, image_size=chosen.image_size),
                optim=dataclasses.replace(base.optim, batch_size=chosen.batch_size, epochs=10_000),
                tce=dataclasses.replace(base.tce, negatives=base.tce.negatives and 100),
                run=dataclasses.replace(
                    base.run, precision=chosen.precision, workers=chosen.workers, monitor_epochs=0
                ),
            )
            name = f"{recipe}, {chosen.model} {chosen.image_size} px {chosen.precision} B {chosen.batch_size}"
            measure(name, options, data, chosen.rounds, chosen.steps)


if __name__ == "__main__":
    main()
