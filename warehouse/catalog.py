"""A DuckDB connection with one view per table, usable while a run is going on.

`<table>_all` shows each id once, in its latest attempt or revision, and no judgement or grade of a
text that is no longer there; judgements, which are about texts, once for each completion that has
the text. `<table>` of completions and judgements shows the rows that the latest run of some recipe
wanted, of rollouts the steps that count. `verdicts` is the lowest score of each completion and what
follows from it; `shards` names the file of each row, and `unread_files` what lies among the shards
and is none. Questions about evaluations are about one run: the latest, or the one chosen.

SQL stands in files: `views/` what every connection shows, `queries/` the questions people ask,
`pending/` what is missing, `lookups/` what the code reads by parameters.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import duckdb
import pyarrow as pa

from warehouse.characters import visible
from warehouse.database import MAKING, Database, shared_database
from warehouse.definitions import (
    column_types,
    further_views,
    named_rows,
    raw_query,
    shards_query,
    views_of,
)
from warehouse.home import Home, ShardError
from warehouse.listing import Listing, list_warehouse, tell_strays
from warehouse.shards import Stray, list_shards
from warehouse.tables import (
    JUDGEMENTS,
    PROMPTS,
    TABLES,
    Checkpoint,
    Table,
)

QUERIES = Path(__file__).parent / "queries"
_PENDING = Path(__file__).parent / "pending"
_LOOKUPS = Path(__file__).parent / "lookups"
LOG = logging.getLogger("precept.warehouse")
_BATCH_ROWS = 10_000


class QuestionError(ValueError):
    """A question that cannot be answered: an unknown query, run or file format."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """A connection with the views over a warehouse, and the files that it reads."""

    connection: duckdb.DuckDBPyConnection
    listing: Listing


def connect(home: Home) -> duckdb.DuckDBPyConnection:
    """Returns an in-memory DuckDB with the views over a warehouse, which need not exist yet.

    It shows the shards of this moment: connect again to see later ones. Views over usage, verdicts
    and evaluations are made by `read`, and all that builds on it, once a query names them: to make
    them takes longer than to answer most questions. Files that are no shards of Precept's are not
    read; the log and table `unread_files` name them. Raises ShardError if another version of
    Precept wrote the warehouse.

    Connections of a process share a database. Whoever makes tables there that are not temporary,
    changes its settings or needs a cursor takes `open_catalog`.
    """
    return _show(home, shared=True).connection


def open_catalog(home: Home) -> Catalog:
    """Returns a connection as `connect` does, to a database of its own, with the files it reads."""
    return _show(home, shared=False)


def _show(home: Home, *, shared: bool) -> Catalog:
    catalog = _open(home, shared=shared)
    connection, shards = catalog.connection, catalog.listing.shards
    create = "CREATE TEMP" if shared else "CREATE OR REPLACE"
    sources = {}
    for table in TABLES.values():
        if paths := [home.pattern(path) for path in shards[table.name]]:
            connection.execute(f"{create} VIEW {table.name}_raw AS {raw_query(paths, table)}")
            _check_columns(connection, home, table)
            sources[table.name] = named_rows(paths)
    if sources:
        connection.execute(f"{create} VIEW shards AS {shards_query(sources)}")
    if strays := catalog.listing.strays:
        connection.execute(f"{create} TABLE unread_files AS FROM main.unread_files")
        _fill_unread(connection, strays)
    for line in tell_strays(strays):
        LOG.warning(line)
    return catalog


def check_version(home: Home) -> None:
    """Raises ShardError if another schema version wrote the warehouse; call it before writing."""
    _open(home, shared=True).connection.close()


def _open(home: Home, *, shared: bool) -> Catalog:
    """Returns a connection that shows no shard yet, and the shards to show.

    Raises ShardError if another schema version wrote the warehouse.
    """
    files = home.open_reader()
    # The file system of a store is registered with a database, for all its connections.
    database = shared_database() if shared and home.is_local else Database()
    connection = database.connect()
    _SHOWN[connection] = database.shown
    if not home.is_local:
        connection.register_filesystem(files)
        # Shards are immutable, so a cached block is never stale.
        connection.execute("SET validate_external_file_cache = 'NO_VALIDATION'")
    return Catalog(connection, list_warehouse(home, connection, files))


def _fill_unread(connection: duckdb.DuckDBPyConnection, strays: Sequence[Stray]) -> None:
    """Writes the files that lie among the shards and are not read into table `unread_files`."""
    for stray in strays:
        connection.execute(
            "INSERT INTO unread_files VALUES (?, ?, ?)",
            # A name need not be UTF-8, as a text of DuckDB must be.
            [stray.table, visible(stray.path), visible(stray.reason)],
        )


def unread_files(connection: duckdb.DuckDBPyConnection) -> list[Stray]:
    """Returns the files that lie among the shards and are not read."""
    return [
        Stray(row["table_name"], row["file"], row["reason"])
        for row in look_up(connection, "unread_files")
    ]


def _check_columns(connection: duckdb.DuckDBPyConnection, home: Home, table: Table) -> None:
    """Raises ShardError if the shards of a table lack one of its columns, or have another type."""
    shards, schema = connection.table(f"{table.name}_raw"), column_types(table)
    present = dict(zip(shards.columns, map(str, shards.types), strict=True))
    missing = [name for name in schema if name not in present]
    odd = [name for name, kind in schema.items() if present.get(name, kind) != kind]
    if missing or odd:
        fault = f"lack {', '.join(missing)}" if missing else f"have another type of {odd[0]}"
        raise ShardError(
            f"{home.url}: the shards of table {table.name} {fault}; run precept doctor --mend, "
            "which sets such shards aside"
        )


def read(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, Any] | None = None
) -> duckdb.DuckDBPyRelation:
    """Returns the rows of a query over any of the views."""
    show_views(connection, views_of(query))
    relation = connection.sql(query, params=parameters)
    assert relation is not None, "the statement has no rows"
    return relation


def show_views(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    """Makes further views that a database does not have yet; each comes after those it reads."""
    with MAKING:
        shown = _SHOWN.setdefault(connection, set())
        for name in names:
            if name not in shown:
                connection.execute(further_views()[name])
                shown.add(name)


def fork(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Returns a further connection to the views of an open catalog, which another thread may use.

    It has temporary tables and views of its own, by which it may hide the catalog's.
    """
    show_views(connection, [*further_views()])
    other = connection.cursor()
    other.execute("SET TimeZone = 'UTC'")
    other.execute("SET enable_progress_bar = false")
    _SHOWN[other] = set(further_views())
    return other


