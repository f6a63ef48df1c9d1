"""The paper's method, step by step: embed views, mine, contrast, rotation, update bank."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from tce.contrast import (
    InfoNCE,
    MemoryBank,
    NCELoss,
    NTXent,
    Sources,
    alignment,
    curriculum_threshold,
    effective_rank,
    uniformity,
)
from tce.contrast.sharded_bank import ShardedBank, global_mean
from tce.device import autocast
from tce.distributed import DistributedContext
from tce.errors import OptionError
from tce.model.backbone import Wrapped
from tce.model.encoder import FrameEncoder
from tce.options.pretrain import PretrainOptions
from tce.train.views import Views, follow

log = logging.getLogger("tce.train")

SHARE_OF_CLIPS, MOST_NEGATIVES = 8, 8192  # K where it is not given: N / 8, at most the paper's
Z_ROWS = 512  # rows whose cosines estimate NCE's constant

Metrics = dict[str, Tensor | float]


class StepInfo(NamedTuple):
    """When a batch is trained on."""

    number: int
    """Batches before it, from which its random draws follow."""
    fraction: float
    """Share of the training done, t in [0, 1)."""
    should_log: bool
    """Whether figures that cost time are wanted."""


class Pairs(NamedTuple):
    """Embedded anchors and positives, of this process's part of the batch or of the whole one."""

    v: Tensor
    """Anchors, unit [B, D]."""
    p: Tensor
    """Positives, unit [B, D]."""
    ids: Tensor
    """Their clips, which are the bank's rows, int64 [B]."""
    ok: Tensor | None
    """Which of them were loaded, bool [B]; None: all."""


