"""Fine-tuning as a task of the trainer: a classifier on stacks of frame differences or on RGB frames."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tce.data.loader import Batch, Loader
from tce.data.splits import SplitClips
from tce.device import autocast
from tce.distributed import DistributedContext
from tce.errors import TceError
from tce.model.backbone import ExternalBackbone
from tce.model.checkpoint import describe_model, save_model
from tce.model.classifier import Classifier
from tce.options.finetune import FinetuneOptions
from tce.train.run_folder import RunFolder
from tce.train.stacks import StackAugmentation, StackPlan
from tce.train.trainer import TrainProgress
from tce.train.training_state import save_tensors
from tce.video.image import CROP_MARGIN

log = logging.getLogger("tce.train")

Ints = npt.NDArray[np.int64]

VALIDATION_SAMPLES, TEST_SAMPLES = 5, 19  # of a clip: a validation costs a quarter of the paper's test
# On 100 clips an accuracy has a standard error of up to 5 points, more than late epochs differ by: the best
# of twenty validations on fewer clips is mostly the luckiest one.
FEWEST_HELD_OUT = 100

# (classifier, rows of the clips, samples of a clip, what for) -> top-1 and top-5 accuracy on them.
ClipAccuracy = Callable[[Classifier, Ints, int, str], tuple[float, float]]


@dataclass
class Best:
    """The network that did best on some clips so far.

    Attributes:
        top1: its accuracy on them; -1 before the first validation.
        epoch: epochs after which it was validated.
        weights: its state dict, on the CPU.
    """

    top1: float = -1.0
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def restored(cls, state: dict[str, Any], network: nn.Module) -> Best:
        """The best network out of a training state.

        Raises:
            KeyError, TypeError, ValueError: the state is no such state, or of another network.
        """
        weights, own = state["weights"], network.state_dict()
        shapes = {name: value.shape for name, value in weights.items()}
        if weights and shapes != {name: value.shape for name, value in own.items()}:
            raise ValueError("best weights of another network")
        return cls(float(state["top1"]), int(state["epoch"]), dict(weights))

    def update(self, top1: float, epoch: int, network: nn.Module) -> None:
        """Keep a network that does as well or better; of equals the later one, which has trained longer."""
        if top1 >= self.top1:
            weights = {
                name: value.detach().to("cpu", copy=True) for name, value in network.state_dict().items()
            }
            self.top1 = top1
            self.epoch = epoch
            self.weights = weights


class Finetuning:
    """Cross-entropy of the classes of clips, as a task of the trainer.

    Shapes: B clips a batch, P samples of a clip whose scores are summed, C classes.

    Args:
        options: everything.
        clips: the split.
        train: rows of the store to train on.
        held_out: rows to validate on, may be empty; with `FEWEST_HELD_OUT` or more of them the network that
            does best on them is kept, else the last epoch's.
        classifier: on `context.device`.
        context: the processes at work.
        clip_accuracy: tests the classifier, in evaluation mode, on some clips.

    Raises:
        TceError: fewer than two training clips.
    """

    name = "fine-tuning"

    def __init__(
        self,
        options: FinetuneOptions,
        clips: SplitClips,
        train: Ints,
        held_out: Ints,
        classifier: Classifier,
        context: DistributedContext,
        clip_accuracy: ClipAccuracy,
    ):
        self.options = options
        self.clips = clips
        self.classifier = classifier
        self.context = context
        self.train = train
        self.held_out = held_out
        self.clip_accuracy = clip_accuracy
        self.keeps_best = len(held_out) >= FEWEST_HELD_OUT
        optim, run, config = options.optim, options.run, classifier.config
        self.plan = StackPlan(
            train,
            clips.labels[train],
            clips.store.lengths[train],
            optim.batch_size,
            optim.epochs,
            classifier.frames_per_sample,
            options.model.segments,
            options.data.balanced,
            optim.accumulate,
            run.seed,
        )
        self.steps_per_epoch = self.plan.per_epoch // optim.accumulate
        self.images_per_step = optim.batch_size * optim.accumulate * options.model.segments
        size = round(config.image_size * CROP_MARGIN) if options.augment.crops else config.image_size
        resize = options.model.resize
        self.loader = Loader(clips.store, self.plan, (size, size), resize, run.workers, pin=True)
        self.augment = StackAugmentation(options.augment, config.image_size, config.mean, config.std)
        self.labels = torch.tensor(clips.labels, device=context.device)  # [clips]
        self.best, self.best_on_test = Best(), Best()
        self.failed: dict[str, str] = {}
        self._epochs_done: int | None = None  # unknown before the first step

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the metrics it logs."""
        held_out = ("held_out_top1",) if len(self.held_out) else ()
        tested = ("test_top1", "test_top5") if self.options.run.test_looks else ()
        return ("loss", "train_top1", "lr", *held_out, *tested)

    @property
    def seconds_waiting(self) -> float:
        """Seconds spent waiting for data so far."""
        return self.loader.seconds_waiting

    def parameters(self) -> list[dict[str, Any]]:
        """The trained parameters by stage, each with its factor of the learning rate."""
        optim = self.options.optim
        return stage_groups(self.classifier, optim.layer_decay, optim.head_lr)

    def batches(self, start: int) -> Iterator[Batch]:
        """The batches of the run from number `start` on."""
        self.classifier.train()
        yield from self.loader.iterate(start)

    def step(self, batch: Batch, progress: TrainProgress) -> dict[str, Tensor | float]:
        """One forward pass: the samples' scores, summed for each clip, against the clips' classes."""
        frames, ok = self._receive(batch)  # [B, P span, H, W, 3]
        images = self.augment(frames, batch.samples, batch.epoch, self.options.run.seed)
        with autocast(self.context.device, self.options.run.precision):
            logits = self.classifier(self.classifier.to_input(images))  # [B P, C]
        scores = logits.float().unflatten(0, (len(frames), -1)).sum(dim=1)  # [B, C]
        labels = self.labels[torch.from_numpy(batch.clips).to(self.labels.device)]
        if ok is not None:
            scores, labels = scores[ok], labels[ok]
        loss = functional.cross_entropy(scores, labels, label_smoothing=self.options.optim.label_smoothing)
        self._epochs_done = (progress.step + 1) // progress.steps_per_epoch
        return {"loss": loss, "train_top1": (scores.argmax(dim=1) == labels).float().mean()}

    def _receive(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Frames on the device, and which samples are good; None where all are."""
        for clip, error in zip(batch.clips[~batch.ok], batch.errors, strict=True):
            name = str(self.clips.store.catalog.ids[clip])
            if name not in self.failed:
                log.warning("left out: %s", error)
            self.failed.setdefault(name, error)
        if not batch.ok.any():
            raise TceError("a whole batch could not be read", found=batch.errors[0], fix="run `tce check`")
        frames = torch.as_tensor(batch.frames).to(self.context.device, non_blocking=True)
        return frames, None if batch.ok.all() else torch.from_numpy(batch.ok).to(self.context.device)

    def after_step(self) -> None:
        """Nothing is left to do."""

    def validate(self) -> dict[str, float]:
        """Accuracy on the held-out clips, and on the test clips with `--test-looks`."""
        if self._epochs_done is None:  # an untrained classifier is at chance
            return {}
        metrics = {}
        if len(self.held_out):
            top1, _ = self._accuracy(self.held_out, VALIDATION_SAMPLES, "validating")
            metrics["held_out_top1"] = top1
            if self.keeps_best:
                self.best.update(top1, self._epochs_done, self.classifier)
        if self.options.run.test_looks:
            top1, top5 = self._accuracy(self.clips.test, TEST_SAMPLES, "testing")
            metrics |= {"test_top1": top1, "test_top5": top5}
            self.best_on_test.update(top1, self._epochs_done, self.classifier)
        return metrics

    def _accuracy(self, rows: Ints, samples: int, what: str) -> tuple[float, float]:
        self.classifier.eval()
        found = self.clip_accuracy(self.classifier, rows, samples, what)
        self.classifier.train()
        return found

    def warning(self, metrics: Mapping[str, float], progress: TrainProgress) -> str | None:
        """No warnings: the trainer itself stops at a diverged loss."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """The network, the best ones, and the clips that could not be read."""
        return {
            "model": self.classifier.state_dict(),
            "best": vars(self.best).copy(),
            "best_on_test": vars(self.best_on_test).copy(),
            "failed": dict(self.failed),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            TceError: the state is another network's.
        """
        try:
            self.classifier.load_state_dict(state["model"])
            best = Best.restored(state["best"], self.classifier)
            self.best = best if self.keeps_best else Best()
            self.best_on_test = Best.restored(state["best_on_test"], self.classifier)
            self.failed = dict(state["failed"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            config = self.classifier.config
            raise TceError(
                "the training state to resume from",
                expected=f"one of a {config.architecture} of {config.num_classes} classes",
                found=str(error).strip().splitlines()[-1].strip(),
                fix="resume the run that wrote it, or start from its network with --weights",
            ) from error

    def save_model(self, folder: RunFolder, step: int) -> None:
        """Write the network to keep as model.safetensors, and the best ones beside the training state.

        Args:
            folder: the run folder.
            step: steps done.

        Raises:
            OSError: the disk is full or gone.
        """
        for best, name in ((self.best, "best.pt"), (self.best_on_test, "best-on-test.pt")):
            if best.weights:
                content = {"tce": describe_model(self.classifier), "model": best.weights, "epoch": best.epoch}
                save_tensors(folder.checkpoints / name, content)
        total = self.steps_per_epoch * self.options.optim.epochs
        provenance = {**self.classifier.config.provenance, "step": step, "steps": total}
        if not self.best.weights:
            save_model(folder.model_file, self.classifier, provenance)
            return
        latest = {name: value.clone() for name, value in self.classifier.state_dict().items()}
        self.classifier.load_state_dict(self.best.weights)
        save_model(folder.model_file, self.classifier, provenance)
        self.classifier.load_state_dict(latest)


def stage_groups(classifier: Classifier, layer_decay: float, head_lr: float) -> list[dict[str, Any]]:
    """The trained parameters by stage of the backbone, with their factor "lr_scale" of the learning rate.

    The last stage has factor 1, each one before it `layer_decay` times the next one's; the classifier has
    `head_lr`. Stages are the backbone's children (of our ResNets: conv1 and bn1, layer1 to layer4).

    Args:
        classifier: the parameters' network.
        layer_decay: factor from stage to stage.
        head_lr: factor of the classifier.
    """
    network: nn.Module = classifier.backbone
    network = network.model if isinstance(network, ExternalBackbone) else network
    stages: list[list[nn.Parameter]] = []
    for name, child in network.named_children():
        if name == "bn1" and stages:
            stages[-1] += child.parameters()  # the stem's own
        elif any(True for _ in child.parameters()):
            stages.append(list(child.parameters()))
    own = list(network.parameters(recurse=False))
    if own:
        stages.insert(0, own)
    scales = [layer_decay ** (len(stages) - 1 - place) for place in range(len(stages))]
    groups = [
        {"params": [p for p in stage if p.requires_grad], "lr_scale": scale}
        for stage, scale in zip(stages, scales, strict=True)
    ]
    groups.append({"params": list(classifier.fc.parameters()), "lr_scale": head_lr})
    return [group for group in groups if group["params"]]
