"""A DuckDB connection with one view per table, usable while a run is going on.

`<table>_all` shows each id once, as it was last made or said, and no vote about a text that is no
longer there; `<table>` of completions and judgements shows the rows that the latest run of some
recipe wanted, of rollouts those of the steps that count. `verdicts` is the lowest score of each
completion and what follows from it; `shards` says which row lies in which file. What is asked of
evaluations is about one run: the latest, or the one chosen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa

from warehouse.home import Home, ShardError
from warehouse.shards import list_shards
from warehouse.tables import COMPLETIONS, JUDGEMENTS, PROMPTS, ROLLOUTS, TABLES, Checkpoint, Table

QUERIES = Path(__file__).parent / "queries"
_VIEWS = Path(__file__).parent / "views"
_PENDING = Path(__file__).parent / "pending"
_LOOKUPS = Path(__file__).parent / "lookups"


def connect(home: Home) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the views over a warehouse, which need not exist yet.

    Raises ShardError where another version of Precept wrote it. Shards that are written later may
    be seen or not: connect again to be sure.
    """
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    files = home.open_reader()
    if not home.is_local:
        connection.register_filesystem(files)
        # A shard does not change: what was read of it is not asked for again.
        connection.execute("SET validate_external_file_cache = 'NO_VALIDATION'")
    shards = []
    for table in TABLES.values():
        path = _path(home, files, table)
        connection.execute(f"CREATE VIEW {table.name}_raw AS {_raw(connection, path, table)}")
        try:
            connection.execute(f"CREATE VIEW {table.name}_all AS {_once(table)}")
        except duckdb.BinderException as error:
            raise ShardError(
                f"{home.url}: table {table.name} has columns of another Precept; use the Precept "
                "that wrote it, or give another --home"
            ) from error
        shards.append(_shards(path, table))
    connection.execute(f"CREATE VIEW shards AS {' UNION ALL '.join(shards)}")
    for name in ("macros", "tables", "verdicts"):
        connection.execute((_VIEWS / f"{name}.sql").read_text(encoding="utf-8"))
    current = (COMPLETIONS, JUDGEMENTS, ROLLOUTS)
    for table in TABLES.values():
        if table not in current:
            connection.execute(f"CREATE VIEW {table.name} AS FROM {table.name}_all")
    connection.execute((_VIEWS / "evaluation.sql").read_text(encoding="utf-8"))
    return connection


def _path(home: Home, files: fsspec.AbstractFileSystem, table: Table) -> str | None:
    """All shards of a table as a text of SQL; None where there is none."""
    if not list_shards(home, table, files):
        return None
    return "'" + home.glob_url(table).replace("'", "''") + "'"


def _raw(connection: duckdb.DuckDBPyConnection, path: str | None, table: Table) -> str:
    """Every row of every shard; an empty relation of the right types where there is no shard."""
    if path:
        return f"SELECT * FROM read_parquet({path})"
    relation = connection.from_arrow(table.schema.empty_table())
    columns = ", ".join(
        f'NULL::{kind} AS "{name}"'
        for name, kind in zip(relation.columns, relation.types, strict=True)
    )
    return f"SELECT {columns} WHERE false"


def _shards(path: str | None, table: Table) -> str:
    """Which row lies in which shard: table as `kind`, its key joined with `|`, path."""
    if not path:
        return "SELECT '' AS kind, '' AS row_id, '' AS shard WHERE false"
    return (
        f"SELECT '{table.name}' AS kind, concat_ws('|', {', '.join(table.key)}) AS row_id, "
        "filename AS shard "
        f"FROM read_parquet({path}, filename = true)"
    )


def _once(table: Table) -> str:
    """Each id once: its latest attempt or revision, and of that the row that came first.

    Of votes those about the texts that are there now.
    """
    key = ", ".join(table.key)
    rows = f"{table.name}_raw"
    if table.about:
        rows += f" SEMI JOIN {table.about.name}_all USING ({table.about.key[0]}, text_id)"
    first = table.time_column
    order = f"{table.replaced_by} DESC, {first}" if table.replaced_by else first
    return (
        f"SELECT * FROM {rows} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}) = 1"
    )


def query_names() -> list[str]:
    """The questions that have a file, in order of name."""
    return sorted(path.stem for path in QUERIES.glob("*.sql"))


def query_text(name: str) -> str:
    """The SQL of a named question; raises ShardError naming those there are."""
    path = QUERIES / f"{name}.sql"
    if name not in query_names():
        raise ShardError(f"no query {name!r}; there are {', '.join(query_names())}")
    return path.read_text(encoding="utf-8")


def ask(connection: duckdb.DuckDBPyConnection, name: str) -> pa.Table:
    """The answer to a named question."""
    return connection.sql(query_text(name)).to_arrow_table()


def _lookup_text(name: str) -> str:
    """Returns the query of `lookups/<name>.sql`, without its semicolon."""
    return (_LOOKUPS / f"{name}.sql").read_text(encoding="utf-8").rstrip().removesuffix(";")


def look_up(
    connection: duckdb.DuckDBPyConnection, name: str, /, **parameters: Any
) -> list[dict[str, Any]]:
    """Returns the rows of `lookups/<name>.sql`, whose parameters are given by name."""
    rows = connection.sql(_lookup_text(name), params=parameters).to_arrow_table().to_pylist()
    return list(rows)


