"""What discovery fits, kept in a folder: directions of windows, clusters, and the user's names for them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.discovery.clusters import Clusters, split_cluster
from tce.discovery.recordings import RecordedFrames, Recording, spans_of
from tce.discovery.segmentation import Segment, best_path, change_price, frame_scores, segments_of
from tce.discovery.windows import WindowSpace, half_width
from tce.errors import TceError
from tce.io import atomic, write_csv, write_json

MODEL, ARRAYS, WINDOWS, NAMES = "model.json", "model.npz", "windows.npz", "names.csv"
FORMAT = 1
MOST_PARTS = 26  # of a split cluster: they are lettered

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Behaviour:
    """One or several clusters under one name.

    Attributes:
        name: the user's, or "cluster 1".
        clusters: their numbers.
        key: their ids, such as "1" or "2+5".
    """

    name: str
    clusters: tuple[int, ...]
    key: str


@dataclass(frozen=True)
class BehaviourModel:
    """From windows to named segments, without fitting.

    Attributes:
        space: describes windows.
        clusters: of windows.
        names: the user's name of each cluster by id; "" where none was given.
        shortest: seconds that a segment lasts at least.
        bout: seconds that a bout lasts on average.
        fps: frames a second that footage is embedded at.
        network: how its frames were embedded.
        fit: how the clusters were chosen: method, criterion and the like.
    """

    space: WindowSpace
    clusters: Clusters
    names: dict[str, str]
    shortest: float
    bout: float
    fps: float
    network: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)

    @property
    def behaviours(self) -> list[Behaviour]:
        """Clusters with equal names as one, in the order of their first cluster."""
        groups: dict[str, list[int]] = {}
        for number, cluster in enumerate(self.clusters.ids):
            groups.setdefault(self.names.get(cluster) or f"cluster {cluster}", []).append(number)
        return [
            Behaviour(name, tuple(members), "+".join(self.clusters.ids[one] for one in members))
            for name, members in groups.items()
        ]

    def segments(self, windows: Vectors, frames: RecordedFrames) -> tuple[list[list[Segment]], Vectors]:
        """The segments of each recording, their clusters being numbers of `behaviours`.

        Returns:
            the segments, and each window's probabilities of the behaviours, float32 [N, B].
        """
        single = self.clusters.probabilities(windows)
        behaviours = self.behaviours
        owner = np.empty(len(self.clusters), np.int64)
        for number, behaviour in enumerate(behaviours):
            owner[list(behaviour.clusters)] = number
        joined = np.stack([single[:, list(one.clusters)].sum(axis=1) for one in behaviours], axis=1)
        found = []
        for rows, rate in zip(frames.spans, frames.rates):
            overlap = 2 * half_width(self.space.seconds, rate) + 1
            path = best_path(
                frame_scores(single[rows], overlap),
                change_price(self.bout * rate, len(self.clusters)),
                max(1, round(self.shortest * rate)),
            )
            found.append(segments_of(owner[path], joined[rows]))
        return found, joined

    def without_unused(self, windows: Vectors, frames: RecordedFrames) -> BehaviourModel:
        """The model without clusters that are in no segment, the others numbered anew by their time."""
        model = self
        while True:
            time = np.zeros(len(model.clusters))
            for own, rate in zip(model.segments(windows, frames)[0], frames.rates):
                for segment in own:
                    time[segment.cluster] += (segment.stop - segment.first) / rate
            order = [one for one in np.argsort(-time, kind="stable").tolist() if time[one] > 0]
            if len(order) == len(model.clusters):
                return replace(model, clusters=model.clusters.select(order))
            model = replace(model, clusters=model.clusters.select(order))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write model.npz, model.json and names.csv."""
        place = Path(folder)
        arrays = {f"space_{name}": value for name, value in self.space.arrays().items()}
        arrays |= {f"clusters_{name}": value for name, value in self.clusters.arrays().items()}
        with atomic(place / ARRAYS) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        described = {
            "format": FORMAT,
            "clusters": self.clusters.ids,
            "names": self.names,
            "window": self.space.seconds,
            "shortest": self.shortest,
            "bout": self.bout,
            "fps": self.fps,
            "network": self.network,
            "fit": self.fit,
        }
        write_json(place / MODEL, described)
        with atomic(place / NAMES, "w") as file:
            rows = [(cluster, self.names.get(cluster, ""), "") for cluster in self.clusters.ids]
            write_csv(file, [("cluster", "name", "split"), *rows])


def is_discovery(place: str | os.PathLike[str]) -> bool:
    """Whether a folder was written by `tce discover`."""
    return (Path(place) / MODEL).is_file() and (Path(place) / ARRAYS).is_file()


