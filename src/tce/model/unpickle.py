"""Read pickles without running what they name, in memory and time bounded by the file's size.

A pickle names functions that its reader is to import and call; that is how a downloaded file runs code. Here
a name is looked up in an exact list and nowhere else: torch's tensor rebuilders, plain containers, NumPy's
scalars and arrays, and configuration objects that become inert mappings. Every other name is refused by name,
before anything is imported. (`torch.load(weights_only=True)` would refuse the later TCE files for their yacs
configuration, and its messages advise to load without it.)

The unpickler is Python's own one in Python, not in C: each of its instructions can be overridden, so that no
instruction costs more than the bytes it was written with.
"""

from __future__ import annotations

import pickle
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tce.errors import TceError
from tce.io import unpacked_limit

SECONDS = 60.0  # for a pickle's instructions, and one more for each of its megabytes
LONGEST_KEY = 4096
SCALARS = (str, bytes, int, float, complex, bool, type(None))


class UnsafePickle(TceError):
    """A pickle that names something outside the list; nothing of it was imported or called."""


class RefusedContent(Exception):
    """Content that is not read: what was found, and what to do (`args`)."""


class Inert(dict):
    """What stands in for a configuration object: its entries as a plain mapping, none of its behaviour."""

    def __setstate__(self, state: Any) -> None:
        if not self and isinstance(state, dict):  # a namespace keeps its entries as attributes
            self.update({k: v for k, v in state.items() if not str(k).startswith("__")})


