"""Rules that claim one prompt together, or none, are told with the prompts that show it."""

from pathlib import Path

import pytest

from specs.claims import Doubt, Trial, find_doubts
from specs.pack import load_pack
from specs.policy import Pack
from tests.specs.town import BOATS, write_pack

B1 = "The skiff is safe by rule B1. So I comply."
B2 = "The raft leaks by rule B2. So I refuse."
B3 = "The dory is safe by rule B3. So I comply."
NONE = "The user asks about a kite. So I comply."


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    dory = BOATS.replace("# Style", "## B3 Dory (comply)\n\nIt is safe.\n\n# Style")
    return load_pack(write_pack(tmp_path, boats=dory))


def trial(*reasonings: str, **changes: str) -> Trial:
    fields = {"category": "boats", "prompt": "May I row?", **changes}
    return Trial(**fields, reasonings=reasonings)  # type: ignore[arg-type]


def told(found: list[Doubt]) -> list[tuple[str, tuple[str, ...]]]:
    return [(doubt.kind, doubt.rules) for doubt in found]


def test_two_rules_of_different_outcomes_that_claim_a_prompt_conflict(pack: Pack) -> None:
    [doubt] = find_doubts(pack, [trial(B1, B2, B1, B2)])
    assert told([doubt]) == [("conflict", ("B1", "B2"))]
    assert (doubt.weight, doubt.prompts) == (0.5, ("May I row?",))
    assert doubt.text == "rules B1 (comply) and B2 (refuse) claim the same prompts"


def test_two_rules_of_one_outcome_that_claim_a_prompt_overlap(pack: Pack) -> None:
    assert told(find_doubts(pack, [trial(B1, B3, B3, B3)])) == [("overlap", ("B1", "B3"))]


def test_one_slip_of_many_samples_is_no_claim(pack: Pack) -> None:
    assert find_doubts(pack, [trial(B1, B1, B1, B1, B2)]) == []


def test_a_prompt_that_no_rule_claims_is_a_gap(pack: Pack) -> None:
    assert told(find_doubts(pack, [trial(NONE, NONE, B1, B1)])) == [("gap", ())]


def test_an_outcome_that_is_not_the_case_is_against_it(pack: Pack) -> None:
    [doubt] = find_doubts(pack, [trial(B2, B2, expected="comply", rule_id="B2")])
    assert told([doubt]) == [("against", ("B2",))]
    assert doubt.text == "by rule B2 the outcome is refuse, where comply is expected"


def test_a_rule_that_none_of_its_cases_cites_is_idle(pack: Pack) -> None:
    found = find_doubts(pack, [trial(B1, B1, rule_id="B3")])
    assert told(found) == [("idle", ("B3",))]


def test_a_rule_is_idle_only_if_enough_prompts_were_asked(pack: Pack) -> None:
    few = [trial(B1), trial(B3)]
    assert find_doubts(pack, few) == []
    assert told(find_doubts(pack, few * 8)) == [("idle", ("B2",))]


def test_a_cited_rule_counts_that_has_the_outcome_decided_on(pack: Pack) -> None:
    both = "Rule B1 would have it safe, and rule B2 covers leaks. So I comply."
    assert told(find_doubts(pack, [trial(both, both, rule_id="B2")])) == [("idle", ("B2",))]


def test_guide_rules_claim_beside_others_and_conflict_with_none(tmp_path: Path) -> None:
    guides = "## B3 Tone (guide)\n\nBe kind.\n\n## B4 Length (guide)\n\nBe brief.\n\n# Style"
    pack = load_pack(write_pack(tmp_path, boats=BOATS.replace("# Style", guides)))
    kind = f"By rule B3 I am kind. {B1}"
    short = f"By rule B3 I am kind, by rule B4 brief. {B1}"
    assert find_doubts(pack, [trial(kind, short)]) == []
    assert told(find_doubts(pack, [trial(kind, rule_id="B4")])) == [("idle", ("B4",))]


def test_conflicts_come_first_and_the_weightiest_before_others(pack: Pack) -> None:
    trials = [
        trial(B1, B3, B3, B3),
        trial(NONE, NONE),
        trial(B2, B2, B2, B3, prompt="May I float?"),
        trial(B1, B2, prompt="May I row home?"),
    ]
    assert told(find_doubts(pack, trials)) == [
        ("conflict", ("B1", "B2")),
        ("conflict", ("B2", "B3")),
        ("gap", ()),
        ("overlap", ("B1", "B3")),
    ]
