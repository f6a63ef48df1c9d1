"""Evaluation, fine-tuning and neighbours against their limits, each ratio from one run on the same cores.

Evaluation: stacks a second of `score_clips`, against a plain loop over single stacks, and against its parts,
decoding every needed frame once (d) and the network on the same stacks (n). On a CPU both share the cores, so
a perfect overlap reaches 1/(1/d + 1/n); on a GPU the slower of the two. From the videos themselves: packing
and scoring, against a plain loop that opens and decodes a video again for every stack.
Fine-tuning: a step with data from a collection, against forward, backward and optimiser step alone.
Neighbours: kNN and retrieval of 10,000 queries among 1,000,000 rows, against the matrix product alone, in the
same blocks.

What is compared is timed in turn, so that a change of the machine's load meets all. "CPU" is the ratio of
processor time, which other programs on the machine hardly disturb.

    python benchmarks/finetuning.py [--quick] [--model resnet18] [--image-size 112]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from costs import in_turn, median, ratios
from torch.nn import functional

from tce.commands.finetune import clip_accuracy
from tce.data.frame_store import FrameStore
from tce.data.loader import Loader
from tce.data.open_data import open_store
from tce.data.pack import pack
from tce.data.sampling import test_positions
from tce.data.splits import SplitClips, open_split
from tce.device import autocast
from tce.distributed import init_distributed
from tce.evaluation import probes
from tce.evaluation.clip_reader import Reader, _frames, _Plan, paper_samples, score_clips
from tce.evaluation.probes import RECALL_AT, nearest
from tce.model.classifier import Classifier, classifier_from_encoder
from tce.model.encoder import build_encoder
from tce.options.finetune import FinetuneOptions
from tce.options.pack import PackOptions
from tce.recipes import apply_recipe
from tce.train.finetune_task import Finetuning
from tce.train.optim import make_optimizer
from tce.train.trainer import Trainer
from tce.video.image import decode_into
from tce.video.synthetic import make_clips


@torch.inference_mode()
def plain_loop(classifier: Classifier, store: FrameStore, rows: np.ndarray, precision: str) -> None:
    """Stack by stack: read six frames, decode, normalise, subtract, one pass."""
    size = classifier.image_size
    for row in rows:
        n = int(store.lengths[row])
        for start in test_positions(n):
            index = np.minimum(start + np.arange(6), n - 1)
            frames = np.empty((1, 6, size, size, 3), np.uint8)
            for data, out in zip(store.read(np.full(6, row), index), frames[0], strict=True):
                decode_into(data, out, "squash")
            with autocast(classifier.device, precision):
                classifier(classifier.preprocess(frames, resize="none"))


@torch.inference_mode()
def plain_loop_of_videos(classifier: Classifier, videos: list[Path], precision: str) -> None:
    """Stack by stack: open the video, decode up to the stack's last frame, one pass."""
    for video in videos:
        with av.open(str(video)) as file:
            n = sum(1 for _ in file.decode(video=0))
        for start in test_positions(n):
            with av.open(str(video)) as file:
                shown = list(itertools.islice(file.decode(video=0), start, min(start + 6, n)))
            images = np.stack([frame.to_ndarray(format="rgb24") for frame in shown])
            images = images[np.minimum(np.arange(6), len(images) - 1)]
            with autocast(classifier.device, precision):
                classifier(classifier.preprocess(images[None]))


