"""Reading pickled checkpoints and arrays without running what they name.

A pickle names functions that its reader is to import and call; that is how a downloaded file runs code. Here
a name is looked up in an exact list and nowhere else: torch's tensor rebuilders, plain containers, NumPy's
scalars and arrays, and configuration objects that become inert mappings. Every other name is refused by name,
before anything is imported. (`torch.load(weights_only=True)` would refuse the later TCE files for their yacs
configuration, and torch's helper that lists foreign names cannot read the layout of torch before 1.6.)
"""

from __future__ import annotations

import errno
import os
import pickle
import re
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from tce.errors import TceError


class UnsafePickle(TceError):
    """A pickle that names something outside the list; nothing of it was imported or called."""


class Inert(dict):
    """What stands in for a configuration object: its entries as a plain mapping, none of its behaviour."""

    def __setstate__(self, state: Any) -> None:
        if not self and isinstance(state, dict):  # a namespace keeps its entries as attributes
            self.update({k: v for k, v in state.items() if not str(k).startswith("__")})


class _Call:
    """A function that a pickle may call, but not alter: its state cannot be set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a pickle tried to alter a function")


class _DType:
    """A NumPy type out of a pickle: numbers, truth values and strings, never Python objects."""

    def __init__(self, code: Any, *_: Any):
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[biufcSU]\d{1,6}", code):
            raise pickle.UnpicklingError(f"an array of type {code!r}: only numbers and strings are read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order in ("<", ">", "=", "|"):
            self.dtype = self.dtype.newbyteorder(order)  # type: ignore[arg-type]
        if self.dtype.kind in "SU" and isinstance(state[5], int) and state[5] > 0:
            unit = 4 if self.dtype.kind == "U" else 1
            self.dtype = np.dtype(f"{order if order in '<>' else ''}{self.dtype.kind}{state[5] // unit}")


class _Array:
    """A NumPy array while it is being read."""

    def __init__(self, *_: Any):
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        self.array = _array(data, kind, shape, "F" if fortran else "C")


def _bytes(data: Any) -> bytes:
    """Bytes, also from a Python 2 string, which reads as latin1 text."""
    if not isinstance(data, str | bytes | bytearray):
        raise pickle.UnpicklingError(f"{type(data).__name__} in place of bytes")
    return data.encode("latin1") if isinstance(data, str) else bytes(data)


def _array(data: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(kind, _DType):
        raise pickle.UnpicklingError("an array without a type")
    flat = np.frombuffer(_bytes(data), dtype=kind.dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C").copy(order="K")


def _scalar(kind: Any, data: Any = b"") -> Any:
    return _array(data, kind, ())[()]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


def _tensors() -> dict[tuple[str, str], Any]:
    """The names of torch: what rebuilds tensors from storages, sizes, devices and number types."""
    rebuild = torch._utils
    names: dict[tuple[str, str], Any] = {
        ("torch._utils", name): _Call(getattr(rebuild, name))
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
    }
    names[("torch", "Size")] = _Call(lambda sizes=(): torch.Size(sizes))
    names[("torch", "device")] = _Call(lambda *_: torch.device("cpu"))
    kinds = "float16 float32 float64 bfloat16 complex64 complex128 uint8 int8 int16 int32 int64 bool"
    names.update({("torch", kind): getattr(torch, kind) for kind in kinds.split()})
    return names


def _arrays() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {
        ("numpy", "dtype"): _DType,
        ("numpy", "ndarray"): _Array,
    }
    for core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
        names[(f"{core}.multiarray", "_reconstruct")] = _Call(lambda *_: _Array())
        names[(f"{core}.multiarray", "scalar")] = _Call(_scalar)
        names[(f"{core}.numeric", "_frombuffer")] = _Call(_array)
    return names


def _containers() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "Counter"): _Call(dict),
        ("collections", "defaultdict"): _Call(lambda *_: {}),
        ("_codecs", "encode"): _Call(_encode),
        # What configurations are kept in, by name: as mappings, without their code.
        ("yacs.config", "CfgNode"): Inert,
        ("argparse", "Namespace"): Inert,
    }
    for module in ("builtins", "__builtin__"):  # Python 3 and 2
        for kind in (dict, list, tuple, set, frozenset, complex):
            names[(module, kind.__name__)] = _Call(kind)
        names[(module, "bytes")] = _Call(lambda *data: _bytes(data[0]) if data else b"")
        names[(module, "bytearray")] = _Call(lambda *data: bytearray(_bytes(data[0]) if data else b""))
    return names


ALLOWED = {**_containers(), **_tensors(), **_arrays()}


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that resolves the names of `ALLOWED` and refuses every other one."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for `module.name` in the list.

        Raises:
            UnsafePickle: it is not in the list.
        """
        try:
            return ALLOWED[module, name]
        except (KeyError, TypeError):
            raise UnsafePickle(
                "a pickle",
                expected="tensors, numbers and plain containers",
                found=f"it asks to run {module}.{name}, which was refused",
                fix="do not trust this file; ask its author for one with tensors only",
            ) from None


