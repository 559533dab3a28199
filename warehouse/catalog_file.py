"""The catalog as one small file of views, which any DuckDB opens without Precept, also during runs.

The file holds no data: its views read the shards where they lie, at each query.
"""

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from warehouse.definitions import sql_text
from warehouse.files import OutputError, write_whole
from warehouse.home import Home
from warehouse.script import views_script
from warehouse.tables import SCHEMA_VERSION, TABLES, columns

ENDING = ".duckdb"
_STORAGE_VERSION = "v1.2.0"
"""Version of DuckDB from which on the file can be opened."""
_IDENTITY = "warehouse"
"""View of the file that names its warehouse; by it a catalog is told from any other database."""


def write_catalog(home: Home, out: str, *, replace: bool = False) -> Path:
    """Writes the catalog of a warehouse as a file, whole or not at all; returns its path.

    An older catalog of the same warehouse is replaced; whoever has it open goes on reading it.
    Raises OutputError for a name with another ending, and if any other file is there and `replace`
    is not set.
    """
    path = Path(out)
    if path.suffix != ENDING:
        raise OutputError(f"{out}: give the catalog a name that ends on {ENDING}")
    if path.is_file() and not replace:
        _require_own(home, path)
    statements = [views_script(home), *_comments(), _identity(home)]
    with write_whole(path) as partial:
        partial.unlink()  # DuckDB makes the file itself.
        with duckdb.connect() as connection:
            connection.execute(
                f"ATTACH {sql_text(str(partial))} AS catalog "
                f"(STORAGE_VERSION {sql_text(_STORAGE_VERSION)})"
            )
            connection.execute("USE catalog")
            for statement in statements:
                connection.execute(statement)
            connection.execute("CHECKPOINT catalog")
    return path


def _identity(home: Home) -> str:
    """Returns the SQL of the view that says which warehouse the catalog is of."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return (
        f"CREATE VIEW {_IDENTITY} AS SELECT {sql_text(home.url)} AS url, "
        f"{sql_text(SCHEMA_VERSION)} AS schema_version, TIMESTAMPTZ {sql_text(now)} AS written_at"
    )


def _comments() -> list[str]:
    """Returns the SQL that puts the sentences of tables and columns beside the views."""
    statements = []
    for name, table in TABLES.items():
        doc = " ".join((table.row.__doc__ or "").split())
        statements.append(f"COMMENT ON VIEW {name} IS {sql_text(doc)}")
        statements += [
            f"COMMENT ON COLUMN {name}.{column.name} IS {sql_text(column.sentence)}"
            for column in columns(table)
        ]
    return statements


def _require_own(home: Home, path: Path) -> None:
    """Raises OutputError unless a file is a catalog of this warehouse."""
    url = catalog_of(path)
    if url is None:
        raise OutputError(
            f"{path} is there already and no catalog of Precept's; give another name, or --force "
            "to replace it"
        )
    if url != home.url:
        raise OutputError(
            f"{path} is the catalog of {url}; give another name for that of {home.url}, or --force "
            "to replace it"
        )


def catalog_of(path: Path) -> str | None:
    """Returns the warehouse that a file is the catalog of, or None if it is no such file."""
    with tempfile.TemporaryDirectory() as folder:
        # A copy, because DuckDB locks a file that somebody has open.
        copy = Path(folder) / "catalog.duckdb"
        try:
            shutil.copyfile(path, copy)
            with duckdb.connect(str(copy), read_only=True) as connection:
                rows = connection.execute(f"SELECT url FROM {_IDENTITY}").fetchall()
        except (OSError, duckdb.Error):
            return None
    return str(rows[0][0]) if len(rows) == 1 else None