class _Call:
    """A function that a pickle may call, but not alter."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


class _DType:
    """A NumPy type out of a pickle: numbers, truth values and strings, never Python objects."""

    def __init__(self, code: Any, *_: Any):
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?[biufcSU]\d{1,6}", code):
            raise pickle.UnpicklingError("an array of another type than numbers and strings")
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
        raise pickle.UnpicklingError("text in another encoding than latin1")
    return text.encode("latin1")


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """A tensor on a storage, which is a flat tensor here; `as_strided` never reaches outside it."""
    if not isinstance(storage, torch.Tensor):
        raise pickle.UnpicklingError("a tensor without a storage")
    # torch's own rebuilder would enlarge the storage to whatever size the file declares.
    return storage.as_strided(size, stride, storage.storage_offset() + offset)


def _parameter(data: Any, *_: Any) -> torch.Tensor:
    if not isinstance(data, torch.Tensor):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return data


def _mapping(kind: type[dict]) -> Callable[..., dict]:
    def build(entries: Any = (), *_: Any) -> dict:
        pairs = list(entries.items()) if isinstance(entries, dict) else [(k, v) for k, v in entries]
        return kind((_checked_key(key), value) for key, value in pairs)

    return build


def _members(kind: type) -> Callable[..., Any]:
    return lambda items=(): kind([_checked_key(item) for item in items])


def _checked_key(key: Any) -> Any:
    """`key` itself, where hashing and comparing it is quick: nested tuples can take for ever.

    Raises:
        pickle.UnpicklingError: it is of another kind.
    """
    parts = key if type(key) is tuple and len(key) <= 100 else (key,)
    for part in parts:
        long = isinstance(part, str | bytes) and len(part) > LONGEST_KEY
        if not isinstance(part, (*SCALARS, torch.dtype)) or long:
            raise pickle.UnpicklingError("a key that is neither short text nor a number")
        if isinstance(part, int) and part.bit_length() > 64:
            raise pickle.UnpicklingError("a key that is a number of more than 64 bits")
    return key


def _tensors() -> dict[tuple[str, str], Any]:
    """The names of torch: what rebuilds tensors from storages, sizes, devices and number types."""
    names: dict[tuple[str, str], Any] = {
        ("torch._utils", "_rebuild_tensor"): _Call(_rebuild_tensor),
        ("torch._utils", "_rebuild_tensor_v2"): _Call(_rebuild_tensor),
        ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
        ("torch", "Size"): _Call(lambda sizes=(): torch.Size(sizes)),
        ("torch", "device"): _Call(lambda *_: torch.device("cpu")),
        ("torch.storage", "UntypedStorage"): torch.uint8,
        ("torch", "UntypedStorage"): torch.uint8,
    }
    kinds = "float16 float32 float64 bfloat16 complex64 complex128 uint8 int8 int16 int32 int64 bool"
    names.update({("torch", kind): getattr(torch, kind) for kind in kinds.split()})
    storages = "Half Float Double BFloat16 ComplexFloat ComplexDouble Byte Char Short Int Long Bool"
    for kind, storage in zip(kinds.split(), storages.split(), strict=True):
        for module in ("torch", "torch.cuda"):
            names[module, f"{storage}Storage"] = getattr(torch, kind)
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
        ("collections", "OrderedDict"): _Call(_mapping(OrderedDict)),
        ("collections", "Counter"): _Call(_mapping(dict)),
        ("collections", "defaultdict"): _Call(lambda *_: {}),
        ("_codecs", "encode"): _Call(_encode),
        # What configurations are kept in, by name: as mappings, without their code.
        ("yacs.config", "CfgNode"): Inert,
        ("argparse", "Namespace"): Inert,
    }
    for module in ("builtins", "__builtin__"):  # Python 3 and 2
        names[(module, "dict")] = _Call(_mapping(dict))
        names.update({(module, kind.__name__): _Call(kind) for kind in (list, tuple, complex)})
        names.update({(module, kind.__name__): _Call(_members(kind)) for kind in (set, frozenset)})
        names[(module, "bytes")] = _Call(lambda *data: _bytes(data[0]) if data else b"")
        names[(module, "bytearray")] = _Call(lambda *data: bytearray(_bytes(data[0]) if data else b""))
    return names


ALLOWED = {**_containers(), **_tensors(), **_arrays()}
BUILT = (Inert, _DType, _Array)  # what may be made without a call, and given a state


_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]  # not in the library's stubs


class RestrictedUnpickler(_PythonUnpickler):  # type: ignore[misc]
    """An unpickler that resolves the names of `ALLOWED`, refuses every other one, and bounds what it makes.

    Args:
        file: the pickle, an object with `read` and `readline` whose reads end with the data.
        size: bytes of the pickle, by which memory and time are bounded.
        storage: from a persistent id to a storage, a flat tensor; None: there are none.
    """

    def __init__(self, file: Any, size: int, storage: Callable[[Any], torch.Tensor] | None = None):
        # Python 2's byte strings become text of the same bytes.
        super().__init__(file, encoding="latin1")
        self._storage = storage
        self._left = unpacked_limit(size)
        self._deadline = time.monotonic() + SECONDS + size / 1e6

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

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """The storage that a tensor names."""
        if self._storage is None:
            raise pickle.UnpicklingError("a tensor where there is no storage")
        return self._storage(pid)

    def _charge(self, value: Any) -> Any:
        """`value` itself, once the copies made so far are known to be no larger than the file explains."""
        if isinstance(value, np.ndarray):
            self._left -= value.nbytes
        elif isinstance(value, str | bytes | bytearray):
            self._left -= len(value)
        elif isinstance(value, list | tuple | dict | set | frozenset):
            self._left -= 64 * len(value)
        if self._left < 0:
            raise RefusedContent("content that grows far beyond the file's size", "do not trust this file")
        self._check_time()
        return value

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise RefusedContent("content that takes too long to read", "do not trust this file")

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Call) and function not in BUILT:
            raise pickle.UnpicklingError("a call of something that is no function")
        if function is Inert:
            function = _mapping(Inert)
        return self._charge(function(*arguments))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _instantiate(self, kind: Any, arguments: Any) -> None:  # of INST and OBJ
        self.append(self._call(kind, arguments))

    def _new_object(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _new_object_with_keywords(self) -> None:
        if self.stack.pop():
            raise pickle.UnpicklingError("an object made with keywords")
        self._new_object()

    def _build(self) -> None:
        state, value = self.stack.pop(), self.stack[-1]
        if isinstance(value, BUILT):
            value.__setstate__(state)
            self._charge(value.array if isinstance(value, _Array) else None)
        elif not isinstance(
            value, OrderedDict
        ):  # whose attributes, such as a state dict's versions, are dropped
            raise pickle.UnpicklingError("a pickle tried to alter a function or a tensor")

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update(self.stack[-1], (key, value))

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._update(self.stack[-1], items)

    def _update(self, mapping: Any, items: Any) -> None:
        if not isinstance(mapping, dict):
            raise pickle.UnpicklingError("entries of something that is no mapping")
        for index in range(0, len(items), 2):
            if index % 1024 == 0:
                self._check_time()
            mapping[_checked_key(items[index])] = items[index + 1]

    def _append(self) -> None:
        value = self.stack.pop()
        self._extend(self.stack[-1], [value])

    def _appends(self) -> None:
        items = self.pop_mark()
        self._extend(self.stack[-1], items)

    @staticmethod
    def _extend(target: Any, items: Any) -> None:
        if not isinstance(target, list):
            raise pickle.UnpicklingError("items of something that is no list")
        target.extend(items)

    def _add_items(self) -> None:
        items = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise pickle.UnpicklingError("members of something that is no set")
        self.stack[-1].update(_checked_key(item) for item in items)
        self._check_time()

    def _frozen_set(self) -> None:
        self.append(frozenset(_checked_key(item) for item in self.pop_mark()))
        self._check_time()

    def _byte_array(self) -> None:  # Python's own makes room for the declared length first
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(size)))

    def _refused(self) -> None:
        raise pickle.UnpicklingError("an instruction that no checkpoint needs")

    dispatch: dict[int, Any] = {  # noqa: RUF012
        **_PythonUnpickler.dispatch,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _new_object,
        pickle.NEWOBJ_EX[0]: _new_object_with_keywords,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.APPEND[0]: _append,
        pickle.APPENDS[0]: _appends,
        pickle.ADDITEMS[0]: _add_items,
        pickle.FROZENSET[0]: _frozen_set,
        pickle.BYTEARRAY8[0]: _byte_array,
        pickle.EXT1[0]: _refused,
        pickle.EXT2[0]: _refused,
        pickle.EXT4[0]: _refused,
        pickle.NEXT_BUFFER[0]: _refused,
        pickle.READONLY_BUFFER[0]: _refused,
    }


def finish(value: Any, done: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """`value` with arrays and types in place of what stood for them while reading.

    Each object is visited once, however often a file refers to it.
    """
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)][1]
    result = value
    done[id(value)] = (value, result)  # keeps the object too: its number must not be given to another
    if isinstance(value, _Array):
        if value.array is None:
            raise pickle.UnpicklingError("an array without content")
        result = value.array
    elif isinstance(value, _DType):
        result = value.dtype
    elif isinstance(value, dict):
        for key, item in value.items():
            value[key] = finish(item, done)
    elif type(value) is list:
        value[:] = [finish(item, done) for item in value]
    elif type(value) is tuple:
        result = tuple(finish(item, done) for item in value)
    done[id(value)] = (value, result)
    return result
