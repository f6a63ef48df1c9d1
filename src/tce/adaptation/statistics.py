"""What an adaptation remembers of the footage it has seen: sums in folds, and some clips to check on.

It stays in the run, so that footage can be added without the old, and adds up over processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tce.adaptation.guard import HeldClip
from tce.adaptation.linear import NO_GROUP, Piece, ScatterSums
from tce.data.catalog import HASH_DIGITS, SKETCH_HASHES
from tce.errors import TceError
from tce.io import atomic

FOLDS = 3
HELD_OUT = 200  # pieces kept in a fold to check on
PIECES_PER_CLIP = 8  # of them, from one recording
FILE_NAME = "statistics.safetensors"
VERSION = 2
SPLIT = -1  # in place of a fold: the recording itself is cut into the folds


class FootageStatistics:
    """Sums over clips, in `FOLDS` parts that hold different recordings.

    Args:
        size: numbers in a feature vector.
        settings: what the features depend on, JSON types; statistics of other settings do not mix.

    Attributes:
        folds: the sums.
        frames: frames seen.
        pieces: short clips, and pieces of long recordings seen.
    """

    def __init__(self, size: int, settings: Mapping[str, Any]):
        self.size, self.settings = size, dict(settings)
        self.folds = [ScatterSums(size) for _ in range(FOLDS)]
        self.frames = self.pieces = 0
        self._held: list[dict[int, HeldClip]] = [{} for _ in range(FOLDS)]
        self._seen: set[int] = set()
        self._fold_of: dict[int, int] = {}  # recording -> fold

    def __len__(self) -> int:
        return len(self._seen)

    def __contains__(self, clip: str) -> bool:
        return _key(clip) in self._seen

    @property
    def held(self) -> list[list[HeldClip]]:
        """For each fold some clips or pieces, of two frames or more."""
        return [[part[key] for key in sorted(part)] for part in self._held]

    def sketch(self) -> str:
        """A sample of the clips' names, as `tce.data.catalog.clip_sketch` makes it."""
        return "".join(sorted({f"{key >> 32:0{HASH_DIGITS}x}" for key in self._seen})[:SKETCH_HASHES])

    def place(self, recordings: Iterable[str]) -> None:
        """Deal new recordings out to the folds; the same ones always go the same way.

        With fewer recordings than folds, each is cut into the folds instead.
        """
        new = sorted({_key(name) for name in recordings} - self._fold_of.keys())
        dealt = sum(fold != SPLIT for fold in self._fold_of.values())
        if dealt + len(new) < FOLDS:
            self._fold_of |= dict.fromkeys(new, SPLIT)
        else:
            self._fold_of |= {key: (dealt + number) % FOLDS for number, key in enumerate(new)}

    def fold_of(self, recording: str) -> int:
        """The fold of a recording that was placed; `SPLIT` where its parts are dealt out."""
        return self._fold_of[_key(recording)]

    def add(self, clip: str, recording: str, pieces: Sequence[Piece], group: str = NO_GROUP) -> None:
        """Add one clip.

        Args:
            clip: its id.
            recording: whose it is; see `place`.
            pieces: its features.
            group: see `ScatterSums.add`.

        Raises:
            TceError: features that are not finite.
        """
        fold = self._fold_of[_key(recording)]
        if fold != SPLIT:
            parts = [(fold, list(pieces))]
        else:
            blocks = np.array_split(np.arange(len(pieces)), FOLDS)
            parts = [(n, [pieces[i] for i in block]) for n, block in enumerate(blocks) if len(block)]
        for number, part in parts:
            self.folds[number].add(part, group)
            self._keep(number, clip, recording, part)
        self._seen.add(_key(clip))
        self.pieces += len(pieces)
        self.frames += sum(len(piece.features) for piece in pieces)

    def _keep(self, fold: int, clip: str, recording: str, pieces: Sequence[Piece]) -> None:
        whole = [number for number, piece in enumerate(pieces) if len(piece.features) > 1]
        chosen = [whole[n * len(whole) // PIECES_PER_CLIP] for n in range(PIECES_PER_CLIP)] if whole else []
        for number in sorted(set(chosen)):
            features = np.asarray(pieces[number].features, np.float32)
            held = HeldClip(features, recording_number(recording))
            self._held[fold][_key(f"{clip}\0{fold}\0{number}")] = held
        self._trim(fold, 2 * HELD_OUT)

    def _trim(self, fold: int, most: int) -> None:
        """Keep those with the lowest keys: a fair choice that does not depend on order."""
        held = self._held[fold]
        if len(held) > most:
            self._held[fold] = {key: held[key] for key in sorted(held)[:HELD_OUT]}

    def merge(self, other: FootageStatistics) -> None:
        """Add what another process, or an earlier run, has seen.

        Raises:
            TceError: other settings, or a clip that both have seen.
        """
        require_settings(self.settings, other.settings)
        twice = self._seen & other._seen
        if twice:
            raise TceError("statistics", expected="different clips", found=f"{len(twice)} clips in both")
        for fold in range(FOLDS):
            self.folds[fold].merge(other.folds[fold])
            self._held[fold] |= other._held[fold]
            self._trim(fold, HELD_OUT)
        self._seen |= other._seen
        self._fold_of |= other._fold_of
        self.frames += other.frames
        self.pieces += other.pieces

    def finish(self) -> None:
        """Reduce the clips kept to their final number."""
        for fold in range(FOLDS):
            self._trim(fold, HELD_OUT)

    def save(self, path: Path) -> None:
        """Write everything to a file, whole or not at all."""
        from safetensors.numpy import save

        description = {
            "version": VERSION,
            "size": self.size,
            "frames": self.frames,
            "pieces": self.pieces,
            "settings": self.settings,
            "held": [[len(part[key].frames) for key in sorted(part)] for part in self._held],
        }
        data = save(self.to_arrays(), metadata={"tce": json.dumps(description, sort_keys=True)})
        with atomic(path) as file:
            file.write(data)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays of the file."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "seen": np.array(sorted(self._seen), np.uint64),
            "recordings": np.array(sorted(self._fold_of), np.uint64),
            "folds": np.array([self._fold_of[key] for key in sorted(self._fold_of)], np.int8),
        }
        for number, (sums, held) in enumerate(zip(self.folds, self._held)):
            arrays |= {f"fold{number}.{name}": value for name, value in sums.to_arrays().items()}
            arrays[f"fold{number}.keys"] = np.array(sorted(held), np.uint64)
            rows = [held[key].frames for key in sorted(held)]
            arrays[f"fold{number}.recordings"] = np.array(
                [held[key].recording for key in sorted(held)], np.int64
            )
            arrays[f"fold{number}.held"] = np.concatenate([*rows, np.empty((0, self.size), np.float32)])
        return arrays

    @classmethod
    def load(cls, path: Path) -> FootageStatistics:
        """What `save` wrote.

        Raises:
            TceError: no such file, or not one of these.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as file:
                description = json.loads((file.metadata() or {})["tce"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if description["version"] not in (1, VERSION):  # 1 had no recordings of the clips kept
                raise KeyError(f"version {description['version']}")
            return cls._from(description, arrays)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, IndexError) as error:
            raise TceError(
                str(path),
                expected="the sums of an adaptation",
                found=f"{type(error).__name__}: {error}",
                fix="adapt all footage again with --force",
            ) from error

    @classmethod
    def _from(cls, description: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> FootageStatistics:
        found = cls(description["size"], description["settings"])
        found.frames, found.pieces = description["frames"], description["pieces"]
        found._seen = {int(key) for key in arrays["seen"]}
        found._fold_of = {int(key): int(fold) for key, fold in zip(arrays["recordings"], arrays["folds"])}
        for number in range(FOLDS):
            start = f"fold{number}."
            own = {
                name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)
            }
            found.folds[number] = ScatterSums.from_arrays(own, found.size)
            ends = np.cumsum(description["held"][number])[:-1]
            rows = np.split(own["held"], ends) if len(own["keys"]) else []
            recordings = own.get("recordings", np.arange(len(own["keys"])))
            found._held[number] = {
                int(key): HeldClip(part, int(recording))
                for key, part, recording in zip(own["keys"], rows, recordings, strict=True)
            }
        return found


def require_settings(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Check that two statistics are of the same start and settings.

    Raises:
        TceError: they differ; it names each difference.
    """
    names = sorted(wanted.keys() | found.keys())
    different = [name for name in names if wanted.get(name) != found.get(name)]
    if different:
        raise TceError(
            "the run's settings",
            expected=", ".join(f"{name} {found.get(name)}" for name in different) + ", as the run has",
            found=", ".join(f"{name} {wanted.get(name)}" for name in different),
            fix="give the same options, or start again with --force",
        )


def recording_number(name: str) -> int:
    """A recording's number in `HeldClip`: 63 bits of its name's hash, which a signed number holds."""
    return _key(name) >> 1


def _key(name: str) -> int:
    """The first 64 bits of a name's hash, of which `clip_sketch` takes the first 32."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
