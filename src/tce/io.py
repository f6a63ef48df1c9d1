"""Files written whole or not at all, and found unwritable before the work rather than after it."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from tce.errors import TceError


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """A file to write that replaces `path` when the block ends well, and leaves `path` as it was otherwise.

    The data is flushed to the disk before the replacement: a power cut leaves the old file or the new one.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's private mode would stay with the file
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def require_writable(path: str | os.PathLike[str], what: str = "--output") -> Path:
    """`path` itself, once it is sure that a file can be written there; missing parent folders are made.

    Raises:
        TceError: `path` is a folder, or its folder cannot be made or written to.
    """
    target = Path(path)
    if target.is_dir():
        raise TceError(
            f"{what} {target}", expected="a file to write", found="a folder", fix="name a file in it"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".tce-"):
            return target
    except OSError as error:
        raise TceError(
            f"{what} {target}",
            expected="a place that can be written",
            found=error.strerror or str(error),
            fix="choose another place or change its permissions",
        ) from error


def content_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


import zipfile
from collections.abc import Iterable, Iterator
