"""Sections on how far an evaluation can be trusted: agreement, faithfulness, quality gates."""

from warehouse.reports import plots
from warehouse.reports.grids import (
    Cell,
    Row,
    Rows,
    bounded,
    number,
    percent,
    rounded,
    shown,
    split,
    table,
)
from warehouse.reports.material import (
    CALIBRATION,
    KAPPA,
    UNREPORTABLE,
    Figure,
    Material,
    Section,
    each_suite,
    listed_if_any,
    measured,
)


def agreement(material: Material) -> Section:
    """Returns the section on agreement between graders, and of judges with gold graders."""
    agreement, calibration = material.rows("agreement"), material.rows("calibration")
    answers = {"answers": shown("num_answers", rounded)}
    return Section(
        name="agreement",
        title="Agreement and calibration",
        about=_unlike(material, agreement),
        terms=(KAPPA if agreement else {}) | (CALIBRATION if calibration else {}),
        grids=(
            *listed_if_any(
                agreement,
                caption="Graders against each other",
                corner="graders",
                label="{suite}: {grader} and {other}, {score}",
                columns={
                    "agreement": shown("agreement", number),
                    "kappa": shown("kappa", number),
                    **answers,
                },
            ),
            *(
                table(
                    ours,
                    caption=_held(grader, criterion, gold),
                    corner="grades and threshold",
                    label="{k} at {threshold:g}",
                    columns={
                        "precision": bounded("precision", "low", "high"),
                        "recall": bounded("recall", "recall_low", "recall_high"),
                        "F1": shown("f1", number),
                        "accepted": shown("num_accepted", rounded),
                        "right": shown("num_gold", rounded),
                        **answers,
                        "tokens": shown("tokens", rounded),
                        "racing": shown("tokens_racing", rounded),
                    },
                    folded=True,
                )
                for grader, criterion, gold, ours in split(
                    calibration, "grader", "criterion", "gold"
                )
            ),
        ),
        figures=tuple(
            Figure(plots.calibration_plot, _held(grader, criterion, gold), ours)
            for grader, criterion, gold, ours in split(calibration, "grader", "criterion", "gold")
        ),
    )


def _held(grader: str, criterion: str | None, gold: str) -> str:
    """Returns what is held against gold: a grader, or one of its criteria."""
    return f"{grader}{f' on {criterion}' if criterion else ''} against {gold}"


def _unlike(material: Material, agreement: Rows) -> str:
    """Returns which judges are held against no gold, because that judges more than they saw."""
    saw = {row["grader"]: row["saw"] for row in material.graders}
    judges = {row["grader"] for row in material.graders if row["reduce"] == "rating"}
    pairs = {
        (judge, gold)
        for row in agreement
        if row["score"] == "handled right"
        for judge, gold in (
            (row["grader"], row["other"]),
            (row["other"], row["grader"]),
        )
        if judge in judges and saw.get(gold, "answer") not in ("answer", saw[judge])
    }
    return " ".join(
        f"{judge} was shown the answer alone and {gold} goes by the reasoning as well, so that "
        "there is no precision of the one against the other."
        for judge, gold in sorted(pairs)
    )


def faithfulness(material: Material) -> Section:
    """Returns the section on whether answers follow from their reasoning."""
    return Section(
        name="faithfulness",
        title="Faithfulness of the reasoning",
        about="Share of answers that each sentence is true of. Reasoning that carries the answer "
        "cites rules that exist and support the decision, and when it is changed, the answer "
        "changes with it (after arXiv 2307.13702).",
        grids=each_suite(
            material.rows("faithfulness"),
            corner="check",
            label="{check}",
            before={"answers": shown("num_answers", rounded)},
            cell=measured("rate"),
        ),
    )


def quality(material: Material) -> Section:
    """Returns the section on which arms are reportable, by suite."""

    def verdict(row: Row) -> Cell:
        fault = material.faults.get((row["arm"], row["suite"]))
        if fault is None:
            return Cell(text="yes")
        return Cell(text="not reportable", mark=UNREPORTABLE, notes=(fault,))

    return Section(
        name="quality",
        title="Quality gates",
        about="An arm is reportable in a suite where at least 95 % of its answers and 98 % of "
        f"their grades could be read. What rests on others is struck and marked {UNREPORTABLE}.",
        grids=tuple(
            table(
                ours,
                caption=str(suite),
                corner="arm",
                label="{arm}",
                columns={
                    "reportable": verdict,
                    "answers": shown("num_answers", rounded),
                    "answered": shown("answered", percent),
                    "cut short": shown("capped", percent),
                    "unread grades": shown("unread_votes", percent),
                    "spread of ratings": shown("spread", number),
                    "reasoning tokens": shown("reasoning_tokens", rounded),
                    "answer tokens": shown("answer_tokens", rounded),
                },
            )
            for suite, ours in split(material.rows("evaluation_quality"), "suite")
        ),
    )
