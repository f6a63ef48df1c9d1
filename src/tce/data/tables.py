"""Files that lists of clips come in: lines, CSV, TSV, Parquet, JSON; one that cannot be read is a `TceError`.

Text may be UTF-8 or UTF-16, with or without a byte order mark, with the line ends of any system. The cells of
a text table may be separated by commas, semicolons or tabs. Blanks around a cell do not count, and an empty
cell means that nothing is known; `NA`, `null` and the like are text.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tce.errors import TceError
from tce.io import unescape_cell

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
Cells = Sequence[str | None]  # of one row; None where a cell is empty

_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    """A text file's content.

    Raises:
        TceError: it cannot be read, is in another encoding than UTF-8 or UTF-16, or holds a NUL character.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TceError(str(path), "a readable file", error.strerror or str(error)) from error
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None) or _unmarked_encoding(
        data
    )
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TceError(
            f"{path}, line {line}",
            "text in UTF-8 or UTF-16",
            f"the byte 0x{data[error.start]:02x}",
            "save the file as UTF-8 (it may be in Latin-1 or Windows-1252)",
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise TceError(f"{path}, line {line}", "text", "a NUL character", "remove it")
    return text


def _unmarked_encoding(data: bytes) -> str:
    """UTF-16 by its zero bytes, every second one; else UTF-8, with or without mark."""
    head = data[:200]
    if len(head) >= 4 and len(head) % 2 == 0 and head.count(0) == len(head) // 2:
        if not any(head[1::2]):
            return "utf-16-le"
        if not any(head[::2]):
            return "utf-16-be"
    return "utf-8-sig"


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, stripped, each with its number in the file, from 1."""
    lines = re.split(r"\r\n|\r|\n", read_text(path))
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def read_lines(path: Path) -> list[str]:
    """The lines that are not blank, stripped."""
    return [line for _, line in numbered_lines(path)]


def read_names(path: Path) -> dict[int, str]:
    """Class names by their numbers: lines "1 ApplyEyeMakeup" in any order, or plain names counted from 0.

    Raises:
        TceError: no names, or a number or name that stands there twice.
    """
    lines = numbered_lines(path)
    matches = [re.fullmatch(r"([0-9]{1,9})[\s,;]+(.+)", line) for _, line in lines]
    numbered = all(matches)
    names: dict[int, str] = {}
    seen: set[str] = set()
    for place, ((row, line), match) in enumerate(zip(lines, matches)):
        number, name = (int(match[1]), match[2]) if numbered and match else (place, line)
        if number in names or name in seen:
            raise TceError(
                f"{path}, line {row}", "each class and each number once", repr(line), "remove one line"
            )
        names[number] = name
        seen.add(name)
    if not names:
        raise TceError(str(path), "class names, one a line", "none")
    return dict(sorted(names.items()))


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        TceError: not JSON, nested too deeply, or an object with a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise TceError(
                str(path), "each key of an object once", f"{twice[:60]!r} twice", "remove one of them"
            )
        return entries

    text = read_text(path).removeprefix("\ufeff")
    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise TceError(str(path), "JSON of few levels", "objects nested too deeply") from None
    except ValueError as error:
        raise TceError(str(path), "JSON", str(error)) from error


@dataclass(frozen=True)
class Table:
    """A table that can be read row by row.

    Attributes:
        path: the file.
        header: names of the columns in lower case; empty where the first row is a clip already.
        rows: starts reading: numbers and cells of the rows that are not blank.
        unit: what the rows' numbers count, "line" or "row".
        decimal_comma: numbers may have a comma in place of the point.
    """

    path: Path
    header: tuple[str, ...]
    rows: Callable[[], Iterator[tuple[int, Cells]]]
    unit: str = "line"
    decimal_comma: bool = False

    def where(self, row: int) -> str:
        """The place of a row, for messages."""
        return f"{self.path}, {self.unit} {row}"

    def columns(self, names: Mapping[str, Sequence[str]]) -> dict[str, int]:
        """The places of columns, by what is asked for.

        Args:
            names: for each wanted column its names, the preferred one first.

        Raises:
            TceError: two columns have the same wanted name.
        """
        found: dict[str, int] = {}
        for key, aliases in names.items():
            name = next((alias for alias in aliases if alias in self.header), None)
            if name is None:
                continue
            if self.header.count(name) > 1:
                raise TceError(
                    str(self.path), f"one column `{name}`", str(self.header.count(name)), "rename one"
                )
            found[key] = self.header.index(name)
        return found

    def seconds(self, cell: str | None, row: int) -> float:
        """A cell's time in seconds, of 1.5 or 00:00:01.5; NaN where it is empty or NaN.

        Raises:
            TceError: no time, or an infinite one.
        """
        if cell is None:
            return math.nan
        clock = re.fullmatch(r"(?:(\d{1,6}):)?(\d{1,6}):(\d{1,6}(?:[.,]\d*)?)", cell, re.ASCII)
        if clock is not None:
            hours, minutes, rest = clock.groups()
            return 3600 * int(hours or 0) + 60 * int(minutes) + float(rest.replace(",", "."))
        try:
            value = float(cell.replace(",", ".") if self.decimal_comma else cell)
        except ValueError:
            value = math.inf
        if math.isinf(value):
            fix = "write a decimal point" if re.fullmatch(r"\d+,\d+", cell) else ""
            raise TceError(self.where(row), "times in seconds, or as 00:00:01.5", repr(cell[:60]), fix)
        return value


def open_table(path: Path, names: Mapping[str, Sequence[str]]) -> Table:
    """A CSV, TSV or Parquet file, or a text file of rows without header.

    Args:
        path: the file.
        names: the names, in lower case, of each column that may be read; a first row is the header if it has
            one of those of "path".

    Raises:
        TceError: it cannot be read as a table.
    """
    if path.suffix.lower() == ".parquet":
        return _open_parquet(path, {name for aliases in names.values() for name in aliases})
    text = read_text(path)
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    delimiters = [usual, *(other for other in ",;\t" if other != usual)]
    stated = re.match(r"sep=([,;|\t])(?=[\r\n])", text)  # a spreadsheet's way to name the delimiter
    if stated is not None:
        text, delimiters = text[stated.end() :], [stated[1]]  # its line stays, blank: lines are counted
    first = next((line for line in re.split(r"\r\n|\r|\n", text) if line.strip()), "")
    scores = [_known_cells(first, delimiter, names["path"]) for delimiter in delimiters]
    if not any(scores):
        delimiter = next((delimiter for delimiter in delimiters if delimiter in first), delimiters[0])
        return Table(path, (), lambda: _text_rows(path, text, delimiter), "line", delimiter == ";")
    delimiter = delimiters[scores.index(max(scores))]
    header = tuple(map(_column_name, next(_text_rows(path, text, delimiter))[1]))

    def rows() -> Iterator[tuple[int, Cells]]:
        return _body(path, header, _text_rows(path, text, delimiter))

    return Table(path, header, rows, "line", delimiter == ";")


def _known_cells(line: str, delimiter: str, known: Collection[str]) -> int:
    try:
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return 0
    return sum(_column_name(cell) in known for cell in cells)


def _column_name(cell: str | None) -> str:
    return (cell or "").strip().lower()


def _text_rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, Cells]]:
    """The rows that hold anything, each with the number of its first line."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            fix = "quote cells that hold a delimiter, a quote or a line end, and double the quotes in them"
            raise TceError(f"{path}, line {line}", "a row of a table", str(error), fix) from error
        if row is None:
            return
        cells = [unescape_cell(cell.strip()) or None for cell in row]
        if any(cells):
            yield line, cells


def _body(
    path: Path, header: Sequence[str], rows: Iterator[tuple[int, Cells]]
) -> Iterator[tuple[int, Cells]]:
    """The rows below the header, checked to have as many cells; further empty cells do not count."""
    next(rows, None)
    for line, cells in rows:
        if len(cells) < len(header) or any(cells[len(header) :]):
            raise TceError(
                f"{path}, line {line}",
                f"{len(header)} cells as in the header",
                str(len(cells)),
                "write an empty cell where nothing is known, and put cells that hold the delimiter in quotes",
            )
        yield line, cells


def _open_parquet(path: Path, known: Collection[str]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def failed(error: Exception) -> TceError:
        return TceError(str(path), "a Parquet table", (str(error).splitlines() or [type(error).__name__])[0])

    try:
        schema = pq.ParquetFile(path).schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise failed(error) from error
    header = tuple(_column_name(name) for name in schema.names)
    wanted = [name for name in schema.names if _column_name(name) in known]
    for name in wanted:
        kind = schema.field(schema.names.index(name)).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise TceError(f"{path}, column `{name}`", "text or numbers", str(kind))

    def rows() -> Iterator[tuple[int, Cells]]:
        places = [schema.names.index(name) for name in wanted]
        row = 0
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=wanted):
                    columns = [column.to_pylist() for column in batch.columns]
                    for values in zip(*columns):
                        row += 1
                        cells: list[str | None] = [None] * len(header)
                        for place, value in zip(places, values):
                            cells[place] = _parquet_text(value)
                        if any(cells):
                            yield row, cells
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise failed(error) from error

    return Table(path, header, rows, "row")


def _parquet_text(value: Any) -> str | None:
    if value is None or value != value:  # NaN: missing
        return None
    text = str(value)
    if "\0" in text:
        raise ValueError("a NUL character in a text")
    return text.strip() or None
