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

from tce.adaptation.clip_frames import FramePiece, FrameSampling, Resize, decode_clips, stored_clips
from tce.adaptation.guard import Validation, cross_validate
from tce.adaptation.linear import NO_GROUP, LinearMap, Piece, ScatterSums, decompose
from tce.adaptation.statistics import FILE_NAME, FootageStatistics, require_settings
from tce.data.catalog import Catalog
from tce.data.splits import group_names
from tce.device import choose_precision
from tce.distributed import DistributedContext, init_distributed
from tce.errors import OptionError, TceError
from tce.io import Result, atomic, no_empty_folders, plain, require_writable
from tce.model.checkpoint import load_encoder, save_model, tensors_hash
from tce.model.encoder import ADAPTED, FrameEncoder
from tce.model.engine import FeatureEngine, pick_engine
from tce.options.adapt import AdaptOptions
from tce.progress import Progress

log = logging.getLogger("tce.adaptation")

SECONDS_BETWEEN_SAVES = 60.0
FILES = ("options.json", "result.json", "model.safetensors", "config.json", FILE_NAME)


def adapt(options: AdaptOptions) -> Result:
    """Adapt a pre-trained network to unlabelled footage.

    Frames pass the frozen network once; then a linear map of its features, in closed form, moves frames
    of one clip closer and clips apart (see `tce.adaptation.linear`). On clips held out in turn, frames of the
    first half of a clip look for its second half: where they find it no more often than with the start's own
    features, the start is kept as it is.

    The run folder gets model.safetensors (which every other command reads), result.json, options.json, and
    statistics.safetensors, with which footage is added later.

    Args:
        options: start, footage, and how it is looked at.

    Returns:
        `kept_start`, the held-out shares `start` and `adapted` (fractions), `chance`, `embedding_size`,
        `shrinkage`, `clips`, `frames`, `skipped` (id -> reason), `model`, `seconds`.

    Raises:
        OptionError: options that contradict each other, or a folder that holds a run.
        TceError: no network, no footage, none that can be read, or too little of it.
        KeyboardInterrupt: interrupted; what was seen is kept for --resume.
    """
    with init_distributed(options.device) as context:
        return _Adaptation(options, context).run()


