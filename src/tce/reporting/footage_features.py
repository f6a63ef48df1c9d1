"""The footage through the networks, once: each clip is decoded once, and what was seen is kept on the disk.

Every figure of the report is made of these features. A report that is interrupted, or repeated with one more
network, decodes and computes only what is missing.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tce.adaptation.clip_frames import FrameSampling, Resize, to_square
from tce.adaptation.linear import Piece
from tce.errors import TceError
from tce.io import atomic
from tce.progress import Progress

if TYPE_CHECKING:
    from tce.data.catalog import Catalog, Clip
    from tce.data.frame_store import FrameStore
    from tce.model.encoder import FrameEncoder
    from tce.model.engine import FeatureEngine
    from tce.video.pool import DecodePool

log = logging.getLogger("tce.reporting")

Floats32 = npt.NDArray[np.float32]
SECONDS_BETWEEN_SAVES = 120.0
PICTURE_SIDE = 128  # of the small pictures, pixels
PICTURE_QUALITY = 80
FRAMES_FILE = "frames.safetensors"


@dataclass(frozen=True)
class InputShape:
    """How frames come to a network: the side of the square, and how they become one."""

    size: int
    resize: Resize


@dataclass
class Backbone:
    """A network whose features are computed, known by its tensors.

    Attributes:
        key: a hash of tensors and input, which names its file.
        encoder: whose backbone and normalisation are used.
        shape: of its input.
        engine: what runs it; made when the first clip comes.
    """

    key: str
    encoder: FrameEncoder
    shape: InputShape
    engine: FeatureEngine | None = None


@dataclass
class SeenClip:
    """What is kept of one clip.

    Attributes:
        times: of each piece the times of its frames, [n], seconds.
        horizons: of each piece, see `tce.adaptation.linear.Piece`.
        pictures: of each piece a small JPEG of its middle frame.
        stamp: what shows that the footage has changed since.
        features: backbone's key -> float32 [frames of all pieces, F].
    """

    times: list[npt.NDArray[np.float64]]
    horizons: list[float | None]
    pictures: list[bytes]
    stamp: str = ""
    features: dict[str, Floats32] = field(default_factory=dict)

    def pieces(self, key: str) -> list[Piece]:
        """Features of a backbone, piece by piece."""
        ends = np.cumsum([len(times) for times in self.times])[:-1]
        rows = np.split(self.features[key], ends)
        return [Piece(*parts) for parts in zip(rows, self.times, self.horizons, strict=True)]


@dataclass(frozen=True)
class ReportJob:
    """What a decoding process reads of one clip."""

    path: str
    start: float | None
    end: float | None
    sampling: FrameSampling
    shapes: tuple[InputShape, ...]

    def __str__(self) -> str:
        return self.path


@dataclass
class DecodedPiece:
    """Frames of a clip or a part of it: squares for each shape, and a small picture of the middle one."""

    squares: list[npt.NDArray[np.uint8]]
    time: npt.NDArray[np.float64]
    horizon: float | None
    picture: bytes


def read_clip_pieces(job: ReportJob) -> Iterator[DecodedPiece]:
    """Decode a clip's frames; runs in a decoding child process.

    Raises:
        VideoError: the footage cannot be decoded.
    """
    from tce.data.segment import frame_range
    from tce.video.open_video import open_video

    with open_video(job.path, threads=1) as video:
        first, stop = frame_range(video, job.start, job.end)
        positions, horizon = job.sampling.pieces(stop - first, video.fps)
        for part in positions:
            frames = video.frames(part + first)
            yield _piece(frames, video.times(part + first), horizon, job.shapes)


def _stored_pieces(
    store: FrameStore, row: int, sampling: FrameSampling, shapes: tuple[InputShape, ...]
) -> Iterator[DecodedPiece]:
    """The same of a collection's clip."""
    from tce.video.image import decode

    fps = float(store.fps[row])
    positions, horizon = sampling.pieces(int(store.lengths[row]), fps)
    for part in positions:
        images = []
        for data in store.read(np.full(len(part), row), part):
            if isinstance(data, Exception):
                raise TceError(str(data))
            images.append(decode(data, f"a frame of {store.catalog[row].id}"))
        yield _piece(images, part / fps, horizon, shapes)


