"""The paper's method, step by step, as a task of the training loop."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tce.collection.loader import Batch, Loader
from tce.collection.store import FrameStore
from tce.contrast import (
    InfoNCE,
    MemoryBank,
    NCELoss,
    NTXent,
    alignment,
    curriculum_threshold,
    effective_rank,
    mine,
    quantile_threshold,
    uniformity,
)
from tce.errors import TceError
from tce.model.checkpoint import save_model
from tce.model.device import autocast
from tce.model.encoder import FrameEncoder
from tce.train.augment import Augmentation
from tce.train.loop import Clock
from tce.train.monitor import CollapseWatch, Monitor
from tce.train.options import PretrainOptions
from tce.train.pairs import FILL_EPOCH, FillPlan, PairPlan
from tce.train.run import RunFolder
from tce.train.views import Views, follow
from tce.train.world import World

log = logging.getLogger("tce.train")

SHARE_OF_CLIPS, MOST_NEGATIVES = 8, 8192  # K where it is not given: N / 8, at most the paper's
Z_ROWS = 512  # rows whose cosines estimate NCE's constant


class Pretraining:
    """The method (paper, section 3) as a task of the training loop.

    A clip is an instance. Its anchor frame is pulled to its positive and pushed from negatives: rows of the
    memory bank, mined below a rising threshold, or the other clips of the batch. Shapes: B clips a batch, V
    views each, N clips in all, D numbers an embedding, K negatives.

    Args:
        options: everything.
        store: the clips, N of them; row numbers are the bank's.
        encoder: the network, on the world's device.
        world: the processes at work.

    Raises:
        OptionError: the batch, K or the positives do not fit the clips.
    """

    name = "pre-training"

    def __init__(self, options: PretrainOptions, store: FrameStore, encoder: FrameEncoder, world: World):
        self.options, self.store, self.encoder, self.world = options, store, encoder, world
        contrast, run = options.contrast, options.run
        self.plan = PairPlan(
            store.lengths, store.fps, contrast, options.optim, run.seed, world.rank, world.size
        )
        self.steps_per_epoch = self.plan.per_epoch // options.optim.accumulate
        self.views = 1 if contrast.own_row_positive == "only" else 2
        passes = self.views + (contrast.rotation > 0)
        self.images_per_step = passes * options.optim.batch_size * options.optim.accumulate
        self.loader = self._loader(self.plan)
        self.augment = Augmentation(
            options.augment, options.model.image_size, encoder.config.mean, encoder.config.std
        )
        self.network = Views(encoder, contrast.views == "joint", options.optim.chunks)
        self.slow = copy.deepcopy(encoder).requires_grad_(False) if contrast.momentum_encoder else None
        self.sources = torch.from_numpy(store.catalog.source_numbers).to(world.device)  # [N], of recordings
        self.monitor = self._monitor() if run.monitor_epochs != 0 else None
        self.watch = CollapseWatch()
        self.failed: dict[str, str] = {}
        self._pending: list[tuple[Tensor, Tensor]] = []  # rows and vectors that the bank takes after the step
        self.bank: MemoryBank | None = None
        self.loss: nn.Module = self._make_loss()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the figures it logs."""
        contrast = self.options.contrast
        names = ["loss", "contrast"]
        names += ["rotation", "turned"] * (contrast.rotation > 0)
        names += ["threshold", "hard"] * (self.bank is not None and contrast.mining == "curriculum")
        names += ["drift"] * (self.bank is not None) + ["z_fit"] * isinstance(self.loss, NCELoss)
        names += ["lr", "alignment", "uniformity", "rank"]
        return (*names, *(self.monitor.columns if self.monitor is not None else ()))

    def _make_loss(self) -> nn.Module:
        contrast, clips = self.options.contrast, len(self.store)
        if contrast.loss == "ntxent":
            return NTXent(contrast.temperature)
        generator = torch.Generator().manual_seed(self.options.run.seed)
        size = self.encoder.embedding_size
        self.bank = MemoryBank(clips, size, generator, contrast.bank_momentum).to(self.world.device)
        wanted = contrast.negatives or min(MOST_NEGATIVES, max(1, clips // SHARE_OF_CLIPS))
        self.k = min(wanted, clips - 1)
        log.info("memory bank of %d rows, %d negatives an anchor", clips, self.k)
        if contrast.loss == "infonce":
            return InfoNCE(contrast.temperature)
        return NCELoss(self.k, clips, contrast.temperature).to(self.world.device)

    def _loader(self, plan: Any) -> Loader:
        size, options = self.options.frame_size, self.options
        return Loader(
            self.store, plan, (size, size), options.data.resize, threads=options.run.workers, pin=True
        )

    def _monitor(self) -> Monitor:
        run, data = self.options.run, self.options.data
        return Monitor(
            self.store, self.options.frame_size, run.monitor_clips, run.workers, run.precision, data.resize
        )

    # What the loop asks for.

    @property
    def seconds_waiting(self) -> float:
        """Seconds spent waiting for data so far."""
        return self.loader.seconds_waiting

    def parameters(self) -> list[nn.Parameter]:
        """What is trained: all that is not frozen."""
        return [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]

    def batches(self, start: int) -> Iterator[tuple[int, Batch]]:
        """The batches of the run from number `start` on, with their numbers."""
        self.encoder.train()
        if self.slow is not None:
            self.slow.train()  # batch statistics, as the encoder
        yield from enumerate(self.loader.iterate(start), start)

    def step(self, batch: tuple[int, Batch], clock: Clock) -> dict[str, Tensor | float]:
        """One forward pass: embed the views, mine, contrast, and the rotation task beside it."""
        number, loaded = batch
        epoch, seed = number // self.plan.per_epoch, self.options.run.seed
        frames, ok = self._receive(loaded)  # [B, F, H, W, 3]
        ids = torch.from_numpy(loaded.clips).to(self.world.device)  # [B]
        if frames.shape[1] < self.views:
            frames = frames.expand(-1, self.views, -1, -1, -1)  # anchor and positive are the same frame
        views = self.augment(frames, loaded.clips, epoch, seed)  # [B, V, 3, h, w]
        turned, turns = None, None
        if self.options.contrast.rotation:
            turned, turns = self.augment.rotated(frames[:, 0], loaded.clips, epoch, seed)
        v, p, scores = self.embed_views(views, turned, ids)  # [B, D], [B, D], [B, 4]
        parts = self.contrast(v, p, ids, ok, number, clock)
        loss = parts["contrast"]
        if scores is not None and turns is not None:
            parts |= self.rotation(scores, turns, ok)
            loss = loss + self.options.contrast.rotation * parts["rotation"]
        if self.bank is not None:
            fresh = (v if self.slow is None else p).detach()  # [B, D]; the slow encoder's, if there is one
            self._pending.append((ids, fresh) if ok is None else (ids[ok], fresh[ok]))
        if clock.logs:
            parts |= {"alignment": alignment(v, p), "uniformity": uniformity(v), "rank": effective_rank(v)}
        return {"loss": loss, **parts}

    def after_step(self) -> None:
        """Once the weights have moved: the bank takes the new rows, the slow encoder follows."""
        self.update_bank()
        if self.slow is not None:
            follow(self.slow, self.encoder, self.options.contrast.momentum_encoder)

    def look(self) -> dict[str, float]:
        """The monitor's figures, see `Monitor`."""
        return self.monitor(self.encoder) if self.monitor is not None else {}

    def warning(self, figures: Mapping[str, float], clock: Clock) -> str | None:
        """Whether the embeddings are collapsing."""
        return self.watch.see(figures["rank"], clock.share)

    def state_dict(self) -> dict[str, Any]:
        """Network, slow copy, bank, Z, and what the watch and the list of failures have seen."""
        modules = {name: module.state_dict() for name, module in self._modules().items()}
        return {**modules, "watch": self.watch.state_dict(), "failed": dict(self.failed)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put that back.

        Raises:
            TceError: the state is another network's or another bank's.
        """
        for name, module in self._modules().items():
            try:
                module.load_state_dict(state[name])
            except (KeyError, RuntimeError) as error:
                raise TceError(
                    "the checkpoint to resume from",
                    expected=f"a {name} for {self.encoder.config.architecture} and {len(self.store)} clips",
                    found=str(error).strip().splitlines()[-1].strip(),
                    fix="give back the run's own checkpoint, or begin anew with --force",
                ) from error
        self.watch.load_state_dict(state["watch"])
        self.failed = dict(state["failed"])

    def _modules(self) -> dict[str, nn.Module]:
        named = {"encoder": self.encoder, "slow": self.slow, "bank": self.bank, "loss": self.loss}
        return {name: module for name, module in named.items() if module is not None}

    def save_model(self, folder: RunFolder) -> None:
        """Write model.safetensors."""
        save_model(folder.model_file, self.encoder)

    # The method's parts, by the paper's names.

    def embed_views(
        self, views: Tensor, turned: Tensor | None, ids: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Unit embeddings of anchors and positives, [B, D] each, and rotation scores [B, 4].

        The positive's comes from the slow encoder where there is one, and is the clip's own row where only
        that is wanted.
        """
        with autocast(self.world.device, self.options.run.precision):
            vectors, scores = self.network(views if self.slow is None else views[:, :1], turned)  # [B, V, D]
            if self.views == 1:
                assert self.bank is not None
                return vectors[:, 0], self.bank.own(ids), scores
            if self.slow is None:
                return vectors[:, 0], vectors[:, 1], scores
            with torch.no_grad():
                p = self.slow(views[:, 1])
            return vectors[:, 0], p, scores

    def contrast(
        self, v: Tensor, p: Tensor, ids: Tensor, ok: Tensor | None, number: int, clock: Clock
    ) -> dict[str, Tensor | float]:
        """The contrastive loss of anchors v and positives p, both [B, D]."""
        options, exclude = self.options.contrast, self.options.contrast.exclude_same_source
        if self.bank is None:
            return {"contrast": self.loss(v, p, self.sources[ids] if exclude else ids, weights=ok)}
        parts: dict[str, Tensor | float] = {}
        if options.mining == "all":
            negative = self.bank.similarity(v)  # [B, N]
            absent = torch.zeros_like(negative, dtype=torch.bool).scatter_(1, ids[:, None], True)
            if exclude:
                absent |= self.sources == self.sources[ids][:, None]
        else:
            negative, absent = self.mine(v, ids, number, clock, parts), None  # [B, K]
        own = (v * self.bank.own(ids)).sum(dim=1)  # [B]
        parts["contrast"] = self.loss((v * p).sum(dim=1), negative, ok, absent)
        if options.own_row_positive == "also":
            parts["contrast"] = (parts["contrast"] + self.loss(own, negative, ok, absent)) / 2
        if clock.logs:
            parts["drift"] = own.detach().mean()
            if isinstance(self.loss, NCELoss):
                parts["z_fit"] = self.loss.normalisation(None, negative.detach())
        return parts

    def mine(
        self, v: Tensor, ids: Tensor, number: int, clock: Clock, parts: dict[str, Tensor | float]
    ) -> Tensor:
        """Cosines of anchors and their negatives, [B, K]: the hardest below the curriculum's threshold."""
        assert self.bank is not None
        options = self.options.contrast
        with torch.no_grad():
            similarity = self.bank.similarity(v)  # [B, N]
        level = curriculum_threshold(
            clock.share, options.lowest_threshold, options.threshold_high, options.threshold_rate
        )
        threshold: float | Tensor = level
        if options.mining == "random":
            threshold = -2.0  # below every cosine: nothing is mined, all is drawn
        elif options.threshold_by == "quantile":
            threshold = quantile_threshold(similarity, level)  # [B]
        exclude = self.sources if options.exclude_same_source else None
        mined = mine(similarity, ids, threshold, self.k, self._generator(number), exclude)
        if options.mining == "curriculum":
            parts["threshold"] = level
            if clock.logs:
                parts["hard"] = mined.hard_share
        return self.bank.take(v, mined.ids, similarity)

    def rotation(self, scores: Tensor, turns: Tensor, ok: Tensor | None) -> dict[str, Tensor | float]:
        """Loss and accuracy of telling the turns [B] from the scores [B, 4]."""
        if ok is not None:
            scores, turns = scores[ok], turns[ok]
        right = (scores.argmax(dim=1) == turns).float().mean()
        return {"rotation": functional.cross_entropy(scores.float(), turns), "turned": right}

    def update_bank(self) -> None:
        """The anchors' embeddings replace their clips' rows."""
        for ids, vectors in self._pending:
            assert self.bank is not None
            self.bank.update(ids, vectors)
        self._pending.clear()

    @torch.no_grad()
    def fill_bank(self) -> None:
        """Replace the bank's random rows by one pass over the clips, then estimate NCE's constant on them."""
        options, seed = self.options.contrast, self.options.run.seed
        if self.bank is None:
            return
        if options.fill_bank:
            log.info("filling the memory bank by one pass over %d clips", len(self.store))
            self.encoder.train()  # batch statistics: an untrained network has no others
            for loaded in self._loader(FillPlan(self.plan, self.world.rank, self.world.size)):
                frames, ok = self._receive(loaded)
                views = self.augment(frames, loaded.clips, FILL_EPOCH, seed)  # [B, 1, 3, h, w]
                with autocast(self.world.device, self.options.run.precision):
                    vectors = self.network(views)[0][:, 0]  # [B, D]
                ids = torch.from_numpy(loaded.clips).to(self.world.device)
                self.bank.update(ids if ok is None else ids[ok], vectors if ok is None else vectors[ok])
        if isinstance(self.loss, NCELoss) and options.constant_z == "estimated":
            order = torch.randperm(len(self.bank), generator=torch.Generator().manual_seed(seed))
            rows = self.bank.rows[order[:Z_ROWS].to(self.world.device)]
            others = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
            self.loss.estimate_z(None, (rows @ rows.T)[others].view(len(rows), -1))

    def _receive(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Frames on the device, and which samples are good; None where all are."""
        for error in batch.errors:
            clip, _, reason = error.partition(", ")
            if clip not in self.failed:
                log.warning("left out: %s", error)
                self.failed[clip] = reason
        if not batch.ok.any():
            raise TceError("a whole batch could not be read", found=batch.errors[0], fix="run `tce check`")
        frames = torch.as_tensor(batch.frames).to(self.world.device, non_blocking=True)
        return frames, None if batch.ok.all() else torch.from_numpy(batch.ok).to(self.world.device)

    def _generator(self, number: int) -> torch.Generator:
        """The draws of one batch: a function of seed and batch number, so there is no state to lose."""
        state = np.random.SeedSequence((self.options.run.seed, number)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state >> 1))
