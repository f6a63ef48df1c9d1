"""Read files of tensors (safetensors, both layouts of `torch.save`) and pickled arrays without running code.

Sizes are compared with the file's own before anything is allocated: torch's readers make room for whatever a
file declares.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import pickle
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from tce.errors import TceError
from tce.io import check_archive, require_file, unpacked_limit
from tce.model.unpickle import RefusedContent, RestrictedUnpickler, UnsafePickle, finish

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the layout before torch 1.6
EXPECTED = "a file written by torch.save"


def read_tensors(path: Path) -> tuple[Any, dict[str, str]]:
    """What a file of tensors holds, and its header's entries (of a safetensors file; else none).

    Raises:
        TceError: it is neither a safetensors file nor one of `torch.save`, or it is damaged.
    """
    require_file(path, "a checkpoint")
    content, header = _read_safetensors(path) if _is_safetensors(path) else (load_torch_file(path), {})
    size = path.stat().st_size
    total = sum(_bytes_in(content))
    if total > unpacked_limit(
        size
    ):  # a few bytes can stand for any number where a tensor repeats its storage
        raise TceError(
            str(path), expected="a checkpoint", found=f"tensors of {total:,} bytes in a file of {size:,}"
        )
    return content, header


def _bytes_in(content: Any, depth: int = 2) -> Iterator[int]:
    """Bytes of the tensors in a mapping, and in the mappings in it."""
    if isinstance(content, Tensor):
        yield content.numel() * content.element_size()
    elif isinstance(content, Mapping) and depth:
        for value in content.values():
            yield from _bytes_in(value, depth - 1)


def _is_safetensors(file: Path) -> bool:
    """By its first bytes: the length of a JSON header, and its brace."""
    if file.suffix == ".safetensors":
        return True
    with file.open("rb") as opened:
        start = opened.read(9)
    if len(start) < 9 or start[8:] != b"{":
        return False
    return struct.unpack("<Q", start[:8])[0] <= file.stat().st_size - 8


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if file.stat().st_size == 0:
        raise TceError(str(file), expected="a safetensors file", found="an empty file")
    try:
        # The library compares the header's offsets with the file's size, and bounds the header.
        with safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
            # Copies: the tensors as given are windows on the file, and change with it.
            return {name: opened.get_tensor(name).clone() for name in opened.keys()}, header  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise TceError(
            str(file),
            expected="a safetensors file",
            found=f"something else, or a damaged file ({error})",
            fix="fetch or copy it again",
        ) from error


def read_header(path: Path) -> dict[str, str]:
    """A safetensors file's entries beside its tensors; none where it is another or a damaged file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as opened:
            return opened.metadata() or {}
    except (SafetensorError, ValueError, OSError):
        return {}


def load_torch_file(path: str | os.PathLike[str]) -> Any:
    """What `torch.save` wrote, of any torch version, tensors on the CPU; no code of the file's choice runs.

    Args:
        path: a file in the zip layout, or in the layout before torch 1.6.

    Raises:
        UnsafePickle: it names something that is not plain data.
        TceError: it is not such a file, it is damaged, or it unpacks to far more than its size.
    """
    return read_guarded(Path(path), EXPECTED, _load)


def _load(file: BinaryIO) -> Any:
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        with zipfile.ZipFile(file) as archive:
            return _load_zip(archive, os.fstat(file.fileno()).st_size)
    if tarfile.is_tarfile(file):
        raise RefusedContent("a tar archive", "unpack it first")
    with mapped(file) as data:
        return _load_legacy(data)


