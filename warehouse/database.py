"""A DuckDB in memory with the views of the catalog, over tables without a row.

A connection shows the shards of a warehouse as temporary views, which stand before those tables. So
the connections of a process share one database: to make its views takes DuckDB longer than to
answer most questions.
"""

import threading
import uuid
from collections.abc import Sequence
from functools import cache
from weakref import WeakKeyDictionary

import duckdb

from warehouse.definitions import (
    empty_query,
    further_views,
    shards_query,
    view_statements,
    wanted_views,
)
from warehouse.tables import TABLES

_LOCK = threading.RLock()
"""Held while views are made, which threads that share a database must not do at once."""


class Database:
    """A database in memory, for as long as there is a connection to it."""

    def __init__(self) -> None:
        self._name = f":memory:{uuid.uuid4().hex}"
        self._further: set[str] = set()
        self._keeper = duckdb.connect(self._name)
        for table in TABLES.values():
            self._keeper.execute(f"CREATE VIEW {table.name}_raw AS {empty_query(table)}")
        self._keeper.execute(f"CREATE VIEW shards AS {shards_query({})}")
        self._keeper.execute(
            "CREATE TABLE unread_files (table_name VARCHAR, file VARCHAR, reason VARCHAR)"
        )
        for statement in (*view_statements(), wanted_views()):
            self._keeper.execute(statement)
        # A footer that was read to check a shard is not read again to query it.
        self._keeper.execute("SET parquet_metadata_cache = true")

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Returns a new connection."""
        connection = duckdb.connect(self._name)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        _FURTHER[connection] = self._further
        return connection


_FURTHER: WeakKeyDictionary[duckdb.DuckDBPyConnection, set[str]] = WeakKeyDictionary()
"""The names of the further views that the database of each connection has."""

_shared = cache(Database)


def connect_shared() -> duckdb.DuckDBPyConnection:
    """Returns a new connection to the database that this process shares."""
    with _LOCK:
        try:
            return _shared().connect()
        except duckdb.FatalException:
            # DuckDB gives a database up for good after some faults, as damaged files can cause.
            _shared.cache_clear()
            return _shared().connect()


def show_views(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    """Makes further views that a database does not have yet; each comes after those it reads."""
    with _LOCK:
        shown = _FURTHER.setdefault(connection, set())
        for name in names:
            if name not in shown:
                connection.execute(further_views()[name])
                shown.add(name)
