"""The three methods: TCE (the paper's), SimCLR and MoCo, one training step each, on the views of a batch.

A clip is an instance: its anchor v is pulled to its positive p and pushed from other clips' vectors. The
methods differ in where these negatives come from. Shapes: B clips a batch, b of them in this process, N clips
in all, D numbers an embedding, K negatives. With several processes, losses, mined rows and random draws are
those of one process with the whole batch.
"""

from __future__ import annotations

import copy
import logging
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tce.contrast import (
    InfoNCE,
    KeyQueue,
    MemoryBank,
    NCELoss,
    NTXent,
    Sources,
    alignment,
    curriculum_threshold,
    effective_rank,
    uniformity,
)
from tce.device import autocast
from tce.distributed import DistributedContext
from tce.model.encoder import FrameEncoder
from tce.options.pretrain import PretrainOptions

log = logging.getLogger("tce.train")

SHARE_OF_CLIPS, MOST_NEGATIVES = 8, 8192  # K where it is not given: N / 8, at most the paper's
LARGEST_QUEUE = 65_536  # MoCo's
Z_ROWS = 512  # rows whose cosines estimate NCE's constant

Metrics = dict[str, Tensor | float]


class Views(NamedTuple):
    """Augmented frames of this process's part of a batch, b of B clips, normalised."""

    images: Tensor
    """Anchors and positives, [b, 2, 3, h, w]."""
    rotated: Tensor | None = None
    """A third view, rotated by quarter turns, [b, 3, h, w]."""
    rotation_label: Tensor | None = None
    """By how many quarter turns, int64 [b]."""
    valid: Tensor | None = None
    """Which clips could be read, bool [b]; None: all."""


class ViewEncoder(nn.Module):
    """The network's passes over a batch's views.

    Args:
        encoder: the network.
        joint: all views in one pass, which share batch statistics, or one pass each (paper).
        precision: of the passes, see `autocast`.
    """

    def __init__(self, encoder: FrameEncoder, joint: bool, precision: str = "float32"):
        super().__init__()
        self.encoder = encoder
        self.joint = joint
        self.precision = precision

    def forward(self, images: Tensor, rotated: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Unit embeddings [b, V, D] of images [b, V, 3, h, w], and rotation scores [b, 4] of `rotated`."""
        with autocast(self.encoder.device, self.precision):
            return self._joint(images, rotated) if self.joint else self._separate(images, rotated)

    def _joint(self, images: Tensor, rotated: Tensor | None) -> tuple[Tensor, Any]:
        upright = images.flatten(0, 1)  # [b V, 3, h, w]
        features = self.encoder.features(upright if rotated is None else torch.cat([upright, rotated]))
        vectors = self.encoder.project(features[: len(upright)]).unflatten(0, images.shape[:2])
        return vectors, None if rotated is None else self.encoder.rotation_logits(features[len(upright) :])

    def _separate(self, images: Tensor, rotated: Tensor | None) -> tuple[Tensor, Any]:
        passes = [self.encoder.project(self.encoder.features(view)) for view in images.unbind(1)]
        vectors = torch.stack(passes, dim=1)  # [b, V, D]
        return vectors, None if rotated is None else self.encoder.rotation(rotated)


class StepInfo(NamedTuple):
    """When a batch is trained on."""

    number: int
    """Batches before it; its random draws follow from it."""
    fraction: float
    """Share of the training done, t in [0, 1)."""
    should_log: bool
    """Whether metrics that cost time are wanted."""


class Step(NamedTuple):
    """What a method's step gives."""

    loss: Tensor
    """To be lowered, scalar."""
    metrics: Metrics
    """What `columns` names."""
    ids: Tensor
    """Clips of the whole batch that could be read, int64 [B]."""
    vectors: Tensor
    """What `after_step` keeps of them, [B, D], without gradient."""


class Method:
    """What the methods share.

    Args:
        options: everything.
        network: a `ViewEncoder`, maybe data-parallel.
        encoder: the network in it.
        sources: source recording of each clip, int64 [N].
        context: the processes at work.
    """

    columns: tuple[str, ...] = ("contrast",)

    def __init__(
        self,
        options: PretrainOptions,
        network: nn.Module,
        encoder: FrameEncoder,
        sources: np.ndarray,
        context: DistributedContext,
    ):
        self.options, self.network = options, network
        self.encoder, self.context = encoder, context
        self.N, self.T = len(sources), options.contrast.temperature
        self.sources = torch.from_numpy(sources).to(context.device)  # [N]
        self.excluded = Sources(self.sources) if options.contrast.exclude_same_source else None

    @property
    def chance(self) -> float:
        """Contrastive loss of a network to which all clips look alike."""
        raise NotImplementedError

    def state(self) -> dict[str, nn.Module]:
        """What a checkpoint keeps beside the network, by name."""
        return {}

    def step(self, views: Views, ids: Tensor, progress: StepInfo) -> Step:
        """The loss of this process's part of a batch, whose clips are `ids` [b]."""
        raise NotImplementedError

    def after_step(self, ids: Tensor, vectors: Tensor) -> None:
        """What follows once the weights have changed, with what `step` gave."""

    def instances(self, ids: Tensor) -> Tensor:
        """What negatives must differ in: the clip, or with `--exclude-same-source` its recording."""
        return ids if self.excluded is None else self.sources[ids]

    def gather(self, views: Views, ids: Tensor, *vectors: Tensor) -> list[Tensor]:
        """Ids and vectors of the whole batch, without clips that could not be read, with gradient."""
        valid = views.valid
        if valid is None and self.context.world_size > 1:  # it may differ from process to process
            valid = torch.ones_like(ids, dtype=torch.bool)
        whole = [self.context.all_gather(rows) for rows in (ids, *vectors)]
        return whole if valid is None else [rows[self.context.all_gather(valid)] for rows in whole]

    def draws(self, progress: StepInfo) -> torch.Generator:
        """The draws of one batch: a function of seed and batch number, so there is no state to lose."""
        entropy = np.random.SeedSequence((self.options.run.seed, progress.number))
        return torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))