def _load_zip(archive: zipfile.ZipFile, size: int) -> Any:
    """The layout since torch 1.6: `data.pkl` in a folder, and a member of `data/` for each storage."""
    names = archive.namelist()
    root = names[0].partition("/")[0] if names else ""
    if f"{root}/constants.pkl" in names:
        raise RefusedContent("a TorchScript program", "save the model's state_dict() instead")
    found = check_archive(archive, size)
    if found is not None:
        raise RefusedContent(found, "do not trust this file")
    if f"{root}/data.pkl" not in names:
        raise RefusedContent("an archive without data.pkl", "give a file written by torch.save")
    order = archive.read(f"{root}/byteorder").decode() if f"{root}/byteorder" in names else "little"
    flats: dict[str, Tensor] = {}

    def storage(pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        if key not in flats:
            flats[key] = _read_member(archive, f"{root}/data/{key}")
        flat = _typed(flats[key], dtype, order)
        if len(flat) < count:
            raise pickle.UnpicklingError(f"a storage of {len(flat)} numbers in place of {count}")
        return flat

    content = archive.read(f"{root}/data.pkl")
    return finish(RestrictedUnpickler(io.BytesIO(content), len(content), storage).load())


def _read_member(archive: zipfile.ZipFile, name: str) -> Tensor:
    """A member's bytes as a flat uint8 tensor."""
    flat = torch.empty(archive.getinfo(name).file_size, dtype=torch.uint8)
    if len(flat):
        with archive.open(name) as member:
            _fill(flat, member.read)
    return flat


def _fill(flat: Tensor, read: Callable[[int], bytes]) -> None:
    """Read as many bytes as a flat uint8 tensor holds, a few at a time."""
    target, at = memoryview(flat.numpy()), 0  # type: ignore[arg-type]  # an array is a buffer
    while at < len(target):
        piece = read(min(1 << 22, len(target) - at))
        if not piece:
            raise EOFError("a storage that ends too early")
        target[at : at + len(piece)] = piece
        at += len(piece)


def _typed(flat: Tensor, dtype: Any, order: str) -> Tensor:
    """A flat uint8 tensor as numbers of a type; they share their memory, as tied weights do."""
    if not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a storage without a type")
    size = dtype.itemsize
    flat = flat[: len(flat) // size * size]
    if order != sys.byteorder and size > 1 and len(flat):
        width = size // 2 if dtype.is_complex else size
        flat = torch.from_numpy(flat.numpy().reshape(-1, width)[:, ::-1].copy().reshape(-1))
    return flat.view(dtype)


def _load_legacy(data: mmap.mmap) -> Any:
    """The layout before torch 1.6: pickles of a magic number, versions, the content and the storages' keys.

    Behind them lie the storages, each with its number of elements.
    """
    if _next(data) != MAGIC or _next(data) != PROTOCOL:
        raise pickle.UnpicklingError("no file of torch.save")
    system = _next(data)
    little = system.get("little_endian", True) if isinstance(system, dict) else True
    storages: dict[str, tuple[Tensor, torch.dtype]] = {}
    left = unpacked_limit(len(data))

    def storage(pid: Any) -> Tensor:
        nonlocal left
        kind, dtype, key, _, count, view = pid if len(pid) == 6 else (*pid, None)
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(count, int) or count < 0:
            raise pickle.UnpicklingError("an unknown kind of tensor")
        if key not in storages:
            left -= count * dtype.itemsize
            if count * dtype.itemsize > len(data) or left < 0:
                raise RefusedContent(
                    f"a declared storage of {count * dtype.itemsize:,} bytes in a file of {len(data):,}",
                    "fetch or copy it again",
                )
            storages[key] = torch.zeros(count * dtype.itemsize, dtype=torch.uint8), dtype
        flat = storages[key][0].view(dtype)
        if view is not None:
            _, offset, length = view
            flat = flat[offset : offset + length]
        return flat

    content = _next(data, storage)
    for key in _next(data):
        flat, dtype = storages[key]
        count = int(np.frombuffer(data.read(8), "<i8")[0])
        if count * dtype.itemsize != len(flat):
            raise pickle.UnpicklingError(f"a storage of {count} numbers in place of another number")
        _fill(flat, data.read)
        if not little and len(flat):
            flat.copy_(_typed(flat, dtype, "big").view(torch.uint8))
    return finish(content)


def _next(data: mmap.mmap, storage: Callable[[Any], Tensor] | None = None) -> Any:
    """The next object in a file of several pickles."""
    return RestrictedUnpickler(data, len(data) - data.tell(), storage).load()


def load_array_pickle(path: str | os.PathLike[str]) -> np.ndarray:
    """A pickled NumPy array, or list of arrays or numbers; no code of the file's choice runs.

    Args:
        path: a file written by `pickle.dump` or `ndarray.dump`, under Python 2 or 3.

    Raises:
        UnsafePickle: it names something that is not plain data.
        TceError: it is no such file, it is damaged, or it holds something else.
    """
    path = Path(path)

    def load(file: BinaryIO) -> Any:
        with mapped(file) as data:
            return finish(RestrictedUnpickler(data, len(data)).load())

    content = read_guarded(path, "a pickled array", load)
    array = _as_array(content, unpacked_limit(path.stat().st_size))
    if array is None or array.dtype.kind not in "biufc":
        raise TceError(str(path), expected="a pickled array of numbers", found=type(content).__name__)
    return array


def _as_array(content: Any, limit: int) -> np.ndarray | None:
    """An array, or a list of numbers or of rows of them, as an array of at most `limit` bytes; else None."""
    if isinstance(content, np.ndarray):
        return content
    if not isinstance(content, list | tuple):
        return None
    # A file may refer to one row any number of times, so rows are counted before they are copied.
    size = 0
    for row in content:
        size += 8 * np.size(row) if isinstance(row, np.ndarray) else 8 * len(row) if _is_row(row) else 8
        if size > limit or not (_is_row(row) or isinstance(row, np.ndarray | np.number | int | float)):
            return None
    try:
        return np.asarray(content)
    except ValueError:  # rows of different lengths
        return None


def _is_row(row: Any) -> bool:
    return isinstance(row, list | tuple) and all(isinstance(n, int | float | np.number) for n in row)


@contextmanager
def mapped(file: BinaryIO) -> Iterator[mmap.mmap]:
    """A file's bytes, whose reads never ask for more memory than the file has bytes."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def read_guarded(path: Path, expected: str, load: Callable[[BinaryIO], Any]) -> Any:
    """What `load` makes of a file; whatever it finds wrong in there becomes a TceError with the path.

    Args:
        path: the file.
        expected: what it should be, for the message.
        load: from the open file to a value.

    Raises:
        UnsafePickle: it names something that is not plain data.
        TceError: no such file, not a file, empty, damaged or refused.
    """
    size = require_file(path, expected)
    if not size:
        raise TceError(str(path), expected=expected, found="an empty file")
    with path.open("rb") as file:
        try:
            return load(file)
        except UnsafePickle as error:
            raise UnsafePickle(str(path), error.expected, error.found, error.fix) from None
        except RefusedContent as error:
            found, fix = error.args
            raise TceError(str(path), expected, found, fix) from None
        except OSError as error:
            # A seek to where a truncated file points is the file's fault; any other is the disk's.
            if error.errno not in (None, errno.EINVAL):
                raise
            raise _damaged(path, expected, error) from error
        except Exception as error:  # a damaged pickle can make its reader raise anything
            raise _damaged(path, expected, error) from error


def _damaged(path: Path, expected: str, error: Exception) -> TceError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return TceError(
        str(path),
        expected=expected,
        found=f"something else, or a damaged file ({reason[:160]})",
        fix="fetch or copy it again",
    )
