"""Files and data sets → tables of rows, each row with its place.

A source that cannot be read ends the run with one sentence that names the file.
"""

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.data.chats import is_chat
from tasks.data.csv_files import Lines, csv_columns, csv_rows, lines_before_header, require_unique
from tasks.data.files import (
    File,
    faults_named,
    find_files,
    is_packed,
    kind_of,
    open_bytes,
    open_text,
)
from tasks.data.hub import DataSet
from tasks.data.json_documents import JsonDocument, decode, refused, too_long
from tasks.data.remote import RemoteFile
from tasks.data.sources import USUAL_COLUMNS, SourceConfig

_BATCH_ROWS = 1000
_BATCH_BYTES = 64 * 2**20
_ARROW_ERRORS = (pa.ArrowException, ArithmeticError, OSError, RuntimeError, TypeError, ValueError)
"""What pyarrow raises of a file that it cannot read, or whose values have no type in Python."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table."""

    number: int
    """Its line in the file or, where rows have no lines, its number, from 1."""
    values: Mapping[str, Any]
    """By column. Empty: a line of a CSV file that does not fit its header."""


@dataclass(frozen=True, slots=True)
class Table:
    """A file of a source, or its data set."""

    place: str
    """Its path or name, as messages give it."""
    rows: Callable[[], Iterator[Row]]
    columns: Callable[[], list[str]]
    """All its columns; of JSON it reads the whole file to know them."""
    num_lines_to_skip: Callable[[], int | None] = lambda: None
    """Lines before the one that has the columns which the source names, in a CSV file whose first
    line has not."""


def read_tables(source: SourceConfig) -> Iterator[Table]:
    """Yields each file of a source, or its data set."""
    if source.dataset:
        data = DataSet(source)
        numbered = partial(_numbered, data.rows)
        yield Table(f"data set {source.dataset}", numbered, lambda: data.columns)
        return
    for path in find_files(source).files:
        yield _table(path, source)


def _table(path: File, source: SourceConfig) -> Table:
    reader, columns = _READERS[kind_of(path)]

    def read_rows() -> Iterator[Row]:
        with faults_named(path):
            yield from reader(path, source)

    def read_columns() -> list[str]:
        with faults_named(path):
            if columns is not None:
                return columns(path, source)
            keys = (row.values for row in reader(path, source))
            return list(dict.fromkeys(itertools.chain.from_iterable(keys)))

    return Table(str(path), read_rows, read_columns, partial(lines_before_header, path, source))


def _numbered(rows: Callable[[], Iterator[Mapping[str, Any]]]) -> Iterator[Row]:
    yield from itertools.starmap(Row, enumerate(rows(), 1))


def _csv_rows(path: File, source: SourceConfig) -> Iterator[Row]:
    yield from itertools.starmap(Row, csv_rows(path, source))


def _jsonl_rows(path: File, source: SourceConfig) -> Iterator[Row]:
    remedy = "write one object a line, or name a file that is one document .json"
    with open_text(path) as file:
        lines = Lines(file, path, source.max_row_bytes)
        for line in lines:
            if line.strip():
                try:
                    value = decode(line.strip())
                except (ValueError, RecursionError) as error:
                    raise refused(error, path, lines.number, remedy) from error
                yield _json_row(lines.number, value, source, f"{path}:{lines.number}: ")
            lines.end_row()


def _json_row(number: int, value: object, source: SourceConfig, where: str) -> Row:
    """Returns the row of an object, or of a chat that stands by itself."""
    if is_chat(value):
        [column, *_] = source.text_columns or USUAL_COLUMNS
        return Row(number, {column: value})
    if not isinstance(value, dict):
        raise ValueError(f"{where}not an object; write each row as an object or a list of turns")
    return Row(number, value)


def _json_rows(path: File, source: SourceConfig) -> Iterator[Row]:
    if _has_value_a_line(path, source):
        yield from _jsonl_rows(path, source)
        return
    with open_text(path) as file:
        document = JsonDocument(file, path, source.max_row_bytes)
        if _is_row_in_lines(path, source):
            document.peek()
            yield _json_row(document.line, document.value(), source, f"{path}: ")
        elif document.peek() == "{":
            key = source.rows_key or _only_list(path, source)
            yield from _rows_under(key, document, source)
        elif document.peek() == "[":
            yield from _elements(document, source)
        elif document.peek():
            document.value()
            raise ValueError(f"{path}: must be a list of rows, or an object that holds such a list")
        document.end()


def _has_value_a_line(path: File, source: SourceConfig) -> bool:
    """Returns True if the first line of a .json file is a row: each line is then one."""
    with open_text(path) as file:
        lines = iter(partial(file.readline, source.max_row_bytes), "")
        filled = (line for line in lines if line.strip())
        try:
            value = decode(next(filled, ""))
        except (ValueError, RecursionError):
            return False
        return next(filled, None) is not None or _is_row(value, source)


def _is_row_in_lines(path: File, source: SourceConfig) -> bool:
    """Returns True if a whole .json file is one row, written over several lines."""
    with open_text(path) as file:
        try:
            return _is_row(JsonDocument(file, path, source.max_row_bytes).value(), source)
        except ValueError:
            # Not JSON, or longer than a row may be.
            return False


def _is_row(value: object, source: SourceConfig) -> bool:
    """Returns True if a document is a row, not the rows."""
    if isinstance(value, list):
        # Rows may have a column of the name `role`; turns have none with prompts.
        names = {name for turn in value for name in turn} if is_chat(value) else set(USUAL_COLUMNS)
        return names.isdisjoint(USUAL_COLUMNS) and not source.text_columns
    if not isinstance(value, dict):
        return False
    named = source.text_columns or USUAL_COLUMNS
    is_asked = any(isinstance(value.get(name), str) or is_chat(value.get(name)) for name in named)
    lists = (item for item in value.values() if isinstance(item, list) and not is_chat(item))
    holds_rows = any(isinstance(item, dict) for items in lists for item in items[:1])
    return is_asked and not holds_rows and not source.rows_key


