"""What a fine-tuning run starts from: `--resume`, the weights, and the division of the training clips."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tce.data.catalog import clip_sketch
from tce.data.splits import SplitClips, hold_out, label_subset
from tce.errors import OptionError, TceError
from tce.model.backbone import is_callable_name, same_architecture
from tce.model.checkpoint import (
    describe,
    describe_weights,
    load_backbone_weights,
    load_classifier,
    load_encoder,
    new_encoder_like,
    weights_provenance,
)
from tce.model.checkpoint_formats import FINETUNED_2020, FINETUNED_LATER
from tce.model.checkpoint_reader import start_name
from tce.model.classifier import Classifier, classifier_from_encoder
from tce.model.efficientnet_lite import VARIANTS
from tce.model.encoder import FrameEncoder, build_encoder
from tce.options.finetune import FinetuneOptions
from tce.train.finetune_task import Finetuning
from tce.train.optim import make_optimizer

log = logging.getLogger("tce.train")

Ints = npt.NDArray[np.int64]

CACHED_SAMPLES = 8  # of a clip, as the protocols of frozen networks take
HEAD_SHARE, STRONG_BACKBONE_LR = 0.1, 0.1


def divide(clips: SplitClips, options: FinetuneOptions) -> tuple[Ints, Ints, str]:
    """Divide a split's training clips into those to train on and those held out for validation.

    Returns:
        Rows of both, rising, and how the held-out ones were chosen: "groups", "pieces", or "none".
    """
    rows, data = clips.train, options.data
    if data.labels is not None:
        rows = rows[label_subset(clips.labels[rows], data.labels, options.run.seed)]
    if not data.held_out:
        return rows, np.empty(0, np.int64), "none"
    held, strategy = hold_out(
        clips.labels[rows], clips.groups[rows].tolist(), data.held_out, options.run.seed
    )
    if not held.any():
        log.warning("no class has a clip to spare: none is held out, and the last epoch's network is kept")
    elif "groups" not in strategy:
        log.warning(
            "classes have too few groups (people, recordings) to hold out: the last pieces of each group are "
            "held out, which resemble the training clips"
        )
    log.info(
        "training on %d clips, validating on %d held-out clips (%s)", (~held).sum(), held.sum(), strategy
    )
    return rows[~held], rows[held], strategy


def starting_encoder(options: FinetuneOptions) -> FrameEncoder:
    """An encoder with the configuration from which the classifier is built; its weights are loaded later.

    Raises:
        TceError: `--weights` is no checkpoint, or not of that `--model`.
        OptionError: an unknown `--model` or `--freeze`.
    """
    model, seed = options.model, options.run.seed
    start = start_name(model.weights) if model.weights else None
    if model.weights is None or start is not None:
        encoder = build_encoder(model.model or start or "resnet18", image_size=model.image_size, seed=seed)
    else:
        facts = describe_weights(model.weights, model.model)
        held = facts["architecture"]
        if model.model and not same_architecture(held, model.model):
            other = f"weights of a {model.model}"
            raise TceError(
                f"{model.weights}: the file holds a {held}",
                expected=f"a {model.model}, as --model says",
                fix=f"use {other}" if is_callable_name(held) else f"use --model {held}, or {other}",
            )
        if facts["kind"] == "encoder":
            encoder = load_encoder(model.weights, model.model)
        else:
            encoder = new_encoder_like(model.weights, model.model, model.image_size, seed)
    encoder.freeze(model.freeze)  # checks the layer's name before footage is packed
    return encoder


def settle_defaults(options: FinetuneOptions, encoder: FrameEncoder) -> FinetuneOptions:
    """The options with the values that depend on the start filled in.

    A network with strong weights of its own (EfficientNet-Lite, Hugging Face) keeps them: the classifier is
    trained first, and the backbone then moves slowly. Our ResNets train as published.

    Args:
        options: as given.
        encoder: what `starting_encoder` returned.

    Raises:
        OptionError: cached features of samples that augmentation would change, or of a trained backbone.
    """
    model, optim, architecture = options.model, options.optim, encoder.config.architecture
    strong = architecture in VARIANTS or architecture.startswith("hf:")
    frozen, plain = model.freeze == "all", options.augment.none
    if model.cached_samples and not (frozen and plain):
        raise OptionError(
            f"--cached-samples {model.cached_samples}",
            expected="--freeze all without augmentation",
            found="augmentation" if frozen else "a backbone that is trained",
            fix="use --recipe linear, or --freeze all --crop-scale 1 1 --flip 0 --color 0",
        )
    if frozen and strong and not plain:
        log.info("with augmentation every epoch passes the network; --recipe linear trains in seconds")
    samples, head, rate = model.cached_samples, optim.head_epochs, optim.backbone_lr
    if samples is None:
        samples = CACHED_SAMPLES if strong and frozen and plain else 0
    if head is None:
        head = max(1, round(HEAD_SHARE * optim.epochs)) if strong and not frozen and optim.epochs > 1 else 0
    if rate is None:
        rate = STRONG_BACKBONE_LR if strong else 1.0
    return replace(
        options,
        model=replace(model, cached_samples=samples),
        optim=replace(optim, head_epochs=head, backbone_lr=rate),
    )


def make_classifier(options: FinetuneOptions, clips: SplitClips, encoder: FrameEncoder) -> Classifier:
    """The classifier to train: a new last layer on a new backbone, or on that of `--weights`.

    Args:
        options: weights, input, and frozen layers.
        clips: their classes are the classifier's.
        encoder: what `starting_encoder` returned.

    Raises:
        TceError: the weights do not fit.
    """
    model, seed = options.model, options.run.seed
    classifier = classifier_from_encoder(
        encoder,
        len(clips.classes),
        model.differences,
        tuple(clips.classes),
        model.resize,
        model.image_size,
        model.dropout,
        seed,
    )
    data = options.data
    provenance: dict[str, Any] = {
        "made": "tce finetune",
        "data": {
            "path": data.footage,
            "lists": data.lists_folder,
            "fingerprint": clips.store.fingerprint(),
        },
        "clips": clip_sketch(clips.store.catalog.ids[clips.train]),
        "split": clips.split,
        "seed": seed,
        "weights": None,
    }
    if model.weights is not None:
        log.info("%s: %s", model.weights, load_backbone_weights(classifier, model.weights))
        provenance["weights"] = weights_provenance(model.weights, model.model)
    classifier.config = replace(classifier.config, provenance=provenance)
    classifier.freeze(model.freeze)
    return classifier


@dataclass(frozen=True)
class Resumed:
    """What `--resume` means.

    Attributes:
        in_place: resume the run in --savedir.
        file: a fine-tuning file of the 2020 release or later to start a new run from.
    """

    in_place: bool
    file: str | None = None

    def state(self, task: Finetuning, options: FinetuneOptions) -> dict[str, Any]:
        """A training state made of the file's network and epoch, without momentum.

        Raises:
            TceError: another number of classes or another network.
        """
        assert self.file is not None
        given = load_classifier(self.file, options.model.model)
        if given.num_classes != task.classifier.num_classes:
            raise TceError(
                f"--resume {self.file}",
                expected=f"{task.classifier.num_classes} classes, as in the data",
                found=f"{given.num_classes}",
                fix="give the --data and --lists it was trained on, or start from it with --weights",
            )
        epoch = int(given.config.provenance.get("epoch", 0))
        log.info("resuming %s after %d epochs; the optimizer's momentum starts at zero", self.file, epoch)
        return {
            "step": epoch * task.steps_per_epoch,
            "task": {**task.state_dict(), "model": given.state_dict()},
            "optimizer": make_optimizer(task.parameters(), options.optim).state_dict(),
            "means": {"sums": {}, "counts": {}},
            "last": {},
            "rng": [{"cpu": torch.get_rng_state()}],
        }


def what_is_resumed(resume: str | None, savedir: str, epochs: int) -> Resumed:
    """What `--resume` and `--savedir` mean together.

    Raises:
        OptionError: a pre-training file or run, a network without training state, another run's folder, or a
            file that has been trained for all epochs already.
    """
    if resume is None:
        return Resumed(False)
    here, there = Path(savedir).resolve(), run_of(resume or savedir).resolve()
    if (there == here and _command_of(there) != "pretrain") or _began_from(here, resume):
        return Resumed(True)
    if (there / "options.json").exists():
        if _command_of(there) == "pretrain":
            raise OptionError(
                f"--resume {resume}",
                expected="a fine-tuning run",
                found="a run of `tce pretrain`",
                fix=f"start from its network with --weights {there}",
            )
        raise OptionError(
            f"--resume {resume}",
            expected="the run in --savedir: a run is resumed in its own folder",
            found=f"--savedir {savedir}",
            fix=f"use --savedir {there}, or start a new run from its network with --weights {there}",
        )
    facts = describe(resume)
    if facts["format"] in (FINETUNED_2020, FINETUNED_LATER):
        done = int(facts["provenance"].get("epoch", 0))
        if done >= epochs:
            raise OptionError(
                "--epochs",
                expected=f"more than the {done} epochs for which {resume} has been trained",
                found=str(epochs),
                fix="raise --epochs, or test the file with --evaluate",
            )
        return Resumed(False, resume)
    kind = "a pre-training file" if facts["kind"] != "classifier" else "a network without training state"
    raise OptionError(
        f"--resume {resume}",
        expected="a fine-tuning run's folder, its checkpoints/latest.pt, or a fine-tuning file of 2020",
        found=f"{kind} ({facts['format']})",
        fix=f"start from it with --weights {resume}",
    )


def _command_of(folder: Path) -> str | None:
    """The command that made a run folder; None without a readable options.json."""
    return _options_of(folder).get("command")


def _began_from(folder: Path, resume: str) -> bool:
    """Whether the run in a folder was started by the same `--resume FILE`: the command is repeated."""
    groups = _options_of(folder).get("options")
    run = groups.get("run") if isinstance(groups, dict) else None
    return bool(resume) and isinstance(run, dict) and run.get("resume") == resume


def _options_of(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def run_of(path: str) -> Path:
    """The run folder of a training state in it; any other path as it is."""
    return Path(path).parent.parent if Path(path).name == "latest.pt" else Path(path)
