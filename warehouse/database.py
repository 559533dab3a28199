"""A DuckDB in memory with the views of the catalog, over tables without a row.

A connection shows the shards of a warehouse in place of those tables. If it shows them as temporary
views, which no other connection sees, the connections of a process can share one database: to make
its views takes DuckDB longer than to answer most questions.
"""

import threading
import uuid
from functools import cache

import duckdb

from warehouse.definitions import empty_query, shards_query, view_statements, wanted_views
from warehouse.tables import TABLES

MAKING = threading.RLock()
"""Held while views are made, which threads must not do at once in a database that they share."""


class Database:
    """A database in memory, which is there as long as any connection to it."""

    def __init__(self) -> None:
        self.shown: set[str] = set()
        """The names of its further views."""
        self._name = f":memory:{uuid.uuid4().hex}"
        self._first = self.connect()
        # A footer that was read to check a shard is not read again to query it.
        self._first.execute("SET parquet_metadata_cache = true")
        for table in TABLES.values():
            self._first.execute(f"CREATE VIEW {table.name}_raw AS {empty_query(table)}")
        self._first.execute(f"CREATE VIEW shards AS {shards_query({})}")
        self._first.execute(
            "CREATE TABLE unread_files (table_name VARCHAR, file VARCHAR, reason VARCHAR)"
        )
        for statement in (*view_statements(), wanted_views()):
            self._first.execute(statement)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Returns a new connection."""
        connection = duckdb.connect(self._name)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        return connection

    def is_usable(self) -> bool:
        """Returns False once DuckDB has given it up, as a damaged file can make it do."""
        try:
            self._first.execute("SELECT 1")
        except duckdb.FatalException:
            return False
        return True


_shared = cache(Database)


def shared_database() -> Database:
    """Returns the database that the connections of this process share."""
    with MAKING:
        if not _shared().is_usable():
            _shared.cache_clear()
        return _shared()
