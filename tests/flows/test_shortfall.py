"""A refresh that came to no example says why and what to do, in one sentence."""

from typing import Any

import pytest

from flows.shortfall import shortfall

STAGES = ("read", "prompts", "generated", "parsed", "judged", "accepted", "examples")


def funnel(*counts: int, **left_behind: str) -> list[dict[str, Any]]:
    """Returns a funnel whose later stages are empty."""
    padded = [*counts, *[0] * (len(STAGES) - len(counts))]
    return [
        {"stage": stage, "num_rows": count, "left_behind": left_behind.get(stage, "")}
        for stage, count in zip(STAGES, padded, strict=True)
    ]


@pytest.mark.parametrize(
    ("rows", "cause", "remedy"),
    [
        (
            funnel(24, prompts="24 unread"),
            "of 24 rows (24 unread): the judge model's choice of their category could not be read",
            "judge.constrain",
        ),
        (funnel(24, prompts="20 unassigned, 4 unread"), "found no category", "summaries"),
        (funnel(9, prompts="9 error"), "could not be asked", "fault table=prompts"),
        (funnel(9, prompts="9 contaminated"), "evaluation sets", "other sets"),
        (funnel(9, prompts="9 conflicting"), "different ways", "collect.conflicts"),
        (funnel(9, prompts="9 unknown_role: boss"), "no row of the sources", "each source"),
        (funnel(9, 9, 18, parsed="18 truncated"), "of 18 completions", "max_tokens"),
        (funnel(9, 9, 18, parsed="10 unclosed, 8 error"), "not reasoning", "reasoning_parser"),
        (funnel(9, 9, 18, 18, judged="18 unjudged"), "no score could be read", "ask unjudged"),
        (
            funnel(9, 9, 18, 18, 18, accepted="18 under the threshold 8"),
            "of 18 judged completions (18 under the threshold 8)",
            "ask worst",
        ),
        (funnel(9, 9, 18, 18, 18, accepted="18 held for approval"), "drifted", "approve"),
        (funnel(9, 9, 18, 18, 18, 2, examples="2 uncited"), "of 2 accepted", "[curate]"),
    ],
)
def test_the_stage_that_left_nothing_is_told_with_its_cause_and_a_remedy(
    rows: list[dict[str, Any]], cause: str, remedy: str
) -> None:
    sentence = shortfall(rows, {})
    assert cause in sentence and remedy in sentence
    assert sentence.endswith(".") and "\n" not in sentence


@pytest.mark.parametrize(
    ("rows", "remedy"),
    [
        (funnel(9, 9, 9, parsed="9 malformed"), "set prefilled"),
        (funnel(9, 9, 9, 9, judged="9 unjudged"), "mend scores and criteria of the traces"),
        (funnel(9, 9, 9, 9, 9, accepted="9 under the threshold 8"), "lower judge.threshold"),
        (funnel(9, 9, 9, 9, 9, 9, examples="9 uncited"), "require_citation = false"),
    ],
)
def test_a_recipe_of_scored_traces_is_told_of_no_model_that_it_does_not_have(
    rows: list[dict[str, Any]], remedy: str
) -> None:
    sentence = shortfall(rows, {}, of_traces=True, of_scores=True)
    assert remedy in sentence
    assert not any(word in sentence for word in ("engine", "generator", "max_tokens"))


def test_examples_of_other_recipes_are_not_taken_for_ones_of_this_refresh() -> None:
    assert "are of other recipes" in shortfall(funnel(9, 9, 18, 18, 18, 2, 1), {})


def test_a_choice_of_categories_that_cost_most_prompts_is_told_before_later_stages() -> None:
    rows = funnel(12, 1, 2, 2, 2, prompts="6 unread, 5 empty_prompt", accepted="2 under 8")
    sentence = shortfall(rows, {"unread": "the output reached max_tokens"})
    assert "of 12 rows (6 unread, 5 empty_prompt)" in sentence
    assert "could not be read (the output reached max_tokens)" in sentence
