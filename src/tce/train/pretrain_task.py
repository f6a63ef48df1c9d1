"""Pre-training as a task of the training loop: the plan of its batches, losses, and what is saved."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from tce.data.frame_store import FrameStore
from tce.data.loader import Batch, Loader, Plan
from tce.data.sampling import FillPlan, PairPlan
from tce.data.splits import group_names
from tce.distributed import DistributedContext, data_parallel, synchronise_batch_norm
from tce.errors import TceError
from tce.model.backbone import ExternalBackbone
from tce.model.checkpoint import save_model
from tce.model.encoder import FrameEncoder
from tce.options.pretrain import ContrastOptions, ModelOptions, PretrainOptions
from tce.train.augment import Augmentation
from tce.train.method import METHODS, STATS, TCE, Metrics, StepInfo, ViewEncoder, Views
from tce.train.monitor import CollapseWatch, Monitor
from tce.train.optim import TrainProgress
from tce.train.run_folder import RunFolder
from tce.train.trainer import ClipTask

log = logging.getLogger("tce.train")


def batch_groups(options: ContrastOptions, store: FrameStore) -> list[str] | None:
    """The group of each clip, where batches are to be drawn from one; see `group_names` for the errors."""
    wanted = options.batch_groups and options.group is not None
    return group_names(store.catalog, options.group or "", "--group") if wanted else None


def freeze_parts(encoder: FrameEncoder, options: ModelOptions) -> None:
    """Freeze what the options say: layers, and batch norm's statistics."""
    encoder.freeze(options.freeze)
    if options.keep_statistics:
        encoder.keep_statistics()


