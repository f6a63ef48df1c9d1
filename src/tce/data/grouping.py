"""Groups of clips (a person, a camera, a session) that a user names, and their means.

Groups are never guessed: folders named by class would lose their classes with their means.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tce.errors import OptionError, TceError

if TYPE_CHECKING:
    from tce.data.catalog import Catalog

COLUMNS = ("group", "recording", "folder")


def group_names(catalog: Catalog, by: str, flag: str = "--group", several: bool = True) -> list[str]:
    """The group of every clip.

    Args:
        catalog: the clips.
        by: "group" (the column of lists and tables), "recording", "folder" (the folder that holds the clip),
            or a regular expression with one group in parentheses, searched in the clip's id.
        flag: the option, for messages.
        several: groups must be of several clips, or nothing would be left of their means.

    Raises:
        OptionError: neither a column nor such a pattern.
        TceError: the pattern is not in a clip's id, or every clip is a group of its own.
    """
    if by == "group":
        names = [str(name) for name in catalog.groups]
    elif by == "recording":
        names = [str(name) for name in catalog.sources]
    elif by == "folder":
        names = [os.path.dirname(path) for path in catalog.paths]
    else:
        names = matched(catalog.ids.tolist(), by, flag)
    if several and len(names) > 1 and len(set(names)) == len(names):
        raise TceError(
            f"{flag} {by}",
            expected="groups of several clips",
            found=f"{len(names)} clips, each a group of its own",
            fix="name another column, or a pattern",
        )
    return names


def matched(ids: Sequence[str], pattern: str, flag: str = "--group") -> list[str]:
    """What a pattern's one group in parentheses finds in each id.

    Raises:
        OptionError: the pattern is none, or has not one group.
        TceError: it is not found in an id.
    """
    expected = f"{', '.join(COLUMNS)}, or a pattern with one group in parentheses"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise OptionError(flag, expected=expected, found=f"{pattern!r}: {error}") from error
    if compiled.groups != 1:
        raise OptionError(flag, expected=expected, found=repr(pattern))
    names = []
    for name in ids:
        match = compiled.search(name)
        if match is None or match[1] is None:
            raise TceError(
                f"{flag} {pattern}", expected="a match in the id of every clip", found=f"none in {name!r}"
            )
        names.append(match[1])
    return names


def subtract_group_means(
    rows: npt.NDArray[np.floating], groups: Sequence[str] | npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Rows [N, D] less the mean of the rows of the same group."""
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    rows = np.asarray(rows, np.float64)
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, number, rows)
    return rows - (sums / np.bincount(number)[:, None])[number]
