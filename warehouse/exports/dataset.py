"""A data set that leaves the warehouse: a folder that `datasets.load_dataset` reads as it stands.

DuckDB shapes the rows, and they pass to Parquet in batches: beyond a fixed limit, what a sort or a
join holds lies on the disk of the folder. Rows that a later run replaced, prompts that a suite asks
and the texts of policies do not leave. What people say of a completion goes before what the judge
says.
"""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.catalog import read, show_views
from warehouse.definitions import sql_text, views_of

Form = Literal["trl", "messages", "sharegpt", "star1", "verl"]
Reasoning = Literal["field", "tags", "thinking"]

CONFIGS: Mapping[str, str] = {
    "sft": "reply",
    "rl_prompts": "prompt",
    "preference": "pair",
    "rejected": "reply",
    "traces": "chat",
}
"""The configurations of a data set, in their order, each with the shape of its rows."""

_QUERIES = Path(__file__).parent
_BATCH_ROWS = 2_000
_ROWS_PER_FILE = 200_000
_MEMORY = "2GB"
"""Most that DuckDB holds in memory; the rest of a sort or a join lies on the disk."""
_OWN_TAGS = ("sharegpt", "star1")
"""Forms whose replies are texts, so that reasoning stands between tags."""
_HELD_CHATS: Mapping[Form, str] = {
    "star1": "len(messages) = 1",
    "sharegpt": "NOT has_calls(messages)",
}
"""Conditions on the chats that a form has a place for, where it has none for others."""
_REPLY_TEXTS: Mapping[str, Sequence[str]] = {
    "reply": ("reasoning", "answer"),
    "chat": ("reasoning", "answer"),
    "pair": ("chosen_reasoning", "chosen_answer", "rejected_reasoning", "rejected_answer"),
    "prompt": (),
}
"""Columns by shape whose texts stand in a reply."""


