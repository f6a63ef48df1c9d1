"""What adapting a frozen network brings: starts x methods x splits, without training; for docs/results.md.

Usage: python benchmarks/science.py --data DATA --out OUT [--quick]
  DATA   the folder that holds gestures/ and fights/, each with videos/ and lists/
  --quick   one start and few frames: minutes, to see that it works; its figures are no result

Features of each frozen network are computed once and kept in OUT/features, fitted maps in OUT/maps, and every
cell of the tables is a file in OUT/cells: an interrupted run resumes, and a finished one only prints.

Nothing is chosen on what is reported: settings may be chosen on the letters A-L of the gestures, of which
tables show the accuracy apart; letters M-Y and the fights have no say.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from feature_methods import CENTRED, FROZEN, METHODS, PEERS, UNCENTRED, Fitted, Footage, Method
from frozen_features import UNTRAINED, ClipFeatures, View, cached_features

from tce.data.open_data import open_store
from tce.data.splits import SplitClips, open_split, subtract_group_means
from tce.evaluation.coherence import Tracks, across_distance, neighbour_distance
from tce.evaluation.frozen_network import FrozenNetwork, freeze
from tce.evaluation.metrics import mean_interval, top_k
from tce.evaluation.probes import unit_rows
from tce.evaluation.protocols import Evaluator
from tce.io import atomic
from tce.options.evaluate import EvaluateOptions

K = 10
SHOTS = (1, 2, 5)
DRAWS = 20
VIEWS = (View("lite2", 112, 8), View("lite0", 112, 8), View(UNTRAINED, 112, 8), View("lite2", 192, 3))
QUICK_VIEWS = (View("lite2", 112, 3),)
FRAMES_PER_SECOND = {("lite2", 112): 150, ("lite0", 112): 250, (UNTRAINED, 112): 70, ("lite2", 192): 60}
SECONDS_PER_VIEW = 150  # of fits and cells, on an idle core
SHORT_SIDE = {"gestures": 144, "fights": 240}
LETTERS = {"A-L": "[A-L]", "M-Y": "[M-Y]", "all": "."}
MEASURES = ("knn", "retrieval", "centroid", "linear", "coherence")
MEASURED = {  # on which letters
    "A-L": ("knn",),
    "M-Y": ("knn", "retrieval", "centroid"),
    "all": MEASURES,
}


@dataclass(frozen=True)
class Task:
    """Training and test clips.

    Attributes:
        data: "gestures" or "fights".
        split: of its lists.
        letters: which classes, a key of `LETTERS`.
    """

    data: str
    split: str
    letters: str = "all"

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.data}-{self.split}-{self.letters}"


GESTURES = tuple(Task("gestures", split, letters) for letters in LETTERS for split in ("01", "02"))
FIGHTS = (Task("fights", "01"),)


@dataclass
class CachedEvaluator(Evaluator):
    """An evaluator whose features are at hand.

    Attributes:
        vectors: [clips of the store, D], each clip's mean.
    """

    vectors: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def features(
        self, clips: SplitClips, rows: npt.NDArray[np.int64], layer: str, count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """As `Evaluator.features`."""
        return rows, self.vectors[rows]


@dataclass
class Study:
    """Everything that one view gives on one dataset.

    Attributes:
        view: the frozen network and its frames.
        data: the dataset's name.
        source: the folder that holds `videos` and `lists`.
        out: where everything is kept.
    """

    view: View
    data: str
    source: Path
    out: Path
    _maps: dict[str, Fitted] = field(default_factory=dict)
    _clips: dict[str, SplitClips] = field(default_factory=dict)

    @cached_property
    def collection(self) -> Path:
        """The packed videos."""
        packed = self.out / self.data
        if not (packed / "options.json").exists():
            tce("pack", self.source / "videos", "--out", packed, "--short-side", SHORT_SIDE[self.data])
        return packed

    @cached_property
    def features(self) -> ClipFeatures:
        """Of all clips."""
        name = re.sub(r"\W+", "-", f"{self.data} {self.view.name}")
        return cached_features(self.view, open_store(self.collection), self.out / "features" / f"{name}.npz")

    @cached_property
    def network(self) -> FrozenNetwork:
        """The start."""
        return freeze(self.view.encoder(), self.view.name, "cpu", {})

    def clips(self, task: Task) -> SplitClips:
        """The task's clips; rows are those of `features`."""
        if task.name not in self._clips:
            self._clips[task.name] = self._open(task)
        return self._clips[task.name]

    def _open(self, task: Task) -> SplitClips:
        found = open_split(
            str(self.collection), self.out, str(self.source / "lists"), task.split, max_missing=0.0
        )
        assert tuple(found.store.catalog.ids) == self.features.ids
        names = np.array(found.classes)
        wanted = [bool(re.match(LETTERS[task.letters], name.removeprefix("Letter"))) for name in names]
        kept = np.array(wanted)[found.labels]
        return SplitClips(
            found.store, found.split, found.train[kept[found.train]], found.test[kept[found.test]], []
        )

    def fitted(self, method: Method, task: Task) -> Fitted:
        """The method's map; letters play no part, as a user's footage does not come sorted by class."""
        if method.fit is None:
            return Fitted()
        clips = self.clips(Task(task.data, task.split))
        rows = clips.train if method.on == "train" else np.union1d(clips.train, clips.test)
        groups = clips.groups[rows].tolist()
        centred = method.centred and len(set(groups)) > 1
        footage_name = f"train {task.split}" if method.on == "train" else "all"
        name = f"{self.data} {self.view.name} {method.fit.__name__} {footage_name}{' centred' * centred}"
        if name not in self._maps:
            path = self.out / "maps" / f"{re.sub(r'[^a-z0-9]+', '-', name)}.npz"
            if not path.exists():
                footage = Footage(
                    [self.features.ids[row] for row in rows],
                    clips.recordings[rows].tolist(),
                    groups,
                    [self.features.pieces[row] for row in rows],
                )
                method.fit(footage, centred).save(path)
            self._maps[name] = Fitted.load(path)
        return self._maps[name]

    def cell(self, method: Method, task: Task, wanted: Sequence[str]) -> dict[str, Any]:
        """The measures of a method on a task, out of its file as far as they are there."""
        name = re.sub(r"\W+", "-", f"{self.view.name} {method.name} {task.name}")
        path = self.out / "cells" / f"{name}.json"
        cell: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"measures": {}}
        missing = [
            measure
            for measure in wanted
            if measure not in cell["measures"] and measure in MEASURED[task.letters]
        ]
        if missing:
            clips, found = self.clips(task), self.fitted(method, task)
            cell |= {
                "view": self.view.name,
                "method": method.name,
                "task": task.name,
                "seconds": {"features": self.features.seconds, "fit": found.seconds},
                "engine": self.features.engine,
                "fit": found.notes,
                "recordings": clips.recordings[clips.test].tolist(),
            }
            cell["measures"] |= measure(self.features, self.network, method, found, clips, missing)
            with atomic(path, "w") as file:
                json.dump(cell, file)
        return cell