class TCE(Method):
    """Temporally Coherent Embeddings: memory bank, curriculum mining, NCE, rotation (paper, section 3)."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        options, seed = self.options.tce, self.options.run.seed
        self.K = min(options.negatives or min(MOST_NEGATIVES, max(1, self.N // SHARE_OF_CLIPS)), self.N - 1)
        generator = torch.Generator().manual_seed(seed)
        self.bank = MemoryBank(self.N, self.encoder.embedding_size, generator).to(self.context.device)
        self.nce = NCELoss(self.K, self.N, self.T, "none").to(self.context.device)
        rotation = ("rotation", "rotation_accuracy") if options.rotation else ()
        self.columns = ("contrast", *rotation, "threshold", "hard", "drift", "z_ratio")
        if self.context.is_main:
            log.info("memory bank of %d rows, %d negatives per anchor", self.N, self.K)

    @property
    def chance(self) -> float:
        """All cosines are the same, and Z fits."""
        return self.nce.chance

    def state(self) -> dict[str, nn.Module]:
        """Bank and Z."""
        return {"bank": self.bank, "loss": self.nce}

    def step(self, views: Views, ids: Tensor, progress: StepInfo) -> Step:
        """The paper's step on b clips; see `Method.step`."""
        options, mean = self.options.tce, self.context.global_mean
        vectors, rotation_logits = self.network(views.images, views.rotated)  # [b, 2, D], [b, 4]
        v, p = vectors[:, 0], vectors[:, 1]

        t = progress.fraction
        level = curriculum_threshold(
            t, options.lowest_threshold, options.threshold_high, options.threshold_rate
        )
        threshold = level if options.threshold_by == "similarity" else self.bank.quantile(v, level)
        first_anchor = self.context.rank * len(v)
        mined = self.bank.negatives(
            v, ids, threshold, self.K, self.draws(progress), self.excluded, first_anchor
        )
        positive, negative = (v * p).sum(dim=1), mined.cosine  # [b], [b, K]
        old_row = (v * self.bank.rows[ids]).sum(dim=1)  # [b]

        if not self.nce.z_known:  # as released: the first batch sets Z
            self.nce.estimate_z(self.context.all_gather(positive), self.context.all_gather(negative))
        contrast = mean(self.nce(positive, negative), views.valid)
        if options.own_row_positive == "also":
            contrast = (contrast + mean(self.nce(old_row, negative), views.valid)) / 2

        loss, metrics = contrast, Metrics(contrast=contrast, threshold=level)
        if rotation_logits is not None and views.rotation_label is not None:
            losses = functional.cross_entropy(
                rotation_logits.float(), views.rotation_label, reduction="none"
            )  # [b]
            correct = (rotation_logits.argmax(dim=1) == views.rotation_label).float()
            metrics["rotation"] = mean(losses, views.valid)
            metrics["rotation_accuracy"] = mean(correct, views.valid)
            loss = contrast + options.rotation * metrics["rotation"]
        if progress.should_log:
            metrics |= {"hard": mined.hard_share, "drift": old_row.detach().mean()}
            metrics["z_ratio"] = self.nce.z_ratio(None, negative)
        ids, v, p = self.gather(views, ids, v.detach(), p.detach())
        return Step(loss, metrics | (embedding_stats(v, p) if progress.should_log else {}), ids, v)

    def after_step(self, ids: Tensor, vectors: Tensor) -> None:
        """The anchors' embeddings replace their clips' rows."""
        self.bank.update(ids, vectors)

    @torch.no_grad()
    def fill(self, views: Views, ids: Tensor) -> None:
        """Put the embeddings of anchors [b, 1, 3, h, w] into the bank."""
        self.bank.update(*self.gather(views, ids, self.network(views.images)[0][:, 0]))

    @torch.no_grad()
    def estimate_z(self) -> None:
        """Set Z by the cosines between random rows of the bank."""
        order = torch.randperm(self.N, generator=torch.Generator().manual_seed(self.options.run.seed))
        rows = self.bank.rows[order[:Z_ROWS].to(self.context.device)]
        others = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        self.nce.estimate_z(None, (rows @ rows.T)[others].view(len(rows), -1))


