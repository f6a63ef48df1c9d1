"""Where training finds its frames: what collections and frame folders have in common."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from tce.data.catalog import Catalog


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
