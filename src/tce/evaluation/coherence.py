"""Temporal coherence: do embeddings move little and straight in time, and alike in all clips of a class?

The protocol's function is at the end; the measures are functions of embeddings alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tce.contrast.losses import effective_rank, uniformity
from tce.data.splits import SplitClips
from tce.evaluation.clip_reader import Samples
from tce.evaluation.probes import unit_rows
from tce.evaluation.protocols import Evaluator, SplitResult, require_some

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PAIRS_PER_CLASS = 100
RIDGE = 1e-2
FRAMES_PER_CLIP = 16
SPREAD_ROWS = 2000  # uniformity compares all pairs of so many rows, and the rank is theirs


@dataclass
class Tracks:
    """Embeddings along the time of many clips: anchors, and the two frames that follow each.

    Attributes:
        vectors: unit vectors float32 [M, 3, D], of frames a, a + gap and a + 2 gap, clip by clip, in time;
            [M, 1, D] where only the anchors a are wanted.
        clip: [M] which clip, numbers from 0 upwards without holes.
        phase: [M] place of frame a in its clip, from 0 (first frame) to 1 (last).
    """

    vectors: npt.NDArray[np.float32]
    clip: Ints
    phase: Floats

    def of(self, clip: int) -> slice:
        """The clip's rows."""
        first, last = np.searchsorted(self.clip, [clip, clip + 1])
        return slice(int(first), int(last))

    def mean_by_clip(self, values: npt.NDArray[np.floating]) -> Floats:
        """Mean of each clip's values, [M] -> [clips], NaN left out."""
        known = np.isfinite(values)
        clips = int(self.clip.max()) + 1
        sums = np.bincount(self.clip[known], values[known], minlength=clips)
        counts = np.bincount(self.clip[known], minlength=clips)
        return np.divide(sums, counts, out=np.full(clips, np.nan), where=counts > 0)


def anchors(length: int, count: int, gap: int) -> Ints:
    """Up to `count` evenly spaced positions that have two followers, `gap` frames apart; may be empty."""
    last = length - 1 - 2 * gap
    if last < 0:
        return np.empty(0, np.int64)
    return np.unique(np.round(np.linspace(0, last, min(count, last + 1))).astype(np.int64))


def neighbour_distance(tracks: Tracks) -> Floats:
    """Mean cosine distance of frames that follow one another, for each clip, [clips]."""
    steps = np.diff(tracks.vectors, axis=1)  # [M, 2, D]
    # Of unit vectors, half the squared distance is 1 - cosine, without its cancellation near 0.
    return tracks.mean_by_clip(np.square(steps).sum(axis=2).mean(axis=1) / 2)


def within_distance(tracks: Tracks) -> Floats:
    """Mean cosine distance of two different anchors of one clip, [clips]; NaN for a clip of one anchor."""
    clips = int(tracks.clip.max()) + 1
    found = np.full(clips, np.nan)
    for clip in range(clips):
        v = tracks.vectors[tracks.of(clip), 0].astype(np.float64)
        n = len(v)
        if n > 1:  # the sum over all pairs is the squared length of the sum
            found[clip] = 1 - (np.square(v.sum(axis=0)).sum() - n) / (n * (n - 1))
    return found


def across_distance(tracks: Tracks, recordings: npt.ArrayLike) -> Floats:
    """Mean cosine distance of a clip's anchors to all anchors of other recordings, for each clip, [clips].

    Args:
        tracks: the embeddings.
        recordings: [clips] each clip's recording.

    Returns:
        [clips]; NaN where there is one recording only.
    """
    _, recording = np.unique(np.asarray(recordings), return_inverse=True)
    v = tracks.vectors[:, 0].astype(np.float64)
    sums = np.zeros((recording.max() + 1, v.shape[1]))
    np.add.at(sums, recording[tracks.clip], v)
    counts = np.bincount(recording[tracks.clip], minlength=len(sums))
    other = v.sum(axis=0) - sums  # [recordings, D]
    others = len(v) - counts
    mean = np.divide(other, others[:, None], out=np.full_like(other, np.nan), where=others[:, None] > 0)
    return tracks.mean_by_clip(1 - (v * mean[recording[tracks.clip]]).sum(axis=1))


