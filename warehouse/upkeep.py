"""Mends and merges shards: damaged ones are set aside, small ones become large ones."""

import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.catalog import old_version
from warehouse.home import Home, ShardError, may_pass
from warehouse.shards import _TEMPORARY, _row_names, list_shards, write_shard
from warehouse.tables import SCHEMA_VERSION, TABLES, Table

_ABANDONED_AFTER_SECONDS = 3600


_FOOTER_BYTES = 1 << 16
"""Bytes fetched of the end of a shard at first; most footers are smaller."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A shard that was set aside, and the reason."""

    table: str
    path: str
    moved_to: str
    reason: str


def mend(home: Home, *, deep: bool = False) -> list[Damaged]:
    """Sets damaged shards aside and deletes files of killed writers; returns what it moved.

    Reads the footers; `deep` reads every page and verifies its checksum. The rows of a shard that
    was set aside are missing from then on, and the next run makes them again. Raises ShardError,
    before it moves anything, if another schema version wrote the warehouse, and OSError if a disk
    or store cannot be read: an unreadable store does not make a shard damaged.
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
    """Returns why a shard cannot be used, or None."""
    try:
        # A fault of the store is raised here; a fault of the shard is found below.
        with _open_shard(home, path, whole=deep) as file:
            shard = pq.ParquetFile(file, page_checksum_verification=True)
            metadata: Mapping[bytes, bytes] = shard.schema_arrow.metadata or {}
            if metadata.get(b"table") != table.name.encode():
                return f"not a shard of table {table.name}"
            version = metadata.get(b"schema_version", b"?").decode()
            if version != SCHEMA_VERSION:
                raise ShardError(old_version(home, version))
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


def _open_shard(home: Home, path: str, *, whole: bool) -> Any:
    """Returns a shard to read: from a store its whole content, or only the end with the footer."""
    if home.is_local:
        return home.files.open(path, "rb")
    if whole:
        return io.BytesIO(home.files.cat_file(path))
    end = home.files.cat_file(path, start=-_FOOTER_BYTES)
    # A Parquet file ends with the length of its footer in four bytes, and the letters PAR1.
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
        if not entry.name.startswith(_TEMPORARY):
            continue
        with suppress(FileNotFoundError):  # its writer may finish first
            if entry.stat().st_mtime < time.time() - _ABANDONED_AFTER_SECONDS:
                os.unlink(entry.path)


class Compacted(NamedTuple):
    """Numbers of shards before and after small ones were merged."""

    before: int
    after: int


def compact(home: Home, table: Table, *, rows_per_shard: int = 50_000) -> Compacted:
    """Merges small shards into shards of at most `rows_per_shard`.

    Merged shards are written before the small ones are deleted, so that readers see every row
    throughout; views show each id once. Rows that several shards held are kept once.
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
    return Compacted(len(before), len(list_shards(home, table)))


def _distinct(table: Table, data: pa.Table) -> pa.Table:
    """Returns each row once: of several with one identity, the one that was made first."""
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
