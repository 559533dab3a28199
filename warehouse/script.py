"""The catalog's views as one SQL script, which any DuckDB runs without Precept."""

import re

from warehouse.catalog import open_catalog
from warehouse.definitions import (
    empty_query,
    further_views,
    shards_query,
    sql_text,
    view_statements,
)
from warehouse.home import Home, ShardError
from warehouse.tables import SCHEMA_VERSION, TABLES, Table

_HEAD = """\
-- The views of the warehouse at {url}, for any DuckDB: duckdb -init views.sql
-- They read the shards at each query, so rows that are written later are seen. A table that has no
-- shard yet stays empty: run precept views again once it has. Read the views and not the files:
-- shards also hold rows that later ones replaced. View `verdicts` says which completions are
-- accepted, and `usage` what each stage of each run cost.
SET TimeZone = 'UTC';
"""


def views_script(home: Home) -> str:
    """Returns SQL that makes the views, with absolute paths; it may run more than once.

    Raises ShardError if another version of Precept wrote the warehouse, or if files lie among the
    shards that are not read: the script, which names files by a pattern, would read them.
    """
    catalog = open_catalog(home)
    if strays := catalog.listing.strays:
        raise ShardError(
            f"{home.url}: files that are no shards of Precept's would be read by the script, such "
            f"as {strays[0].path}; run precept doctor --mend first, which sets them aside"
        )
    shards = catalog.listing.shards
    raw = [
        f"CREATE VIEW {table.name}_raw AS {_raw_query(home, table)};"
        if shards[table.name]
        else f"CREATE VIEW {table.name}_raw AS {empty_query(table)};"
        for table in TABLES.values()
    ]
    sources = {name: _rows(home, table) for name, table in TABLES.items() if shards[name]}
    statements = [
        *raw,
        f"CREATE VIEW shards AS {shards_query(sources)};",
        *view_statements(),
        *further_views().values(),
    ]
    body = "\n".join(statement.strip() for statement in statements)
    body = re.sub(r"^CREATE (VIEW|MACRO) ", r"CREATE OR REPLACE \1 ", body, flags=re.MULTILINE)
    url = " ".join(home.url.splitlines())
    return f"{_HEAD.format(url=url)}\n{body}\n"


def _files(home: Home, table: Table) -> str:
    """Returns the glob of the names that shards of a table have, as an SQL literal."""
    return sql_text(home.pattern(home.folder(table)) + "/" + "[0-9a-f]" * 32 + ".parquet")


def _rows(home: Home, table: Table) -> str:
    """Returns the rows of the files of a table whose footers say that Precept wrote them."""
    return (
        f"read_parquet({_files(home, table)}, filename = true, hive_partitioning = false) "
        "SEMI JOIN (SELECT file_name AS filename "
        f"FROM parquet_kv_metadata({_files(home, table)}) GROUP BY file_name HAVING "
        f"bool_or(key = 'table'::BLOB AND value = '{table.name}'::BLOB) AND "
        f"bool_or(key = 'schema_version'::BLOB AND value = '{SCHEMA_VERSION}'::BLOB) AND "
        "bool_or(key = 'shard'::BLOB AND ends_with(file_name, '/' || decode(value)))"
        ") USING (filename)"
    )


def _raw_query(home: Home, table: Table) -> str:
    return f"SELECT * EXCLUDE (filename) FROM {_rows(home, table)}"
