"""Parquet in and out: complete shards or none.

A shard is one immutable file named by the ids of its rows. It is written under a temporary name
and made visible in one step that never replaces a shard already there, so that a retried or
duplicated task keeps the rows that came first. Its footer repeats its name, so that readers tell it
from any other file without reading its rows.
"""

import hashlib
import io
import itertools
import os
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.home import Home, ShardError
from warehouse.tables import FORMER_TABLES, SCHEMA_VERSION, Table

TEMPORARY_PREFIX = ".writing-"
"""Start of the names of files that are being written, which no glob of shards matches."""

NAME_KEY = "shard"
"""Key of a shard's footer under which its own name stands."""

_SHARD_NAME = re.compile(r"[0-9a-f]{32}\.parquet")

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
    name = shard_name(table, data)
    buffer = io.BytesIO()
    pq.write_table(
        data.replace_schema_metadata({**table.schema.metadata, NAME_KEY: name}),
        buffer,
        compression="zstd",
        write_page_checksum=True,
    )
    path = f"{home.folder(table)}/{name}"
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


@dataclass(frozen=True, slots=True)
class Stray:
    """A file or folder in a table's folder that is not read."""

    table: str
    path: str
    reason: str
    """The fault, in one line."""

    @property
    def name(self) -> str:
        """The name of the file."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True, slots=True)
class Folder:
    """The content of a table's folder, told apart by name and kind of file."""

    shards: tuple[str, ...] = ()
    """Sorted paths of the files that have the name of a shard."""
    strays: tuple[Stray, ...] = ()


def list_folder(
    home: Home, table: Table | str, files: fsspec.AbstractFileSystem | None = None
) -> Folder:
    """Returns what lies in a table's folder; names that begin with a dot are passed over.

    `files` lists it if given, from its cache if it has one; otherwise it is listed anew.
    """
    folder = home.folder(table)
    try:
        entries = (files or home.files).ls(folder, detail=True)
    except FileNotFoundError:
        return Folder()
    shards, strays = [], []
    for entry in sorted(entries, key=lambda entry: str(entry["name"])):
        path = str(entry["name"]).rstrip("/")
        if path == folder and not entry["size"]:
            continue  # A store may keep an empty object that stands for the folder.
        reason = _stray_reason(entry, path)
        if reason is None:
            shards.append(path)
        elif not PurePosixPath(path).name.startswith("."):
            strays.append(Stray(home.table_name(table), path, reason))
    return Folder(tuple(shards), tuple(strays))


def _stray_reason(entry: dict[str, Any], path: str) -> str | None:
    """Returns why an entry of a folder cannot be a shard, or None."""
    if entry.get("islink"):
        return "a symbolic link"
    if entry["type"] != "file":
        return "a folder" if entry["type"] == "directory" else "not a regular file"
    if not _SHARD_NAME.fullmatch(PurePosixPath(path).name):
        return "not named as Precept names shards"
    return None


def list_shards(home: Home, table: Table | str) -> list[str]:
    """Returns the sorted paths of the files of a table that have the name of a shard."""
    return list(list_folder(home, table).shards)


def former_shards(home: Home) -> list[str]:
    """Returns the paths of all shards of tables that only older schema versions have."""
    return [path for name in FORMER_TABLES for path in list_shards(home, name)]


def refusal(home: Home, version: str) -> ShardError:
    """Returns the error that refuses a warehouse of another schema version."""
    return ShardError(
        f"{home.url} was written with schema version {version}, and this Precept reads version "
        f"{SCHEMA_VERSION}; to take its completions along, export them with the Precept that wrote "
        "it (precept export sft_examples examples.jsonl, or accepted_chains), or read its shards "
        f"with DuckDB (FROM '{home.url}/completions/*.parquet'), and give this one another --home"
    )
