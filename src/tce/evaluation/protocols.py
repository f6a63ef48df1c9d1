"""The protocols: each judges a network on one split of the clips."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tce.errors import TceError
from tce.device import choose_precision
from tce.evaluation import coherence
from tce.data.splits import SplitClips, label_subset
from tce.evaluation.metrics import top_k
from tce.options.evaluate import EvaluateOptions
from tce.evaluation.probes import fit_linear, knn_scores, retrieve, unit_rows
from tce.evaluation.clip_reader import Reader, Samples, clip_means, even_samples, paper_samples
from tce.evaluation.frozen_network import FrozenNetwork
from tce.model.classifier import Classifier

if TYPE_CHECKING:
    from tce.data.read_catalog import Catalog

log = logging.getLogger("tce.evaluation")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]

TEST_SAMPLES = 19
FEATURE_SAMPLES = 8
COHERENCE_SAMPLES = 16


@dataclass
class SplitResult:
    """A protocol's result on one split.

    Attributes:
        rows: [n] the test clips that were judged, rows of the split's store.
        figures: the protocol's figures.
        values: figure's name -> [n] its value for each clip, of which the figure is the mean; NaN where a
            clip has none. Intervals and paired differences are made of these.
        settings: what the protocol was told, and chose.
        scores: [n, C] class scores, where there are any.
        neighbours: [n, K] rows of the nearest training clips, for retrieval.
        classes: C names of the scores' columns; the data's come first.
    """

    rows: Ints
    figures: dict[str, Any]
    values: Mapping[str, Floats]
    settings: dict[str, Any]
    scores: Floats | None = None
    neighbours: Ints | None = None
    classes: tuple[str, ...] = ()


@dataclass
class Evaluator:
    """Judges one network; clips that are in several splits pass the network once.

    Attributes:
        subject: the network.
        options: protocol and its settings.
    """

    subject: FrozenNetwork
    options: EvaluateOptions
    failed: dict[str, str] = field(default_factory=dict)
    _features: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __call__(self, clips: SplitClips) -> SplitResult:
        """The outcome on one split.

        Raises:
            TceError: the protocol does not fit the network or the clips, or no clip can be read.
        """
        reader = self.reader(clips)
        outcome = getattr(self, f"_{self.options.protocol}")(clips, reader)
        self._note(clips, reader)
        return outcome

    def check(self, catalog: Catalog) -> None:
        """Look at the clips before any are packed.

        Raises:
            TceError: the classifier does not know a class of them.
        """
        if self.options.protocol == "frames":
            assert isinstance(self.subject.network, Classifier)
            match_classes(self.subject.network, catalog.classes)

    def reader(self, clips: SplitClips) -> Reader:
        """How this split's frames come to the network."""
        options, config = self.options, self.subject.network.config
        return Reader(
            clips.store,
            options.image_size or config.image_size,
            options.crop or self.subject.crop,
            options.batch_size,
            options.workers,
            choose_precision(options.precision, self.subject.network.device),
        )

    def _note(self, clips: SplitClips, reader: Reader) -> None:
        for row, reason in reader.failed.items():
            self.failed[clips.store.catalog.ids[row]] = reason

    def _frames(self, clips: SplitClips, reader: Reader) -> SplitResult:
        classifier = self.subject.network
        assert isinstance(classifier, Classifier)
        columns = match_classes(classifier, clips.classes)
        count = self.options.samples or TEST_SAMPLES
        found = score_clips(classifier, reader, clips.test, count)
        _require_some(found.rows)
        # Classes that the classifier knows and the data lacks still compete.
        others = np.setdiff1d(np.arange(found.scores.shape[1]), columns)
        scores = found.scores[:, np.concatenate([columns, others])]
        known = classifier.config.classes
        names = (*clips.classes, *(known[column] if known else f"class {column}" for column in others))
        settings = {"samples": count, "frames_per_sample": classifier.frames_per_sample, "short": found.short}
        return _classified(clips, found.rows, scores, settings, names)

    def _knn(self, clips: SplitClips, reader: Reader) -> SplitResult:
        train, test, rows, vectors, settings = self._both_sides(clips, reader)
        k, temperature = min(self.options.k, len(train)), self.options.temperature
        if k < self.options.k:
            log.warning("--k %d: only the %d training clips there are vote", self.options.k, k)
        scores = knn_scores(
            unit_rows(vectors),
            unit_rows(rows),
            clips.labels[train],
            len(clips.classes),
            k,
            temperature,
            self.subject.network.device,
        )
        return _classified(clips, test, scores, {**settings, "k": k, "temperature": temperature})

    def _linear(self, clips: SplitClips, reader: Reader) -> SplitResult:
        train, test, rows, vectors, settings = self._both_sides(clips, reader)
        probe = fit_linear(
            rows,
            clips.labels[train],
            clips.groups[train].tolist(),
            len(clips.classes),
            self.options.seed,
            self.options.penalty,
            self.subject.network.device,
        )
        settings |= {"penalty": probe.penalty, "penalty_chosen_on": probe.chosen_on}
        return _classified(clips, test, probe.scores(vectors), settings)

    def _retrieval(self, clips: SplitClips, reader: Reader) -> SplitResult:
        train, test, rows, vectors, settings = self._both_sides(clips, reader)
        labels = clips.labels
        found = retrieve(
            unit_rows(vectors),
            labels[test],
            unit_rows(rows),
            labels[train],
            device=self.subject.network.device,
        )
        values = {f"recall@{k}": hit.astype(np.float64) for k, hit in found.found.items()}
        return SplitResult(test, {"recall": found.recall}, values, settings, neighbours=train[found.index])

    def _both_sides(
        self, clips: SplitClips, reader: Reader
    ) -> tuple[Ints, Ints, npt.NDArray[np.float32], npt.NDArray[np.float32], dict[str, Any]]:
        """Rows and clip-averaged features of training and test clips, and the settings."""
        layer = self.options.layer or "features"
        train = clips.train
        if self.options.labels is not None:
            train = train[label_subset(clips.labels[train], self.options.labels, self.options.seed)]
        count = self.options.samples or FEATURE_SAMPLES
        wanted = np.union1d(train, clips.test)
        self._compute(clips, reader, wanted, layer, count)
        ids = clips.store.catalog.ids
        train = train[[ids[row] in self._features for row in train]]
        test = clips.test[[ids[row] in self._features for row in clips.test]]
        _require_some(train)
        _require_some(test)
        rows, vectors = (np.stack([self._features[ids[row]] for row in side]) for side in (train, test))
        settings = {
            "samples": count,
            "layer": layer,
            "train": len(train),
            "labels": self.options.labels or "all",
        }
        return train, test, rows, vectors, settings

    def _compute(self, clips: SplitClips, reader: Reader, rows: Ints, layer: str, count: int) -> None:
        ids = clips.store.catalog.ids
        rows = rows[[ids[row] not in self._features and ids[row] not in self.failed for row in rows]]
        if len(rows) == 0:
            return
        samples = even_samples(clips.store.lengths, rows, count, self.subject.span)
        means = clip_means(reader, self.subject.network, self.subject.forward(layer), samples, "features")
        for place in np.flatnonzero(reader.readable(rows)):
            self._features[ids[rows[place]]] = means[place]

    def _coherence(self, clips: SplitClips, reader: Reader) -> SplitResult:
        options = self.options
        count, layer = options.samples or COHERENCE_SAMPLES, options.layer
        if layer is None:
            layer = "features" if isinstance(self.subject.network, Classifier) else "embedding"
        rows, tracks = self._tracks(clips, reader, clips.test, count, layer, options.gap)
        labels, recordings = clips.labels[rows], clips.recordings[rows]
        near = coherence.neighbour_distance(tracks)
        values = {
            "neighbour": near,
            "within": coherence.within_distance(tracks),
            "across": coherence.across_distance(tracks, recordings),
            "curvature": coherence.curvature(tracks),
            "tau": coherence.tau_across_clips(tracks, labels, options.seed),
        }
        figures: dict[str, Any] = {name: _mean(value) for name, value in values.items()}
        # How much nearer neighbours in time are than frames of other recordings: 1 still, 0 no nearer.
        figures["smoothness"] = 1 - figures["neighbour"] / figures["across"] if figures["across"] else None
        figures |= coherence.spread(tracks, options.seed)
        if len(clips.train):
            # The phase needs anchors alone: a gap of 0 asks for no further frames.
            train_rows, train = self._tracks(clips, reader, clips.train, count, layer, gap=0)
            r2, by_class = coherence.phase_progression(train, clips.labels[train_rows], tracks, labels)
            figures["phase_r2"] = r2
            figures["phase_r2_by_class"] = {clips.classes[label]: value for label, value in by_class.items()}
        settings = {
            "samples": count,
            "layer": layer,
            "gap": options.gap,
            "too_short": int((clips.store.lengths[clips.test] < self.subject.span + 2 * options.gap).sum()),
        }
        return SplitResult(rows, figures, values, settings)

    def _tracks(
        self, clips: SplitClips, reader: Reader, rows: Ints, count: int, layer: str, gap: int
    ) -> tuple[Ints, coherence.Tracks]:
        """Embeddings along the clips, and the rows of those that are long enough and readable."""
        span = self.subject.span
        lengths = clips.store.lengths - span + 1
        starts = [coherence.anchors(int(lengths[row]), count, gap) for row in rows]
        sizes = np.array([len(found) for found in starts])
        clip, anchor = np.repeat(rows, sizes), np.concatenate([*starts, np.empty(0, np.int64)])
        _require_some(clip, f"long enough for three frames {gap} apart", "choose a smaller --gap")
        count = 3 if gap else 1
        seen = anchor[:, None] + np.arange(count) * gap  # [M, 3], or the anchors alone
        key, place = np.unique(np.stack([np.repeat(clip, count), seen.ravel()]), axis=1, return_inverse=True)
        samples = Samples(key[0], key[1][:, None] + np.arange(span), np.ones(key.shape[1], np.int64))
        vectors = np.concatenate(
            [
                unit_rows(part.cpu().numpy())
                for _, part in reader.outputs(
                    self.subject.network, self.subject.forward(layer), samples, "along time"
                )
            ]
        )
        kept = reader.readable(clip)
        _require_some(clip[kept])
        whole, number = np.unique(clip[kept], return_inverse=True)
        phase = anchor[kept] / np.maximum(lengths[clip[kept]] - 1, 1)
        return whole, coherence.Tracks(vectors[place.reshape(-1, count)[kept]], number, phase)


