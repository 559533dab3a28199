"""The SQL of the catalog's views, made from the tables and from the files in `views/`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

import duckdb

from warehouse.tables import COMPLETIONS, JUDGEMENTS, ROLLOUTS, TABLES, Table

_VIEWS = Path(__file__).parent / "views"
_CURRENT = (COMPLETIONS, JUDGEMENTS, ROLLOUTS)
"""Tables whose view shows fewer rows than `<table>_all`."""
_CREATED = re.compile(r"^CREATE (?:VIEW|MACRO) (\w+)", re.MULTILINE)
_DESCRIBED_FILES = (
    "tables",
    "reviews",
    "verdicts",
    "judges",
    "monitors",
    "usage",
    "coverage",
    "evaluation",
)
"""Files of views that users are told of, in the order in which they are listed."""
_DESCRIBED = re.compile(
    r"(?P<comment>(?:^--.*\n)+)^CREATE (?P<kind>VIEW|MACRO) (?P<name>\w+)"
    r"(?:\((?P<parameters>[^)]*)\))?",
    re.MULTILINE,
)
"""A view or macro with the comment above it."""
_HEADER = re.compile(r"\A(?:\s*--.*\n)+")
"""The comment that a statement of a file begins with, which names views that it does not read."""


@cache
def view_statements() -> tuple[str, ...]:
    """Returns the SQL of the views that each connection has, each after those that it reads."""
    once = [
        # A judgement is about a text, and `judgements_all` shows it for each completion with it.
        f"CREATE VIEW {table.name}_{'once' if table is JUDGEMENTS else 'all'} AS "
        f"{_once_query(table)};"
        for table in TABLES.values()
    ]
    same = [
        f"CREATE VIEW {table.name} AS FROM {table.name}_all;"
        for table in TABLES.values()
        if table not in _CURRENT
    ]
    return (*once, _view_text("macros"), _view_text("tables"), *same)


@cache
def further_views() -> Mapping[str, str]:
    """Returns the SQL of the views and macros that are made for queries, each after those it reads.

    To make all of them takes DuckDB longer than to answer most questions.
    """
    unlisted = (_statements(name) for name in ("judges", "evaluation", "coverage"))
    return {**listed_views(), **{name: text for part in unlisted for name, text in part.items()}}


@cache
def listed_views() -> Mapping[str, str]:
    """Returns those of the further views that users list: they are about data, not evaluations."""
    return {
        **_statements("usage"),
        **_statements("reviews"),
        **_statements("verdicts"),
        **_statements("monitors"),
    }


def _statements(name: str) -> dict[str, str]:
    """Returns the statements of a file of views by the names that they create."""
    # An empty line ends a statement.
    return {_CREATED.findall(text)[0]: text for text in re.split(r"\n{2,}", _view_text(name))}


@cache
def described() -> Mapping[str, str]:
    """Returns the tables and views that have a sentence, each with it; tables come first."""
    tables = {
        name: " ".join((table.row.__doc__ or "").split()).split(". ")[0].rstrip(".") + "."
        for name, table in TABLES.items()
    }
    views = {
        match["name"]: _sentence(match["comment"])
        for name in _DESCRIBED_FILES
        for match in _DESCRIBED.finditer(_view_text(name))
        if match["kind"] == "VIEW" and match["name"] not in tables
    }
    return {**tables, **views}


@cache
def described_macros() -> Mapping[str, str]:
    """Returns the macros by their names with parameters, each with its sentence."""
    return {
        f"{match['name']}({match['parameters']})": _sentence(match["comment"])
        for name in ("macros", "coverage", "evaluation")
        for match in _DESCRIBED.finditer(_view_text(name))
        if match["kind"] == "MACRO"
    }


def _sentence(comment: str) -> str:
    """Returns the first sentence of a comment."""
    text = " ".join(line.removeprefix("--").strip() for line in comment.splitlines())
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", text, maxsplit=1)[0]


def views_of(query: str) -> list[str]:
    """Returns the names of the further views that a query reads, each after those it reads."""
    words = _words(query)
    names = []
    for name, statement in reversed([*further_views().items()]):
        if name in words:
            names.append(name)
            words |= _words(statement)
    return names[::-1]


@lru_cache
def _words(text: str) -> frozenset[str]:
    """Returns the words of a query: names of views are among them, quoted or not."""
    return frozenset(re.findall(r"\w+", _HEADER.sub("", text).lower()))


@cache
def _view_text(name: str) -> str:
    return (_VIEWS / f"{name}.sql").read_text(encoding="utf-8").strip()


def wanted_views() -> str:
    """Returns the SQL of the views over what the run of a connection wants."""
    return (_VIEWS / "wanted.sql").read_text(encoding="utf-8")


def sql_list(values: Iterable[str]) -> str:
    """Returns texts as the literal of a list in SQL."""
    return f"[{', '.join(map(sql_text, values))}]"


def sql_text(value: str) -> str:
    """Returns a text as a literal in SQL."""
    return "'" + value.replace("'", "''") + "'"


def raw_query(paths: Sequence[str], table: Table) -> str:
    """Returns the query of every row of every shard; without a shard, of no row of those types."""
    if paths:
        # Without this, a folder above the warehouse that is named key=value would add a column.
        return f"SELECT * FROM read_parquet({sql_list(paths)}, hive_partitioning = false)"
    return empty_query(table)


def named_rows(paths: Sequence[str]) -> str:
    """Returns what to read the rows of shards from, each with its `filename`."""
    return f"read_parquet({sql_list(paths)}, filename = true, hive_partitioning = false)"


def empty_query(table: Table) -> str:
    """Returns the query of no row that has the columns of a table, in their types."""
    columns = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in column_types(table).items())
    return f"SELECT {columns} WHERE false"


def column_types(table: Table) -> Mapping[str, str]:
    """Returns the type of each column of a table, in DuckDB's words."""
    return _types()[table.name]


@cache
def _types() -> Mapping[str, Mapping[str, str]]:
    types = {}
    with duckdb.connect() as connection:
        for name, table in TABLES.items():
            relation = connection.from_arrow(table.schema.empty_table())
            types[name] = dict(zip(relation.columns, map(str, relation.types), strict=True))
    return types


def shards_query(sources: Mapping[str, str]) -> str:
    """Returns the query of which row lies in which shard: `kind`, `row_id`, `shard`.

    `sources` has, by the name of its table, what to read the rows and their `filename` from.
    """
    queries = [
        f"SELECT '{name}' AS kind, concat_ws('|', {', '.join(TABLES[name].key)}) AS row_id, "
        f"filename AS shard FROM {source}"
        for name, source in sources.items()
    ]
    none = "SELECT '' AS kind, '' AS row_id, '' AS shard WHERE false"
    return " UNION ALL ".join(queries or [none])


def _once_query(table: Table) -> str:
    """Returns the query of each id once: its latest attempt or revision, the earliest such row.

    Reviews and grades of texts that are no longer there are left out.
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
