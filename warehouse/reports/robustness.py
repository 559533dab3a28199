"""The section on safety under attacks, encodings, several answers and several turns."""

from warehouse.reports import plots
from warehouse.reports.grids import Grid, Row, rounded, shown, split
from warehouse.reports.material import (
    ENCODINGS,
    GOODNESS,
    PROMPTS,
    Figure,
    Material,
    Section,
    each_suite,
    measured,
)

_HARM = ("safe", "good")
"""Scores that measure harm."""
_SEVERAL = {
    "an answer": "safe_at_1",
    "most of {samples}": "majority_safe",
    "all {samples}": "safe_at_k",
}
"""Label → column of `safe_at_k`."""


def attacks(material: Material) -> Section:
    """Returns the section on attacks, encodings and several answers."""
    goodness, encodings = material.rows("goodness"), material.rows("encodings")
    attacked = [{**row, "attack": _attack(row)} for row in material.rows("attacks")]
    return Section(
        name="attacks",
        title="Goodness and attacks",
        terms=(GOODNESS if goodness else {}) | (ENCODINGS if encodings else {}),
        grids=(
            *each_suite(
                goodness,
                ": goodness",
                corner="worst attacks",
                group="goodness@{q:g}: worst {worst} of {attacks}",
                label="{harm} harm, {variant} · {grader}: {score}",
                before=PROMPTS,
                cell=measured("goodness"),
            ),
            *each_suite(
                attacked,
                ": each attack",
                corner="attack",
                group="{grader}: {score}",
                label="{attack}",
                before=PROMPTS,
                cell=measured("mean"),
                folded=True,
            ),
            *each_suite(
                encodings,
                ": encodings",
                corner="grader",
                label="{grader}: {score}",
                before=PROMPTS | {"variants": shown("num_variants", rounded)},
                cell=measured("accuracy"),
            ),
            *_several_answers(material),
            *_several_turns(material),
        ),
        figures=tuple(
            Figure(
                plots.attacks_plot, f"{suite}: under attack, {grader}: {score}", ours, material.arms
            )
            for suite, grader, score, ours in split(attacked, "suite", "grader", "score")
            if score in _HARM
        ),
    )


def _several_answers(material: Material) -> tuple[Grid, ...]:
    """Returns tables of how safe one, most and all of several answers to a request are."""
    rows = [
        {**row, "safe": name.format_map(row), "share": row[column]}
        for row in material.rows("safe_at_k")
        for name, column in _SEVERAL.items()
        if row["samples"] > 1
    ]
    return each_suite(
        rows,
        ": several answers to a harmful request",
        corner="share safe",
        label="{safe} · {grader}",
        cell=measured("share"),
    )


def _several_turns(material: Material) -> tuple[Grid, ...]:
    """Returns tables of the share of prompts broken by each turn of a multi-turn attack."""
    return each_suite(
        [row for row in material.rows("exchanges") if row["broken"] is not None],
        ": conversations, share of prompts broken",
        corner="turn",
        label="by turn {turn}",
        before=PROMPTS,
        cell=measured("broken"),
    )


def _attack(row: Row) -> str:
    """Returns the name of an attack, and whether it forged special tokens."""
    name = "no attack" if row["attack"] == "none" else row["attack"]
    return name if row["sanitised"] else f"{name}, tokens forged"