def _classified(
    clips: SplitClips,
    rows: Ints,
    scores: npt.NDArray[np.float32],
    settings: dict[str, Any],
    names: Sequence[str] | None = None,
) -> SplitResult:
    names = tuple(names or clips.classes)
    labels = clips.labels[rows]
    right = {f"top{k}": top_k(scores, labels, k).astype(np.float64) for k in (1, 5)}
    figures: dict[str, Any] = {name: float(hits.mean()) for name, hits in right.items()}
    figures["chance"] = 1 / len(names)
    return SplitResult(rows, figures, dict(right), settings, scores=scores, classes=names)


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _require_some(rows: Ints, kind: str = "that can be read", fix: str = "tce check DATA says more") -> None:
    if len(rows) == 0:
        raise TceError("evaluation", expected=f"clips {kind}", found="none", fix=fix)


@dataclass
class ClipScores:
    """Scores of clips.

    Attributes:
        rows: [n] the clips, rows of the store, rising.
        scores: [n, C] sum of the samples' logits.
        short: how many clips are shorter than one sample, so that their last frame was repeated.
    """

    rows: Ints
    scores: npt.NDArray[np.float32]
    short: int


def score_clips(
    classifier: Classifier, reader: Reader, rows: Ints, count: int = TEST_SAMPLES, what: str = "testing"
) -> ClipScores:
    """Scores of clips by the paper's protocol (design of the released code; paper, section 4.1).

    Clips with a frame that cannot be read are left out and named in `reader.failed`.

    Args:
        classifier: in evaluation mode.
        reader: how the frames come.
        rows: which clips of the reader's store, rising.
        count: samples a clip.
        what: for the progress line.

    Returns:
        Scores of the clips that could be read.
    """
    lengths = reader.store.lengths
    span = classifier.frames_per_sample
    samples = paper_samples(lengths, rows, count, span)
    means = clip_means(reader, classifier, classifier, samples, what)  # [n, C]
    kept = reader.readable(rows)
    return ClipScores(rows[kept], means[kept] * count, int((lengths[rows[kept]] < span).sum()))


def match_classes(classifier: Classifier, classes: list[str]) -> Ints:
    """Where each of the data's classes is in the classifier's output.

    By name where the classifier knows its classes, else by number.

    Args:
        classifier: what gives the scores.
        classes: the data's class names in the order of their numbers.

    Returns:
        [len(classes)] columns of the scores.

    Raises:
        TceError: the classifier lacks a class, or the numbers of classes differ.
    """
    known = list(classifier.config.classes)
    if not known:
        if classifier.num_classes != len(classes):
            raise TceError(
                "the checkpoint's classes",
                expected=f"{len(classes)} classes, as in the data",
                found=f"{classifier.num_classes} in the checkpoint",
                fix="give the --data and --lists it was fine-tuned on, or fine-tune it on these",
            )
        return np.arange(len(classes))
    lacking = [name for name in classes if name not in known]
    if lacking:
        more = ", ..." if len(lacking) > 3 else ""
        raise TceError(
            "the checkpoint's classes",
            expected=f"the {len(classes)} classes of the data",
            found=f"{len(known)} classes without {', '.join(lacking[:3])}{more}",
            fix="give the --data and --lists it was fine-tuned on, or fine-tune it on these",
        )
    return np.array([known.index(name) for name in classes])
