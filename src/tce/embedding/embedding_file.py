"""Embeddings on disk: the file `tce embed` writes, and the plain arrays other tools write."""

from __future__ import annotations

import math
import mmap
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError
from tce.io import atomic, check_archive
from tce.visualize.reduce import check_embeddings

EXPECTED = "an .npz file of `tce embed`, an .npy file or a pickled array, [N, D]"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
DAMAGE = (  # what damaged bytes make the readers of archives and headers raise
    ValueError,
    OSError,
    EOFError,
    KeyError,
    RuntimeError,
    SyntaxError,
    MemoryError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


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

    Declared sizes are compared with the file's own before anything is allocated.

    Raises:
        TceError: no such file, none of these, damaged, or not an [N, D] array of finite numbers.
    """
    path = Path(path)
    if path.is_dir():
        raise TceError(str(path), EXPECTED, "a folder")
    if path.exists() and not path.is_file():
        raise TceError(str(path), EXPECTED, "a pipe or a device, not a file")
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except FileNotFoundError as error:
        raise TceError(str(path), EXPECTED, "no such file", "check the path") from error
    if not start:
        raise TceError(str(path), EXPECTED, "an empty file")
    try:
        if start.startswith(b"PK"):
            return _from_archive(path)
        if start == b"\x93NUMPY":
            return Embeddings(check_embeddings(_from_npy(path), str(path)))
    except DAMAGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise TceError(str(path), EXPECTED, f"a damaged file ({reason})", "copy or make it again") from error
    from tce.model.unpickle import load_array_pickle

    return Embeddings(check_embeddings(load_array_pickle(path), str(path)))


def _from_npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        shape, fortran, dtype = _header(data, len(data), path)  # a map's reads never go beyond the file
        file.seek(data.tell())
        array = np.fromfile(file, dtype, math.prod(shape))
    return array.reshape(shape, order="F" if fortran else "C")


def _header(file: Any, size: int, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type that an .npy stream declares, once `size` bytes are known to hold that much.

    Raises:
        TceError: they do not, or it holds Python objects.
        ValueError: it is no such header.
    """
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the .npy format")
    shape, fortran, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise TceError(str(path), EXPECTED, "an array of Python objects", "save a plain float array")
    if min(shape, default=0) < 0 or not dtype.itemsize:
        raise ValueError(f"an array of shape {list(shape)} and type {dtype}")
    if math.prod(shape) * dtype.itemsize > size:
        raise TceError(
            str(path),
            EXPECTED,
            f"a declared array of shape {list(shape)} in {size:,} bytes",
            "copy or make it again",
        )
    return shape, fortran, dtype


def _from_archive(path: Path) -> Embeddings:
    with zipfile.ZipFile(path) as archive:
        found = check_archive(archive, path.stat().st_size)
        if found is not None:
            raise TceError(str(path), EXPECTED, found, "save it with numpy.savez if you trust it")
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        key = "embeddings" if "embeddings" in names else names[0] if len(names) == 1 else None
        if key is None:
            raise TceError(str(path), "an array named embeddings", f"arrays named {', '.join(names[:9])}")
        embeddings = check_embeddings(_member(archive, key, path), str(path))
        known = {name: _member(archive, name, path) for name in ("video", "frame", "time") if name in names}
    for name, array in known.items():
        if array.shape != (len(embeddings),):
            raise TceError(
                f"{name} in {path}", f"one value a row, {len(embeddings)}", f"shape {list(array.shape)}"
            )
    return Embeddings(embeddings, **known)


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    """An array of an archive; its members are named as NumPy names them."""
    info = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
    with archive.open(info) as member:
        _header(member, info.file_size, path)
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
