"""Footage to features: clips are decoded, and their frames pass a network in batches that span clips."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tce.adaptation.clip_frames import FramePiece, FrameSampling, Resize, decode_clips, stored_clips
from tce.adaptation.linear import NO_GROUP, Piece
from tce.data.catalog import Catalog
from tce.data.splits import group_names
from tce.errors import TceError
from tce.model.encoder import FrameEncoder
from tce.model.engine import FeatureEngine
from tce.options.adapt import AdaptOptions


@dataclass
class FootageReader:
    """The clips that the options name.

    Attributes:
        options: where they are, and which frames are taken.
        catalog: the clips; with lists, the train clips of the split.
        store: the collection that holds their frames, if it is one.
        groups: the group of each clip.
    """

    options: AdaptOptions
    catalog: Catalog
    store: Any
    groups: list[str]

    @classmethod
    def open(cls, options: AdaptOptions) -> FootageReader:
        """Find the clips.

        Raises:
            TceError: no footage, lists without train clips, or no such groups.
        """
        from tce.data.collection import is_collection
        from tce.data.open_data import open_store
        from tce.data.read_catalog import read_catalog

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
        groups = [NO_GROUP] * len(catalog) if options.group is None else group_names(catalog, options.group)
        return cls(options, catalog, store, groups)

    def recording(self, row: int) -> str:
        """The recording that a clip was cut from."""
        return str(self.catalog.sources[row])

    def read(
        self, rows: Sequence[int], encoder: FrameEncoder, engine: FeatureEngine
    ) -> Iterator[tuple[int, list[Piece] | TceError]]:
        """Decode clips and pass them through a network.

        Args:
            rows: which clips.
            encoder: whose size and normalisation are used.
            engine: what computes the features.

        Yields:
            a row, and its pieces or why there are none, in order.
        """
        from tce.video.pool import DecodePool

        options = self.options
        sampling = FrameSampling(options.frames_per_clip, options.fps, options.horizon)
        size = encoder.image_size
        resize: Resize = "center-crop" if encoder.config.resize == "center-crop" else "squash"
        with contextlib.ExitStack() as stack:
            if self.store is not None:
                source = stored_clips(self.store, rows, sampling, size, resize, options.workers or 2)
            else:
                pool = stack.enter_context(DecodePool(options.workers or 0, options.timeout))
                source = decode_clips(self.catalog, rows, sampling, size, resize, pool)
            yield from clip_features(source, encoder, engine, options.batch_size)


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
