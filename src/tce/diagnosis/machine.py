"""What this machine and this installation are: versions, processor, memory, devices, codecs, disk.

No path, host name, user name or token is among it: the report is made to be pasted into a public issue.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DISTRIBUTION = "tce-video"
FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")
# Variables that change what runs here; values are shown for these alone, others are only named.
SHOWN_VARIABLES = re.compile(
    r"(OMP|MKL|OPENBLAS|NUMEXPR|TORCH|ATEN|ONEDNN|DNNL|KMP|GOMP)_\w+|CUDA_VISIBLE_DEVICES|TCE_MAX_PIXELS"
    r"|HF_HUB_OFFLINE|TRANSFORMERS_OFFLINE|RANK|WORLD_SIZE|LOCAL_RANK"
)
NAMED_VARIABLES = re.compile(r"TCE_\w+|HF_(?!TOKEN)\w+|PYTHONPATH|LD_LIBRARY_PATH|LD_PRELOAD")
DECODERS = ("h264", "hevc", "av1", "vp9", "vp8", "mpeg4", "mjpeg", "prores")
ENCODERS = ("libx264", "libopenh264", "mpeg4", "libvpx-vp9", "libsvtav1")
PICTURES = ("jpg", "jpg_2000", "zlib", "libtiff", "webp", "avif")
PICTURE_NAMES = {"jpg": "JPEG", "jpg_2000": "JPEG 2000", "zlib": "PNG", "libtiff": "TIFF", "webp": "WebP"}
PROBE_BYTES = 32 << 20  # written to the disk and read again
LEAST_FREE = 2 << 30  # bytes; below it a packing or a run soon fills the disk
GIB = 1 << 30


def versions() -> dict[str, Any]:
    """tce, Python, the system, and every package that tce declares, with what is wrong with any."""
    import tce

    packages, problems = {}, []
    for name, specifier, extra in requirements():
        try:
            found: str | None = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found is None and extra:
            packages[name] = f"not installed (extra {extra})"
        elif found is None:
            packages[name] = "missing"
            problems.append(f"{name} is missing: pip install '{name}{specifier}'")
        else:
            packages[name] = found
            if not specifier.contains(found, prereleases=True):
                problems.append(f"{name} {found} is installed, tce needs {specifier}")
    return {
        "tce": tce.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "distribution": _distribution(),
        "packages": packages,
        "problems": problems,
    }


def requirements() -> Iterator[tuple[str, Any, str]]:
    """Name, specifier and extra ("" for none) of what tce declares, without what is for its developers."""
    from packaging.requirements import Requirement

    try:
        declared = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # run from its sources, not installed
        declared = []
    for line in declared:
        requirement = Requirement(line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        name = extra[1] if extra else ""
        if name != "dev" and requirement.name != DISTRIBUTION:
            yield requirement.name, requirement.specifier, name


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def processor() -> dict[str, Any]:
    """Name, cores, vector instructions and memory of this machine, and the threads that torch takes."""
    import torch

    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    total, free = _memory()
    return {
        "name": info.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "features": [name for name in FEATURES if name in flags],
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": total,
        "available_gib": free,
        "memory_limit_gib": _memory_limit(),
    }


def _cpuinfo() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty on other systems."""
    found: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return found
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def _memory() -> tuple[float | None, float | None]:
    """Memory of the machine and what is free of it, GiB; None where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None, None
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) > 1}
    return _gib(sizes.get("MemTotal")), _gib(sizes.get("MemAvailable"))


def _memory_limit() -> float | None:
    """What a container allows, GiB; None without a limit."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            value = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if value.isdigit() and int(value) < 1 << 50:
            return _gib(int(value))
    return None


def _gib(count: int | None) -> float | None:
    return None if count is None else round(count / GIB, 1)


def precision() -> dict[str, Any]:
    """Milliseconds of a small pass in float32 and in bf16, and the one that `--precision auto` takes."""
    from tce.device import pick_device, probe_precision

    probe = probe_precision(pick_device())
    return {
        "float32_ms": round(1000 * probe.float32, 2),
        "bf16_ms": round(1000 * probe.bf16, 2),
        "auto": probe.faster,
    }


def devices() -> dict[str, Any]:
    """GPUs that torch sees, and what ONNX Runtime runs on."""
    import onnxruntime
    import torch

    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(number)
        found.append({"name": f"cuda:{number}", "device": facts.name, "memory_gib": _gib(facts.total_memory)})
    return {
        "cuda_build": torch.version.cuda,
        "gpus": found,
        "mps": bool(torch.backends.mps.is_available()),
        "onnxruntime": [name for name in onnxruntime.get_available_providers() if "Azure" not in name],
    }


def codecs() -> dict[str, Any]:
    """Which of the usual video and image formats can be read and written."""
    import av
    from PIL import features

    def known(name: str, mode: str) -> bool:
        try:
            av.codec.Codec(name, mode)  # type: ignore[arg-type]
        except (ValueError, av.error.FFmpegError):
            return False
        return True

    libraries = {name: ".".join(map(str, number)) for name, number in sorted(av.library_versions.items())}
    return {
        "decode": [name for name in DECODERS if known(name, "r")],
        "lacks": [name for name in DECODERS if not known(name, "r")],
        "encode": [name for name in ENCODERS if known(name, "w")],
        "images": [PICTURE_NAMES.get(name, name.upper()) for name in PICTURES if features.check(name)],
        "libraries": libraries,
    }


def disk(folder: Path) -> dict[str, Any]:
    """Free space of a folder and of the temporary folder, and how fast the folder's disk is.

    Raises:
        OSError: the folder cannot be written to.
    """
    data = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(PROBE_BYTES >> 20):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter() - start
    return {
        "free_gib": _gib(shutil.disk_usage(folder).free),
        "temporary_free_gib": _gib(shutil.disk_usage(tempfile.gettempdir()).free),
        "write_mib_s": round((PROBE_BYTES >> 20) / max(written, 1e-6)),
    }


def environment() -> dict[str, str]:
    """Variables that change how tce and its libraries run; of those that may hold a path, the names alone."""
    shown = {name: value for name, value in os.environ.items() if SHOWN_VARIABLES.fullmatch(name)}
    named = {name: "(set)" for name in os.environ if NAMED_VARIABLES.fullmatch(name) and name not in shown}
    return dict(sorted((shown | named).items()))


def in_environment() -> str:
    """The kind of Python environment."""
    if os.environ.get("CONDA_PREFIX"):
        return "conda"
    return "virtual environment" if sys.prefix != sys.base_prefix else "system"
