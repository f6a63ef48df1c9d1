"""The clips of a dataset with labels, splits and recordings, in columns: a million cost little memory."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tce.data.listing import class_order
from tce.errors import OptionError, TceError

Strings = NDArray[np.object_]  # of str, or None where nothing is known

PIECE_SUFFIX = r"#\d{4,}$"  # what `Catalog.cut` appends to an id
_BLOCK = 4096  # clips that are made together when iterating
# UCF101's names of clips: class, group (the recording and, there, the person), piece of that recording.
_UCF_NAME = r"(?:^|/)v_[^/]+_g\d+_c\d+$"

SKETCH_HASHES = 128  # of a clip sketch
HASH_DIGITS = 8


@dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
        id: its name within the dataset, unique: the path below the dataset's folder without suffix.
        path: the video file or frame folder.
        start: where it begins in that file, in seconds; None for the file's beginning.
        end: where it ends, in seconds; None for the file's end.
        label: its class, if known.
        split: "train", "val", "test" or None.
        group: who or what must not be shared between training and test ("g01"), else the source.
        source: the recording it was cut from ("Archery_g01"), else the id.
    """

    id: str
    path: str
    start: float | None
    end: float | None
    label: str | None
    split: str | None
    group: str
    source: str


class Catalog:
    """The clips of a dataset as columns; a row is a `Clip`.

    Args:
        ids: unique names.
        paths: files or frame folders, absolute or below `root`.
        labels: class names, None where unknown.
        splits: "train", "val", "test", None.
        groups: see `Clip`; read out of UCF101-style ids, else the source, if not given.
        sources: see `Clip`; read out of UCF101-style ids, else the id, if not given.
        starts: seconds, NaN for the beginning.
        ends: seconds, NaN for the end.
        classes: class names in the order of their numbers; the names of `labels`, sorted, if not given.
        root: folder below which relative paths lie.
        missing: names that the dataset's lists hold, but that have no footage.
        skipped: what could not be looked at, each with its reason.
        listed: number of clips that the dataset's lists name; 0 if there are no lists.

    Raises:
        TceError: two clips have the same id, or columns differ in length.
    """

    def __init__(
        self,
        ids: Iterable[str],
        paths: Iterable[str],
        labels: Iterable[str | None] | None = None,
        splits: Iterable[str | None] | None = None,
        groups: Iterable[str | None] | None = None,
        sources: Iterable[str | None] | None = None,
        starts: Iterable[float] | None = None,
        ends: Iterable[float] | None = None,
        classes: Sequence[str] | None = None,
        root: str = "",
        missing: Sequence[str] = (),
        skipped: Sequence[str] = (),
        listed: int = 0,
    ):
        self._ids = _strings(ids)
        self._paths = _strings(paths)
        self.root = root
        self.missing = list(missing)
        self.skipped = list(skipped)
        self.listed = listed
        labels = _nothing(len(self._ids)) if labels is None else _strings(labels)
        self.classes: list[str] = class_order(_known(labels)) if classes is None else list(classes)
        self.labels: NDArray[np.int64] = _numbers(labels, self.classes)
        self._splits = _coded(_nothing(len(self._ids)) if splits is None else splits)
        self._given_sources = None if sources is None else _strings(sources)
        self._given_groups = None if groups is None else _strings(groups)
        self.starts = _seconds(starts, len(self._ids))
        self.ends = _seconds(ends, len(self._ids))
        self._check()

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row: int) -> Clip:
        row = range(len(self))[row]  # negative rows, and IndexError beyond
        return next(self._clips(row, row + 1))

    def __iter__(self) -> Iterator[Clip]:
        # In blocks: a cell of an Arrow column costs ten times as much as one of a list of them.
        for first in range(0, len(self), _BLOCK):
            yield from self._clips(first, min(first + _BLOCK, len(self)))

    def _clips(self, first: int, stop: int) -> Iterator[Clip]:
        columns = (self._ids, self._paths, self._splits, self._groups, self._sources)
        texts = zip(*(column[first:stop].to_pylist() for column in columns))
        numbers = zip(*(column[first:stop].tolist() for column in (self.labels, self.starts, self.ends)))
        for (name, path, split, group, source), (label, start, end) in zip(texts, numbers):
            yield Clip(
                id=name,
                path=os.path.join(self.root, path),
                start=None if math.isnan(start) else start,
                end=None if math.isnan(end) else end,
                label=self.classes[label] if label >= 0 else None,
                split=split,
                group=group,
                source=source,
            )

    def __repr__(self) -> str:
        return f"Catalog({len(self)} clips, {len(self.classes)} classes, root={self.root!r})"

    @property
    def ids(self) -> Strings:
        """Names of the clips [n]."""
        return _array(self._ids)

    @property
    def paths(self) -> Strings:
        """Files or frame folders of the clips [n]."""
        paths = self._paths.to_pylist()
        return np.array([os.path.join(self.root, path) for path in paths] or [], object)

    @property
    def splits(self) -> Strings:
        """The clips' splits [n]: "train", "val", "test" or None."""
        return _array(self._splits)

    @property
    def sources(self) -> Strings:
        """Recordings that the clips were cut from [n]."""
        return _array(self._sources)

    @property
    def groups(self) -> Strings:
        """Who or what must not be shared between training and test [n]."""
        return _array(self._groups)

    @cached_property
    def _sources(self) -> pa.Array:
        given = self._given_sources if self._given_sources is not None else _recordings(self._ids)
        return _compact(pc.coalesce(given, self._ids))

    @cached_property
    def _groups(self) -> pa.Array:
        given = self._given_groups if self._given_groups is not None else _people(_recordings(self._ids))
        return _compact(pc.coalesce(given, self._sources.cast(pa.string())))

    @cached_property
    def source_numbers(self) -> NDArray[np.int64]:
        """The recordings as numbers [n], equal where the recording is."""
        return _codes(self._sources)

    @cached_property
    def group_numbers(self) -> NDArray[np.int64]:
        """The groups as numbers [n], equal where the group is."""
        return _codes(self._groups)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64] | Sequence[int]) -> Catalog:
        """The clips of a mask bool [n], or of row numbers in the order given; class numbers stay."""
        rows = np.asarray(rows)
        if rows.dtype == np.bool_:
            if len(rows) != len(self):
                raise ValueError(f"a mask of {len(rows)} for {len(self)} clips")
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.int64)  # an empty list comes as floats
        take = pa.array(rows)
        part = object.__new__(Catalog)
        part.root, part.classes = self.root, self.classes
        part.missing = self.missing
        part.skipped = self.skipped
        part.listed = self.listed
        for name in ("_ids", "_paths", "_splits", "_given_sources", "_given_groups"):
            column = getattr(self, name)
            setattr(part, name, None if column is None else column.take(take))
        part.labels = self.labels[rows]
        part.starts = self.starts[rows]
        part.ends = self.ends[rows]
        return part

    def where(self, split: str) -> Catalog:
        """The clips of one split.

        Raises:
            OptionError: no clip has that split; names those that there are.
        """
        rows = np.flatnonzero(self.splits == split)
        if len(rows) == 0:
            there = sorted(_known(self._splits)) or ["no splits at all: give --lists"]
            raise OptionError("--split", f"one of the splits of {self.root}", f"{split!r}", ", ".join(there))
        return self.select(rows)

    def cut(self, ranges: Sequence[Sequence[tuple[float, float]]]) -> Catalog:
        """Each clip replaced by pieces of it, named `id#0000`, `id#0001`, ...; their source is the recording.

        Args:
            ranges: for each clip the start and end seconds of its pieces; none: the clip stays whole.
        """
        assert len(ranges) == len(self)
        rows = np.repeat(np.arange(len(self)), [max(1, len(pieces)) for pieces in ranges])
        part = self.select(rows)
        take = pa.array(rows)
        part._given_sources, part._given_groups = self._sources.take(take), self._groups.take(take)
        names, old = [], self._ids.to_pylist()
        for row, pieces in enumerate(ranges):
            names += [f"{old[row]}#{piece:04d}" for piece in range(len(pieces))] or [old[row]]
        part._ids = _strings(names)
        spans = [
            span
            for row, pieces in enumerate(ranges)
            for span in (pieces or [(float(self.starts[row]), float(self.ends[row]))])
        ]
        part.starts, part.ends = np.array(spans, np.float64).reshape(-1, 2).T.copy()
        return part

    def _check(self) -> None:
        lengths = {len(self._ids), len(self._paths), len(self.labels), len(self._splits)}
        lengths |= {len(self.starts), len(self.ends)}
        lengths |= {len(given) for given in (self._given_sources, self._given_groups) if given is not None}
        if len(lengths) != 1:
            raise TceError("catalog", "columns of one length", f"lengths {sorted(lengths)}")
        if len(self._ids.dictionary_encode().dictionary) != len(self._ids):
            twice = pc.value_counts(self._ids)
            twice = twice.filter(pc.greater(twice.field("counts"), 1)).field("values")
            raise TceError("catalog", "a name of its own for each clip", f"{twice[0].as_py()!r} twice")


