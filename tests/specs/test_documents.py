"""Documents have their subjects, their writer is shown the policy, and quotes are recognised."""

from dataclasses import replace

import pytest

from specs.documents import DocumentKind, Subject, is_quoting, subjects
from specs.policy import Outcome, Pack, Policy, Rule
from specs.prompts import document_messages
from specs.template import load_template

KINDS: list[DocumentKind] = ["explanation", "dialogue", "summary"]
FERRY = Rule(id="B1", title="The ferry", outcome=Outcome.REFUSE, text="Only the ferryman takes it.")
SKIFF = Rule(id="B2", title="The skiff", outcome=Outcome.COMPLY, text="It is for everybody.")


def town(*rules: Rule) -> Pack:
    policies = {"boats": rules, "fish": [replace(SKIFF, id="F1")]}
    return Pack(
        id="town",
        title="",
        version="1",
        principles="Be kind.",
        style={},
        policies={
            name: Policy(
                id=name,
                title="",
                version="1",
                summary={Outcome.COMPLY: name},
                terms=(("hull", "the shell of a boat"),),
                rules=tuple(own),
            )
            for name, own in policies.items()
        },
    )


def specs_of(pack: Pack) -> dict[tuple[str, str, str | None], str]:
    return {(one.policy.id, one.kind, one.rule_id): one.spec.id for one in subjects(pack, KINDS)}


def test_each_rule_is_explained_and_discussed_and_each_policy_summed_up() -> None:
    assert [(one.kind, one.rule_id) for one in subjects(town(FERRY, SKIFF), KINDS)] == [
        *(("explanation", rule.id) for rule in (FERRY, SKIFF)),
        *(("dialogue", rule.id) for rule in (FERRY, SKIFF)),
        ("summary", None),
        *(("explanation", "F1"), ("dialogue", "F1"), ("summary", None)),
    ]


def test_an_edited_rule_changes_what_is_shown_of_it_and_of_its_policy_alone() -> None:
    before = specs_of(town(FERRY, SKIFF))
    after = specs_of(town(FERRY, replace(SKIFF, text="It is for members.")))
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {
        ("boats", "explanation", SKIFF.id),
        ("boats", "dialogue", SKIFF.id),
        ("boats", "summary", None),
    }


def subject(kind: str, rule_id: str | None) -> Subject:
    about = subjects(town(FERRY, SKIFF), KINDS)
    return next(one for one in about if (one.kind, one.rule_id) == (kind, rule_id))


def test_writer_is_shown_the_rule_its_policy_and_the_kind() -> None:
    one = subject("dialogue", FERRY.id)
    messages = document_messages(load_template("document", "spec_first"), one)
    text = "\n".join(message["content"] for message in messages)
    assert FERRY.render() in text and SKIFF.render() not in text
    assert f"rule {FERRY.id} of policy boats" in text and one.wanted in text


@pytest.mark.parametrize(
    ("text", "quotes"),
    [
        (f"Rule {FERRY.id} is about trust.", True),
        (f"Rule {SKIFF.id} is about trust.", False),
        (f"Remember: {FERRY.text.upper()}", True),
        ("A hull is the shell of a boat.", True),
        ("Only the ferryman knows, and he takes it to bed.", False),
        ("", False),
    ],
)
def test_a_quote_is_the_id_of_the_rule_or_five_of_its_words(text: str, quotes: bool) -> None:
    assert is_quoting(text, subject("explanation", FERRY.id)) is quotes
