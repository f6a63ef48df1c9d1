"""From what a user names as data to a frame store: a collection, frame folders in place, or packed videos."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tce.data.collection import holds_clips, is_collection, open_collection, read_options
from tce.data.frame_store import FolderStore, FrameStore
from tce.data.read_catalog import apply_lists, read_catalog
from tce.errors import TceError

if TYPE_CHECKING:
    from tce.data.catalog import Catalog

log = logging.getLogger("tce.data")

Path_ = str | os.PathLike[str]


@dataclass(frozen=True)
class FoundData:
    """Data whose clips are known, though their frames may have to be packed before they can be read.

    Attributes:
        data: videos, frame folders or a collection.
        lists: the dataset's lists, which give labels and the column `split`; None takes what was packed, or
            labels from the folders' names.
        split: which of the lists' splits.
        catalog: the clips found.
        store: where their frames are read; None where videos have to be packed first.
    """

    data: str
    lists: str | None
    split: str
    catalog: Catalog
    store: FrameStore | None

    def open(self, cache_folder: Path_, options: Mapping[str, Any] | None = None) -> FrameStore:
        """The frames, ready to be read; videos are packed into `cache_folder/collection` on first use.

        Packing is logged and shows its progress; an interrupted one resumes with the same call, a finished
        one is opened.

        Args:
            cache_folder: where packed videos may be kept, beside a run for example.
            options: further options of `tce pack` by their names, `short_side` for example.

        Raises:
            TceError: none of the videos can be decoded, or the cache holds other data.
        """
        if self.store is not None:
            return self.store
        from tce.data.pack import pack
        from tce.options.pack import PackOptions

        collection = Path(cache_folder) / "collection"
        _require_cache_of(collection, self.data)
        if not is_collection(collection):
            log.info("packing the videos of %s into %s, once", self.data, collection)
        # Lists that cut clips out of recordings decide what is packed; others are read again for each split.
        cutting = self.lists if not np.isnan(self.catalog.starts).all() else None
        given = {"lists": cutting, "split": self.split, **(options or {})}
        self.catalog.root = os.path.abspath(self.catalog.root)
        # Unless lists cut the clips, they are packed with the labels of their folders.
        known = self.catalog if self.lists in (None, cutting) else None
        pack(PackOptions(footage=(self.data,), out=str(collection), **given), known)
        return _open_collection(collection, self.lists, self.split, warn=False)  # the catalog warned before


def find_data(data: Path_, lists: Path_ | None = None, split: str = "01") -> FoundData:
    """Find the clips of a dataset without decoding or writing anything.

    Args:
        data: videos, frame folders or a collection.
        lists: the dataset's lists.
        split: which of the lists' splits.

    Raises:
        TceError: there is nothing, or the lists do not fit it.
    """
    place, given = os.fspath(data), None if lists is None else os.fspath(lists)
    if is_collection(place):
        store: FrameStore | None = _open_collection(place, given, split)
        assert store is not None
        return FoundData(place, given, split, store.catalog, store)
    catalog = read_catalog(place, given, split)
    store = FolderStore(catalog) if all(map(os.path.isdir, catalog.paths)) else None
    return FoundData(place, given, split, catalog if store is None else store.catalog, store)


def open_store(path: Path_, lists: Path_ | None = None, split: str = "01") -> FrameStore:
    """Open a collection, or a tree of frame folders in place.

    Args:
        path: a collection's folder, or a folder that holds folders of images at any depth.
        lists: the dataset's lists, which give labels and the column `split`; None takes what was packed, or
            labels from the folders' names.
        split: which of the lists' splits.

    Raises:
        TceError: there is nothing, or there are video files, which have to be packed first.
    """
    store = find_data(path, lists, split).store
    if store is None:
        raise TceError(
            str(path),
            expected="a collection or frame folders",
            found="video files",
            fix=f"pack them first: tce pack {path} --out COLLECTION",
        )
    return store


def _require_cache_of(collection: Path, data: str) -> None:
    """Check that a cache holds the packed videos of `data`, or nothing yet.

    Raises:
        TceError: it holds other clips, damaged ones included.
    """
    if not is_collection(collection) or not holds_clips(collection):
        return
    additions = read_options(collection).get("additions", [])
    packed = [place for addition in additions for place in addition["footage"]]
    if os.path.abspath(data) not in packed:
        raise TceError(
            data,
            expected=f"the footage whose frames {collection} holds",
            found=f"other footage than {', '.join(packed)}",
            fix="name another --out, or remove that folder",
        )


def _open_collection(path: Path_, lists: str | None, split: str, warn: bool = True) -> FrameStore:
    store = open_collection(path)
    if len(store) == 0:
        raise TceError(f"collection {path}", expected="clips", found="none", fix="pack footage into it")
    if lists is not None:
        store.catalog = apply_lists(store.catalog, lists, split, warn)
    return store