class _PickleModule:
    """What `torch.load` takes for the pickle module."""

    Unpickler = RestrictedUnpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: IO[bytes], **options: Any) -> Any:
        """The next object of a file."""
        return RestrictedUnpickler(file, **options).load()


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """What `torch.save` wrote, of any torch version, tensors on the CPU; no code of the file's choice runs.

    Args:
        path: a file in the zip layout, or in the layout before torch 1.6.

    Raises:
        UnsafePickle: it names something that is not plain data.
        TceError: it is not such a file, or it is damaged.
    """
    return _guarded(Path(path), "a file written by torch.save", _load_tensors)


def load_array_pickle(path: str | os.PathLike[str]) -> np.ndarray:
    """A pickled NumPy array, or list of arrays or numbers; no code of the file's choice runs.

    Args:
        path: a file written by `pickle.dump` or `ndarray.dump`, under Python 2 or 3.

    Raises:
        UnsafePickle: it names something that is not plain data.
        TceError: it is no such file, it is damaged, or it holds something else.
    """
    path = Path(path)
    content = _guarded(
        path, "a pickled array", lambda file: RestrictedUnpickler(file, encoding="latin1").load()
    )
    if isinstance(content, torch.Tensor):
        content = content.detach().numpy()
    try:
        array = np.asarray(content) if isinstance(content, np.ndarray | list | tuple) else None
    except ValueError:  # ragged
        array = None
    if array is None or array.dtype.kind not in "biufc":
        raise TceError(str(path), expected="a pickled array of numbers", found=type(content).__name__)
    return array


def _load_tensors(file: IO[bytes]) -> Any:
    """What `torch.load` reads with the restricted unpickler, in the two layouts in which it uses that."""
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        # Asked of torch's own reader of archives: another one may see other records in a crafted file.
        records = torch._C.PyTorchFileReader(file).get_all_records()
        if "constants.pkl" in records:
            raise _Refused("a TorchScript program", "save the model's state_dict() instead")
    elif tarfile.is_tarfile(file):
        raise _Refused("a tar archive", "unpack it first")
    file.seek(0)
    # Python 2's byte strings become text of the same bytes. `weights_only` would refuse the 2020 layout and
    # yacs' configuration; what stands in its place is stricter: our unpickler, an exact list of names.
    return torch.load(
        file, map_location="cpu", pickle_module=_PickleModule, weights_only=False, encoding="latin1"
    )


class _Refused(Exception):
    """Content of another kind: what it is, and what to do."""


def _guarded(path: Path, expected: str, load: Callable[[IO[bytes]], Any]) -> Any:
    """Whatever `load` finds wrong with the file's bytes, as a TceError with the path."""
    try:
        data = path.open("rb")
    except IsADirectoryError as error:
        raise TceError(str(path), expected=expected, found="a folder") from error
    except FileNotFoundError as error:
        raise TceError(str(path), expected=expected, found="no such file") from error
    with data as file:
        if not file.read(1):
            raise TceError(str(path), expected=expected, found="an empty file")
        file.seek(0)
        try:
            return _finish(load(file))
        except UnsafePickle as error:
            raise UnsafePickle(str(path), error.expected, error.found, error.fix) from None
        except _Refused as error:
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


def _finish(value: Any) -> Any:
    """`value` with arrays and types in place of what stood for them while reading."""
    if isinstance(value, _Array):
        if value.array is None:
            raise pickle.UnpicklingError("an array without content")
        return value.array
    if isinstance(value, _DType):
        return value.dtype
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _finish(item)
        return value
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_finish(item) for item in value)
    return value