def _strings(values: Iterable[Any]) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return values.cast(pa.string())
    if isinstance(values, np.ndarray):
        values = values.astype(object)
    elif not isinstance(values, list):
        values = list(values)
    return pa.array(values, pa.string(), from_pandas=True)


def _nothing(n: int) -> pa.Array:
    return pa.nulls(n, pa.string())


def _coded(values: Iterable[Any]) -> pa.DictionaryArray:
    return _strings(values).dictionary_encode()


def _known(values: pa.Array) -> list[str]:
    return [value for value in pc.unique(values).to_pylist() if value is not None]


def _numbers(labels: pa.Array, classes: list[str]) -> NDArray[np.int64]:
    places = pc.index_in(labels, pa.array(classes, pa.string()))
    unknown = pc.and_(pc.is_valid(labels), pc.is_null(places))
    if pc.any(unknown).as_py():
        name = labels.filter(unknown)[0].as_py()
        raise TceError("catalog", "labels that are among the classes", repr(name), "correct the list")
    return places.fill_null(-1).cast(pa.int64()).to_numpy()


def _recordings(ids: pa.Array) -> pa.Array:
    """Recordings out of UCF101-style ids, "Archery_g01"; null elsewhere."""
    # Matching and cutting, not capturing: several times quicker over a million ids.
    cut = pc.replace_substring_regex(pc.replace_substring_regex(ids, r"_c\d+$", ""), r"^(?:.*/)?v_", "")
    return pc.if_else(pc.match_substring_regex(ids, _UCF_NAME), cut, pa.scalar(None, pa.string()))


