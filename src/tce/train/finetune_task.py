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

from tce.data.loader import Batch, Loader, PlannedBatch
from tce.data.sampling import StackPlan
from tce.data.splits import SplitClips
from tce.device import autocast
from tce.distributed import DistributedContext
from tce.errors import TceError
from tce.model.checkpoint import describe_model, save_model
from tce.model.classifier import Classifier
from tce.options.finetune import FinetuneOptions
from tce.rng import uniform
from tce.train.augment import StackAugmentation
from tce.train.optim import TrainProgress, stage_groups
from tce.train.run_folder import RunFolder
from tce.train.trainer import ClipTask
from tce.train.training_state import save_tensors
from tce.video.image import CROP_MARGIN

log = logging.getLogger("tce.train")

Ints = npt.NDArray[np.int64]

VALIDATION_SAMPLES, TEST_SAMPLES = 5, 19  # of a clip: a validation costs a quarter of the paper's test
# On 100 clips an accuracy has a standard error of up to 5 points, more than late epochs differ by: the best
# of twenty validations on fewer clips is mostly the luckiest one.
FEWEST_HELD_OUT = 100
CACHED = 204  # stream of the counter-based generator: which cached sample; beside those of `stacks`
SCALED_LENGTH = 8.0  # of scaled features: the default learning rate then suits any number of features

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


