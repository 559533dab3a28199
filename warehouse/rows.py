"""The first digits of an id → the row, with the rows that belong to it."""

from dataclasses import dataclass
from typing import Any, Literal

import duckdb

from warehouse.catalog import QuestionError, look_up

Kind = Literal["completions", "prompts", "specs"]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRow:
    """One row of a table, and its prompt, judgements or completions."""

    kind: Kind
    row: Row
    prompt: Row | None = None
    """The prompt of a completion, if it is stored."""
    judgements: tuple[Row, ...] = ()
    """The judgements of a completion."""
    completions: tuple[Row, ...] = ()
    """The completions of a prompt, with their verdicts."""


def find_row(connection: duckdb.DuckDBPyConnection, row_id: str) -> FoundRow:
    """Returns the completion, prompt or spec whose id starts so.

    Raises QuestionError if no id starts so, or several of one table do.
    """
    kinds: tuple[Kind, ...] = ("completions", "prompts", "specs")
    for kind in kinds:
        rows = look_up(connection, f"{kind}_by_id", row_id=row_id)
        if len(rows) > 1:
            raise QuestionError(f"several {kind} begin with {row_id!r}; give more digits")
        if rows:
            return _with_others(connection, kind, rows[0])
    raise QuestionError(
        f"no completion, prompt or spec begins with {row_id!r}; look ids up with "
        "'precept ask worst' or 'precept sql'"
    )


def _with_others(connection: duckdb.DuckDBPyConnection, kind: Kind, row: Row) -> FoundRow:
    """Returns a row with the rows that belong to it."""
    if kind == "completions":
        prompts = look_up(connection, "prompt", prompt_id=row["prompt_id"])
        judgements = look_up(
            connection, "judgements_of_completion", completion_id=row["completion_id"]
        )
        prompt = prompts[0] if prompts else None
        return FoundRow(kind=kind, row=row, prompt=prompt, judgements=tuple(judgements))
    if kind == "prompts":
        completions = look_up(connection, "completions_of_prompt", prompt_id=row["prompt_id"])
        return FoundRow(kind=kind, row=row, completions=tuple(completions))
    return FoundRow(kind=kind, row=row)