def embeddings(
    features: ClipFeatures, method: Method, found: Fitted
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.floating]]:
    """Each clip's mean as `tce evaluate` makes it, [clips, D], and all frames' vectors before that.

    Without --center frames count by their unit vectors; with it by what the head gives, as means are to be
    subtracted.
    """
    counts = [len(piece.time) for piece in features.pieces]
    raw = np.asarray(found.embed(np.concatenate([piece.features for piece in features.pieces])), np.float32)
    frames = raw if method.centred else unit_rows(raw)
    first = np.cumsum([0, *counts[:-1]])
    means = np.add.reduceat(frames, first, axis=0) / np.array(counts)[:, None]
    return means.astype(np.float32), raw


def measure(
    features: ClipFeatures,
    network: FrozenNetwork,
    method: Method,
    found: Fitted,
    clips: SplitClips,
    wanted: Sequence[str],
) -> dict[str, dict[str, list[float]]]:
    """Measures by name: metric -> a value for each test clip, whose mean is the metric."""
    options = EvaluateOptions(
        ckpt=network.name, data="", k=K, center="group" if method.centred else None, layer="features"
    )
    vectors, raw = embeddings(features, method, found)
    evaluator = CachedEvaluator(network, options, vectors=vectors)
    values: dict[str, dict[str, list[float]]] = {}
    for name in wanted:
        if name == "centroid":
            by_metric = nearest_centroid(evaluator, clips)
        elif name == "coherence":
            by_metric = coherence(features, raw, method, clips)
        else:
            by_metric = dict(evaluator(clips, name).values)
        values[name] = {metric: np.asarray(value).tolist() for metric, value in by_metric.items()}
    return values


