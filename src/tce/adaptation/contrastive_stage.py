"""The second stage of `tce adapt`: activations to a file, training, and the check on clips left out of it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tce.adaptation.activations import ActivationCache, CachedPiece, fair_order
from tce.adaptation.contrastive import (
    DEFAULT_STEPS,
    HEAD_STEPS,
    PAIRS,
    Budget,
    ContrastiveTraining,
    PairSampler,
    features_of,
)
from tce.adaptation.footage_reader import FootageReader
from tce.adaptation.guard import (
    LEAST_CLIPS,
    Coherence,
    Embed,
    HeldClip,
    coherence_of,
    cross_validate,
)
from tce.adaptation.linear import Piece, ScatterSums, decompose
from tce.adaptation.statistics import HELD_OUT, FootageStatistics, recording_number, require_settings
from tce.errors import TceError
from tce.io import atomic
from tce.model.encoder import FrameEncoder
from tce.model.engine import FeatureEngine, pick_engine
from tce.model.partition import PartedBackbone
from tce.model.tensor_file import load_torch_file
from tce.options.adapt import AdaptOptions
from tce.progress import Progress
from tce.signals import StopSignals

log = logging.getLogger("tce.adaptation")

CHECK_EVERY = 6  # every sixth recording is left out of the training, to check on
SECONDS_BETWEEN_SAVES = 60.0
FORMAT = "tce contrastive adaptation 1"


@dataclass
class PartView:
    """What one network's features say on the cached clips.

    Attributes:
        trained_on: sums over the pieces that the training sees.
        check: pieces that it does not see.
    """

    trained_on: FootageStatistics
    check: list[HeldClip] = field(default_factory=list)

    def figures(self, size: int | None, bare: bool | None = None) -> tuple[Coherence, Coherence]:
        """On the pieces to check on: of the features, and of the adaptation fitted on the others.

        Args:
            size: numbers in an embedding; None: chosen.
            bare: whether the adaptation is to leave the features as they are; None: as its own check says.
        """
        self.trained_on.finish()
        found = cross_validate(self.trained_on.folds, self.trained_on.held, size=size)
        embed: Embed = _as_they_are
        if not (found.keeps_start if bare is None else bare):
            # Nothing can be fitted to features that the training has made all alike: the check refuses them.
            with contextlib.suppress(TceError):
                parts = decompose(ScatterSums.merged(self.trained_on.folds))
                embed = parts.solve(found.shrinkage, found.size)
        return coherence_of(self.check, _as_they_are), coherence_of(self.check, embed)


def _as_they_are(rows: Any) -> Any:
    return rows


@dataclass
class ContrastiveStage:
    """Everything that `--method contrastive` does between the start's pass and the result.

    Attributes:
        options: of the command.
        reader: the footage.
        encoder: the start without a head; its last blocks are trained in place.
        parts: its two parts.
        settings: what the start's features depend on.
        started: when the command began, seconds of the monotonic clock.
    """

    options: AdaptOptions
    reader: FootageReader
    encoder: FrameEncoder
    parts: PartedBackbone
    settings: dict[str, Any]
    started: float
    skipped: dict[str, str] = field(default_factory=dict)
    pass_seconds: float = 0.0

    def __post_init__(self) -> None:
        out = Path(self.options.out)
        self.state_path = out / "checkpoints" / "latest.pt"
        self.cache = ActivationCache.open(out / "activations", self.parts.trunk.feature_size, self.settings)
        self._rows = {name: row for row, name in enumerate(self.reader.catalog.ids.tolist())}

    def fill(self, precision: str) -> FeatureEngine:
        """Pass clips through the trunk until all are in the file, or it has its size."""
        names = self.reader.catalog.ids.tolist()
        have = set(self.cache.clips)
        rows = [row for row in fair_order(names) if names[row] not in have]
        most = self.options.cache_gb * 2**30
        frames = len(rows) * self.options.frames_per_clip
        engine = pick_engine(
            self.parts.trunk, self.options.engine, self.encoder.image_size, precision, frames
        )
        if rows and self.cache.bytes < most:
            with Progress(len(rows), "activations of clips", "clip") as progress:
                self.cache.fill(self._clips(rows, engine, progress), most)
        left = len(names) - len(self.cache.clips) - len(self.skipped)
        log.info(
            "activations of %d clips, %d frames: %.0f MB in %s%s",
            len(self.cache.clips),
            self.cache.count,
            self.cache.bytes / 1e6,
            self.cache.folder,
            f"; {left} clips more than --cache-gb holds take no part in the training" if left > 0 else "",
        )
        return engine

    def require_enough(self) -> None:
        """Check that there are clips to train on and clips to check on.

        Raises:
            TceError: there are too few.
        """
        unseen = self.unseen()
        if sum(piece.first in unseen and len(piece) > 1 for piece in self.cache.pieces) < LEAST_CLIPS:
            raise TceError(
                "--method contrastive",
                expected=f"{CHECK_EVERY * LEAST_CLIPS} clips or pieces of recordings or more",
                found=str(len(self.cache.pieces)),
                fix="use --method linear",
            )
        self._sampler()

    def _sampler(self) -> PairSampler:
        options, unseen = self.options, self.unseen()
        pieces = [piece for piece in self.cache.pieces if piece.first not in unseen]
        groups = None
        if options.group is not None:
            groups = [self.reader.groups[self._rows[piece.clip]] for piece in pieces]
        return PairSampler(pieces, groups, options.seed, PAIRS)

    def _clips(
        self, rows: Sequence[int], engine: FeatureEngine, progress: Progress
    ) -> Iterator[tuple[str, list[Piece]]]:
        for row, found in self.reader.read(rows, self.parts.trunk, engine):
            name = self.reader.catalog.ids[row]
            if isinstance(found, TceError):
                self.skipped[name] = str(found)
                log.warning("skipped: %s", found)
            else:
                yield name, found
            progress.update(1)

    def view(self, statistics: FootageStatistics) -> PartView:
        """Pass the activations through the last blocks as they are now.

        Args:
            statistics: get all clips that they lack.
        """
        started = time.monotonic()
        unseen = self.unseen()
        trained_on = FootageStatistics(self.encoder.feature_size, {})
        recordings = {name: self.reader.recording(self._rows[name]) for name in self.cache.clips}
        trained_on.place(recordings.values())
        found = PartView(trained_on)
        rows = self.cache.map()
        with Progress(len(self.cache.clips), "features of clips", "clip") as progress:
            for name, cached in self.cache.by_clip():
                features = [features_of(self.parts.last, rows[piece.rows]) for piece in cached]
                pieces = [Piece(f, piece.time, piece.horizon) for f, piece in zip(features, cached)]
                recording, group = recordings[name], self.reader.groups[self._rows[name]]
                if name not in statistics:
                    statistics.add(name, recording, pieces, group)
                kept = [one for one, piece in zip(pieces, cached) if piece.first not in unseen]
                if kept:
                    trained_on.add(name, recording, kept, group)
                found.check += [
                    HeldClip(one.features, recording_number(recording))
                    for one, piece in zip(pieces, cached)
                    if piece.first in unseen and len(piece) > 1
                ]
                progress.update(1)
        found.check = found.check[:: -(-len(found.check) // HELD_OUT) or 1]
        self.pass_seconds = time.monotonic() - started
        return found

    def unseen(self) -> set[int]:
        """First rows of the pieces that are left out of the training.

        Every sixth recording; where there are too few of them, the last sixth of each.
        """
        by_recording: dict[str, list[CachedPiece]] = defaultdict(list)
        for piece in self.cache.pieces:
            by_recording[self.reader.recording(self._rows[piece.clip])].append(piece)
        names = sorted(by_recording)
        if len(names) >= CHECK_EVERY * LEAST_CLIPS:
            chosen = [names[number] for number in fair_order(names)[: len(names) // CHECK_EVERY]]
            return {piece.first for name in chosen for piece in by_recording[name]}
        last: set[int] = set()
        for pieces in by_recording.values():
            ordered = sorted(pieces, key=lambda piece: (piece.clip, piece.time[0]))
            last |= {piece.first for piece in ordered[len(ordered) - len(ordered) // CHECK_EVERY :]}
        return last

    def training(self, reserve: float) -> ContrastiveTraining:
        """The training, as far as an earlier process got.

        Args:
            reserve: seconds to leave for what follows.

        Raises:
            TceError: a state of other settings.
        """
        options = self.options
        seconds = float("inf")
        if options.minutes is not None:
            seconds = 60 * options.minutes - (time.monotonic() - self.started) - reserve
        training = ContrastiveTraining(
            self.parts.last,
            self.encoder.feature_size,
            self.cache,
            self._sampler(),
            Budget(options.steps or (DEFAULT_STEPS if options.minutes is None else None), seconds),
            options.seed,
            HEAD_STEPS,
        )
        if options.resume and self.state_path.exists():
            self._restore(training)
        return training

    def _settings(self) -> dict[str, Any]:
        """What the training depends on."""
        rows = repr([(piece.clip, piece.first, len(piece)) for piece in self.cache.pieces])
        options = self.options
        return {
            **self.settings,
            "seed": options.seed,
            "pairs": PAIRS,
            "steps": options.steps,
            "footage": hashlib.sha256(rows.encode()).hexdigest()[:16],
        }

    def _restore(self, training: ContrastiveTraining) -> None:
        state = load_torch_file(self.state_path)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise TceError(
                f"{self.state_path}",
                expected="the state of a contrastive adaptation",
                found="another kind of file",
                fix="start again with --force",
            )
        require_settings(self._settings(), state["settings"])
        try:
            training.load_state_dict(state["training"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise TceError(
                f"{self.state_path}",
                expected="the state of this training",
                found=str(error).splitlines()[0],
                fix="start again with --force",
            ) from error
        log.info("resuming after step %d", training.step)

    def save(self, training: ContrastiveTraining) -> None:
        """Write the state, whole or not at all."""
        content = {"format": FORMAT, "settings": self._settings(), "training": training.state_dict()}
        with atomic(self.state_path) as file:
            torch.save(content, file)

    def train(self, training: ContrastiveTraining) -> None:
        """Do the steps that are left.

        Raises:
            KeyboardInterrupt: stopped by a signal; the state is saved.
        """
        saved = time.monotonic()
        done = f"step %d is in {self.state_path}; --resume continues"
        with StopSignals(lambda: done % training.step) as signals:
            with Progress(training.total, "contrastive training", "step", training.step) as progress:
                while not training.done:
                    loss = training.advance()
                    progress.update(1, loss=f"{loss:.3f}")
                    late = time.monotonic() - saved > SECONDS_BETWEEN_SAVES
                    if late or signals.stop_requested:
                        self.save(training)
                        saved = time.monotonic()
                    if signals.stop_requested and not training.done:
                        raise KeyboardInterrupt(f"interrupted: {done % training.step}")
            self.save(training)