class Method(nn.Module):
    """A clip is an instance: anchors are pulled to positives and pushed from negatives (paper, section 3).

    Negatives are rows of the memory bank, mined below a rising threshold, or the other clips of the batch.
    Shapes: B clips a batch, V views each, N clips in all, D numbers an embedding, K negatives. With several
    processes, each embeds its part of the batch; rows, threshold, draws and losses are those of one process.

    Args:
        options: everything.
        encoder: the network, on `context.device`.
        sources: source recording of each clip, int64 [N].
        context: the processes at work.

    Raises:
        OptionError: `--sync-bn`, `--bank sharded` or `--chunks` without what they need.
    """

    def __init__(
        self,
        options: PretrainOptions,
        encoder: FrameEncoder,
        sources: np.ndarray,
        context: DistributedContext,
    ):
        super().__init__()
        self.options, self.context, self.clips = options.contrast, context, len(sources)
        self.seed, self.precision = options.run.seed, options.run.precision
        self.encoder = synchronised(encoder, context) if options.run.sync_bn else encoder
        if options.run.sync_bn:
            self.encoder.freeze(options.model.freeze)  # the conversion made new modules
        self.slow: FrameEncoder | None = None
        if self.options.momentum_encoder:
            self.slow = copy.deepcopy(self.encoder).requires_grad_(False)
        self.chunks = options.optim.chunks
        _check_chunks(self.chunks, options.optim.batch_size // context.world_size)
        self.views: nn.Module = Views(self.encoder, self.options.views == "joint", self.chunks)
        if context.world_size > 1:
            devices = [context.device] if context.device.type == "cuda" else None
            with warnings.catch_warnings(category=FutureWarning, action="ignore"):
                # Its successor came with torch 2.13 only; batch statistics are averaged in `after_step`.
                self.views = DistributedDataParallel(
                    self.views,
                    devices,
                    broadcast_buffers=False,
                    find_unused_parameters=isinstance(encoder.backbone, Wrapped),  # others' may have some
                )
        self.sources = torch.from_numpy(sources).to(context.device)  # [N]
        self.exclude = Sources(self.sources) if self.options.exclude_same_source else None
        self.bank = self._make_bank(options.run.bank) if self.options.uses_bank else None
        # Does every process see the whole batch's loss, or that of its own part?
        self.pooled = self.bank is None or isinstance(self.bank, ShardedBank)
        self.loss = self._make_loss()
        self._pending: list[tuple[Tensor, Tensor]] = []  # rows and vectors that the bank takes after the step

    def _make_bank(self, kind: str) -> MemoryBank:
        size, momentum = self.encoder.embedding_size, self.options.bank_momentum
        generator = torch.Generator().manual_seed(self.seed)
        if kind == "sharded":
            return ShardedBank(self.clips, size, generator, momentum).to(self.context.device)
        return MemoryBank(self.clips, size, generator, momentum).to(self.context.device)

    def _make_loss(self) -> NTXent | InfoNCE | NCELoss:
        temperature = self.options.temperature
        if self.options.loss == "ntxent":
            return NTXent(temperature)
        wanted = self.options.negatives or min(MOST_NEGATIVES, max(1, self.clips // SHARE_OF_CLIPS))
        self.k = min(wanted, self.clips - 1)
        if self.context.is_main:
            number = (
                "all others are negatives"
                if self.options.mining == "all"
                else f"{self.k} negatives an anchor"
            )
            log.info("memory bank of %d rows, %s", self.clips, number)
        if self.options.loss == "infonce":
            return InfoNCE(temperature)
        return NCELoss(self.k, self.clips, temperature).to(self.context.device)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the figures that `step` gives."""
        names = ["loss", "contrast"]
        names += ["rotation", "turned"] * (self.options.rotation > 0)
        names += ["threshold", "hard"] * (self.bank is not None and self.options.mining == "curriculum")
        names += ["drift"] * (self.bank is not None) + ["z_fit"] * isinstance(self.loss, NCELoss)
        return (*names, "alignment", "uniformity", "rank")

    @property
    def anchors_only(self) -> bool:
        """Whether no positive frame is embedded: the clip's own row is the positive."""
        return self.options.own_row_positive == "only"

    def step(
        self,
        views: Tensor,
        turned: tuple[Tensor, Tensor] | None,
        ids: Tensor,
        ok: Tensor | None,
        info: StepInfo,
    ) -> Metrics:
        """One forward pass of the method on this process's part of a batch, b of B clips.

        Args:
            views: anchors and positives, normalised [b, V, 3, h, w]; V is 1 with `anchors_only`.
            turned: a third view [b, 3, h, w] turned by quarters, and by how many, int64 [b].
            ids: their clips, int64 [b].
            ok: which were loaded, bool [b]; None: all.
            info: when this is.

        Returns:
            "loss", which is to be lowered, its parts and, when logged, what else `columns` names.
        """
        v, p, scores = self.embed_views(views, turned[0] if turned else None, info)
        part = Pairs(v, p, ids, ok)
        whole = self.of_all_processes(part)
        parts = self.contrast(whole if self.pooled else part, info)
        loss = parts["contrast"]
        if turned is not None and scores is not None:
            parts |= self.rotation(scores, turned[1], ok)
            loss = loss + self.options.rotation * parts["rotation"]
        if self.bank is not None:
            fresh = (
                whole.v if self.slow is None else whole.p
            )  # the slow encoder makes the rows, if there is one
            rows = (whole.ids, fresh.detach())
            self._pending.append(rows if whole.ok is None else (rows[0][whole.ok], rows[1][whole.ok]))
        if info.should_log:
            parts |= self.shape_of(whole)
        return {"loss": loss, **parts}

    def embed_views(
        self, views: Tensor, turned: Tensor | None, info: StepInfo
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Unit embeddings of anchors and positives, [b, D] each, and rotation scores [b, 4].

        Positives come from the slow encoder where there is one; with `anchors_only` they are left as anchors.
        """
        with autocast(self.context.device, self.precision):
            vectors, scores = self.views(views if self.slow is None else views[:, :1], turned)  # [b, V, D]
            if self.slow is None or self.anchors_only:
                return vectors[:, 0], vectors[:, -1], scores
            return vectors[:, 0], self.embed_slowly(views[:, 1], info), scores

    @torch.no_grad()
    def embed_slowly(self, images: Tensor, info: StepInfo) -> Tensor:
        """The slow encoder's embeddings [b, D] of images [b, 3, h, w], in batches shuffled over all chunks.

        Who shares a chunk shares its batch statistics, by which anchor and positive would know each other; so
        positives are divided among the chunks in another order than anchors (He et al. 2020).
        """
        assert self.slow is not None
        if self.context.world_size * self.chunks == 1:
            return self.slow(images)
        whole = self.context.all_gather(images)  # [B, 3, h, w]
        order = torch.randperm(len(whole), generator=self.generator(info)).to(whole.device)
        mine = slice(self.context.rank * len(images), (self.context.rank + 1) * len(images))
        chunks = whole[order[mine]].chunk(self.chunks)
        vectors = self.context.all_gather(
            torch.cat([self.slow(chunk) for chunk in chunks])
        )  # [B, D], in that order
        return torch.empty_like(vectors).index_copy_(0, order, vectors)[mine]

    def of_all_processes(self, part: Pairs) -> Pairs:
        """The pairs of the whole batch, in order of rank, with gradient."""
        if self.context.world_size == 1:
            return part
        ok = (
            torch.ones(len(part.ids), dtype=torch.bool, device=part.ids.device)
            if part.ok is None
            else part.ok
        )
        v, p, ids, ok = (self.context.all_gather(rows) for rows in (part.v, part.p, part.ids, ok))
        return Pairs(v, p, ids, ok)

    def contrast(self, pairs: Pairs, info: StepInfo) -> Metrics:
        """The contrastive loss."""
        v, p, ids, ok = pairs
        if isinstance(self.loss, NTXent):
            keys = ids if self.exclude is None else self.sources[ids]
            return {"contrast": self.loss(v, p, keys, weights=ok)}
        assert self.bank is not None
        parts: Metrics = {}
        negative, absent = self.mine(pairs, info, parts)  # [B, K]
        own = (v * self.bank.own(ids)).sum(dim=1)  # [B]
        fresh = own if self.anchors_only else (v * p).sum(dim=1)  # [B]
        if isinstance(self.loss, NCELoss) and not self.loss.z_known:  # as released: the first batch sets Z
            gather = (lambda rows: rows) if self.pooled else self.context.all_gather
            self.loss.estimate_z(gather(fresh), gather(negative), None, absent, self.bank.over)
        parts["contrast"] = self._mean(fresh, negative, absent, ok)
        if self.options.own_row_positive == "also":
            parts["contrast"] = (parts["contrast"] + self._mean(own, negative, absent, ok)) / 2
        if info.should_log:
            parts["drift"] = own.detach().mean()
            if isinstance(self.loss, NCELoss):
                over = self.bank.over
                parts["z_fit"] = self.loss.normalisation(None, negative.detach(), absent=absent, over=over)
        return parts

    def _mean(self, positive: Tensor, negative: Tensor, absent: Tensor | None, ok: Tensor | None) -> Tensor:
        """Mean loss over the good anchors; the processes' mean is that over the whole batch."""
        assert self.bank is not None and not isinstance(self.loss, NTXent)
        if self.pooled or self.context.world_size == 1:
            return self.loss(positive, negative, ok, absent, self.bank.over)
        return global_mean(self.loss.per_anchor(positive, negative, absent=absent), ok)

    def mine(self, pairs: Pairs, info: StepInfo, parts: Metrics) -> tuple[Tensor, Tensor | None]:
        """Cosines of anchors and negatives, [B, K], the hardest rows below the curriculum's threshold.

        Also which of them are padding or no negatives, bool [B, K], where there are such.
        """
        assert self.bank is not None
        options, v, ids = self.options, pairs.v, pairs.ids
        if options.mining == "all":
            return self.bank.every(v, ids, self.exclude)
        level = curriculum_threshold(
            info.fraction, options.lowest_threshold, options.threshold_high, options.threshold_rate
        )
        threshold: float | Tensor = level
        if options.mining == "random":
            threshold = -2.0  # below every cosine: nothing is mined, all is drawn
        elif options.threshold_by == "quantile":
            threshold = self.bank.quantile(v, level)  # [B]
        first = 0 if self.pooled else self.context.rank * len(v)
        mined = self.bank.negatives(
            v, ids, threshold, self.k, self.generator(info), self.exclude, first_anchor=first
        )
        if options.mining == "curriculum":
            parts["threshold"] = level
            if info.should_log:
                parts["hard"] = mined.hard_share
        return mined.cosine, mined.absent

    def rotation(self, scores: Tensor, turns: Tensor, ok: Tensor | None) -> Metrics:
        """Loss and accuracy of telling the turns [b] from the scores [b, 4]."""
        losses = functional.cross_entropy(scores.float(), turns, reduction="none")  # [b]
        right = (scores.argmax(dim=1) == turns).float()
        return {"rotation": global_mean(losses, ok), "turned": global_mean(right, ok)}

    def shape_of(self, whole: Pairs) -> Metrics:
        """How the batch's embeddings lie on the sphere."""
        v, p = whole.v.detach(), whole.p.detach()
        if whole.ok is not None:
            v, p = v[whole.ok], p[whole.ok]
        if self.anchors_only and self.bank is not None:
            p = self.bank.own(whole.ids if whole.ok is None else whole.ids[whole.ok])
        return {"alignment": alignment(v, p), "uniformity": uniformity(v), "rank": effective_rank(v)}

    def after_step(self) -> None:
        """Once the weights have moved: the bank takes the new rows, the slow encoder follows."""
        self.update_bank()
        if self.slow is not None:
            follow(self.slow, self.encoder, self.options.momentum_encoder)
            self.context.average(self.slow.buffers())
        self.context.average(self.encoder.buffers())

    def update_bank(self) -> None:
        """The anchors' embeddings replace their clips' rows."""
        for ids, vectors in self._pending:
            assert self.bank is not None
            self.bank.update(ids, vectors)
        self._pending.clear()

    @torch.no_grad()
    def fill(self, views: Tensor, ids: Tensor, ok: Tensor | None) -> None:
        """Put the embeddings of views [b, 1, 3, h, w] into the bank's rows `ids` [b]."""
        assert self.bank is not None
        with autocast(self.context.device, self.precision):
            v = self.views(views)[0][:, 0]  # [b, D]
        whole = self.of_all_processes(Pairs(v, v, ids, ok))
        good = slice(None) if whole.ok is None else whole.ok
        self.bank.update(whole.ids[good], whole.v[good], replace=True)

    @torch.no_grad()
    def estimate_z(self) -> None:
        """Set NCE's constant by the cosines between random rows of the bank."""
        if self.bank is None or not isinstance(self.loss, NCELoss):
            return
        order = torch.randperm(self.clips, generator=torch.Generator().manual_seed(self.seed))
        rows = self.bank.own(order[:Z_ROWS].to(self.context.device))
        others = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        self.loss.estimate_z(None, (rows @ rows.T)[others].view(len(rows), -1))

    def generator(self, info: StepInfo) -> torch.Generator:
        """The draws of one batch: a function of seed and batch number, so there is no state to lose."""
        state = np.random.SeedSequence((self.seed, info.number)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state >> 1))

    def whole_state(self) -> dict[str, Any]:
        """The state of encoder, slow encoder, bank and loss, the same with any number of processes."""
        state = {name: module.state_dict() for name, module in self._parts().items()}
        if isinstance(self.bank, ShardedBank):
            state["bank"] = {"rows": self.bank.whole()}
        return state

    def load_whole_state(self, state: dict[str, Any]) -> None:
        """Put that back.

        Raises:
            RuntimeError: tensors are missing or have another shape, as torch tells it.
            KeyError: a part is missing.
        """
        for name, module in self._parts().items():
            if isinstance(module, ShardedBank):
                module.load_whole(state[name]["rows"])
            else:
                module.load_state_dict(state[name])

    def _parts(self) -> dict[str, nn.Module]:
        parts = {"encoder": self.encoder, "slow": self.slow, "bank": self.bank, "loss": self.loss}
        return {name: part for name, part in parts.items() if part is not None}


def _check_chunks(chunks: int, part: int) -> None:
    """Refuse chunks that do not divide a process's part of the batch into two clips or more each."""
    if chunks > 1 and (part % chunks or part // chunks < 2):
        raise OptionError(
            "--chunks",
            expected=f"a divisor of a process's {part} clips a batch, leaving two or more",
            found=str(chunks),
        )


def synchronised(encoder: FrameEncoder, context: DistributedContext) -> FrameEncoder:
    """The encoder with batch statistics over all processes.

    Raises:
        OptionError: there are no GPUs, or there is one process.
    """
    if context.device.type != "cuda" or context.world_size == 1:
        found = f"{context.world_size} on {context.device.type}"
        raise OptionError("--sync-bn", expected="several processes on GPUs", found=found, fix="leave it out")
    return nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