def from_videos(videos: list[Path], classifier: Classifier, options: argparse.Namespace) -> None:
    """What a user with a folder of videos waits for: packing them, then every stack scored."""

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for video in videos:
                (Path(folder) / video.name).symlink_to(video.resolve())
            pack(PackOptions(footage=(folder,), out=f"{folder}/collection"))
            store = open_store(f"{folder}/collection")
            reader = Reader(
                store, classifier.image_size, "squash", 64, workers=2, precision=options.precision
            )
            score_clips(classifier, reader, np.arange(len(store)))

    few = videos[: max(1, len(videos) // 4)]
    works = {"whole": whole, "plain": lambda: plain_loop_of_videos(classifier, few, options.precision)}
    taken = in_turn(works, min(2, options.rounds))
    ours = len(videos) * 19 / median(taken["whole"])
    plain = len(few) * 19 / median(taken["plain"])
    print(f"evaluation from {len(videos)} videos; stacks a second:")
    print(f"  packing and scoring {ours:.1f}, plain loop {plain:.1f}: {ours / plain:.1f} x")


def evaluation(clips: SplitClips, classifier: Classifier, options: argparse.Namespace) -> None:
    store, rows = clips.store, clips.test[: options.clips]
    size, batch = classifier.image_size, 64
    samples = paper_samples(store.lengths, rows, 19, 6)
    plan = _Plan(*_frames(samples)[:2])
    stacks = int(samples.weight.sum())  # what the protocol asks for; equal ones pass once

    def decoding() -> None:
        for _ in Loader(store, plan, (size, size), "squash", threads=2):
            pass

    inputs = torch.randn(batch, 15, size, size, device=classifier.device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def network() -> None:
        with autocast(classifier.device, options.precision):
            for start in range(0, len(samples), batch):
                classifier(inputs[: min(batch, len(samples) - start)])

    def whole() -> None:
        reader = Reader(store, size, "squash", batch, workers=2, precision=options.precision)
        score_clips(classifier, reader, rows)

    few = rows[: max(1, len(rows) // 4)]
    taken = in_turn(
        {
            "decoding": decoding,
            "network": network,
            "whole": whole,
            "plain": lambda: plain_loop(classifier, store, few, options.precision),
        },
        options.rounds,
    )
    d, n, ours = (stacks / median(taken[name]) for name in ("decoding", "network", "whole"))
    plain = len(few) * 19 / median(taken["plain"])
    limit = min(d, n) if classifier.device.type == "cuda" else 1 / (1 / d + 1 / n)
    parts = median(taken["decoding"], "cores") + median(taken["network"], "cores")
    cores = parts / median(taken["whole"], "cores")
    cores_plain = (
        median(taken["plain"], "cores") / (len(few) * 19) / (median(taken["whole"], "cores") / stacks)
    )
    print(f"evaluation, {len(rows)} clips, {len(plan.clips)} frames for {stacks} stacks; stacks a second:")
    print(f"  decoding {d:.0f}, network {n:.0f}, limit {limit:.0f}, plain loop {plain:.1f}, ours {ours:.1f}")
    print(f"  share of the limit {ours / limit:.2f} (CPU {cores:.2f})")
    print(f"  {ours / plain:.1f} x the plain loop (CPU {cores_plain:.1f} x)")


def training(clips: SplitClips, classifier: Classifier, options: argparse.Namespace) -> None:
    recipe = apply_recipe(FinetuneOptions, "finetune", "default")
    made = dataclasses.replace(
        recipe,
        run=dataclasses.replace(recipe.run, savedir="-", precision=options.precision, device=options.device),
    )
    with init_distributed(options.device) as context:
        none_held_out = clips.train[:0]
        task = Finetuning(
            made, clips, clips.train, none_held_out, classifier.train(), context, clip_accuracy(made, clips)
        )
        trainer = Trainer(task, made.optim, made.run, context, None)
        trainer.begin_rows()
        batches = task.batches(0)
        bare = bare_step(classifier, made, options.precision)
        taken = in_turn(
            {"bare": bare, "whole": lambda: trainer.one_step(batches)}, options.rounds * options.steps
        )
    wall, cores = ratios(taken, "bare", "whole")
    steps, bare_steps = 1 / median(taken["whole"]), 1 / median(taken["bare"])
    print(f"fine-tuning step, batch {made.optim.batch_size}: {steps:.2f}/s, bare network {bare_steps:.2f}/s")
    print(f"  share of the bare network {wall:.2f} (CPU {cores:.2f})")


def bare_step(classifier: Classifier, options: FinetuneOptions, precision: str) -> Callable[[], None]:
    """Forward, backward and optimiser step on inputs that are there already."""
    batch, size, device = options.optim.batch_size, classifier.image_size, classifier.device
    optimizer = make_optimizer(classifier.parameters(), options.optim)
    images = torch.randn(batch, 15, size, size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % classifier.num_classes

    def step() -> None:
        classifier.train()
        with autocast(device, precision):
            logits = classifier(images)
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def search(options: argparse.Namespace) -> None:
    queries, rows = (2_000, 200_000) if options.quick else (10_000, 1_000_000)
    for dim in (128, 512):
        rng = np.random.default_rng(0)
        table = rng.standard_normal((rows, dim), np.float32)
        asked = rng.standard_normal((queries, dim), np.float32)
        for what, k in (("kNN", 20), ("retrieval", max(RECALL_AT))):
            search_one(what, asked, table, k, options.rounds if options.quick else 1)


def search_one(what: str, asked: np.ndarray, table: np.ndarray, k: int, rounds: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    works = {"product": lambda: product(asked, table), "nearest": lambda: nearest(asked, table, k)}
    taken = in_turn(works, rounds, warm=rounds > 1)  # one round takes minutes: its start weighs nothing
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    wall, cores = ratios(taken, "product", "nearest")
    rate = len(asked) * len(table) / median(taken["nearest"]) / 1e9
    print(f"{what}, {len(asked)} x {len(table)}, D {asked.shape[1]}, k {k}: {rate:.2f} G similarities/s")
    print(f"  share of the product {wall:.2f} (CPU {cores:.2f}), {more:.0f} MB beside the vectors")


@torch.inference_mode()
def product(queries: np.ndarray, rows: np.ndarray) -> None:
    """The similarities in the same blocks, thrown away."""
    for start in range(0, len(queries), probes.BLOCK_QUERIES):
        some = torch.from_numpy(queries[start : start + probes.BLOCK_QUERIES])
        out = torch.empty(len(some), probes.BLOCK_ROWS)
        for first in range(0, len(rows), probes.BLOCK_ROWS):
            block = torch.from_numpy(rows[first : first + probes.BLOCK_ROWS])
            torch.mm(some, block.t(), out=out[:, : len(block)] if len(block) < out.shape[1] else out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--clips", type=int, default=32, help="test clips, of 120 frames")
    parser.add_argument("--steps", type=int, default=4, help="fine-tuning steps in a round")
    parser.add_argument("--short-side", type=int, help="of the packed frames; by default 256 pixels")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="smaller, in about a minute")
    parser.add_argument("--only", choices=("evaluation", "training", "search"))
    options = parser.parse_args()
    if options.quick:
        options.clips = 6
        options.steps = 2
        options.rounds = 2

    logging.getLogger("tce").setLevel(logging.WARNING)
    print(
        f"{torch.get_num_threads()} threads, {options.model} at {options.image_size} px, {options.precision}"
    )
    with tempfile.TemporaryDirectory() as folder, init_distributed(options.device) as context:
        if options.only != "search":
            made = make_clips(Path(folder) / "footage", 4, 12 if options.quick else 24, frames=120, size=256)
            small = {} if options.short_side is None else {"short_side": options.short_side}
            pack(PackOptions(footage=(str(made.videos),), out=f"{folder}/collection", **small))
            clips = open_split(f"{folder}/collection", Path(folder), str(made.lists), "01", 0.0)
            encoder = build_encoder(options.model, image_size=options.image_size, seed=0)
            classifier = classifier_from_encoder(encoder, len(clips.classes), seed=0).to(context.device)
            classifier.to(memory_format=torch.channels_last)
        if options.only in (None, "evaluation"):
            evaluation(clips, classifier.eval(), options)
            videos = sorted(made.videos.rglob("*.mp4"))[: options.clips]
            from_videos(videos, classifier.eval(), options)
        if options.only in (None, "training"):
            training(clips, classifier, options)
        if options.only in (None, "search"):
            search(options)


if __name__ == "__main__":
    main()
