"""Parquet in and out: complete shards or none.

A shard is one immutable file named by the ids of its rows. It is written under a temporary name
and made visible in one step that never replaces a shard already there, so that a retried or
doubled task leaves the rows that came first. Readers need no more than `*.parquet`.
"""

import errno
import glob
import hashlib
import io
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from warehouse.tables import SCHEMA_VERSION, TABLES, Table

_TEMPORARY = ".writing-"
_ABANDONED_AFTER_SECONDS = 3600
_FOOTER_BYTES = 1 << 16
"""What is fetched of the end of a shard at first; most footers are smaller."""


class ShardError(ValueError):
    """A shard that cannot be read, or rows that do not fit their table."""


_PASSING = {errno.EBUSY, errno.EAGAIN, errno.EIO, errno.EINTR, errno.ESTALE, errno.ENETUNREACH}
"""Busy is what a store is called that asks for patience; stale, a network's disk that was away."""


def may_pass(error: BaseException) -> bool:
    """Whether a fault of a disk, a store or a network may be over when it is tried again.

    True of a connection that was lost and a store that is too busy; false of a full disk, of
    missing rights, and of whatever is no such fault.
    """
    from botocore import exceptions as store

    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, store.HTTPClientError | store.ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


@dataclass(frozen=True, slots=True)
class Damaged:
    """A shard that was set aside, and why."""

    table: str
    path: str
    moved_to: str
    reason: str


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of a warehouse, on a disk or an object store (`s3://bucket/folder`)."""

    url: str

    @property
    def files(self) -> fsspec.AbstractFileSystem:
        """The file system the home lies on."""
        # Other processes write too: a listing that was kept would hide what they wrote.
        return fsspec.core.url_to_fs(self.url, use_listings_cache=False)[0]

    def open_reader(self) -> fsspec.AbstractFileSystem:
        """The file system for one who asks many questions of what is there now.

        A folder is listed once, and of a shard no more is fetched than is asked for: s3fs would
        ask for the size of each shard again whenever it is opened, and read 50 MiB ahead.
        """
        files, _ = fsspec.core.url_to_fs(
            self.url, use_listings_cache=True, default_cache_type="none"
        )
        files.invalidate_cache()
        return files

    @property
    def root(self) -> str:
        """The home as its file system spells it."""
        return str(fsspec.core.url_to_fs(self.url)[1]).rstrip("/")

    @property
    def is_local(self) -> bool:
        return isinstance(self.files, LocalFileSystem)

    def folder(self, table: Table | str) -> str:
        """Where the shards of a table lie."""
        name = table if isinstance(table, str) else table.name
        return f"{self.root}/{name}"

    def glob_url(self, table: Table) -> str:
        """The shards of a table as DuckDB and others can read them."""
        prefix = "" if self.is_local else f"{self.files.unstrip_protocol('').split('://')[0]}://"
        return f"{prefix}{glob.escape(self.folder(table))}/*.parquet"


def shard_name(table: Table, data: pa.Table) -> str:
    """The file name of these rows, in whatever order they come."""
    ids = sorted(_row_names(table, data))
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:32] + ".parquet"


def _row_names(table: Table, data: pa.Table) -> list[str]:
    """What tells each row from every other: its id and, where it has one, its attempt."""
    rows = zip(*(data.column(name).to_pylist() for name in table.identity), strict=True)
    return ["|".join(map(str, row)) for row in rows]


def to_arrow(table: Table, rows: Sequence[Any]) -> pa.Table:
    """Row objects or dictionaries as an Arrow table of exactly the table's schema."""
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
    if is_dataclass(row) and not isinstance(row, type):
        return {name: _as_dict(getattr(row, name)) for name in row.__dataclass_fields__}
    if isinstance(row, list):
        return [_as_dict(item) for item in row]
    return row


def write_shard(home: Home, table: Table, rows: Sequence[Any] | pa.Table) -> str | None:
    """Writes rows as one complete shard and returns its path; None where there is no row.

    A shard with these very ids that is already there is kept as it is. Raises OSError where the
    disk or the store does not take it, and then leaves nothing behind.
    """
    data = rows if isinstance(rows, pa.Table) else to_arrow(table, rows)
    if data.num_rows == 0:
        return None
    if not data.schema.equals(table.schema, check_metadata=False):
        raise ShardError(f"rows of another schema were given to table {table.name}")
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
            home.files.pipe_file(path, buffer.getvalue(), mode="create")
        except OSError as error:
            if not _is_there(error):
                raise
    return path


def _is_there(error: OSError) -> bool:
    """Whether a store refused a file because there is one of that name; not all say which
    condition was not met."""
    response = getattr(error.__cause__, "response", {})
    code = response.get("Error", {}).get("Code")
    return isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412")