def _people(recordings: pa.Array) -> pa.Array:
    """The group out of each recording's name, "g01" of "Archery_g01"; null where it has none."""
    coded = recordings.dictionary_encode()
    groups = pc.extract_regex(coded.dictionary, r"_(?P<group>g\d+)$").field("group")
    return groups.take(coded.indices)


def _compact(values: pa.Array) -> pa.Array:
    """Dictionary-encoded where values repeat."""
    coded = values.dictionary_encode()
    return coded if len(coded.dictionary) * 2 < len(values) else values


def _array(values: pa.Array) -> Strings:
    if isinstance(values, pa.DictionaryArray):
        # One str object a distinct value, shared by its rows.
        names = np.append(values.dictionary.to_numpy(zero_copy_only=False), np.array([None], object))
        return names[values.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False)]
    return values.to_numpy(zero_copy_only=False)


def _codes(values: pa.Array) -> NDArray[np.int64]:
    coded = values if isinstance(values, pa.DictionaryArray) else values.dictionary_encode()
    return coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _seconds(values: Iterable[float] | None, n: int) -> NDArray[np.float64]:
    if values is None:
        return np.full(n, np.nan)
    return np.asarray(list(values) if not isinstance(values, np.ndarray) else values, np.float64)


def clip_sketch(ids: Iterable[str]) -> str:
    """A small sample of clips, to find out later whether a network was trained on others.

    The smallest hashes of the clips' names are kept (a bottom-k sketch, Cohen and Kaplan, 2007). Of other
    clips, those with hashes as small as these must be in the sample if the network was trained on them.

    Returns:
        Hexadecimal digits, one kilobyte at most.
    """
    return "".join(sorted({_hash(name) for name in ids})[:SKETCH_HASHES])


def share_seen(ids: Iterable[str], sketch: str) -> float:
    """Estimated share of clips that are among those of a sketch, exact where it holds all of them.

    Args:
        ids: the clips' names.
        sketch: what `clip_sketch` returned for others.
    """
    kept = _hashes(sketch)
    bound = kept[-1] if len(kept) == SKETCH_HASHES else "g"  # above every hash: all of them are known
    asked = {digest for digest in map(_hash, ids) if digest <= bound}
    return len(asked & set(kept)) / len(asked) if asked else 0.0


def describe_sketch(sketch: str) -> str:
    """How many clips a sketch is of, "12" or "about 9,500"; "unknown" if it is none."""
    if not re.fullmatch(rf"(?:[0-9a-f]{{{HASH_DIGITS}}})*", sketch):
        return "unknown"
    kept = _hashes(sketch)
    if len(kept) != SKETCH_HASHES:
        return f"{len(kept):,}"
    # The k-th smallest of n uniform numbers in [0, 1) lies near k / n; (k - 1) makes the estimate unbiased.
    estimate = (SKETCH_HASHES - 1) * 16**HASH_DIGITS / max(int(kept[-1], 16), 1)
    return f"about {float(f'{estimate:.2g}'):,.0f}"


def _hashes(sketch: str) -> list[str]:
    return [sketch[place : place + HASH_DIGITS] for place in range(0, len(sketch), HASH_DIGITS)]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:HASH_DIGITS]
