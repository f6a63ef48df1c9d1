"""Where training finds its frames: what collections and frame folders have in common, and frame folders."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from tce.errors import TceError
from tce.video.base import FrameError
from tce.video.image import image_size, read_file

if TYPE_CHECKING:
    from tce.data.catalog import Catalog


log = logging.getLogger("tce.data")
_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)


class FrameStore(ABC):
    """Encoded frames of many clips, by clip and position; safe to read from several threads.

    Attributes:
        catalog: the clips, with labels, splits and sources; its rows are what `read` calls clips.
        lengths: int64 [clips], frames of each clip, at least 1.
        fps: float64 [clips], frames a second.
    """

    catalog: Catalog
    lengths: np.ndarray
    fps: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    @abstractmethod
    def sizes(self) -> np.ndarray:
        """int64 [clips, 2], height and width of the stored frames in pixels."""

    @abstractmethod
    def read(self, clips: np.ndarray, frames: np.ndarray) -> list[bytes | Exception]:
        """Encoded images of single frames.

        Args:
            clips: int64 [n], rows of `catalog`.
            frames: int64 [n], position of the frame in its clip, from 0.

        Returns:
            n items: the image's bytes, or the error that stands in its place.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the clips and their content, in their order: what a run's samples depend on."""

    @abstractmethod
    def _subset(self, rows: np.ndarray) -> None:
        """Reduce the subclass's own arrays to `rows`."""

    def select(self, rows: np.ndarray | Sequence[int]) -> Self:
        """A store of some of the clips, which shares everything else with this one.

        Args:
            rows: int64 [m] rows of `catalog` in the wanted order, or bool [clips].
        """
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        other = copy.copy(self)
        other.catalog = self.catalog.select(rows)
        other.lengths, other.fps = self.lengths[rows], self.fps[rows]
        other._subset(rows)
        return other


class FrameRequest:
    """Frames asked for, of which those that do not exist are set apart.

    Args:
        lengths: int64 [clips], frames of each clip.
        clips: int64 [n], rows of the clips.
        frames: int64 [n], positions of the frames in them.

    Attributes:
        clips: int64 [m], the clips of the frames that exist.
        frames: int64 [m], their positions.
    """

    def __init__(self, lengths: np.ndarray, clips: np.ndarray, frames: np.ndarray):
        clips, frames = np.asarray(clips, dtype=np.int64), np.asarray(frames, dtype=np.int64)
        exist = (frames >= 0) & (frames < lengths[clips])
        self.clips, self.frames = clips, frames
        self._outside: dict[int, IndexError] = {}
        if not exist.all():
            for place in np.flatnonzero(~exist).tolist():
                length = lengths[clips[place]]
                self._outside[place] = IndexError(f"frame {frames[place]} of a clip of {length} frames")
            self.clips, self.frames = clips[exist], frames[exist]

    def fill(self, images: list[bytes | Exception]) -> list[bytes | Exception]:
        """The images of the frames that exist, with an error in the place of each that does not."""
        if not self._outside:
            return images
        found = iter(images)
        places = range(len(images) + len(self._outside))
        return [self._outside[place] if place in self._outside else next(found) for place in places]