def load_model(folder: str) -> BehaviourModel:
    """The model of a folder, with the names, merges and splits that its names.csv asks for now.

    Raises:
        TceError: no such folder, a damaged one, or a names.csv that does not fit.
    """
    from tce.embedding.embedding_file import read_arrays

    place = Path(folder)
    if not is_discovery(place):
        raise TceError(
            folder,
            "a folder that tce discover wrote",
            "nothing there" if not place.exists() else "another one",
            "make one: tce discover FOOTAGE --ckpt lite2 --out DISCOVERY",
        )
    try:
        described = json.loads((place / MODEL).read_text(encoding="utf-8"))
        arrays = read_arrays(place / ARRAYS)
        space = WindowSpace.of(_part(arrays, "space_"))
        clusters = Clusters.of(_part(arrays, "clusters_"))
        model = BehaviourModel(
            space,
            clusters,
            {str(key): str(value) for key, value in described["names"].items()},
            shortest=float(described["shortest"]),
            bout=float(described["bout"]),
            fps=float(described["fps"]),
            network=described["network"],
            fit=described["fit"],
        )
        if len(clusters) != len(clusters.means) or space.window_basis.shape[1] != clusters.means.shape[1]:
            raise ValueError("arrays of other sizes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TceError(
            folder, "a discovery that can be read", f"a damaged one ({error})", "make it again"
        ) from error
    return _renamed(model, place)


def _part(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _renamed(model: BehaviourModel, place: Path) -> BehaviourModel:
    """The model after names.csv, whose absence changes nothing."""
    from tce.data.tables import open_table

    path = place / NAMES
    if not path.is_file():
        return model
    wanted = {"path": ("cluster",), "name": ("name", "behaviour", "label"), "split": ("split",)}
    table = open_table(path, wanted)
    columns = table.columns(wanted)
    if "path" not in columns or "name" not in columns:
        raise TceError(
            str(path),
            "columns cluster, name and split",
            f"columns {', '.join(table.header)}",
            "restore the first line",
        )
    names, splits = dict(model.names), {}
    for row, cells in table.rows():
        cluster, name = cells[columns["path"]] or "", cells[columns["name"]]
        if cluster not in model.clusters.ids:
            raise TceError(
                table.where(row), f"one of the clusters {', '.join(model.clusters.ids)}", repr(cluster)
            )
        names[cluster] = re.sub(r"\s+", " ", name or "").strip()
        cell = cells[columns["split"]] if "split" in columns else None
        if cell:
            splits[cluster] = _parts(cell, table.where(row))
    for cluster, parts in splits.items():
        windows = load_windows(str(place))[0]
        nearest = model.clusters.log_likelihoods(windows).argmax(axis=1)
        own = windows[nearest == model.clusters.ids.index(cluster)]
        model = replace(model, clusters=split_cluster(model.clusters, cluster, parts, own))
        base = names.pop(cluster)
        names |= {
            f"{cluster}{chr(ord('a') + part)}": f"{base} {chr(ord('a') + part)}" if base else ""
            for part in range(parts)
        }
    return replace(model, names={cluster: names.get(cluster, "") for cluster in model.clusters.ids})


def _parts(text: str, where: str) -> int:
    if not re.fullmatch(r"\d{1,2}", text) or not 2 <= int(text) <= MOST_PARTS:
        raise TceError(where, f"in the column split nothing, or 2 to {MOST_PARTS}", repr(text))
    return int(text)


def save_windows(folder: str, windows: Vectors, frames: RecordedFrames) -> None:
    """Write windows.npz: what is needed to draw everything again, without the embeddings."""
    described = [
        (one.name, one.path, repr(one.offset), one.group or "", one.store, one.clip)
        for one in frames.recordings
    ]
    arrays: dict[str, Any] = {
        "windows": windows,
        "frame": frames.frame,
        "time": frames.time,
        "counts": np.array([rows.stop - rows.start for rows in frames.spans]),
        "recordings": np.array(described, str),
    }
    with atomic(Path(folder) / WINDOWS) as file:
        np.savez(file, **arrays)


def load_windows(folder: str) -> tuple[Vectors, RecordedFrames]:
    """The windows that were kept, and their recordings.

    Raises:
        TceError: missing or damaged.
    """
    from tce.embedding.embedding_file import read_arrays

    arrays = read_arrays(Path(folder) / WINDOWS)
    try:
        windows = np.asarray(arrays["windows"], np.float32)
        spans = spans_of(arrays["counts"].tolist())
        recordings = [
            Recording(name, path, float(offset), group or None, store, clip)
            for name, path, offset, group, store, clip in arrays["recordings"].tolist()
        ]
        frames = RecordedFrames(
            recordings, spans, arrays["frame"], arrays["time"], np.zeros((len(windows), 0))
        )
        if not (spans[-1].stop == len(windows) == len(frames.frame) == len(frames.time)):
            raise ValueError("arrays of different lengths")
    except (KeyError, ValueError, IndexError) as error:
        raise TceError(
            f"{folder}/{WINDOWS}", "the windows of a discovery", str(error), "make it again"
        ) from error
    return windows, frames