def nearest_centroid(evaluator: Evaluator, clips: SplitClips) -> dict[str, npt.NDArray[np.floating]]:
    """For 1, 2 and 5 labelled clips a class, the share of the draws that name each test clip's class."""
    from tce.evaluation.fewshot import centroid_scores, draw_order

    both = evaluator.train_test(clips)
    rows, queries = unit_rows(both.train_features), unit_rows(both.test_features)
    labels, own, classes = clips.labels[both.train], clips.labels[both.test], len(clips.classes)
    order = [draw_order(labels, 0, draw) for draw in range(DRAWS)]
    found = {}
    for shot in SHOTS:
        chosen = [np.flatnonzero(rank < shot) for rank in order]
        hits = [top_k(centroid_scores(queries, rows[few], labels[few], classes), own, 1) for few in chosen]
        found[f"centroid@{shot}"] = np.mean(hits, axis=0)
    return found


def coherence(
    features: ClipFeatures, raw: npt.NDArray[np.floating], method: Method, clips: SplitClips
) -> dict[str, npt.NDArray[np.floating]]:
    """For each test clip 1 - distance of neighbouring frames / distance to other recordings' frames."""
    counts = np.array([len(piece.time) for piece in features.pieces])
    clip = np.repeat(np.arange(len(counts)), counts)
    seen = np.isin(clip, np.union1d(clips.train, clips.test))
    rows, clip = raw[seen], clip[seen]
    if method.centred:
        rows = subtract_group_means(rows, clips.groups[clip].tolist())
    unit = unit_rows(rows.astype(np.float32))
    vectors, number = [], []
    for place, test in enumerate(clips.test):
        own = unit[clip == test]
        vectors += [own[start : start + 3] for start in range(len(own) - 2)]
        number += [place] * (len(own) - 2)
    phase = np.zeros(len(number))
    tracks = Tracks(np.stack(vectors), np.array(number), phase)
    across = across_distance(tracks, clips.recordings[clips.test])
    return {"smoothness": 1 - neighbour_distance(tracks) / across}


def tce(*arguments: object) -> None:
    """Run a command of tce on one thread."""
    command = [sys.executable, "-m", "tce", *map(str, arguments)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def interval(values: Sequence[Sequence[float]], recordings: Sequence[Sequence[str]]) -> str:
    """Mean over splits in percent with its 95% interval over recordings."""
    mean = 100 * float(np.mean([np.mean(split) for split in values]))
    found = mean_interval(values, recordings)
    return f"{mean:.1f}" if found is None else f"{mean:.1f} ({100 * found[0]:.1f} to {100 * found[1]:.1f})"


def column(cells: Sequence[dict[str, Any]], name: str, metric: str) -> str:
    """A metric's mean over the cells' splits, with its interval; empty where it was not measured."""
    if not all(name in cell["measures"] for cell in cells):
        return ""
    return interval(
        [cell["measures"][name][metric] for cell in cells], [cell["recordings"] for cell in cells]
    )


def gain(cells: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]], name: str, metric: str) -> str:
    """Paired difference to other cells of the same clips, with its interval."""
    values = [
        np.subtract(cell["measures"][name][metric], other["measures"][name][metric]).tolist()
        for cell, other in zip(cells, before, strict=True)
    ]
    return interval(values, [cell["recordings"] for cell in cells])


def mean_only(cells: Sequence[dict[str, Any]], name: str, metric: str) -> str:
    """A metric in percent, each split apart."""
    if not all(name in cell["measures"] for cell in cells):
        return ""
    return " / ".join(f"{100 * np.mean(cell['measures'][name][metric]):.1f}" for cell in cells)


def held_out(cells: Sequence[dict[str, Any]]) -> str:
    """Held-out share of start and adapted, without labels, each fit apart where they differ."""
    found = [
        f"{100 * cell['fit']['start']:.1f}, {100 * cell['fit']['adapted']:.1f}"
        for cell in cells
        if "adapted" in cell["fit"]
    ]
    return "; ".join(dict.fromkeys(found))


Cells = dict[tuple[str, str], dict[str, Any]]  # method, task -> cell


