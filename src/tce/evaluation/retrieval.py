"""Finding clips of the same action: test clips ask, training clips answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tce.evaluation.neighbours import Rows, nearest

Ints = npt.NDArray[np.int64]

RECALL_AT = (1, 5, 10, 20, 50)


@dataclass
class Retrieved:
    """What the queries found.

    Attributes:
        index: [Q, K] nearest rows, best first.
        similarity: [Q, K].
        found: k -> [Q], whether a clip of the query's class is among its k nearest.
    """

    index: Ints
    similarity: npt.NDArray[np.float32]
    found: dict[int, npt.NDArray[np.bool_]]

    @property
    def recall(self) -> dict[int, float]:
        """R@k: share of the queries with a clip of their class among the k nearest."""
        return {k: float(hit.mean()) for k, hit in self.found.items()}


def retrieve(
    queries: Rows,
    query_labels: Ints,
    rows: Rows,
    labels: Ints,
    at: tuple[int, ...] = RECALL_AT,
    device: torch.device | str = "cpu",
) -> Retrieved:
    """Nearest rows of every query by cosine similarity, and recall at each k (Büchler et al., 2018).

    Args:
        queries: unit vectors [Q, D].
        query_labels: [Q].
        rows: unit vectors [N, D].
        labels: [N].
        at: the k's; one above N counts all N rows.
        device: where the products run.

    Returns:
        Neighbours and recall.
    """
    similarity, index = nearest(queries, rows, min(max(at), len(rows)), device)
    same = labels[index] == query_labels[:, None]  # [Q, K]
    return Retrieved(index, similarity, {k: same[:, :k].any(axis=1) for k in at})
