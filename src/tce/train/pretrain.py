"""The command `tce pretrain`: clips in, an encoder and its run folder out.

Runs that were started before `--method` took the place of `--loss` can be resumed: see
`tce.options.pretrain.current_options`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tce.data.catalog import clip_sketch
from tce.data.frame_store import FrameStore
from tce.data.open_data import find_data
from tce.data.splits import require_split
from tce.distributed import DistributedContext, deterministic, init_distributed
from tce.errors import OptionError, TceError
from tce.io import Result
from tce.model.backbone import is_callable_name, same_architecture
from tce.model.checkpoint import checkpoint_hash, describe_weights, load_encoder, weights_provenance
from tce.model.efficientnet_lite import VARIANTS
from tce.model.encoder import ADAPTED, FrameEncoder, build_encoder, seeded
from tce.options.checks import split_names
from tce.options.pretrain import DataOptions, PretrainOptions, PretrainRunOptions, current_options
from tce.options.training import require_used_decay
from tce.recipes import recipe_text
from tce.train.monitor import FEWEST_CLIPS, FRAMES_PER_CLIP, NEIGHBOURS, learned_nothing
from tce.train.pretrain_task import Pretraining, freeze_parts
from tce.train.run_folder import RunFolder, RunResult, settle_precision
from tce.train.run_record import describe_run
from tce.train.trainer import fit

log = logging.getLogger("tce.train")

STRONG_BACKBONE_LR = 0.1  # of the head's rate, as in fine-tuning

FREE = (  # what may change when a run is resumed: where it runs, how it is kept, and how long it runs
    *("data", "lists", "out", "recipe", "show", "epochs", "max_steps", "stop_on_collapse"),
    *("workers", "device", "compile", "channels_last", "deterministic"),
    *("checkpoint_minutes", "keep", "resume", "force"),
)


def pretrain(options: PretrainOptions) -> Result:
    """Learn a frame encoder from unlabelled clips.

    Writes the run folder `options.run.out`; footage that is not packed yet is packed into it first.

    Args:
        options: what to learn from, how, and where to write.

    Returns:
        The last figures, and where the network is.

    Raises:
        OptionError: options that contradict each other, the data, or the run that is resumed.
        TceError: no clips, footage that cannot be read, a diverged run, a full disk.
        KeyboardInterrupt: Ctrl-C or SIGTERM; everything is saved, and `resume` resumes it.
    """
    if options.run.show:
        return Result(recipe_text("pretrain", options.run.recipe).rstrip())
    options.require_given()
    require_used_decay(options.optim, "pretrain", options.run.recipe)
    with (
        init_distributed(options.run.device) as context,
        deterministic(options.run.deterministic),
        run_folder(options.run, context) as folder,
    ):
        return _pretrain(options, context, folder)


def _pretrain(options: PretrainOptions, context: DistributedContext, folder: RunFolder | None) -> Result:
    run, precision = settle_precision(options.run, folder, context)
    options = dataclasses.replace(options, run=run)
    options = settle_start(options)
    encoder = make_encoder(options).to(context.device)  # before videos are packed: its name may be wrong
    store = open_clips(options.data, Path(run.out) / "footage", context)
    require_recordings(options, store)
    options = fit_batch_size(options, len(store), context)
    encoder.config = dataclasses.replace(encoder.config, provenance=provenance(options, store))
    if run.channels_last:
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if run.compile:
        encoder.backbone.compile()
    task = Pretraining(options, store, encoder, context)
    state = None
    if folder is not None:
        data = {"fingerprint": store.fingerprint(), "clips": len(store)}
        record = describe_run("pretrain", dataclasses.asdict(options), data, precision)
        record["chance"] = task.chance
        state = folder.begin(record, task.columns, FREE, current_options)
    state = context.broadcast(state)
    with seeded(run.seed + context.rank):  # for networks that draw, such as those with dropout
        if state is None:
            task.fill_bank()
        metrics = fit(task, options.optim, run, context, folder, state)
    failed = task.failed_anywhere()
    return _finish(options, task, folder, metrics, failed) if folder is not None else Result("")


@contextlib.contextmanager
def run_folder(run: PretrainRunOptions, context: DistributedContext) -> Iterator[RunFolder | None]:
    """The run folder in the main process; None in the others, which do not write."""
    if not context.is_main:
        yield None
        return
    with RunFolder(run.out, run.resume, run.force) as folder:
        yield folder


def open_clips(data: DataOptions, cache: Path, context: DistributedContext) -> FrameStore:
    """The clips to learn from: all of them, or the train clips of a split.

    Args:
        data: where they are and which are wanted.
        cache: where footage is packed if it is not yet.
        context: its main process packs, while the others wait.

    Raises:
        OptionError: a collection packed with another split, and no lists to read this one from.
        TceError: there are none.
    """
    split = data.split or "01"
    if data.split is not None:
        require_split(data.data, data.lists, split)
    if not context.is_main:
        context.broadcast(None)  # until the main process has packed what there is to pack
    found = find_data(data.data, data.lists, split)
    whole = data.lists is None and data.split is None
    clips = len(found.catalog) if whole else int((found.catalog.splits == "train").sum())
    require_clips(data.data, clips)  # before they are packed
    store = found.open(cache)
    if context.is_main:
        context.broadcast(None)
    if whole:
        return store
    train = store.catalog.splits == "train"
    if not train.any():
        raise TceError(
            data.data, expected=f"train clips of split {split}", found="none", fix="check --lists and --split"
        )
    log.info("learning from the %d train clips of split %s", train.sum(), split)
    return store.select(train)


def require_clips(data: str, clips: int) -> None:
    """Check that there are two clips: one alone has no negatives.

    Raises:
        TceError: there are fewer.
    """
    if clips == 1:
        raise TceError(
            data,
            expected="two clips or more to learn from",
            found="one",
            fix=f"cut a long video into clips: tce pack {data} --out COLLECTION --clip-seconds 10, "
            "then tce pretrain COLLECTION",
        )


def require_recordings(options: PretrainOptions, store: FrameStore) -> None:
    """Check that `--exclude-same-source` leaves negatives: of one recording alone, none would be left.

    Raises:
        OptionError: all clips are pieces of one recording.
    """
    if options.contrast.exclude_same_source and len(np.unique(store.catalog.source_numbers)) < 2:
        raise OptionError(
            "--exclude-same-source",
            expected="clips of two recordings or more",
            found=f"{len(store)} clips of one",
            fix="leave it out, or give more footage",
        )


def fit_batch_size(options: PretrainOptions, clips: int, context: DistributedContext) -> PretrainOptions:
    """Options whose batch size is at most the number of clips, where it is only the recipe's.

    One that was asked for is left as it is, so that `PairPlan` refuses it.
    """
    optim = options.optim
    recipe = tomllib.loads(recipe_text("pretrain", options.run.recipe))["optim"]["batch_size"]
    if optim.batch_size * optim.accumulate <= clips or optim.batch_size != recipe:
        return options
    size = clips // optim.accumulate // context.world_size * context.world_size
    if size < 2:
        return options
    if context.is_main:
        log.warning("--batch-size reduced from %d to %d: there are %d clips", recipe, size, clips)
    return dataclasses.replace(options, optim=dataclasses.replace(optim, batch_size=size))


def provenance(options: PretrainOptions, store: FrameStore) -> dict[str, Any]:
    """Provenance for the network's file: clips, weights, recipe, seed and length."""
    data, weights = options.data, options.model.weights
    split = data.split or ("01" if data.lists is not None else None)
    return {
        "made": "tce pretrain",
        "data": {"path": data.data, "lists": data.lists, "fingerprint": store.fingerprint()},
        "clips": clip_sketch(store.catalog.ids),
        "split": split and split_names(split)[0],
        "recipe": options.run.recipe,
        "seed": options.run.seed,
        "epochs": options.optim.epochs,
        "weights": None if weights is None else weights_provenance(weights, options.model.model),
    }


