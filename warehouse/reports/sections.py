"""What a report says of an evaluation, in order: sections of tables and figures.

A section without rows is left out. Where the answers of an arm to a suite are not fit to be
reported, every figure that rests on them is struck and marked.
"""

from dataclasses import replace
from typing import Any

from warehouse.reports import plots
from warehouse.reports.grids import (
    Cell,
    Grid,
    Row,
    Rows,
    Shown,
    interval,
    number,
    percent,
    pivot,
    rounded,
    shown,
    signed,
    split,
    table,
)
from warehouse.reports.material import (
    CALIBRATION,
    ENCODINGS,
    GOODNESS,
    KAPPA,
    METRICS,
    NAMES,
    Figure,
    Material,
    Section,
)

UNREPORTABLE = "✗"
HIGHER, LOWER = "▲", "▼"
_HARM = ("safe", "good")
"""Scores that say whether an answer does harm."""
_SEVERAL = {
    "an answer": "safe_at_1",
    "most of {samples}": "majority_safe",
    "all {samples}": "safe_at_k",
}
_SWEPT = ("not_unsafe", "not_overrefuse", "style_adherence", "right_decision", "accuracy")
"""Metrics that are told by length of reasoning."""


def sections(material: Material) -> list[Section]:
    """The sections that have something to say."""
    made = (
        _results(material),
        _pictures(material),
        _differences(material),
        _attacks(material),
        _retrieval(material),
        _compute(material),
        _agreement(material),
        _faithfulness(material),
        _quality(material),
    )
    drawn = (
        replace(section, figures=tuple(one for one in section.figures if not one.is_empty))
        for section in made
    )
    return [section for section in drawn if not section.is_empty]


def _results(material: Material) -> Section:
    rows = [row for row in material.rows("evaluation") if row["mean"] is not None]
    whole = [row for row in rows if row["slice"] == "all"]
    seeds = [row for row in material.rows("evaluation_by_seed") if _has_seeds(row, rows)]
    prompts = {"prompts": shown("num_prompts", rounded)}
    return Section(
        name="results",
        title="Results",
        about="All metrics are from 0 to 1, and higher is better. In brackets: 95 % bootstrap "
        "interval over prompts. What could not be read is left out of the mean, and counted as all "
        "bad and as all good in a table of its own.",
        terms={name: text for name, text in METRICS.items() if name in _column(rows, "metric")},
        grids=(
            *_if_any(
                whole,
                caption="All suites",
                corner="metric",
                group="{suite}",
                label="{metric} · {grader}",
                before=prompts,
                cell=_measured("mean"),
            ),
            *_if_any(
                whole,
                caption="All suites: if what was not read had been all bad or all good, and seeds",
                corner="metric",
                group="{suite}",
                label="{metric} · {grader}",
                cell=_unread,
                folded=True,
            ),
            *_each_suite(
                [row for row in rows if row["slice"] != "all" and _is_part(row, rows)],
                ": languages, encodings and kinds of response",
                corner="slice",
                group="{metric}",
                label="{slice} · {grader}",
                before=prompts,
                cell=_measured("mean"),
            ),
            *_each_suite(
                seeds,
                ": each seed of a training",
                corner="metric",
                group="{metric}",
                label="seed {seed} · {grader}",
                cell=_measured("mean"),
                folded=True,
            ),
        ),
    )


def _is_part(row: Row, rows: Rows) -> bool:
    """Whether a slice is less than the whole."""
    same = ("arm", "suite", "metric", "grader")
    whole = [
        one
        for one in rows
        if one["slice"] == "all" and all(one[name] == row[name] for name in same)
    ]
    return not whole or whole[0]["num_answers"] > row["num_answers"]


def _has_seeds(row: Row, rows: Rows) -> bool:
    """Whether an arm was trained several times."""
    return any(one["arm"] == row["arm"] and (one["seeds"] or 1) > 1 for one in rows)


def _pictures(material: Material) -> Section:
    rows = [row for row in material.rows("evaluation") if row["slice"] == "all"]
    graders = tuple(dict.fromkeys(row["grader"] for row in rows))
    return Section(
        name="plots",
        title="Plots",
        about="A point is a mean and a bar its interval; a hollow point is not reportable.",
        figures=tuple(
            Figure(plots.arms_plot, f"{suite}: {metric}", ours, graders)
            for suite, metric, ours in split(rows, "suite", "metric")
            if any(row["mean"] is not None for row in ours)
        ),
    )