class FolderStore(FrameStore):
    """The clips of a catalog whose footage are folders of images.

    Folders that cannot be listed or hold no image are left out and named in `damaged`. Frames have the rate
    that `tce.video` gives image folders, which state none.

    Args:
        catalog: clips whose paths are folders.

    Attributes:
        damaged: ids of clips left out, with the reason.

    Raises:
        TceError: no clip is left.
    """

    def __init__(self, catalog: Catalog):
        from tce.video.base import VideoError
        from tce.video.folder import FrameFolder

        self._names = FrameNames()
        self.damaged: dict[str, str] = {}
        kept, lengths, rates = [], [], []
        ids, paths = catalog.ids, catalog.paths
        for row, path in enumerate(paths):
            folder = FrameFolder(path)
            try:
                names = folder.names
            except VideoError as error:
                self.damaged[ids[row]] = str(error)
                continue
            self._names.append(names)
            kept.append(row)
            lengths.append(len(names))
            rates.append(folder.fps)
        if self.damaged:
            first, reason = next(iter(self.damaged.items()))
            log.warning(
                "%d of %d frame folders are left out, %s first: %s",
                len(self.damaged),
                len(catalog),
                first,
                reason,
            )
        if not kept:
            raise TceError(
                "frame folders", expected="at least one folder with images", found="none that can be read"
            )
        self.catalog = catalog.select(np.array(kept, dtype=np.int64))
        self._paths: list[str] = paths[kept].tolist()
        self.lengths = np.array(lengths, dtype=np.int64)
        self.fps = np.array(rates, dtype=np.float64)
        self._clips = np.arange(len(kept), dtype=np.int64)  # row here -> clip of self._names
        self._sizes: np.ndarray | None = None

    @property
    def sizes(self) -> np.ndarray:
        """int64 [clips, 2], height and width of each clip's first frame; 0 where it cannot be read."""
        if self._sizes is None:
            self._sizes = np.zeros((len(self), 2), dtype=np.int64)
            for row in range(len(self)):
                data = self._read_one(row, 0)
                if isinstance(data, bytes):
                    with contextlib.suppress(FrameError):  # the loader will name it
                        self._sizes[row] = image_size(data)
        return self._sizes

    def read(self, clips: np.ndarray, frames: np.ndarray) -> list[bytes | Exception]:
        """Encoded images of single frames; see `FrameStore.read`."""
        wanted = FrameRequest(self.lengths, clips, frames)
        pairs = zip(wanted.clips.tolist(), wanted.frames.tolist(), strict=True)
        return wanted.fill([self._read_one(clip, frame) for clip, frame in pairs])

    def fingerprint(self) -> str:
        """Hash of the clips and of every frame's name and file size; pixels are not read."""
        digest = hashlib.sha256()
        for name, clip in zip(self.catalog.ids, self._clips.tolist(), strict=True):
            sizes = _file_sizes(self._paths[clip])
            of_frames = [sizes.get(frame, -1) for frame in self._names.all(clip)]
            digest.update(repr((name, self._names.key(clip), of_frames)).encode())
        return digest.hexdigest()

    def _subset(self, rows: np.ndarray) -> None:
        self._clips = self._clips[rows]
        self._sizes = None if self._sizes is None else self._sizes[rows]

    def _read_one(self, row: int, frame: int) -> bytes | Exception:
        clip = int(self._clips[row])
        name = self._names.name(clip, frame)
        try:
            return read_file(os.path.join(self._paths[clip], name))
        except OSError as error:
            return OSError(f"{name}: {error.strerror or error}")


class FrameNames:
    """The file names of many clips' frames.

    Names that just count on, as in nearly every dataset, are kept as their pattern, so that a million clips
    take a few numbers each rather than a string a frame.
    """

    def __init__(self) -> None:
        self._keys: list[tuple[str, int, int, str, int] | bytes] = []
        self._seen: dict[str, str] = {}

    def append(self, names: Sequence[str]) -> None:
        """Add a clip's names, in order; at least one."""
        self._keys.append(self._pattern(names) or "\0".join(names).encode("utf-8", "surrogateescape"))

    def name(self, clip: int, frame: int) -> str:
        """The name of one frame."""
        key = self._keys[clip]
        if isinstance(key, bytes):
            return os.fsdecode(key.split(b"\0")[frame])
        prefix, first, digits, suffix, _ = key
        return f"{prefix}{first + frame:0{digits}d}{suffix}"

    def all(self, clip: int) -> list[str]:
        """The names of a clip's frames, in order."""
        key = self._keys[clip]
        if isinstance(key, bytes):
            return [os.fsdecode(name) for name in key.split(b"\0")]
        return [self.name(clip, frame) for frame in range(key[4])]

    def key(self, clip: int) -> tuple[str, int, int, str, int] | bytes:
        """What is kept of a clip's names; equal for equal names."""
        return self._keys[clip]

    def _pattern(self, names: Sequence[str]) -> tuple[str, int, int, str, int] | None:
        """Prefix, first number, digits, suffix and count, or None where the names are not of this form."""
        match = _NUMBERED.fullmatch(names[0])
        if match is None:
            return None
        prefix, number, suffix = match.groups()
        first, digits = int(number), len(number)
        if any(name != f"{prefix}{first + i:0{digits}d}{suffix}" for i, name in enumerate(names)):
            return None
        shared = (self._seen.setdefault(part, part) for part in (prefix, suffix))
        return next(shared), first, digits, next(shared), len(names)


def _file_sizes(folder: str) -> dict[str, int]:
    """The size of each file in a folder; empty where the folder cannot be read."""
    sizes = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a link that leads nowhere
                sizes[entry.name] = entry.stat().st_size
    return sizes
