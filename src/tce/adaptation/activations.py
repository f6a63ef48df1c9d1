"""What the frozen trunk makes of clips' frames, in a memory-mapped file while the last blocks are trained.

Decoding and the trunk's pass are done once; every step of the training then reads some rows. The file has a
bound: where clips are more than it holds, a fair sample of them is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tce.adaptation.linear import Piece
from tce.errors import TceError
from tce.io import write_json

Floats = npt.NDArray[np.float32]

ROWS_NAME, INDEX_NAME = "activations.f32", "activations.json"


@dataclass
class CachedPiece:
    """A short clip, or a piece of a long recording.

    Attributes:
        clip: its id.
        first: number of its first row.
        time: [n], seconds.
        horizon: see `tce.adaptation.linear.Piece`.
    """

    clip: str
    first: int
    time: npt.NDArray[np.float64]
    horizon: float | None

    def __len__(self) -> int:
        return len(self.time)

    @property
    def rows(self) -> slice:
        """Its rows of the file."""
        return slice(self.first, self.first + len(self))


@dataclass
class ActivationCache:
    """Activations [rows, size] on disk and whose they are.

    Attributes:
        folder: where both files lie.
        size: numbers in a row.
        settings: what the rows depend on, JSON types.
        clips: ids that were read, in order.
        pieces: all pieces of them, in order.
    """

    folder: Path
    size: int
    settings: Mapping[str, Any]
    clips: list[str] = field(default_factory=list)
    pieces: list[CachedPiece] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Rows that there are."""
        return self.pieces[-1].rows.stop if self.pieces else 0

    @property
    def bytes(self) -> int:
        """Size of the rows on disk."""
        return 4 * self.size * self.count

    @classmethod
    def open(cls, folder: Path, size: int, settings: Mapping[str, Any]) -> ActivationCache:
        """The cache of an interrupted run where its settings are the same, or an empty one."""
        cache = cls(folder, size, dict(settings))
        try:
            found = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
            if found["settings"] == cache.settings and found["size"] == size:
                cache.clips = list(found["clips"])
                first = 0
                for clip, time, horizon in found["pieces"]:
                    cache.pieces.append(CachedPiece(clip, first, np.array(time, np.float64), horizon))
                    first += len(time)
                if (folder / ROWS_NAME).stat().st_size < cache.bytes:
                    raise ValueError("rows are missing")
        except (OSError, ValueError, KeyError, TypeError):
            cache.clips, cache.pieces = [], []
        return cache

    def fill(
        self, clips: Iterable[tuple[str, list[Piece]]], most_bytes: float, save_every: int = 200
    ) -> None:
        """Append clips; the index is written now and then, so an interrupted pass resumes where it was.

        Args:
            clips: a clip's id and its activations.
            most_bytes: after which no further clip is taken.
            save_every: clips between two writings of the index.

        Raises:
            TceError: the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / ROWS_NAME
        try:
            with open(path, "r+b" if path.exists() else "w+b") as file:
                file.truncate(self.bytes)  # what a killed process wrote after its last index
                file.seek(0, 2)
                try:
                    for number, (clip, pieces) in enumerate(clips, 1):
                        for piece in pieces:
                            file.write(np.ascontiguousarray(piece.features, np.float32).tobytes())
                        self._note(clip, pieces)
                        if number % save_every == 0:
                            self._save(file)
                        if self.bytes >= most_bytes:
                            break
                finally:
                    self._save(file)
        except OSError as error:
            raise TceError(
                f"{path}",
                expected=f"room for about {self.bytes >> 20} MB or more",
                found=error.strerror or str(error),
                fix="free some space, or use --method linear, --image-size or --frames-per-clip",
            ) from error

    def _note(self, clip: str, pieces: list[Piece]) -> None:
        first = self.pieces[-1].rows.stop if self.pieces else 0
        for piece in pieces:
            self.pieces.append(CachedPiece(clip, first, piece.time, piece.horizon))
            first += len(piece.time)
        self.clips.append(clip)

    def _save(self, file: Any) -> None:
        file.flush()
        write_json(
            self.folder / INDEX_NAME,
            {
                "settings": self.settings,
                "size": self.size,
                "clips": self.clips,
                "pieces": [[piece.clip, piece.time.tolist(), piece.horizon] for piece in self.pieces],
            },
        )

    def map(self) -> Floats:
        """The rows, [rows, size], read from disk as they are used."""
        if not self.count:
            return np.empty((0, self.size), np.float32)
        return np.memmap(self.folder / ROWS_NAME, np.float32, "r", shape=(self.count, self.size))

    def by_clip(self) -> Iterator[tuple[str, list[CachedPiece]]]:
        """Each clip's pieces, in order."""
        pieces: dict[str, list[CachedPiece]] = {clip: [] for clip in self.clips}
        for piece in self.pieces:
            pieces[piece.clip].append(piece)
        yield from pieces.items()

    def remove(self) -> None:
        """Delete the files."""
        for name in (ROWS_NAME, INDEX_NAME):
            (self.folder / name).unlink(missing_ok=True)
        if self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def fair_order(names: Sequence[str]) -> list[int]:
    """Positions of the names in the order of their hashes: the first ones are a fair sample of all."""
    keys = [hashlib.sha256(name.encode()).digest() for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)
