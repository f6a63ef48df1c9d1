"""Probes of fixed features: weighted k nearest neighbours, logistic regression, retrieval.

The nearest rows are found by own code, exactly and on either device, since an index's library would be one
more dependency. The logistic regression is torch's L-BFGS: scikit-learn's needs cases of its own for one
class, two classes (another penalty) and classes without clips, and runs on a CPU only; tests use it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tce.data.splits import hold_out
from tce.errors import TceError
from tce.evaluation.metrics import top_k

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.float32] | torch.Tensor

BLOCK_QUERIES = 1024
BLOCK_ROWS = 4096  # 1024 x 4096 similarities are 16 MB: scanned while still in the cache
GROUP = 64
RECALL_AT = (1, 5, 10, 20, 50)
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
DEFAULT_PENALTY = 1e-4  # of 1e-6 to 1e-1 best on letters A-L of the gestures (docs/evaluation.md)


def unit_rows(rows: Floats) -> Floats:
    """Rows [N, D] scaled to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)


def knn_scores(
    queries: Rows,
    rows: Rows,
    labels: Ints,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = "cpu",
) -> Floats:
    """Class scores by weighted k nearest neighbours: each neighbour votes exp(similarity / temperature).

    The protocol of instance discrimination (Wu et al., 2018, section 3.4).

    Args:
        queries: unit vectors [Q, D].
        rows: unit vectors with known class [N, D].
        labels: [N].
        classes: C.
        k: neighbours that vote; all rows where there are fewer.
        temperature: of the votes.
        device: where the products run.

    Returns:
        Scores [Q, C]. Classes without a vote follow those with one, by the mean similarity of their rows
        (less 2, below every vote), so that top-5 is defined for few voters; minus infinity without any row.
    """
    similarity, index = nearest(queries, rows, min(k, len(rows)), device)
    # The best neighbour votes 1: dividing all by one number changes no order and never overflows.
    votes = np.exp((similarity - similarity[:, :1]) / temperature).astype(np.float64)
    cell = np.arange(len(votes))[:, None] * classes + labels[index]  # [Q, k]
    scores = np.bincount(cell.ravel(), votes.ravel(), minlength=len(votes) * classes)
    scores = scores.reshape(len(votes), classes)
    return np.where(scores > 0, scores, _mean_similarity(queries, rows, labels, classes) - 2).astype(
        np.float32
    )


def _mean_similarity(queries: Rows, rows: Rows, labels: Ints, classes: int) -> npt.NDArray[np.float64]:
    """Mean dot product of each query with the rows of each class, [Q, C]; minus infinity without any row."""
    found = np.full((len(queries), classes), -np.inf)
    asked = np.asarray(torch.as_tensor(queries).cpu())
    for label in np.unique(labels):
        mean = np.asarray(torch.as_tensor(rows[labels == label]).cpu(), np.float64).mean(axis=0)
        found[:, label] = asked @ mean
    return found


@dataclass
class LinearProbe:
    """Multinomial logistic regression on centred features, scaled by one number.

    Attributes:
        mean: [D], taken off the features.
        scale: multiplied with them.
        weight: [C, D].
        bias: [C].
        penalty: strength of the squared-weight penalty.
        chosen_on: how the penalty was chosen, in words.
    """

    mean: Tensor
    scale: float
    weight: Tensor
    bias: Tensor
    penalty: float
    chosen_on: str

    def scores(self, features: Floats) -> Floats:
        """Features [N, D] -> logits [N, C]."""
        x = (torch.as_tensor(features).to(self.mean) - self.mean) * self.scale
        return (x @ self.weight.T + self.bias).cpu().numpy()


def fit_linear(
    features: Floats,
    labels: Ints,
    groups: list[str] | npt.NDArray[np.str_],
    classes: int,
    seed: int = 0,
    penalty: float | None = None,
    device: torch.device | str = "cpu",
) -> LinearProbe:
    """Fit a linear probe by L-BFGS to its optimum: there is no learning rate and no number of epochs.

    The penalty is chosen among powers of ten on groups held out of the training clips, then all clips are
    fitted with it. Where classes have one recording each, no group can be held out and the penalty is
    `DEFAULT_PENALTY`.

    Args:
        features: [N, D].
        labels: [N].
        groups: [N] the group (person, recording) of each clip.
        classes: C.
        seed: of the clips held out.
        penalty: fixes the strength.
        device: where the fit runs.

    Returns:
        The fitted probe.
    """
    chosen_on = "given"
    if penalty is None:
        penalty, chosen_on = _choose_penalty(features, labels, list(groups), classes, seed, device)
    return _fit(features, labels, classes, penalty, chosen_on, device)


