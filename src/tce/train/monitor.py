"""Metrics of the embeddings during training: nearest neighbours where labels exist, and collapse."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tce.contrast import effective_rank, uniformity
from tce.data.frame_store import FrameStore
from tce.data.loader import Loader
from tce.data.sampling import spread
from tce.device import autocast
from tce.errors import TceError
from tce.model.encoder import FrameEncoder
from tce.video.image import Resize

log = logging.getLogger("tce.train")

FRAMES_PER_CLIP = 3
NEIGHBOURS = 10
TEMPERATURE = 0.07  # weight of a neighbour: exp(cosine / 0.07), as in instance discrimination
BATCH = 64

SETTLED = 0.05  # share of the run after which the rank should only grow
COLLAPSED = 0.15  # of the highest rank; classes that become compact take it to a third, a collapse to a tenth
SMOOTHING = 0.7  # share of the past in the rank that is watched, since a batch's own rank is noisy
ONE_POINT = 1.2  # an effective rank below it: all embeddings are the same, whatever they were before

AT_CHANCE = 0.98  # of the chance loss: a loss above it is that of chance
FALLEN_RANK = 0.5  # of the untrained network's rank
FEWEST_CLIPS = 20  # kNN of fewer moves by more than 5 points with a single clip


class Monitor:
    """Evaluates an encoder on some of the clips; the same ones, frames and pixels each time.

    Args:
        store: the clips; labels and groups come from its catalog.
        size: side of the loaded frames in pixels.
        clips: largest number of clips.
        workers: decoding threads.
        precision: of the network's passes.
        resize: how frames become square, see `Loader`.
    """

    def __init__(
        self, store: FrameStore, size: int, clips: int, workers: int, precision: str, resize: Resize
    ):
        self.precision = precision
        rows = np.arange(len(store))
        labelled = np.flatnonzero(store.catalog.labels >= 0)
        self.labels: np.ndarray | None = None
        if len(labelled):
            across = labelled[has_rivals(store.catalog.labels, store.catalog.group_numbers, labelled)]
            if len(across):
                rows = across
            else:
                log.info("no kNN monitor: no class has clips of two groups (people, recordings) or more")
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(clips, len(rows))).astype(int))]
        if len(labelled) and len(across):
            self.labels = store.catalog.labels[rows]
            self.groups = store.catalog.group_numbers[rows]
        self.rows = rows
        index = np.stack([spread(length, FRAMES_PER_CLIP) for length in store.lengths[rows]])  # [n, 3]
        starts = range(0, len(rows), BATCH)
        plan = [(rows[start : start + BATCH], index[start : start + BATCH]) for start in starts]
        self._loader = Loader(store, plan, (size, size), resize, threads=workers)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its metrics."""
        return ("rank_all", "uniformity_all", *(("knn",) if self.labels is not None else ()))

    @property
    def chance(self) -> dict[str, float]:
        """KNN accuracy of a guess: 1 / number of classes; empty without labels."""
        return {} if self.labels is None else {"knn": 1 / len(np.unique(self.labels))}

    @torch.no_grad()
    def __call__(self, encoder: FrameEncoder) -> dict[str, float]:
        """Metrics of the encoder as it is now: kNN accuracy where there are labels, rank and uniformity."""
        training = encoder.training
        encoder.eval()
        features, embeddings, read = [], [], []
        for batch in self._loader:
            frames = torch.as_tensor(batch.frames).to(encoder.device).flatten(0, 1)  # [b * 3, H, W, 3]
            with autocast(encoder.device, self.precision):
                found = encoder.features(encoder.preprocess(frames, resize="squash"))  # [b * 3, F]
                vectors = encoder.project(found).float().cpu().unflatten(0, (len(batch.clips), -1))
            clip = found.float().view(len(batch.clips), -1, found.shape[1]).mean(dim=1)
            embeddings.append(vectors[torch.from_numpy(batch.ok)])
            features.append(torch.nn.functional.normalize(clip, dim=1).cpu()[torch.from_numpy(batch.ok)])
            read.append(batch.ok)
        encoder.train(training)
        if not any(ok.any() for ok in read):
            raise TceError("none of the monitor's clips could be read", fix="run `tce check`")
        vectors, kept = torch.cat(embeddings).flatten(0, 1), np.concatenate(read)  # [n * 3, D]; bool [clips]
        metrics = {"rank_all": effective_rank(vectors), "uniformity_all": float(uniformity(vectors[:3000]))}
        if self.labels is not None:
            metrics["knn"] = knn_accuracy(torch.cat(features), self.labels[kept], self.groups[kept])
        return metrics


