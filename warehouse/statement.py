"""A user's own statement, which can do nothing but read the tables and views of a warehouse.

Two fences stand one behind the other. The statement is parsed and refused by its kind, its table
functions and the names of its tables; then DuckDB opens no file but the shards, loads nothing, and
keeps its settings.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import pyarrow as pa

from warehouse.catalog import (
    Catalog,
    QuestionError,
    batches_of,
    open_catalog,
    set_variables,
    show_views,
)
from warehouse.definitions import listed_views, sql_list, views_of
from warehouse.home import Home

_TABLE_FUNCTIONS = {
    "generate_series",
    "histogram",
    "histogram_values",
    "intervals",
    "json_each",
    "json_tree",
    "range",
    "repeat",
    "repeat_row",
    "unnest",
}
"""Table functions and macros that read nothing but what they are given."""

_REFUSED_FUNCTIONS = {"current_setting", "getenv", "setseed", "setval", "nextval", "write_log"}

_SCHEMAS = {"", "main", "temp", "information_schema", "pg_catalog"}

_ALLOWED = "precept sql runs one SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE or SHOW"


def run_statement(
    home: Home,
    query: str,
    *,
    limit: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> pa.RecordBatchReader:
    """Returns the rows, or the first of them, of one statement that only reads.

    Raises QuestionError for any other.
    """
    check_statement(query)
    catalog = open_catalog(home)
    # SHOW TABLES and its like list views without naming them.
    show_views(catalog.connection, [*listed_views(), *views_of(query)])
    set_variables(catalog.connection, variables or {})
    confine(catalog, home)
    relation = catalog.connection.sql(query)
    assert relation is not None
    return batches_of(relation, limit)


def check_statement(query: str) -> None:
    """Raises QuestionError unless a text is one statement that only reads tables and views."""
    with duckdb.connect() as parser:
        statements = parser.extract_statements(query)
        if not statements:
            raise QuestionError(f"there is no statement to run; {_ALLOWED}")
        if len(statements) > 1:
            raise QuestionError(f"{len(statements)} statements were given; {_ALLOWED}")
        [statement] = statements
        if statement.type is not duckdb.StatementType.SELECT:
            name = str(statement.type).rsplit(".", 1)[-1]
            hint = "; give PIVOT its values with IN" if name == "MULTI" else ""
            raise QuestionError(f"a statement of kind {name} is refused{hint}; {_ALLOWED}")
        [(text,)] = parser.execute(
            "SELECT json_serialize_sql($query::VARCHAR)", {"query": statement.query}
        ).fetchall()
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise QuestionError(
            "the statement is nested too deeply to be checked; split it with WITH"
        ) from error
    if tree["error"]:
        raise QuestionError(f"the statement cannot be checked: {tree['error_message']}; {_ALLOWED}")
    for node in _nodes(tree):
        _check_node(node)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yields every object of a parsed statement."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _check_node(node: dict[str, Any]) -> None:
    """Raises QuestionError for a function or a name that reads more than the warehouse."""
    alone = "precept sql reads the tables and views of the warehouse alone; see precept status"
    if node.get("type") == "TABLE_FUNCTION":
        name = str(node["function"].get("function_name", "")).lower()
        if name not in _TABLE_FUNCTIONS:
            raise QuestionError(f"table function {name} is refused; {alone}")
    if str(node.get("function_name", "")).lower() in _REFUSED_FUNCTIONS:
        raise QuestionError(f"function {node['function_name']} is refused; {alone}")
    table, schema = str(node.get("table_name") or ""), str(node.get("schema_name") or "")
    if node.get("type") in ("BASE_TABLE", "SHOW_REF"):
        is_path = "/" in table or "\\" in table or table.lower().endswith(".parquet")
        if is_path or schema.lower() not in _SCHEMAS:
            raise QuestionError(f"{table!r} is no table of the warehouse; {alone}")


def confine(catalog: Catalog, home: Home) -> None:
    """Lets a connection open the shards of its warehouse alone, for good."""
    paths = [path for shards in catalog.listing.shards.values() for path in shards]
    # A path with the signs of a glob is opened by its pattern, and then by its name.
    allowed = {home.readable(path) for path in paths} | {home.pattern(path) for path in paths}
    for setting in (
        f"allowed_paths = {sql_list(sorted(allowed))}",
        "python_enable_replacements = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        catalog.connection.execute(f"SET {setting}")
