"""Rows as the tables of the page show them, and what a reader pages through."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import duckdb
import pyarrow as pa

from warehouse.app.controls import REVIEW_PREFIX
from warehouse.app.filters import Filters
from warehouse.app.snapshot import Session
from warehouse.catalog import QuestionError
from warehouse.characters import all_visible, one_line
from warehouse.reviews import Queue, check_reviewer, queue
from warehouse.statement import run_statement

MOST_ROWS = 200
"""Rows of a list; a narrower filter shows others."""
FIRST_QUERY = """\
SELECT verdict, count(*) AS num_completions, avg(min_score) AS mean_lowest_score
FROM verdicts
GROUP BY verdict"""
"""The query that the SQL cell begins with."""
_TEXT_COLUMNS = {
    "angle",
    "answer",
    "chosen_answer",
    "chosen_reasoning",
    "completion",
    "message",
    "messages",
    "original",
    "prompt",
    "rationale",
    "reasoning",
    "rejected_answer",
    "rejected_reasoning",
    "request",
    "target",
}
"""Columns whose texts may be harmful."""
_UNTOLD = {"text_id", "place", "left_id", "right_id", "num_accepting", "num_rejecting"}
"""Columns that the page needs and a reader does not, or that would sway a reviewer."""
_ID_DIGITS = 12


def narrowed(session: Session, filters: Filters) -> str:
    """Narrows a session to what filters leave, and returns ""; or why they cannot be applied."""
    try:
        session.choose(filters)
    except QuestionError as error:
        return str(error)
    return ""


def readable(
    session: Session, order: str, *, reviewer: str, rule: str | None, num_wanted: int = 1
) -> tuple[list[dict[str, Any]], str]:
    """Returns the first chosen completions in an order or in a queue of reviews, and "".

    Where a queue cannot be had, returns no row and the sentence that says why.
    """
    try:
        return _to_read(session, order, reviewer=reviewer, rule=rule, num_wanted=num_wanted), ""
    except ValueError as error:
        return [], str(error)


def _to_read(
    session: Session, order: str, *, reviewer: str, rule: str | None, num_wanted: int
) -> list[dict[str, Any]]:
    if not order.startswith(REVIEW_PREFIX):
        return session.rows("listed", order=order, limit=MOST_ROWS)
    kind: Queue = order.removeprefix(REVIEW_PREFIX)  # type: ignore[assignment]
    if kind == "rule" and rule is None:
        raise QuestionError("this queue is about one rule: choose it in the filter 'cites rule'")
    session.see_reviews()
    rows = queue(
        session.catalog(),
        kind,
        reviewer=check_reviewer(reviewer),
        rule=rule if kind == "rule" else None,
        num_wanted=num_wanted,
        limit=MOST_ROWS,
    )
    return [asdict(row) for row in rows]


def pairs(
    session: Session,
    left: Mapping[str, Any],
    right: Mapping[str, Any],
    *,
    order: str,
    filters: Filters,
) -> list[dict[str, Any]]:
    """Returns replies of two models to the same case or prompt; the sides are rows of `sides`."""
    return session.rows(
        "pairs",
        left_model=left["model"],
        left_setting=left["setting"],
        right_model=right["model"],
        right_setting=right["setting"],
        categories=filters.categories,
        ideal_responses=filters.ideal_responses,
        languages=filters.languages,
        order=order,
        limit=MOST_ROWS,
    )


def steps(session: Session, checkpoint_id: str) -> pa.Table:
    """Returns the answer to the question `rewards` about one training."""
    rows = session.ask("rewards")
    ids = rows.column("checkpoint_id").to_pylist()
    return rows.filter(pa.array([name == checkpoint_id for name in ids]))


def answered(session: Session, query: str, *, whole: bool) -> tuple[list[dict[str, Any]], str]:
    """Returns the first rows of a user's query, which can only read, and ""; or the fault."""
    try:
        rows = run_statement(session.snapshot.home, query, limit=MOST_ROWS).read_all().to_pylist()
    # Python has no date after the year 9999.
    except (ValueError, OverflowError, duckdb.Error) as error:
        return [], one_line(str(error))
    return [_shown_row(row, whole=whole) for row in rows], ""


def shown_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows as a list of the page shows them: numbered from 1, without what only the page
    needs."""
    return [
        {"#": number, **_shown_row({name: row[name] for name in row if name not in _UNTOLD})}
        for number, row in enumerate(rows, start=1)
    ]


def _shown_row(row: Mapping[str, Any], *, whole: bool = False) -> dict[str, Any]:
    """Returns a row as a table shows it.

    Ids have twelve digits and lists stand in one line. Unless `whole`, texts that may be harmful
    are folded to their length.
    """
    return {name: _shown(name, value, whole) for name, value in row.items()}


def _shown(name: str, value: Any, whole: bool) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if name in _TEXT_COLUMNS and not whole:
        return f"folded, {len(str(value)):,} characters"
    if isinstance(value, str):
        return one_line(value[:_ID_DIGITS] if name.endswith("_id") else value)
    if isinstance(value, list) and not any(isinstance(one, dict) for one in value):
        return one_line(", ".join(map(_item, value)))
    return one_line(str(all_visible(value)))


def _item(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
