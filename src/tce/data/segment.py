"""What is to be packed: the clips of one or several places, long recordings cut into pieces."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tce.data.writer import write_json
from tce.errors import OptionError, TceError
from tce.options.pack import PackOptions
from tce.progress import Progress
from tce.video.base import VideoError

if TYPE_CHECKING:
    from tce.data.read_catalog import Catalog
    from tce.video.pool import DecodePool

_SECONDS_BETWEEN_WRITES = 10.0


def read_footage(footage: Sequence[str], lists: str | None, split: str) -> Catalog:
    """The catalog of one place, or of several one after the other.

    Clips of several folders are named after their folder too, so that their ids differ.

    Raises:
        TceError: nothing there, no footage, or two of several places have the same name.
        OptionError: `lists` with several places.
    """
    from tce.data.read_catalog import Catalog, read_catalog

    if len(footage) == 1:
        return read_catalog(os.path.abspath(footage[0]), lists=lists, split=split)
    if lists is not None:
        raise OptionError(
            "--lists",
            expected="one FOOTAGE",
            found=str(len(footage)),
            fix="pack one after the other with --add",
        )
    parts = [read_catalog(os.path.abspath(place)) for place in footage]
    names = [_place_name(place) for place in footage]
    ids = [
        str(clip) if os.path.isfile(place) else f"{name}/{clip}"
        for place, name, part in zip(footage, names, parts, strict=True)
        for clip in part.ids
    ]
    if len(set(ids)) != len(ids):
        raise TceError(
            "FOOTAGE",
            expected="files and folders with different names",
            found=f"{_twice(ids)!r} twice",
            fix="give the folder above them",
        )
    return Catalog(
        ids=ids,
        paths=[str(path) for part in parts for path in part.paths],
        labels=[None if code < 0 else part.classes[code] for part in parts for code in part.labels.tolist()],
        splits=[name for part in parts for name in part.splits],
        groups=[name for part in parts for name in part.groups],
        sources=[name for part in parts for name in part.sources],
        starts=np.concatenate([part.starts for part in parts]),
        ends=np.concatenate([part.ends for part in parts]),
        skipped=[reason for part in parts for reason in part.skipped],
    )


@dataclass(frozen=True)
class CutJob:
    """Footage to be cut, see `tce.data.scenes.cut`.

    Attributes:
        path: a video file or a frame folder.
        seconds: length of the pieces; None for whole scenes.
        scenes: cut where the scene changes.
    """

    path: str
    seconds: float | None
    scenes: bool

    def __str__(self) -> str:
        return self.path


def find_cuts(job: CutJob) -> list[tuple[float, float | None]]:
    """Start and end of the pieces in seconds, the last one open; runs in a decoding child process.

    Raises:
        VideoError: the footage cannot be decoded.
        TceError: the package that finds scenes is not installed.
    """
    from tce.data.scenes import cut

    pieces: list[tuple[float, float | None]] = list(cut(job.path, job.seconds, job.scenes, threads=1))
    return [*pieces[:-1], (pieces[-1][0], None)]


def cut_catalog(catalog: Catalog, options: PackOptions, out: Path, pool: DecodePool) -> Catalog:
    """The catalog with long footage cut as the options say.

    Clips that a list has cut out already stay as they are, and so does footage that cannot be decoded. Where
    to cut is kept in `out/cuts.json`, since finding it can take as long as decoding everything.

    Raises:
        TceError: the package that finds scenes is not installed.
    """
    if options.clip_seconds is None and not options.split_scenes:
        return catalog
    path = out / "cuts.json"
    kept = _read_cuts(path)
    clips = list(catalog)
    keys = [_cut_key(clip.path) for clip in clips]
    todo = [
        row
        for row, clip in enumerate(clips)
        if clip.start is None and clip.end is None and kept.get(clip.id, {}).get("key") != keys[row]
    ]
    jobs = [CutJob(clips[row].path, options.clip_seconds, options.split_scenes) for row in todo]
    written = time.monotonic()
    with Progress(len(clips), "finding cuts", "clip", done=len(clips) - len(todo)) as progress:
        for row, (_, pieces) in zip(todo, pool.map(find_cuts, jobs), strict=True):
            if isinstance(pieces, TceError) and not isinstance(pieces, VideoError):
                raise pieces
            # Footage that fails here fails again when it is packed, and is reported then.
            kept[clips[row].id] = {"key": keys[row], "pieces": [] if isinstance(pieces, TceError) else pieces}
            progress.update()
            if time.monotonic() - written > _SECONDS_BETWEEN_WRITES:
                write_json(path, kept)
                written = time.monotonic()
    if todo:
        write_json(path, kept)
    return catalog.cut([_ranges(kept.get(clip.id, {}).get("pieces", [])) for clip in clips])


def _ranges(pieces: list[tuple[float, float | None]]) -> list[tuple[float, float]]:
    return [(start, math.nan if end is None else end) for start, end in pieces]


def _read_cuts(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _cut_key(path: str) -> list[int]:
    """What changes when footage does."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _place_name(place: str) -> str:
    return Path(os.path.abspath(place)).name


def _twice(ids: list[str]) -> str:
    seen: set[str] = set()
    return next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
