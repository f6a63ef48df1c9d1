"""Describe videos, datasets and collections, in text and on a contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tce.data.read_catalog import apply_lists, read_catalog
from tce.io import Result
from tce.progress import Progress
from tce.video.base import Video
from tce.video.image import decode
from tce.video.open_video import open_isolated, open_video
from tce.video.pool import DecodePool
from tce.visualize.contact_sheet import save_sheet

if TYPE_CHECKING:
    import numpy as np

    from tce.data.catalog import Clip
    from tce.data.collection import Collection
    from tce.data.read_catalog import Catalog


MOST_ON_SHEET = 36
MOST_CLASSES = 30  # named one by one; more are counted


def describe_video(path: str, sheet: str | None = None) -> Result:
    """What a video file or a folder of frames is.

    Args:
        path: the footage.
        sheet: contact sheet to write.
    """
    with open_isolated(path) as video:
        height, width = video.size
        last = float(video.times([len(video) - 1])[0])
        facts = {
            "frames": len(video),
            "seconds": round(last + 1 / max(video.fps, 1e-9), 3),
            "fps": round(video.fps, 3),
            "width": width,
            "height": height,
            "codec": video.codec,
            "rotation": video.rotation,
            "sheet": sheet,
        }
        if sheet is not None:
            save_sheet(sheet, _video_cells(video))
    if video.kind == "image" and facts["frames"] == 1:  # which has no duration
        facts = {name: value for name, value in facts.items() if name not in ("seconds", "fps", "rotation")}
        return Result(describe(f"{path}: image", facts), {"type": "image", **facts})
    what = {"folder": "folder of frames", "image": "image file with several pictures", "file": "video"}
    shown = {**facts, "rotation": f"{video.rotation} degrees" if video.rotation else None}
    return Result(describe(f"{path}: {what[video.kind]}", shown), {"type": "video", **facts})


def _video_cells(video: Video) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    rows = _spaced(len(video), 24)
    for row, time in zip(rows, video.times(rows)):
        yield f"{time:.2f} s", video.frames([row])[0]


def describe_collection(
    path: str, lists: str | None = None, split: str = "01", sheet: str | None = None
) -> Result:
    """What a collection is.

    Args:
        path: its folder.
        lists: folder of the dataset's lists, for labels, splits and what is missing.
        split: which split of the lists.
        sheet: contact sheet to write.
    """
    from tce.data.collection import open_collection

    store = open_collection(path)
    if lists is not None:
        store.catalog = apply_lists(store.catalog, lists, split)
    facts = {
        "type": "collection",
        **_counts(store.catalog),
        "frames": int(store.lengths.sum()),
        "version": list(store.version),
        "damaged": store.damaged,
        "sheet": sheet,
    }
    shown = {
        **_shown_counts(store.catalog),
        "frames": f"{facts['frames']:,}",
        "frames a clip": spread(store.lengths),
        "frame rate": spread(store.fps, "fps"),
        "size": common([f"{width}x{height}" for height, width in store.sizes]),
        "on disk": f"{_disk(Path(path)) / 1e6:,.1f} MB",
        "damaged": some(list(store.damaged), 3),
        "version": "clips {}, frames {}".format(*store.version),
        "sheet": sheet,
    }
    if sheet is not None:
        save_sheet(sheet, _collection_cells(store))
    return Result(describe(f"{path}: collection", shown), facts)


def _collection_cells(store: Collection) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    chosen = np.array(_sheet_rows(store.catalog), np.int64)
    for row, image in zip(chosen, store.read(chosen, store.lengths[chosen] // 2)):
        if not isinstance(image, Exception):
            clip = store.catalog[int(row)]
            yield _caption(clip), decode(image, clip.id)


def _caption(clip: Clip) -> str:
    """The clip's own name, and its class in a second line."""
    name = clip.id.rsplit("/", 1)[-1]
    return f"{name}\n{clip.label}" if clip.label else name


def _disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@dataclass(frozen=True)
class Probe:
    """What is asked of one clip: its facts, and perhaps the picture in its middle."""

    path: str
    start: float | None
    end: float | None
    picture: bool

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Probed:
    """The answer: frames of the clip, frames a second, size, and the picture asked for."""

    frames: int
    fps: float
    size: tuple[int, int]
    picture: NDArray[np.uint8] | None


