"""A DuckDB connection with one view per table, usable while a run is going on.

`<table>_all` shows each id once, in its latest attempt or revision, and no judgement or grade of a
text that is no longer there. `<table>` of completions and judgements shows the rows that the latest
run of some recipe wanted, of rollouts the steps that count. `verdicts` is the lowest score of each
completion and what follows from it; `shards` names the file of each row. Questions about
evaluations are about one run: the latest, or the one chosen.

SQL stands in files: `views/` what every connection shows, `queries/` the questions people ask,
`pending/` what is missing, `lookups/` what the code reads by parameters.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from warehouse.files import write_whole
from warehouse.home import Home, ShardError
from warehouse.shards import former_shards, list_shards, refusal
from warehouse.tables import (
    COMPLETIONS,
    JUDGEMENTS,
    PROMPTS,
    ROLLOUTS,
    SCHEMA_VERSION,
    TABLES,
    Checkpoint,
    Table,
)

QUERIES = Path(__file__).parent / "queries"
_VIEWS = Path(__file__).parent / "views"
_PENDING = Path(__file__).parent / "pending"
_LOOKUPS = Path(__file__).parent / "lookups"
_CURRENT = (COMPLETIONS, JUDGEMENTS, ROLLOUTS)
"""Tables whose view shows fewer rows than `<table>_all`."""


class QuestionError(ValueError):
    """A question that cannot be answered: an unknown query, run or file format."""


def connect(home: Home) -> duckdb.DuckDBPyConnection:
    """Returns an in-memory DuckDB with the views over a warehouse, which need not exist yet.

    Raises ShardError if another version of Precept wrote it. Shards that are written later may or
    may not be seen: connect again to be sure.
    """
    connection, shards = _open(home)
    locations = []
    for table in TABLES.values():
        paths = _glob_literal(home, table) if shards[table.name] else None
        connection.execute(
            f"CREATE VIEW {table.name}_raw AS {_raw_query(connection, paths, table)}"
        )
        _check_columns(connection, home, table)
        connection.execute(f"CREATE VIEW {table.name}_all AS {_once_query(table)}")
        locations.append(_location_query(paths, table))
    connection.execute(f"CREATE VIEW shards AS {' UNION ALL '.join(locations)}")
    for name in ("macros", "tables", "verdicts"):
        connection.execute((_VIEWS / f"{name}.sql").read_text(encoding="utf-8"))
    for table in TABLES.values():
        if table not in _CURRENT:
            connection.execute(f"CREATE VIEW {table.name} AS FROM {table.name}_all")
    return connection


def check_version(home: Home) -> None:
    """Raises ShardError if another schema version wrote the warehouse; call it before writing."""
    connection, _ = _open(home)
    connection.close()


def _open(home: Home) -> tuple[duckdb.DuckDBPyConnection, dict[str, list[str]]]:
    """Returns a connection without views, and the shards of each table by its name.

    Raises ShardError if another schema version wrote the warehouse.
    """
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    files = home.open_reader()
    if not home.is_local:
        connection.register_filesystem(files)
        # Shards are immutable, so a cached block is never stale.
        connection.execute("SET validate_external_file_cache = 'NO_VALIDATION'")
    shards = {table.name: list_shards(home, table, files) for table in TABLES.values()}
    # Views take their columns from the first shard of a table, so DuckDB fetches its footer anyway.
    first = [paths[0] for paths in shards.values() if paths] or former_shards(home)[:1]
    for path in first:
        version = _shard_version(connection, home.readable(path))
        if version and version != SCHEMA_VERSION:
            raise refusal(home, version)
    return connection, shards


def _shard_version(connection: duckdb.DuckDBPyConnection, path: str) -> str | None:
    """Returns the schema version of a shard, or None if its footer does not say one.

    A damaged shard is no reason to refuse a warehouse: `mend` sets it aside.
    """
    query = "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = 'schema_version'"
    try:
        rows = connection.execute(query, [path]).fetchall()
    except duckdb.Error:
        return None
    return str(rows[0][0]) if rows else None


def _check_columns(connection: duckdb.DuckDBPyConnection, home: Home, table: Table) -> None:
    """Raises ShardError if the shards of a table lack one of its columns."""
    present = connection.table(f"{table.name}_raw").columns
    missing = [name for name in table.schema.names if name not in present]
    if missing:
        raise ShardError(
            f"{home.url}: the shards of table {table.name} lack {', '.join(missing)}; run "
            "precept doctor, which sets such shards aside"
        )


def _glob_literal(home: Home, table: Table) -> str:
    """Returns all shards of a table as an SQL literal."""
    return "'" + home.glob_url(table).replace("'", "''") + "'"


def _raw_query(connection: duckdb.DuckDBPyConnection, paths: str | None, table: Table) -> str:
    """Returns the query of every row of every shard; without a shard, of no row of those types."""
    if paths:
        # Without this, a folder above the warehouse that is named key=value would add a column.
        return f"SELECT * FROM read_parquet({paths}, hive_partitioning = false)"
    relation = connection.from_arrow(table.schema.empty_table())
    columns = ", ".join(
        f'NULL::{kind} AS "{name}"'
        for name, kind in zip(relation.columns, relation.types, strict=True)
    )
    return f"SELECT {columns} WHERE false"


def _location_query(paths: str | None, table: Table) -> str:
    """Returns the query of which row lies in which shard: `kind`, `row_id`, `shard`."""
    if not paths:
        return "SELECT '' AS kind, '' AS row_id, '' AS shard WHERE false"
    return (
        f"SELECT '{table.name}' AS kind, concat_ws('|', {', '.join(table.key)}) AS row_id, "
        "filename AS shard "
        f"FROM read_parquet({paths}, filename = true, hive_partitioning = false)"
    )


def _once_query(table: Table) -> str:
    """Returns the query of each id once: its latest attempt or revision, the earliest such row.

    Judgements and grades of texts that are no longer there are left out.
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