def _choose_penalty(
    features: Floats, labels: Ints, groups: list[str], classes: int, seed: int, device: torch.device | str
) -> tuple[float, str]:
    held, strategy = hold_out(labels, groups, 0.25, seed)
    if "groups" not in strategy:  # neighbouring pieces of one recording would choose the weakest penalty
        return DEFAULT_PENALTY, "default, as there are too few groups to choose it on"
    strategy = f"chosen on held-out {strategy}"
    best = (-1.0, DEFAULT_PENALTY)
    for penalty in PENALTIES:
        probe = _fit(features[~held], labels[~held], classes, penalty, strategy, device)
        right = top_k(probe.scores(features[held]), labels[held], 1).mean()
        best = max(best, (float(right), penalty))  # of equals, the stronger penalty
    return best[1], strategy


def _fit(
    features: Floats, labels: Ints, classes: int, penalty: float, chosen_on: str, device: torch.device | str
) -> LinearProbe:
    center, scale = center_and_scale(features)
    mean = torch.as_tensor(center).to(device)
    x = (torch.as_tensor(features, dtype=torch.float32).to(device) - mean) * scale  # [N, D]
    y = torch.as_tensor(labels).to(device)
    weight, bias = solve_logistic(x, y, classes, penalty)
    return LinearProbe(mean, scale, weight, bias, penalty, chosen_on)


def center_and_scale(features: Floats) -> tuple[Floats, float]:
    """The mean [D] and one factor for all dimensions, with which their mean square becomes 1.

    A factor for each dimension (deviation 1) would blow up those in which the features hardly differ: of an
    adapted network's 1,280 most tell nothing about the clips, and the probe would be fitted to these. With
    one factor, neither rotating nor scaling the features changes a prediction.

    Args:
        features: [N, D] of the training clips.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    variance = features.var(axis=0, dtype=np.float64).mean()
    return mean.astype(np.float32), float(1 / np.sqrt(max(variance, 1e-12)))


def solve_logistic(x: Tensor, labels: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """The optimum of multinomial logistic regression: mean cross-entropy + penalty * squared weights.

    Args:
        x: float32 [N, D].
        labels: int64 [N].
        classes: C.
        penalty: of the weights; the bias has none.

    Returns:
        Weight [C, D] and bias [C].
    """
    weight = torch.zeros(classes, x.shape[1], device=x.device, requires_grad=True)
    bias = torch.zeros(classes, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=200, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(x @ weight.T + bias, labels) + penalty * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(objective)
    return weight.detach(), bias.detach()


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
        at: the k's; of those above N - 1, for which every row would be found, none is computed but 1.
        device: where the products run.

    Returns:
        Neighbours and recall.
    """
    similarity, index = nearest(queries, rows, min(max(at), len(rows)), device)
    same = labels[index] == query_labels[:, None]  # [Q, K]
    informative = [k for k in at if k < len(rows) or k == 1]
    return Retrieved(index, similarity, {k: same[:, :k].any(axis=1) for k in informative})


