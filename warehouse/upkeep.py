"""Upkeep of shards: damaged ones are set aside, small ones are merged into large ones.

Shards of another schema version are neither: a warehouse that has one is refused untouched.
"""

import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.catalog import check_version
from warehouse.home import Home, ShardError, may_pass
from warehouse.shards import (
    TEMPORARY_PREFIX,
    list_shards,
    refusal,
    row_names,
    write_shard,
)
from warehouse.tables import SCHEMA_VERSION, TABLES, Table

_ABANDONED_AFTER_SECONDS = 3600
"""Age of a temporary file from which on its writer counts as dead."""

_FOOTER_BYTES = 1 << 16
"""Bytes first fetched of the end of a shard; most footers are smaller."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A shard that was set aside."""

    table: str
    path: str
    """Path of the shard before."""
    moved_to: str
    """Path of the shard now."""
    reason: str
    """The fault, in one line."""


def mend(home: Home, *, deep: bool = False) -> list[Damaged]:
    """Sets damaged shards aside and deletes files of killed writers; returns the moved shards.

    Reads the footers; `deep` reads every page and verifies its checksum. The rows of a shard that
    was set aside are missing from then on, and the next run makes them again. Raises ShardError,
    before it moves anything, if another schema version wrote the warehouse, and OSError if a disk
    or store cannot be read: an unreadable store does not make a shard damaged.
    """
    shards = [(table, path) for table in TABLES.values() for path in list_shards(home, table)]
    if not shards:
        # What is there may be of tables that only older versions have.
        check_version(home)
    # All faults are known before the first shard is moved, so that a refusal finds all in place.
    with ThreadPoolExecutor(8) as pool:
        faults = list(pool.map(lambda shard: _fault(home, *shard, deep=deep), shards))
    damaged = [
        _set_aside(home, table, path, fault)
        for (table, path), fault in zip(shards, faults, strict=True)
        if fault
    ]
    for table in TABLES.values():
        _sweep(home, table)
    return damaged


def _set_aside(home: Home, table: Table, path: str, fault: str) -> Damaged:
    """Moves a shard to where no view reads it."""
    target = f"{home.root}/damaged/{table.name}-{PurePosixPath(path).name}"
    home.files.makedirs(f"{home.root}/damaged", exist_ok=True)
    home.files.mv(path, target)
    return Damaged(table.name, path, target, fault)


def _fault(home: Home, table: Table, path: str, *, deep: bool) -> str | None:
    """Returns the reason that a shard cannot be used, or None.

    Raises ShardError for a shard of another schema version, which is not damaged.
    """
    try:
        # A fault of the store is raised here; a fault of the shard is found below.
        with _open_shard(home, path, whole=deep) as file:
            shard = pq.ParquetFile(file, page_checksum_verification=True)
            if _metadata(shard, "table") != table.name:
                return f"not a shard of table {table.name}"
            _require_version(home, shard)
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
        # OSError: a page's checksum. ValueError: a footer whose names are not UTF-8.
        return str(error).splitlines()[0]
    return None


def _require_version(home: Home, shard: pq.ParquetFile) -> None:
    """Raises ShardError for a shard of another schema version."""
    version = _metadata(shard, "schema_version")
    if version != SCHEMA_VERSION:
        raise refusal(home, version or "unknown")


def _metadata(shard: pq.ParquetFile, key: str) -> str | None:
    """Returns what the footer of a shard says of itself under a key, or None."""
    metadata: Mapping[bytes, bytes] = shard.schema_arrow.metadata or {}
    value = metadata.get(key.encode())
    return value.decode() if value is not None else None


def _open_shard(home: Home, path: str, *, whole: bool) -> Any:
    """Returns a shard to read: from a store its whole content, or only the end with the footer."""
    if home.is_local:
        return home.files.open(path, "rb")
    if whole:
        return io.BytesIO(home.files.cat_file(path))
    end = home.files.cat_file(path, start=-_FOOTER_BYTES)
    # A Parquet file ends with the length of its footer in four bytes, little-endian, and `PAR1`.
    needed = int.from_bytes(end[-8:-4], "little") + 8
    if len(end) == _FOOTER_BYTES and end.endswith(b"PAR1") and needed > len(end):
        end = home.files.cat_file(path, start=-needed)
    return io.BytesIO(end)


def _sweep(home: Home, table: Table) -> None:
    """Deletes temporary files of writers that are long gone."""
    folder = home.folder(table)
    if not home.is_local or not os.path.isdir(folder):
        return
    for entry in os.scandir(folder):
        if not entry.name.startswith(TEMPORARY_PREFIX):
            continue
        with suppress(FileNotFoundError):  # its writer may finish first
            if entry.stat().st_mtime < time.time() - _ABANDONED_AFTER_SECONDS:
                os.unlink(entry.path)


class Compacted(NamedTuple):
    """Numbers of shards of a table before and after a merge."""

    before: int
    after: int


def compact(home: Home, table: Table, *, rows_per_shard: int = 50_000) -> Compacted:
    """Merges the shards of less than half of `rows_per_shard` into shards of at most that many.

    Rows that several shards held are kept once. Raises ShardError if another schema version wrote
    the shards.
    """
    before = list_shards(home, table)
    num_rows = {path: _num_rows(home, path) for path in before}
    small = [path for path in before if num_rows[path] < rows_per_shard // 2]
    for group in _groups(small, num_rows, rows_per_shard):
        if len(group) < 2:
            continue
        parts = []
        for path in group:
            with home.files.open(path, "rb") as file:
                parts.append(pq.read_table(file))
        # Written before the small ones are deleted, so that readers see every row throughout;
        # meanwhile, and after a kill, views show each id once.
        merged = write_shard(home, table, _distinct(table, pa.concat_tables(parts)))
        for path in group:
            if path != merged:
                home.files.rm(path)
    return Compacted(len(before), len(list_shards(home, table)))


def _distinct(table: Table, data: pa.Table) -> pa.Table:
    """Returns each row once: of several with one identity, the earliest."""
    names = row_names(table, data)
    made_at = data.column(table.time_column).to_pylist()
    first: dict[str, int] = {}
    for position in sorted(range(data.num_rows), key=made_at.__getitem__):
        first.setdefault(names[position], position)
    return data.take(sorted(first.values()))


def _num_rows(home: Home, path: str) -> int:
    """Returns the number of rows of a shard; raises ShardError for another schema version."""
    with home.files.open(path, "rb") as file:
        shard = pq.ParquetFile(file)
        _require_version(home, shard)
        return int(shard.metadata.num_rows)


def _groups(
    paths: Sequence[str], num_rows: Mapping[str, int], rows_per_shard: int
) -> Iterator[list[str]]:
    """Yields paths in groups whose rows fit one shard."""
    group: list[str] = []
    total = 0
    for path in paths:
        if group and total + num_rows[path] > rows_per_shard:
            yield group
            group, total = [], 0
        group.append(path)
        total += num_rows[path]
    if group:
        yield group
