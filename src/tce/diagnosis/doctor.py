"""The command `tce doctor`: what this machine and installation are, a self-test, and a report to paste."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tce.diagnosis import machine
from tce.diagnosis.dependencies import (
    affecting,
    check_files,
    installed_dependencies,
    licence_table,
    read_advisories,
)
from tce.diagnosis.self_test import Step, self_test
from tce.errors import TceError, printable
from tce.io import Result, atomic, require_writable
from tce.options.doctor import DoctorOptions
from tce.progress import Progress

LEAST_MEMORY = 2.0  # GiB available; below it packing and networks start to fail
SECTIONS: tuple[tuple[str, Callable[[], dict[str, Any]]], ...] = (
    ("versions", machine.versions),
    ("processor", machine.processor),
    ("precision", machine.precision),
    ("devices", machine.devices),
    ("codecs", machine.codecs),
    ("environment", machine.environment),
)


def doctor(options: DoctorOptions) -> Result:
    """Describe this machine and installation, and try the way from a video to a map on a generated clip.

    The report holds no path, host name, user name or token. With problems, the shell's exit code is 1.

    Args:
        options: where the disk is checked and the self-test writes, and its network.

    Returns:
        `versions`, `processor`, `precision`, `devices`, `codecs`, `environment`, `disk`, `self_test` (its
        steps with `ok`, `seconds`, `detail`), `problems` (a line each), `seconds`; with --licences or --audit
        `packages` and `problems`.

    Raises:
        TceError: the folder is none, or --output cannot be written.
    """
    started = time.monotonic()
    if options.output is not None:
        require_writable(options.output)
    if options.licences or options.audit:
        return _finished(options, _licences() if options.licences else _audit(options))
    folder = Path(options.folder)
    if not folder.is_dir():
        raise TceError(f"--folder {options.folder}", expected="a folder", found="none of that name")
    figures: dict[str, Any] = {name: _section(describe) for name, describe in SECTIONS}
    figures["disk"] = _section(lambda: machine.disk(folder))
    steps = [] if options.no_test else _self_test(folder, options.start)
    figures["self_test"] = [dataclasses.asdict(step) for step in steps]
    figures["problems"] = find_problems(figures)
    figures["seconds"] = round(time.monotonic() - started, 1)
    return _finished(options, Result(report_text(figures), figures))


def _finished(options: DoctorOptions, result: Result) -> Result:
    """The result, written to --output as well, with the exit code of its problems."""
    if options.output is not None:
        with atomic(options.output, "w") as file:
            file.write(result.text + "\n")
    result.exit_code = 1 if result.figures["problems"] else 0
    return result


def _licences() -> Result:
    """The table of licences."""
    found = installed_dependencies()
    figures = {"packages": [dataclasses.asdict(one) for one in found], "problems": []}
    return Result("\n".join(licence_table(found)), figures)


def _audit(options: DoctorOptions) -> Result:
    """What is wrong with what is installed: versions, files, licences, known vulnerabilities."""
    advisories = None if options.advisories is None else read_advisories(Path(options.advisories))
    found = installed_dependencies()
    with Progress(len(found), "checking files", "package") as progress:
        for one in found:
            changed = check_files(one.name)
            more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
            one.problems += [changed[0] + more] if changed else []
            one.problems += ["its licence is unknown"] if one.licence == "unknown" else []
            one.problems += [f"known vulnerability {name}" for name in affecting(one, advisories or [])]
            progress.update()
    problems = [f"{one.name} {one.version}: {line}" for one in found for line in one.problems]
    known = "no advisories were given" if advisories is None else f"{len(advisories):,} advisories"
    head = f"{len(found)} packages: versions, files and licences checked; known vulnerabilities: {known}"
    lines = [head, *(f"- {line}" for line in problems)] if problems else [head, "no problem found"]
    figures = {"packages": [dataclasses.asdict(one) for one in found], "problems": problems}
    return Result("\n".join(lines), figures)


def _section(describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What one part of the machine is, or the error that it gives: a broken part must not hide the others."""
    try:
        return describe()
    except Exception as error:  # an import of a broken library may raise anything
        return {"error": printable(f"{type(error).__name__}: {error}".splitlines()[0])}


def _self_test(folder: Path, start: str) -> list[Step]:
    try:
        return self_test(folder, start)
    except Exception as error:  # no temporary folder, or an import that fails
        return [Step("start", False, 0.0, printable(f"{type(error).__name__}: {error}".splitlines()[0]))]


