"""Where a network runs and in which precision; both can be left to the machine."""

from __future__ import annotations

import functools
import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tce.errors import OptionError

log = logging.getLogger("tce")

PRECISIONS = ("auto", "float32", "bf16")
PROBE_SECONDS = 0.6  # after this no further pass is started
CLEARLY_FASTER = 1.2  # below this ratio, float32's digits are worth more than the time


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


@dataclass(frozen=True)
class PrecisionProbe:
    """Seconds of the same small forward and backward pass in both precisions; infinite where one fails."""

    float32: float
    bf16: float

    @property
    def faster(self) -> str:
        """bf16 where it is clearly faster, else float32."""
        return "bf16" if self.float32 > CLEARLY_FASTER * self.bf16 else "float32"

    def __str__(self) -> str:
        return f"float32 {1000 * self.float32:.1f} ms, bf16 {1000 * self.bf16:.1f} ms"


@functools.cache
def probe_precision(device: torch.device) -> PrecisionProbe:
    """Measure two small convolutions, forward and backward, in float32 and bf16; once per process and device.

    No flag of a processor decides it: PyTorch reports bf16 support also where it is only emulated, some
    30 times slower. The passes alternate and the fastest of each counts, so that other work on the machine
    has little influence. The random generators are left as they are.
    """
    images = torch.linspace(-1, 1, 2 * 256 * 8 * 8, device=device).reshape(2, 256, 8, 8)
    images = images.contiguous(memory_format=torch.channels_last)
    kernel = torch.linspace(-0.1, 0.1, 256 * 256 * 9, device=device).reshape(256, 256, 3, 3)
    first, second = (kernel.clone(memory_format=torch.channels_last).requires_grad_() for _ in range(2))

    def seconds(precision: str) -> float:
        _wait_for(device)
        start = time.perf_counter()
        with torch.enable_grad(), autocast(device, precision):
            hidden = F.relu(F.conv2d(images, first, padding=1))
            loss = F.conv2d(hidden, second, padding=1).float().square().mean()
        torch.autograd.grad(loss, (first, second))
        _wait_for(device)
        return time.perf_counter() - start

    begin, best = time.perf_counter(), {"float32": float("inf"), "bf16": float("inf")}
    seconds("float32")  # the first pass of a process also loads kernels
    try:
        while True:
            for precision in best:
                best[precision] = min(best[precision], seconds(precision))
            hopeless = best["bf16"] > 5 * best["float32"]
            if hopeless or time.perf_counter() - begin > PROBE_SECONDS:
                break
    except RuntimeError as error:  # a device without bf16
        log.debug("bf16 does not run on %s: %s", device, error)
    return PrecisionProbe(**best)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def choose_precision(requested: str, device: torch.device) -> str:
    """The precision to compute in: "auto" becomes the faster one on this device, and both times are logged.

    Args:
        requested: "auto", "float32" or "bf16"; bf16 is kept also where it is slower, with a warning.
        device: where the network runs.

    Raises:
        OptionError: another precision.
    """
    if requested not in PRECISIONS:
        raise OptionError("--precision", expected=", ".join(PRECISIONS), found=repr(requested))
    if requested == "float32":
        return requested
    probe = probe_precision(device)
    _log_once(requested, device, probe)
    return probe.faster if requested == "auto" else requested


@functools.cache
def _log_once(requested: str, device: torch.device, probe: PrecisionProbe) -> None:
    if requested == "auto":
        log.info("precision %s, the faster one on this %s (%s)", probe.faster, device.type, probe)
    elif probe.bf16 > probe.float32:
        log.warning(
            "--precision bf16 is %.1f times slower than float32 on this %s (%s); --precision auto picks the "
            "faster one",
            probe.bf16 / probe.float32,
            device.type,
            probe,
        )


def autocast(device: torch.device, precision: str = "float32") -> AbstractContextManager[object]:
    """A context in which convolutions and matrix products run in `precision`; parameters stay float32.

    Args:
        device: where the network runs.
        precision: "float32" or "bf16", as `choose_precision` returns it.

    Raises:
        OptionError: another precision.
    """
    if precision not in ("float32", "bf16"):
        raise OptionError("--precision", expected="float32 or bf16", found=repr(precision))
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