def curvature(tracks: Tracks) -> Floats:
    """Mean angle in degrees between one step in time and the next, for each clip (Hénaff et al., 2019).

    0 is a straight path, 90 a random walk in many dimensions, 180 going back and forth. Clips that do not
    move give NaN.
    """
    steps = np.diff(tracks.vectors, axis=1)  # [M, 2, D]
    lengths = np.linalg.norm(steps, axis=2)
    moving = (lengths > 1e-6).all(axis=1)
    cosine = np.full(len(steps), np.nan)
    products = (steps[moving, 0] * steps[moving, 1]).sum(axis=1)
    cosine[moving] = products / lengths[moving].prod(axis=1)
    return tracks.mean_by_clip(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def kendall_tau(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """Whether nearest neighbours in another clip come in the same order (Dwibedi et al., 2019, section 4.1).

    Args:
        first: unit vectors of one clip in time order, [n, D], n at least 2.
        second: of another clip, [m, D].

    Returns:
        (pairs in order - pairs in reverse) / all pairs: 1 in step, 0 unrelated, -1 reversed. Two frames with
        one and the same neighbour count in neither.
    """
    matched = (first @ second.T).argmax(axis=1)  # [n]
    n = len(matched)
    signs = np.sign(matched[None, :] - matched[:, None])
    return float(np.triu(signs, 1).sum() / (n * (n - 1) / 2))


def tau_across_clips(tracks: Tracks, labels: Ints, seed: int = 0) -> Floats:
    """Kendall's tau of each clip against other clips of its class, [clips]; NaN where there is none.

    At most `PAIRS_PER_CLASS` random ordered pairs are taken of a class.
    """
    clips = int(tracks.clip.max()) + 1
    sums, counts = np.zeros(clips), np.zeros(clips)
    for label in np.unique(labels[labels >= 0]):
        members = [clip for clip in np.flatnonzero(labels == label).tolist() if _length(tracks, clip) > 1]
        if len(members) < 2:
            continue
        rng = np.random.default_rng([seed, int(label)])
        size = len(members) * (len(members) - 1)
        for pair in rng.choice(size, min(size, PAIRS_PER_CLASS), replace=False):
            i, j = divmod(int(pair), len(members) - 1)
            one, other = members[i], members[j + (j >= i)]
            ordered, searched = tracks.vectors[tracks.of(one)], tracks.vectors[tracks.of(other)]
            sums[one] += kendall_tau(ordered[:, 0], searched[:, 0])
            counts[one] += 1
    return np.divide(sums, counts, out=np.full(clips, np.nan), where=counts > 0)


def _length(tracks: Tracks, clip: int) -> int:
    rows = tracks.of(clip)
    return rows.stop - rows.start


def phase_progression(
    train: Tracks, train_labels: Ints, test: Tracks, test_labels: Ints
) -> tuple[float, dict[int, float]]:
    """How well a linear map, fitted on a class's training clips, predicts the phase in its test clips.

    Phase is the place in the clip from 0 to 1 (Dwibedi et al., 2019, section 4.1, without annotated events:
    a whole clip counts as one phase).

    Args:
        train: embeddings of training clips.
        train_labels: [train clips].
        test: embeddings of test clips.
        test_labels: [test clips].

    Returns:
        Mean R² over the classes, at most 1, below 0 where the mean would do better; and R² of each class.
    """
    by_class = {}
    for label in np.intersect1d(train_labels[train_labels >= 0], test_labels):
        fit, test_rows = train_labels[train.clip] == label, test_labels[test.clip] == label
        x, y = train.vectors[fit, 0].astype(np.float64), train.phase[fit]
        truth = test.phase[test_rows]
        spread = np.square(truth - truth.mean()).sum() if len(truth) else 0.0
        if len(x) < 2 or spread == 0:
            continue
        centre = x.mean(axis=0)
        moments = (x - centre).T @ (x - centre) / len(x) + RIDGE * np.eye(x.shape[1])
        weight = np.linalg.solve(moments, (x - centre).T @ (y - y.mean()) / len(x))
        predicted = (test.vectors[test_rows, 0] - centre) @ weight + y.mean()
        by_class[int(label)] = float(1 - np.square(truth - predicted).sum() / spread)
    return (float(np.mean(list(by_class.values()))) if by_class else float("nan")), by_class


def spread(tracks: Tracks, seed: int = 0) -> dict[str, float]:
    """Alignment of neighbouring frames, uniformity and effective rank of the anchors."""
    steps = tracks.vectors[:, 1] - tracks.vectors[:, 0]
    chosen = np.random.default_rng(seed).permutation(len(steps))[:SPREAD_ROWS]
    rows = torch.from_numpy(tracks.vectors[np.sort(chosen), 0])
    return {
        "alignment": float(np.square(steps).sum(axis=1).mean()),
        "uniformity": float(uniformity(rows)) if len(rows) > 1 else float("nan"),
        "effective_rank": float(effective_rank(rows)),
    }


def coherence(evaluator: Evaluator, clips: SplitClips) -> SplitResult:
    """The protocol `coherence`: how the embeddings of 16 frames a clip, and of those after them, move."""
    options = evaluator.options
    count = options.samples or FRAMES_PER_CLIP
    layer = options.layer or ("features" if evaluator.network.is_classifier else "embedding")
    rows, tracks = _tracks(evaluator, clips, clips.test, count, layer, options.gap)
    labels, recordings = clips.labels[rows], clips.recordings[rows]
    values = {
        "neighbour": neighbour_distance(tracks),
        "within": within_distance(tracks),
        "across": across_distance(tracks, recordings),
        "curvature": curvature(tracks),
        "tau": tau_across_clips(tracks, labels, options.seed),
    }
    metrics: dict[str, Any] = {name: _mean(value) for name, value in values.items()}
    # How much nearer neighbours in time are than frames of other recordings: 1 still, 0 no nearer.
    metrics["smoothness"] = 1 - metrics["neighbour"] / metrics["across"] if metrics["across"] else None
    metrics |= spread(tracks, options.seed)
    if len(clips.train):
        # The phase needs anchors alone: a gap of 0 asks for no further frames.
        train_rows, train = _tracks(evaluator, clips, clips.train, count, layer, gap=0)
        r2, by_class = phase_progression(train, clips.labels[train_rows], tracks, labels)
        metrics["phase_r2"] = r2
        metrics["phase_r2_by_class"] = {clips.classes[label]: value for label, value in by_class.items()}
    settings = {
        "samples": count,
        "layer": layer,
        **evaluator.engines,
        "gap": options.gap,
        "too_short": int((clips.store.lengths[clips.test] < evaluator.network.span + 2 * options.gap).sum()),
    }
    # Frames in random order: as far from their neighbours as from other recordings, in no order.
    chance = {name: 0.0 for name in ("smoothness", "tau", "phase_r2") if metrics.get(name) is not None}
    return SplitResult(rows, metrics, values, settings, chance)


def _tracks(
    evaluator: Evaluator, clips: SplitClips, rows: Ints, count: int, layer: str, gap: int
) -> tuple[Ints, Tracks]:
    """Embeddings along the clips, and the rows of those that are long enough and readable."""
    network, span = evaluator.network, evaluator.network.span
    lengths = clips.store.lengths - span + 1
    starts = [anchors(int(lengths[row]), count, gap) for row in rows]
    sizes = np.array([len(found) for found in starts])
    clip, anchor = np.repeat(rows, sizes), np.concatenate([*starts, np.empty(0, np.int64)])
    require_some(clip, f"long enough for three frames {gap} apart", "choose a smaller --gap")
    count = 3 if gap else 1
    seen = anchor[:, None] + np.arange(count) * gap  # [M, 3], or the anchors alone
    key, place = np.unique(np.stack([np.repeat(clip, count), seen.ravel()]), axis=1, return_inverse=True)
    samples = Samples(key[0], key[1][:, None] + np.arange(span), np.ones(key.shape[1], np.int64))
    engine = evaluator.engine(len(samples))
    reader = evaluator.reader(clips, engine.precision)
    outputs = reader.outputs(network.network, network.forward(layer, features=engine), samples, "along time")
    vectors = np.concatenate([unit_rows(part.cpu().numpy()) for _, part in outputs])
    evaluator.note_failures(clips, reader)
    kept = reader.readable(clip)
    require_some(clip[kept])
    whole, number = np.unique(clip[kept], return_inverse=True)
    phase = anchor[kept] / np.maximum(lengths[clip[kept]] - 1, 1)
    return whole, Tracks(vectors[place.reshape(-1, count)[kept]], number, phase)


def _mean(values: npt.NDArray[np.floating]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
