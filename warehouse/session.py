"""Statements that a user runs one after the other: each reads the rows that are there by then."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import duckdb
import pyarrow as pa

from warehouse.catalog import Catalog, QuestionError, batches_of, open_catalog, show_views
from warehouse.definitions import described, listed_views, views_of
from warehouse.home import Home
from warehouse.shards import list_shards
from warehouse.statement import check_statement, confine
from warehouse.tables import TABLES, columns


@dataclass(frozen=True, slots=True)
class Described:
    """A column of a table or view."""

    name: str
    type: str
    sentence: str
    """Empty for a column of a view."""


@dataclass(frozen=True, slots=True)
class Words:
    """The names that a statement may use."""

    columns: Mapping[str, Sequence[str]]
    """By table or view, the names of its columns."""
    functions: Sequence[str]
    keywords: Sequence[str]


class Session:
    """A warehouse whose shards are listed at each statement, and opened anew if they changed."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._catalog: Catalog | None = None
        self._shards: dict[str, list[str]] = {}

    def run(self, query: str, *, limit: int | None = None) -> pa.RecordBatchReader:
        """Returns the rows, or the first of them, of one statement that only reads.

        Raises QuestionError for any other.
        """
        check_statement(query)
        connection = self._connect()
        show_views(connection, views_of(query))
        relation = connection.sql(query)
        assert relation is not None
        return batches_of(relation, limit)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """Returns a connection that can open the shards of this moment and nothing else."""
        shards = {name: list_shards(self._home, table) for name, table in TABLES.items()}
        if self._catalog is None or shards != self._shards:
            catalog = open_catalog(self._home)
            # SHOW TABLES and its like list views without naming them.
            show_views(catalog.connection, [*listed_views()])
            confine(catalog, self._home)
            # Only now: the old one stays if the shards of this moment cannot be opened.
            self._catalog, self._shards = catalog, shards
        return self._catalog.connection

    def interrupt(self) -> None:
        """Ends the statement that another thread runs."""
        if self._catalog is not None:
            self._catalog.connection.interrupt()

    def describe(self, name: str) -> list[Described]:
        """Returns the columns of a table or view; raises QuestionError if there is none."""
        if name.lower() not in self.words().columns and name.lower() not in described():
            raise QuestionError(f"no table or view {name!r}; .tables lists them")
        rows = self.run(f'DESCRIBE "{name.lower()}"').read_all().to_pylist()
        table = TABLES.get(name.lower().removesuffix("_all"))
        sentences = {one.name: one.sentence for one in columns(table)} if table else {}
        return [
            Described(row["column_name"], row["column_type"], sentences.get(row["column_name"], ""))
            for row in rows
        ]

    def words(self) -> Words:
        """Returns the names that a statement may use; those of lazily made views without columns
        until one is read."""
        rows = self._connect().cursor().execute(_COLUMNS).fetchall()
        known: dict[str, list[str]] = {name: [] for name in described()}
        for table, column in rows:
            known.setdefault(table, []).append(column)
        return Words(known, *_language())


_COLUMNS = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"


@cache
def _language() -> tuple[list[str], list[str]]:
    """Returns the functions and the keywords of DuckDB."""
    with duckdb.connect() as connection:
        functions = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE regexp_full_match(function_name, '[a-z]\\w+') ORDER BY ALL"
        ).fetchall()
        keywords = connection.execute(
            "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved' "
            "OR keyword_name IN ('by', 'join', 'left', 'exclude', 'over', 'partition', 'with')"
        ).fetchall()
    return [name for (name,) in functions], [name.upper() for (name,) in keywords]


def split_statements(text: str) -> list[str]:
    """Returns the statements of a text one by one; raises duckdb.Error if it is no SQL."""
    with duckdb.connect() as parser:
        return [one.query.strip() for one in parser.extract_statements(text)]


_QUOTED = re.compile(
    r"""\b[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$"""
    r"""|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""",
    re.DOTALL,
)
"""Texts, quoted names and comments."""


def is_complete(text: str) -> bool:
    """Returns True if a text ends on a semicolon that ends a statement."""
    bare = _QUOTED.sub("", text)
    return bare.rstrip().endswith(";") and not re.search(r"['\"]|\$\w*\$|/\*", bare)
