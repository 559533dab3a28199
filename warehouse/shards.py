"""Parquet in and out: complete shards or none.

A shard is one immutable file named by the ids of its rows. It is written under a temporary name
and made visible in one step that never replaces a shard already there, so that a retried or
duplicated task keeps the rows that came first. Readers need no more than `*.parquet`.
"""

import hashlib
import io
import itertools
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.home import Home, ShardError
from warehouse.tables import FORMER_TABLES, SCHEMA_VERSION, Table

TEMPORARY_PREFIX = ".writing-"
"""Start of the names of files that are being written, which no glob of shards matches."""

ROWS_PER_SHARD = 20_000
"""Most rows of a shard where a single process writes many."""


def shard_name(table: Table, data: pa.Table) -> str:
    """Returns the file name of these rows, which does not depend on their order."""
    ids = sorted(row_names(table, data))
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:32] + ".parquet"


def row_names(table: Table, data: pa.Table) -> list[str]:
    """Returns the identity of each row: its key and, if the table has them, attempt or revision."""
    rows = zip(*(data.column(name).to_pylist() for name in table.identity), strict=True)
    return ["|".join(map(str, row)) for row in rows]


def to_arrow(table: Table, rows: Sequence[Any]) -> pa.Table:
    """Returns row objects or dictionaries as an Arrow table of exactly the table's schema.

    Raises ShardError if a row does not fit.
    """
    try:
        data = pa.Table.from_pylist([_as_dict(row) for row in rows], schema=table.schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        raise ShardError(f"rows do not fit table {table.name}: {error}") from error
    for column in data.schema:
        if data.column(column.name).null_count and not column.nullable:
            raise ShardError(
                f"rows do not fit table {table.name}: {column.name} is missing; give each row one"
            )
    return data


def _as_dict(row: Any) -> Any:
    """Returns a row with the rows in it as dictionaries."""
    if is_dataclass(row) and not isinstance(row, type):
        return {name: _as_dict(getattr(row, name)) for name in row.__dataclass_fields__}
    if isinstance(row, list):
        return [_as_dict(item) for item in row]
    return row


def write_shard(home: Home, table: Table, rows: Sequence[Any] | pa.Table) -> str | None:
    """Writes rows as one complete shard; returns its path, or None without any row.

    An existing shard of the same ids is kept as it is. Raises ShardError if the rows do not fit the
    table, and OSError if the disk or the store does not take the shard; both leave nothing behind.
    """
    data = rows if isinstance(rows, pa.Table) else to_arrow(table, rows)
    if data.num_rows == 0:
        return None
    if not data.schema.equals(table.schema, check_metadata=False):
        raise ShardError(
            f"rows of another schema were given to table {table.name}; convert them with to_arrow"
        )
    buffer = io.BytesIO()
    pq.write_table(
        data.replace_schema_metadata(table.schema.metadata),
        buffer,
        compression="zstd",
        write_page_checksum=True,
    )
    path = f"{home.folder(table)}/{shard_name(table, data)}"
    if home.is_local:
        _publish(path, buffer.getbuffer())
    else:
        try:
            # One put, conditional on no file of that name (If-None-Match): the first writer wins,
            # and no reader ever sees a part of it.
            home.files.pipe_file(path, buffer.getvalue(), mode="create")
        except OSError as error:
            if not _is_taken(error):
                raise
    return path


def write_all(home: Home, table: Table, rows: Iterable[Any]) -> int:
    """Writes rows as they come, in shards of at most `ROWS_PER_SHARD`; returns their number."""
    num_rows = 0
    rows = iter(rows)
    while batch := list(itertools.islice(rows, ROWS_PER_SHARD)):
        write_shard(home, table, batch)
        num_rows += len(batch)
    return num_rows


def _is_taken(error: OSError) -> bool:
    """Returns True if a store refused a file because one of that name exists."""
    # Some stores answer 412 without naming the condition.
    response = getattr(error.__cause__, "response", {})
    code = response.get("Error", {}).get("Code")
    return isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412")


def _publish(path: str, content: memoryview) -> None:
    """Publishes a local file whole or not at all, even across a power cut."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = f"{folder}/{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link fails if the name is taken; a rename would replace the shard that came first.
            os.link(temporary, path)
        except FileExistsError:
            return
        # The new name is durable only once the folder itself is on the disk.
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def list_shards(
    home: Home, table: Table | str, files: fsspec.AbstractFileSystem | None = None
) -> list[str]:
    """Returns the sorted paths of all complete shards of a table.

    `files` lists them if given, from its cache if it has one; otherwise they are listed anew.
    """
    try:
        paths = (files or home.files).ls(home.folder(table), detail=False)
    except FileNotFoundError:
        return []
    return sorted(path for path in paths if path.endswith(".parquet"))


def former_shards(home: Home) -> list[str]:
    """Returns the paths of all shards of tables that only older schema versions have."""
    return [path for name in FORMER_TABLES for path in list_shards(home, name)]


def refusal(home: Home, version: str) -> ShardError:
    """Returns the error that refuses a warehouse of another schema version."""
    return ShardError(
        f"{home.url} was written with schema version {version}, and this Precept reads version "
        f"{SCHEMA_VERSION}; to take its examples along, export them with the Precept that wrote it "
        "(precept export sft_examples examples.jsonl), and give this one another --home"
    )
