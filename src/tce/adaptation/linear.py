"""Linear temporal adaptation: frames of one clip move closer, clips apart, in closed form.

With W the mean covariance of a clip's frames and T the covariance of all frames, the rows of the map are the
generalised eigenvectors of (T, W): features are whitened by what changes within clips, and ordered by how
much clips differ. This is linear discriminant analysis with the clip's number as the class; see also slow
feature analysis (Wiskott and Sejnowski, 2002) and relevant component analysis (Bar-Hillel et al., 2005).

W and T come from sums over clips in float64: frames stream through once, and the sums of several processes,
or of footage that was added later, are sums again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tce.errors import OptionError, TceError

Floats = npt.NDArray[np.float64]

BLOCK_ROWS = 1024  # rows gathered for one product: large enough for the processor, small enough for memory
NO_GROUP = ""
ROUNDING = 1e-9  # of times
TINY = 1e-12  # of the features' mean square: below it a scatter is rounding


@dataclass(frozen=True)
class Piece:
    """Frames of a clip, or of a part of a long recording.

    Attributes:
        features: [n, F].
        time: [n], seconds, rising; only differences matter.
        horizon: farthest in seconds that two of its frames may be apart to count as the same thing; None: all
            of them do.
    """

    features: npt.NDArray[np.floating[Any]]
    time: Floats
    horizon: float | None = None


@dataclass(frozen=True)
class LinearMap:
    """An affine map of features, `features @ weight.T + bias`.

    Attributes:
        weight: [D, F], directions of falling ratio.
        bias: [D]; it takes the mean of the clips to 0.
        ratio: [D], total by within-clip variance along each direction, both shrunk.
        shrinkage: share of the mean eigenvalue in W and T.
    """

    weight: Floats
    bias: Floats
    ratio: Floats
    shrinkage: float

    def __call__(self, features: npt.NDArray[np.floating[Any]]) -> Floats:
        """Features [..., F] -> [..., D], not normalised."""
        return features @ self.weight.T + self.bias

    def first(self, size: int | None) -> LinearMap:
        """The map onto the first `size` directions; None keeps all."""
        return LinearMap(self.weight[:size], self.bias[:size], self.ratio[:size], self.shrinkage)


class _Products:
    """The sum of weighted outer products of rows [F], in blocks."""

    def __init__(self, size: int):
        self.total = np.zeros((size, size))
        self._rows = np.empty((BLOCK_ROWS, size))
        self._count = 0

    def add(self, rows: Floats, weight: float) -> None:
        """Add weight * sum of r r^T over rows [n, F]."""
        scale = weight**0.5
        while len(rows):
            part = rows[: BLOCK_ROWS - self._count]
            np.multiply(part, scale, out=self._rows[self._count : self._count + len(part)])
            self._count += len(part)
            if self._count == BLOCK_ROWS:
                self.flush()
            rows = rows[len(part) :]

    def flush(self) -> Floats:
        """The sum so far, [F, F]."""
        if self._count:
            rows = self._rows[: self._count]
            self.total += rows.T @ rows
            self._count = 0
        return self.total


class ScatterSums:
    """Sums over clips from which `solve` finds the map; every clip weighs the same.

    Args:
        size: numbers in a feature vector, F.

    Attributes:
        clips: clips seen.
        paired: clips seen that had two frames within the horizon, and so take part in W.
    """

    def __init__(self, size: int):
        self.size = size
        self.clips = self.paired = 0
        self._within, self._second = _Products(size), _Products(size)
        self._groups: dict[str, tuple[int, Floats]] = {}  # group -> clips, sum of their means [F]

    def add(self, pieces: Sequence[Piece], group: str = NO_GROUP) -> None:
        """Add one clip.

        Args:
            pieces: its frames; of a long recording, pieces that weigh the same.
            group: whose clip it is (a person, a camera, a session), where groups are to be centred.

        Raises:
            TceError: features of another size, or numbers that are not finite.
        """
        rows = [np.asarray(piece.features, np.float64) for piece in pieces]
        for row in rows:
            self._check(row)
        self.clips += 1
        for row in rows:
            self._second.add(row, 1 / (len(rows) * len(row)))
        count, total = self._groups.get(group, (0, np.zeros(self.size)))
        mean = np.mean([row.mean(axis=0) for row in rows], axis=0)
        self._groups[group] = (count + 1, total + mean)
        found = [_spread(row, piece) for row, piece in zip(rows, pieces, strict=True)]
        spreads = [spread for spread in found if spread is not None]
        self.paired += bool(spreads)
        for rows_apart, weight in spreads:
            self._within.add(rows_apart, weight / len(spreads))

    def _check(self, rows: Floats) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.size or len(rows) == 0:
            raise TceError("features", expected=f"[n, {self.size}], n at least 1", found=f"{rows.shape}")
        if not np.isfinite(rows).all():
            raise TceError(
                "features",
                expected="finite numbers",
                found="NaN or infinity",
                fix="check the start's weights",
            )

    def merge(self, other: ScatterSums) -> None:
        """Add the sums of other clips, gathered elsewhere or earlier.

        Raises:
            TceError: sums of other features.
        """
        if self.size != other.size:
            raise TceError(
                "sums of scatter",
                expected=f"{self.size} features",
                found=str(other.size),
                fix="adapt all footage with the same start",
            )
        self.clips += other.clips
        self.paired += other.paired
        for own, theirs in ((self._within, other._within), (self._second, other._second)):
            own.flush()
            own.total = own.total + theirs.flush()
        for group, (count, total) in other._groups.items():
            before, sums = self._groups.get(group, (0, np.zeros(self.size)))
            self._groups[group] = (before + count, sums + total)

    @classmethod
    def merged(cls, parts: Iterable[ScatterSums]) -> ScatterSums:
        """The sums of all parts, at least one; the parts stay as they are."""
        parts = list(parts)
        whole = cls(parts[0].size)
        for part in parts:
            whole.merge(part)
        return whole

    @property
    def mean(self) -> Floats:
        """Mean of the clips' means, [F]."""
        return np.sum([total for _, (_, total) in sorted(self._groups.items())], axis=0) / self.clips

    @property
    def within(self) -> Floats:
        """W: mean over clips of the covariance of a clip's frames, [F, F]."""
        return self._within.flush() / max(self.paired, 1)

    @property
    def total(self) -> Floats:
        """T: covariance of all frames around their group's mean, every clip weighing the same, [F, F]."""
        centred = self._second.flush() / self.clips
        for _, (count, total) in sorted(self._groups.items()):
            mean = total / count
            centred = centred - count / self.clips * np.outer(mean, mean)
        return centred

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All there is as arrays, for a file; the symmetric sums as upper triangles."""
        upper = np.triu_indices(self.size)
        names = sorted(self._groups)
        return {
            "within": self._within.flush()[upper],
            "second": self._second.flush()[upper],
            "counts": np.array([self.clips, self.paired], np.int64),
            "group_clips": np.array([self._groups[name][0] for name in names], np.int64),
            "group_sums": np.array([self._groups[name][1] for name in names]).reshape(-1, self.size),
            "group_names": np.frombuffer("\0".join(names).encode(), np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[Any]], size: int) -> ScatterSums:
        """What `to_arrays` gave."""
        sums = cls(size)
        upper = np.triu_indices(size)
        for products, name in ((sums._within, "within"), (sums._second, "second")):
            products.total[upper] = arrays[name]
            products.total.T[upper] = arrays[name]
        sums.clips, sums.paired = (int(count) for count in arrays["counts"])
        names = arrays["group_names"].tobytes().decode().split("\0")
        for name, count, total in zip(names, arrays["group_clips"], arrays["group_sums"]):
            sums._groups[name] = (int(count), total.astype(np.float64))
        return sums


def _spread(rows: Floats, piece: Piece) -> tuple[Floats, float] | None:
    """Rows and their weight, whose outer products sum to half the mean over pairs of d d^T.

    d is the difference of two frames. Over all pairs that is the covariance (divided by n - 1), for which the
    n centred rows serve.
    """
    count, time = len(rows), piece.time
    if count < 2:
        return None
    if piece.horizon is None or time[-1] - time[0] <= piece.horizon:
        return rows - rows.mean(axis=0), 1 / (count - 1)
    first, second = np.triu_indices(count, 1)
    near = time[second] - time[first] <= piece.horizon * (1 + ROUNDING)
    if not near.any():
        return None
    return rows[first[near]] - rows[second[near]], 1 / (2 * int(near.sum()))


def shrink(scatter: Floats, share: float) -> Floats:
    """(1 - share) times a scatter matrix, plus share times its mean eigenvalue on the diagonal."""
    size = len(scatter)
    return (1 - share) * scatter + share * np.trace(scatter) / size * np.eye(size)


@dataclass(frozen=True)
class Decomposition:
    """W's eigenvectors, from which maps of any shrinkage follow without another one.

    Attributes:
        values: eigenvalues of W, [F].
        vectors: as columns, [F, F].
        total: T, [F, F].
        mean: [F].
    """

    values: Floats
    vectors: Floats
    total: Floats
    mean: Floats

    def whitening(self, shrinkage: float) -> Floats:
        """[F, F] matrix A with A^T W A = 1, W shrunk; distances after it are those of the whole map."""
        values = (1 - shrinkage) * self.values + shrinkage * self.values.mean()
        if values.min() <= TINY * values.max():
            raise OptionError(
                "--shrinkage",
                expected="above 0, as frames do not vary in every direction",
                found=f"{shrinkage:g}",
            )
        return self.vectors / np.sqrt(values)

    def solve(self, shrinkage: float, size: int | None = None) -> LinearMap:
        """The map of that shrinkage, onto its first `size` directions or all.

        Raises:
            OptionError: no shrinkage where W is singular.
        """
        whiten = self.whitening(shrinkage)
        ratio, turn = np.linalg.eigh(whiten.T @ shrink(self.total, shrinkage) @ whiten)
        weight = (whiten @ turn[:, ::-1][:, :size]).T  # [D, F]
        # An eigenvector's sign is arbitrary: the largest entry is made positive, so that runs agree.
        largest = np.abs(weight).argmax(axis=1)
        weight = weight * np.sign(weight[np.arange(len(weight)), largest])[:, None]
        return LinearMap(weight, -weight @ self.mean, ratio[::-1][:size].copy(), shrinkage)


def decompose(sums: ScatterSums) -> Decomposition:
    """Take the sums apart.

    Raises:
        TceError: no clip with two frames within the horizon, frames of a clip that never differ, or features
            that are the same everywhere.
    """
    if sums.paired == 0:
        raise TceError(
            "FOOTAGE",
            expected="clips with two frames or more within the horizon",
            found=f"none among {sums.clips}",
            fix="take more frames: --frames-per-clip, --fps, or a longer --horizon",
        )
    within, total = sums.within, sums.total
    scale = TINY * float(np.trace(sums._second.flush())) / sums.clips
    if np.trace(total) <= scale:
        raise TceError(
            "FOOTAGE", expected="frames that differ", found="the same features in all of them", fix="check it"
        )
    if np.trace(within) <= scale:
        raise TceError(
            "FOOTAGE",
            expected="clips in which something moves",
            found="the same features in all frames of a clip",
            fix="give videos, not still images",
        )
    values, vectors = np.linalg.eigh(within)
    return Decomposition(np.maximum(values, 0), vectors, total, sums.mean)
