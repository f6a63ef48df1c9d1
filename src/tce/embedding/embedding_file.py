"""Embeddings on disk: the file `tce embed` writes, and the plain arrays other tools write."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError
from tce.io import atomic
from tce.visualize.reduce import check_embeddings

EXPECTED = "an .npz file of `tce embed`, an .npy file or a pickled array, [N, D]"


@dataclass
class Embeddings:
    """Embeddings of frames and where each comes from.

    Attributes:
        embeddings: [N, D].
        video: [N] names of the videos, or None where that is not known.
        frame: [N] frame numbers, 0-based, or None.
        time: [N] seconds since the video's first frame, or None.
    """

    embeddings: NDArray[np.floating[Any]]
    video: NDArray[np.str_] | None = None
    frame: NDArray[np.int64] | None = None
    time: NDArray[np.float64] | None = None


def save_embeddings(path: str | os.PathLike[str], stored: Embeddings) -> None:
    """Write embeddings and their origins as an .npz file that `numpy.load` reads without pickle."""
    arrays = {
        "embeddings": stored.embeddings,
        "video": stored.video,
        "frame": stored.frame,
        "time": stored.time,
    }
    with atomic(path) as file, zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            if array is None:
                continue
            # Names repeat in every row and deflate to nothing; floats would take long and stay as large.
            how = zipfile.ZIP_DEFLATED if name == "video" else zipfile.ZIP_STORED
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = how
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def load_embeddings(path: str | os.PathLike[str]) -> Embeddings:
    """Read embeddings from an .npz, .npy or pickle file, told apart by their first bytes; no code runs.

    Raises:
        TceError: no such file, none of these, damaged, or not an [N, D] array of finite numbers.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except FileNotFoundError as error:
        raise TceError(str(path), EXPECTED, "no such file", "check the path") from error
    except IsADirectoryError as error:
        raise TceError(str(path), EXPECTED, "a folder") from error
    if not start:
        raise TceError(str(path), EXPECTED, "an empty file")
    try:
        if start.startswith(b"PK"):
            return _from_archive(path)
        if start == b"\x93NUMPY":
            return Embeddings(check_embeddings(np.load(path, allow_pickle=False), str(path)))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, ValueError) and "pickle" in str(error):
            found, fix = "an array of Python objects", "save a plain float array"
        else:
            found, fix = f"a damaged file ({str(error).splitlines()[0][:100]})", "copy or make it again"
        raise TceError(str(path), EXPECTED, found, fix) from error
    from tce.model.unpickle import load_array_pickle

    return Embeddings(check_embeddings(load_array_pickle(path), str(path)))


def _from_archive(path: Path) -> Embeddings:
    with np.load(path, allow_pickle=False) as archive:
        names = archive.files
        key = "embeddings" if "embeddings" in names else names[0] if len(names) == 1 else None
        if key is None:
            raise TceError(str(path), "an array named embeddings", f"arrays named {', '.join(names)}")
        embeddings = check_embeddings(archive[key], str(path))
        known = {name: archive[name] for name in ("video", "frame", "time") if name in names}
    for name, array in known.items():
        if array.shape != (len(embeddings),):
            raise TceError(
                f"{name} in {path}", f"one value a row, {len(embeddings)}", f"shape {list(array.shape)}"
            )
    return Embeddings(embeddings, **known)
