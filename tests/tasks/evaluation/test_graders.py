"""Graders: which can be used, and what their grades are kept by."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from infra.harbour import world
from infra.harbour.oracle import grade_answer, read_request
from specs.policy import Outcome, Pack
from tasks.evaluation.graders import (
    FunctionGrader,
    GraderConfig,
    GraderError,
    RubricGrader,
    load_function,
    make_rubric,
    versioned,
)
from tasks.paths import PROJECT
from tasks.training.reward import RewardConfig
from tests.tasks.evaluation.test_answer import HARBOUR

PROMPTS = PROJECT / "infra/harbour/prompts/test.jsonl"
BY_POLICY = GraderConfig(name="judge", rubric="policy", samples=2)


def of_policy(config: GraderConfig, *, model: str = "judge@1") -> str:
    rubric = make_rubric(config, HARBOUR, None)
    return RubricGrader.of(config, rubric=rubric, model=model).grading_id


def test_grades_of_a_rubric_are_kept_by_what_the_judge_is_shown_and_who_it_is() -> None:
    plain = of_policy(BY_POLICY)
    assert plain == of_policy(BY_POLICY.model_copy(update={"samples": 4}))
    others = [
        of_policy(BY_POLICY, model="judge@2"),
        of_policy(BY_POLICY.model_copy(update={"saw": "answer+reasoning"})),
        of_policy(GraderConfig(name="judge", rubric="strongreject", samples=2)),
    ]
    assert len({plain, *others}) == 4


@versioned("first", 1)
def first(messages: Any, *, answer: str, **known: Any) -> dict[str, float | None]:
    return {"short": float(len(answer) < 400)}


@versioned("first", 1)
def moved(messages: Any, *, answer: str, **known: Any) -> dict[str, float | None]:
    """Does the same in other words."""
    is_short = len(answer) < 400
    return {"short": float(is_short)}


@versioned("first", 2)
def raised(messages: Any, *, answer: str, **known: Any) -> dict[str, float | None]:
    return {"short": float(len(answer) < 100)}


@versioned("first", 1, depends_on=lambda: ["a spec"])
def dependent(messages: Any, *, answer: str, **known: Any) -> dict[str, float | None]:
    return {}


def allowing(thing: str) -> Pack:
    """Returns the pack with the rule of a thing edited to allow it."""
    category = world.CATEGORY[thing]
    rules = tuple(
        replace(rule, outcome=Outcome.COMPLY, text=f"{thing} is fine")
        if rule.title == thing
        else rule
        for rule in HARBOUR.policies[category].rules
    )
    return world.with_rules(HARBOUR, category, rules)


@versioned("by the rules", 1, reads_pack=True)
def by_rules(messages: Any, *, answer: str, pack: Pack, **known: Any) -> dict[str, float | None]:
    return {"names_a_rule": float(answer in pack.rule_ids)}


def unversioned(messages: Any, *, answer: str, **known: Any) -> dict[str, float | None]:
    return {}


def of_function(function: Callable[..., Any], **options: Any) -> str:
    name = f"{__name__}:{function.__name__}"
    return FunctionGrader.of(GraderConfig(name="mine", function=name, **options)).grading_id


def test_grader_without_a_rubric_is_given_none() -> None:
    config = GraderConfig(name="gold", function="gold")
    with pytest.raises(GraderError, match="'gold' has no rubric: give it one of policy"):
        make_rubric(config, HARBOUR, None)


def test_grades_of_a_function_are_kept_until_its_version_is_raised() -> None:
    assert of_function(first) == of_function(moved)
    others = [
        of_function(raised),
        of_function(dependent),
        of_function(first, saw="answer+reasoning"),
    ]
    assert len({of_function(first), *others}) == 4


def test_a_function_that_reads_the_pack_grades_by_the_rules_of_the_recipe() -> None:
    config = GraderConfig(name="mine", function=f"{__name__}:by_rules")
    edited = allowing("raft")
    shipped, after = FunctionGrader.of(config, HARBOUR), FunctionGrader.of(config, edited)
    assert shipped.grading_id != after.grading_id
    known: dict[str, Any] = {"cited": [], "ideal_response": None, "target": None}
    assert shipped.function([], answer="B3", **known) == {"names_a_rule": 1.0}
    with pytest.raises(GraderError, match="reads the policy pack, which it is not given here"):
        FunctionGrader.of(config)


def test_the_oracle_grades_by_the_rule_as_it_was_edited() -> None:
    messages: Any = [{"role": "user", "content": "How do I use the raft?"}]
    helpful = world.helpful_answer(read_request(messages))
    edited = allowing("raft")
    answered: dict[str, Any] = {"answer": helpful, "cited": ["B3"], "ideal_response": None}
    assert grade_answer(messages, **answered, pack=HARBOUR)["right"] == 0.0
    assert grade_answer(messages, **answered, pack=edited)["right"] == 1.0


def test_a_reward_that_reads_the_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="which a reward is not given"):
        RewardConfig(function="infra.harbour.oracle:grade_answer")


def test_function_without_a_version_is_refused_with_the_way_to_declare_one() -> None:
    with pytest.raises(GraderError, match=r"declares no version: put @versioned\(") as caught:
        of_function(unversioned)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere:grade", f"{__name__}:nobody", "grade", "os:sep"])
def test_grader_that_does_not_exist_is_refused_by_name(name: str) -> None:
    with pytest.raises(GraderError, match=f"no grader '{name}': give a function"):
        load_function(name)


def test_exact_match_grades_only_what_has_a_gold_answer() -> None:
    exact: Any = load_function("exact_match")
    assert exact([], answer="So it is 1,200.", target="#### 1200") == {"correct": 1.0}
    assert exact([], answer="So it is 12.", target=None) == {"correct": None}


def test_the_oracle_grades_as_its_declared_version_did() -> None:
    """Another digest means other grades: raise the version of `grade_answer` with it."""
    digest = hashlib.sha256()
    for line in PROMPTS.read_text(encoding="utf-8").splitlines():
        messages = json.loads(line)["messages"]
        request = read_request(messages)
        for answer in (world.helpful_answer(request), world.refusal(request), "See the mayor."):
            scores = grade_answer(messages, answer=answer, cited=["B3"], ideal_response=None)
            digest.update(json.dumps([answer, scores], sort_keys=True).encode())
    assert digest.hexdigest()[:12] == "a63c6b541202"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "has neither"),
        ({"function": "a:b", "rubric": "policy"}, "has both"),
        ({"function": "a:b", "samples": 2}, "would all be the same"),
    ],
)
def test_grader_of_a_recipe_that_cannot_be_is_refused(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        GraderConfig(name="mine", **options)
