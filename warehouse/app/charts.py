"""The charts of the page: answers to queries, drawn by Altair."""

from typing import Any

import pyarrow as pa

_COLOURS = {
    "accepted": "#2f7d4f",
    "rejected": "#b5463c",
    "unjudged": "#8a8f98",
    "held": "#c28a1d",
    "failed": "#4a4f57",
}
"""Colours of verdicts."""


def funnel(rows: pa.Table) -> Any:
    """Returns bars of the rows of each stage, in the order of the stages."""
    import altair as alt

    stages = rows.column("stage").to_pylist()
    bars = alt.Chart(rows).encode(
        y=alt.Y("stage:N", sort=stages, title=None),
        x=alt.X("num_rows:Q", title="rows"),
        tooltip=["stage:N", alt.Tooltip("num_rows:Q", format=","), "left_behind:N"],
    )
    return (
        bars.mark_bar()
        + bars.mark_text(align="left", dx=4).encode(text=alt.Text("num_rows:Q", format=","))
    ).properties(height=180, width="container")


def lowest_scores(rows: pa.Table) -> Any:
    """Returns the numbers of completions by lowest score, stacked by verdict."""
    import altair as alt

    return (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            x=alt.X("lowest_score:O", title="lowest score"),
            y=alt.Y("num_completions:Q", title="completions"),
            color=_verdict_colour(),
            tooltip=["lowest_score:Q", "verdict:N", alt.Tooltip("num_completions:Q", format=",")],
        )
        .properties(height=180, width="container")
    )


def judge_scores(rows: pa.Table) -> Any:
    """Returns the numbers of judgements by score, beside each other by judge."""
    import altair as alt

    return (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            x=alt.X("score:O", title="score"),
            xOffset="judge:N",
            y=alt.Y("num_judgements:Q", title="judgements"),
            color=alt.Color("judge:N", legend=alt.Legend(orient="top")),
            tooltip=["judge:N", "score:Q", alt.Tooltip("num_judgements:Q", format=",")],
        )
        .properties(height=200, width="container")
    )


def acceptance_by_category(rows: pa.Table) -> Any:
    """Returns the share of accepted completions by category and ideal response."""
    import altair as alt

    return (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            y=alt.Y("category:N", title=None),
            yOffset="ideal_response:N",
            x=alt.X("acceptance:Q", scale=alt.Scale(domain=[0, 1]), title="share accepted"),
            color=alt.Color("ideal_response:N", legend=alt.Legend(orient="top")),
            tooltip=["category:N", "ideal_response:N", "acceptance:Q", "num_completions:Q"],
        )
        .properties(height=alt.Step(9), width="container")
    )


def acceptance_by_rule(rows: pa.Table, *, most: int = 40) -> Any:
    """Returns citations by rule, those in accepted completions apart, of the most cited rules."""
    import altair as alt

    rows = rows.slice(0, most)
    rules = rows.column("rule_id").to_pylist()
    return (
        alt.Chart(rows)
        .transform_calculate(others="datum.num_cited - datum.num_accepted")
        .transform_fold(["num_accepted", "others"], as_=["kind", "citations"])
        .transform_calculate(
            verdict="datum.kind == 'num_accepted' ? 'accepted' : 'not accepted'",
            acceptance="datum.num_accepted / datum.num_cited",
        )
        .mark_bar()
        .encode(
            x=alt.X("rule_id:N", sort=rules, title=None),
            y=alt.Y("citations:Q", title="completions that cite the rule"),
            color=alt.Color(
                "verdict:N",
                scale=alt.Scale(
                    domain=["accepted", "not accepted"],
                    range=[_COLOURS["accepted"], _COLOURS["rejected"]],
                ),
                legend=alt.Legend(orient="top"),
            ),
            tooltip=[
                "rule_id:N",
                "category:N",
                "num_cited:Q",
                "num_accepted:Q",
                alt.Tooltip("acceptance:Q", format=".2f"),
            ],
        )
        .properties(height=240, width="container")
    )


def spreads(rows: pa.Table) -> Any:
    """Returns the numbers of completions by the spread of one judge's scores."""
    import altair as alt

    return (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            x=alt.X("spread:O", title="highest less lowest score of one judge"),
            xOffset="judge:N",
            y=alt.Y("num_completions:Q", title="completions"),
            color=alt.Color("judge:N", legend=alt.Legend(orient="top")),
            tooltip=[
                "judge:N",
                "criterion:N",
                "spread:Q",
                "num_completions:Q",
                "num_split_by_threshold:Q",
            ],
        )
        .properties(height=220, width="container")
    )


def lengths(rows: pa.Table) -> Any:
    """Returns completions by length of reasoning and lowest score, with the mean at each length."""
    import altair as alt

    base = alt.Chart(rows).encode(x=alt.X("reasoning_tokens:Q", title="tokens of the reasoning"))
    cells = base.mark_square().encode(
        y=alt.Y("lowest_score:Q", title="lowest score"),
        size=alt.Size("num_completions:Q", legend=None),
        tooltip=["reasoning_tokens:Q", "lowest_score:Q", "num_completions:Q"],
    )
    means = (
        base.transform_calculate(total="datum.lowest_score * datum.num_completions")
        .transform_aggregate(
            total="sum(total)", num_completions="sum(num_completions)", groupby=["reasoning_tokens"]
        )
        .transform_calculate(mean="datum.total / datum.num_completions")
        .mark_line(color=_COLOURS["rejected"])
        .encode(y="mean:Q", tooltip=["reasoning_tokens:Q", alt.Tooltip("mean:Q", format=".2f")])
    )
    return (cells + means).properties(height=320, width="container")


def steps(rows: pa.Table, *names: str, title: str) -> Any:
    """Returns lines of columns of the question `rewards` over the steps of a training."""
    import altair as alt

    return (
        alt.Chart(rows)
        .transform_fold(list(names), as_=["figure", "value"])
        .mark_line()
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
            color=alt.Color("figure:N", title=None, legend=alt.Legend(orient="top")),
            tooltip=["step:Q", "figure:N", "value:Q"],
        )
        .properties(height=220, width="container")
    )


def _verdict_colour() -> Any:
    import altair as alt

    return alt.Color(
        "verdict:N",
        scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())),
        legend=alt.Legend(orient="top"),
    )