def gestures_tables(view: View, cells: Cells, methods: Sequence[Method]) -> Iterator[str]:
    """Markdown of one view's figures on the gestures."""
    by = {
        letters: {
            method.name: [cells[method.name, Task("gestures", split, letters).name] for split in ("01", "02")]
            for method in methods
        }
        for letters in LETTERS
    }
    yield f"### {view.name}: gestures, kNN\n"
    yield (
        "| method | A-L (choice) | M-Y (reported) | all letters | 01 / 02 | M-Y less frozen "
        "| M-Y less centred | all less frozen | all less centred |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for method in methods:
        name = method.name
        parts = [column(by[letters][name], "knn", "top1") for letters in LETTERS]
        parts.append(mean_only(by["all"][name], "knn", "top1"))
        for letters in ("M-Y", "all"):
            for other in (FROZEN.name, CENTRED.name):
                earlier = name in (FROZEN.name, other)
                own, before = by[letters][name], by[letters][other]
                parts.append("" if earlier else gain(own, before, "knn", "top1"))
        yield f"| {name} | {' | '.join(parts)} |"
    yield f"\n### {view.name}: gestures, other measures (letters M-Y; linear and coherence: all)\n"
    yield (
        "| method | R@1 | R@5 | 1 label | 2 labels | 5 labels | linear | coherence | found: start, adapted "
        "| fit, s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for method in methods:
        some, every = by["M-Y"][method.name], by["all"][method.name]
        parts = [column(some, "retrieval", f"recall@{k}") for k in (1, 5)]
        parts += [column(some, "centroid", f"centroid@{shot}") for shot in SHOTS]
        parts += [column(every, "linear", "top1"), column(every, "coherence", "smoothness")]
        seconds = max(cell["seconds"]["fit"] for cell in every)
        yield f"| {method.name} | {' | '.join(parts)} | {held_out(every)} | {seconds:.0f} |"


def fights_table(view: View, cells: Cells, methods: Sequence[Method]) -> Iterator[str]:
    """Markdown of one view's figures on the fights."""
    name = FIGHTS[0].name
    yield f"\n### {view.name}: fights\n"
    yield "| method | kNN | gain on frozen | linear | R@1 | 5 labels | coherence | found: start, adapted |"
    yield "|---|---|---|---|---|---|---|---|"
    for method in methods:
        own = [cells[method.name, name]]
        more = gain(own, [cells[FROZEN.name, name]], "knn", "top1") if method is not FROZEN else ""
        parts = [column(own, "knn", "top1"), more, column(own, "linear", "top1")]
        parts += [column(own, "retrieval", "recall@1"), column(own, "centroid", "centroid@5")]
        parts += [column(own, "coherence", "smoothness"), held_out(own)]
        yield f"| {method.name} | {' | '.join(parts)} |"


def announce(views: Sequence[View], out: Path) -> None:
    """Print how long it will take."""
    seconds = 0.0
    for view in views:
        if len(list((out / "features").glob(re.sub(r"\W+", "-", f"*{view.name}") + ".npz"))) < 2:
            seconds += 1700 * view.frames / FRAMES_PER_SECOND[view.start, view.image_size]
        seconds += SECONDS_PER_VIEW
    print(f"about {seconds / 60:.0f} minutes on one idle core, less what {out} holds already", flush=True)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=MEASURES)
    parser.add_argument("--lda", action="store_true", help="scikit-learn's LDA too: minutes for each start")
    parser.add_argument("--starts", nargs="+", help="only these starts; all by default")
    parser.add_argument("--sizes", nargs="+", type=int, help="only these image sizes; all by default")
    args = parser.parse_args()
    views = QUICK_VIEWS if args.quick else VIEWS
    views = [view for view in views if args.starts is None or view.start in args.starts]
    views = [view for view in views if args.sizes is None or view.image_size in args.sizes]
    announce(views, args.out)
    for name in ("features", "maps", "cells"):
        (args.out / name).mkdir(parents=True, exist_ok=True)
    for view in views:
        for data, tasks, methods in (("gestures", GESTURES, METHODS), ("fights", FIGHTS, UNCENTRED)):
            study = Study(view, data, args.data / data, args.out)
            methods = [*methods, *PEERS[data]] if args.lda else methods
            cells: Cells = {}
            for task in tasks:
                for method in methods:
                    print(f"{view.name}: {task.name}, {method.name}", file=sys.stderr, flush=True)
                    cells[method.name, task.name] = study.cell(method, task, args.measures)
            tables = gestures_tables if data == "gestures" else fights_table
            print("\n".join(tables(view, cells, methods)), flush=True)


if __name__ == "__main__":
    main()
