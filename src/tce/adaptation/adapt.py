"""The command `tce adapt`: a pre-trained network, unlabelled footage -> a network adapted to it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from tce.adaptation.adapt_text import summary_text
from tce.adaptation.contrastive import DEFAULT_STEPS, PAIRS
from tce.adaptation.contrastive_stage import ContrastiveStage, PartView
from tce.adaptation.footage_reader import FootageReader
from tce.adaptation.guard import Comparison, Validation, cross_validate
from tce.adaptation.linear import LinearMap, ScatterSums, decompose
from tce.adaptation.statistics import FILE_NAME, FootageStatistics, require_settings
from tce.device import choose_precision
from tce.distributed import DistributedContext, init_distributed
from tce.errors import OptionError, TceError
from tce.io import Result, atomic, no_empty_folders, plain, require_writable
from tce.model.checkpoint import load_encoder, save_model, tensors_hash
from tce.model.encoder import ADAPTED, FrameEncoder
from tce.model.engine import FeatureEngine, pick_engine
from tce.model.partition import part_backbone
from tce.options.adapt import AdaptOptions
from tce.progress import Progress

log = logging.getLogger("tce.adaptation")

SECONDS_BETWEEN_SAVES = 60.0
STEP_PASSES = 4.0  # a training step's time for each of its frames, in passes of the whole frozen network
FILES = ("options.json", "result.json", "model.safetensors", "config.json", FILE_NAME)


def adapt(options: AdaptOptions) -> Result:
    """Adapt a pre-trained network to unlabelled footage.

    Frames pass the frozen network once; then a linear map of its features, in closed form, moves frames
    of one clip closer and clips apart (see `tce.adaptation.linear`). On clips held out in turn, frames of the
    first half of a clip look for its second half: where they do not clearly find it more often than with the
    start's own features, the start is kept as it is.

    With `--method contrastive` the last blocks are trained as well (see `tce.adaptation.contrastive`), and
    the linear map is fitted to what they give; it is kept only if it is clearly better than the linear
    adaptation alone, on recordings that the training did not see.

    The run folder gets model.safetensors (which every other command reads), result.json, options.json, and
    statistics.safetensors, with which footage is added later.

    Args:
        options: start, footage, and how it is looked at.

    Returns:
        `method` (what the result is: "start", "linear" or "contrastive"), `kept_start`, the held-out shares
        `start` and `adapted` (fractions), `chance`, `reason`, `embedding_size`, `shrinkage`, `clips`,
        `frames`, `skipped` (id -> reason), `model`, `seconds`; of a contrastive training `contrastive`: its
        steps, seconds, loss, and figures on the clips left out of it.

    Raises:
        OptionError: options that contradict each other, or a folder that holds a run.
        TceError: no network, no footage, none that can be read, or too little of it.
        KeyboardInterrupt: interrupted; what was seen is kept for --resume.
    """
    with init_distributed(options.device) as context:
        return _Adaptation(options, context).run()


@dataclass
class _Adapted:
    """An adaptation that could be the result.

    Attributes:
        encoder: without a head.
        statistics: over its features of all clips.
        found: what held-out clips say of the linear map.
        head: the map; None where the features are kept as they are.
        trained: of the contrastive training, JSON types; empty where there was none.
    """

    encoder: FrameEncoder
    statistics: FootageStatistics
    found: Validation
    head: LinearMap | None
    trained: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """What the result is."""
        if self.trained.get("kept"):
            return "contrastive"
        return "start" if self.head is None else "linear"


@dataclass
class _Adaptation:
    """One run of the command."""

    options: AdaptOptions
    context: DistributedContext
    skipped: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    frame_seconds: float = 0.0  # of the start's pass, decoding included; 0 where nothing was measured

    @property
    def folder(self) -> Path:
        return Path(self.options.out)

    def run(self) -> Result:
        with self._locked():
            encoder = self._start()
            settings = self._settings(encoder)
            reader = FootageReader.open(self.options)
            statistics = self._statistics(encoder, settings)
            stage = self._stage(encoder, reader, settings)
            view = None if stage is None else self._cached(stage, statistics)
            engine = self._look(encoder, reader, statistics)
            others = self.context.all_gather_object((statistics, self.skipped))[1:]
            if not self.context.is_main:
                return Result("")
            for seen, skipped in others:
                statistics.merge(seen)
                self.skipped |= skipped
            statistics.finish()
            self._require_enough(statistics)
            statistics.save(self.folder / FILE_NAME)
            began = time.monotonic()
            result = _Adapted(encoder, statistics, *choose_map(statistics, self.options.embedding_size))
            if stage is not None and view is not None:
                result = self._train(stage, view, result, fit_seconds=time.monotonic() - began)
            written = self._write(engine, result)
            if stage is not None:
                stage.cache.remove()
            return written

    def _stage(
        self, encoder: FrameEncoder, reader: FootageReader, settings: dict[str, Any]
    ) -> ContrastiveStage | None:
        """The contrastive stage where it is asked for and possible."""
        options = self.options
        asked = options.method == "contrastive"
        if not asked and (options.method == "linear" or options.minutes is None is options.steps):
            return None
        try:
            if self.context.world_size > 1:
                raise OptionError(
                    "--method contrastive",
                    expected="one process",
                    found=str(self.context.world_size),
                    fix="start it without torchrun, or use --method linear",
                )
            parts = part_backbone(encoder)
        except TceError as error:
            if asked:
                raise
            log.warning("linear only: %s", error)
            return None
        return ContrastiveStage(options, reader, encoder, parts, settings, self.started)

    def _cached(self, stage: ContrastiveStage, statistics: FootageStatistics) -> PartView | None:
        """Fill the file of activations; what the start's features say of the clips in it.

        None where clips are too few, and contrastive training was not asked for by name.
        """
        stage.fill(choose_precision(self.options.precision, self.context.device))
        self.skipped |= stage.skipped
        try:
            stage.require_enough()
        except TceError as error:
            if self.options.method == "contrastive":
                raise
            log.warning("linear only: %s", error)
            return None
        statistics.place(stage.reader.catalog.sources.tolist())
        return stage.view(statistics)

    def _train(
        self, stage: ContrastiveStage, view: PartView, linear: _Adapted, fit_seconds: float
    ) -> _Adapted:
        """Train the last blocks; the result where it is clearly better than the linear adaptation alone."""
        options, last = self.options, stage.parts.last
        size = options.embedding_size
        start, before = view.figures(size, bare=linear.head is None)
        weights = {name: value.clone() for name, value in last.state_dict().items()}
        training = stage.training(reserve=stage.pass_seconds + 3 * fit_seconds)
        stage.train(training)
        settings = {**linear.statistics.settings, "steps": training.steps, "seed": options.seed}
        statistics = FootageStatistics(linear.encoder.feature_size, settings)
        statistics.place(stage.reader.catalog.sources.tolist())
        after = stage.view(statistics)
        comparison = Comparison.of(before, after.figures(size)[1])
        trained = {
            "kept": comparison.improves,
            "steps": training.steps,
            "seconds": round(sum(training.seconds), 1),
            "loss": [float(np.mean(part)) for part in (training.losses[:5], training.losses[-5:])],
            "clips": len(stage.cache.clips),
            "cache_bytes": stage.cache.bytes,
            "held_out": len(start),
            "held_out_recordings": len(np.unique(start.recording)),
            "start": start.share,
            "linear": before.share,
            "contrastive": comparison.after.share,
            "reason": comparison.reason,
        }
        if not comparison.improves:
            last.load_state_dict(weights)
            linear.trained = trained
            return linear
        self._look(linear.encoder, stage.reader, statistics)  # the clips that are not in the file
        statistics.finish()
        return _Adapted(linear.encoder, statistics, *choose_map(statistics, size), trained)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if not self.context.is_main:
            yield
            return
        require_writable(self.folder / "result.json", "--out")
        with no_empty_folders(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                self._check_folder()
                yield

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise TceError(
                f"--out {self.folder}",
                expected="a run folder that no other process is using",
                found="one in use",
                fix="wait for the other process or choose another --out",
            ) from error
        try:
            yield
        finally:
            (self.folder / ".lock").unlink(missing_ok=True)
            lock.release()

    def _check_folder(self) -> None:
        there = [
            name
            for name in (*FILES, "log.csv", "checkpoints", "activations")
            if (self.folder / name).exists()
        ]
        if self.options.force:
            for name in FILES:
                (self.folder / name).unlink(missing_ok=True)
            for name in ("checkpoints", "tensorboard", "activations"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / "log.csv").unlink(missing_ok=True)
        elif there and not (self.options.add or self.options.resume):
            raise OptionError(
                f"--out {self.folder}",
                expected="a new folder",
                found="a run",
                fix="--add adds footage to it, --resume continues it, --force replaces it",
            )
        elif self.options.add and self._is_contrastive():
            raise OptionError(
                "--add",
                expected="a run of linear adaptation",
                found="last blocks that were trained on the run's own footage",
                fix="adapt all footage again with --force",
            )
        elif self.options.add and FILE_NAME not in there:
            raise OptionError(
                "--add", expected=f"a run of tce adapt in {self.folder}", found=f"no {FILE_NAME} there"
            )

    def _is_contrastive(self) -> bool:
        try:
            found = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(found, dict) and found.get("method") == "contrastive"

    def _start(self) -> FrameEncoder:
        options = self.options
        encoder = load_encoder(options.start, options.model)
        config = encoder.config
        config = dataclasses.replace(
            config,
            head="none",
            embedding_size=config.feature_size,
            rotation=False,
            image_size=options.image_size or config.image_size,
            resize=options.crop or config.resize,
        )
        bare = FrameEncoder(config, encoder.backbone)
        bare.to(self.context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return bare.eval().requires_grad_(False)

    def _settings(self, encoder: FrameEncoder) -> dict[str, Any]:
        """What the statistics depend on."""
        options = self.options
        return {
            "start": tensors_hash(encoder.backbone.state_dict()),
            "image_size": encoder.image_size,
            "crop": encoder.config.resize,
            "frames_per_clip": options.frames_per_clip,
            "fps": options.fps,
            "horizon": options.horizon,
            "group": options.group,
        }

    def _statistics(self, encoder: FrameEncoder, settings: dict[str, Any]) -> FootageStatistics:
        path = self.folder / FILE_NAME
        if (self.options.add or self.options.resume) and path.exists():
            found = FootageStatistics.load(path)
            require_settings(settings, found.settings)
            if self.context.rank:  # the main process counts them
                found = FootageStatistics(encoder.feature_size, settings)
            return found
        return FootageStatistics(encoder.feature_size, settings)

    def _look(
        self, encoder: FrameEncoder, reader: FootageReader, statistics: FootageStatistics
    ) -> FeatureEngine | None:
        """Pass the footage through the network, and add what the statistics lack to them."""
        context = self.context
        catalog = reader.catalog
        ids, recordings = catalog.ids, catalog.sources
        seen = context.broadcast([name in statistics or name in self.skipped for name in ids])
        rows = [row for row in range(len(catalog)) if not seen[row]]
        statistics.place(recordings[rows].tolist())
        if not rows:
            return None
        if any(seen):
            log.info("%d of %d clips were seen already", sum(seen), len(catalog))
        rows = rows[context.rank :: context.world_size]
        engine = self._engine(encoder, len(rows) * self.options.frames_per_clip)
        frames, began = statistics.frames, time.monotonic()
        with Progress(len(rows), "looking at clips", "clip") as progress:
            saved = time.monotonic()
            try:
                for row, found in reader.read(rows, encoder, engine):
                    if isinstance(found, TceError):
                        self.skipped[ids[row]] = str(found)
                        log.warning("skipped: %s", found)
                    else:
                        statistics.add(ids[row], recordings[row], found, reader.groups[row])
                    progress.update(1, **({"skipped": len(self.skipped)} if self.skipped else {}))
                    if context.world_size == 1 and time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                        self._keep(statistics)
                        saved = time.monotonic()
            except KeyboardInterrupt:
                if context.world_size > 1 or not len(statistics):
                    raise
                self._keep(statistics)
                done = f"{len(statistics)} clips are in {self.folder / FILE_NAME}"
                raise KeyboardInterrupt(f"interrupted: {done}; --resume continues") from None
        self.frame_seconds = (time.monotonic() - began) / max(1, statistics.frames - frames)
        return engine

    def _keep(self, statistics: FootageStatistics) -> None:
        """Save the start's statistics for --resume; those of trained blocks are made again."""
        if "steps" not in statistics.settings:
            statistics.save(self.folder / FILE_NAME)

    def _engine(self, encoder: FrameEncoder, frames: int) -> FeatureEngine:
        precision = choose_precision(self.options.precision, self.context.device)
        return pick_engine(encoder, self.options.engine, encoder.image_size, precision, frames)

    def _require_enough(self, statistics: FootageStatistics) -> None:
        count = len(self.skipped)
        if len(statistics) == 0:
            reason = f"; the first: {next(iter(self.skipped.values()))}" if count else ""
            raise TceError(f"{self.options.footage}: none of {count} clips could be read{reason}")
        if statistics.pieces < 2:
            raise TceError(
                self.options.footage,
                expected="two clips or more, or a recording of more than 10 seconds",
                found="one short clip",
                fix=f"give more footage, or use {self.options.start} as it is",
            )

    def _write(self, engine: FeatureEngine | None, result: _Adapted) -> Result:
        options, encoder, statistics = self.options, result.encoder, result.statistics
        found, head = result.found, result.head
        figures = {
            "method": result.method,
            "kept_start": result.method == "start",
            "start": None if found.start is None else found.start.share,
            "adapted": None if found.adapted is None else found.adapted.share,
            "start_separation": None if found.start is None else float(found.start.separation.mean()),
            "adapted_separation": None if found.adapted is None else float(found.adapted.separation.mean()),
            "reason": None if found.comparison is None else found.comparison.reason,
            "chance": None if found.start is None else found.start.chance,
            "held_out": 0 if found.start is None else len(found.start),
            "embedding_size": encoder.feature_size if head is None else len(head.weight),
            "shrinkage": None if head is None else head.shrinkage,
            "clips": len(statistics),
            "frames": statistics.frames,
            "skipped": self.skipped,
            "image_size": encoder.image_size,
            "crop": encoder.config.resize,
            "engine": None if engine is None else engine.name,
            "precision": None if engine is None else engine.precision,
            "contrastive": result.trained or None,
            "contrastive_seconds": self._contrastive_cost(encoder, statistics),
        }
        noted = ("method", "kept_start", "frames", "shrinkage", "held_out", "start", "adapted", "chance")
        provenance = {
            "made": ADAPTED,
            "clips": statistics.sketch(),
            "settings": statistics.settings,
            "figures": {name: figures[name] for name in (*noted, "contrastive")},
            "weights": {"path": options.start, "provenance": encoder.config.provenance},
        }
        adapted = with_linear_head(encoder, head)
        path = save_model(self.folder / "model.safetensors", adapted, provenance)
        record = {
            "command": "adapt",
            "options": dataclasses.asdict(options),
            "versions": {name: version(name) for name in ("torch", "numpy")},
        }
        for name, content in (("options.json", record), ("result.json", figures)):
            figures["seconds"] = round(time.monotonic() - self.started, 2)
            with atomic(self.folder / name, "w") as file:
                json.dump(plain(content), file, indent=2)
        return Result(summary_text(figures, options, path), {"model": str(path), **figures})

    def _contrastive_cost(self, encoder: FrameEncoder, statistics: FootageStatistics) -> float | None:
        """Seconds that contrastive training would take, estimated from the start's pass; None: unknown."""
        if self.options.method != "auto" or not self.frame_seconds or self.context.world_size > 1:
            return None
        try:
            part_backbone(encoder)
        except TceError:
            return None
        passes = 2 * statistics.frames + STEP_PASSES * 2 * PAIRS * DEFAULT_STEPS
        return round(passes * self.frame_seconds)


