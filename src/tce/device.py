"""Where a network runs and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from tce.errors import OptionError

PRECISIONS = ("float32", "bf16")


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the first GPU where there is one, else the CPU.

    Raises:
        OptionError: a device this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        here = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise OptionError(
            "--device",
            expected=f"a device of this machine ({here})",
            found=repr(name),
            fix="use --device auto",
        ) from error
    return device


def autocast(device: torch.device, precision: str = "float32") -> AbstractContextManager[object]:
    """A context in which convolutions and matrix products run in `precision`; parameters stay float32.

    Raises:
        OptionError: a precision other than float32 and bf16.
    """
    if precision not in PRECISIONS:
        raise OptionError("--precision", expected=" or ".join(PRECISIONS), found=repr(precision))
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