@cache
def _evaluation_names() -> re.Pattern[str]:
    """Returns a pattern of the names that `views/evaluation.sql` defines."""
    text = (_VIEWS / "evaluation.sql").read_text(encoding="utf-8")
    names = re.findall(r"^CREATE (?:VIEW|MACRO) (\w+)", text, re.MULTILINE)
    return re.compile(rf"\b(?:{'|'.join(names)})\b")


def show_evaluation(connection: duckdb.DuckDBPyConnection) -> None:
    """Adds the views over evaluations, once; they take longer to make than all others together."""
    views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    if ("evaluation_runs",) not in views:
        connection.execute((_VIEWS / "evaluation.sql").read_text(encoding="utf-8"))


def read(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, Any] | None = None
) -> duckdb.DuckDBPyRelation | None:
    """Runs a query over any of the views; those over evaluations are made if it names one.

    Returns None for a statement that has no rows.
    """
    if _evaluation_names().search(query):
        show_evaluation(connection)
    return connection.sql(query, params=parameters)


def query_names() -> list[str]:
    """Returns the names of the questions, sorted."""
    return sorted(path.stem for path in QUERIES.glob("*.sql"))


def query_text(name: str) -> str:
    """Returns the SQL of a named question; raises QuestionError, which lists the names."""
    if name not in query_names():
        raise QuestionError(f"no query {name!r}; there are {', '.join(query_names())}")
    return (QUERIES / f"{name}.sql").read_text(encoding="utf-8")


def query_doc(name: str) -> str:
    """Returns what a named question answers: the comment that its file begins with, in one line."""
    lines = itertools.takewhile(lambda line: line.startswith("--"), query_text(name).splitlines())
    return " ".join(line.removeprefix("--").strip() for line in lines)


def ask(connection: duckdb.DuckDBPyConnection, name: str) -> pa.Table:
    """Returns the answer to a named question."""
    return _rows_of(connection, query_text(name)).to_arrow_table()