class Pretraining(ClipTask):
    """Loads and augments pairs of frames, gives them to the method, and watches what comes of it.

    Args:
        options: everything.
        store: the clips, N of them; row numbers are the bank's.
        encoder: the network, on `context.device`.
        context: the processes at work.

    Raises:
        OptionError: the batch, K or the positives do not fit the clips.
    """

    name = "pre-training"

    def __init__(
        self, options: PretrainOptions, store: FrameStore, encoder: FrameEncoder, context: DistributedContext
    ):
        self.options = options
        self.store = store
        self.context = context
        run, optim = options.run, options.optim
        self.plan = PairPlan(
            store.lengths,
            store.fps,
            options.contrast,
            optim,
            run.seed,
            context.rank,
            context.world_size,
            batch_groups(options.contrast, store),
        )
        self.steps_per_epoch = self.plan.per_epoch // optim.accumulate
        self.loader = self._loader(self.plan)
        size, config = options.model.image_size, encoder.config
        self.augment = Augmentation(options.augment, size, config.mean, config.std)
        self.encoder = encoder
        if run.sync_bn:
            self.encoder = cast("FrameEncoder", synchronise_batch_norm(encoder, context))
            freeze_parts(self.encoder, options.model)  # its layers are new
        self.network = data_parallel(
            ViewEncoder(self.encoder, options.contrast.views == "joint", run.precision),
            context,
            find_unused=isinstance(encoder.backbone, ExternalBackbone),  # networks of other libraries
        )
        self.method = METHODS[options.contrast.method](
            options, self.network, self.encoder, store.catalog.source_numbers, context
        )
        self._updates: list[tuple[Tensor, Tensor]] = []  # what the method takes once the weights have changed
        passes = 2 + (options.tce.rotation > 0)
        self.images_per_step = passes * optim.batch_size * optim.accumulate
        self.monitor: Monitor | None = None
        if run.monitor_epochs != 0:
            frames = options.frame_size
            self.monitor = Monitor(
                store, frames, run.monitor_clips, run.workers, run.precision, options.data.resize
            )
        self.watch = CollapseWatch()
        self.failed: dict[str, str] = {}

    def _loader(self, plan: Plan) -> Loader:
        size, options = self.options.frame_size, self.options
        return Loader(
            self.store, plan, (size, size), options.data.resize, threads=options.run.workers, pin=True
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the metrics it logs."""
        monitored = self.monitor.columns if self.monitor is not None else ()
        return ("loss", *self.method.columns, *STATS, "lr", *monitored)

    @property
    def chance(self) -> dict[str, float]:
        """What logged metrics are worth by chance: the loss where all clips look alike, kNN of a guess."""
        loss = {"contrast": self.method.chance}
        if not self.options.tce.rotation:
            loss["loss"] = self.method.chance
        else:
            loss["rotation_accuracy"] = 0.25
        return loss | (self.monitor.chance if self.monitor is not None else {})

    def parameters(self) -> list[nn.Parameter] | list[dict[str, Any]]:
        """What is trained: all that is not frozen; with --backbone-lr the backbone has a rate of its own."""
        trained = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        rate, backbone = self.options.optim.backbone_lr, set(self.encoder.backbone.parameters())
        if rate in (None, 1.0) or not backbone & set(trained):
            return trained
        return [
            {"params": [parameter for parameter in trained if parameter in backbone], "lr_scale": rate},
            {"params": [parameter for parameter in trained if parameter not in backbone], "lr_scale": 1.0},
        ]

    def batches(self, start: int) -> Iterator[Batch]:
        """The batches of the run from number `start` on."""
        self.encoder.train()
        yield from self.loader.iterate(start)

    def step(self, batch: Batch, progress: TrainProgress) -> Metrics:
        """Augment a batch and take the method's step on it; see `Method.step`."""
        samples, epoch, seed = batch.samples, batch.epoch, self.options.run.seed
        frames, valid = self.receive(batch)  # [b, F, H, W, 3]
        frames = frames.expand(-1, 2, -1, -1, -1)  # --positives same: anchor and positive are one frame
        if self.options.tce.rotation:
            images, rotated, label = self.augment.with_rotated(frames, samples, epoch, seed)
            views = Views(images, rotated, label, valid)
        else:
            views = Views(self.augment(frames, samples, epoch, seed), valid=valid)
        ids = torch.from_numpy(batch.clips).to(self.context.device)  # [b]
        info = StepInfo(batch.number, progress.fraction, progress.should_log)
        loss, metrics, *update = self.method.step(views, ids, info)
        self._updates.append((update[0], update[1]))
        return {"loss": loss, **metrics}

    def after_step(self) -> None:
        """Hand the method what its steps gave, see `Method.after_step`; average batch statistics."""
        for ids, vectors in self._updates:
            self.method.after_step(ids, vectors)
        self._updates.clear()
        self.context.average(self.encoder.buffers())

    def fill_bank(self) -> None:
        """Replace the bank's random rows by one pass over the clips, and set NCE's constant by them."""
        if not isinstance(self.method, TCE) or not self.options.tce.fills_bank:
            return
        if self.context.is_main:
            log.info("filling the memory bank by one pass over %d clips", len(self.store))
        self.encoder.train()  # batch statistics: an untrained network has no others
        for batch in self._loader(FillPlan(self.plan, self.context.rank, self.context.world_size)):
            frames, valid = self.receive(batch)
            images = self.augment(frames, batch.samples, batch.epoch, self.options.run.seed)
            ids = torch.from_numpy(batch.clips).to(self.context.device)
            self.method.fill(Views(images, valid=valid), ids)
        self.method.estimate_z()

    def failed_anywhere(self) -> dict[str, str]:
        """Clips that could not be read in any of the processes, with the reasons."""
        failed: dict[str, str] = {}
        for each in self.context.all_gather_object(self.failed):
            failed |= each
        return failed

    def validate(self) -> dict[str, float]:
        """The monitor's metrics, see `Monitor`; the other processes wait for the main one."""
        if self.monitor is None:
            return {}
        return self.context.broadcast(self.monitor(self.encoder) if self.context.is_main else None)

    def warning(self, metrics: Mapping[str, float], progress: TrainProgress) -> str | None:
        """Whether the embeddings are collapsing."""
        return self.watch.see(metrics["rank"], progress.fraction)

    def state_dict(self) -> dict[str, Any]:
        """The method's state, and what the watch and the list of failures have seen."""
        return {
            **{name: module.state_dict() for name, module in self._modules()},
            "watch": self.watch.state_dict(),
            "failed": self.failed_anywhere(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put that back.

        Raises:
            TceError: the state is another network's or another bank's.
        """
        try:
            for name, module in self._modules():
                module.load_state_dict(state[name])
        except (KeyError, RuntimeError) as error:
            network = self.encoder.config.architecture
            raise TceError(
                "the checkpoint to resume from",
                expected=f"the state of a {network} and {len(self.store)} clips, trained by these options",
                found=str(error).strip().splitlines()[-1].strip(),
                fix="put the run's own checkpoint back, or start again with --force",
            ) from error
        self.watch.load_state_dict(state["watch"])
        self.failed = dict(state["failed"])

    def _modules(self) -> list[tuple[str, nn.Module]]:
        """What a checkpoint keeps, by name; the same with any number of processes."""
        return [("encoder", self.encoder), *self.method.state().items()]

    def save_model(self, folder: RunFolder, step: int) -> None:
        """Write model.safetensors, which records how many steps are done."""
        total = self.steps_per_epoch * self.options.optim.epochs
        provenance = {**self.encoder.config.provenance, "step": step, "steps": total}
        save_model(folder.model_file, self.encoder, provenance)
