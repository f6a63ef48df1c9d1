"""A table's data files: small ones joined, unreadable ones taken out, and what the disk says of it."""

from __future__ import annotations

import itertools
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from tce.data.lance_rows import attempt

if TYPE_CHECKING:
    import lance


def _worth_joining(dataset: lance.LanceDataset, small: int) -> bool:
    """Whether data files are so small that reading at random suffers, or hold deleted rows."""
    fragments = dataset.get_fragments()
    rows = [fragment.count_rows() for fragment in fragments]
    pairs = any(a < small and b < small for a, b in itertools.pairwise(rows))
    return pairs or any(fragment.num_deletions for fragment in fragments)


def tidy(dataset: lance.LanceDataset, small: int, target_rows: int, age: timedelta) -> None:
    """Join data files of fewer than `small` rows, keeping the order, and delete versions older than `age`."""
    if _worth_joining(dataset, small):
        dataset.optimize.compact_files(
            target_rows_per_fragment=target_rows, materialize_deletions_threshold=0.0
        )
    dataset.cleanup_old_versions(older_than=age)


def drop_unreadable(dataset: lance.LanceDataset, column: str) -> int:
    """Take data files that cannot be read out of the table; how many.

    Their rows are lost anyway, and Lance neither deletes nor joins rows beside them.
    """
    import lance

    bad = [
        fragment.fragment_id
        for fragment in dataset.get_fragments()
        if attempt(partial(fragment.to_table, columns=[column]))[1] is not None
    ]
    if bad:
        operation = lance.LanceOperation.Delete([], bad, "true")
        lance.LanceDataset.commit(dataset.uri, operation, read_version=dataset.version)
    return len(bad)


def disk_says(error: BaseException) -> str:
    """The system's words in an error of Lance's about a disk that cannot be written, else nothing."""
    known = ("No space left on device", "Permission denied", "Read-only file system", "File too large")
    return next((words for words in known if words.lower() in str(error).lower()), "")