def _rows_of(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, Any] | None = None
) -> duckdb.DuckDBPyRelation:
    """Runs a query that has rows."""
    relation = read(connection, query, parameters)
    assert relation is not None
    return relation


def _lookup_text(name: str) -> str:
    """Returns the query of `lookups/<name>.sql`, without its semicolon."""
    return (_LOOKUPS / f"{name}.sql").read_text(encoding="utf-8").rstrip().removesuffix(";")


def look_up(
    connection: duckdb.DuckDBPyConnection, name: str, /, **parameters: Any
) -> list[dict[str, Any]]:
    """Returns the rows of `lookups/<name>.sql`, whose parameters are given by name."""
    return list(_rows_of(connection, _lookup_text(name), parameters).to_arrow_table().to_pylist())


def stream(
    connection: duckdb.DuckDBPyConnection, name: str, /, *, batch_rows: int, **parameters: Any
) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of `lookups/<name>.sql` in batches, so that memory holds one at a time."""
    rows = _rows_of(connection, _lookup_text(name), parameters)
    for batch in rows.to_arrow_reader(batch_rows):
        yield batch.to_pylist()


def materialise(
    connection: duckdb.DuckDBPyConnection, name: str, *, table: str | None = None
) -> duckdb.DuckDBPyRelation:
    """Returns the rows of `lookups/<name>.sql` as a temporary table, read once.

    The table has the lookup's name unless `table` gives it another.
    """
    table = table or name
    read(connection, f"CREATE OR REPLACE TEMP TABLE {table} AS {_lookup_text(name)}")
    return connection.table(table)


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


def count_rows(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Returns the number of rows of each table, each id once."""
    return {
        name: len(connection.table(f"{name}_all").project(", ".join(table.key)))
        for name, table in TABLES.items()
    }


def choose_run(connection: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Makes the questions about evaluations be about one run; the start of its id is enough.

    Raises QuestionError if no evaluation, or more than one, has an id that starts so.
    """
    ids = [str(row["run_id"]) for row in look_up(connection, "evaluation_run_ids")]
    if not ids:
        raise QuestionError(
            f"there is no evaluation yet, so none has run id {run_id!r}; run precept evaluate first"
        )
    matching = [name for name in ids if name.startswith(run_id)]
    if run_id in matching:
        matching = [run_id]
    if len(matching) != 1:
        listed = ", ".join((matching or ids)[:5])
        number = f"{len(matching)} evaluations have" if matching else "no evaluation has"
        raise QuestionError(
            f"{number} a run id that starts with {run_id!r}: give more of one, such as {listed}"
        )
    for name in _SHARED:
        connection.execute(f"DROP TABLE IF EXISTS temp.{name}")
    connection.execute("SET VARIABLE run = ?", matching)


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Materialises the views behind the evaluation queries; valid until another run is chosen.

    Call it before asking many of them.
    """
    show_evaluation(connection)
    for name in _SHARED:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM memory.main.{name}")


_SHARED = ("cells", "run_grades", "graded", "metric_values")
"""Views behind most questions about evaluations; each comes after those that it reads."""


def latest_evaluation(connection: duckdb.DuckDBPyConnection) -> str:
    """Returns the id of the latest evaluation; raises QuestionError if there is none."""
    rows = look_up(connection, "current_evaluation")
    if not rows:
        raise QuestionError("no run has evaluated anything; run precept evaluate or precept ablate")
    return str(rows[0]["run_id"])


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

    The file appears whole or not at all. Raises QuestionError if its ending is not known.
    """
    path = Path(out)
    if path.suffix not in _FORMATS:
        raise QuestionError(f"{out}: give a file that ends on {', '.join(_FORMATS)}")
    query = query_text(name).strip().removesuffix(";")
    with write_whole(path) as partial:
        relation = read(
            connection,
            f"COPY ({query}) TO $path (FORMAT {_FORMATS[path.suffix]})",
            {"path": str(partial)},
        )
        [(num_rows,)] = relation.fetchall() if relation else [(0,)]
    return int(num_rows)
