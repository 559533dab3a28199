"""Findings name file, line and remedy; the packs that ship have none that their authors deny."""

from dataclasses import replace
from pathlib import Path

import pytest

from specs.lint import Budgets, Finding, lint
from specs.pack import load_pack
from specs.places import Places
from specs.policy import Exclusion
from specs.wording import mentions, stems, vague_words
from tests.specs.town import BOATS, FISH, STYLE, write_pack

SHIPPED = Path(__file__).parents[2] / "specs"
CLEAN = {
    "boats": BOATS.replace("It leaks.\n", "Its hull leaks.\n\n- Case: may I raft home -> refuse\n"),
    "fish": FISH + "\n- Case: where is cod sold -> safe_complete\n",
}


def findings_of(folder: Path, former: list[str] | None = None, **changes: str) -> list[Finding]:
    """Returns the findings of the small pack with other texts of its files."""
    write_pack(folder, **{**CLEAN, **changes})
    return lint(load_pack(folder), Places.of(folder), former=former or [])


def boats(old: str, new: str) -> str:
    assert old in CLEAN["boats"]
    return CLEAN["boats"].replace(old, new)


def test_a_pack_in_order_has_no_findings(tmp_path: Path) -> None:
    assert findings_of(tmp_path) == []


def test_the_pack_of_the_scale_model_has_no_findings() -> None:
    folder = SHIPPED / "harbour"
    assert lint(load_pack(folder), Places.of(folder)) == []


PLANTED = {
    "an outcome that the summary does not tell": (
        "## B2 Raft (refuse)",
        "## B2 Raft (safe_complete)",
        "boats.md:24: rule B2 is safe_complete, of which the summary says nothing",
    ),
    "an outcome that no rule has": (
        "comply: sound boats\n",
        "comply: sound boats\nsafe_complete: boats of others\n",
        "boats.md:6: the summary says what to safe-complete, and no rule of boats does so",
    ),
    "a summary of something else": (
        "refuse: leaking boats",
        "refuse: forged letters of credit",
        "boats.md:6: few words of the summary's 'refuse' are in the rules with that outcome",
    ),
    "a summary that rules deny": (
        "comply: sound boats",
        "comply: safe boats, raft",
        "boats.md:5: the summary puts 'raft' under comply, and rule B2 (refuse) is about it",
    ),
    "a rule without a case": (
        "- Case: may I raft home -> refuse\n",
        "",
        "boats.md:24: rule B2 has no case",
    ),
    "a case of another outcome": (
        "raft home -> refuse",
        "raft home -> comply",
        "boats.md:28: a case of rule B2 (refuse) is comply",
    ),
    "a term that is never used": (
        "Its hull leaks",
        "It leaks",
        "boats.md:11: term 'hull' is never used",
    ),
    "a term that nothing defines": (
        "Its hull leaks",
        "Its hull leaks at the **bilge keel**",
        "boats.md:26: rule B2 marks 'bilge keel' as a term, which nothing defines",
    ),
    "a vague word": (
        "on a calm day",
        "where appropriate",
        "boats.md:18: rule B1 says 'where appropriate', which does not say when it fits",
    ),
    "an equal title": (
        "## B2 Raft",
        "## B2 Skiff",
        "boats.md:24: rules B1 and B2 have the same title",
    ),
    "a case told twice": (
        "may I raft home -> refuse",
        "may I row -> refuse",
        "boats.md:28: a case of rule B2 is nearly that of rule B1, which is comply and not refuse",
    ),
    "an exclusion that comes back": (
        "- Case: may I raft home",
        "- Excludes: rowing at night -> B1\n- Case: may I raft home",
        "boats.md:21: an exclusion leads in a circle: B1 -> B2 -> B1",
    ),
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=list(PLANTED))
def test_each_planted_fault_is_told_with_its_line(
    tmp_path: Path, plant: tuple[str, str, str]
) -> None:
    old, new, told = plant
    found = findings_of(tmp_path, boats=boats(old, new))
    assert any(str(one).startswith(f"{tmp_path}/{told}; ") for one in found), found


def test_length_outside_of_its_budget_is_told(tmp_path: Path) -> None:
    write_pack(tmp_path, **CLEAN)
    pack, places = load_pack(tmp_path), Places.of(tmp_path)
    found = lint(pack, places, budgets=Budgets(full=(1, 20), summary=(10, 150)))
    assert [(one.place.path.name, one.place.line, one.kind) for one in found] == [
        ("boats.md", 2, "budget"),
        ("boats.md", 5, "budget"),
        ("fish.md", 5, "budget"),
    ]
    assert "over 20" in found[0].text and "under 10" in found[1].text