def settle_start(options: PretrainOptions) -> PretrainOptions:
    """The options with the values that depend on the start filled in.

    A network with strong weights of its own (EfficientNet-Lite, Hugging Face) keeps them: its backbone moves
    slowly, and batch norm's statistics stay.

    Raises:
        OptionError: `--model` differs from the weights'.
    """
    model, optim = options.model, options.optim
    name, strong, lite = model.model or "resnet18", False, False
    if model.weights is not None:
        facts = describe_weights(model.weights, model.model)
        held = facts.get("architecture") or model.weights
        if model.model is not None and not same_architecture(model.model, held):
            raise OptionError(
                f"--weights {model.weights}",
                f"a {model.model}, as --model says",
                f"a {held}",
                f"use weights of a {model.model}" if is_callable_name(held) else f"add --model {held}",
            )
        name = model.model or held
        lite = held in VARIANTS
        strong = lite or held.startswith("hf:")
    keep = lite if model.keep_statistics is None else model.keep_statistics
    rate = (STRONG_BACKBONE_LR if strong else 1.0) if optim.backbone_lr is None else optim.backbone_lr
    return dataclasses.replace(
        options,
        model=dataclasses.replace(model, model=name, keep_statistics=keep),
        optim=dataclasses.replace(optim, backbone_lr=rate),
    )


