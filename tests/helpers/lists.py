"""Files of lists and empty clips."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tce.data.read_catalog import Catalog


def touch(root: Path, *names: str) -> Path:
    """Files without content: the catalog never looks into one."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def rows(catalog: Catalog) -> list[tuple[str, str | None, str | None]]:
    return [(clip.id, clip.label, clip.split) for clip in catalog]


def write(path: Path, lines: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path