def _piece(
    frames: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8],
    times: npt.NDArray[np.float64],
    horizon: float | None,
    shapes: tuple[InputShape, ...],
) -> DecodedPiece:
    import cv2

    from tce.video.image import encode_jpeg

    squares = [np.stack([to_square(frame, one.size, one.resize) for frame in frames]) for one in shapes]
    middle = frames[len(frames) // 2]
    scale = PICTURE_SIDE / max(middle.shape[:2])
    size = max(1, round(middle.shape[1] * scale)), max(1, round(middle.shape[0] * scale))
    small = np.asarray(cv2.resize(middle, size, interpolation=cv2.INTER_AREA), np.uint8)
    return DecodedPiece(squares, times, horizon, encode_jpeg(small, PICTURE_QUALITY))


@dataclass
class FootageFeatures:
    """The clips that were seen, kept in a folder.

    Attributes:
        folder: where they are kept.
        settings: what they depend on, JSON types; others are not mixed with these.
        clips: id -> what was seen.
        skipped: id -> why a clip could not be read.
        passed: frames that passed a network in this process.
        engines: name of what ran each backbone, by key.
    """

    folder: Path
    settings: dict[str, Any]
    clips: dict[str, SeenClip] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    passed: int = 0
    engines: dict[str, str] = field(default_factory=dict)

    def look(
        self,
        catalog: Catalog,
        store: FrameStore | None,
        backbones: Sequence[Backbone],
        batch_size: int,
        workers: int | None,
        timeout: float,
        engine: str,
        precision: str,
    ) -> None:
        """Pass the clips through the networks that have not seen them.

        Args:
            catalog: the clips.
            store: the collection that holds their frames, if it is one; its rows are the catalog's.
            backbones: the networks.
            batch_size: frames a pass.
            workers: decoding processes.
            timeout: seconds without a frame after which a file is given up.
            engine: see `tce.model.engine.pick_engine`.
            precision: of PyTorch's passes.

        Raises:
            KeyboardInterrupt: interrupted; what was seen is kept.
        """
        from tce.video.pool import DecodePool

        ids = catalog.ids
        stamps = _stamps(catalog, store)
        self._load(backbones)
        self.clips = {name: seen for name, seen in self.clips.items() if stamps.get(name) == seen.stamp}
        rows = [row for row in range(len(catalog)) if not self._has(ids[row], backbones)]
        if len(rows) < len(catalog):
            log.info("%d of %d clips were seen before", len(catalog) - len(rows), len(catalog))
        if not rows:
            return
        sampling = FrameSampling(self.settings["frames_per_clip"])
        shapes = tuple(dict.fromkeys(one.shape for one in backbones))
        frames = len(rows) * sampling.frames_per_clip
        for one in backbones:
            self._prepare(one, engine, precision, frames)
        saved = time.monotonic()
        with DecodePool(workers or 0, timeout) as pool, Progress(len(rows), "looking", "clip") as progress:
            source = self._decoded(catalog, store, rows, sampling, shapes, pool)
            try:
                for row, pieces in source:
                    name = str(ids[row])
                    self._see(name, pieces, backbones, shapes, batch_size)
                    if name in self.clips:
                        self.clips[name].stamp = stamps[name]
                    progress.update(1, **({"skipped": len(self.skipped)} if self.skipped else {}))
                    if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                        self._save(backbones)
                        saved = time.monotonic()
            except KeyboardInterrupt:
                self._save(backbones)
                done = f"{len(self.clips)} clips are kept in {self.folder}"
                raise KeyboardInterrupt(f"interrupted: {done}; the same command continues") from None
        self._save(backbones)

    def _has(self, name: str, backbones: Sequence[Backbone]) -> bool:
        seen = self.clips.get(str(name))
        return seen is not None and all(one.key in seen.features for one in backbones)

    def _prepare(self, one: Backbone, engine: str, precision: str, frames: int) -> None:
        from tce.device import choose_precision
        from tce.model.engine import pick_engine

        chosen = choose_precision(precision, one.encoder.device)
        one.engine = pick_engine(one.encoder, engine, one.shape.size, chosen, frames)
        self.engines[one.key] = f"{one.engine.name}, {one.engine.precision}"

    def _decoded(
        self,
        catalog: Catalog,
        store: FrameStore | None,
        rows: Sequence[int],
        sampling: FrameSampling,
        shapes: tuple[InputShape, ...],
        pool: DecodePool,
    ) -> Iterator[tuple[int, Iterator[DecodedPiece]]]:
        if store is not None:
            for row in rows:
                yield row, _stored_pieces(store, row, sampling, shapes)
            return
        clips: Iterator[Clip] = (catalog[row] for row in rows)
        jobs = (ReportJob(clip.path, clip.start, clip.end, sampling, shapes) for clip in clips)
        for row, (_, pieces) in zip(rows, pool.stream(read_clip_pieces, jobs), strict=True):
            yield row, pieces

    def _see(
        self,
        name: str,
        pieces: Iterator[DecodedPiece],
        backbones: Sequence[Backbone],
        shapes: Sequence[InputShape],
        batch_size: int,
    ) -> None:
        """Compute what is missing of one clip; of a long recording, piece after piece."""
        seen = self.clips.get(name)
        lacking = [one for one in backbones if seen is None or one.key not in seen.features]
        found: dict[str, list[Floats32]] = {one.key: [] for one in lacking}
        times, horizons, pictures = [], [], []
        try:
            for piece in pieces:
                for one in lacking:
                    squares = piece.squares[shapes.index(one.shape)]
                    found[one.key].append(_features(one, squares, batch_size))
                    self.passed += len(squares)
                times.append(piece.time)
                horizons.append(piece.horizon)
                pictures.append(piece.picture)
        except TceError as error:
            self.skipped[name] = str(error)
            self.clips.pop(name, None)
            log.warning("skipped: %s", error)
            return
        if seen is None:
            seen = self.clips[name] = SeenClip(times, horizons, pictures)
        seen.features |= {key: np.concatenate(parts) for key, parts in found.items()}

    def _load(self, backbones: Sequence[Backbone]) -> None:
        """Read what an earlier run with the same settings kept; anything else is left alone."""
        described, arrays = _read(self.folder / FRAMES_FILE)
        if described is None or described["settings"] != self.settings:
            return
        counts, horizons = arrays["counts"], arrays["horizons"]
        times = np.split(arrays["times"], np.cumsum(counts)[:-1])
        owners = np.repeat(np.arange(len(described["ids"])), described["pieces"])
        data, ends = arrays["pictures"].tobytes(), np.concatenate([[0], np.cumsum(described["bytes"])])
        for number, name in enumerate(described["ids"]):
            own = np.flatnonzero(owners == number)
            pictures = [data[ends[piece] : ends[piece + 1]] for piece in own]
            spans = [None if np.isnan(horizons[piece]) else float(horizons[piece]) for piece in own]
            self.clips[name] = SeenClip(
                [times[piece] for piece in own], spans, pictures, described["stamps"][number]
            )
        for one in backbones:
            described, arrays = _read(self.folder / f"{one.key}.safetensors")
            if described is None or described["settings"] != self.settings:
                continue
            rows = np.split(arrays["features"], np.cumsum(described["counts"])[:-1])
            for name, part in zip(described["ids"], rows, strict=True):
                if name in self.clips and len(part) == sum(map(len, self.clips[name].times)):
                    self.clips[name].features[one.key] = part

    def _save(self, backbones: Sequence[Backbone]) -> None:
        if not self.clips:
            return
        pieces = [len(seen.times) for seen in self.clips.values()]
        times = [part for seen in self.clips.values() for part in seen.times]
        spans = [span for seen in self.clips.values() for span in seen.horizons]
        pictures = [one for seen in self.clips.values() for one in seen.pictures]
        arrays: dict[str, npt.NDArray[Any]] = {
            "counts": np.array([len(part) for part in times], np.int64),
            "times": np.concatenate(times).astype(np.float64),
            "horizons": np.array([np.nan if span is None else span for span in spans], np.float64),
            "pictures": np.frombuffer(b"".join(pictures), np.uint8),
        }
        stamps = [seen.stamp for seen in self.clips.values()]
        facts = {
            "ids": list(self.clips),
            "pieces": pieces,
            "bytes": list(map(len, pictures)),
            "stamps": stamps,
        }
        self._write(FRAMES_FILE, arrays, facts)
        for one in backbones:
            owned = {
                name: seen.features[one.key] for name, seen in self.clips.items() if one.key in seen.features
            }
            if owned:
                facts = {"ids": list(owned), "counts": list(map(len, owned.values()))}
                self._write(
                    f"{one.key}.safetensors", {"features": np.concatenate(list(owned.values()))}, facts
                )

    def _write(self, name: str, arrays: dict[str, npt.NDArray[Any]], facts: Mapping[str, Any]) -> None:
        from safetensors.numpy import save

        text = json.dumps({"settings": self.settings, **facts})
        with atomic(self.folder / name) as file:
            file.write(save(arrays, metadata={"tce": text}))


def _stamps(catalog: Catalog, store: FrameStore | None) -> dict[str, str]:
    """For each clip its file's size and time, or the collection's fingerprint."""
    if store is not None:
        return dict.fromkeys(map(str, catalog.ids), store.fingerprint())
    stamps = {}
    for name, path, start, end in zip(catalog.ids, catalog.paths, catalog.starts, catalog.ends):
        try:
            facts = os.stat(path)
            stamps[str(name)] = f"{facts.st_size} {facts.st_mtime_ns} {start} {end}"
        except OSError:
            stamps[str(name)] = "missing"
    return stamps


def _features(one: Backbone, squares: npt.NDArray[np.uint8], batch_size: int) -> Floats32:
    import torch

    assert one.engine is not None
    with torch.inference_mode():
        parts = [
            one.engine(one.encoder.preprocess(squares[first : first + batch_size], resize="none"))
            for first in range(0, len(squares), batch_size)
        ]
        return torch.cat(parts).float().cpu().numpy()


def _read(path: Path) -> tuple[dict[str, Any] | None, dict[str, npt.NDArray[Any]]]:
    """A kept file's description and arrays; None where there is none that can be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            described = json.loads((file.metadata() or {})["tce"])
            return described, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None, {}