def has_rivals(labels: np.ndarray, groups: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which of `rows` have a clip of the same class from another group among them, bool [len(rows)]."""
    pairs = np.unique(np.stack([labels[rows], groups[rows]]), axis=1)  # [2, class and group]
    count = np.bincount(pairs[0], minlength=labels.max() + 1)  # groups of each class
    return count[labels[rows]] > 1


def knn_accuracy(features: Tensor, labels: np.ndarray, groups: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Share of clips whose class their nearest neighbours from other groups vote for.

    Pieces of one recording look alike whatever a network has learned, and so do a person's clips of different
    classes: neither may vote.

    Args:
        features: unit vectors [n, F].
        labels: classes, int64 [n].
        groups: people or recordings, int64 [n]; a clip's own has no vote.
        k: neighbours that vote, each with weight exp(cosine / 0.07).
    """
    truth, origin = torch.as_tensor(labels), torch.as_tensor(groups)
    similarity = features @ features.T  # [n, n]
    similarity[origin[:, None] == origin] = -torch.inf
    near, index = similarity.topk(min(k, len(features) - 1), dim=1)  # [n, k]
    votes = torch.zeros(len(features), int(truth.max()) + 1)
    votes.scatter_add_(1, truth[index], (near / TEMPERATURE).exp())
    return float((votes.argmax(dim=1) == truth).double().mean())


def learned_nothing(first: Mapping[str, float], last: Mapping[str, float], chance: float) -> str | None:
    """Evidence that a finished run learned nothing, in one line; None where a metric shows that it did learn.

    Its contrastive loss ended at chance, its embeddings' rank collapsed, and kNN did not rise.

    Args:
        first: the untrained network's metrics.
        last: the last ones.
        chance: contrastive loss of a network to which all clips look alike.
    """
    if "rank_all" not in first or "rank_all" not in last or "contrast" not in last:
        return None
    collapsed = last["rank_all"] < max(ONE_POINT, FALLEN_RANK * first["rank_all"])
    rose = last.get("knn", 0.0) > first.get("knn", 0.0)
    if last["contrast"] < AT_CHANCE * chance or not collapsed or rose:
        return None
    knn = f", kNN from {first['knn']:.1%} to {last['knn']:.1%}" if {"knn"} <= {*first, *last} else ""
    return (
        f"this run learned nothing: contrastive loss {last['contrast']:.3f} (chance {chance:.3f}), "
        f"effective rank from {first['rank_all']:.1f} to {last['rank_all']:.1f}{knn}"
    )


class CollapseWatch:
    """Warns when the embeddings' effective rank falls far below where it stood once training had settled.

    Or when it is that of a single point, whatever it was before.
    """

    def __init__(self) -> None:
        self.smooth: float | None = None
        self.highest = 0.0
        self.warned = False

    def see(self, rank: float, share: float) -> str | None:
        """Take in a batch's effective rank; a warning when it has collapsed, once.

        Args:
            rank: effective rank of a batch's embeddings.
            share: share of the training done, in [0, 1].
        """
        past = rank if self.smooth is None else self.smooth
        self.smooth = SMOOTHING * past + (1 - SMOOTHING) * rank
        if share < SETTLED:
            return None
        self.highest = max(self.highest, self.smooth)
        same = self.smooth < ONE_POINT
        collapsed = same or self.smooth < COLLAPSED * self.highest
        news, self.warned = collapsed and not self.warned, collapsed
        if not news:
            return None
        if same:
            return (
                f"the embeddings of all clips are the same: effective rank {self.smooth:.1f}; check that the "
                "clips show something (`tce info DATA --sheet SHEET.png`), then try a lower --lr"
            )
        return (
            f"the embeddings are collapsing: effective rank {self.smooth:.1f}, once {self.highest:.1f}; try "
            "a lower --lr, --method simclr, or with --method tce --own-row-positive also"
        )

    def state_dict(self) -> dict[str, Any]:
        """What it has seen."""
        return {"smooth": self.smooth, "highest": self.highest, "warned": self.warned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put that back."""
        self.smooth = state["smooth"]
        self.highest = state["highest"]
        self.warned = state["warned"]
