"""The files that lists come in: lines, JSON, CSV, Parquet; one that cannot be read is a `TceError`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from tce.errors import TceError


def lines(path: Path) -> list[str]:
    """The lines that are not blank, stripped."""
    return [line for _, line in numbered_lines(path)]


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, stripped, each with its number in the file, from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TceError(str(path), "a list in UTF-8", str(error)) from error
    return [(row, line.strip()) for row, line in enumerate(text.splitlines(), 1) if line.strip()]


def read_json(path: Path) -> object:
    """What a JSON file holds."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise TceError(str(path), "JSON", str(error)) from error


def header(path: Path) -> list[str]:
    """The names of a CSV file's columns, in lower case; none where it cannot be read as one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [name.strip().lower() for name in next(csv.reader(file), [])]
    except (OSError, UnicodeDecodeError):
        return []


def rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, by the columns' names in lower case."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            yield {(key or "").strip().lower(): value for key, value in row.items()}


def seconds(cell: object, path: Path) -> float:
    """A cell's number; NaN where it is empty."""
    if cell is None or cell == "":
        return float("nan")
    try:
        return float(str(cell))
    except ValueError:
        raise TceError(str(path), "times in seconds", repr(cell)) from None


def text_or_none(cell: object) -> str | None:
    """A cell's text; None where it is empty."""
    return None if cell is None or cell == "" else str(cell)


def read_table(path: Path):  # type: ignore[no-untyped-def]  # pyarrow has no types
    """A CSV, TSV or Parquet file as a pyarrow table; of text alone, unless it is Parquet."""
    import pyarrow as pa

    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path)
        from pyarrow import csv as arrow_csv

        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        parse = arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        # As text, all of it: a clip named 007 is not number 7.
        columns = arrow_csv.open_csv(path, parse_options=parse).schema.names
        convert = arrow_csv.ConvertOptions(
            column_types={name: pa.string() for name in columns}, strings_can_be_null=True
        )
        return arrow_csv.read_csv(path, parse_options=parse, convert_options=convert)
    except (pa.ArrowInvalid, OSError) as error:
        raise TceError(str(path), "a CSV or Parquet table", str(error).splitlines()[0]) from error
