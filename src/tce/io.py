"""Files written whole or not at all, checked before the work; locks; JSON read within bounds; results."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import html
import json
import math
import os
import re
import socket
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tce.errors import TceError

MOST_JSON = 16 << 20  # bytes of a description; the largest in use are below one megabyte
MOST_VALUES, DEEPEST = 200_000, 32  # in a description

_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """A file to write that replaces `path` when the block ends well, and leaves `path` as it was otherwise.

    The data is flushed to the disk before the replacement: a power cut leaves the old file or the new one.
    What a killed process left of the same file is removed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    prefix = f".{target.name}.{_HOST}-{os.getpid()}-"
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=target.parent)
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


def _remove_leftovers(target: Path) -> None:
    """Remove the unfinished copies of a file whose writers are dead; those of other hosts may be alive."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.{_HOST}-(\d+)-\w+\.part")
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(target.parent)):
            match = pattern.fullmatch(entry.name)
            if match and not _is_alive(int(match[1])):
                os.unlink(entry.path)


def _is_alive(process: int) -> bool:
    if os.name != "posix":
        return True  # asking would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as JSON, whole or not at all; NumPy values become plain ones, NaN becomes null."""
    with atomic(path, "w") as file:
        json.dump(plain(value), file, indent=2, ensure_ascii=False)
        file.write("\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def require_writable(path: str | os.PathLike[str], what: str = "--output") -> Path:
    """`path` itself, once it is sure that a file can be written there.

    Missing folders are made for that and removed again, so that a failure before the writing leaves none.

    Raises:
        TceError: `path` is a folder, or its folder cannot be made or written to.
    """
    target = Path(path)
    if target.is_dir():
        raise TceError(
            f"{what} {target}", expected="a file to write", found="a folder", fix="name a file in it"
        )
    try:
        with no_empty_folders(target.parent):
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


def require_folder(path: Path, flag: str = "--out") -> list[str]:
    """The names in a folder, made if it is not there, once it is sure that files can be written to it.

    Raises:
        TceError: it is a file, or cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".tce-"):
            pass
        return [entry.name for entry in path.iterdir()]
    except OSError as error:
        found = "a file" if path.is_file() else error.strerror or str(error)
        raise TceError(f"{flag} {path}", expected="a folder that can be written", found=found) from error


@contextlib.contextmanager
def writer_lock(file: Path, what: str, command: str, flag: str) -> Iterator[None]:
    """Hold a lock file, which one writer holds at a time; a killed writer's is taken over.

    Args:
        file: the lock's file; removed in the end.
        what: what is written, for messages.
        command: the command that writes it.
        flag: the option that names it.

    Raises:
        TceError: another process holds the lock.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TceError(
            what,
            expected="one writer at a time",
            found=f"another `{command}` at work on it",
            fix=f"wait for it, or choose another {flag}",
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # some systems do not remove a file that is open
            file.unlink()
        lock.release()


@contextlib.contextmanager
def no_empty_folders(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Remove `folder` and those above it at the end if they were not there before and are empty."""
    made = [place for place in (Path(folder), *Path(folder).parents) if not place.exists()]
    try:
        yield
    finally:
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()


def content_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpacked_limit(size: int) -> int:
    """Bytes that a file of `size` bytes may unpack to: floats hardly shrink, names shrink at most so far."""
    return (64 << 20) + 8 * size


def check_archive(archive: zipfile.ZipFile, size: int) -> str | None:
    """What is wrong with a zip archive's declared sizes, before anything of it is unpacked; None if nothing.

    Args:
        archive: the archive, whose directory states what each member unpacks to.
        size: bytes of its file.
    """
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked <= unpacked_limit(size):
        return None
    return f"an archive of {size:,} bytes that unpacks to {unpacked:,}"


def require_file(path: Path, expected: str) -> int:
    """Bytes of a regular file.

    Raises:
        TceError: there is none, or it is a folder, a pipe or a device.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise TceError(str(path), expected=expected, found="no such file", fix="check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise TceError(str(path), expected=expected, found="a folder")
    if not stat.S_ISREG(status.st_mode):
        raise TceError(str(path), expected=expected, found="a pipe or a device, not a file")
    return status.st_size


def read_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        TceError: it is not JSON, nested too deeply or far too large.
    """
    size = require_file(path, "a JSON file")
    if size > MOST_JSON:
        raise TceError(str(path), expected=f"at most {MOST_JSON:,} bytes of JSON", found=f"{size:,}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TceError(str(path), expected="JSON", found=str(error)) from error
    return parse_json(text, str(path))


def parse_json(text: str, what: str) -> Any:
    """JSON text's content; `what` it is, for the messages.

    Raises:
        TceError: it is not JSON, nested too deeply or far too large.
    """
    try:
        return check_json(json.loads(text), what)
    except (ValueError, RecursionError) as error:
        found = "text nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise TceError(what, expected="JSON", found=found) from error


def check_json(value: Any, what: str) -> Any:
    """`value` itself where it is made of JSON's types, of bounded size and depth.

    A pickle can hold one list a billion times; whoever prints, copies or stores it would never end.

    Raises:
        TceError: it is not.
    """
    waiting, count = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise TceError(
                what, expected=f"at most {MOST_VALUES:,} values, {DEEPEST} levels deep", found="more"
            )
        if isinstance(item, dict):
            waiting.extend((key, depth) for key in item)
            waiting.extend((part, depth + 1) for part in item.values())
        elif isinstance(item, list | tuple):
            waiting.extend((part, depth + 1) for part in item)
        elif not isinstance(item, str | int | float | None):
            raise TceError(what, expected="JSON types", found=type(item).__name__)
    return value


def brief(value: Any) -> str:
    """A few words on a value out of a file, whatever its size."""
    if isinstance(value, dict | list | tuple | set):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    return repr(value)[:80] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def write_csv(file: IO[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write rows of values as CSV; texts that a spreadsheet would run as formulas are escaped.

    Names of files and classes may come from strangers. `unescape_cell` undoes the escape.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([escape_cell(value) for value in row] for row in rows)


def escape_cell(value: Any) -> Any:
    """`value`, with an apostrophe before a text that begins with = + - @, a tab or a carriage return.

    Numbers stay as they are, also when written as text.
    """
    if isinstance(value, str) and re.match(r"'*[=+\-@\t\r]", value) and not _is_number(value):
        return f"'{value}"
    return value


def unescape_cell(text: str) -> str:
    """The text of a cell that `escape_cell` may have escaped."""
    return text[1:] if text[:1] == "'" and re.match(r"'+[=+\-@\t\r]", text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def require_pandas() -> Any:
    """The module pandas, which is imported only where a DataFrame is asked for.

    Raises:
        TceError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise TceError("a DataFrame", "pandas", str(error), "pip install pandas") from error
    return pandas


@dataclass
class Result:
    """A finished command's outcome.

    Attributes:
        text: what the shell prints without `--json`; may span lines.
        figures: what `--json` prints; plain Python values, NumPy scalars and arrays allowed.
        exit_code: of the shell's command; 1 where the result itself reports that something is wrong.
    """

    text: str
    figures: dict[str, Any] = field(default_factory=dict)
    exit_code: int = field(default=0, kw_only=True)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.text)}</pre>"


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
