"""Facts in words: a title and a line each, long lists and many numbers cut down to what a reader wants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def describe(title: str, facts: dict[str, Any]) -> str:
    """A title and a line for each fact that is known."""
    known = {name: value for name, value in facts.items() if value not in (None, "", [], {}, ())}
    width = max(map(len, known), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in known.items())])


def short(value: Any) -> Any:
    """A value for one line: long lists by their ends, numbers without noise."""
    if isinstance(value, list | tuple):
        words = [short(item) for item in value]
        if len(words) > 8:
            return f"{len(words)}: {', '.join(map(str, words[:3]))}, … {words[-1]}"
        return ", ".join(map(str, words))
    if isinstance(value, dict):
        return ", ".join(f"{name} {short(item)}" for name, item in value.items())
    return f"{value:g}" if isinstance(value, float) else value


def some(items: Sequence[str], most: int) -> str:
    """Items in one line, those beyond `most` counted."""
    more = f", and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def spread(values: np.ndarray, unit: str = "") -> str:
    """Least, median and most of some numbers, or the one that they all are."""
    import numpy as np

    if len(values) == 0:
        return ""
    least, middle, most = (f"{value:.4g}" for value in (values.min(), np.median(values), values.max()))
    text = least if least == most else f"{least} to {most}, median {middle}"
    return f"{text} {unit}".strip()


def common(values: Sequence[str]) -> str:
    """The most frequent values and how often each occurs."""
    return some([f"{value} ({count})" for value, count in Counter(values).most_common()], 4)
