"""How found segments compare with labels: agreement of frames, matching of segments, and three baselines."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError, printable

Ints = NDArray[np.int64]

OVERLAPS = (0.10, 0.25, 0.50)
SHUFFLES = 20  # of the chance baseline
_COLUMNS = {
    "path": ("path", "video", "file", "filename", "recording"),
    "start": ("start", "start_s", "begin", "onset"),
    "end": ("end", "end_s", "stop", "offset"),
    "label": ("label", "class", "behaviour", "behavior", "action"),
}


@dataclass(frozen=True)
class LabelSpan:
    """A labelled stretch.

    Attributes:
        start: seconds.
        end: seconds.
        label: its name.
    """

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Agreement:
    """How a segmentation agrees with labels, 0 to 1 (the index can be below 0).

    Attributes:
        adjusted_rand: adjusted Rand index of frames (Hubert and Arabie, 1985).
        mutual_information: normalised mutual information of frames.
        accuracy: share of frames whose cluster is matched with their label, one to one, by the Hungarian
            method.
        f1: segment F1 at each of `OVERLAPS` (Lea et al., 2017), with the same matching.
    """

    adjusted_rand: float
    mutual_information: float
    accuracy: float
    f1: tuple[float, ...]

    def figures(self) -> dict[str, float]:
        """By name."""
        named = {f"f1@{round(100 * share)}": value for share, value in zip(OVERLAPS, self.f1, strict=True)}
        return {key: value for key, value in asdict(self).items() if key != "f1"} | named


def read_label_spans(path: str) -> dict[str, list[LabelSpan]]:
    """The labelled stretches by the video's name as the table has it, "" where it has no such column.

    Raises:
        TceError: the table cannot be read, lacks a column, or a stretch ends before it starts.
    """
    from tce.data.tables import open_table

    table = open_table(Path(path), _COLUMNS | {"path": (*_COLUMNS["path"], *_COLUMNS["start"])})
    columns = table.columns(_COLUMNS)
    missing = [name for name in ("start", "end", "label") if name not in columns]
    if missing:
        raise TceError(
            f"--labels {path}",
            "columns start, end and label, and video where there are several",
            f"no {' or '.join(missing)}; columns {', '.join(table.header) or 'without names'}",
        )
    found: dict[str, list[LabelSpan]] = defaultdict(list)
    for row, cells in table.rows():
        start, end = (table.seconds(cells[columns[name]], row) for name in ("start", "end"))
        label = cells[columns["label"]]
        if not start < end:
            raise TceError(table.where(row), "a start before its end", f"{start:g} to {end:g}")
        if label is not None:
            video = cells[columns["path"]] if "path" in columns else None
            found[video or ""].append(LabelSpan(start, end, label))
    if not found:
        raise TceError(f"--labels {path}", "labelled stretches", "none")
    return dict(found)


def label_frames(
    spans: dict[str, list[LabelSpan]], videos: Sequence[str], times: Sequence[NDArray[np.float64]], path: str
) -> tuple[list[Ints], list[str]]:
    """Each frame's label as a number, -1 where it has none.

    Args:
        spans: of `read_label_spans`.
        videos: paths or names; a table may name them by path, file name or file name without suffix.
        times: seconds of each video's frames.
        path: of the table, for messages.

    Returns:
        a row of numbers for each video, and the labels' names.

    Raises:
        TceError: no labelled stretch lies in these videos.
    """
    names = sorted({span.label for those in spans.values() for span in those})
    number = {name: place for place, name in enumerate(names)}
    found = []
    for video, time in zip(videos, times, strict=True):
        own = np.full(len(time), -1, np.int64)
        for span in _spans_of(spans, video, len(videos) == 1):
            own[(time >= span.start - 1e-9) & (time < span.end - 1e-9)] = number[span.label]
        found.append(own)
    if not any((own >= 0).any() for own in found):
        raise TceError(
            f"--labels {path}",
            f"labels of videos as {printable(os.path.basename(videos[0]))}",
            f"labels of {printable(next(iter(spans)) or 'other times')}",
        )
    return found, names


def _spans_of(spans: dict[str, list[LabelSpan]], video: str, alone: bool) -> list[LabelSpan]:
    if alone and set(spans) == {""}:
        return spans[""]
    base = os.path.basename(video)
    keys = (video, os.path.abspath(video), base, os.path.splitext(base)[0])
    direct = next((spans[key] for key in keys if key in spans), None)
    if direct is not None:
        return direct
    ends = [
        key
        for key in spans
        if key and (video.endswith("/" + key) or os.path.splitext(video)[0].endswith("/" + key))
    ]
    return spans[ends[0]] if len(ends) == 1 else []


def agreement(truth: Sequence[Ints], found: Sequence[Ints]) -> Agreement:
    """Agreement over all labelled frames of all videos.

    Args:
        truth: for each video the labels of its frames, -1 for none.
        found: for each video the clusters of its frames.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    all_truth, all_found = np.concatenate(list(truth)), np.concatenate(list(found))
    known = all_truth >= 0
    all_truth, all_found = all_truth[known], all_found[known]
    matched = match_clusters(all_truth, all_found)
    mapped = [np.array([matched.get(one, -2) for one in row.tolist()], np.int64) for row in found]
    return Agreement(
        float(adjusted_rand_score(all_truth, all_found)),
        float(normalized_mutual_info_score(all_truth, all_found)),
        float((np.concatenate(mapped)[known] == all_truth).mean()),
        tuple(segment_f1(truth, mapped, share) for share in OVERLAPS),
    )


