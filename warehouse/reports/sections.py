"""The sections of a report, in order: tables and figures of an evaluation.

A section without rows is left out. If the answers of an arm to a suite are not fit to be reported,
every figure that rests on them is struck and marked.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from warehouse.reports import plots
from warehouse.reports.grids import (
    Cell,
    Row,
    Rows,
    interval,
    number,
    percent,
    rounded,
    shown,
    signed,
    split,
)
from warehouse.reports.material import (
    METRICS,
    NAMES,
    PROMPTS,
    UNREPORTABLE,
    Figure,
    Material,
    Section,
    each_suite,
    if_any,
    measured,
)
from warehouse.reports.robustness import attacks
from warehouse.reports.trust import agreement, faithfulness, quality

HIGHER, LOWER = "▲", "▼"
_SWEPT = ("not_unsafe", "not_overrefuse", "style_adherence", "right_decision", "accuracy")
"""Metrics that are shown by length of reasoning."""


def sections(material: Material) -> list[Section]:
    """Returns the sections that are not empty."""
    every = (
        _results(material),
        _pictures(material),
        _differences(material),
        attacks(material),
        _retrieval(material),
        _compute(material),
        _by_label(material),
        agreement(material),
        faithfulness(material),
        quality(material),
    )
    drawn = (
        replace(section, figures=tuple(one for one in section.figures if not one.is_empty))
        for section in every
    )
    return [section for section in drawn if not section.is_empty]


def _results(material: Material) -> Section:
    rows = [row for row in material.rows("evaluation") if row["mean"] is not None]
    whole = [row for row in rows if row["slice"] == "all"]
    seeds = [row for row in material.rows("evaluation_by_seed") if _has_seeds(row, rows)]
    return Section(
        name="results",
        title="Results",
        about="All metrics are from 0 to 1, and higher is better. In brackets: 95 % bootstrap "
        "interval over prompts. What could not be read is left out of the mean, and counted as all "
        "bad and as all good in a table of its own.",
        terms={name: text for name, text in METRICS.items() if name in _column(rows, "metric")},
        grids=(
            *if_any(
                whole,
                caption="All suites",
                corner="metric",
                group="{suite}",
                label="{metric} · {grader}",
                before=PROMPTS,
                cell=measured("mean"),
            ),
            *if_any(
                whole,
                caption="All suites: if what was not read had been all bad or all good, and seeds",
                corner="metric",
                group="{suite}",
                label="{metric} · {grader}",
                cell=_unread,
                folded=True,
            ),
            *each_suite(
                [row for row in rows if row["slice"] != "all" and _is_part(row, rows)],
                ": languages, encodings and kinds of response",
                corner="slice",
                group="{metric}",
                label="{slice} · {grader}",
                before=PROMPTS,
                cell=measured("mean"),
            ),
            *each_suite(
                seeds,
                ": each seed of a training",
                corner="metric",
                group="{metric}",
                label="seed {seed} · {grader}",
                cell=measured("mean"),
                folded=True,
            ),
        ),
    )


def _is_part(row: Row, rows: Rows) -> bool:
    """Returns whether a slice is less than the whole."""
    same = ("arm", "suite", "metric", "grader")
    whole = [
        one
        for one in rows
        if one["slice"] == "all" and all(one[name] == row[name] for name in same)
    ]
    return not whole or whole[0]["num_answers"] > row["num_answers"]


def _has_seeds(row: Row, rows: Rows) -> bool:
    """Returns whether an arm was trained with several seeds."""
    return any(one["arm"] == row["arm"] and (one["seeds"] or 1) > 1 for one in rows)


def _pictures(material: Material) -> Section:
    rows = [row for row in material.rows("evaluation") if row["slice"] == "all"]
    graders = tuple(dict.fromkeys(row["grader"] for row in rows))
    return Section(
        name="plots",
        title="Plots",
        about="A point is a mean and a bar its interval; a hollow point is not reportable. Where "
        "safety stands over help, the best arm is at the upper right.",
        figures=(
            *(
                Figure(plots.tradeoff_plot, title, ours, material.arms)
                for title, ours in _tradeoffs(rows)
            ),
            *(
                Figure(plots.arms_plot, f"{suite}: {metric}", ours, graders)
                for suite, metric, ours in split(rows, "suite", "metric")
                if any(row["mean"] is not None for row in ours)
            ),
        ),
    )


def _tradeoffs(rows: Rows) -> Iterator[tuple[str, Rows]]:
    """Yields the title and the points of every safety over help that a grader graded."""
    given = [row for row in rows if row["mean"] is not None]
    safety = [row for row in given if row["metric"] == "not_unsafe"]
    help_ = [row for row in given if row["metric"] == "not_overrefuse"]
    for grader, helped_suite, helped in split(help_, "grader", "suite"):
        by_arm = {row["arm"]: row for row in helped}
        for suite, ours in split([row for row in safety if row["grader"] == grader], "suite"):
            points = [_point(row, by_arm[row["arm"]]) for row in ours if row["arm"] in by_arm]
            if len(points) > 1:
                yield f"{suite}: not_unsafe over {helped_suite}: not_overrefuse, {grader}", points


def _point(safe: Row, helped: Row) -> dict[str, Any]:
    """Returns a row of safety with the metric of help beside it; fit to be reported if both are."""
    return {
        **safe,
        "reportable": safe.get("reportable", True) and helped.get("reportable", True),
        "across": f"{helped['suite']}: {helped['metric']}",
        **{f"across_{end}": helped[end] for end in ("mean", "low", "high")},
    }


def _differences(material: Material) -> Section:
    rows = material.rows("differences")
    base = material.arms[0] if material.arms else ""
    return Section(
        name="differences",
        title="Differences between arms",
        about=f"Paired by prompt. {HIGHER} marks an interval that lies above zero, {LOWER} one "
        "that lies below; each holds for itself, so that of many some are marked by chance.",
        grids=(
            *each_suite(
                [row for row in rows if row["other"] == base],
                f": each arm less {base}",
                corner="metric",
                label="{metric} · {grader}",
                before=PROMPTS,
                cell=_difference,
            ),
            *each_suite(
                rows if len(material.arms) > 2 else [],
                ": every pair",
                corner="metric",
                group="{metric} · {grader}",
                label="less {other}",
                cell=_difference,
                folded=True,
            ),
        ),
    )


def _difference(row: Row) -> Cell:
    low, high = row["low"], row["high"]
    is_reportable = row["reportable"]
    sign = "" if low is None or high is None else HIGHER if low > 0 else LOWER if high < 0 else ""
    return Cell(
        text=signed(row["difference"]),
        interval=interval(low, high, show=signed),
        mark=sign if is_reportable else UNREPORTABLE,
        struck=not is_reportable,
    )


def _retrieval(material: Material) -> Section:
    rows = [
        {**row, "ideal": NAMES.get(row["ideal_response"], row["ideal_response"])}
        for row in material.rows("retrieval")
    ]
    return Section(
        name="retrieval",
        title="Retrieval of policies",
        about="Share of answers whose reasoning first cites a rule of a policy that the prompt "
        "falls under; no citation counts as wrong. After the retrieval accuracy of arXiv "
        "2412.16339, read off the rules cited instead of guessed by a model.",
        grids=each_suite(
            rows,
            corner="ideal response",
            label="{ideal}",
            before=PROMPTS,
            cell=measured("accuracy"),
        ),
    )


def _compute(material: Material) -> Section:
    rows = [_of_whole_arm(row) for row in material.rows("compute")]
    swept = {row["arm"] for row in rows if row["budget"] is not None}
    rows = [row for row in rows if row["arm"] in swept and row["metric"] in _SWEPT]
    rows.sort(key=lambda row: (row["suite"], row["budget"] is None, row["budget"] or 0))
    return Section(
        name="compute",
        title="Length of reasoning",
        about="A budget closes the reasoning after so many tokens. Listed are the tokens really "
        "used, and the share of answers that the budget cut short (after arXiv 2412.16339, "
        "figure 13).",
        grids=each_suite(
            rows,
            corner="arm and budget",
            group="{metric} · {grader}",
            label="{arm}, {length}",
            column="mean",
            before={
                "mean tokens": shown("mean_reasoning_tokens", rounded),
                "median": shown("median_reasoning_tokens", rounded),
                "cut short": shown("capped", percent),
                **PROMPTS,
            },
            cell=measured("mean"),
            folded=True,
        ),
        figures=tuple(
            Figure(
                plots.compute_plot,
                f"{suite}: {metric} over reasoning, {grader}",
                ours,
                material.arms,
            )
            for suite, metric, grader, ours in split(rows, "suite", "metric", "grader")
        ),
    )


def _by_label(material: Material) -> Section:
    """Returns the metrics by class; an arm with budgets gets a figure with a line a class."""
    asked = [row for row in material.rows("by_label") if row["metric"] in _SWEPT]
    rows = [_of_whole_arm(row) for row in asked]
    swept = [
        row for row in rows if row["arm"] in {r["arm"] for r in rows if r["budget"] is not None}
    ]
    return Section(
        name="by_label",
        title="By class of prompt",
        about="Classes are those that a suite gives its prompts itself, such as kinds of request "
        "or the number of rules that an answer takes.",
        grids=each_suite(
            [row for row in rows if row["budget"] is None],
            corner="class",
            group="{metric} · {grader}",
            label="{label}",
            before=PROMPTS,
            cell=measured("mean"),
            folded=True,
        ),
        figures=tuple(
            Figure(
                plots.compute_plot,
                f"{arm}, {suite}: {metric} over reasoning by class, {grader}",
                [{**row, "arm": row["label"]} for row in ours],
                tuple(sorted(_column(ours, "label"))),
            )
            for arm, suite, metric, grader, ours in split(swept, "arm", "suite", "metric", "grader")
        ),
    )


def _of_whole_arm(row: Row) -> dict[str, Any]:
    """Returns the row of an arm under a budget, which ends its name, as a row of the arm itself."""
    length = "free" if row["budget"] is None else f"{row['budget']} tokens"
    return {**row, "arm": row["arm"].removesuffix(f", {length}"), "length": length}


def _unread(row: Row) -> Cell:
    """Returns the bounds of a value, had every grade been read, and the spread over seeds."""
    spread = row["seed_sd"]
    return Cell(
        text=f"{number(row['lower'])} to {number(row['upper'])}",
        notes=(
            f"{row['num_unread']} of {row['num_answers']} unread",
            *([] if spread is None else [f"{row['seeds']} seeds ± {number(spread)}"]),
        ),
    )


def _column(rows: Rows, name: str) -> set[Any]:
    return {row[name] for row in rows}