class Finetuning(ClipTask):
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
        self.clips, self.store = clips, clips.store
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
        self._head_only = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the metrics it logs."""
        held_out = ("held_out_top1",) if len(self.held_out) else ()
        tested = ("test_top1", "test_top5") if self.options.run.test_looks else ()
        return ("loss", "train_top1", "lr", *held_out, *tested)

    def parameters(self) -> list[dict[str, Any]]:
        """The trained parameters by stage, each with its factor of the learning rate."""
        optim = self.options.optim
        rate = 1.0 if optim.backbone_lr is None else optim.backbone_lr
        return stage_groups(self.classifier, optim.layer_decay, optim.head_lr, rate)

    def batches(self, start: int) -> Iterator[Batch]:
        """The batches of the run from number `start` on."""
        self.classifier.train()
        yield from self.loader.iterate(start)

    def step(self, batch: Batch, progress: TrainProgress) -> dict[str, Tensor | float]:
        """One forward pass: the samples' scores, summed for each clip, against the clips' classes."""
        self._set_phase(progress)
        frames, ok = self.receive(batch)  # [B, P span, H, W, 3]
        images = self.augment(frames, batch.samples, batch.epoch, self.options.run.seed)
        with autocast(self.context.device, self.options.run.precision):
            logits = self.classifier(self.classifier.to_input(images))  # [B P, C]
        scores = logits.float().unflatten(0, (len(frames), -1)).sum(dim=1)  # [B, C]
        return self._loss(scores, batch.clips, ok, progress)

    def _loss(
        self, scores: Tensor, rows: Ints, ok: Tensor | None, progress: TrainProgress
    ) -> dict[str, Tensor | float]:
        labels = self.labels[torch.from_numpy(rows).to(self.labels.device)]
        if ok is not None:
            scores, labels = scores[ok], labels[ok]
        loss = functional.cross_entropy(scores, labels, label_smoothing=self.options.optim.label_smoothing)
        self._epochs_done = (progress.step + 1) // progress.steps_per_epoch
        return {"loss": loss, "train_top1": (scores.argmax(dim=1) == labels).float().mean()}

    def _set_phase(self, progress: TrainProgress) -> None:
        """Freeze the backbone, batch statistics included, in the first epochs, and no longer after them."""
        head_only = progress.epoch < (self.options.optim.head_epochs or 0)
        if head_only != self._head_only:
            self._head_only = head_only
            self.classifier.freeze("all" if head_only else self.options.model.freeze)

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


# (classifier, rows of the clips, samples of a clip) -> features [n, samples, F]; row -> why it was not read.
ClipFeatures = Callable[[Classifier, Ints, int], tuple[Tensor, dict[int, str]]]


class CachedFinetuning(Finetuning):
    """Training of the classifier alone, on features of each clip's samples that are computed once.

    A step draws from a clip's samples instead of from all its frames. The weights are learned for features
    scaled first: by the embedding head that the start was adapted with, then to mean 0 and a common length,
    with the same factor in all dimensions (see `tce.evaluation.probes.center_and_scale` for the reason). The
    scaling is linear, so it becomes part of the classifier's last layer.

    Args:
        arguments: those of `Finetuning`; with `model.cached_samples`, a frozen backbone and no augmentation.
        clip_features: computes the features.
        head: from features [.., F] to embedding [.., D]; None for the features themselves.
    """

    def __init__(self, *arguments: Any, clip_features: ClipFeatures, head: nn.Linear | None = None):
        super().__init__(*arguments)
        clips, classifier, train, context = self.clips, self.classifier, self.train, self.context
        rows, count = np.union1d(train, self.held_out), self.options.model.cached_samples or 0
        classifier.eval()
        features, unread = clip_features(classifier, rows, count)  # [n, count, F]
        for row, reason in unread.items():
            self.failed[str(clips.store.catalog.ids[row])] = reason
        self._place = torch.full((len(clips.labels),), -1, dtype=torch.int64)
        self._place[torch.from_numpy(rows)] = torch.arange(len(rows))
        self._readable = torch.from_numpy(~np.isin(np.arange(len(clips.labels)), list(unread)))
        used = self._place[torch.from_numpy(train)][self._readable[torch.from_numpy(train)]]
        if len(used) < 2:
            raise TceError("the training clips", expected="two that can be read", found=str(len(used)))
        features, size = features.double().to("cpu"), features.shape[2]
        weight, bias = torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
        if head is not None:
            weight, bias = (value.detach().double().cpu() for value in (head.weight, head.bias))
        vectors = features @ weight.T + bias  # [n, count, D]
        mean = vectors[used].mean(dim=(0, 1))
        length = vectors[used].flatten(0, 1).var(dim=0, correction=0).sum().sqrt().clamp(min=1e-6)
        scale = SCALED_LENGTH / length
        self._weight, self._bias = weight * scale, (bias - mean) * scale
        self._vectors = ((vectors - mean) * scale).float().to(context.device)
        self.probe = nn.Linear(len(mean), classifier.num_classes, device=context.device)
        nn.init.zeros_(self.probe.weight)
        nn.init.zeros_(self.probe.bias)

    @property
    def seconds_waiting(self) -> float:
        """No waiting: all features are in memory."""
        return 0.0

    def parameters(self) -> list[dict[str, Any]]:
        """The last layer's parameters."""
        return [{"params": list(self.probe.parameters()), "lr_scale": self.options.optim.head_lr}]

    def batches(self, start: int) -> Iterator[PlannedBatch]:  # type: ignore[override]
        """The batches of the run from number `start` on."""
        for number in range(start, len(self.plan)):
            yield self.plan[number]

    def step(self, batch: PlannedBatch, progress: TrainProgress) -> dict[str, Tensor | float]:  # type: ignore[override]
        """Scores of samples drawn from each clip's, summed, against the clips' classes."""
        parts, count = self.options.model.segments, self._vectors.shape[1]
        assert batch.samples is not None, "the plan numbers its samples"
        drawn = uniform(self.options.run.seed, batch.epoch, batch.samples, CACHED, parts)  # [B, parts]
        chosen = torch.from_numpy((drawn * count).astype(np.int64)).to(self._vectors.device)
        rows = torch.from_numpy(batch.clips)
        vectors = self._vectors[self._place[rows].to(chosen.device)[:, None], chosen]  # [B, parts, D]
        dropped = functional.dropout(vectors, self.classifier.config.dropout)
        ok = self._readable[rows]
        if not ok.any():
            raise TceError("a whole batch could not be read", fix="run `tce check`")
        return self._loss(
            self.probe(dropped).sum(dim=1), batch.clips, None if ok.all() else ok.to(chosen.device), progress
        )

    def validate(self) -> dict[str, float]:
        """As `Finetuning.validate`."""
        self._fold()
        return super().validate()

    def _accuracy(self, rows: Ints, samples: int, what: str) -> tuple[float, float]:
        if rows is not self.held_out:
            return super()._accuracy(rows, samples, what)
        rows = rows[self._readable[torch.from_numpy(rows)].numpy()]
        with torch.no_grad():
            place = self._place[torch.from_numpy(rows)].to(self._vectors.device)
            scores = self.probe(self._vectors[place]).sum(dim=1)  # [n, C]
        ranks = scores.argsort(dim=1, descending=True) == self.labels[torch.from_numpy(rows)][:, None]
        return float(ranks[:, :1].any(dim=1).float().mean()), float(ranks[:, :5].any(dim=1).float().mean())

    @torch.no_grad()
    def _fold(self) -> None:
        """Write the last layer, its scaling included, into the classifier."""
        weight, bias = (value.double().cpu() for value in (self.probe.weight, self.probe.bias))
        self.classifier.fc.weight.copy_(weight @ self._weight)
        self.classifier.fc.bias.copy_(weight @ self._bias + bias)

    def state_dict(self) -> dict[str, Any]:
        """As `Finetuning.state_dict`, with the last layer before folding."""
        self._fold()
        return {**super().state_dict(), "probe": self.probe.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.probe.load_state_dict(state["probe"])