def choose_map(statistics: FootageStatistics, size: int | None = None) -> tuple[Validation, LinearMap | None]:
    """The linear map for footage that was seen, and the figures on held-out clips.

    Args:
        statistics: finished.
        size: numbers in an embedding; None: as many as held-out clips show to be of use.

    Returns:
        What was chosen on held-out clips, and the map of all clips; None where the start is to be kept.

    Raises:
        TceError: footage that nothing can be fitted to.
    """
    found = cross_validate(statistics.folds, statistics.held, size=size)
    parts = decompose(ScatterSums.merged(statistics.folds))  # raises where the footage is at fault
    return found, None if found.keeps_start else parts.solve(found.shrinkage, found.size)


def with_linear_head(encoder: FrameEncoder, head: LinearMap | None) -> FrameEncoder:
    """An encoder of the same backbone whose embedding is the map of its features; None for no head."""
    if head is None:
        return encoder
    size, features = head.weight.shape
    config = dataclasses.replace(encoder.config, head="linear", embedding_size=size, feature_size=features)
    adapted = FrameEncoder(config, encoder.backbone).eval()
    weight, bias = (torch.from_numpy(np.ascontiguousarray(part)).float() for part in (head.weight, head.bias))
    adapted.head.load_state_dict({"weight": weight, "bias": bias})
    return adapted
