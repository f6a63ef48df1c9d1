"""What a command's function returns: figures for programs, text for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Result:
    """A finished command's outcome.

    Attributes:
        text: what the shell prints without `--json`; may span lines.
        figures: what `--json` prints; plain Python values, NumPy scalars and arrays allowed.
    """

    text: str
    figures: dict[str, Any] = field(default_factory=dict)


def plain(value: Any) -> Any:
    """`value` in the types JSON knows: arrays become lists, NaN and infinity None, anything else a string."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and torch, without importing either
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
