"""What packing did, or would do: `report.json`, the summary, and the estimate of a dry run."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tce.data.collection import FAILED, ClipRecord, known_clips
from tce.data.encode import Encoding, Job, Summary, chosen, encode_clip
from tce.errors import TceError
from tce.io import Result, write_json
from tce.options.pack import PackOptions

if TYPE_CHECKING:
    from tce.data.catalog import Catalog
    from tce.video.pool import DecodePool

_SAMPLE = 8  # clips that a dry run opens


def report(catalog: Catalog, out: Path) -> Result:
    """Write `report.json` of a finished packing, and summarise it."""
    known = known_clips(out)
    figures = write_report(catalog, out, known)
    failed, damaged, missing = figures["failed"], figures["damaged"], figures["missing"]
    kilobytes = figures["bytes"] / max(figures["frames"], 1) / 1000
    text = (
        f"{out}: {counted(figures['clips'], 'clip')}, {counted(figures['frames'], 'frame')}, "
        f"{format_bytes(figures['bytes'])} ({kilobytes:.1f} kB a frame)"
    )
    for what, entries in (
        ("failed to decode and left out", failed),
        ("damaged; the good frames are packed", damaged),
    ):
        if entries:
            text += f"\n{counted(len(entries), 'clip')} {what}, such as {name_once(**entries[0])}"
    if failed:
        text += "\n--replace tries them again"
    if missing:
        text += f"\n{counted(len(missing), 'listed clip')} not found, such as {missing[0]}"
    if figures["skipped"]:
        text += f"\nleft out: {figures['skipped'][0]}"
        others = len(figures["skipped"]) - 1
        text += f" (and {counted(others, 'other reason')})" if others else ""
    if failed or damaged or missing or figures["skipped"]:
        text += f"\n{out / 'report.json'} names them all"
    return Result(text, {"collection": str(out)} | figures)


def write_report(catalog: Catalog, out: Path, known: dict[str, ClipRecord]) -> dict[str, Any]:
    """Write `report.json`: what the collection holds, and all footage that it does not, with the reason."""
    packed = [clip for clip in known.values() if clip.status != FAILED]
    content = {
        "clips": len(packed),
        "frames": sum(clip.frames for clip in packed),
        "bytes": sum(clip.bytes for clip in packed),
        "failed": _entries(known, lambda clip: clip.status == FAILED),
        "damaged": _entries(known, lambda clip: clip.status != FAILED and bool(clip.error)),
        "missing": list(catalog.missing),
        "skipped": list(catalog.skipped),
    }
    write_json(out / "report.json", content)
    return content


@dataclass(frozen=True)
class Probe:
    """What encoding some frames of a clip showed, for `--dry-run`.

    Attributes:
        frames: wanted frames of the whole clip.
        tried: frames encoded.
        bytes: of these.
        seconds: of one process for these.
        duration: of the clip, seconds.
    """

    frames: int
    tried: int
    bytes: int
    seconds: float
    duration: float


def probe_clip(job: Job, most: int = 100) -> Probe:
    """Encode the first frames of a clip, `most` at most, and count them all; runs in a child process.

    Raises:
        VideoError: the footage cannot be decoded.
    """
    from tce.video.open_video import open_video

    with open_video(job.path, threads=1) as video:
        numbers = chosen(video, job)
        times = video.times(numbers)  # [n]
    until = float(times[most]) if most < len(times) else job.end
    started = time.perf_counter()
    *_, summary = encode_clip(Job(job.path, job.encoding, job.start, until))
    seconds = time.perf_counter() - started
    assert isinstance(summary, Summary)
    return Probe(len(numbers), summary.frames, summary.bytes, seconds, float(times[-1] - times[0]))


def dry_run(catalog: Catalog, options: PackOptions, pool: DecodePool) -> Result:
    """Estimate size and time of packing by encoding the first frames of some clips; nothing is written.

    Raises:
        TceError: none of these clips can be decoded.
    """
    rows = np.unique(np.linspace(0, len(catalog) - 1, _SAMPLE).astype(int)).tolist()
    clips = [catalog[row] for row in rows]
    encoding = Encoding.of(options)
    jobs = [Job(clip.path, encoding, clip.start, clip.end) for clip in clips]
    outcomes = [outcome for _, outcome in pool.map(probe_clip, jobs)]
    probes = [outcome for outcome in outcomes if isinstance(outcome, Probe)]
    if not probes:
        raise TceError("dry run", expected="clips that decode", found=str(outcomes[0]), fix="see `tce check`")
    good = [row for row, outcome in zip(rows, outcomes, strict=True) if isinstance(outcome, Probe)]
    weights = _weights(catalog)
    scale = float(weights.sum() / weights[good].sum())  # from the sample to everything
    frames = sum(probe.frames for probe in probes) * scale
    tried = sum(probe.tried for probe in probes)
    size = frames * sum(probe.bytes for probe in probes) / tried
    seconds = frames * sum(probe.seconds for probe in probes) / tried / pool.workers
    pieces = len(catalog)
    if options.clip_seconds is not None:
        pieces = round(sum(probe.duration for probe in probes) * scale / options.clip_seconds)
    figures = {
        "clips": max(pieces, len(catalog)),
        "frames": round(frames),
        "bytes": round(size),
        "seconds": seconds,
        "workers": pool.workers,
        "sampled": len(probes),
        "failed": len(outcomes) - len(probes),
        "missing": len(catalog.missing),
    }
    text = (
        f"would pack about {figures['clips']:,} clips, {figures['frames']:,} frames, {format_bytes(size)}"
        f" in {format_seconds(seconds)} with {pool.workers} decoding processes"
        f" (estimated from {counted(len(probes), 'clip')})"
    )
    if options.split_scenes:
        text += "\nscenes are not counted: there will be more clips, and finding them takes as long again"
    if figures["failed"]:
        text += f"\n{figures['failed']} of the {len(outcomes)} clips tried cannot be decoded"
    return Result(text, figures)


def counted(number: int, what: str) -> str:
    """A number and what it counts: "1 clip", "1,200 clips"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def format_bytes(size: float) -> str:
    """A size, such as "1.3 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_seconds(seconds: float) -> str:
    """A duration, such as "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _weights(catalog: Catalog) -> np.ndarray:
    """float64 [clips], by which footage is compared: bytes of files, 1 each where there are frame folders."""
    paths = catalog.paths.tolist()
    if any(map(os.path.isdir, paths)) or not np.isnan(catalog.starts).all():
        return np.ones(len(paths))
    return np.array([max(os.path.getsize(path), 1) for path in paths], dtype=np.float64)


def name_once(id: str, path: str, error: str) -> str:
    """A clip's error that names the clip once: by its path if the error has it, else by its id."""
    if path in error and id in path.replace(os.sep, "/"):
        return error
    return f"{id}: {error}"


def _entries(known: dict[str, ClipRecord], wanted: Any) -> list[dict[str, str]]:
    return [
        {"id": name, "path": clip.path, "error": clip.error} for name, clip in known.items() if wanted(clip)
    ]