@dataclass
class _Adaptation:
    """One run of the command."""

    options: AdaptOptions
    context: DistributedContext
    skipped: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        return Path(self.options.out)

    def run(self) -> Result:
        with self._locked():
            encoder = self._start()
            settings = self._settings(encoder)
            statistics = self._statistics(encoder, settings)
            engine = self._look(encoder, statistics)
            others = self.context.all_gather_object((statistics, self.skipped))[1:]
            if not self.context.is_main:
                return Result("")
            for seen, skipped in others:
                statistics.merge(seen)
                self.skipped |= skipped
            statistics.finish()
            self._require_enough(statistics)
            statistics.save(self.folder / FILE_NAME)
            found, head = choose_map(statistics, self.options.embedding_size)
            return self._write(encoder, engine, statistics, found, head)

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
        there = [name for name in (*FILES, "log.csv", "checkpoints") if (self.folder / name).exists()]
        if self.options.force:
            for name in FILES:
                (self.folder / name).unlink(missing_ok=True)
            for name in ("checkpoints", "tensorboard"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / "log.csv").unlink(missing_ok=True)
        elif there and not (self.options.add or self.options.resume):
            raise OptionError(
                f"--out {self.folder}",
                expected="a new folder",
                found="a run",
                fix="--add adds footage to it, --resume continues it, --force replaces it",
            )
        elif self.options.add and FILE_NAME not in there:
            raise OptionError(
                "--add", expected=f"a run of tce adapt in {self.folder}", found=f"no {FILE_NAME} there"
            )

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

    def _look(self, encoder: FrameEncoder, statistics: FootageStatistics) -> FeatureEngine:
        """Pass the footage through the network, and add it to the statistics."""
        from tce.video.pool import DecodePool

        options, context = self.options, self.context
        catalog, store = self._clips()
        groups = [NO_GROUP] * len(catalog) if options.group is None else group_names(catalog, options.group)
        ids, recordings = catalog.ids, catalog.sources
        seen = context.broadcast([name in statistics for name in ids])
        rows = [row for row in range(len(catalog)) if not seen[row]]
        if any(seen):
            log.info("%d of %d clips are in the run already", sum(seen), len(catalog))
        statistics.place(recordings[rows].tolist())
        rows = rows[context.rank :: context.world_size]
        sampling = FrameSampling(options.frames_per_clip, options.fps, options.horizon)
        engine = self._engine(encoder, len(rows) * options.frames_per_clip)
        size = encoder.image_size
        resize: Resize = "center-crop" if encoder.config.resize == "center-crop" else "squash"
        with contextlib.ExitStack() as stack:
            if store is not None:
                source = stored_clips(store, rows, sampling, size, resize, options.workers or 2)
            else:
                pool = stack.enter_context(DecodePool(options.workers or 0, options.timeout))
                source = decode_clips(catalog, rows, sampling, size, resize, pool)
            progress = stack.enter_context(Progress(len(rows), "looking at clips", "clip"))
            saved = time.monotonic()
            try:
                for row, found in clip_features(source, encoder, engine, options.batch_size):
                    if isinstance(found, TceError):
                        self.skipped[ids[row]] = str(found)
                        log.warning("skipped: %s", found)
                    else:
                        statistics.add(ids[row], recordings[row], found, groups[row])
                    progress.update(1, **({"skipped": len(self.skipped)} if self.skipped else {}))
                    if context.world_size == 1 and time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                        statistics.save(self.folder / FILE_NAME)
                        saved = time.monotonic()
            except KeyboardInterrupt:
                if context.world_size > 1 or not len(statistics):
                    raise
                statistics.save(self.folder / FILE_NAME)
                done = f"{len(statistics)} clips are in {self.folder / FILE_NAME}"
                raise KeyboardInterrupt(f"interrupted: {done}; --resume continues") from None
        return engine

    def _clips(self) -> tuple[Catalog, Any]:
        """The clips to look at, and the collection that holds their frames, if it is one."""
        from tce.data.collection import is_collection
        from tce.data.open_data import open_store
        from tce.data.read_catalog import read_catalog

        options = self.options
        split = options.split or "01"
        store = None
        if is_collection(options.footage):
            store = open_store(options.footage, options.lists, split)
            catalog = store.catalog
        else:
            catalog = read_catalog(options.footage, options.lists, split)
        if options.lists is not None:
            rows = np.flatnonzero(catalog.splits == "train")
            if len(rows) == 0:
                raise TceError(
                    f"--lists {options.lists}", expected=f"train clips of split {split}", found="none"
                )
            catalog = catalog.select(rows)
            store = None if store is None else store.select(rows)
        return catalog, store

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

    def _write(
        self,
        encoder: FrameEncoder,
        engine: FeatureEngine,
        statistics: FootageStatistics,
        found: Validation,
        head: LinearMap | None,
    ) -> Result:
        options = self.options
        figures = {
            "kept_start": found.keeps_start,
            "start": None if found.start is None else found.start.share,
            "adapted": None if found.adapted is None else found.adapted.share,
            "start_separation": None if found.start is None else float(found.start.separation.mean()),
            "adapted_separation": None if found.adapted is None else float(found.adapted.separation.mean()),
            "chance": None if found.start is None else found.start.chance,
            "held_out": 0 if found.start is None else len(found.start),
            "embedding_size": encoder.feature_size if head is None else len(head.weight),
            "shrinkage": None if head is None else head.shrinkage,
            "clips": len(statistics),
            "frames": statistics.frames,
            "skipped": self.skipped,
            "image_size": encoder.image_size,
            "engine": engine.name,
            "precision": engine.precision,
        }
        noted = ("kept_start", "frames", "shrinkage", "held_out", "start", "adapted", "chance")
        provenance = {
            "made": ADAPTED,
            "clips": statistics.sketch(),
            "settings": statistics.settings,
            "figures": {name: figures[name] for name in noted},
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
        return Result(_text(figures, options, path), {"model": str(path), **figures})


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


def _text(figures: dict[str, Any], options: AdaptOptions, path: Path) -> str:
    """What the command prints."""
    lines = [
        f"{options.start} at {figures['image_size']} px on {options.footage}: {figures['clips']} clips, "
        f"{figures['frames']} frames, {figures['seconds']:.0f} s"
    ]
    if figures["skipped"]:
        lines.append(f"skipped {len(figures['skipped'])} clips (reasons above)")
    if figures["held_out"]:
        lines.append(
            f"frames that find their own clip among {figures['held_out']} held-out ones: "
            f"start {figures['start']:.1%}, adapted {figures['adapted']:.1%} "
            f"(chance {figures['chance']:.1%}); separation {figures['start_separation']:.2f}, "
            f"{figures['adapted_separation']:.2f}"
        )
    else:
        lines.append("too few clips to hold any out: adapted strongly regularised, and not checked")
    if figures["kept_start"]:
        lines.append("the adaptation is not better there, so the start is kept as it is")
        lines.append(f"wrote {path}: {options.start}, embeddings of {figures['embedding_size']} numbers")
    else:
        lines.append(
            f"wrote {path}: embeddings of {figures['embedding_size']} numbers "
            f"(shrinkage {figures['shrinkage']:g})"
        )
    return "\n".join(lines)


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


def clip_features(
    clips: Iterator[tuple[int, Iterator[FramePiece]]],
    encoder: FrameEncoder,
    engine: FeatureEngine,
    batch_size: int,
) -> Iterator[tuple[int, list[Piece] | TceError]]:
    """Features of each clip's frames; a batch may hold frames of several clips.

    Args:
        clips: a row and its pieces, which raise a TceError where the footage is bad.
        encoder: whose normalisation is used.
        engine: what computes the features.
        batch_size: frames in a pass.

    Yields:
        a row, and its pieces or why there are none, in order.
    """
    waiting: list[tuple[int, FramePiece]] = []  # row and piece, which have not passed the network yet
    done: dict[int, list[Piece]] = {}
    ended: list[tuple[int, TceError | None]] = []
    for row, pieces in clips:
        done[row] = []
        error: TceError | None = None
        try:
            for piece in pieces:
                waiting.append((row, piece))
                if sum(len(one.frames) for _, one in waiting) >= batch_size:
                    _pass(waiting, done, encoder, engine)
        except TceError as reason:
            error = reason
            waiting = [(other, piece) for other, piece in waiting if other != row]
        ended.append((row, error))
        if not waiting:
            yield from _finished(ended, done)
    _pass(waiting, done, encoder, engine)
    yield from _finished(ended, done)


def _pass(
    waiting: list[tuple[int, FramePiece]],
    done: dict[int, list[Piece]],
    encoder: FrameEncoder,
    engine: FeatureEngine,
) -> None:
    """Run the network on what waits."""
    if not waiting:
        return
    frames = np.concatenate([piece.frames for _, piece in waiting])
    features = engine(encoder.preprocess(frames, resize="none")).float().cpu().numpy()
    ends = np.cumsum([len(piece.frames) for _, piece in waiting])[:-1]
    for (row, piece), rows in zip(waiting, np.split(features, ends)):
        done[row].append(Piece(rows, piece.time, piece.horizon))
    waiting.clear()


def _finished(
    ended: list[tuple[int, TceError | None]], done: dict[int, list[Piece]]
) -> Iterator[tuple[int, list[Piece] | TceError]]:
    for row, error in ended:
        found = done.pop(row)
        yield row, found if error is None else error
    ended.clear()