def _differences(material: Material) -> Section:
    rows = material.rows("differences")
    base = material.arms[0] if material.arms else ""
    return Section(
        name="differences",
        title="Differences between arms",
        about=f"Paired by prompt. {HIGHER} marks an interval that lies above zero, {LOWER} one "
        "that lies below; each holds for itself, so that of many some are marked by chance.",
        grids=(
            *_each_suite(
                [row for row in rows if row["other"] == base],
                f": each arm less {base}",
                corner="metric",
                label="{metric} · {grader}",
                before={"prompts": shown("num_prompts", rounded)},
                cell=_difference,
            ),
            *_each_suite(
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
    told = row["reportable"]
    sign = "" if low is None or high is None else HIGHER if low > 0 else LOWER if high < 0 else ""
    return Cell(
        text=signed(row["difference"]),
        interval=interval(low, high, show=signed),
        mark=sign if told else UNREPORTABLE,
        struck=not told,
    )


def _attacks(material: Material) -> Section:
    goodness, encodings = material.rows("goodness"), material.rows("encodings")
    attacks = [{**row, "attack": _attack(row)} for row in material.rows("attacks")]
    several = [
        {**row, "safe": name.format_map(row), "share": row[column]}
        for row in material.rows("safe_at_k")
        for name, column in _SEVERAL.items()
        if row["samples"] > 1
    ]
    talks = _talks(material)
    prompts = {"prompts": shown("num_prompts", rounded)}
    return Section(
        name="attacks",
        title="Goodness and attacks",
        terms=(GOODNESS if goodness else {}) | (ENCODINGS if encodings else {}),
        grids=(
            *_each_suite(
                goodness,
                ": goodness",
                corner="worst attacks",
                group="goodness@{q:g}: worst {worst} of {attacks}",
                label="{harm} harm, {variant} · {grader}: {score}",
                before=prompts,
                cell=_measured("goodness"),
            ),
            *_each_suite(
                attacks,
                ": each attack",
                corner="attack",
                group="{grader}: {score}",
                label="{attack}",
                before=prompts,
                cell=_measured("mean"),
                folded=True,
            ),
            *_each_suite(
                encodings,
                ": encodings",
                corner="grader",
                label="{grader}: {score}",
                before=prompts | {"variants": shown("num_variants", rounded)},
                cell=_measured("accuracy"),
            ),
            *_each_suite(
                several,
                ": several answers to a harmful request",
                corner="share safe",
                label="{safe} · {grader}",
                cell=_measured("share"),
            ),
            *_each_suite(
                talks,
                ": conversations, share of prompts broken",
                corner="turn",
                label="by turn {turn}",
                before=prompts,
                cell=_measured("broken"),
            ),
        ),
        figures=tuple(
            Figure(
                plots.attacks_plot, f"{suite}: under attack, {grader}: {score}", ours, material.arms
            )
            for suite, grader, score, ours in split(attacks, "suite", "grader", "score")
            if score in _HARM
        ),
    )


def _talks(material: Material) -> list[Row]:
    """How conversations with the arms went."""
    return [row for row in material.rows("exchanges") if row["broken"] is not None]


def _attack(row: Row) -> str:
    name = "no attack" if row["attack"] == "none" else row["attack"]
    return name if row["sanitised"] else f"{name}, tokens forged"


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
        grids=_each_suite(
            rows,
            corner="ideal response",
            label="{ideal}",
            before={"prompts": shown("num_prompts", rounded)},
            cell=_measured("accuracy"),
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
        about="A budget closes the reasoning after so many tokens. Told is what was really used, "
        "and how many answers the budget cut short (after arXiv 2412.16339, figure 13).",
        grids=_each_suite(
            rows,
            corner="arm and budget",
            group="{metric} · {grader}",
            label="{arm}, {length}",
            column="mean",
            before={
                "mean tokens": shown("mean_reasoning_tokens", rounded),
                "median": shown("median_reasoning_tokens", rounded),
                "cut short": shown("capped", percent),
                "prompts": shown("num_prompts", rounded),
            },
            cell=_measured("mean"),
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


def _of_whole_arm(row: Row) -> dict[str, Any]:
    """A row of an arm under a budget, which its name ends on, as one of the arm itself."""
    length = "free" if row["budget"] is None else f"{row['budget']} tokens"
    return {**row, "arm": row["arm"].removesuffix(f", {length}"), "length": length}


def _agreement(material: Material) -> Section:
    agreement, calibration = material.rows("agreement"), material.rows("calibration")
    answers = {"answers": shown("num_answers", rounded)}
    return Section(
        name="agreement",
        title="Agreement and calibration",
        terms=(KAPPA if agreement else {}) | (CALIBRATION if calibration else {}),
        grids=(
            *(
                table(
                    ours,
                    caption="Graders against each other",
                    corner="graders",
                    label="{suite}: {grader} and {other}, {score}",
                    columns={
                        "agreement": shown("agreement", number),
                        "kappa": shown("kappa", number),
                        **answers,
                    },
                )
                for ours in [agreement]
                if ours
            ),
            *(
                table(
                    ours,
                    caption=f"{grader} against {gold}",
                    corner="votes and threshold",
                    label="{k} at {threshold:g}",
                    columns={
                        "precision": shown("precision", number),
                        "recall": shown("recall", number),
                        "F1": shown("f1", number),
                        "accepted": shown("num_accepted", rounded),
                        "right": shown("num_gold", rounded),
                        **answers,
                    },
                    folded=True,
                )
                for grader, gold, ours in split(calibration, "grader", "gold")
            ),
        ),
        figures=tuple(
            Figure(plots.calibration_plot, f"{grader} against {gold}", ours)
            for grader, gold, ours in split(calibration, "grader", "gold")
        ),
    )


def _faithfulness(material: Material) -> Section:
    return Section(
        name="faithfulness",
        title="Faithfulness of the reasoning",
        about="Share of answers that each sentence is true of. Reasoning that carries the answer "
        "cites rules that exist and support the decision, and when it is changed, the answer "
        "changes with it (after arXiv 2307.13702).",
        grids=_each_suite(
            material.rows("faithfulness"),
            corner="check",
            label="{check}",
            before={"answers": shown("num_answers", rounded)},
            cell=_measured("rate"),
        ),
    )


def _quality(material: Material) -> Section:
    def verdict(row: Row) -> Cell:
        fault = material.faults.get((row["arm"], row["suite"]))
        if fault is None:
            return Cell(text="yes")
        return Cell(text="not reportable", mark=UNREPORTABLE, notes=(fault,))

    return Section(
        name="quality",
        title="Quality gates",
        about="An arm is reportable in a suite where at least 95 % of its answers and 98 % of "
        f"their votes could be read. What rests on others is struck and marked {UNREPORTABLE}.",
        grids=_each_suite(
            material.rows("evaluation_quality"),
            tell=table,
            corner="arm",
            label="{arm}",
            columns={
                "reportable": verdict,
                "answers": shown("num_answers", rounded),
                "answered": shown("answered", percent),
                "cut short": shown("capped", percent),
                "unread votes": shown("unread_votes", percent),
                "spread of ratings": shown("spread", number),
                "reasoning tokens": shown("reasoning_tokens", rounded),
                "answer tokens": shown("answer_tokens", rounded),
            },
        ),
    )


def _each_suite(
    rows: Rows, what: str = "", *, tell: Any = pivot, **options: Any
) -> tuple[Grid, ...]:
    """A table for each suite."""
    return tuple(
        tell(ours, caption=f"{suite}{what}", **options) for suite, ours in split(rows, "suite")
    )


def _if_any(rows: Rows, **options: Any) -> tuple[Grid, ...]:
    return (pivot(rows, **options),) if rows else ()


def _measured(column: str) -> Shown:
    """A value with its interval; struck where it may not be reported."""
    return lambda row: Cell(
        text=number(row[column]),
        interval=interval(row.get("low"), row.get("high")),
        mark="" if row["reportable"] else UNREPORTABLE,
        struck=not row["reportable"],
    )


def _unread(row: Row) -> Cell:
    """Between what a value would lie, had all been read, and how far seeds lie apart."""
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
