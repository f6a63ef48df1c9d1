"""The command `tce finetune`: labelled clips in; an action classifier and its test figures out."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tce.data.annotations import choose_splits
from tce.data.collection import read_options
from tce.distributed import deterministic, init_distributed
from tce.errors import OptionError, TceError
from tce.evaluation import evaluate as evaluation
from tce.evaluation import report
from tce.evaluation.clip_reader import Reader
from tce.evaluation.frozen_network import FrozenNetwork
from tce.evaluation.metrics import top_k
from tce.evaluation.protocols import Evaluator, SplitResult, score_clips
from tce.evaluation.splits import SplitClips, open_split, require_splits
from tce.io import write_json
from tce.model.checkpoint import tensors_hash
from tce.model.classifier import Classifier
from tce.model.encoder import seeded
from tce.options.evaluate import EvaluateOptions
from tce.options.finetune import FinetuneOptions
from tce.options.training import require_used_decay
from tce.recipes import recipe_text
from tce.result import Result
from tce.train.finetune_start import divide, make_classifier, run_of, starting_encoder, what_is_resumed
from tce.train.finetune_task import ClipAccuracy, Finetuning
from tce.train.run_folder import RunFolder, describe_run, settle_precision
from tce.train.trainer import fit

log = logging.getLogger("tce.train")

Ints = npt.NDArray[np.int64]

FOOTAGE = "footage"  # in --savedir: what is packed of videos
FREE = (  # what may change when a run is resumed: where it runs, how it is kept, and how long it goes on
    *("data", "lists", "dataset", "max_missing", "savedir", "recipe", "show", "evaluate"),
    *("epochs", "max_steps", "workers", "device", "compile", "deterministic"),
    *("checkpoint_minutes", "keep", "resume", "force", "progress"),
)


def finetune(options: FinetuneOptions) -> Result:
    """Train an action classifier on labelled clips, then test it by the paper's protocol.

    Writes the run folder `options.run.savedir`. Reported are the kept network (chosen on held-out training
    clips, or the last epoch's), the last epoch, and with `test_looks` the best epoch by the test clips,
    which is optimistic and said to be so.

    Args:
        options: clips, weights to start from, how to train, and where to write.

    Returns:
        The table of figures, and what result.json holds.

    Raises:
        OptionError: options that contradict each other, the data, the weights, or the run that is resumed.
        TceError: no clips, too few of the listed ones, weights of another network, a diverged run.
        KeyboardInterrupt: Ctrl-C or SIGTERM; everything is saved and `--resume` goes on.
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
    return _finetune(
        replace(options, data=replace(options.data, split=splits[0])), Path(run.savedir) / FOOTAGE
    )


def _evaluate_only(options: FinetuneOptions) -> Result:
    """`--evaluate`: test a checkpoint, and write into a folder of its own in --savedir."""
    cache = Path(options.run.savedir) / FOOTAGE
    additions = read_options(cache / "collection").get("additions", ())
    packed = any(os.path.abspath(options.data.footage) in addition["footage"] for addition in additions)
    ckpt = run_of(options.run.resume or options.run.savedir)
    tested = _test_options(options, str(ckpt), "evaluation")
    return evaluation.evaluate(tested, cache if packed else None)


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
    """A run for each split in a folder of its own, and the mean of their test figures in --savedir."""
    require_splits(options.data.footage, options.data.lists_folder, splits)
    folder = Path(options.run.savedir)
    cache = folder / FOOTAGE  # packed once for all splits
    runs = []
    for split in splits:
        run = replace(options.run, savedir=str(folder / f"split{split}"))
        runs.append(_finetune(replace(options, data=replace(options.data, split=split), run=run), cache))
    model = str(folder / "split{split}" / "model.safetensors")
    mean = evaluation.evaluate(_test_options(options, model), cache)
    of_splits = {
        name: {split: run.figures[name] for split, run in zip(splits, runs, strict=True)}
        for name in ("model", "chosen", "last", "best_on_test", "training")
    }
    result = {**mean.figures, "command": "finetune", **of_splits}
    write_json(folder / "result.json", result)
    return Result("\n".join([*(run.text for run in runs), mean.text]), result)


def _finetune(options: FinetuneOptions, cache: Path) -> Result:
    """One run; `cache` is where footage is packed that is not yet."""
    run = options.run
    with init_distributed(run.device) as context, deterministic(run.deterministic):
        if context.world_size > 1:
            raise OptionError(
                "tce finetune", "one process", str(context.world_size), "start it without a launcher"
            )
        resumed = what_is_resumed(run.resume, run.savedir, options.optim.epochs)
        encoder = starting_encoder(options)  # what is wrong with it is told before footage is packed
        with RunFolder(run.savedir, resumed.in_place, run.force, "--savedir") as folder:
            run, precision = settle_precision(run, folder, context)
            options = replace(options, run=run)
            clips = open_split(
                options.data.footage,
                cache,
                options.data.lists_folder,
                options.data.split,
                options.data.max_missing,
            )
            train, held_out, way = divide(clips, options)
            classifier = make_classifier(options, clips, encoder).to(context.device)
            classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if run.compile:
                classifier.backbone.compile()
            accuracy = clip_accuracy(options, clips)
            task = Finetuning(options, clips, train, held_out, classifier, context, accuracy)
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
                folder.save(state)  # from here on, the run goes on from its own checkpoint
            with seeded(run.seed):  # for networks that draw, such as those with dropout
                figures = fit(task, options.optim, run, context, folder, state)
            result = _tested(options, task, folder, figures, way)
            folder.write_result(result)
    return Result(_text(result), result)


def clip_accuracy(options: FinetuneOptions, clips: SplitClips) -> ClipAccuracy:
    """A function that tests a classifier on some of the clips as `tce evaluate --protocol frames` does."""

    def accuracy(classifier: Classifier, rows: Ints, samples: int, what: str) -> tuple[float, float]:
        reader = Reader(
            clips.store,
            classifier.config.image_size,
            options.model.resize,
            max(options.optim.batch_size, 32),
            options.run.workers,
            options.run.precision,
        )
        found = score_clips(classifier, reader, rows, samples, what)
        labels = clips.labels[found.rows]
        if len(labels) == 0:
            raise TceError(what, expected="clips that can be read", found="none", fix="run `tce check`")
        return float(top_k(found.scores, labels, 1).mean()), float(top_k(found.scores, labels, 5).mean())

    return accuracy


def _tested(
    options: FinetuneOptions,
    task: Finetuning,
    folder: RunFolder,
    figures: Mapping[str, float],
    way: str,
) -> dict[str, Any]:
    """Test the kept network and the last epoch's; result.json's content, with predictions and pictures."""
    classifier, epochs = task.classifier.eval(), options.optim.epochs
    judged = _test_options(options, str(folder.model_file))
    step = folder.saved_step
    failed: dict[str, str] = {}
    last = _judge(judged, classifier, task.clips, folder, failed)
    kept, outcome, chosen = last, last[1], {"by": "last epoch", "epoch": step // task.steps_per_epoch}
    if task.best.weights:
        classifier.load_state_dict(task.best.weights)
        kept = _judge(judged, classifier, task.clips, folder, failed)
        outcome = kept[1]
        chosen = {"by": f"held-out {way}", "epoch": task.best.epoch, "held_out_top1": task.best.top1}
    subject = kept[0]
    result = evaluation.describe(judged, [subject], [task.clips], [outcome], failed)
    result["data"]["train_clips"] = len(task.train)
    if task.failed:
        some = ", ".join(list(task.failed)[:5])
        result["notes"].append(
            f"{len(task.failed)} training clips could not be read and were left out: {some}"
        )
    evaluation.write(folder.path, result, [task.clips], [outcome], options.run.seed)
    result |= {
        "command": "finetune",
        "model": str(folder.model_file),
        "chosen": {**chosen, "clips": len(task.held_out)},
        "last": {**last[1].figures, "epoch": step // task.steps_per_epoch},
        "best_on_test": None,
        "training": {
            "clips": len(task.train),
            "failed": dict(task.failed),
            "epochs": epochs,
            "step": step,
            "weights": options.model.weights,
            "labels": options.data.labels or "all",
            "input": options.model.input,
            "figures": dict(figures),
        },
    }
    if task.best_on_test.weights:
        result["best_on_test"] = {
            "top1": task.best_on_test.top1,
            "epoch": task.best_on_test.epoch,
            "note": "chosen by the test clips themselves, hence optimistic",
        }
    return result


def _judge(
    judged: EvaluateOptions,
    classifier: Classifier,
    clips: SplitClips,
    folder: RunFolder,
    failed: dict[str, str],
) -> tuple[FrozenNetwork, SplitResult]:
    facts = {
        "path": str(folder.model_file),
        "format": "tce",
        "architecture": classifier.config.architecture,
        "kind": "classifier",
        "hash": tensors_hash(classifier.state_dict()),
        "provenance": classifier.config.provenance,
    }
    subject = FrozenNetwork(classifier, folder.path.resolve().name, facts)
    outcome = Evaluator(subject, judged, failed)(clips)
    subject.require_unchanged()
    return subject, outcome


def _text(result: Mapping[str, Any]) -> str:
    chosen, last = result["chosen"], result["last"]
    lines = [report.table(result)]
    lines.append(
        f"kept: epoch {chosen['epoch']}, chosen by {chosen['by']}: top-1 {result['top1']:.1%} on test"
    )
    lines.append(f"last: epoch {last['epoch']}: top-1 {last['top1']:.1%}, top-5 {last['top5']:.1%}")
    best = result["best_on_test"]
    if best is not None:
        lines.append(f"best on test: epoch {best['epoch']}: top-1 {best['top1']:.1%} ({best['note']})")
    lines.append(f"wrote {result['model']}")
    lines.append(f"next: tce classify VIDEO --ckpt {result['model']}")
    return "\n".join(lines)
