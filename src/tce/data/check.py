"""`tce check`: which footage cannot be decoded, which clips of a collection are damaged; changes nothing."""

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tce.errors import TceError
from tce.io import Result
from tce.options.check import CheckOptions
from tce.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from tce.video.pool import DecodePool

__all__ = ["CheckOptions", "check"]

_ROWS = 4096  # of a collection that one child checks in one call
_TAKE = 256  # of them read at once


def check(options: CheckOptions) -> Result:
    """List the footage that cannot be decoded, or a collection's damaged clips, each with its reason.

    Decoding runs in child processes: a crash or hang of the decoder is one entry of the list.

    Raises:
        TceError: there is nothing to check.
    """
    from tce.data.collection import is_collection
    from tce.video.pool import DecodePool

    with DecodePool(options.workers or 0, options.timeout) as pool:
        if is_collection(options.footage):
            return _check_collection(options, pool)
        return _check_videos(options, pool)


@dataclass(frozen=True)
class VideoJob:
    """A video file or frame folder to check; `deep` decodes every frame."""

    path: str
    deep: bool

    def __str__(self) -> str:
        return self.path


def count_frames(job: VideoJob) -> int:
    """Decode the first, middle and last frame, or all, and count them; runs in a decoding child process.

    Raises:
        VideoError: a frame does not decode, or fewer are there than promised.
    """
    from tce.video.base import VideoTruncated
    from tce.video.open_video import open_video
    from tce.video.pool_worker import heartbeat

    with open_video(job.path, threads=1) as video:
        if not job.deep:
            video.frames(sorted({0, len(video) // 2, len(video) - 1}))
            return len(video)
        frames = 0
        for indices, _ in video.stream(16):
            frames += len(indices)
            heartbeat()
        corrupt = getattr(video, "corrupt_frames", 0)  # of files only
        if corrupt:
            raise VideoTruncated(job.path, f"{frames} sound frames", f"{corrupt} signs of damage within them")
        return frames


def _check_videos(options: CheckOptions, pool: DecodePool) -> Result:
    from tce.data.read_catalog import read_catalog

    catalog = read_catalog(options.footage, lists=options.lists, split=options.split)
    ids: dict[str, list[str]] = defaultdict(list)  # of the clips in each file
    for name, path in zip(catalog.ids.tolist(), catalog.paths.tolist(), strict=True):
        ids[path].append(name)
    bad: list[dict[str, Any]] = []
    frames = 0
    with Progress(len(ids), "checking", "file") as progress:
        jobs = (VideoJob(path, options.deep) for path in ids)
        for job, outcome in pool.map(count_frames, jobs):
            if isinstance(outcome, TceError):
                bad.append({"path": job.path, "ids": ids[job.path], "error": str(outcome)})
            else:
                frames += outcome
            progress.update(1, **({"bad": len(bad)} if bad else {}))
    figures = {
        "files": len(ids),
        "clips": len(catalog),
        "frames": frames,
        "deep": options.deep,
        "bad": bad,
        "missing": list(catalog.missing),
        "skipped": list(catalog.skipped),
    }
    tried = "every frame" if options.deep else "first, middle and last frame"
    lines = [_with_path(entry["error"], entry["path"]) for entry in bad]
    lines += [f"left out: {reason}" for reason in catalog.skipped]
    lines.append(f"{len(ids) - len(bad):,} of {len(ids):,} files decode ({tried}), {frames:,} frames")
    if catalog.missing:
        lines.append(f"{len(catalog.missing)} listed clips were not found, such as {catalog.missing[0]}")
    return Result("\n".join(lines), figures)


def _with_path(error: str, path: str) -> str:
    """The error, begun with the path if it does not name it."""
    return error if path in error else f"{path}: {error}"


@dataclass(frozen=True)
class RowsJob:
    """Rows [first, last) of a collection's frames to verify; `deep` decodes them too."""

    folder: str
    version: int
    first: int
    last: int
    deep: bool

    def __str__(self) -> str:
        return f"{self.folder}, rows {self.first} to {self.last - 1}"


def damaged_rows(job: RowsJob) -> list[tuple[int, str]]:
    """Rows that cannot be read or do not match their checksum, with the reason; runs in a child process."""
    from tce.data.collection import FRAMES, open_table
    from tce.video.pool_worker import heartbeat

    # Lance panics over some damage and prints a trace; the error itself is still returned.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    frames = open_table(job.folder, FRAMES, job.version)
    bad: list[tuple[int, str]] = []
    for first in range(job.first, job.last, _TAKE):
        # From the row before, with which the first one's time is compared.
        rows = np.arange(max(first - 1, job.first), min(first + _TAKE, job.last))
        bad += _verify(frames, rows, job.deep)
        heartbeat()
    return bad


def _verify(frames: Any, rows: np.ndarray, deep: bool) -> list[tuple[int, str]]:
    """The bad ones of some rows; where they cannot be read together, halves are tried."""
    from tce.data.lance_rows import first_line, try_read

    columns = ["clip", "index", "time", "image", "checksum"]
    table, error = try_read(partial(frames.take, rows, columns=columns))
    if table is None:
        if len(rows) == 1:
            return [(int(rows[0]), f"cannot be read: {first_line(error)}")]
        half = len(rows) // 2
        return _verify(frames, rows[:half], deep) + _verify(frames, rows[half:], deep)
    images, checksums = table["image"].to_pylist(), table["checksum"].to_pylist()
    valid = _has_valid_time(table).tolist()
    reasons = (
        _reason(image, checksum, deep) or ("" if good else "has no valid time")
        for image, checksum, good in zip(images, checksums, valid, strict=True)
    )
    return [(int(row), reason) for row, reason in zip(rows, reasons, strict=True) if reason]


def _has_valid_time(table: pa.Table) -> np.ndarray:
    """Whether each frame's time is a number, and later than that of the frame before in the table.

    Returns:
        bool [rows].
    """
    times = np.asarray(table["time"])  # NaN where there is none
    clips = table["clip"].to_numpy()
    follows = (clips[1:] == clips[:-1]) & (np.diff(np.asarray(table["index"])) == 1)
    early = follows & (np.diff(times) <= 0)
    return np.isfinite(times) & ~np.concatenate([[False], early])


def _reason(image: bytes, checksum: int, deep: bool) -> str:
    """What is wrong with a stored image, or nothing."""
    from tce.video.base import FrameError
    from tce.video.image import decode

    if zlib.crc32(image) != checksum:
        return "does not match its checksum"
    if deep:
        try:
            decode(image)
        except FrameError as error:
            return f"cannot be decoded: {error.found}"
    return ""


def _check_collection(options: CheckOptions, pool: DecodePool) -> Result:
    from tce.data.collection import FAILED, FRAMES, known_clips, open_collection, open_table

    folder = options.footage
    store = open_collection(folder)
    known = known_clips(folder)
    bad = dict(store.damaged)
    total = open_table(folder, FRAMES, store.version[1]).count_rows()
    for row, reason in _damage(folder, store.version[1], total, options.deep, pool):
        clip, frame = store.frame_at(row)
        if clip >= 0:
            bad.setdefault(store.catalog[clip].id, f"frame {frame} {reason}")
    failed = {name: clip.error for name, clip in known.items() if clip.status == FAILED}
    figures: dict[str, Any] = {
        "clips": len(store) + len(store.damaged),
        "frames": total,
        "deep": options.deep,
        "bad": [{"id": name, "error": reason} for name, reason in bad.items()],
        "not_packed": [{"id": name, "error": reason} for name, reason in failed.items()],
    }
    lines = [f"{name}: {reason}" for name, reason in bad.items()]
    lines += [f"{name}: was not packed: {reason}" for name, reason in failed.items()]
    lines.append(f"{figures['clips'] - len(bad):,} of {figures['clips']:,} clips are whole, {total:,} frames")
    if bad:
        lines.append(f"pack the damaged ones again: {_repack_command(store.options, folder, list(bad))}")
    return Result("\n".join(lines), figures)


def _damage(folder: str, version: int, total: int, deep: bool, pool: DecodePool) -> Iterator[tuple[int, str]]:
    """Bad rows of the frames, with the reason."""
    jobs = _row_jobs(folder, version, range(0, total, _ROWS), _ROWS, total, deep)
    crashed: list[RowsJob] = []
    with Progress(total, "checking", "frame") as progress:
        for job, outcome in pool.map(damaged_rows, jobs):
            if isinstance(outcome, TceError):
                crashed.append(job)
            else:
                yield from outcome
            progress.update(job.last - job.first)
    for large in crashed:  # ended the process: find the damage closer
        jobs = _row_jobs(folder, version, range(large.first, large.last, _TAKE), _TAKE, large.last, deep)
        for job, outcome in pool.map(damaged_rows, jobs):
            if isinstance(outcome, TceError):
                yield from ((row, str(outcome)) for row in range(job.first, job.last))
            else:
                yield from outcome


def _row_jobs(folder: str, version: int, firsts: range, rows: int, end: int, deep: bool) -> Iterator[RowsJob]:
    return (RowsJob(folder, version, first, min(first + rows, end), deep) for first in firsts)


def _repack_command(options: dict[str, Any], folder: str, ids: list[str]) -> str:
    import shlex

    additions = options.get("additions") or [{"footage": ["FOOTAGE"], "lists": None}]
    words = ["tce", "pack", *additions[0]["footage"], "--out", folder]
    if additions[0]["lists"] is not None:
        words += ["--lists", additions[0]["lists"], "--split", additions[0]["split"]]
    for name, value in options.get("pack", {}).items():
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value is not None and value is not False and value != _default(name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--replace", "--only", *ids[:_NAMED]]) + (" ..." if len(ids) > _NAMED else "")


_NAMED = 20  # ids in the printed command


def _default(name: str) -> Any:
    from tce.options.pack import PackOptions

    return PackOptions.__dataclass_fields__[name].default
