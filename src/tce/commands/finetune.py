"""The command `tce finetune`: train an action classifier on labelled clips, then test it."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tce.data.annotations import choose_splits
from tce.data.collection import read_options
from tce.data.splits import SplitClips, open_split, require_splits
from tce.distributed import deterministic, init_distributed
from tce.errors import OptionError, TceError
from tce.evaluation import evaluate as evaluation
from tce.evaluation import report
from tce.evaluation.clip_reader import Reader, even_samples, score_clips
from tce.evaluation.frozen_network import FrozenNetwork
from tce.evaluation.metrics import top_k
from tce.evaluation.protocols import Evaluator, SplitResult
from tce.evaluation.report import EvaluatedSplit
from tce.io import Result
from tce.model.classifier import Classifier
from tce.model.encoder import seeded
from tce.options.evaluate import EvaluateOptions
from tce.options.finetune import FinetuneOptions
from tce.options.training import require_used_decay
from tce.recipes import recipe_text
from tce.train.finetune_start import (
    divide,
    make_classifier,
    run_of,
    settle_defaults,
    starting_encoder,
    what_is_resumed,
)
from tce.train.finetune_task import FEWEST_HELD_OUT, CachedFinetuning, ClipAccuracy, ClipFeatures, Finetuning
from tce.train.run_folder import RunFolder, settle_precision
from tce.train.run_record import describe_run
from tce.train.trainer import fit

log = logging.getLogger("tce.train")

Ints = npt.NDArray[np.int64]

PACKED = "footage"  # in --savedir: the packed videos
FREE = (  # options that may change when a run is resumed: hardware, checkpoints, and a larger length
    *("data", "lists", "dataset", "max_missing", "savedir", "recipe", "show", "evaluate"),
    *("epochs", "max_steps", "workers", "device", "compile", "deterministic"),
    *("checkpoint_minutes", "keep", "resume", "force", "progress"),
)


@dataclass(frozen=True)
class Tested:
    """A trained and tested run.

    Attributes:
        result: content of its result.json.
        test: the kept network's test.
    """

    result: dict[str, Any]
    test: EvaluatedSplit


def finetune(options: FinetuneOptions) -> Result:
    """Train an action classifier on labelled clips, then test it by the paper's protocol.

    Writes the run folder `options.run.savedir`. Reports the kept network (the one that did best on held-out
    training clips, or the last epoch's), the last epoch's, and with `test_looks` the best epoch on the test
    clips, marked as optimistic.

    Args:
        options: clips, weights to start from, training, and the run folder.

    Returns:
        The table of metrics, and the content of result.json.

    Raises:
        OptionError: options that contradict each other, the data, the weights, or the resumed run.
        TceError: no clips, too many missing clips, weights of another network, a diverged run, a full disk.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; its message names what is saved.
    """
    run = options.run
    if run.show:
        return Result(recipe_text("finetune", run.recipe).rstrip())
    if not run.savedir:
        raise OptionError("--savedir", expected="a folder to write to", found="nothing")
    require_used_decay(options.optim, "finetune", run.recipe)
    if run.evaluate:
        return _evaluate_only(options)
    splits = choose_splits(options.data.split, options.data.lists_folder)
    if len(splits) > 1:
        return _each_split(options, splits)
    options = replace(options, data=replace(options.data, split=splits[0]))
    tested = _finetune(options, Path(run.savedir) / PACKED)
    return Result(_text(tested.result), tested.result)


def _evaluate_only(options: FinetuneOptions) -> Result:
    """`--evaluate`: test a checkpoint, and write into a folder of its own in --savedir."""
    ckpt = run_of(options.run.resume or options.run.savedir)
    tested = _test_options(options, str(ckpt), "evaluation")
    return evaluation.evaluate(tested, cache=_packed_videos(options, ckpt))


def _packed_videos(options: FinetuneOptions, ckpt: Path) -> Path | None:
    """Where a run has packed the footage before, or None: in its folder, or in that of all splits' runs."""
    runs = (Path(options.run.savedir), ckpt)
    for folder in dict.fromkeys([*runs, *(run.resolve().parent for run in runs)]):
        additions = read_options(folder / PACKED / "collection").get("additions", ())
        if any(os.path.abspath(options.data.footage) in addition["footage"] for addition in additions):
            return folder / PACKED
    return None


def _test_options(options: FinetuneOptions, ckpt: str, folder: str = "") -> EvaluateOptions:
    run = options.run
    return EvaluateOptions(
        ckpt=ckpt,
        data=options.data.footage,
        protocol="frames",
        lists=options.data.lists_folder,
        split=options.data.split,
        model=options.model.model,
        out=str(Path(run.savedir) / folder),
        max_missing=options.data.max_missing,
        batch_size=max(options.optim.batch_size, 32),
        seed=run.seed,
        workers=run.workers,
        device=run.device,
        precision=run.precision,
    )


def _each_split(options: FinetuneOptions, splits: tuple[str, ...]) -> Result:
    """A run for each split in a folder of its own, and the mean of their test metrics in --savedir."""
    require_splits(options.data.footage, options.data.lists_folder, splits)
    folder = Path(options.run.savedir)
    cache = folder / PACKED  # packed once for all splits
    each = {}
    for split in splits:
        run = replace(options.run, savedir=str(folder / f"split{split}"))
        each[split] = replace(options, data=replace(options.data, split=split), run=run)
    settle_defaults(options, starting_encoder(options))
    for chosen in each.values():  # every split is checked before the first one trains
        _open_split(chosen, cache)
    for chosen in each.values():
        resumed = what_is_resumed(chosen.run.resume, chosen.run.savedir, chosen.optim.epochs)
        RunFolder(chosen.run.savedir, resumed.in_place, chosen.run.force, "--savedir").close()
    runs = {split: _finetune(chosen, cache) for split, chosen in each.items()}

    tested = list(runs.values())
    mean = _test_options(options, str(folder / "split{split}" / "model.safetensors"))
    tests = [run.test for run in tested]
    failed = {clip: why for run in tested for clip, why in run.result["data"]["failed"].items()}
    result = evaluation.describe(mean, tests, failed)
    result["command"] = "finetune"
    for name in ("model", "chosen", "last", "best_on_test", "training"):
        result[name] = {split: run.result[name] for split, run in runs.items()}
    evaluation.write(folder, result, [(test, folder) for test in tests], options.run.seed)
    texts = [_text(run.result) for run in tested]
    return Result("\n".join([*texts, report.table(result), f"wrote {folder / 'result.json'}"]), result)


def _open_split(options: FinetuneOptions, cache: Path) -> SplitClips:
    data = options.data
    return open_split(data.footage, cache, data.lists_folder, data.split, data.max_missing)


def _finetune(options: FinetuneOptions, cache: Path) -> Tested:
    """Train and test on one split; videos are packed into `cache`."""
    run = options.run
    with init_distributed(run.device) as context, deterministic(run.deterministic):
        if context.world_size > 1:
            raise OptionError(
                "tce finetune", "one process", str(context.world_size), "start it without a launcher"
            )
        resumed = what_is_resumed(run.resume, run.savedir, options.optim.epochs)
        encoder = starting_encoder(options)  # checks the weights before footage is packed
        options = settle_defaults(options, encoder)
        with RunFolder(run.savedir, resumed.in_place, run.force, "--savedir") as folder:
            run, precision = settle_precision(run, folder, context)
            options = replace(options, run=run)
            clips = _open_split(options, cache)
            train, held_out, strategy = divide(clips, options)
            classifier = make_classifier(options, clips, encoder).to(context.device)
            classifier.config.provenance.update(train_clips=len(train), held_out_clips=len(held_out))
            classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if run.compile:
                classifier.backbone.compile()
            accuracy = clip_accuracy(options, clips)
            parts = (options, clips, train, held_out, classifier, context, accuracy)
            if options.model.cached_samples:
                linear = encoder.head if isinstance(encoder.head, torch.nn.Linear) else None
                head = linear if encoder.default_layer == "embedding" else None
                task: Finetuning = CachedFinetuning(
                    *parts, clip_features=clip_features(options, clips), head=head
                )
            else:
                task = Finetuning(*parts)
            data = {
                "fingerprint": clips.store.fingerprint(),
                "split": clips.digest,
                "clips": len(train),
                "held_out": len(held_out),
            }
            record = describe_run("finetune", dataclasses.asdict(options), data, precision)
            state = folder.begin(record, task.columns, FREE)
            if state is None and resumed.file is not None:
                state = resumed.state(task, options)
                folder.save(state)  # the run's own checkpoint, from which it is resumed later
            with seeded(run.seed):  # for networks with dropout
                metrics = fit(task, options.optim, run, context, folder, state)
            return _test(options, task, folder, metrics, strategy)


def clip_reader(options: FinetuneOptions, clips: SplitClips, classifier: Classifier) -> Reader:
    """How frames come to the classifier while it trains."""
    return Reader(
        clips.store,
        classifier.config.image_size,
        options.model.resize,
        max(options.optim.batch_size, 32),
        options.run.workers,
        options.run.precision,
    )


def clip_accuracy(options: FinetuneOptions, clips: SplitClips) -> ClipAccuracy:
    """A function that tests a classifier on some of the clips as `tce evaluate --protocol frames` does."""

    def accuracy(classifier: Classifier, rows: Ints, samples: int, what: str) -> tuple[float, float]:
        reader = clip_reader(options, clips, classifier)
        found = score_clips(classifier, reader, rows, samples, what)
        labels = clips.labels[found.rows]
        if len(labels) == 0:
            raise TceError(what, expected="clips that can be read", found="none", fix="run `tce check`")
        return float(top_k(found.scores, labels, 1).mean()), float(top_k(found.scores, labels, 5).mean())

    return accuracy


def clip_features(options: FinetuneOptions, clips: SplitClips) -> ClipFeatures:
    """A function that computes the features of evenly spread samples of some of the clips."""

    def features(classifier: Classifier, rows: Ints, count: int) -> tuple[Tensor, dict[int, str]]:
        reader = clip_reader(options, clips, classifier)
        samples = even_samples(clips.store.lengths, rows, count, classifier.frames_per_sample)
        outputs = reader.outputs(classifier, classifier.features, samples, "features")
        found = [vectors.cpu() for _, vectors in outputs]
        each = torch.repeat_interleave(torch.cat(found), torch.from_numpy(samples.weight), dim=0)
        return each.unflatten(0, (len(rows), count)), dict(reader.failed)

    return features


def _test(
    options: FinetuneOptions, task: Finetuning, folder: RunFolder, metrics: Mapping[str, float], strategy: str
) -> Tested:
    """Test the kept network and the last epoch's; write result.json, predictions and pictures."""
    settings = _test_options(options, str(folder.model_file))
    failed: dict[str, str] = {}
    saved = f"the trained network is saved in {folder.path}"
    with evaluation.interruptible(
        f"{saved}, its test is not finished; repeat the command with --resume to test it"
    ):
        last = _test_network(settings, task, folder, failed)
        kept = last
        if task.best.weights and not _equal(task.best.weights, task.classifier.state_dict()):
            task.classifier.load_state_dict(task.best.weights)
            kept = _test_network(settings, task, folder, failed)
        result = evaluation.describe(settings, [kept], failed)
        result |= _training_facts(options, task, folder, metrics, strategy, last.result)
        result["data"] |= {"train_clips": len(task.train), "held_out_clips": len(task.held_out)}
        if task.failed:
            some = ", ".join(list(task.failed)[:5])
            note = f"{len(task.failed)} training clips could not be read and were left out: {some}"
            result["notes"].append(note)
    evaluation.write(folder.path, result, [(kept, folder.path)], options.run.seed)
    return Tested(result, kept)


def _test_network(
    settings: EvaluateOptions, task: Finetuning, folder: RunFolder, failed: dict[str, str]
) -> EvaluatedSplit:
    classifier = task.classifier.eval()
    facts = {"path": str(folder.model_file), "format": "tce"}
    network = FrozenNetwork.of(classifier, folder.path.resolve().name, facts)
    found = Evaluator(network, settings, failed)(task.clips)
    network.require_unchanged()
    return EvaluatedSplit(network, task.clips, found)


def _equal(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, others[name].cpu()) for name, value in weights.items())


