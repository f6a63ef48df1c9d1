"""Embeddings on disk: the file `tce embed` writes, and the plain arrays other tools write."""

from __future__ import annotations

import html
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
from tce.io import atomic, check_archive, require_pandas

EXPECTED = "an .npz or .parquet file of `tce embed`, an .npy file or a pickled array, [N, D]"
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


@dataclass(repr=False)
class Embeddings:
    """Embeddings of frames and where each comes from.

    Attributes:
        vectors: [N, D].
        video: [N] names of the videos, or None where that is not known.
        frame: [N] frame numbers, 0-based, or None.
        time: [N] seconds since the video's first frame, or None.
    """

    vectors: NDArray[np.floating[Any]]
    video: NDArray[np.str_] | None = None
    frame: NDArray[np.int64] | None = None
    time: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        frames, size = self.vectors.shape
        videos = "" if self.video is None else f", {len(np.unique(self.video))} videos"
        return f"Embeddings({frames} frames of {size} numbers{videos})"

    def _repr_html_(self) -> str:
        rows = [0, 1, 2, 3, 4] if len(self) > 5 else range(len(self))
        columns = {name: values for name, values in self._origins().items() if values is not None}
        head = "".join(f"<th>{name}</th>" for name in (*columns, "vector"))
        cells = (
            "".join(f"<td>{html.escape(str(values[row]))}</td>" for values in columns.values())
            + f"<td>{' '.join(f'{value:.3f}' for value in self.vectors[row, :4])} …</td>"
            for row in rows
        )
        table = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<p>{html.escape(repr(self))}</p><table><tr>{head}</tr>{table}</table>"

    def _origins(self) -> dict[str, NDArray[Any] | None]:
        return {"video": self.video, "frame": self.frame, "time": self.time}

    def to_dataframe(self) -> Any:
        """A pandas DataFrame of video, frame, time and the columns 0 to D - 1; needs pandas.

        Raises:
            TceError: pandas is not installed.
        """
        pandas = require_pandas()
        frame = pandas.DataFrame(self.vectors)
        known = {name: values for name, values in self._origins().items() if values is not None}
        for place, (name, values) in enumerate(known.items()):
            frame.insert(place, name, values)
        return frame

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file that `tce embed` writes: .npz, or .parquet with a column `vector`."""
        save_embeddings(path, self)


def save_embeddings(path: str | os.PathLike[str], stored: Embeddings) -> None:
    """Write embeddings and their origins, as .parquet where `path` ends so, else as .npz without pickle.

    Keys of the .npz: embeddings [N, D]; video, frame and time [N]. Columns of the .parquet: vector (a list of
    D numbers), video, frame and time.
    """
    if Path(path).suffix.lower() == ".parquet":
        return _save_parquet(path, stored)
    arrays = {"embeddings": stored.vectors, **stored._origins()}
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
    return None


def _save_parquet(path: str | os.PathLike[str], stored: Embeddings) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = np.ascontiguousarray(stored.vectors)
    columns: dict[str, Any] = {name: array for name, array in stored._origins().items() if array is not None}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    with atomic(path) as file:
        pq.write_table(pa.table(columns), file)


def _from_parquet(path: Path) -> Embeddings:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=None)
        column = table.column("vector").combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False)
        vectors = check_embeddings(flat.reshape(len(table), -1), str(path))
        known = {
            name: table.column(name).to_numpy() for name in ("frame", "time") if name in table.column_names
        }
        if "video" in table.column_names:
            known["video"] = np.array(table.column("video").to_pylist(), str)
    except (pa.ArrowException, KeyError, AttributeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise TceError(
            str(path), "a Parquet table with a column vector, as tce embed writes it", reason
        ) from error
    return Embeddings(vectors, **known)


def check_embeddings(data: Any, what: str = "embeddings") -> NDArray[np.floating[Any]]:
    """Embeddings as a finite float array, or an error that names what they are instead.

    Args:
        data: [N, D] array, tensor or nested list of real numbers.
        what: their name in an error, such as the file they come from.

    Returns:
        Array [N, D], float32 or float64.

    Raises:
        TceError: not numbers, not two-dimensional, empty, or NaN or infinite somewhere.
    """
    expected = "an [N, D] array of numbers, one row a frame"
    if hasattr(data, "detach"):  # a torch tensor, perhaps on a GPU
        data = data.detach().cpu().float().numpy()
    try:
        array = np.asarray(data)
    except ValueError as error:  # rows of different lengths
        raise TceError(what, expected, "rows of different lengths") from error
    if array.dtype.kind not in "fiub":
        kind = "Python objects" if array.dtype == object else f"values of type {array.dtype}"
        raise TceError(what, expected, kind, "save a plain float array")
    if array.size == 0:
        raise TceError(what, expected, f"nothing (shape {list(array.shape)})")
    if array.ndim != 2:
        fix = "give one row a frame" if array.ndim < 2 else "use array.reshape(N, -1)"
        raise TceError(what, expected, f"shape {list(array.shape)}", fix)
    array = array.astype(np.result_type(array.dtype, np.float32), copy=False)
    bad = ~np.isfinite(array).all(axis=1)  # [N]
    if bad.any():
        raise TceError(
            what,
            "finite numbers",
            f"NaN or infinity in {bad.sum()} of {len(array)} rows, first in row {int(np.argmax(bad))}",
            "look at the network that made them",
        )
    return array


def load_embeddings(path: str | os.PathLike[str]) -> Embeddings:
    """Read embeddings from an .npz, .parquet, .npy or pickle file, by its first bytes; no code runs.

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
        if start.startswith(b"PAR1"):
            return _from_parquet(path)
        if start == b"\x93NUMPY":
            return Embeddings(check_embeddings(_from_npy(path), str(path)))
    except DAMAGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise TceError(str(path), EXPECTED, f"a damaged file ({reason})", "copy or make it again") from error
    from tce.model.tensor_file import load_array_pickle

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


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file, once its declared sizes are known to be no larger than the file explains.

    Raises:
        TceError: they are larger, it holds Python objects, or it is damaged.
    """
    if not path.is_file():
        raise TceError(str(path), "an .npz file", "no such file")
    try:
        with _open_archive(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            return {name: _member(archive, name, path) for name in names}
    except DAMAGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise TceError(str(path), "an .npz file", f"a damaged file ({reason})") from error


def _open_archive(path: Path) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(path)
    found = check_archive(archive, path.stat().st_size)
    if found is not None:
        archive.close()
        raise TceError(str(path), EXPECTED, found, "save it with numpy.savez if you trust it")
    return archive


def _from_archive(path: Path) -> Embeddings:
    with _open_archive(path) as archive:
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
