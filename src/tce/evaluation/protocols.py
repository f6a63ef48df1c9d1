"""The protocols: each is a function that evaluates a frozen network on one split of the clips.

To add one, write its function here or in a module of its own (as coherence has), and its row in
`tce.options.evaluate.PROTOCOLS`.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tce.data.splits import SplitClips, group_names, label_subset, subtract_group_means
from tce.device import choose_precision
from tce.errors import TceError
from tce.evaluation.clip_reader import TEST_SAMPLES, Reader, clip_means, even_samples, score_clips
from tce.evaluation.frozen_network import FrozenNetwork, match_classes
from tce.evaluation.metrics import chance_recall, top_k
from tce.evaluation.probes import fit_linear, knn_scores, retrieve, unit_rows
from tce.model.classifier import Classifier
from tce.model.engine import WORTH_MEASURING, FeatureEngine, pick_engine
from tce.options.evaluate import PROTOCOLS, EvaluateOptions

if TYPE_CHECKING:
    from tce.data.read_catalog import Catalog

log = logging.getLogger("tce.evaluation")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]
Vectors = npt.NDArray[np.float32]

FEATURE_SAMPLES = 8
TOP_K = (1, 5)


@dataclass
class SplitResult:
    """A protocol's result on one split.

    Attributes:
        rows: [n] the evaluated test clips, rows of the split's store.
        metrics: the protocol's metrics.
        values: metric's name -> [n] its value for each clip, of which the metric is the mean; NaN where a
            clip has none. Intervals and paired differences are made of these.
        settings: what the protocol was given, and what it chose.
        chance: metric's name -> its value for a network that knows nothing, where that is known.
        scores: [n, C] class scores, where there are any.
        neighbours: [n, K] rows of the nearest training clips, for retrieval.
        classes: C names of the scores' columns; the data's come first.
        draws: metric's name -> [draws, n] each clip's value in every random draw of training clips; `values`
            are the means over the draws. Intervals then resample draws, too.
        reading: what the metrics say, in a line.
        caveats: what a reader must know of these clips.
        protocol: its name.
    """

    rows: Ints
    metrics: dict[str, Any]
    values: Mapping[str, Floats]
    settings: dict[str, Any]
    chance: dict[str, float] = field(default_factory=dict)
    scores: Floats | None = None
    neighbours: Ints | None = None
    classes: tuple[str, ...] = ()
    draws: Mapping[str, Floats] = field(default_factory=dict)
    reading: str = ""
    caveats: Sequence[str] = ()
    protocol: str = ""


@dataclass
class TrainTest:
    """Features of both sides of a split.

    Attributes:
        train: [N] rows of the training clips.
        test: [Q] rows of the test clips.
        train_features: [N, D], each clip's average.
        test_features: [Q, D].
        settings: how they were made.
    """

    train: Ints
    test: Ints
    train_features: Vectors
    test_features: Vectors
    settings: dict[str, Any]


@dataclass
class Evaluator:
    """Runs protocols on one network; clips that several splits or protocols share pass the network once.

    Attributes:
        network: the frozen network.
        options: the protocols' settings.
        failed: clip's id -> why it could not be read; such clips are left out.
    """

    network: FrozenNetwork
    options: EvaluateOptions
    failed: dict[str, str] = field(default_factory=dict)
    _features: dict[tuple[str, int, str], Vectors] = field(default_factory=dict)
    _engines: dict[bool, FeatureEngine] = field(default_factory=dict)

    def __call__(self, clips: SplitClips, protocol: str | None = None) -> SplitResult:
        """The result of a protocol (the options' by default) on one split.

        Raises:
            TceError: the protocol does not fit the network or the clips, or no clip can be read.
        """
        protocol = protocol or self.options.protocol
        module, _, name = PROTOCOLS[protocol].function.partition(":")
        result: SplitResult = getattr(importlib.import_module(module), name)(self, clips)
        result.protocol = protocol
        return result

    def check(self, catalog: Catalog) -> None:
        """Look at the clips before any are packed.

        Raises:
            TceError: the classifier does not know a class of them.
        """
        spec = PROTOCOLS.get(self.options.protocol)
        if spec is not None and spec.needs_classifier:
            assert isinstance(self.network.network, Classifier)
            match_classes(self.network.network, catalog.classes)

    @property
    def image_size(self) -> int:
        """Side of the network's input in pixels."""
        return self.options.image_size or self.network.network.config.image_size

    def reader(self, clips: SplitClips, precision: str | None = None) -> Reader:
        """How this split's frames come to the network.

        Args:
            clips: the split.
            precision: of the passes; that of the options by default.
        """
        options = self.options
        return Reader(
            clips.store,
            self.image_size,
            options.crop or self.network.crop,
            options.batch_size,
            options.workers,
            precision or choose_precision(options.precision, self.network.network.device),
        )

    def engine(self, samples: int) -> FeatureEngine:
        """What computes the backbone's features of that many samples; measured once, see `pick_engine`."""
        many = samples >= WORTH_MEASURING
        if many not in self._engines:
            network = self.network.network
            precision = choose_precision(self.options.precision, network.device)
            self._engines[many] = pick_engine(
                network, self.options.engine, self.image_size, precision, samples
            )
        return self._engines[many]

    @property
    def engines(self) -> dict[str, str]:
        """For a result's settings: what computed the features so far."""
        return {"engine": ", ".join(sorted({engine.name for engine in self._engines.values()}))}

    def note_failures(self, clips: SplitClips, reader: Reader) -> None:
        """Remember the clips that a reader could not read."""
        for row, reason in reader.failed.items():
            self.failed[clips.store.catalog.ids[row]] = reason

    def features(self, clips: SplitClips, rows: Ints, layer: str, count: int) -> tuple[Ints, Vectors]:
        """Each clip's average feature over `count` evenly spread samples.

        Args:
            clips: the split.
            rows: which clips of its store, rising.
            layer: "features" or "embedding".
            count: samples a clip.

        Returns:
            The rows that can be read, [n], and their vectors, [n, D].

        Raises:
            TceError: no clip can be read.
        """
        ids = clips.store.catalog.ids
        known = [(layer, count, str(ids[row])) for row in rows]
        missing = rows[[key not in self._features and key[2] not in self.failed for key in known]]
        if len(missing):
            samples = even_samples(clips.store.lengths, missing, count, self.network.span)
            engine = self.engine(len(samples))
            reader = self.reader(clips, engine.precision)
            forward = self.network.forward(layer, self.options.center is None, engine)
            means = clip_means(reader, self.network.network, forward, samples, "features")
            for place in np.flatnonzero(reader.readable(missing)):
                self._features[layer, count, str(ids[missing[place]])] = means[place]
            self.note_failures(clips, reader)
        there = np.array([key in self._features for key in known], bool)
        require_some(rows[there])
        return rows[there], np.stack([self._features[key] for key in known if key in self._features])

    def train_test(self, clips: SplitClips, labels: str | None = None) -> TrainTest:
        """Features of a split's training and test clips, by the options' layer and samples.

        Args:
            clips: the split.
            labels: how many training clips of each class, as 10% or 5/class; all by default.
        """
        options = self.options
        layer, count = options.layer or self.network.default_layer, options.samples or FEATURE_SAMPLES
        train = clips.train
        if labels is not None:
            train = train[label_subset(clips.labels[train], labels, options.seed)]
        self.features(clips, np.union1d(train, clips.test), layer, count)  # all in one pass
        train, train_features = self.features(clips, train, layer, count)
        test, test_features = self.features(clips, clips.test, layer, count)
        settings = {"samples": count, "layer": layer, "train": len(train), "labels": labels or "all"}
        settings |= self.engines
        if options.center is not None:
            groups = group_names(
                clips.store.catalog.select(np.concatenate([train, test])), options.center, "--center"
            )
            both = subtract_group_means(np.concatenate([train_features, test_features]), groups)
            train_features, test_features = np.split(both.astype(np.float32), [len(train)])
            settings["center"] = options.center
        return TrainTest(train, test, train_features, test_features, settings)


def frames(evaluator: Evaluator, clips: SplitClips) -> SplitResult:
    """The paper's test of a classifier: scores of 19 stacks (or frames) of each clip, summed."""
    classifier = evaluator.network.network
    assert isinstance(classifier, Classifier)
    columns = match_classes(classifier, clips.classes)
    count = evaluator.options.samples or TEST_SAMPLES
    engine = evaluator.engine(len(clips.test) * count)
    reader = evaluator.reader(clips, engine.precision)
    found = score_clips(classifier, reader, clips.test, count, features=engine)
    evaluator.note_failures(clips, reader)
    require_some(found.rows)
    # Classes that the classifier knows and the data lacks still compete.
    others = np.setdiff1d(np.arange(found.scores.shape[1]), columns)
    scores = found.scores[:, np.concatenate([columns, others])]
    known = classifier.config.classes
    names = (*clips.classes, *(known[column] if known else f"class {column}" for column in others))
    settings: dict[str, Any] = {"samples": count, "frames_per_sample": classifier.frames_per_sample}
    settings |= {"short": found.short, **evaluator.engines}
    return classification(clips, found.rows, scores, settings, names)


def knn(evaluator: Evaluator, clips: SplitClips) -> SplitResult:
    """Weighted k nearest neighbours (Wu et al., 2018): the nearest training clips vote for their class."""
    options = evaluator.options
    both = evaluator.train_test(clips, options.labels)
    k = min(options.k, len(both.train))
    if k < options.k:
        log.warning("--k %d: there are %d training clips; all of them vote", options.k, k)
    scores = knn_scores(
        unit_rows(both.test_features),
        unit_rows(both.train_features),
        clips.labels[both.train],
        len(clips.classes),
        k,
        options.temperature,
        evaluator.network.network.device,
    )
    settings = {**both.settings, "k": k, "temperature": options.temperature}
    return classification(clips, both.test, scores, settings)


def linear(evaluator: Evaluator, clips: SplitClips) -> SplitResult:
    """Logistic regression on each clip's average feature."""
    options = evaluator.options
    both = evaluator.train_test(clips, options.labels)
    probe = fit_linear(
        both.train_features,
        clips.labels[both.train],
        clips.groups[both.train].tolist(),
        len(clips.classes),
        options.seed,
        options.penalty,
        evaluator.network.network.device,
    )
    settings = {**both.settings, "penalty": probe.penalty, "penalty_chosen_on": probe.chosen_on}
    return classification(clips, both.test, probe.scores(both.test_features), settings)


def retrieval(evaluator: Evaluator, clips: SplitClips) -> SplitResult:
    """Search for clips of the same class: test clips are the queries, training clips the gallery."""
    both, labels = evaluator.train_test(clips), clips.labels
    found = retrieve(
        unit_rows(both.test_features),
        labels[both.test],
        unit_rows(both.train_features),
        labels[both.train],
        device=evaluator.network.network.device,
    )
    values = {f"recall@{k}": hit.astype(np.float64) for k, hit in found.found.items()}
    chance = {f"recall@{k}": chance_recall(labels[both.test], labels[both.train], k) for k in found.found}
    return SplitResult(
        both.test,
        {"recall": found.recall},
        values,
        both.settings,
        chance,
        neighbours=both.train[found.index],
    )


def classification(
    clips: SplitClips,
    rows: Ints,
    scores: Vectors,
    settings: dict[str, Any],
    names: Sequence[str] | None = None,
) -> SplitResult:
    """The result of a protocol that gives class scores: top-1, and top-5 where there are more classes.

    Args:
        clips: the split.
        rows: [n] the test clips.
        scores: [n, C].
        settings: of the protocol.
        names: of the C columns; the data's classes by default, which come first in any case.
    """
    names = tuple(names or clips.classes)
    labels = clips.labels[rows]
    informative = [k for k in TOP_K if k < len(names) or k == 1]
    right = {f"top{k}": top_k(scores, labels, k).astype(np.float64) for k in informative}
    metrics: dict[str, Any] = {name: float(hits.mean()) for name, hits in right.items()}
    chance = {f"top{k}": min(1.0, k / len(names)) for k in informative}
    return SplitResult(rows, metrics, dict(right), settings, chance, scores=scores, classes=names)


def require_some(
    rows: Ints, kind: str = "that can be read", fix: str = "`tce check DATA` lists the reasons"
) -> None:
    """Check that some clips are left.

    Raises:
        TceError: there are none.
    """
    if len(rows) == 0:
        raise TceError("evaluation", expected=f"clips {kind}", found="none", fix=fix)