def _training_facts(
    options: FinetuneOptions,
    task: Finetuning,
    folder: RunFolder,
    metrics: Mapping[str, float],
    strategy: str,
    last: SplitResult,
) -> dict[str, Any]:
    """What result.json holds beside the test; an "epoch" is the number of epochs that were trained."""
    done = folder.saved_step // task.steps_per_epoch
    chosen: dict[str, Any] = {"by": "last epoch", "epoch": done, "clips": len(task.held_out)}
    if task.best.weights:
        chosen |= {"by": f"held-out {strategy}", "epoch": task.best.epoch, "held_out_top1": task.best.top1}
    elif len(task.held_out) and not task.keeps_best:
        chosen["reason"] = (
            f"{len(task.held_out)} held-out clips are too few to choose an epoch on, "
            f"{FEWEST_HELD_OUT} or more are needed"
        )
    best = task.best_on_test
    note = "chosen on the test clips themselves, hence optimistic"
    return {
        "command": "finetune",
        "model": str(folder.model_file),
        "chosen": chosen,
        "last": {**last.metrics, "epoch": done},
        "best_on_test": {"top1": best.top1, "epoch": best.epoch, "note": note} if best.weights else None,
        "training": {
            "clips": len(task.train),
            "held_out": len(task.held_out),
            "failed": dict(task.failed),
            "epochs": options.optim.epochs,
            "step": folder.saved_step,
            "weights": options.model.weights,
            "labels": options.data.labels or "all",
            "input": options.model.input,
            "figures": dict(metrics),
        },
    }


def _text(result: Mapping[str, Any]) -> str:
    chosen, last, training = result["chosen"], result["last"], result["training"]
    kept = f"kept: the network after {chosen['epoch']} of {training['epochs']} epochs"
    if "held_out_top1" in chosen:
        kept += f", the best on {chosen['clips']} clips, {chosen['by']} ({chosen['held_out_top1']:.1%})"
    elif "reason" in chosen:
        kept += f", the last one: {chosen['reason']}"
    lines = [report.table(result), f"{kept}; top-1 {result['top1']:.1%} on test"]
    lines.append(f"last: after {last['epoch']} epochs, top-1 {last['top1']:.1%} on test")
    best = result["best_on_test"]
    if best is not None:
        lines.append(f"best on test: after {best['epoch']} epochs, top-1 {best['top1']:.1%} ({best['note']})")
    lines.append(f"wrote {result['model']}")
    lines.append(f"next: tce classify VIDEO --ckpt {result['model']}")
    return "\n".join(lines)
