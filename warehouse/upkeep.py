"""Upkeep of shards: damaged ones are set aside, small ones are merged into large ones.

Shards of another schema version are neither: a warehouse that has one is refused untouched.
"""

import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.catalog import check_version
from warehouse.home import Home, ShardError
from warehouse.listing import fault_of, tell_strays
from warehouse.shards import (
    TEMPORARY_PREFIX,
    Stray,
    list_folder,
    list_shards,
    row_names,
    write_shard,
)
from warehouse.tables import TABLES, Table

_ABANDONED_AFTER_SECONDS = 3600
"""Age of a temporary file from which on its writer counts as dead."""

_QUERY_FAULTS = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.ParserException,
    duckdb.PermissionException,
    duckdb.SyntaxException,
)
"""Errors of DuckDB that a damaged shard never causes."""


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


def examine(home: Home, *, deep: bool = False) -> list[Stray]:
    """Returns the files among the shards that are no shards, or damaged ones; moves nothing.

    Reads the footers; `deep` reads every page, verifies its checksum and holds the rows against the
    name of their shard. Raises ShardError if another schema version wrote the warehouse, and
    OSError if a disk or a store cannot be read: an unreadable store does not make a shard damaged.
    """
    folders = {name: list_folder(home, table) for name, table in TABLES.items()}
    shards = [(TABLES[name], path) for name, folder in folders.items() for path in folder.shards]
    if not shards:
        # What is there may be of tables that only older versions have.
        check_version(home)
    with ThreadPoolExecutor(8) as pool:
        faults = list(pool.map(lambda shard: fault_of(home, *shard, deep=deep), shards))
    damaged = [
        Stray(table.name, path, fault)
        for (table, path), fault in zip(shards, faults, strict=True)
        if fault
    ]
    return [stray for folder in folders.values() for stray in folder.strays] + damaged


def mend(home: Home, *, deep: bool = False, every_file: bool = False) -> list[Damaged]:
    """Sets damaged shards aside and deletes files of killed writers; returns what was moved.

    A Parquet file that is no shard of its table is moved too; with `every_file`, so is any other
    file or folder among the shards. The rows of a shard that was set aside are missing from then
    on, and the next run makes them again. Raises what `examine` raises, before anything moves.
    """
    # All faults are known before the first shard is moved, so that a refusal finds all in place.
    found = [
        stray for stray in examine(home, deep=deep) if every_file or stray.name.endswith(".parquet")
    ]
    damaged = [_set_aside(home, stray) for stray in found]
    for table in TABLES.values():
        _sweep(home, table)
    return damaged


def _set_aside(home: Home, stray: Stray) -> Damaged:
    """Moves a file to where no view reads it."""
    files = home.files
    files.makedirs(f"{home.root}/damaged", exist_ok=True)
    target = first = f"{home.root}/damaged/{stray.table}-{stray.name}"
    # One that was set aside before under the same name stays.
    for number in itertools.count(2):
        if not (os.path.lexists(target) if home.is_local else files.exists(target)):
            break
        target = f"{first}.{number}"
    if home.is_local:
        # A link is moved as such, whatever it leads to.
        os.rename(stray.path, target)
    else:
        files.mv(stray.path, target, recursive=True)
    return Damaged(stray.table, stray.path, target, stray.reason)


@contextmanager
def damage_named(home: Home) -> Iterator[None]:
    """Raises ShardError with the name of the shard in place of DuckDB's error about its bytes.

    The shards are examined only once a query has failed in a way that damage can cause.
    """
    try:
        yield
    except _QUERY_FAULTS:
        raise  # the query's own fault
    except (duckdb.Error, RuntimeError, UnicodeDecodeError) as error:
        # DuckDB's bindings raise RuntimeError for the name of a column that is not UTF-8.
        if isinstance(error, RuntimeError) and "nanobind" not in str(error):
            raise
        if "No such file" in str(error):
            raise ShardError(
                f"{home.url}: shards were merged or moved while they were read; run the same "
                "command again"
            ) from error
        for stray in examine(home, deep=True):
            if stray.name.endswith(".parquet"):
                raise ShardError(tell_strays([stray])[0]) from error
        raise


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

    Rows that several shards held are kept once; damaged shards stay as they are. Raises ShardError
    if another schema version wrote the shards.
    """
    listed = list_shards(home, table)
    before = [path for path in listed if fault_of(home, table, path) is None]
    num_rows = {path: _num_rows(home, path) for path in before}
    small = [path for path in before if num_rows[path] < rows_per_shard // 2]
    # Damage must not pass into a new shard, whose checksums would vouch for it.
    sound = [path for path in small if fault_of(home, table, path, deep=True) is None]
    for group in _groups(sound, num_rows, rows_per_shard):
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
    return Compacted(len(listed), len(list_shards(home, table)))


def _distinct(table: Table, data: pa.Table) -> pa.Table:
    """Returns each row once: of several with one identity, the earliest."""
    names = row_names(table, data)
    made_at = data.column(table.time_column).to_pylist()
    first: dict[str, int] = {}
    for position in sorted(range(data.num_rows), key=made_at.__getitem__):
        first.setdefault(names[position], position)
    return data.take(sorted(first.values()))


def _num_rows(home: Home, path: str) -> int:
    """Returns the number of rows of a shard."""
    with home.files.open(path, "rb") as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


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