def _publish(path: str, content: memoryview) -> None:
    """Writes a local file so that it is there whole or not at all, also after a power cut."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = f"{folder}/{_TEMPORARY}{uuid.uuid4().hex}"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def list_shards(
    home: Home, table: Table, files: fsspec.AbstractFileSystem | None = None
) -> list[str]:
    """Paths of all complete shards of a table, in order of name; as `files` sees them, if given."""
    try:
        paths = (files or home.files).ls(home.folder(table), detail=False)
    except FileNotFoundError:
        return []
    return sorted(path for path in paths if path.endswith(".parquet"))


def mend(home: Home, *, deep: bool = False) -> list[Damaged]:
    """Sets damaged shards aside and sweeps up what killed writers left; returns what it moved.

    Reads the footers; `deep` reads every page and verifies its checksum. The rows of a shard that
    was set aside are missing from then on, and the next run makes them again. Raises OSError where
    a disk or store cannot be read: what cannot be seen is not damaged.
    """
    damaged = []
    for table in TABLES.values():
        paths = list_shards(home, table)
        with ThreadPoolExecutor(8) as pool:
            reasons = list(pool.map(partial(_fault, home, table, deep=deep), paths))
        for path, reason in zip(paths, reasons, strict=True):
            if reason:
                target = f"{home.root}/damaged/{table.name}-{PurePosixPath(path).name}"
                home.files.makedirs(f"{home.root}/damaged", exist_ok=True)
                home.files.mv(path, target)
                damaged.append(Damaged(table.name, path, target, reason))
        _sweep(home, table)
    return damaged


def _fault(home: Home, table: Table, path: str, *, deep: bool) -> str | None:
    """Why a shard cannot be used, or None."""
    try:
        # Faults of a store are raised here, those of the shard found below.
        with _open_shard(home, path, whole=deep) as file:
            shard = pq.ParquetFile(file, page_checksum_verification=True)
            metadata: Mapping[bytes, bytes] = shard.schema_arrow.metadata or {}
            if metadata.get(b"table") != table.name.encode():
                return f"not a shard of table {table.name}"
            version = metadata.get(b"schema_version", b"?").decode()
            if version != SCHEMA_VERSION:
                raise ShardError(
                    f"{path}: schema version {version}, this Precept writes {SCHEMA_VERSION}; use "
                    "the Precept that wrote it, or give another --home"
                )
            if not shard.schema_arrow.equals(table.schema):
                return f"columns that are not those of table {table.name}"
            if deep:
                for group in range(shard.num_row_groups):
                    shard.read_row_group(group).validate(full=True)
    except FileNotFoundError:
        return None
    except ShardError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, PermissionError) or may_pass(error):
            raise
        # OSError: a page's checksum. ValueError: a footer with a bad byte in a name is no text.
        return str(error).splitlines()[0]
    return None


def _open_shard(home: Home, path: str, *, whole: bool) -> Any:
    """A shard on a disk; of one on a store its content, or only the end that holds its footer."""
    if home.is_local:
        return home.files.open(path, "rb")
    if whole:
        return io.BytesIO(home.files.cat_file(path))
    end = home.files.cat_file(path, start=-_FOOTER_BYTES)
    # The last eight bytes of a Parquet file are the length of its footer and four letters.
    needed = int.from_bytes(end[-8:-4], "little") + 8
    if len(end) == _FOOTER_BYTES and end.endswith(b"PAR1") and needed > len(end):
        end = home.files.cat_file(path, start=-needed)
    return io.BytesIO(end)


def _sweep(home: Home, table: Table) -> None:
    """Removes temporary files of writers that are long gone."""
    folder = home.folder(table)
    if not home.is_local or not os.path.isdir(folder):
        return
    for entry in os.scandir(folder):
        if not entry.name.startswith(_TEMPORARY):
            continue
        with suppress(FileNotFoundError):  # a writer at work may end first
            if entry.stat().st_mtime < time.time() - _ABANDONED_AFTER_SECONDS:
                os.unlink(entry.path)


def compact(home: Home, table: Table, *, rows_per_shard: int = 50_000) -> tuple[int, int]:
    """Merges small shards; returns how many shards there were and how many there are.

    Merged shards are written first, so readers see every row throughout (views show each id
    once); what they replace goes last. Rows that several shards held are kept once.
    """
    before = list_shards(home, table)
    small = [path for path in before if _num_rows(home, path) < rows_per_shard // 2]
    for group in _groups(home, small, rows_per_shard):
        if len(group) < 2:
            continue
        parts = []
        for path in group:
            with home.files.open(path, "rb") as file:
                parts.append(pq.read_table(file))
        kept = write_shard(home, table, _distinct(table, pa.concat_tables(parts)))
        for path in group:
            if path != kept:
                home.files.rm(path)
    return len(before), len(list_shards(home, table))


def _distinct(table: Table, data: pa.Table) -> pa.Table:
    """Each row once: of those with one name, the one that was made first."""
    names = _row_names(table, data)
    made_at = data.column(table.time_column).to_pylist()
    first: dict[str, int] = {}
    for position in sorted(range(data.num_rows), key=made_at.__getitem__):
        first.setdefault(names[position], position)
    return data.take(sorted(first.values()))


def _num_rows(home: Home, path: str) -> int:
    with home.files.open(path, "rb") as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def _groups(home: Home, paths: Sequence[str], rows_per_shard: int) -> Iterator[list[str]]:
    group: list[str] = []
    total = 0
    for path in paths:
        rows = _num_rows(home, path)
        if group and total + rows > rows_per_shard:
            yield group
            group, total = [], 0
        group.append(path)
        total += rows
    if group:
        yield group
