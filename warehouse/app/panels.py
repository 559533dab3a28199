"""Layouts of the views that only show."""

from typing import Any

import pyarrow as pa

from warehouse.app import charts, lists
from warehouse.app.filters import Filters
from warehouse.app.snapshot import Session


def answer(rows: pa.Table, **options: Any) -> Any:
    """Returns the answer to a question as a table in which nothing can be selected."""
    import marimo as mo

    return mo.ui.table(lists.shown_rows(rows.to_pylist()), selection=None, **options)


def trouble(sentence: str) -> Any:
    """Returns a sentence that says what could not be done."""
    import marimo as mo

    return mo.callout(sentence, kind="warn")


def totals(session: Session) -> Any:
    """Returns the numbers of completions and prompts that the filters leave, beside each other."""
    import marimo as mo

    [row] = session.rows("totals")
    completions = mo.stat(
        f"{row['num_completions']:,}",
        label="completions",
        bordered=True,
        caption=f"of {row['num_all']:,}",
    )
    others = {
        "prompts": f"{row['num_prompts']:,}",
        "accepted": f"{row['num_accepted']:,}",
        "share accepted": row["acceptance"],
        "mean lowest score": row["mean_lowest_score"],
    }
    stats = [mo.stat(value, label=label, bordered=True) for label, value in others.items()]
    return mo.hstack([completions, *stats], justify="start")


def overview(session: Session) -> Any:
    """Returns the funnel, the lowest scores and the acceptance by category."""
    import marimo as mo

    is_whole = session.filters == Filters()
    funnel = session.ask("funnel") if is_whole else session.table("funnel")
    return mo.vstack(
        [
            mo.md("### Funnel"),
            charts.funnel(funnel),
            answer(funnel),
            mo.md("### Lowest score of each completion"),
            charts.lowest_scores(session.table("scores")),
            mo.md("### Acceptance by category and ideal response"),
            charts.acceptance_by_category(session.ask("acceptance_by_category")),
        ]
    )


def judges(session: Session) -> Any:
    """Returns the scores of each judge, their spread, and the agreement of a jury."""
    import marimo as mo

    spread = session.ask("judge_spread")
    return mo.vstack(
        [
            mo.md("### Scores that each judge gives"),
            charts.judge_scores(session.table("judge_scores")),
            mo.md("### Spread of one judge's scores of the same completion"),
            charts.spreads(spread),
            answer(spread, page_size=11),
            mo.md("### Agreement of the judges of a jury"),
            answer(session.ask("jury")),
            mo.md("### Unjudged completions"),
            answer(session.ask("unjudged")),
        ]
    )


def lengths(session: Session) -> Any:
    """Returns the length of the reasoning against the lowest score."""
    import marimo as mo

    return mo.vstack(
        [
            mo.md("### Length of the reasoning against the lowest score; the line is the mean"),
            charts.lengths(session.table("lengths")),
        ]
    )


def monitors(session: Session) -> Any:
    """Returns the findings of the monitors over all rows."""
    import marimo as mo

    return mo.vstack(
        [
            mo.md("### What monitors find in reasoning, over all rows: the filters do not apply"),
            answer(session.snapshot.ask("monitors")),
            mo.md("### Over the steps of trainings"),
            answer(session.snapshot.ask("monitors_by_step")),
        ]
    )
