"""The command `tce subset`: frames to label: diverse ones, outliers and typical ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import OptionError, printable
from tce.io import Result, atomic, require_pandas, require_writable, write_csv
from tce.options.subset import SubsetOptions
from tce.progress import Progress
from tce.retrieval.indexed_frames import IndexedFrames
from tce.retrieval.search_index import open_index

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]

NEAREST = 5  # frames of other videos that an outlier is far from
REFERENCES = 20_000  # frames at most that outliers are compared with
_BLOCK = 1024

COLUMNS = ("kind", "rank", "video", "frame", "time", "value", "label", "group", "path")


@dataclass(frozen=True)
class ChosenFrame:
    """A frame of the subset.

    Attributes:
        kind: "diverse", "outlier" or "typical".
        rank: place among its kind, from 1.
        video: name in the index.
        frame: frame number.
        time: seconds.
        value: diverse: cosine distance to the nearest of those chosen before; outlier: mean distance to the
            nearest frames of other videos; typical: share of the frames that are of its cluster.
        label: the video's class, if known.
        group: the video's group, if known.
        path: the file that plays it.
    """

    kind: str
    rank: int
    video: str
    frame: int
    time: float
    value: float
    label: str | None
    group: str | None
    path: str

    def values(self) -> tuple[Any, ...]:
        """A row of `COLUMNS`."""
        return (
            *(self.kind, self.rank, self.video, self.frame, round(self.time, 3), round(self.value, 4)),
            *(self.label, self.group, self.path),
        )


@dataclass
class Subset(Result):
    """The chosen frames; also a sequence of `ChosenFrame`.

    Attributes:
        frames: diverse frames, then outliers, then typical frames.
        radius: largest cosine distance of any indexed frame to the nearest diverse one.
    """

    frames: list[ChosenFrame] = field(default_factory=list)
    radius: float = 0.0

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[ChosenFrame]:
        return iter(self.frames)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, a row a frame; needs pandas.

        Raises:
            TceError: pandas is not installed.
        """
        return require_pandas().DataFrame([one.values() for one in self.frames], columns=list(COLUMNS))


def subset(options: SubsetOptions) -> Subset:
    """Choose frames to label out of an index, and write what the options ask for.

    Raises:
        TceError: no index, or one with fewer frames than are to be chosen.
    """
    from tce.visualize.contact_sheet import check_suffix

    for flag, path in (("--csv", options.csv), ("--sheet", options.sheet)):
        if path is not None:
            require_writable(path, flag)
    if options.sheet is not None:
        check_suffix(options.sheet)
    frames = open_index(options.db, options.ckpt).frames
    _require_enough(frames, options)
    vectors = frames.all_vectors()
    rows, distances, radius = farthest_points(vectors, frames.code, options.size, options.per_video)
    chosen = [("diverse", row, value) for row, value in zip(rows.tolist(), distances.tolist(), strict=True)]
    if options.outliers and len(np.unique(frames.code)) > 1:
        rows, values = outliers(vectors, frames.code, options.outliers)
        chosen += [("outlier", row, value) for row, value in zip(rows.tolist(), values.tolist(), strict=True)]
    if options.typical:
        rows, values = typical_frames(vectors, options.typical, options.seed)
        chosen += [("typical", row, value) for row, value in zip(rows.tolist(), values.tolist(), strict=True)]
    result = _result(options, frames, chosen, radius)
    _write(options, frames, chosen, result)
    return result


def _require_enough(frames: IndexedFrames, options: SubsetOptions) -> None:
    counts = np.bincount(frames.code)
    most = int(np.minimum(counts, options.per_video).sum() if options.per_video else counts.sum())
    if options.size > most:
        limit = f" with --per-video {options.per_video}" if options.per_video else ""
        raise OptionError(
            "--size", f"at most {most:,}, the frames to choose from{limit}", f"{options.size:,}"
        )


def farthest_points(
    vectors: Vectors, videos: Ints, size: int, per_video: int | None = None
) -> tuple[Ints, NDArray[np.float64], float]:
    """Greedy k-center: first the frame nearest to the mean, then always the one farthest from those chosen.

    Its radius is at most twice the smallest possible one (Gonzalez 1985), where no video's limit binds.

    Args:
        vectors: unit float32 [N, D].
        videos: int64 [N], each frame's video.
        size: frames to choose, no more than the limits allow.
        per_video: most frames of one video; None for any number.

    Returns:
        rows int64 [size]; the cosine distance of each to the nearest one before it, float64 [size], the first
        one's being 0; the largest distance of any frame to the nearest chosen one.
    """
    nearest = np.full(len(vectors), np.inf)  # distance to the nearest one chosen
    free = np.ones(len(vectors), bool)
    taken: dict[int, int] = {}
    rows: list[int] = []
    distances: list[float] = []
    with Progress(size, "choosing", "frame") as progress:
        for _ in range(size):
            if rows:
                row = int(np.argmax(np.where(free, nearest, -np.inf)))
                distances.append(max(0.0, float(nearest[row])))
            else:
                row = int(np.argmax(vectors @ vectors.mean(axis=0)))
                distances.append(0.0)
            rows.append(row)
            free[row] = False
            video = int(videos[row])
            taken[video] = taken.get(video, 0) + 1
            if per_video is not None and taken[video] >= per_video:
                free[videos == video] = False
            np.minimum(nearest, 1 - vectors @ vectors[row], out=nearest)
            progress.update(1)
    return np.array(rows, np.int64), np.array(distances), max(0.0, float(nearest.max()))


