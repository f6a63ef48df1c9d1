"""A strong start, adapted to unlabelled footage: the closed form of temporal coherence, and a learned one.

The package is callable: `tce.adapt(...)` is `tce.adapt.adapt.adapt`.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Adapt a pre-trained network to footage; see `tce.adapt.adapt.adapt`."""
        from tce.adapt.adapt import adapt

        return adapt(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