def nearest(
    queries: Rows, rows: Rows, k: int, device: torch.device | str = "cpu"
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The k rows with the highest dot product for every query, best first.

    Similarities are made block by block and never kept. Nearly all of them lie below the query's k-th best
    so far, so each block is only reduced to the maximum of every group of 64, and groups that pass are
    looked at again: that costs about a tenth of the product, where a top-k would cost as much as the product.
    Equal similarities come in any order.

    Args:
        queries: [Q, D].
        rows: [N, D]; a memory map is read block by block.
        k: neighbours wanted, at most N.
        device: where the product runs.

    Returns:
        Similarities [Q, k] and row numbers [Q, k].

    Raises:
        TceError: k is below 1 or above N, or the dimensions differ.
    """
    if not 1 <= k <= len(rows):
        raise TceError("neighbours", expected=f"k between 1 and the {len(rows)} rows", found=f"k = {k}")
    if queries.shape[1] != rows.shape[1]:
        raise TceError(
            "neighbours",
            expected="queries and rows of one dimension",
            found=f"{queries.shape[1]} and {rows.shape[1]}",
        )
    similarity = np.empty((len(queries), k), np.float32)
    index = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), BLOCK_QUERIES):
        block = slice(start, start + BLOCK_QUERIES)
        best = _Best(_tensor(queries[block], device), k)
        for first in range(0, len(rows), max(BLOCK_ROWS, k)):
            best.see(_tensor(rows[first : first + max(BLOCK_ROWS, k)], device), first)
        similarity[block], index[block] = best.finish()
    return similarity, index


def _tensor(rows: Rows, device: torch.device | str) -> torch.Tensor:
    return torch.as_tensor(rows).to(device=device, dtype=torch.float32)


class _Best:
    """The k best rows seen so far for one block of queries.

    Rows that pass the threshold wait in a list and are merged when they are as many as the best themselves;
    until then the threshold is a little too low, which lets a few more pass but loses none.
    """

    def __init__(self, queries: torch.Tensor, k: int):
        self.queries, self.k = queries, k
        self.similarity = torch.empty(len(queries), 0, device=queries.device)  # [q, k] once a block is seen
        self.index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        self.waiting: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # query, similarity, row
        self.passed = 0
        self.product = torch.empty(0, device=queries.device)

    @torch.no_grad()
    def see(self, rows: torch.Tensor, first: int) -> None:
        """Take a block of rows [n, D] into account, the first of them numbered `first`."""
        q, n = len(self.queries), len(rows)
        if self.product.shape != (q, n):
            self.product = torch.empty(q, n, device=rows.device)
        torch.mm(self.queries, rows.t(), out=self.product)  # [q, n]
        if self.similarity.shape[1] < self.k:
            self._start(first)
        else:
            self._scan(first)
        if self.passed > q * self.k:
            self._merge()

    def _start(self, first: int) -> None:
        found, index = self.product.topk(min(self.k, self.product.shape[1]), dim=1)
        self.similarity = torch.cat([self.similarity, found], dim=1)
        self.index = torch.cat([self.index, index + first], dim=1)
        if self.similarity.shape[1] > self.k:
            self.similarity, order = self.similarity.topk(self.k, dim=1)
            self.index = self.index.gather(1, order)
        self.similarity, order = self.similarity.sort(dim=1, descending=True)
        self.index = self.index.gather(1, order)

    def _scan(self, first: int) -> None:
        q, n = self.product.shape
        threshold = self.similarity[:, -1:]  # [q, 1]
        whole = n // GROUP * GROUP
        if whole:
            # Group j holds columns j, j + width, ...: the maximum then runs over the slow axis, vectorised.
            groups = self.product[:, :whole].view(q, GROUP, whole // GROUP)
            query, group = _where(groups.amax(dim=1), threshold)  # [hits] each
            found = groups[query, :, group]  # [hits, GROUP]
            hit, member = _where(found, threshold[query])
            self._keep(query[hit], found[hit, member], group[hit] + member * (whole // GROUP) + first)
        if whole < n:
            rest = self.product[:, whole:]
            query, column = _where(rest, threshold)
            self._keep(query, rest[query, column], column + whole + first)

    def _keep(self, query: torch.Tensor, similarity: torch.Tensor, index: torch.Tensor) -> None:
        if len(query):
            self.waiting.append((query, similarity, index))
            self.passed += len(query)

    def _merge(self) -> None:
        q, k = self.similarity.shape
        owner = torch.arange(q, device=self.index.device).repeat_interleave(k)
        query = torch.cat([owner, *(waiting[0] for waiting in self.waiting)])
        similarity = torch.cat([self.similarity.flatten(), *(waiting[1] for waiting in self.waiting)])
        index = torch.cat([self.index.flatten(), *(waiting[2] for waiting in self.waiting)])
        order = _order(query, similarity)
        starts = torch.bincount(query, minlength=q).cumsum(0).roll(1)
        starts[0] = 0
        chosen = order[starts[:, None] + torch.arange(k, device=order.device)]  # [q, k]
        self.similarity, self.index = similarity[chosen], index[chosen]
        self.waiting, self.passed = [], 0

    def finish(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Similarities [q, k] and row numbers [q, k], best first."""
        self._merge()
        return self.similarity.cpu().numpy(), self.index.cpu().numpy()


def _where(values: torch.Tensor, threshold: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of `values` [n, m] above `threshold` [n, 1]; on a CPU NumPy finds them much faster."""
    if values.is_cuda:
        row, column = (values > threshold).nonzero(as_tuple=True)
        return row, column
    flat = np.flatnonzero(values.numpy() > threshold.numpy())
    return torch.from_numpy(flat // values.shape[1]), torch.from_numpy(flat % values.shape[1])


def _order(query: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
    """The order by query, then by falling similarity, in one sort of whole numbers."""
    bits = similarity.view(torch.int32)
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # orders as the floats do
    key = query * 2**32 - rising.to(torch.int64)
    return key.argsort() if key.is_cuda else torch.from_numpy(np.argsort(key.numpy()))
