"""The material of a report and its building blocks: sections, figures, tables of a suite."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from warehouse.reports import plots
from warehouse.reports.grids import (
    Cell,
    Grid,
    Layout,
    Row,
    Rows,
    Shown,
    interval,
    number,
    percent,
    pivot,
    rounded,
    shown,
    split,
    table,
)

METRICS = {
    "not_unsafe": "share of harmful requests that were answered without help that the policies "
    "forbid (arXiv 2412.16339)",
    "not_overrefuse": "share of benign requests that were fully helped (arXiv 2412.16339; strict, "
    "as full compliance in XSTest, arXiv 2308.01263)",
    "not_overrefuse_lenient": "the same, where partial help counts as well",
    "not_refused": "share of benign requests that were not refused, whatever else the answer is "
    "worth: 1 less the rate of over-refusal",
    "policy_adherence": "share of answers that keep to the policies, to requests without an ideal "
    "response, such as those that guide rules alone hold for",
    "style_adherence": "share of answers in the style that the policies ask for where they comply, "
    "refuse or complete safely (arXiv 2412.16339)",
    "right_decision": "share of answers with the outcome that the policies ask for: comply, refuse "
    "or complete safely",
    "right_citation": "share of answers whose reasoning cites the rule that applies",
    "policy_retrieved": "share of answers whose reasoning, as a judge reads it, had a policy in "
    "mind that the request falls under (arXiv 2412.16339, section 4.2)",
    "right": "share of answers that are right in all that can be checked",
    "accuracy": "share of tasks with one known answer that were solved: what safety must not cost",
}
"""The meaning of each metric, in the order of the report; all are from 0 to 1, higher is better."""


GOODNESS = {
    "goodness@q": "for each prompt 1 less the mean harm under the worst share q of attacks, then "
    "the mean over prompts (arXiv 2412.16339; harm as in StrongREJECT, arXiv 2402.10260)",
    "naive, split": "naive picks the worst attacks by the same answers that it measures, which "
    "makes noise look like harm; split picks by one half and measures by the other",
    "binary, continuous": "whether any harm counts as 1, or as much as the grader says",
}


ENCODINGS = {
    "encodings": "share of prompts that stay safe under every encoded variant (arXiv 2412.16339)",
}


KAPPA = {"kappa": "agreement beyond what chance would give (Cohen)"}


CALIBRATION = {
    "precision": "share of the answers that the judge accepts which are right",
    "recall": "share of the right answers that the judge accepts; it accepts an answer when all of "
    "its first grades are read and none is under the threshold",
    "interval": "95 % by Wilson's formula, with the answers to one prompt counted as one",
    "tokens": "output tokens that all grades of an answer cost",
    "racing": "the same if judges are asked one grade after another, those with the shortest "
    "grades first, until one is under the threshold",
}

UNREPORTABLE = "✗"
"""Marks a figure that rests on answers that are not fit to be reported."""

NAMES = {"en": "English", "safe_complete": "safe completion"}


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot of rows, drawn when it is read."""

    plot: plots.Plot
    title: str
    rows: Rows
    names: tuple[str, ...] = ()
    """Names whose colours and shapes the plot shares with others."""

    @property
    def is_empty(self) -> bool:
        """True if there is no value to draw."""
        values = ("mean", "precision", "recall")
        return all(row.get(name) is None for row in self.rows for name in values)

    @property
    def svg(self) -> str:
        return self.plot(self.rows, title=self.title, names=self.names)

    @property
    def png(self) -> bytes:
        return plots.png(self.plot, self.rows, title=self.title, names=self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, an explanation, and the tables and figures under it."""

    name: str
    title: str
    about: str = ""
    terms: Mapping[str, str] = field(default_factory=dict)
    grids: tuple[Grid, ...] = ()
    figures: tuple[Figure, ...] = ()
    text: str = ""
    """Plain text, folded."""

    @property
    def is_empty(self) -> bool:
        return not (self.grids or self.figures or self.text or self.terms)


@dataclass(frozen=True, slots=True)
class Material:
    """The answers to a report's questions, and the arms that it compares."""

    tables: Mapping[str, Rows]
    arms: tuple[str, ...]
    """Names, in the order of the recipe."""
    limited: frozenset[str]
    """Arms that rerun another arm under a reasoning budget: shown by length of reasoning alone."""
    faults: Mapping[tuple[str, str], str]
    """By arm and suite, why the arm is not reportable there."""
    graders: Rows = ()

    @classmethod
    def of(cls, tables: Mapping[str, Rows], arms: Rows, graders: Rows = ()) -> "Material":
        faults = {
            (row["arm"], row["suite"]): _fault(row)
            for row in tables.get("evaluation_quality", ())
            if not row["reportable"]
        }
        free = {arm["model"] for arm in arms if arm["budget"] is None}
        limited = frozenset(
            arm["arm"] for arm in arms if arm["budget"] is not None and arm["model"] in free
        )
        names = tuple(dict.fromkeys(arm["arm"] for arm in arms))
        return cls(tables, names, limited, faults, graders)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Returns the answer to a question in the order of the report, with names for labels."""
        rows = [
            {
                **row,
                "reportable": not self.is_faulty(row),
                "slice": NAMES.get(row.get("slice", ""), row.get("slice")),
                "place": self._place_of(row.get("arm")),
            }
            for row in self.tables.get(name, ())
            if name in ("compute", "by_label", "evaluation_quality") or not self._is_limited(row)
        ]
        return sorted(rows, key=self._place)

    def _is_limited(self, row: Row) -> bool:
        return not self.limited.isdisjoint({row.get("arm"), row.get("other")})

    def _place(self, row: Row) -> tuple[Any, ...]:
        """Returns the sort key of a row: suite, metric, whole before slices, arm."""
        part, metric = row["slice"], row.get("metric")
        metrics = list(METRICS)
        return (
            row.get("suite", ""),
            metrics.index(metric) if metric in metrics else len(metrics),
            ["all", None, "English"].index(part) if part in ("all", None, "English") else 3,
            part or "",
            self._place_of(row.get("arm")),
        )

    def _place_of(self, arm: str | None) -> int:
        """Returns the place of an arm among all, after the last one for what is none."""
        return self.arms.index(arm) if arm in self.arms else len(self.arms)

    def is_faulty(self, row: Row) -> bool:
        """Returns whether a row rests on answers that are not fit to be reported."""
        return any((row.get(who), row.get("suite")) in self.faults for who in ("arm", "other"))


def _fault(row: Row) -> str:
    """Returns why an arm is not reportable in a suite."""
    unread = row["unread_votes"]
    grades = "no grades" if unread is None else f"{percent(unread)} of grades unread"
    return f"{percent(row['answered'])} answered, {grades}"


PROMPTS = {"prompts": shown("num_prompts", rounded)}
"""The column with the number of prompts behind a line."""


def each_suite(rows: Rows, what: str = "", *, cell: Shown, **layout: Any) -> tuple[Grid, ...]:
    """Returns a table per suite, with an arm a column; `layout` are fields of `Layout`."""
    return tuple(
        pivot(ours, cell=cell, layout=Layout(caption=f"{suite}{what}", **layout))
        for suite, ours in split(rows, "suite")
    )


def if_any(rows: Rows, *, cell: Shown, **layout: Any) -> tuple[Grid, ...]:
    """Returns one table, with an arm a column, if there are rows; else none."""
    return (pivot(rows, cell=cell, layout=Layout(**layout)),) if rows else ()


def listed_if_any(rows: Rows, **options: Any) -> tuple[Grid, ...]:
    """Returns one table with a line per row, if there are rows; else none."""
    return (table(rows, **options),) if rows else ()


def measured(column: str) -> Shown:
    """Returns how to show a value with its interval; one that is not reportable is struck."""
    return lambda row: Cell(
        text=number(row[column]),
        interval=interval(row.get("low"), row.get("high")),
        mark="" if row["reportable"] else UNREPORTABLE,
        struck=not row["reportable"],
    )
