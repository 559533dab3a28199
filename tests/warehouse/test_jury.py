"""Juries and criteria as the questions tell them, counted by hand."""

import json
from typing import Any

import pytest

from tests.rows import Scores, completion, judged, judgement, later, prompt, run
from warehouse.catalog import ask, connect, read
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import (
    COMPLETIONS,
    JUDGEMENTS,
    PROMPTS,
    RUNS,
    CriterionScore,
    TracePlan,
)

JURY = ["a", "b", "c"]


def fill(home: Home, *judges: Scores, num_each: int = 1) -> None:
    """Writes the completions that judges `a`, `b` and `c` scored, and the plan of their jury."""
    names = sorted({name for scores in judges for name in scores})
    write_shard(home, PROMPTS, [prompt("p", prompt_id="p")])
    write_shard(home, COMPLETIONS, [completion(name) for name in names])
    rows = [
        row for judge, scores in zip(JURY, judges, strict=False) for row in judged(judge, scores)
    ]
    write_shard(home, JUDGEMENTS, rows)
    jury = JURY[: len(judges)]
    write_shard(home, RUNS, [run("r", judging_id="jury", jury=jury, num_judgements=num_each)])


def rows_of(home: Home, name: str, *columns: str) -> list[tuple[Any, ...]]:
    return [
        tuple(row[column] for column in columns) for row in ask(connect(home), name).to_pylist()
    ]


def verdicts(home: Home) -> dict[str, tuple[Any, ...]]:
    query = "SELECT completion_id, verdict, min_score, scores, num_judgements FROM verdicts"
    return {name: rest for name, *rest in read(connect(home), query).fetchall()}


def test_completion_is_accepted_if_every_judge_accepts_it(disk: Home) -> None:
    fill(
        disk,
        {"all": [9, 8], "one": [9, 9], "lone": [9, 9], "half": [9, 9]},
        {"all": [10, 8], "one": [9, 3], "half": [9, None]},
        num_each=2,
    )
    assert verdicts(disk) == {
        "all": ["accepted", 8.0, [9.0, 8.0, 10.0, 8.0], 4],
        "one": ["rejected", 3.0, [9.0, 9.0, 9.0, 3.0], 4],
        "lone": ["unjudged", 9.0, [9.0, 9.0], 4],
        "half": ["unjudged", 9.0, [9.0, 9.0, 9.0], 4],
    }
    assert rows_of(disk, "unjudged", "status", "num_completions") == [
        ("missing", 1),
        ("no_verdict", 1),
    ]
    assert rows_of(disk, "worst", "completion_id", "judge")[0] == ("one", "b@1")


def test_agreement_is_over_what_all_judges_judged(disk: Home) -> None:
    # The textbook's table for a and b: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no; kappa 0.4.
    pairs = [(9, 9)] * 20 + [(9, 1)] * 5 + [(1, 9)] * 10 + [(1, 1)] * 15
    a = {f"c{number}": [one] for number, (one, _) in enumerate(pairs)}
    b = {f"c{number}": [other] for number, (_, other) in enumerate(pairs)}
    fill(disk, {**a, "alone": [9], "unread": [9]}, {**b, "unread": [None]})
    columns = ("judge", "num_judged", "num_shared", "num_rejected", "num_rejected_alone")
    assert rows_of(disk, "jury", *columns) == [("a@1", 52, 50, 25, 10), ("b@1", 50, 50, 20, 5)]
    # Their votes correlate by (20 * 15 - 5 * 10) / sqrt(25 * 25 * 30 * 20).
    assert rows_of(disk, "jury", "agreement", "kappa", "independent") == [(0.7, 0.4, 1.42)] * 2


def test_judges_that_vote_alike_stand_for_one_and_independent_ones_for_all(disk: Home) -> None:
    votes = {"aa": [9], "ab": [9], "ba": [1], "bb": [1]}
    across = {"aa": [9], "ab": [1], "ba": [9], "bb": [1]}
    fill(disk, votes, votes, across)
    assert rows_of(disk, "jury", "judge", "num_rejected_alone", "independent") == [
        # Of three pairs one correlates by 1 and two by 0: 3 / (1 + 2 / 3).
        ("a@1", 0, 1.8),
        ("b@1", 0, 1.8),
        ("c@1", 1, 1.8),
    ]


def test_judges_of_one_mind_have_no_correlation_to_tell(disk: Home) -> None:
    fill(disk, {"x": [9], "y": [9]}, {"x": [9], "y": [1]})
    assert rows_of(disk, "jury", "agreement", "independent") == [(0.5, None)] * 2


