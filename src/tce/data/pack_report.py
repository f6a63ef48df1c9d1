"""What packing did, or would do: `report.json`, the summary, and the estimate of a dry run."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tce.data.collection import FAILED
from tce.data.writer import ClipRecord, known_clips
from tce.errors import TceError
from tce.io import write_json
from tce.options.pack import PackOptions
from tce.result import Result

if TYPE_CHECKING:
    from tce.data.read_catalog import Catalog
    from tce.video.pool import DecodePool

log = logging.getLogger("tce.data")

_SAMPLE = 8  # clips that a dry run looks into


def report(catalog: Catalog, out: Path) -> Result:
    """Write `report.json` of a finished packing, and tell it."""
    known = known_clips(out)
    figures = write_report(catalog, out, known)
    failed, damaged, missing = figures["failed"], figures["damaged"], figures["missing"]
    text = (
        f"{out}: {figures['clips']:,} clips, {figures['frames']:,} frames, {told_bytes(figures['bytes'])}"
        f" ({figures['bytes'] / max(figures['frames'], 1) / 1000:.1f} kB a frame)"
    )
    for what, entries in (
        ("failed and were left out", failed),
        ("are damaged; their good frames are in", damaged),
    ):
        if entries:
            text += f"\n{len(entries)} clips {what}, such as {name_once(**entries[0])}"
    if failed:
        text += "\n--replace tries them again"
    if missing:
        text += f"\n{len(missing)} clips of the lists have no footage, such as {missing[0]}"
    if figures["skipped"]:
        text += f"\n{len(figures['skipped'])} places were not looked at, such as {figures['skipped'][0]}"
    if failed or damaged or missing or figures["skipped"]:
        text += f"\nall are named in {out / 'report.json'}"
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


def dry_run(catalog: Catalog, options: PackOptions, pool: DecodePool) -> Result:
    """Judge size and time of packing by encoding the first frames of some clips; nothing is written.

    Raises:
        TceError: none of these clips can be decoded.
    """
    from tce.data.encode import Encoding, Job, Probe, probe_clip

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
        f"would pack about {figures['clips']:,} clips, {figures['frames']:,} frames, {told_bytes(size)}"
        f" in {told_seconds(seconds)} with {pool.workers} processes (judged by {len(probes)} clips)"
    )
    if options.split_scenes:
        text += "\nscenes are not counted: there will be more clips, and finding them takes as long again"
    if figures["failed"]:
        text += f"\n{figures['failed']} of the {len(outcomes)} clips looked into cannot be decoded"
    return Result(text, figures)


def told_bytes(size: float) -> str:
    """A size for people: "1.3 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def told_seconds(seconds: float) -> str:
    """A time for people: "2 h 05 min"."""
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
    """A clip's error, which names the clip once: by its path, if the error has that and it tells the id."""
    if path in error and id in path.replace(os.sep, "/"):
        return error
    return f"{id}: {error}"


def _entries(known: dict[str, ClipRecord], wanted: Any) -> list[dict[str, str]]:
    return [
        {"id": name, "path": clip.path, "error": clip.error} for name, clip in known.items() if wanted(clip)
    ]