_SHOWN: WeakKeyDictionary[duckdb.DuckDBPyConnection, set[str]] = WeakKeyDictionary()
"""The further views of the database of each connection."""


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
    return comment_of(query_text(name))


def comment_of(query: str) -> str:
    """Returns the comment that a query begins with, in one line."""
    lines = itertools.takewhile(lambda line: line.startswith("--"), query.splitlines())
    return " ".join(line.removeprefix("--").strip() for line in lines)


def ask(connection: duckdb.DuckDBPyConnection, name: str) -> pa.Table:
    """Returns the answer to a named question."""
    return read(connection, query_text(name)).to_arrow_table()


def answer_batches(
    connection: duckdb.DuckDBPyConnection, name: str, *, limit: int | None = None
) -> pa.RecordBatchReader:
    """Returns the answer to a named question, or its first rows, in batches.

    Memory holds one batch at a time.
    """
    return batches_of(read(connection, query_text(name)), limit)


def batches_of(rows: duckdb.DuckDBPyRelation, limit: int | None) -> pa.RecordBatchReader:
    """Returns rows, or the first of them, in batches."""
    if limit is not None:
        rows = rows.limit(limit)
    return rows.to_arrow_reader(_BATCH_ROWS)


def _lookup_text(name: str) -> str:
    """Returns the query of `lookups/<name>.sql`, without its semicolon."""
    return (_LOOKUPS / f"{name}.sql").read_text(encoding="utf-8").rstrip().removesuffix(";")


def look_up(
    connection: duckdb.DuckDBPyConnection, name: str, /, **parameters: Any
) -> list[dict[str, Any]]:
    """Returns the rows of `lookups/<name>.sql`, whose parameters are given by name."""
    return list(read(connection, _lookup_text(name), parameters).to_arrow_table().to_pylist())


def stream(
    connection: duckdb.DuckDBPyConnection, name: str, /, *, batch_rows: int, **parameters: Any
) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of `lookups/<name>.sql` in batches, so that memory holds one at a time."""
    rows = read(connection, _lookup_text(name), parameters)
    for batch in rows.to_arrow_reader(batch_rows):
        yield batch.to_pylist()


def materialise(
    connection: duckdb.DuckDBPyConnection, name: str, *, table: str | None = None
) -> duckdb.DuckDBPyRelation:
    """Returns the rows of `lookups/<name>.sql` as a temporary table, read once.

    The table has the lookup's name unless `table` gives it another.
    """
    table = table or name
    query = _lookup_text(name)
    show_views(connection, views_of(query))
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {query}")
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
    find, rows = connection.extract_statements(text)
    show_views(connection, views_of(text))
    connection.execute(find, parameters)
    [(num_units, num_samples)] = connection.execute(
        "SELECT count(*), coalesce(sum(len(sample_indices)), 0) FROM pending_units"
    ).fetchall()
    return Pending(int(num_units), int(num_samples), _waves(connection, rows.query, wave_rows))


def _waves(connection: duckdb.DuckDBPyConnection, query: str, rows: int) -> Iterator[pa.Table]:
    for batch in connection.sql(query).to_arrow_reader(rows):
        yield pa.Table.from_batches([batch])


def show_prompts_of(connection: duckdb.DuckDBPyConnection, other: Home) -> None:
    """Shows the prompts of another warehouse on disk as if they were stored in this one.

    They are read now, so that the other warehouse may go. Whatever reads `prompts` afterwards, on
    this connection, sees both.
    """
    paths = [other.pattern(path) for path in list_shards(other, PROMPTS)]
    if not paths:
        return
    connection.execute(f"CREATE OR REPLACE TEMP VIEW new_prompts AS {raw_query(paths, PROMPTS)}")
    query = _lookup_text("prompts_with_new")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE prompts AS {query}")


def count_rows(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Returns the number of rows of each table, each id once."""
    counts = {}
    for name, table in TABLES.items():
        ids = connection.table(f"{name}_all").project(", ".join(table.key))
        # Completions may share a judgement, which has a row for each.
        counts[name] = len(ids.distinct() if table is JUDGEMENTS else ids)
    return counts


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


def set_variables(connection: duckdb.DuckDBPyConnection, variables: Mapping[str, str]) -> None:
    """Sets variables of a connection; `run` takes the start of the id of an evaluation."""
    for name, value in variables.items():
        if name == "run":
            choose_run(connection, value)
        else:
            connection.execute(f"SET VARIABLE {name} = ?", [value])


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Materialises the views behind the evaluation queries; valid until another run is chosen.

    Call it before asking many of them.
    """
    show_views(connection, views_of(" ".join(_SHARED)))
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