def test_lone_judge_is_no_jury(disk: Home) -> None:
    fill(disk, {"x": [9]})
    write_shard(disk, RUNS, [run("later", judging_id="a", num_judgements=1, started_at=later(9))])
    assert rows_of(disk, "jury", "judge") == []


def test_spread_counts_a_completion_once_whoever_shares_the_judge(disk: Home) -> None:
    fill(disk, {"x": [9, 5], "y": [9]}, {"x": [9, 9], "y": [9]}, num_each=2)
    # Another recipe asks the first judge alone.
    lone = run("lone", recipe="lone", judging_id="a", num_judgements=2)
    write_shard(disk, RUNS, [lone])
    assert rows_of(disk, "judge_spread", "judge", "spread", "num_completions") == [
        ("a@1", 4.0, 1),
        ("b@1", 0.0, 1),
    ]


def test_drift_has_a_row_for_each_judge_over_what_it_was_asked(disk: Home) -> None:
    fill(disk, {"x": [9], "y": [9], "z": [1]}, {"x": [9], "y": [3]})
    columns = ("judge", "num_judged", "num_accepted", "acceptance")
    assert rows_of(disk, "drift", *columns) == [("a@1", 3, 2, 0.6667), ("b@1", 2, 1, 0.5)]


def test_drift_tells_the_order_of_a_jury_and_who_was_silent(disk: Home) -> None:
    fill(disk, {"x": [9]}, {"x": [9]})
    recipe = {"judge_engines": [{"model": "b"}, {"model": "a"}], "judge": {"mode": "race"}}
    figures = {"silent_judges": {"b@1": "away"}}
    told = {"resolved_recipe": json.dumps(recipe), "figures": json.dumps(figures)}
    jury = run("r", judging_id="jury", jury=["a", "b"], num_judgements=1, revision=3, **told)
    write_shard(disk, RUNS, [jury])
    assert rows_of(disk, "drift", "judge", "jury") == [
        ("a@1", "b then a, 1 silent"),
        ("b@1", "b then a, 1 silent"),
    ]


def criteria(**scores: float) -> list[CriterionScore]:
    return [CriterionScore(criterion=name, score=score) for name, score in scores.items()]


@pytest.fixture
def scored(disk: Home) -> Home:
    """A completion with two samples of a lone judge that scores two criteria."""
    write_shard(disk, PROMPTS, [prompt("p", prompt_id="p")])
    write_shard(disk, COMPLETIONS, [completion("x")])
    samples = [criteria(compliance=9, reasoning=8), criteria(compliance=5, reasoning=9)]
    rows = [
        judgement("x", index, min(one.score for one in given), criteria=given)
        for index, given in enumerate(samples)
    ]
    write_shard(disk, JUDGEMENTS, rows)
    write_shard(disk, RUNS, [run("r")])
    return disk


def test_worst_names_the_criterion_of_the_lowest_score(scored: Home) -> None:
    assert rows_of(scored, "worst", "min_score", "judge", "criterion", "rationale") == [
        (5.0, "judge@1", "compliance", "Worth 5.")
    ]


def test_spread_is_told_of_the_whole_and_of_each_criterion(scored: Home) -> None:
    columns = ("judge", "criterion", "spread", "mean_min_score", "num_split_by_threshold")
    assert rows_of(scored, "judge_spread", *columns) == [
        ("judge@1", None, 3.0, 5.0, 1),
        ("judge@1", "compliance", 4.0, 5.0, 1),
        ("judge@1", "reasoning", 1.0, 8.0, 0),
    ]


def test_scores_by_criterion_are_one_view_of_samples_and_traces(scored: Home) -> None:
    write_shard(scored, COMPLETIONS, [completion("trace", spec_id=None, generation_id="t")])
    given = judgement(
        "trace", 0, 7.0, completion_id="trace", criterion="accuracy", spec_id=None,
        judging_id="gold",
    )  # fmt: skip
    write_shard(scored, JUDGEMENTS, [given])
    plan = TracePlan(generation_id="t", judging_id="gold", num_judgements=1)
    write_shard(scored, RUNS, [run("r2", traces=[plan], started_at=later(1))])
    query = (
        "SELECT completion_id, sample_index, criterion, score FROM criterion_scores ORDER BY ALL"
    )
    assert read(connect(scored), query).fetchall() == [
        ("trace", 0, "accuracy", 7.0),
        ("x", 0, "compliance", 9.0),
        ("x", 0, "reasoning", 8.0),
        ("x", 1, "compliance", 5.0),
        ("x", 1, "reasoning", 9.0),
    ]