def make_encoder(options: PretrainOptions) -> FrameEncoder:
    """The encoder to train: new, or from `--start`, with the heads that the method needs.

    Args:
        options: as `settle_start` returned them.

    Raises:
        OptionError: `--embedding-size` or `--head` differ from the weights'.
    """
    model, seed, rotation = options.model, options.run.seed, options.tce.rotation > 0
    resize = options.data.resize.removesuffix("-nearest")
    assert model.model is not None
    if model.weights is None:
        size = model.embedding_size
        encoder = build_encoder(model.model, size, model.head, rotation, model.image_size, seed, resize)
        freeze_parts(encoder, model)
        return encoder
    given = load_encoder(model.weights, model.model)
    config = given.config
    adapted = config.provenance.get("made") == ADAPTED  # its head is whole footage's, not a loss's
    if config.head == "none" or adapted:  # an ImageNet network, say: it gets a head
        config = dataclasses.replace(config, head=model.head, embedding_size=model.embedding_size)
    if (config.head, config.embedding_size) != (model.head, model.embedding_size):
        raise OptionError(
            "--weights",
            expected=f"--head {model.head} --embedding-size {model.embedding_size}",
            found=f"--head {config.head} --embedding-size {config.embedding_size} in {model.weights}",
        )
    config = dataclasses.replace(config, rotation=rotation, image_size=model.image_size, resize=resize)
    with seeded(seed):
        encoder = FrameEncoder(config, given.backbone)
    if not adapted:
        _carry_over(given.head, encoder.head)
    _carry_over(given.rotation_head, encoder.rotation_head)
    freeze_parts(encoder, model)
    return encoder


def _carry_over(old: torch.nn.Module | None, new: torch.nn.Module | None) -> None:
    """Take a head's weights along where both networks have it."""
    if old is not None and new is not None and list(old.state_dict()):
        new.load_state_dict(old.state_dict())


def _finish(
    options: PretrainOptions,
    task: Pretraining,
    folder: RunFolder,
    metrics: Mapping[str, float],
    failed: Mapping[str, str],
) -> Result:
    """Write result.json, and report how the run went and what to do next."""
    first = folder.first_row()
    total = task.steps_per_epoch * options.optim.epochs
    clips = len(task.monitor.rows) if task.monitor else 0
    nothing = None
    if folder.saved_step >= total:
        ignored = {"knn"} if clips < FEWEST_CLIPS else set()
        before, after = ({k: row[k] for k in row.keys() - ignored} for row in (first, metrics))
        nothing = learned_nothing(before, after, task.chance["contrast"])
    outcome: dict[str, Any] = {
        "model": str(folder.model_file),
        "step": folder.saved_step,
        "epochs": options.optim.epochs,
        "clips": len(task.store),
        "failed": dict(failed),
        "figures": dict(metrics),
        "first": first,
        "chance": task.chance,
        "learned_nothing": nothing is not None,
        "protocol": _protocol(options, task),
    }
    folder.write_result(outcome)
    loss = f", loss {metrics['loss']:.3f}" if "loss" in metrics else ""  # none before the log's first row
    lines = [f"wrote {folder.model_file} (step {folder.saved_step}{loss})"]
    if "knn" in metrics and "knn" in first:
        lines.append(_knn_line(first["knn"], metrics["knn"], clips))
    if failed:
        named = ", ".join(list(failed)[:5])
        lines.append(f"{len(failed)} clips could not be read and were left out: {named}")
    if folder.saved_step < total:
        lines.append(f"stopped by --max-steps before step {total}; to resume, raise it and add --resume")
    if nothing is not None:
        lines += [nothing, "do not use this network; try more varied clips, a lower --lr or another --method"]
    else:
        lines.append(f"next: tce embed --ckpt {folder.model_file} --input VIDEO --output embeddings.npz")
    return RunResult("\n".join(lines), outcome, str(folder.path))


def _knn_line(before: float, after: float, clips: int) -> str:
    if clips < FEWEST_CLIPS:
        return f"kNN: too few clips ({clips} labelled clips with another group of their class)"
    return f"kNN across groups, {clips} clips: {before:.1%} before, {after:.1%} after"


def _protocol(options: PretrainOptions, task: Pretraining) -> dict[str, Any] | None:
    """How the monitor's figures were found; None without a monitor."""
    if task.monitor is None:
        return None
    return {
        "clips": len(task.monitor.rows),
        "frames_per_clip": FRAMES_PER_CLIP,
        "image_size": options.model.image_size,
        "resize": options.data.resize,
        "knn_neighbours": NEIGHBOURS if task.monitor.labels is not None else None,
        "knn_among": "the trained clips of other groups",
        "split": options.data.split,
        "seed": options.run.seed,
        "checkpoint": checkpoint_hash(Path(options.run.out) / "model.safetensors"),
    }
