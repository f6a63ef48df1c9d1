"""Where training finds its frames: what collections and frame folders have in common, and the way to one."""

from __future__ import annotations

import copy
import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tce.errors import TceError

if TYPE_CHECKING:
    from tce.data.read_catalog import Catalog

log = logging.getLogger("tce.data")


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

    def _read_checked(
        self,
        clips: np.ndarray,
        frames: np.ndarray,
        read: Callable[[np.ndarray, np.ndarray], list[bytes | Exception]],
    ) -> list[bytes | Exception]:
        """`read` of the frames that exist; an error in the place of each that does not."""
        clips, frames = np.asarray(clips, dtype=np.int64), np.asarray(frames, dtype=np.int64)
        good = (frames >= 0) & (frames < self.lengths[clips])
        if good.all():
            return read(clips, frames)
        found = iter(read(clips[good], frames[good]))
        return [
            next(found) if ok else IndexError(f"frame {frame} of a clip of {self.lengths[clip]} frames")
            for ok, clip, frame in zip(good, clips, frames, strict=True)
        ]


def open_store(
    path: str | os.PathLike[str], lists: str | os.PathLike[str] | None = None, split: str = "01"
) -> FrameStore:
    """Open a collection, or a tree of frame folders in place.

    Args:
        path: a collection's folder, or a folder that holds folders of images at any depth.
        lists: a dataset's lists, which give labels and the column `split`; None takes what was packed, or
            labels from the folders' names.
        split: which of the lists' splits.

    Raises:
        TceError: there is nothing, or there are video files, which have to be packed first.
    """
    from tce.data.collection import is_collection

    if is_collection(path):
        return _open_collection(path, lists, split)
    from tce.data.read_catalog import read_catalog

    store = _open_folders(read_catalog(path, lists, split))
    if store is None:
        raise TceError(
            str(path),
            expected="a collection or frame folders",
            found="video files",
            fix=f"pack them first: tce pack {path} --out COLLECTION",
        )
    return store


def prepare_store(
    data: str | os.PathLike[str],
    cache_folder: str | os.PathLike[str],
    lists: str | os.PathLike[str] | None = None,
    split: str = "01",
    options: Mapping[str, Any] | None = None,
    check: Callable[[Catalog], None] = lambda catalog: None,
) -> FrameStore:
    """Open footage of any kind for training; video files are packed on first use.

    A collection or a tree of frame folders is used where it is. Video files are packed into
    `cache_folder/collection`, which is said and shows its progress; an interrupted packing goes on with the
    same call, a finished one is opened.

    Args:
        data: videos, frame folders or a collection.
        cache_folder: where the packed footage may lie, beside a run for example.
        lists: a dataset's lists, which give labels and the column `split`.
        split: which of the lists' splits.
        options: further options of `tce pack` by their names, `short_side` for example.
        check: called with the clips that were found before any of them is packed; raises to refuse them.

    Raises:
        TceError: there is no footage, or none that can be decoded.
    """
    from tce.data.collection import is_collection

    if is_collection(data):
        opened = _open_collection(data, lists, split)
        check(opened.catalog)
        return opened
    from tce.data.pack import pack
    from tce.data.read_catalog import read_catalog
    from tce.options.pack import PackOptions

    catalog = read_catalog(data, lists, split)
    check(catalog)
    store = _open_folders(catalog)
    if store is not None:
        return store
    collection = Path(cache_folder) / "collection"
    if not is_collection(collection):
        log.info("packing the videos of %s into %s, once", data, collection)
    # Lists that cut clips out of recordings decide what is packed; others are read anew for each split.
    cutting = lists if lists is not None and not np.isnan(catalog.starts).all() else None
    given = {"lists": None if cutting is None else os.fspath(cutting), "split": split, **(options or {})}
    _refuse_other_footage(collection, data)
    catalog.root = os.path.abspath(catalog.root)
    known = catalog if lists in (None, cutting) else None  # else packed with the labels of the folders
    pack(PackOptions(footage=(os.fspath(data),), out=str(collection), **given), known)
    return _open_collection(collection, lists, split, warn=False)  # what is missing was said above


def _refuse_other_footage(collection: Path, data: str | os.PathLike[str]) -> None:
    """See to it that a cache is of `data`; one of other footage of which nothing was packed is removed.

    Raises:
        TceError: it holds clips of other footage, damaged ones too, or is being written.
    """
    from tce.data.collection import is_collection, read_options
    from tce.data.writer import lock_collection

    if not is_collection(collection):
        return
    packed = [place for addition in read_options(collection)["additions"] for place in addition["footage"]]
    if os.path.abspath(data) in packed:
        return
    lock = lock_collection(collection)
    try:
        if _holds_clips(collection):
            raise TceError(
                str(data),
                expected=f"the footage whose frames {collection} holds",
                found=f"other footage than {', '.join(packed)}",
                fix="name another --out, or remove that folder",
            )
        shutil.rmtree(collection)
    finally:
        lock.release()


def _holds_clips(collection: Path) -> bool:
    """Whether a clip was packed, also one that is damaged by now, or rows say what cannot be read."""
    from tce.data.collection import CLIPS, FAILED, open_table
    from tce.data.writer import known_clips

    known = known_clips(collection)
    lost = open_table(collection, CLIPS).count_rows() - len(known)
    return lost > 0 or any(clip.status != FAILED for clip in known.values())


def _open_collection(
    path: str | os.PathLike[str], lists: str | os.PathLike[str] | None, split: str, warn: bool = True
) -> FrameStore:
    from tce.data.collection import open_collection
    from tce.data.read_catalog import apply_lists

    store = open_collection(path)
    if len(store) == 0:
        raise TceError(f"collection {path}", expected="clips", found="none", fix="pack footage into it")
    if lists is not None:
        store.catalog = apply_lists(store.catalog, lists, split, warn)
    return store


def _open_folders(catalog: Catalog) -> FrameStore | None:
    """The catalog's frame folders, or None where there is a video file among them."""
    from tce.data.folder_store import FolderStore

    return FolderStore(catalog) if all(map(os.path.isdir, catalog.paths)) else None
