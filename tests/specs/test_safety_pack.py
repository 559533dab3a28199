"""The safety pack keeps what it promises: rules with cases on both sides of the line, exclusions
that decide, and words that still make sense once the spec is gone."""

import re
from pathlib import Path

import pytest

import specs
from specs.adherence import load_adherence
from specs.lint import lint
from specs.pack import load_pack
from specs.places import Places
from specs.policy import Outcome, Rule
from specs.reasoning import find_dangling

FOLDER = Path(specs.__file__).parent / "safety"
PACK = load_pack(FOLDER)
RULES = [rule for policy in PACK.policies.values() for rule in policy.rules]


def test_the_seven_categories_of_the_paper_and_privacy_are_there() -> None:
    assert list(PACK.policies) == [
        "erotic_content",
        "extremism",
        "harassment",
        "illicit_behavior",
        "privacy",
        "regulated_advice",
        "self_harm",
        "violence",
    ]
    for policy in PACK.policies.values():
        assert policy.goal and policy.scope and policy.terms and policy.unclear and policy.style
        assert {rule.outcome for rule in policy.rules} == set(Outcome)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_each_rule_has_three_cases_on_both_sides_of_its_line(rule: Rule) -> None:
    outcomes = [case.outcome for case in rule.cases]
    assert len(outcomes) >= 3
    assert rule.outcome in outcomes and len(set(outcomes)) > 1
    # A case that ends otherwise than its rule is sent there by an exclusion.
    elsewhere = {PACK.rule(item.goto).outcome for item in rule.excludes if item.goto}
    assert set(outcomes) <= {rule.outcome, *elsewhere}


def test_the_check_of_packs_finds_nothing() -> None:
    assert lint(PACK, Places.of(FOLDER)) == []


def test_no_line_points_at_a_spec_that_reasoning_will_not_have() -> None:
    for path in FOLDER.glob("*.md"):
        for line in path.read_text(encoding="utf-8").split("\n"):
            assert find_dangling(line) is None, (path.name, line)


def test_the_principles_name_rules_that_exist_and_end_the_transformation_exception() -> None:
    named = re.findall(r"\b[A-Z]\d{1,2}\b", PACK.principles)
    assert set(named) <= set(PACK.rule_ids) and {"E8", "K10", "S4"} <= set(named)
    assert "Transformation:" in PACK.principles
    transforming = [rule for rule in RULES if "transformation principle holds" in rule.text]
    assert len(transforming) == len(PACK.policies)
    assert {rule.outcome for rule in transforming} == {Outcome.COMPLY}


def test_ids_of_rules_stay_and_keep_their_outcomes() -> None:
    def ids(outcome: Outcome) -> str:
        return " ".join(rule.id for rule in RULES if rule.outcome is outcome)

    assert ids(Outcome.COMPLY) == (
        "E1 E2 E3 E4 E9 X1 X2 X3 X4 X9 H1 H2 H3 H4 H5 H11 K0 K1 K2 K5 K6 K7 P1 P2 P3 P4 P5 "
        "R1 R2 R3 R4 R13 S1 S2 S7 S9 S12 S13 V1 V2 V3 V4"
    )
    assert ids(Outcome.REFUSE) == (
        "E5 E7 E8 E10 X5 X6 X7 X8 H6 H7 H8 H9 H10 K3 K4 K10 K11 P6 P7 P8 P9 P10 "
        "R10 R11 R12 S6 V5 V7 V8 V11 V12"
    )


def test_authority_runs_from_the_platform_to_the_user() -> None:
    assert [name for name, _ in PACK.authorities] == ["platform", "developer", "user"]
    lifted = {rule.id: rule.authority for rule in RULES if rule.authority}
    assert lifted == {"H5": "user", "R9": "developer", "V6": "developer"}


def test_graders_hold_each_subject_to_its_own_way_of_safe_completion() -> None:
    adherence = load_adherence(FOLDER)
    assert set(adherence.overrides["safe_complete"]) == set(PACK.policies)
    for category, slip in (
        ("privacy", "covert_means"),
        ("illicit_behavior", "drug_amounts"),
        ("erotic_content", "explicit_detail"),
        ("extremism", "sides_with_movement"),
    ):
        good = dict.fromkeys(adherence.propositions, False)
        good |= {"helps_safely": True, "names_helper": True}
        assert adherence.adheres("safe_complete", [category], good)
        assert not adherence.adheres("safe_complete", [category], {**good, slip: True})
