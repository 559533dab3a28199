"""The first characters of an id → its row, with the rows that belong to it."""

from dataclasses import dataclass, field
from typing import Any

import duckdb

from warehouse.catalog import QuestionError, look_up, read
from warehouse.tables import EXAMPLES, TABLES, Table

Row = dict[str, Any]

NOUNS = {
    "completions": "completion",
    "prompts": "prompt",
    "specs": "spec",
    "runs": "run",
    "answers": "answer",
    "cases": "case",
    "evaluations": "grade",
    "judgements": "judgement",
    "checkpoints": "checkpoint",
    "rollouts": "rollout",
    "exchanges": "exchange",
    "examples": "set of examples",
    "rules": "rule",
}
"""Kinds of what has an id, each with its word for one."""
_ORIGIN = {"spec": ("spec_of_row", "spec_id"), "run": ("run_of_row", "run_id")}
_RELATED = {
    "completions": {
        "prompt": ("prompt", "prompt_id"),
        "verdicts": ("verdicts_of_completion", "completion_id"),
        "judgements": ("judgements_of_completion", "completion_id"),
        "reviews": ("reviews_of_completion", "completion_id"),
        "examples": ("examples_of_completion", "completion_id"),
        "checkpoints": ("checkpoints_of_completion", "completion_id"),
        **_ORIGIN,
    },
    "judgements": {"completion": ("completions_of_judgement", "judgement_id"), **_ORIGIN},
    "evaluations": _ORIGIN,
    "prompts": {"completions": ("completions_of_prompt", "prompt_id")},
    "runs": {"stages": ("stage_counts", "run_id")},
    "answers": {"grades": ("grades_of_answer", "answer_id"), **_ORIGIN},
    "cases": {"answers": ("answers_to_case", "case_id")},
    "rollouts": {"prompt": ("prompt", "prompt_id")},
    "exchanges": {"prompt": ("prompt", "prompt_id")},
}
"""Kind → name → the lookup of the rows that belong to a row, and its parameter."""
_PARENTS = {
    "answers": {"case": ("cases", "case_id")},
    "evaluations": {"answer": ("answers", "answer_id"), "case": ("cases", "case_id")},
    "judgements": {"prompt": ("prompts", "prompt_id")},
}
"""Kind → name → the table of a row that a row is about, and the column with its id: of the row, or
of the one before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRow:
    """What has an id, and the rows that belong to it."""

    kind: str
    """A key of `NOUNS`."""
    row_id: str
    """The whole id."""
    row: Row
    """The row of its table; of a rule, its id alone."""
    related: dict[str, list[Row]] = field(default_factory=dict)
    """By name, the rows that belong to it, and those that it is about."""


def find_row(connection: duckdb.DuckDBPyConnection, row_id: str) -> FoundRow:
    """Returns the row whose id starts so; one whose whole id it is comes before others.

    Raises QuestionError if no id starts so, or if several do, which it lists.
    """
    wanted = row_id.strip()
    if not wanted:
        raise QuestionError("the id is empty: give one, or its first characters, as tables show it")
    matching = look_up(connection, "ids_that_start", row_id=wanted)
    if not matching:
        raise QuestionError(
            f"no id begins with {wanted!r}: look ids up with 'precept status', "
            "'precept ask worst' or 'precept sql'"
        )
    if len(matching) > 1 and matching[0]["row_id"] != wanted:
        raise QuestionError(_ambiguous(wanted, matching))
    return _with_related(connection, matching[0]["kind"], matching[0]["row_id"])


def _ambiguous(wanted: str, matching: list[Row]) -> str:
    """Returns the message that lists ids, each with enough of it to be found."""
    num_matching = matching[0]["num_matching"]
    length = max(12, len(wanted) + 4)
    listed = ", ".join(f"{NOUNS[row['kind']]} {row['row_id'][:length]}" for row in matching)
    more = num_matching - len(matching)
    rest = f" and {more} more" if more else ""
    return f"{num_matching} ids begin with {wanted!r}: give more of one of {listed}{rest}"


def _with_related(connection: duckdb.DuckDBPyConnection, kind: str, row_id: str) -> FoundRow:
    if kind == "rules":
        specs = look_up(connection, "specs_with_rule", rule_id=row_id)
        return FoundRow(kind=kind, row_id=row_id, row={"rule_id": row_id}, related={"specs": specs})
    if kind == "examples":
        rows = look_up(connection, "set_by_reason", set_id=row_id)
        return FoundRow(kind=kind, row_id=row_id, row={"set_id": row_id}, related={"rows": rows})
    [row] = _rows(connection, TABLES[kind], row_id)
    related: dict[str, list[Row]] = {}
    known = dict(row)
    for name, (table, column) in _PARENTS.get(kind, {}).items():
        text = row.get("text_id") if table == "answers" else None
        related[name] = _rows(connection, TABLES[table], known.get(column), text=text)
        known = {**next(iter(related[name]), {}), **known}
    related |= {
        name: look_up(connection, lookup, **{column: row[column]})
        for name, (lookup, column) in _RELATED.get(kind, {}).items()
    }
    return FoundRow(kind=kind, row_id=row_id, row=row, related=related)


def _rows(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    row_id: str | None,
    *,
    text: str | None = None,
) -> list[Row]:
    """Returns the row of an id in its latest attempt or revision, if there is one; the one of a
    text before others.

    Shards are asked, not views: a judgement of a text that was made again has no place in those.
    """
    latest = f"{table.replaced_by} DESC, " if table.replaced_by else ""
    first = "text_id = $text DESC, " if text else ""
    relation = read(
        connection,
        f"SELECT * FROM {table.name}_raw WHERE {table.key[-1]} = $row_id "
        f"ORDER BY {first}{latest}{table.time_column} DESC LIMIT 1",
        {"row_id": row_id} | ({"text": text} if text else {}),
    )
    assert table is not EXAMPLES
    return list(relation.to_arrow_table().to_pylist())
