"""Features of frozen networks on a collection's clips, each computed once and kept in a file.

`benchmarks/science.py` evaluates many ways of using them; only this part passes frames through a network.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tce.adaptation.clip_frames import FrameSampling, Resize, stored_clips
from tce.adaptation.footage_reader import clip_features
from tce.adaptation.linear import Piece
from tce.data.frame_store import FrameStore
from tce.errors import TceError
from tce.io import atomic
from tce.model.encoder import FrameEncoder, build_encoder, build_start
from tce.model.engine import pick_engine

UNTRAINED = "untrained resnet18"
SEED = 0  # of the untrained weights


@dataclass(frozen=True)
class View:
    """A frozen network and the frames that it sees.

    Attributes:
        start: "lite0", "lite2", or `UNTRAINED`.
        image_size: side of its input in pixels.
        frames: of a clip, spread evenly.
    """

    start: str
    image_size: int
    frames: int

    @property
    def name(self) -> str:
        """For files and tables."""
        return f"{self.start}, {self.image_size} px, {self.frames} frames"

    def encoder(self) -> FrameEncoder:
        """The network, without a head and in evaluation mode."""
        if self.start == UNTRAINED:
            # As `tce evaluate --ckpt random --model resnet18` builds it.
            encoder = build_encoder(
                "resnet18", head="none", image_size=self.image_size, seed=SEED, resize="squash"
            )
        else:
            encoder = build_start(self.start, self.image_size)
        return encoder.eval().requires_grad_(False)


@dataclass(frozen=True)
class ClipFeatures:
    """What a network makes of the clips' frames.

    Attributes:
        ids: [clips].
        pieces: for each clip its one piece: features [n, F] and their times.
        seconds: of the pass, decoding included; 0 where they came out of the file.
        engine: what computed them.
    """

    ids: tuple[str, ...]
    pieces: tuple[Piece, ...]
    seconds: float
    engine: str


def cached_features(
    view: View,
    store: FrameStore,
    path: Path,
    workers: int = 1,
    engine: Literal["auto", "torch", "onnxruntime"] = "auto",
) -> ClipFeatures:
    """The features of all clips of a collection, out of a file if they are there.

    Args:
        view: network and frames.
        store: the clips, none longer than ten seconds.
        path: of the file, .npz.
        workers: decoding threads.
        engine: of `tce.model.engine`.

    Raises:
        TceError: a clip cannot be read.
    """
    if not path.exists():
        found = compute_features(view, store, workers, engine)
        rows = np.concatenate([piece.features for piece in found.pieces]).astype(np.float32)
        times = np.concatenate([piece.time for piece in found.pieces])
        counts = [len(piece.time) for piece in found.pieces]
        with atomic(path) as file:
            np.savez(
                file,
                ids=np.array(found.ids),
                rows=rows,
                times=times,
                counts=counts,
                seconds=found.seconds,
                engine=found.engine,
            )
    with np.load(path) as stored:
        ends = np.cumsum(stored["counts"])[:-1]
        rows, times = np.split(stored["rows"], ends), np.split(stored["times"], ends)
        pieces = tuple(Piece(part, time_) for part, time_ in zip(rows, times, strict=True))
        return ClipFeatures(
            tuple(stored["ids"].tolist()), pieces, float(stored["seconds"]), str(stored["engine"])
        )


def compute_features(
    view: View, store: FrameStore, workers: int, engine: Literal["auto", "torch", "onnxruntime"]
) -> ClipFeatures:
    """Pass the frames through the network, as `tce adapt` does."""
    started = time.perf_counter()
    encoder = view.encoder()
    rows = list(range(len(store)))
    chosen = pick_engine(encoder, engine, view.image_size, "float32", len(rows) * view.frames)
    resize: Resize = "center-crop" if encoder.config.resize == "center-crop" else "squash"
    sampling = FrameSampling(view.frames)
    clips = stored_clips(store, rows, sampling, view.image_size, resize, workers)
    pieces: list[Piece] = []
    for row, found in clip_features(clips, encoder, chosen, batch_size=32):
        if isinstance(found, TceError):
            raise found
        if len(found) != 1:
            raise TceError(
                store.catalog.ids[row], expected="a clip of up to 10 seconds", found="a longer one"
            )
        pieces += found
    seconds = time.perf_counter() - started
    return ClipFeatures(tuple(store.catalog.ids), tuple(pieces), seconds, chosen.name)


def unit_means(pieces: tuple[Piece, ...]) -> npt.NDArray[np.float32]:
    """Mean of each clip's unit vectors, [clips, F]."""
    return np.stack([_unit(piece.features).mean(axis=0) for piece in pieces]).astype(np.float32)


def _unit(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
