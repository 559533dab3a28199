"""The controls of the page, made of what a warehouse holds, and what their values mean."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from warehouse.app.filters import Filters
from warehouse.characters import one_line
from warehouse.reviews import QUEUES

ORDERS = (
    "lowest score",
    "nearest to the threshold",
    "judges furthest apart",
    "highest score",
    "longest reasoning",
    "shortest reasoning",
    "newest",
    "random",
)
"""Orders of the reader's list, as `queries/listed.sql` spells them."""
PAIR_ORDERS = ("right better", "left better", "furthest apart", "random")
"""Orders of pairs of replies, as `queries/pairs.sql` spells them."""
ROLLOUT_ORDERS = ("lowest reward", "highest reward", "as made")
"""Orders of the rollouts of a step."""
REVIEW_PREFIX = "to review: "
"""Start of the names of those orders of the reader's list that are queues of reviews."""

VIEWS = (
    "Overview",
    "Rules",
    "Judges",
    "Length",
    "Monitors",
    "Read",
    "Side by side",
    "Rollouts",
    "SQL",
)
"""Views of the page, one at a time."""
_VIEWS_OF = {"train": "Rollouts", "evaluate": "Side by side", "ablate": "Side by side"}
"""Flows that make no completions, and the views that show what they make."""

_CHOICES = {
    "categories": "category",
    "ideal_responses": "ideal response",
    "verdicts": "verdict",
    "languages": "language",
    "sources": "source",
}
"""Filters of which several values may be chosen, and their labels."""


def reading_orders() -> list[str]:
    """Returns the orders of the reader's list, queues of reviews included."""
    return [*ORDERS, *(f"{REVIEW_PREFIX}{kind}" for kind in QUEUES)]


def choices(options: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns by filter the values that it can take, by labels with their numbers of rows."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in options:
        name = one_line(str(row["value"] or "none"))
        if row["filter"] == "run":
            started = f"{row['started_at']:%Y-%m-%d %H:%M}" if row["started_at"] else "unknown"
            name = f"{row['recipe'] or 'run'} {started} {name[:8]}"
        found[row["filter"]][f"{name} ({row['num_completions']:,})"] = row["value"]
    return found


def first_view(run: Mapping[str, Any] | None) -> str:
    """Returns the view that shows what a run made."""
    return _VIEWS_OF.get(run["flow"], VIEWS[0]) if run else VIEWS[0]


def filter_controls(
    options: Sequence[Mapping[str, Any]], run: Mapping[str, Any] | None = None
) -> Any:
    """Returns the controls of all filters as one dictionary of marimo's.

    They begin with the completions of a run, if one is given and it made any.
    """
    import marimo as mo

    values = choices(options)
    made = next(
        (label for label, one in values.get("run", {}).items() if run and one == run["run_id"]),
        None,
    )
    alone: dict[str, Any] = {"allow_select_none": True, "searchable": True, "full_width": True}
    controls: dict[str, Any] = {
        "text": mo.ui.text(
            label="text contains", placeholder="Enter searches every text", full_width=True
        ),
        **{
            name: mo.ui.multiselect(values.get(name, {}), label=label, full_width=True)
            for name, label in _CHOICES.items()
        },
        "rule": mo.ui.dropdown(values.get("rule", {}), label="cites rule", **alone),
        "scores": mo.ui.range_slider(
            0,
            10,
            step=0.5,
            value=[0, 10],
            label="lowest score",
            show_value=True,
            full_width=True,
            debounce=True,
        ),
        "run": mo.ui.dropdown(values.get("run", {}), label="made by run", value=made, **alone),
    }
    return mo.ui.dictionary(controls)


def filters_of(values: Mapping[str, Any]) -> Filters:
    """Returns the filters that the values of the controls stand for."""
    lowest, highest = values["scores"]
    return Filters(
        run=values["run"],
        rule=values["rule"],
        lowest=float(lowest),
        highest=float(highest),
        text=values["text"].strip(),
        **{name: tuple(sorted(values[name])) for name in _CHOICES},
    )
