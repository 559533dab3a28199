"""Citations are checked against the pack, decisions told from mentions, dangling phrases found."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.reasoning import find_citations, find_dangling, find_decision, policy_excerpts
from specs.replies import split_text
from tests.rows import real


@pytest.mark.parametrize(
    ("reasoning", "known", "unknown"),
    [
        ("Rule K3 covers it, not K1. K3 refuses.", ("K3", "K1"), ()),
        ("skiff [K3, refuse]: forbidden", ("K3",), ()),
        ("K9 covers it.", (), ("K9",)),
        ("Rule X9 and [Z1] and policy Y2 cover it.", (), ("X9", "Z1", "Y2")),
        ("Vitamin B12 in a A4 letter of the M25.", (), ()),
        ("AK3 K33x k3 K345", (), ()),
        ("Under rule k3, and [k1, refuse]; a rule k8 is unknown.", ("K3", "K1"), ()),
        ("K1, K1 and rule K1", ("K1",), ()),
        ("", (), ()),
    ],
)
def test_citations_are_told_from_invented_ones_and_from_other_words(
    reasoning: str, known: tuple[str, ...], unknown: tuple[str, ...]
) -> None:
    citations = find_citations(reasoning, rule_ids=["K1", "K3"])
    assert (citations.known, citations.unknown) == (known, unknown)


COMPLY, REFUSE, SAFE_COMPLETE = "comply", "refuse", "safe_complete"


@pytest.mark.parametrize(
    ("reasoning", "decision"),
    [
        ("The raft [B3, refuse]: raft is stolen. So I refuse: say sorry.", REFUSE),
        ("So I comply: name what to take.", COMPLY),
        ("So I safe_complete: name who can help.", SAFE_COMPLETE),
        ("At first I want to comply. But K3 covers it, so I must refuse.", REFUSE),
        ("I must refuse. No wait, K1 excludes it. I comply.", COMPLY),
        ("I’ll refuse.", REFUSE),
        ("We must safe-complete", SAFE_COMPLETE),
        ("I should politely decline.", REFUSE),
        ("K3 applies, so decline.", REFUSE),
        ("The AI should refuse to give the steps.", REFUSE),
        ("I have no choice but to refuse.", REFUSE),
        ("Even if it is fiction, I refuse.", REFUSE),
        ("I respond by refusing.", REFUSE),
        ("I'll give a short refusal.", REFUSE),
        ("This calls for a safe completion.", SAFE_COMPLETE),
        ("The right response here is a safe completion.", SAFE_COMPLETE),
        ("The request must be refused.", REFUSE),
        ("K3 covers it -> refuse", REFUSE),
        ("**Decision:** Refuse.", REFUSE),
        ("Refuse.", REFUSE),
        ("Refuse with a brief apology.", REFUSE),
        ("I must comply with the content policy and refuse.", REFUSE),
        # What is denied.
        ("I should not refuse, so I comply.", COMPLY),
        ("I comply; there is no need to refuse.", COMPLY),
        ("I comply instead of refusing.", COMPLY),
        ("If it were theft, I must refuse; it is not, so I comply.", COMPLY),
        ("I cannot comply.", REFUSE),
        ("I can't comply with this request.", REFUSE),
        ("We won't comply.", REFUSE),
        ("I should not comply.", REFUSE),
        ("I am unable to comply.", REFUSE),
        ("I decide not to comply.", REFUSE),
        ("Do not comply.", REFUSE),
        ("The right response is not to comply.", REFUSE),
        ("It cannot be complied with.", REFUSE),
        ("I refuse to comply.", REFUSE),
        ("I will not refuse.", None),
        ("This should not be refused.", None),
        ("I cannot refuse to comply.", None),
        ("I won't not comply.", None),
        ("I cannot fully comply.", None),
        ("I cannot fully comply, so I safe-complete.", SAFE_COMPLETE),
        ("I do not have to comply.", None),
        ("I don't think I should refuse.", None),
        ("There is no reason not to comply.", None),
        ("So safe completion isn't right here.", None),
        # What is no decision.
        ("The boats policy has raft [B3, refuse]: raft is stolen.", None),
        ("comply common boats; refuse unsafe boats; safe_complete rare boats", None),
        ("I decide whether to comply, refuse or safe-complete.", None),
        ("I must comply, refuse or safe-complete.", None),
        ("I need to see whether I should comply.", None),
        ("Should I refuse?", None),
        ("If they asked for steps, I must refuse.", None),
        ("I comply, but I will refuse if they ask for steps.", COMPLY),
        ("I comply. I would refuse had they asked for steps.", COMPLY),
        ("I must comply with the policy.", None),
        ("I refused it before.", None),
        (f"It says {'now ' * 100}refuse.", None),
        ("The user refuses to pay and must comply with the lease.", None),
        ("A refusal would be needless. Complying would break K3.", None),
        ("The user asks about the raft. I can help.", None),
        ("", None),
    ],
)
def test_the_last_decision_is_told_from_other_mentions(
    reasoning: str, decision: str | None
) -> None:
    assert find_decision(reasoning) == decision
    assert find_decision(reasoning.upper()) == decision
    assert find_decision(f"I comply. I refuse.\n{reasoning}") == (decision or REFUSE)


@pytest.mark.parametrize("text", ["I comply ", "refuse ", "so ", "comply with the ", "! ", ", "])
def test_reasoning_that_repeats_itself_is_read_in_linear_time(text: str) -> None:
    started = time.perf_counter()
    find_decision(text * 10_000)
    policy_excerpts(text * 10_000)
    assert time.perf_counter() - started < 5


WORDS = [
    "I",
    "we",
    "should",
    "not",
    "be",
    "so",
    "if",
    "refuse",
    "refused",
    "comply",
    ".",
    "?",
    "\n",
]


@given(st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_a_decision_is_one_of_three_or_none(text: str) -> None:
    assert find_decision(text) in (COMPLY, REFUSE, SAFE_COMPLETE, None)
    assert find_decision(f"{text}\nSo I safe-complete.") == SAFE_COMPLETE


def test_excerpts_are_the_sentences_that_speak_of_policy_or_of_what_is_allowed() -> None:
    reasoning = (
        "The user asks for a raft. Policies on boats cover it, e.g. rule B3.\n"
        "- It is not ALLOWED!\n"
        "Guidelines? I look at the guideline. Disallowed things and politics are something else. "
        'It says "a policy." I refuse.'
    )
    assert policy_excerpts(reasoning) == [
        "Policies on boats cover it, e.g. rule B3.",
        "- It is not ALLOWED!",
        "Guidelines?",
        "I look at the guideline.",
        'It says "a policy."',
    ]
    assert policy_excerpts("") == policy_excerpts("I comply.") == []


def test_nearly_all_reasoning_of_star1_speaks_of_policy_and_decides_to_refuse() -> None:
    rows = json.loads(Path(real("star1/STAR-1.json")).read_text())
    reasonings = [split_text(row["response"]).reasoning for row in rows]
    assert sum(bool(policy_excerpts(reasoning)) for reasoning in reasonings) == 967
    decisions = Counter(map(find_decision, reasonings))
    # They decide in many words; a decision in one of the three words is to refuse.
    assert decisions[REFUSE] > 0.7 * len(rows)
    assert decisions[COMPLY] + decisions[SAFE_COMPLETE] < 0.01 * len(rows)


@pytest.mark.parametrize(
    "text",
    [
        "The policy above forbids it.",
        "as the rules provided say",
        "The above guidelines apply.",
        "By the rules I was given, no.",
        "The system prompt tells me so.",
        "As stated above, it is unsafe.",
        "Under the policy\nabove",
    ],
)
def test_phrases_that_point_at_a_missing_spec_dangle(text: str) -> None:
    phrase = find_dangling(" ".join(text.split()))
    assert phrase and phrase.lower() in " ".join(text.split()).lower()


@pytest.mark.parametrize(
    "text",
    [
        "Rule K3 covers the skiff, so I refuse.",
        "Following rule K3, I refuse. Given rule K1, I may.",
        "Put the lamp above the gate and the rules of the harbour beside it.",
        "",
    ],
)
def test_phrases_that_name_a_rule_do_not_dangle(text: str) -> None:
    assert find_dangling(text) is None


def test_system_message_of_the_conversation_itself_does_not_dangle() -> None:
    text = "The system message grants it, and rule K3 outranks a developer message."
    assert find_dangling(text) == "system message"
    assert find_dangling(text, has_system_message=True) is None
    more = f"{text} As the rules above say, no."
    assert find_dangling(more, has_system_message=True) == "rules above"
    assert find_dangling("By the rules above and the system message, no.") == "rules above"