def find_problems(figures: Mapping[str, Any]) -> list[str]:
    """What is wrong, a line each with what to do; empty where all is well."""
    found = [f"{name}: {part['error']}" for name, part in figures.items() if _failed(part)]
    found += figures["versions"].get("problems", [])
    lacks = figures["codecs"].get("lacks", [])
    if lacks:
        found.append(f"these videos cannot be decoded here: {', '.join(lacks)}; pip install --upgrade av")
    free = figures["disk"].get("free_gib")
    if free is not None and free * machine.GIB < machine.LEAST_FREE:
        found.append(f"{free} GiB are free on the disk of --folder; packed videos need about 8 KB a frame")
    memory = figures["processor"].get("available_gib")
    if memory is not None and memory < LEAST_MEMORY:
        found.append(f"{memory} GiB of memory are available; close other programs, or lower --batch-size")
    if figures["devices"].get("cuda_build") and not figures["devices"].get("gpus"):
        found.append(
            "PyTorch was built for CUDA, but sees no GPU; check the driver, or install the smaller CPU build"
        )
    return found + [
        f"self-test, {step['name']}: {step['detail']}" for step in figures["self_test"] if step["ok"] is False
    ]


def _failed(part: Any) -> bool:
    return isinstance(part, Mapping) and "error" in part


def report_text(figures: Mapping[str, Any]) -> str:
    """The report for people; every line stands alone, so that it survives being pasted."""
    lines: list[str] = []
    for name, write in WRITERS.items():
        part = figures[name]
        lines += [f"{name:<12} failed: {part['error']}"] if _failed(part) else _titled(name, write(part))
    steps = figures["self_test"]
    for number, step in enumerate(steps):
        mark = {True: "ok", False: "FAILED", None: "-"}[step["ok"]]
        title = "self-test" if number == 0 else ""
        lines.append(f"{title:<12} {step['name']:<17} {mark:<7}{step['seconds']:5.1f} s  {step['detail']}")
    if not steps:
        lines.append(f"{'self-test':<12} not run (--no-test)")
    problems = figures["problems"]
    lines += [
        "",
        f"{len(problems)} problem{'s' * (len(problems) != 1)} found" if problems else "no problem found",
    ]
    return "\n".join([*lines, *(f"- {line}" for line in problems)])


def _titled(name: str, lines: Sequence[str]) -> list[str]:
    return [f"{name if number == 0 else '':<12} {line}" for number, line in enumerate(lines)]


def _versions(part: Mapping[str, Any]) -> list[str]:
    system = f"{part['distribution']}, " if part["distribution"] else ""
    packages = [f"{name} {found}" for name, found in part["packages"].items()]
    kind = machine.in_environment()
    lines = [f"tce {part['tce']}, {part['python']} ({kind})", f"{system}{part['system']}"]
    return lines + wrapped(packages)


def _processor(part: Mapping[str, Any]) -> list[str]:
    limit = part["memory_limit_gib"]
    memory = f"{part['memory_gib']} GiB of memory, {part['available_gib']} available"
    memory += f", {limit} allowed" if limit is not None else ""
    cores = f"{part['cores']} cores ({part['usable_cores']} usable), {part['torch_threads']} torch threads"
    features = " ".join(part["features"]) or "no vector instructions known"
    return [part["name"], f"{cores}; {memory}", f"{features}; torch uses {part['torch_capability']}"]


def _precision(part: Mapping[str, Any]) -> list[str]:
    return [f"float32 {part['float32_ms']} ms, bf16 {part['bf16_ms']} ms: auto takes {part['auto']}"]


def _devices(part: Mapping[str, Any]) -> list[str]:
    gpus = [f"{gpu['name']}: {gpu['device']}, {gpu['memory_gib']} GiB" for gpu in part["gpus"]]
    build = f"CUDA {part['cuda_build']}" if part["cuda_build"] else "CPU build"
    apple = ["mps (PyTorch's; tce does not use it)"] if part["mps"] else []
    engines = ", ".join(name.removesuffix("ExecutionProvider") for name in part["onnxruntime"])
    return [f"{'; '.join(gpus + apple) or 'no GPU'}; PyTorch {build}; ONNX Runtime {engines}"]


def _codecs(part: Mapping[str, Any]) -> list[str]:
    lacks = f"; not {', '.join(part['lacks'])}" if part["lacks"] else ""
    return [
        f"decodes {', '.join(part['decode'])}{lacks}",
        f"encodes {', '.join(part['encode'])}; images {', '.join(part['images'])}",
        *wrapped([f"{name} {number}" for name, number in part["libraries"].items()]),
    ]


def _environment(part: Mapping[str, Any]) -> list[str]:
    return wrapped([f"{name}={value}" for name, value in part.items()]) or ["no variable of interest is set"]


def _disk(part: Mapping[str, Any]) -> list[str]:
    free = f"{part['free_gib']} GiB free, temporary folder {part['temporary_free_gib']} GiB"
    return [f"{free}; writes {part['write_mib_s']} MiB/s"]


WRITERS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "versions": _versions,
    "processor": _processor,
    "precision": _precision,
    "devices": _devices,
    "codecs": _codecs,
    "environment": _environment,
    "disk": _disk,
}


def wrapped(parts: Sequence[str], width: int = 96) -> list[str]:
    """Parts joined by commas, in lines of about `width` letters."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 2 <= width:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return lines