def test_a_rule_that_changed_under_the_same_version_is_told(tmp_path: Path) -> None:
    write_pack(tmp_path, **CLEAN)
    former = [load_pack(tmp_path).spec(["boats"]).text]
    assert findings_of(tmp_path, former) == []
    [found] = findings_of(tmp_path, former, boats=boats("leaks.", "sinks."))
    assert (found.place.line, found.kind) == (24, "version")


@pytest.mark.parametrize("ending", ["B2", "(see B2)", "=> B2", "rule B2.", "- B2"])
def test_a_rule_id_without_an_arrow_is_told(tmp_path: Path, ending: str) -> None:
    write_pack(tmp_path, **CLEAN)
    pack, places = load_pack(tmp_path), Places.of(tmp_path)
    [skiff, raft] = pack.policies["boats"].rules
    unarrowed = Exclusion(text=f"rowing at night {ending}", goto=None)
    rules = (replace(skiff, excludes=(unarrowed,)), raft)
    policies = {**pack.policies, "boats": replace(pack.policies["boats"], rules=rules)}
    [found] = lint(replace(pack, policies=policies), places)
    assert "an exclusion of rule B1 ends in 'B2' without an arrow" in found.text
    assert found.remedy == "write '-> B2'"


def test_exclusions_of_different_things_are_no_circle(tmp_path: Path) -> None:
    back = "- Excludes: a raft that is towed by day -> B1\n- Case: may I raft"
    assert findings_of(tmp_path, boats=boats("- Case: may I raft", back)) == []


def test_an_exclusion_to_a_rule_of_its_outcome_explains_a_case(tmp_path: Path) -> None:
    case = boats("may I row -> comply", "may I row home by night -> refuse")
    assert findings_of(tmp_path, boats=case) == []


def test_short_rules_of_two_policies_may_say_the_same(tmp_path: Path) -> None:
    same = CLEAN["fish"].replace("Send them to the weaver.", "Its hull leaks.")
    assert findings_of(tmp_path, fish=same) == []
    long = "Tell them that the weaver of the town knows where to find one."
    told = {
        "fish": CLEAN["fish"].replace("Send them to the weaver.", long),
        "boats": boats("Its hull leaks.", f"{long} Its hull."),
    }
    assert [one.kind for one in findings_of(tmp_path, **told)] == ["duplicate"]


def test_style_of_the_pack_is_no_policy(tmp_path: Path) -> None:
    assert findings_of(tmp_path, style=STYLE.replace("Say sorry.", "Say what is **fit**.")) == []


def test_bold_headings_and_the_stress_of_a_policy_without_terms_are_no_terms(
    tmp_path: Path,
) -> None:
    headings = "**Bilges.** Its hull leaks.\n\n1. **Deck**: dry\n2. *Oars*\n\n**Sails**\n"
    assert findings_of(tmp_path, boats=boats("Its hull leaks.\n", headings)) == []
    stress = CLEAN["fish"].replace("Send them to the weaver.", "Send them to the **weaver**.")
    assert findings_of(tmp_path, fish=stress) == []


def test_a_pack_without_spaces_between_words_has_no_findings(tmp_path: Path) -> None:
    chinese = """---
id: boats
title: 船只
version: 1
comply: 租用安全的船只
refuse: 漏水的船，偷船的方法
---

# Terms

- **船体**: 船的外壳

# Rules

## B1 安全的船只 (comply)

说明如何租用安全的船只，船体必须完好。

- Case: 晴天可以租船吗？ -> comply

## B2 漏水或偷来的船 (refuse)

不帮助任何人使用漏水的船只，也不说明偷船的方法。

- Case: 怎样偷走港口里的船？ -> refuse
"""
    assert findings_of(tmp_path, boats=chinese) == []
    unused = chinese.replace("，船体必须完好", "")
    assert [one.kind for one in findings_of(tmp_path, boats=unused)] == ["term"]


def test_a_line_of_code_is_no_heading_of_a_rule(tmp_path: Path) -> None:
    edited = boats("It is safe\n", "```\n## B2 Raft (refuse)\n```\n\nIt is safe\n")
    edited = edited.replace("- Case: may I raft home -> refuse\n", "")
    [found] = findings_of(tmp_path, boats=edited)
    lines = edited.split("\n")
    assert lines[found.place.line - 1 :][:3] == ["## B2 Raft (refuse)", "", "Its hull leaks."]


def test_a_circle_is_told_once(tmp_path: Path) -> None:
    back = "- Excludes: rowing at night -> B1\n- Case: may I raft home"
    found = findings_of(tmp_path, boats=boats("- Case: may I raft home", back))
    assert [one.kind for one in found] == ["exclusion"]


def test_words_are_told_by_their_stems() -> None:
    assert stems("what a late return costs") == {"late", "retur", "cost"}
    assert mentions("An admission of their intents", "intent")
    assert not mentions("An admission", "admission of intent")
    assert [one.word for one in vague_words('Where appropriate; "reasonable" is quoted.')] == [
        "where appropriate"
    ]