def match_clusters(truth: Ints, found: Ints) -> dict[int, int]:
    """One label for each cluster, so that most frames agree; clusters left over have none."""
    from scipy.optimize import linear_sum_assignment

    clusters, at = np.unique(found, return_inverse=True)
    table = np.zeros((len(clusters), int(truth.max()) + 1), np.int64)
    np.add.at(table, (at, truth), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return {int(clusters[row]): int(column) for row, column in zip(rows, columns)}


def segment_f1(truth: Sequence[Ints], found: Sequence[Ints], share: float) -> float:
    """Segment F1: a found segment is right if it overlaps an unmatched true one of its label by `share`.

    Args:
        truth: for each video the labels of its frames, -1 for none: such frames do not count.
        found: for each video the labels that were found.
        share: intersection over union at least.
    """
    right = wrong = total = 0
    for true_row, found_row in zip(truth, found, strict=True):
        known = true_row >= 0
        true_runs = _runs(np.where(known, true_row, -1))
        found_runs = _runs(np.where(known, found_row, -1))
        total += len(true_runs)
        taken: set[int] = set()
        for first, stop, label in found_runs:
            overlaps = [
                (min(stop, end) - max(first, start)) / (max(stop, end) - min(first, start))
                if name == label
                else 0.0
                for start, end, name in true_runs
            ]
            best = int(np.argmax(overlaps)) if overlaps else -1
            if best >= 0 and overlaps[best] >= share and best not in taken:
                taken.add(best)
                right += 1
            else:
                wrong += 1
    return 2 * right / max(1, right + wrong + total)


def _runs(row: Ints) -> list[tuple[int, int, int]]:
    """First, stop and value of the runs of equal values, without those of -1."""
    edges = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
    runs = [(first, stop, int(row[first])) for first, stop in itertools.pairwise(edges) if stop > first]
    return [run for run in runs if run[2] != -1]


def baselines(
    truth: Sequence[Ints], found: Sequence[Ints], clusters: int, raw: Sequence[NDArray[Any]] | None, seed: int
) -> dict[str, Agreement]:
    """The same figures for what knows less.

    Args:
        truth: for each video the labels of its frames.
        found: for each video the clusters that were found.
        clusters: how many there are.
        raw: for each video the frozen network's features [n, F]; None leaves that baseline out.
        seed: of the shifts and of k-means.

    Returns:
        "chance": the found segments shifted in time, mean of `SHUFFLES` draws; "uniform": every video cut
        into as many equal pieces as segments were found, clusters in turn; "k-means on frozen features":
        single frames, neither windows nor smoothing, the same number of clusters.
    """
    rng = np.random.default_rng(seed)
    draws = [
        agreement(truth, [np.roll(row, int(rng.integers(len(row)))) for row in found])
        for _ in range(SHUFFLES)
    ]
    chance = Agreement(
        adjusted_rand=float(np.mean([one.adjusted_rand for one in draws])),
        mutual_information=float(np.mean([one.mutual_information for one in draws])),
        accuracy=float(np.mean([one.accuracy for one in draws])),
        f1=tuple(np.mean([one.f1 for one in draws], axis=0).tolist()),
    )
    uniform = []
    for row in found:
        pieces = len(_runs(row))
        uniform.append(np.minimum(np.arange(len(row)) * pieces // len(row), pieces - 1) % clusters)
    result = {"chance": chance, "uniform": agreement(truth, uniform)}
    if raw is not None:
        result["k-means on frozen features"] = agreement(truth, _raw_clusters(raw, clusters, seed))
    return result


def _raw_clusters(raw: Sequence[NDArray[Any]], clusters: int, seed: int) -> list[Ints]:
    from sklearn.cluster import KMeans, MiniBatchKMeans

    rows = np.concatenate(list(raw)).astype(np.float32)
    kind = KMeans if len(rows) <= 20_000 else MiniBatchKMeans
    labels = kind(min(clusters, len(rows)), n_init=4, random_state=seed % 2**32).fit_predict(rows)
    return np.split(labels.astype(np.int64), np.cumsum([len(one) for one in raw])[:-1])