def outliers(vectors: Vectors, videos: Ints, count: int) -> tuple[Ints, NDArray[np.float64]]:
    """The frames farthest from their nearest ones in other videos, one of each video at first.

    Args:
        vectors: unit float32 [N, D].
        videos: int64 [N], of two videos at least.
        count: how many.

    Returns:
        rows int64 [count], and their mean cosine distance to `NEAREST` frames of other videos.
    """
    references = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), REFERENCES)).astype(np.int64))
    distance = np.empty(len(vectors))
    for first in range(0, len(vectors), _BLOCK):
        part = slice(first, first + _BLOCK)
        similarity = vectors[part] @ vectors[references].T
        similarity[videos[part][:, None] == videos[references]] = -1.0
        kept = min(NEAREST, similarity.shape[1])
        distance[part] = 1 - np.partition(similarity, -kept, axis=1)[:, -kept:].mean(axis=1)
    order = np.argsort(-distance, kind="stable")
    _, first_of_video = np.unique(videos[order], return_index=True)
    is_first = np.zeros(len(order), bool)
    is_first[first_of_video] = True
    rows = np.concatenate([order[is_first], order[~is_first]])[:count]
    return rows.astype(np.int64), distance[rows]


def typical_frames(vectors: Vectors, count: int, seed: int) -> tuple[Ints, NDArray[np.float64]]:
    """The frame in the middle of each of some clusters (k-means), that of the largest cluster first.

    Args:
        vectors: unit float32 [N, D].
        count: clusters; fewer where fewer frames differ.
        seed: of k-means.

    Returns:
        rows int64 [at most count], and the share of all frames in each one's cluster.
    """
    from sklearn.cluster import MiniBatchKMeans

    different = len(np.unique(vectors[:: max(1, len(vectors) // 5000)], axis=0))
    means = MiniBatchKMeans(min(count, different), random_state=seed, n_init=3, batch_size=4096).fit(vectors)
    middle = np.einsum("nd,nd->n", vectors, means.cluster_centers_[means.labels_])
    sizes = np.bincount(means.labels_, minlength=means.n_clusters)
    order = [one for one in np.argsort(-sizes, kind="stable").tolist() if sizes[one]]
    rows = [int(np.argmax(np.where(means.labels_ == one, middle, -np.inf))) for one in order]
    return np.array(rows, np.int64), sizes[order] / len(vectors)


def _result(
    options: SubsetOptions, frames: IndexedFrames, chosen: list[tuple[str, int, float]], radius: float
) -> Subset:
    found: list[ChosenFrame] = []
    ranks: dict[str, int] = {}
    for kind, row, value in chosen:
        ranks[kind] = ranks.get(kind, 0) + 1
        record = frames.videos[frames.names[frames.code[row]]]
        found.append(
            ChosenFrame(
                kind,
                ranks[kind],
                record.video,
                int(frames.frame[row]),
                float(frames.time[row]),
                value,
                record.label,
                record.group,
                record.path,
            )
        )
    used = len({one.video for one in found if one.kind == "diverse"})
    text = (
        f"{options.size:,} diverse frames of {used:,} of {len(frames.videos):,} videos: every one of "
        f"{len(frames):,} frames is within cosine distance {radius:.3f} of one of them"
    )
    for kind, title in (("outlier", "outliers"), ("typical", "typical frames")):
        those = [one for one in found if one.kind == kind]
        if those:
            text += f"\n{len(those)} {title}, the first: {printable(those[0].video)} at {those[0].time:.2f} s"
    figures = {
        "frames": [dict(zip(COLUMNS, one.values(), strict=True)) for one in found],
        "radius": radius,
        "indexed_frames": len(frames),
        "videos": used,
    }
    return Subset(text, figures, frames=found, radius=radius)


def _write(
    options: SubsetOptions, frames: IndexedFrames, chosen: list[tuple[str, int, float]], result: Subset
) -> None:
    if options.csv is not None:
        with atomic(options.csv, "w") as file:
            write_csv(file, [COLUMNS, *(one.values() for one in result.frames)])
    if options.sheet is not None:
        from tce.video.image import decode
        from tce.visualize.contact_sheet import save_sheet

        pictures = frames.thumbnails(np.array([row for _, row, _ in chosen], np.int64))
        cells = []
        for one, picture in zip(result.frames, pictures, strict=True):
            name = os.path.basename(one.video)
            cells.append((f"{one.kind} {one.rank}\n{name}, {one.time:.2f} s", decode(picture, name)))
        save_sheet(options.sheet, cells)
    written = [path for path in (options.csv, options.sheet) if path is not None]
    if written:
        result.text += f"\nwritten: {', '.join(written)}"
        result.figures["written"] = written
