"""A strong start, adapted to unlabelled footage: the closed form of temporal coherence, and a learned one.

The package is callable: `tce.adapt(...)` is the command.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """The command with flat keywords: `tce.adapt("videos/", out="runs/mine")`."""
        from tce.api import command_function

        return command_function("adapt")(*arguments, **keywords)


sys.modules[__name__].__class__ = _Callable