class ExportError(ValueError):
    """A data set or a checkpoint that cannot leave as it was asked to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """The rows that leave, and how they are written."""

    form: Form = "trl"
    """Layout of the rows."""
    reasoning: Reasoning | None = None
    """Place of the reasoning. Unset: a field, or between tags where the form has texts alone."""
    all_prompts: bool = False
    """Let all judged prompts leave for RL, not only those of which some completions were accepted
    and some rejected."""
    recipes: Sequence[str] = ()
    """Recipes whose rows leave. Empty: the only one of the warehouse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedConfig:
    """A configuration as it was written."""

    name: str
    num_rows: int
    columns: Sequence[str]
    num_left_out: int = 0
    """Rows that the form cannot hold: chats of several turns in STAR-1's, calls of tools in
    ShareGPT's, and replies that hold a tag themselves where reasoning stands between tags."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedRows:
    """The configurations of a data set that have rows, and the recipes that they come from."""

    configs: Sequence[ExportedConfig]
    recipes: Sequence[str]
    without_rows: Sequence[str] = field(default_factory=list)
    """Configurations that are not written, because no row belongs to them."""


def export_rows(
    connection: duckdb.DuckDBPyConnection, folder: Path, options: DatasetOptions
) -> ExportedRows:
    """Writes the configurations of a data set into a folder, which is there.

    What does not fit into memory lies beside the folder. Afterwards the connection has the tables
    `leaving_prompts`, `leaving`, `exported` and `unfit`, which the figures of a card are asked of.
    Raises ExportError if there is nothing to export, or if it is not said which of several recipes
    is meant.
    """
    reasoning = reasoning_of(options)
    _spill_into(connection, folder.parent / f".spill-{folder.name}")
    recipes = choose_recipes(connection, options.recipes)
    prepare(connection, reasoning)
    all_configs = [_export_config(connection, folder, name, options) for name in CONFIGS]
    configs = [config for config in all_configs if config.num_rows]
    if not configs:
        raise ExportError(
            f"recipe {', '.join(recipes)} has no judged completion that may leave in "
            f"form {options.form!r}; run precept refresh first, and see precept ask funnel"
        )
    _show_exported(connection, folder, [config.name for config in configs], options.form)
    _show_unfit(connection, all_configs)
    return ExportedRows(
        configs=configs,
        recipes=recipes,
        without_rows=[config.name for config in all_configs if not config.num_rows],
    )


def reasoning_of(options: DatasetOptions) -> Reasoning:
    """Returns the place of the reasoning; raises ExportError if the form has no such place."""
    if options.form not in _OWN_TAGS:
        return options.reasoning or "field"
    if options.reasoning in (None, "tags"):
        return "tags"
    raise ExportError(
        f"form {options.form!r} has texts alone, so its reasoning stands between tags, and "
        f"--reasoning is {options.reasoning!r}; leave it out, or use form 'trl'"
    )


def choose_recipes(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> list[str]:
    """Makes the views of a connection be about these recipes alone; returns their names.

    Raises ExportError if the warehouse lacks one of them, or if none is named and it has several.
    """
    query = "SELECT DISTINCT recipe FROM latest_plans ORDER BY recipe"
    known = [str(name) for (name,) in read(connection, query).fetchall()]
    if not known:
        raise ExportError("the warehouse has no run that made data; run precept refresh first")
    unknown = [name for name in names if name not in known]
    if unknown or (not names and len(known) > 1):
        fault = f"no rows of recipe {unknown[0]!r}" if unknown else f"rows of {len(known)} recipes"
        raise ExportError(f"the warehouse has {fault}; give --recipe one of {', '.join(known)}")
    chosen = list(dict.fromkeys(names)) or known
    # Views find the table of this connection before the view of the same name.
    connection.execute(
        "CREATE TEMP TABLE latest_plans AS "
        "SELECT * FROM memory.main.latest_plans WHERE list_contains(?, recipe)",
        [chosen],
    )
    return chosen


def prepare(connection: duckdb.DuckDBPyConnection, reasoning: Reasoning) -> None:
    """Makes the macros of an export, and the tables of the rows that may leave, without texts."""
    connection.execute(_text("macros"))
    connection.execute(_text(f"replies/{reasoning}"))
    for name in ("leaving_prompts", "leaving"):
        query = _text(name)
        show_views(connection, views_of(query))
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
    [(has_tools,)] = read(
        connection, "SELECT coalesce(bool_or(has_tools), false) FROM leaving"
    ).fetchall()
    connection.execute(_text("turns/tools" if has_tools else "turns/plain"))


def _export_config(
    connection: duckdb.DuckDBPyConnection, folder: Path, name: str, options: DatasetOptions
) -> ExportedConfig:
    rows = _text(f"configs/{name}")
    parameters = {"undecided": not options.all_prompts} if "$undecided" in rows else {}
    fitting = _fitting(options, CONFIGS[name])
    kept = f"FROM ({rows}) WHERE {fitting} ORDER BY completion_id"
    query = f"WITH rows AS ({kept}) {_shape(options.form, CONFIGS[name])}"
    batches = read(connection, query, parameters).to_arrow_reader(_BATCH_ROWS)
    num_rows = _write(batches, folder / name)
    num_left_out = 0
    if fitting != _ALL:
        [(num_all,)] = read(connection, f"SELECT count(*) FROM ({rows})", parameters).fetchall()
        num_left_out = num_all - num_rows
    return ExportedConfig(
        name=name, num_rows=num_rows, columns=batches.schema.names, num_left_out=num_left_out
    )


_ALL = "true"


def _fitting(options: DatasetOptions, shape: str) -> str:
    """Returns the condition on the rows that a form has a place for."""
    conditions = [_HELD_CHATS[options.form]] if options.form in _HELD_CHATS else []
    if reasoning_of(options) == "tags":
        conditions += [f"NOT has_tag({column})" for column in _REPLY_TEXTS[shape]]
    return " AND ".join(conditions) or _ALL


def _write(batches: pa.RecordBatchReader, folder: Path) -> int:
    """Writes rows as Parquet files of a folder; returns their number. Without a row, no folder."""
    num_rows, writer, in_file, number = 0, None, 0, 0
    try:
        for batch in batches:
            if not batch.num_rows:
                continue
            if writer is None or in_file >= _ROWS_PER_FILE:
                if writer:
                    writer.close()
                folder.mkdir(exist_ok=True)
                path = folder / f"train-{number:05}.parquet"
                writer, in_file, number = _writer(path, batches.schema), 0, number + 1
            writer.write_batch(batch)
            num_rows += batch.num_rows
            in_file += batch.num_rows
    finally:
        if writer:
            writer.close()
    return num_rows


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd")


def _show_exported(
    connection: duckdb.DuckDBPyConnection, folder: Path, names: Sequence[str], form: Form
) -> None:
    """Makes table `exported` of the rows that the files have: configuration and prompt."""
    parts = []
    for name in names:
        inside = form == "verl" and CONFIGS[name] in ("reply", "chat", "prompt")
        column = "extra_info.prompt_id" if inside else "prompt_id"
        files = sql_text(f"{glob.escape(str(folder / name))}/*.parquet")
        parts.append(
            f"SELECT {sql_text(name)} AS config, {column} AS prompt_id "
            f"FROM read_parquet({files}, hive_partitioning = false)"
        )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE exported AS {' UNION ALL '.join(parts)}")


def _show_unfit(connection: duckdb.DuckDBPyConnection, configs: Sequence[ExportedConfig]) -> None:
    """Makes table `unfit` of the number of rows that each configuration leaves out."""
    connection.execute("CREATE OR REPLACE TEMP TABLE unfit (config VARCHAR, num_rows BIGINT)")
    for config in configs:
        connection.execute("INSERT INTO unfit VALUES (?, ?)", [config.name, config.num_left_out])


def _shape(form: Form, shape: str) -> str:
    """Returns the query that gives rows their layout; a form has those that differ from TRL's."""
    replies = ("reply",) if shape == "chat" else ()
    places = [f"shapes/{form}/{name}" for name in (shape, *replies)] + [f"shapes/trl/{shape}"]
    return next(_text(place) for place in places if (_QUERIES / f"{place}.sql").is_file())


def _text(name: str) -> str:
    """Returns the SQL of a file of this folder, without its semicolon."""
    return (_QUERIES / f"{name}.sql").read_text(encoding="utf-8").rstrip().removesuffix(";")


def _spill_into(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Limits the memory of a connection; what does not fit lies in a folder, which DuckDB makes."""
    connection.execute(f"SET temp_directory = {sql_text(str(folder))}")
    connection.execute(f"SET memory_limit = {sql_text(_MEMORY)}")
