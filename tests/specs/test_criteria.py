"""Criteria: composed into a template, read line by line, and refused without anchors."""

import re
from pathlib import Path

import pytest

from specs.criteria import (
    check_criteria,
    forget_criteria,
    judging_form,
    judging_template,
    shipped_criteria,
)
from specs.policy import Spec
from specs.prompts import judge_messages
from specs.replies import VerdictStatus, read_verdict, split_text
from specs.template import TemplateError, check_templates, forget_templates, load_template

SPEC = Spec(categories=("boats",), detail="full", text="Row by day.", rule_ids=())
TONE = "Is the tone friendly?\n- 0: rude\n- 10: warm\n"
OK, UNREAD, OFF = VerdictStatus.OK, VerdictStatus.NO_VERDICT, VerdictStatus.OFF_SCALE


@pytest.fixture(autouse=True)
def afresh() -> None:
    forget_templates()
    forget_criteria()


def put(folder: Path, name: str, text: str) -> str:
    (folder / "criteria").mkdir(parents=True, exist_ok=True)
    (folder / "criteria" / f"{name}.md").write_text(text, encoding="utf-8")
    return str(folder)


def shown(names: str, *criteria: str) -> str:
    """What a judge is sent, as one text."""
    messages = judge_messages(
        judging_template(names, criteria),
        [{"role": "user", "content": "may i row"}],
        spec=SPEC,
        answer="Yes.",
        reasoning="By day.",
    )
    return "\n".join(message["content"] for message in messages)


def test_shipped_criteria_pass_the_check_and_have_anchors_of_their_own() -> None:
    check_criteria("spec_first")
    assert {"compliance", "citations", "reasoning", "helpfulness", "correctness"} == set(
        shipped_criteria()
    )
    everything = shown("spec_first", *shipped_criteria())
    assert everything.count("\n- 0: ") == everything.count("\n- 10: ") == 5


def test_judge_is_shown_the_criteria_of_the_recipe_alone_with_a_line_for_each() -> None:
    text = shown("spec_first", "reasoning", "compliance")
    assert "\nReasoning: N\nCompliance: N\n" in text + "\n"
    assert "Is the thinking sound?" in text and "Does the answer do what" in text
    assert "How useful" not in text and "{{" not in text
    assert (
        text.index("Row by day.") < text.index("Is the thinking sound?") < text.index("may i row")
    )


def test_without_criteria_the_template_of_the_judge_stays_as_it_is() -> None:
    assert judging_template("harbour", []) == load_template("judge", "harbour")


def test_id_is_the_text_of_template_and_criteria(tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", "tone", TONE)
    first = judging_template(folder, ["tone"])
    moved = put(tmp_path / "moved", "tone", TONE)
    assert judging_template(moved, ["tone"]).id == first.id
    edited = put(tmp_path / "edited", "tone", TONE.replace("rude", "hostile"))
    assert judging_template(edited, ["tone"]).id != first.id
    both = judging_template(folder, ["tone", "compliance"])
    assert both.id != judging_template(folder, ["compliance", "tone"]).id


def test_folder_of_ones_own_overrides_a_criterion_and_the_set_has_the_rest(tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", "compliance", TONE)
    check_templates(folder)
    text = shown(folder, "compliance", "correctness")
    assert "Is the tone friendly?" in text and "Is what the answer says true?" in text
    assert "Does the answer do what" not in text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Is it friendly?\n- 0: rude\n", "no anchor says what a score of 10 means; add a line"),
        ("Is it friendly?\n", "no anchor says what a score of 0 or 10 means; add a line such as"),
        ("", "no anchor says what a score of 0 or 10 means"),
        (f"{TONE}- 11: sweet\n", "tone.md:4: 11 is off the scale; use 0 to 10"),
        (f"{TONE}- 5:\n", "tone.md:4: the anchor of 5 says nothing"),
        (f"{TONE}- 10: kind\n", "tone.md:4: line 3 has an anchor of 10 already"),
        (f"{{{{answer}}}}\n{TONE}", "tone.md:1: '{{answer}}' would be structure"),
        (f"=== user ===\n{TONE}", "tone.md:1: '=== user ===' would be structure"),
    ],
)
def test_criterion_without_usable_anchors_is_refused_in_one_sentence(
    tmp_path: Path, text: str, fault: str
) -> None:
    folder = put(tmp_path / "mine", "tone", text)
    for check in (check_criteria, lambda names: judging_template(names, ["tone"])):
        with pytest.raises(TemplateError, match=re.escape(fault)) as refusal:
            check(folder)
        assert "\n" not in str(refusal.value)


def test_unknown_criterion_is_refused_with_the_names_of_the_others(tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", "tone", TONE)
    with pytest.raises(TemplateError, match=r"no criterion 'tune': take one of .*, tone, or write"):
        judging_template(folder, ["tune"])
    with pytest.raises(TemplateError, match=r"no criterion '\.\./tone'"):
        judging_template(folder, ["../tone"])


def test_name_that_no_line_can_bear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="'Fair tone' cannot name a criterion; use small"):
        check_criteria(put(tmp_path / "mine", "Fair tone", TONE))


@pytest.mark.parametrize(
    ("answer", "status", "scores"),
    [
        ("Good.\nCompliance: 9\nReasoning: 7", OK, {"compliance": 9.0, "reasoning": 7.0}),
        ("**Reasoning:** 7/10\n\n**Compliance:** 9.", OK, {"compliance": 9.0, "reasoning": 7.0}),
        ("Compliance: 9", UNREAD, {}),
        ("Reasoning: 7\nCompliance: 9\nScore: 7", UNREAD, {}),
        ("Compliance: 9\nCompliance: 9", UNREAD, {}),
        ("Compliance: 3\nSo:\nCompliance: 9\nReasoning: 7", UNREAD, {}),
        ("Compliance: 9\nReasoning: high", UNREAD, {}),
        ("Compliance: 9\nReasoning: 11", OFF, {}),
        ("Score: 9", UNREAD, {}),
    ],
)
def test_each_criterion_has_its_own_strict_line_and_the_lowest_counts(
    answer: str, status: VerdictStatus, scores: dict[str, float]
) -> None:
    verdict = read_verdict(
        split_text(f"<think>I look.</think>{answer}"), ["compliance", "reasoning"]
    )
    assert verdict.status is status
    assert verdict.criteria == scores
    assert verdict.score == min(scores.values(), default=None)


def test_what_an_engine_is_held_to_can_be_read() -> None:
    criteria = ["compliance", "citations"]
    pattern = re.compile(judging_form(criteria, max_tokens=64).pattern("any"))
    reply = "It is so.\nCompliance: 10\nCitations: 8/10"
    assert pattern.fullmatch(reply) and not pattern.fullmatch("It is so.\nCompliance: 10")
    assert read_verdict(split_text(f"<think>a</think>{reply}"), criteria).score == 8.0
