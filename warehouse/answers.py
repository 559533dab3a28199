"""Answers as files: JSON and Parquet for programs, CSV for spreadsheets.

JSON and Parquet hold every value as it is. In CSV, a text that a spreadsheet would run as a
formula begins with an apostrophe, control characters are written as `\\x1b`, and lists and structs
are JSON.
"""

import base64
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from warehouse.catalog import QuestionError, answer_batches
from warehouse.characters import json_text, visible
from warehouse.files import write_whole

Kind = Literal["json", "jsonl", "csv", "parquet"]

_ENDINGS: dict[str, Kind] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""Characters with which a cell begins that a spreadsheet runs."""


def export(
    connection: duckdb.DuckDBPyConnection, name: str, out: str, *, replace: bool = False
) -> int:
    """Writes the answer to a named question into a new file; returns its number of rows.

    The file appears whole or not at all. Raises QuestionError if its ending is not known, its
    folder is not there, or a file of that name is and `replace` is not set.
    """
    path = Path(out)
    if path.suffix not in _ENDINGS:
        raise QuestionError(f"{out}: give a file that ends on {', '.join(_ENDINGS)}")
    batches = answer_batches(connection, name)
    with write_whole(path, replace=replace) as partial, partial.open("wb") as file:
        return write(batches, file, _ENDINGS[path.suffix])


def write(batches: pa.RecordBatchReader, out: IO[bytes], kind: Kind) -> int:
    """Writes rows as they come; returns their number."""
    writers: dict[Kind, Callable[[pa.Schema, Iterable[pa.Table], IO[bytes]], None]] = {
        "json": _write_json,
        "jsonl": _write_lines,
        "csv": _write_csv,
        "parquet": _write_parquet,
    }
    # A query may give two columns one name; a file may not.
    schema = _renamed(batches.schema)
    num_rows = 0

    def counted() -> Iterator[pa.Table]:
        nonlocal num_rows
        for batch in batches:
            num_rows += batch.num_rows
            yield pa.Table.from_batches([batch]).rename_columns(schema.names)

    writers[kind](schema, counted(), out)
    return num_rows


def _renamed(schema: pa.Schema) -> pa.Schema:
    """Returns a schema whose columns have different names: the second `a` becomes `a_1`."""
    names: list[str] = []
    for name in schema.names:
        number, free = 0, name
        while free in names or (number and free in schema.names):
            number += 1
            free = f"{name}_{number}"
        names.append(free)
    return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])


def _write_json(schema: pa.Schema, tables: Iterable[pa.Table], out: IO[bytes]) -> None:
    """Writes one array, an object a line."""
    start = b"["
    for table in tables:
        for row in _objects(table):
            out.write(start + b"\n" + row)
            start = b","
    out.write(b"[]\n" if start == b"[" else b"\n]\n")


def _write_lines(schema: pa.Schema, tables: Iterable[pa.Table], out: IO[bytes]) -> None:
    for table in tables:
        for row in _objects(table):
            out.write(row + b"\n")


def _objects(table: pa.Table) -> Iterator[bytes]:
    columns = [_values(column) for column in table.columns]
    for row in zip(*columns, strict=True):
        yield json_text(dict(zip(table.column_names, map(_plain, row), strict=True))).encode()


def _values(column: pa.ChunkedArray) -> Sequence[Any]:
    """Returns the values of a column as Python's; as texts if Python has no such values."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):  # nanoseconds, or a time beyond the year 9999
        return list(column.cast(pa.string()).to_pylist())


def _plain(value: Any) -> Any:
    """Returns a value in the types of JSON: times as ISO 8601 texts, bytes in base64."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return _exact(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"PT{value.total_seconds():g}S"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, pa.MonthDayNano):
        return f"P{value.months}M{value.days}DT{value.nanoseconds / 1e9:g}S"
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list) and value and all(isinstance(one, tuple) for one in value):
        return {str(_plain(key)): _plain(one) for key, one in value}  # a map
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int | None) else str(value)


def _exact(value: Decimal) -> int | float | str | None:
    """Returns a decimal as a number if a reader of JSON gets the same one, else as its digits."""
    if not value.is_finite():
        return None
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)


def _write_csv(schema: pa.Schema, tables: Iterable[pa.Table], out: IO[bytes]) -> None:
    fields = [
        pa.field(_cell(field.name), pa.string() if _is_text(field.type) else field.type)
        for field in schema
    ]
    with pyarrow.csv.CSVWriter(out, pa.schema(fields)) as writer:
        for table in tables:
            columns = [
                pa.array(_cells(column), pa.string()) if _is_text(column.type) else column
                for column in table.columns
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)))


def _is_text(kind: pa.DataType) -> bool:
    """Returns True for all but numbers and truths, which are no text in CSV."""
    types = pa.types
    return not (
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
    )


def _cells(column: pa.ChunkedArray) -> list[str | None]:
    plain = map(_plain, _values(column))
    return [
        None if value is None else _cell(value if isinstance(value, str) else json_text(value))
        for value in plain
    ]


def _cell(text: str) -> str:
    """Returns a text as a cell that no spreadsheet runs; a number in it stays a number."""
    is_formula = text.startswith(_FORMULA) and not _NUMBER.fullmatch(text)
    return visible(f"'{text}" if is_formula else text)


def _write_parquet(schema: pa.Schema, tables: Iterable[pa.Table], out: IO[bytes]) -> None:
    kept = pa.schema([pa.field(field.name, _parquet_type(field.type)) for field in schema])
    with pq.ParquetWriter(out, kept, compression="zstd") as writer:
        for table in tables:
            columns = [
                column if column.type == field.type else pa.array(_texts(column), pa.string())
                for column, field in zip(table.columns, kept, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=kept))


def _parquet_type(kind: pa.DataType) -> pa.DataType:
    """Returns the type of a column in Parquet, which knows neither intervals nor unions."""
    types = pa.types
    is_unknown = types.is_interval(kind) or types.is_union(kind) or types.is_null(kind)
    return pa.string() if is_unknown else kind


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    return [None if value is None else str(_plain(value)) for value in _values(column)]
