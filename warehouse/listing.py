"""Which files of a warehouse are shards that Precept wrote; nothing else that lies there is read.

Name and footer of a shard are checked at every read, in one pass over all footers, which DuckDB
would fetch anyway. The rows themselves, whose ids make the name, are checked by `precept doctor`.
"""

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.characters import one_line
from warehouse.home import Home, ShardError, may_pass
from warehouse.shards import NAME_KEY, Stray, former_shards, list_folder, refusal, shard_name
from warehouse.tables import SCHEMA_VERSION, TABLES, Table

_FOOTER_BYTES = 1 << 16
"""Bytes first fetched of the end of a shard; most footers are smaller."""

_NUM_NAMED = 5
"""Most files that a sentence names."""

_FOOTERS = """
SELECT file_name, decode(key), decode(value)
FROM parquet_kv_metadata($paths)
WHERE key IN ('table'::BLOB, 'schema_version'::BLOB, 'shard'::BLOB)
"""


@dataclass(frozen=True, slots=True)
class Listing:
    """The shards of a warehouse, and the files beside them that are not read."""

    shards: Mapping[str, list[str]]
    """Sorted paths by the name of their table."""
    strays: list[Stray]


def list_warehouse(
    home: Home, connection: duckdb.DuckDBPyConnection, files: fsspec.AbstractFileSystem
) -> Listing:
    """Returns the shards that can be believed, by their names and footers.

    Raises ShardError if another schema version wrote one of them, and OSError if a disk or a store
    cannot be read.
    """
    folders = {name: list_folder(home, table, files) for name, table in TABLES.items()}
    strays = [stray for folder in folders.values() for stray in folder.strays]
    listed = [(TABLES[name], path) for name, folder in folders.items() for path in folder.shards]
    if not listed:
        _refuse_former(home)
    faults = _faults(home, connection, listed)
    shards: dict[str, list[str]] = {name: [] for name in TABLES}
    for (table, path), fault in zip(listed, faults, strict=True):
        if fault is None:
            shards[table.name].append(path)
        elif fault:
            strays.append(Stray(table.name, path, fault))
    return Listing(shards, strays)


def tell_strays(strays: Sequence[Stray]) -> list[str]:
    """Returns a sentence for each table that has files which are not read."""
    by_table: dict[str, list[Stray]] = {}
    for stray in strays:
        by_table.setdefault(stray.table, []).append(stray)
    return [_tell(table, found) for table, found in by_table.items()]


def _tell(table: str, strays: Sequence[Stray]) -> str:
    named = [f"{one_line(s.name)} ({one_line(s.reason)})" for s in strays[:_NUM_NAMED]]
    if more := len(strays) - len(named):
        named.append(f"and {more} more, which table unread_files names")
    one = len(strays) == 1
    return (
        f"{len(strays)} {'file' if one else 'files'} in {table}/ {'is' if one else 'are'} no "
        f"{'shard' if one else 'shards'} of Precept's and not read: {', '.join(named)}; precept "
        f"doctor --mend sets {'it' if one else 'them'} aside"
    )


def _refuse_former(home: Home) -> None:
    """Raises ShardError if shards of a table lie there that only older versions have."""
    for path in former_shards(home):
        with suppress(pa.ArrowException), _open_shard(home, path, whole=False) as file:
            if version := _metadata(pq.ParquetFile(file)).get("schema_version"):
                raise refusal(home, version)


def _faults(
    home: Home, connection: duckdb.DuckDBPyConnection, listed: Sequence[tuple[Table, str]]
) -> list[str | None]:
    """Returns the fault of each file, None without one, "" for a file that is gone."""
    if not listed:
        return []
    paths = [home.pattern(path) for _, path in listed]
    try:
        rows = connection.execute(_FOOTERS, {"paths": paths}).fetchall()
    except duckdb.Error:
        # One file has no footer: all are opened one by one, to tell which.
        return _faults_one_by_one(home, listed)
    footers: dict[str, dict[str, str]] = {}
    for file, key, value in rows:
        footers.setdefault(file, {})[key] = value
    return [
        _footer_fault(home, table, path, footers.get(home.readable(path), {}))
        for table, path in listed
    ]


def _faults_one_by_one(home: Home, listed: Sequence[tuple[Table, str]]) -> list[str | None]:
    def fault(shard: tuple[Table, str]) -> str | None:
        table, path = shard
        return fault_of(home, table, path) if home.files.exists(path) else ""

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(fault, listed))


def _footer_fault(home: Home, table: Table, path: str, footer: Mapping[str, str]) -> str | None:
    """Returns why a file is no shard of a table, as its footer tells, or None.

    Raises ShardError for a shard of another schema version, which is not damaged.
    """
    if footer.get("table") != table.name:
        return f"not a shard of table {table.name}"
    version = footer.get("schema_version", "")
    if not version.isdecimal():
        return "no schema version in its footer"
    if version != SCHEMA_VERSION:
        raise refusal(home, version)
    if footer.get(NAME_KEY) != PurePosixPath(path).name:
        return "not written by Precept under this name"
    return None


def fault_of(home: Home, table: Table, path: str, *, deep: bool = False) -> str | None:
    """Returns why a file cannot be read as a shard of a table, or None.

    Reads the footer; `deep` reads every page, verifies its checksum, and holds the ids of the rows
    against the name. Raises ShardError for a shard of another schema version, and OSError if the
    disk or the store cannot be read: that does not make a shard damaged.
    """
    try:
        # A fault of the store is raised here; a fault of the shard is found below.
        with _open_shard(home, path, whole=deep) as file:
            shard = pq.ParquetFile(file, page_checksum_verification=True)
            if fault := _footer_fault(home, table, path, _metadata(shard)):
                return fault
            if not shard.schema_arrow.equals(table.schema):
                return f"columns that are not those of table {table.name}"
            return _rows_fault(table, path, shard) if deep else None
    except FileNotFoundError:
        return None
    except ShardError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, PermissionError) or may_pass(error):
            raise
        # OSError: a page's checksum. ValueError: a footer whose names are not UTF-8.
        return str(error).splitlines()[0]


def _rows_fault(table: Table, path: str, shard: pq.ParquetFile) -> str | None:
    """Returns why the rows of a shard cannot be believed, or None; raises what pyarrow raises."""
    ids = []
    for group in range(shard.num_row_groups):
        rows = shard.read_row_group(group)
        rows.validate(full=True)
        ids.append(rows.select(list(table.identity)))
    empty = table.schema.empty_table().select(list(table.identity))
    name = shard_name(table, pa.concat_tables(ids) if ids else empty)
    return None if name == PurePosixPath(path).name else "rows that are not those of its name"


def _metadata(shard: pq.ParquetFile) -> dict[str, str]:
    """Returns what the footer of a shard says of itself."""
    metadata: Mapping[bytes, bytes] = shard.schema_arrow.metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items()}


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