class SimCLR(Method):
    """In-batch negatives: the batch's other clips, always fresh (Chen et al. 2020)."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.nt_xent = NTXent(self.T)

    @property
    def chance(self) -> float:
        """One of a view's 2B - 1 candidates."""
        return math.log(2 * self.options.optim.batch_size - 1)

    def step(self, views: Views, ids: Tensor, progress: StepInfo) -> Step:
        """NT-Xent over the whole batch, the same in every process; see `Method.step`."""
        vectors, _ = self.network(views.images)  # [b, 2, D]
        ids, v, p = self.gather(views, ids, vectors[:, 0], vectors[:, 1])
        instances = self.instances(ids)
        loss = self.nt_xent(v, p, mask=instances[:, None] == instances)
        metrics = Metrics(contrast=loss) | (embedding_stats(v, p) if progress.should_log else {})
        return Step(loss, metrics, ids, v.detach())


class MoCo(Method):
    """Momentum contrast: keys of a slowly following encoder, kept in a queue (He et al. 2020)."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.momentum_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.K = self.options.moco.queue or min(self.N, LARGEST_QUEUE)
        generator = torch.Generator().manual_seed(self.options.run.seed)
        self.queue = KeyQueue(self.K, self.encoder.embedding_size, generator).to(self.context.device)
        self.info_nce = InfoNCE(self.T, "none")
        if self.context.is_main:
            log.info("queue of %d keys", self.K)

    @property
    def chance(self) -> float:
        """One of the positive and K negatives."""
        return math.log1p(self.K)

    def state(self) -> dict[str, nn.Module]:
        """Momentum encoder and queue."""
        return {"momentum_encoder": self.momentum_encoder, "queue": self.queue}

    def step(self, views: Views, ids: Tensor, progress: StepInfo) -> Step:
        """InfoNCE of queries against the queue; see `Method.step`."""
        vectors, _ = self.network(views.images[:, :1])  # [b, 1, D]
        v, p = vectors[:, 0], self.encode_keys(views.images[:, 1], progress)
        positive, negative = (v * p).sum(dim=1), v @ self.queue.keys.T  # [b], [b, K]
        known = self.queue.ids >= 0
        queued = torch.where(known, self.instances(self.queue.ids.clamp(min=0)), -1)  # [K]
        losses = self.info_nce(positive, negative, mask=self.instances(ids)[:, None] == queued)
        loss = self.context.global_mean(losses, views.valid)
        ids, v, p = self.gather(views, ids, v.detach(), p)
        metrics = Metrics(contrast=loss) | (embedding_stats(v, p) if progress.should_log else {})
        return Step(loss, metrics, ids, p)

    @torch.no_grad()
    def encode_keys(self, images: Tensor, progress: StepInfo) -> Tensor:
        """The momentum encoder's embeddings [b, D] of positives [b, 3, h, w].

        Several processes shuffle the whole batch first: clips that share a pass share its batch statistics,
        by which an anchor would know its own positive (He et al. 2020, section 3.3).
        """
        with autocast(self.context.device, self.options.run.precision):
            if self.context.world_size == 1:
                return self.momentum_encoder(images)
            whole = self.context.all_gather(images)  # [B, 3, h, w]
            order = torch.randperm(len(whole), generator=self.draws(progress)).to(whole.device)
            part = slice(self.context.rank * len(images), (self.context.rank + 1) * len(images))
            keys = self.context.all_gather(self.momentum_encoder(whole[order[part]]))  # [B, D], in that order
            return torch.empty_like(keys).index_copy_(0, order, keys)[part]

    def after_step(self, ids: Tensor, vectors: Tensor) -> None:
        """The keys join the queue, and the momentum encoder follows."""
        self.queue.update(ids, vectors)
        ema_update(self.momentum_encoder, self.encoder, self.options.moco.momentum_encoder)
        self.context.average(self.momentum_encoder.buffers())


@torch.no_grad()
def ema_update(average: nn.Module, current: nn.Module, momentum: float) -> None:
    """Move an averaged copy towards its original: average = m average + (1 - m) current, buffers aside.

    Args:
        average: the copy (momentum encoder; He et al. 2020).
        current: the original, of the same shape.
        momentum: m, the share kept of the old value.
    """
    torch._foreach_lerp_(list(average.parameters()), list(current.parameters()), 1.0 - momentum)


METHODS: dict[str, type[Method]] = {"tce": TCE, "simclr": SimCLR, "moco": MoCo}
STATS = ("alignment", "uniformity", "rank")


def embedding_stats(v: Tensor, p: Tensor) -> Metrics:
    """How the batch's anchors and positives [B, D] lie on the sphere."""
    v, p = v.detach(), p.detach()
    return {"alignment": alignment(v, p), "uniformity": uniformity(v), "rank": effective_rank(v)}