def stream(
    connection: duckdb.DuckDBPyConnection, name: str, /, *, batch_rows: int, **parameters: Any
) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of `lookups/<name>.sql` in batches, so that memory holds one at a time."""
    relation = connection.sql(_lookup_text(name), params=parameters)
    for batch in relation.to_arrow_reader(batch_rows):
        yield batch.to_pylist()


def materialise(connection: duckdb.DuckDBPyConnection, name: str) -> duckdb.DuckDBPyRelation:
    """Returns the rows of `lookups/<name>.sql` as a temporary table of that name, read once."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {_lookup_text(name)}")
    return connection.table(name)


@dataclass(frozen=True, slots=True)
class Pending:
    """The units of work that a query found missing, and the samples that they lack."""

    num_units: int
    num_samples: int
    waves: Iterator[pa.Table]
    """The units, in tables of at most as many rows as were asked for."""

    def __iter__(self) -> Iterator[pa.Table]:
        return self.waves


def find_pending(
    connection: duckdb.DuckDBPyConnection, name: str, /, *, wave_rows: int, **parameters: Any
) -> Pending:
    """Returns what `pending/<name>.sql` finds missing, in waves of at most `wave_rows` units.

    The file has two statements. The first, which takes the parameters, makes temporary table
    `pending_units`: a unit a row, without its texts, with lists `sample_indices` and `attempts` of
    the samples that it lacks. The second one adds the texts and is read wave by wave, so that
    memory holds one wave at a time.
    """
    text = (_PENDING / f"{name}.sql").read_text(encoding="utf-8")
    find, read = connection.extract_statements(text)
    connection.execute(find, parameters)
    [(num_units, num_samples)] = connection.execute(
        "SELECT count(*), coalesce(sum(len(sample_indices)), 0) FROM pending_units"
    ).fetchall()
    return Pending(int(num_units), int(num_samples), _waves(connection, read.query, wave_rows))


def _waves(connection: duckdb.DuckDBPyConnection, query: str, rows: int) -> Iterator[pa.Table]:
    for batch in connection.sql(query).to_arrow_reader(rows):
        yield pa.Table.from_batches([batch])


def show_prompts_of(connection: duckdb.DuckDBPyConnection, other: Home) -> None:
    """Shows the prompts of another warehouse on disk as if they were stored in this one.

    They are read now, so that the other warehouse may go. Whatever reads `prompts` afterwards, on
    this connection, sees both.
    """
    paths = list_shards(other, PROMPTS)
    if not paths:
        return
    connection.read_parquet(paths, hive_partitioning=False).create_view("new_prompts")
    query = _lookup_text("prompts_with_new")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE prompts AS {query}")


def choose_run(connection: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Makes the questions of evaluations be about one run; the start of its id is enough.

    Raises ShardError where no evaluation, or more than one, has an id that starts so.
    """
    ids = [
        str(name)
        for (name,) in connection.execute(
            "SELECT run_id FROM evaluation_runs ORDER BY started_at DESC, run_id"
        ).fetchall()
    ]
    if not ids:
        raise ShardError(
            f"there is no evaluation yet, so none has run id {run_id!r}; run one first"
        )
    found = [name for name in ids if name.startswith(run_id)]
    if run_id in found:
        found = [run_id]
    if len(found) != 1:
        known = ", ".join((found or ids)[:5])
        many = f"{len(found)} evaluations have" if found else "no evaluation has"
        raise ShardError(
            f"{many} a run id that starts with {run_id!r}: give more of one, as {known}"
        )
    for name in _SHARED:
        connection.execute(f"DROP TABLE IF EXISTS temp.{name}")
    connection.execute("SET VARIABLE run = ?", found)


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Computes once what all questions about the chosen evaluation are asked of: for many of them
    in a row. It stays as it is until another run is chosen."""
    for name in _SHARED:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM memory.main.{name}")


_SHARED = ("cells", "run_ballots", "graded", "metric_values")
"""Views that stand behind most questions; each after those that it is made of."""


def latest_evaluation(connection: duckdb.DuckDBPyConnection) -> str:
    """Id of the latest run that evaluated something; raises ShardError where there is none."""
    found = connection.execute("SELECT run_id FROM current_run").fetchone()
    if not found:
        raise ShardError("no run has evaluated anything; run precept evaluate or precept ablate")
    return str(found[0])


def find_checkpoints(connection: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> list[Checkpoint]:
    """Returns the checkpoints of these ids that exist, in the order of the ids."""
    rows = look_up(connection, "checkpoints", ids=list(ids))
    checkpoints = {row["checkpoint_id"]: Checkpoint(**row) for row in rows}
    return [checkpoints[name] for name in ids if name in checkpoints]


def latest_set(connection: duckdb.DuckDBPyConnection, recipe: str) -> str | None:
    """Returns the set that the latest refresh of a recipe froze, or None."""
    rows = look_up(connection, "latest_set", recipe=recipe)
    return str(rows[0]["set_id"]) if rows else None


_FORMATS = {".parquet": "PARQUET", ".jsonl": "JSON", ".csv": "CSV"}


def export(connection: duckdb.DuckDBPyConnection, name: str, out: str) -> int:
    """Writes the answer to a named question into a new file; returns its number of rows.

    The file appears whole or not at all. Raises ShardError where its ending is none that is known.
    """
    path = Path(out)
    if path.suffix not in _FORMATS:
        raise ShardError(f"{out}: give a file that ends on {', '.join(_FORMATS)}")
    query = query_text(name).strip().removesuffix(";")
    partial = path.with_name(f".{path.name}.partial")
    try:
        relation = connection.sql(
            f"COPY ({query}) TO $path (FORMAT {_FORMATS[path.suffix]})",
            params={"path": str(partial)},
        )
        [(count,)] = relation.fetchall() if relation else [(0,)]
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return int(count)
