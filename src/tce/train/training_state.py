"""The file of a training state: written whole or not at all, and checked entry by entry when it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from tce.errors import TceError
from tce.io import atomic
from tce.model.tensor_file import load_torch_file
from tce.model.unpickle import UnsafePickle

STATE_FORMAT = "tce training state 1"


def save_tensors(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write plain values and tensors to a file that torch.load reads.

    Raises:
        OSError: the disk is full or gone; whatever was there before stays as it was.
    """
    with atomic(path) as file:
        output = _FirstError(file)
        torch.save(dict(content), cast("IO[bytes]", output))
        if output.error is not None:
            raise output.error


class _FirstError:
    """A file for torch.save that keeps the first error of the disk and ignores what follows.

    torch.save finishes its archive after a failed write too, which fails again with an error about its own
    counters, in place of the disk's.
    """

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self._try(lambda: self._file.write(data))
        return len(data)

    def flush(self) -> None:
        self._try(self._file.flush)

    def _try(self, work: Callable[[], object]) -> None:
        if self.error is None:
            try:
                work()
            except OSError as error:
                self.error = error


def save_training_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state.

    Args:
        path: the file, "latest.pt" in a run folder.
        state: plain values and tensors, with "step".

    Raises:
        OSError: the disk is full or gone.
    """
    save_tensors(path, {"format": STATE_FORMAT, **state})


def load_training_state(path: Path, fix: str) -> dict[str, Any]:
    """Read a training state and check its entries; tensors are on the CPU.

    Whether network and optimizer fit the run is checked where they are restored.

    Args:
        path: the file.
        fix: what the user can do where it cannot be used.

    Raises:
        TceError: the file is damaged, is no training state, or an entry is missing or of the wrong kind.
    """
    try:
        state = load_torch_file(path)
    except UnsafePickle as error:
        raise _unusable(path, error.found, fix) from error
    except TceError as error:
        raise _unusable(path, "a damaged or incomplete file", fix) from error
    problem = _problem(state)
    if problem:
        raise _unusable(path, problem, fix)
    return dict(state)


def _unusable(path: Path, found: str, fix: str) -> TceError:
    return TceError(f"the training state {path} cannot be used", "a file that tce wrote", found, fix)


def _problem(state: Any) -> str:
    """What is wrong with the content of a training state; empty where nothing is."""
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        return "another kind of file"
    for name, (kind, good) in ENTRIES.items():
        if name not in state:
            return f'no entry "{name}"'
        if not good(state[name]):
            return f'an entry "{name}" that is not {kind}'
    return ""


def _is_step(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and type(number) in (int, float) for name, number in value.items()
    )


def _is_means(value: Any) -> bool:
    if not isinstance(value, dict) or not all(_is_numbers(value.get(name)) for name in ("sums", "counts")):
        return False
    return bool(value["sums"].keys() == value["counts"].keys() and all(value["counts"].values()))


def _is_optimizer(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("state"), dict):
        return False
    groups = value.get("param_groups")
    return isinstance(groups, list) and all(isinstance(group, dict) and "params" in group for group in groups)


def _is_rng(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(each, dict) and _is_bytes(each.get("cpu")) for each in value)
        and all(_is_bytes(each["cuda"]) for each in value if "cuda" in each)
    )


def _is_bytes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.dim() == 1


ENTRIES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "step": ("a number of steps", _is_step),
    "task": ("a mapping", _is_mapping),
    "optimizer": ("the state of an optimizer", _is_optimizer),
    "means": ("sums and counts of metrics", _is_means),
    "last": ("a mapping of numbers", _is_numbers),
    "rng": ("the state of torch's random generators", _is_rng),
}