def _only_list(path: File, source: SourceConfig) -> str:
    """Returns the only key of an object that holds a list; raises ValueError if it has others."""
    keys = _keys_of_lists(path, source)
    if len(keys) != 1:
        raise _no_rows_key(path, keys, None)
    return keys[0]


def _no_rows_key(path: object, keys: Sequence[str], named: str | None) -> ValueError:
    """Returns the error for an object of which no single key is known to hold the rows."""
    if not keys:
        return ValueError(
            f"{path}: no key of the object holds a list of rows; write the rows as a list, or as "
            "one object a line"
        )
    wrong = f"rows_key is {named!r}, and " if named else ""
    return ValueError(
        f"{path}: {wrong}{len(keys)} keys of the object hold lists ({', '.join(keys)}); say in "
        "rows_key which holds the rows"
    )


def _keys_of_lists(path: File, source: SourceConfig) -> list[str]:
    keys = []
    with open_text(path) as file:
        document = JsonDocument(file, path, source.max_row_bytes)
        for key in document.members():
            if document.peek() == "[":
                keys.append(key)
                for _ in document.elements():
                    pass
            else:
                document.value()
    return keys


def _rows_under(key: str, document: JsonDocument, source: SourceConfig) -> Iterator[Row]:
    """Yields the rows of the list under a key of an object."""
    keys = []
    for name in document.members():
        if document.peek() != "[":
            document.value()
            continue
        keys.append(name)
        rows = _elements(document, source)
        if name == key:
            yield from rows
        else:
            for _ in document.elements():
                pass
    if key not in keys:
        raise _no_rows_key(document.path, keys, key)


def _elements(document: JsonDocument, source: SourceConfig) -> Iterator[Row]:
    for number, (line, value) in enumerate(document.elements(), 1):
        yield _json_row(line, value, source, f"{document.path}:{line}: row {number} is ")


def _parquet_columns(path: File, source: SourceConfig) -> list[str]:
    with _open_parquet(path) as file:
        return list(file.schema_arrow.names)


def _parquet_rows(path: File, source: SourceConfig) -> Iterator[Row]:
    number = 0
    with _open_parquet(path) as file:
        for batch in _parquet_batches(file, path, source):
            long = batch.nbytes > source.max_row_bytes
            for position in range(batch.num_rows if long else 0):
                if batch.slice(position, 1).nbytes > source.max_row_bytes:
                    raise too_long(path, number + position + 1, source.max_row_bytes)
            try:
                rows = batch.to_pylist()
            except _ARROW_ERRORS as error:
                raise _not_parquet(path, error) from error
            for values in rows:
                number += 1
                yield Row(number, values)


def _parquet_batches(
    file: pq.ParquetFile, path: File, source: SourceConfig
) -> Iterator[pa.RecordBatch]:
    """Yields the columns that are needed, in batches of a limited size."""
    names = list(file.schema_arrow.names)
    require_unique(names, str(path))
    # Without any of them, all are read: the message about those that lack lists what there is.
    columns = source.needed(names) or names
    for group in range(file.metadata.num_row_groups):
        mean_bytes = _bytes_of(file.metadata.row_group(group), columns)
        if mean_bytes > source.max_row_bytes:
            raise too_long(path, 1, source.max_row_bytes)
        batch_rows = max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(mean_bytes, 1))))
        batches = file.iter_batches(batch_size=batch_rows, row_groups=[group], columns=columns)
        while True:
            try:
                yield next(batches)
            except StopIteration:
                break
            except _ARROW_ERRORS as error:
                raise _not_parquet(path, error) from error


def _bytes_of(group: Any, columns: Sequence[str]) -> float:
    """Returns the mean bytes of a row of a row group in some columns, unpacked."""
    chunks = (group.column(index) for index in range(group.num_columns))
    num_bytes = sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns)
    )
    return float(num_bytes / max(group.num_rows, 1))


@contextmanager
def _open_parquet(path: File) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file; a packed one is unpacked into a temporary file first."""
    with ExitStack() as stack:
        plain: IO[bytes] | None = None
        if is_packed(path):
            plain = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(stack.enter_context(open_bytes(path)), plain)
            plain.seek(0)
        try:
            if isinstance(path, RemoteFile) and plain is None:
                plain = stack.enter_context(path.open())
            file = pq.ParquetFile(plain or path)
        except _ARROW_ERRORS as error:
            raise _not_parquet(path, error) from error
        yield stack.enter_context(file)


def _not_parquet(path: File, error: Exception) -> Exception:
    """Returns the error that names the file which pyarrow cannot read."""
    if isinstance(error, OSError) and error.errno:
        return error
    first = (str(error) or type(error).__name__).splitlines()[0]
    return ValueError(
        f"{path}: not Parquet that can be read ({first}); fetch or write it again, with plainer "
        "columns if it is whole"
    )


_Rows = Callable[[File, SourceConfig], Iterator[Row]]
_Columns = Callable[[File, SourceConfig], list[str]]
_READERS: dict[str, tuple[_Rows, _Columns | None]] = {
    ".csv": (_csv_rows, csv_columns),
    ".tsv": (_csv_rows, csv_columns),
    ".json": (_json_rows, None),
    ".jsonl": (_jsonl_rows, None),
    ".ndjson": (_jsonl_rows, None),
    ".parquet": (_parquet_rows, _parquet_columns),
}