def probe(asked: Probe) -> Probed:
    """Look at one clip; runs in a decoding child process.

    Raises:
        VideoError: it cannot be read.
    """
    with open_video(asked.path, threads=1) as video:
        first, last = 0, len(video)
        if asked.start is not None or asked.end is not None:
            times = video.times()
            first = int(np.searchsorted(times, asked.start or 0.0))
            last = int(np.searchsorted(times, asked.end)) if asked.end is not None else last
        middle = min((first + last) // 2, len(video) - 1)
        picture = video.frames([middle])[0] if asked.picture else None
        return Probed(max(last - first, 0), video.fps, video.size, picture)


def describe_dataset(
    path: str,
    lists: str | None = None,
    split: str = "01",
    sheet: str | None = None,
    most: int = 200,
    workers: int = 2,
) -> Result:
    """What a dataset is: its clips by class and split, what is missing, how long, fast and large they are.

    Args:
        path: folder of footage, or a table of clips.
        lists: folder of the dataset's lists.
        split: which split of the lists.
        sheet: contact sheet to write.
        most: clips that are opened, spread evenly; those of the contact sheet come on top.
        workers: processes that open them.
    """
    catalog = read_catalog(path, lists, split)
    on_sheet = set(_sheet_rows(catalog)) if sheet is not None else set()
    rows = sorted({*_spaced(len(catalog), most), *on_sheet})
    good, bad = _probe_all(catalog, rows, on_sheet, workers)
    if sheet is not None:
        named = ((catalog[row], found.picture) for row, found in good.items())
        save_sheet(sheet, ((_caption(clip), image) for clip, image in named if image is not None))
    lengths = np.array([found.frames for found in good.values()])
    rates = np.array([found.fps for found in good.values()])
    sizes = [f"{found.size[1]}x{found.size[0]}" for found in good.values()]
    shown = {
        **_shown_counts(catalog),
        "opened": f"{len(rows)} of {len(catalog)} clips",
        "frames a clip": spread(lengths),
        "seconds a clip": spread(lengths / np.maximum(rates, 1e-9)) if good else None,
        "frame rate": spread(rates, "fps"),
        "size": common(sizes),
        "unreadable": some([f"{name} ({reason})" for name, reason in bad.items()], 3),
        "left out": some(catalog.skipped, 3),
        "sheet": sheet,
    }
    facts = {
        "type": "dataset",
        **_counts(catalog),
        "opened": len(rows),
        "frames_a_clip": _ends(lengths),
        "fps": _ends(rates),
        "sizes": dict(Counter(sizes)),
        "unreadable": bad,
        "skipped": catalog.skipped,
        "sheet": sheet,
    }
    return Result(describe(f"{path}: dataset", shown), facts)


def _probe_all(
    catalog: Catalog, rows: list[int], pictured: set[int], workers: int
) -> tuple[dict[int, Probed], dict[str, str]]:
    """The clips of these rows that could be opened, by row, and the others with their reason, by id."""
    good: dict[int, Probed] = {}
    bad: dict[str, str] = {}
    if not rows:
        return good, bad
    clips = [catalog[row] for row in rows]
    asked = [Probe(clip.path, clip.start, clip.end, row in pictured) for row, clip in zip(rows, clips)]
    with DecodePool(min(workers, len(rows))) as pool, Progress(len(rows), "looking", "clip") as progress:
        for row, clip, (_, outcome) in zip(rows, clips, pool.map(probe, asked)):
            if isinstance(outcome, Exception):
                bad[clip.id] = str(outcome)
            else:
                good[row] = outcome
            progress.update()
    return good, bad


def _counts(catalog: Catalog) -> dict[str, Any]:
    """Clips in all, a class and a split, recordings, and what is missing."""
    labelled = catalog.labels[catalog.labels >= 0]
    numbers = np.bincount(labelled, minlength=len(catalog.classes)).tolist()
    return {
        "clips": len(catalog),
        "classes": dict(zip(catalog.classes, numbers)),
        "unlabelled": len(catalog) - len(labelled),
        "splits": dict(Counter(split for split in catalog.splits if split is not None)),
        "recordings": len(set(catalog.sources)),
        "missing": list(catalog.missing),
    }


def _shown_counts(catalog: Catalog) -> dict[str, Any]:
    counts = _counts(catalog)
    classes, missing = counts["classes"], counts["missing"]
    return {
        "clips": f"{len(catalog):,} of {counts['recordings']:,} recordings",
        "splits": ", ".join(f"{name} {number:,}" for name, number in counts["splits"].items()),
        "classes": len(classes) or "none: no lists, and no folder names a class",
        "clips a class": some([f"{name} {number}" for name, number in classes.items()], MOST_CLASSES),
        "without a class": counts["unlabelled"] or None if classes else None,
        "missing": f"{len(missing)} of {catalog.listed} listed clips: {some(missing, 3)}"
        if missing
        else None,
    }


def _ends(values: NDArray[Any]) -> dict[str, float] | None:
    if len(values) == 0:
        return None
    return {
        "least": float(values.min()),
        "median": float(np.median(values)),
        "most": float(values.max()),
    }


def _spaced(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64)).tolist()


def _sheet_rows(catalog: Catalog) -> list[int]:
    """Clips for a contact sheet: equally many of every class, side by side; else spread evenly."""
    if not catalog.classes:
        return _spaced(len(catalog), MOST_ON_SHEET)
    share = max(1, MOST_ON_SHEET // len(catalog.classes))
    chosen: list[int] = []
    for label in range(len(catalog.classes)):
        rows = np.flatnonzero(catalog.labels == label)
        chosen += rows[_spaced(len(rows), share)].tolist()
    return [chosen[place] for place in _spaced(len(chosen), MOST_ON_SHEET)]


def describe(title: str, facts: dict[str, Any]) -> str:
    """A title and a line for each fact that is known."""
    known = {name: value for name, value in facts.items() if value not in (None, "", [], {}, ())}
    width = max(map(len, known), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in known.items())])


def short(value: Any) -> Any:
    """A value for one line: long lists by their ends, numbers without noise."""
    if isinstance(value, list | tuple):
        words = [short(item) for item in value]
        if len(words) > 8:
            return f"{len(words)}: {', '.join(map(str, words[:3]))}, … {words[-1]}"
        return ", ".join(map(str, words))
    if isinstance(value, dict):
        return ", ".join(f"{name} {short(item)}" for name, item in value.items())
    return f"{value:g}" if isinstance(value, float) else value


def some(items: Sequence[str], most: int) -> str:
    """Items in one line, those beyond `most` counted."""
    more = f", and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def spread(values: np.ndarray, unit: str = "") -> str:
    """Least, median and most of some numbers, or the one that they all are."""
    import numpy as np

    if len(values) == 0:
        return ""
    least, middle, most = (f"{value:.4g}" for value in (values.min(), np.median(values), values.max()))
    text = least if least == most else f"{least} to {most}, median {middle}"
    return f"{text} {unit}".strip()


def common(values: Sequence[str]) -> str:
    """The most frequent values and how often each occurs."""
    return some([f"{value} ({count})" for value, count in Counter(values).most_common()], 4)
