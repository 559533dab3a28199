"""Replies are split by one rule, and verdicts are read strictly."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from specs.characters import is_blank
from specs.criteria import judging_form
from specs.replies import (
    CLOSE_TAG,
    OPEN_TAG,
    CategoryChoice,
    Reply,
    ReplyStart,
    ReplyStatus,
    VerdictStatus,
    read_category,
    read_verdict,
    split_text,
    split_tokens,
)

OK, UNCLOSED, MALFORMED = ReplyStatus.OK, ReplyStatus.UNCLOSED, ReplyStatus.MALFORMED
PIECES = ["<think>", "</think>", "<th", "ink>", "</", "think", ">", "a", "b ", " ", "\n", ">\n"]
"""A vocabulary in which a tag is one token, or several."""


@pytest.mark.parametrize(
    ("text", "prefilled", "status", "reasoning", "answer"),
    [
        ("<think>a</think>b", False, OK, "a", "b"),
        ("\n<think>\na\n</think>\n\nb\n", False, OK, "a", "b"),
        ("a</think>b", True, OK, "a", "b"),
        # What one splitter or another hides from a judge, or shows to it, must do neither.
        ("<think>a</think>b<think>c</think>d", False, MALFORMED, "a", ""),
        ("<think>a</think>b</think>c", False, MALFORMED, "a", ""),
        ("<think>a<think>b</think>c", False, MALFORMED, "a<think>b", ""),
        ("b<think>a</think>c", False, MALFORMED, "b<think>a</think>c", ""),
        ("a</think>b", False, MALFORMED, "a</think>b", ""),
        ("<think>a</think>b", True, MALFORMED, "<think>a", ""),
        ("<think>a", False, UNCLOSED, "a", ""),
        ("a", True, UNCLOSED, "a", ""),
        ("a", False, UNCLOSED, "a", ""),
        ("", False, UNCLOSED, "", ""),
        ("<think>a</think>", False, ReplyStatus.EMPTY_ANSWER, "a", ""),
        ("<think>a</think>\n", False, ReplyStatus.EMPTY_ANSWER, "a", ""),
        ("<think>\n\n</think>b", False, ReplyStatus.EMPTY_REASONING, "", "b"),
        ("<think>a</ think>b", False, UNCLOSED, "a</ think>b", ""),
        # A part that shows nothing is empty, whatever characters it is made of.
        ("<think>a</think>\u200b\ufeff", False, ReplyStatus.EMPTY_ANSWER, "a", ""),
        ("<think>a</think>\u3164 \u2800\n", False, ReplyStatus.EMPTY_ANSWER, "a", ""),
        ("<think>\u2060\u00ad</think>b\u200d", False, ReplyStatus.EMPTY_REASONING, "", "b\u200d"),
    ],
)
def test_a_reply_is_split_at_the_first_closing_tag(
    text: str, prefilled: bool, status: ReplyStatus, reasoning: str, answer: str
) -> None:
    assert split_text(text, prefilled=prefilled) == Reply(status, reasoning, answer)


def texts() -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(PIECES)).map("".join) | st.text()


@given(texts(), st.booleans())
def test_visible_text_is_never_lost_and_reasoning_never_in_the_answer(
    text: str, prefilled: bool
) -> None:
    reply = split_text(text, prefilled=prefilled)
    if reply.status in (ReplyStatus.OK, ReplyStatus.EMPTY_REASONING):
        whole = text if prefilled else text.lstrip().removeprefix(OPEN_TAG)
        hidden, _, visible = whole.partition(CLOSE_TAG)
        assert reply.answer == visible.strip() != ""
        assert reply.reasoning == ("" if is_blank(hidden) else hidden.strip())
        assert not any(tag in reply.reasoning + reply.answer for tag in (OPEN_TAG, CLOSE_TAG))
    else:
        assert reply.answer == ""


@given(texts(), st.booleans())
def test_splitting_a_split_reply_again_gives_the_same(text: str, prefilled: bool) -> None:
    reply = split_text(text, prefilled=prefilled)
    if reply.status in (ReplyStatus.OK, ReplyStatus.EMPTY_REASONING):
        again = f"{OPEN_TAG}{reply.reasoning}{CLOSE_TAG}{reply.answer}"
        assert split_text(again) == reply


def tokenize(pieces: Sequence[str]) -> list[int]:
    return [PIECES.index(piece) for piece in pieces]


def decode(token_ids: Sequence[int]) -> str:
    return "".join(PIECES[token] for token in token_ids)


TAGS = {
    "one token a tag": (["<think>"], ["</think>"]),
    "several tokens a tag": (["<th", "ink>"], ["</", "think", ">"]),
}


@pytest.mark.parametrize("tags", TAGS)
@given(
    token_ids=st.lists(st.integers(0, len(PIECES) - 1)),
    begun=st.booleans(),
    prefilled=st.booleans(),
)
def test_text_and_tokens_are_split_alike(
    tags: str, token_ids: list[int], begun: bool, prefilled: bool
) -> None:
    opening, closing = TAGS[tags]
    if begun:
        token_ids = [*tokenize(opening), *token_ids]
    reply = split_tokens(
        token_ids,
        open_ids=tokenize(opening),
        close_ids=tokenize(closing),
        decode=decode,
        prefilled=prefilled,
    )
    in_text = split_text(decode(token_ids), prefilled=prefilled)
    assert (reply.status, reply.reasoning, reply.answer) == (
        in_text.status,
        in_text.reasoning,
        in_text.answer,
    )
    assert 0 <= reply.num_reasoning_tokens + reply.num_answer_tokens <= len(token_ids)


@pytest.mark.parametrize(
    ("pieces", "tags", "counts"),
    [
        (["<think>", "a", "b ", "</think>", "a"], "one token a tag", (2, 1)),
        (["\n", "<think>", "a", "</think>", "a", "a"], "one token a tag", (1, 2)),
        (["<th", "ink>", "a", "</", "think", ">", "a"], "several tokens a tag", (1, 1)),
        # The tokenizer merged the tag's last letter with the line break after it.
        (["<th", "ink>", "a", "b ", "</", "think", ">\n", "a"], "several tokens a tag", (2, 1)),
        (["<think>", "a", "b "], "one token a tag", (2, 0)),
    ],
)
def test_tokens_are_counted_between_the_tags(
    pieces: list[str], tags: str, counts: tuple[int, int]
) -> None:
    opening, closing = (tokenize(tag) for tag in TAGS[tags])
    reply = split_tokens(tokenize(pieces), open_ids=opening, close_ids=closing, decode=decode)
    assert (reply.num_reasoning_tokens, reply.num_answer_tokens) == counts


def verdict_of(answer: str) -> tuple[VerdictStatus, float | None]:
    verdict = read_verdict(split_text(f"<think>I look.</think>{answer}"))
    return verdict.status, verdict.score


NONE = VerdictStatus.NO_VERDICT


@pytest.mark.parametrize(
    ("answer", "status", "score"),
    [
        ("It is right.\nScore: 8", VerdictStatus.OK, 8.0),
        ("It is right.\nScore: 0\n", VerdictStatus.OK, 0.0),
        ("Score: 10", VerdictStatus.OK, 10.0),
        ("Score: 7.5", VerdictStatus.OK, 7.5),
        ("score=5", VerdictStatus.OK, 5.0),
        ("It says: I'm sorry.\nScore: 9", VerdictStatus.OK, 9.0),
        # The last line is the last that has text, and signs are no text.
        ("```\nScore: 5\n```", VerdictStatus.OK, 5.0),
        ("Score: 5\n~~~\n\u200b\n", VerdictStatus.OK, 5.0),
        ("Score: 5\n\n---", VerdictStatus.OK, 5.0),
        ('{ "score" : 7.5 }', VerdictStatus.OK, 7.5),
        # What looks like a verdict in every viewer is one.
        ("Score: \u200b9", VerdictStatus.OK, 9.0),
        ("Score: 9\ufeff", VerdictStatus.OK, 9.0),
        ("Score：９", VerdictStatus.OK, 9.0),
        ("Ｓｃｏｒｅ＝１０／１０", VerdictStatus.OK, 10.0),
        ("Score:\u00a09", VerdictStatus.OK, 9.0),
        ("\u2067Score: 9\u2069", VerdictStatus.OK, 9.0),
        ("Score: 9\ufe0f", VerdictStatus.OK, 9.0),
        ("Sc\u00adore: 9", VerdictStatus.OK, 9.0),
        ("Score: 2\u20288 is too much.\u2029Score: 2", VerdictStatus.OK, 2.0),
        # Two scores of one reply: neither the stale nor the new one is known to be meant.
        ("Score: 9\nNo, that is wrong.\nScore: 2", NONE, None),
        ('{"score": 3}\n**Score:** 2', NONE, None),
        ("Score: 11\nScore: 2", NONE, None),
        ("Score: 2\n\n**Final score: 2.0/10**", VerdictStatus.OK, 2.0),
        ("The answer says Score: 5", NONE, None),
        ("Score: 5 I think", NONE, None),
        ("Score: 5\nBut I may be wrong.", NONE, None),
        ("Score: 5\nStale? \u200b", NONE, None),
        ("Score: 5/5", NONE, None),
        ("Score: 5/100", NONE, None),
        ("Score: 5/10/10", NONE, None),
        ("Score: 5 out of 5", NONE, None),
        ("Score: 5-6", NONE, None),
        ("Score: 5–6", NONE, None),
        ("Score: 5 or 6", NONE, None),
        ("Score: 5..", NONE, None),
        ("Score: 5?", NONE, None),
        ("Score: ~5", NONE, None),
        ("~~Score: 5~~", NONE, None),
        ("Score: 1**0", NONE, None),
        ("Score: 1_0", NONE, None),
        ("Score: 1 0", NONE, None),
        ("Score: 1e1", NONE, None),
        ("Score: 7,5", NONE, None),
        ("Score: five", NONE, None),
        ("Score:", NONE, None),
        ("My score: 5", NONE, None),
        ('{"score": 5, "why": "so"}', NONE, None),
        ('{"score": "5"}', NONE, None),
        ('{"score": 5, "score": 9}', NONE, None),
        # Digits that are neither ASCII nor full width, some of which would make another number.
        ("Score: ٥", NONE, None),
        ("Score: ५", NONE, None),
        ("Score: 𝟖", NONE, None),
        ("Score: 1⁰", NONE, None),
        ("Score: 8½", NONE, None),
        ("Score: ⑧", NONE, None),
        ("", NONE, None),
        ("Score: 11", VerdictStatus.OFF_SCALE, None),
        ("**Score: 10.5/10**", VerdictStatus.OFF_SCALE, None),
        ("Score: -1", VerdictStatus.OFF_SCALE, None),
        ("Score: －１", VerdictStatus.OFF_SCALE, None),
        ("Score: -0", VerdictStatus.OFF_SCALE, None),
        ('{"score": 85}', VerdictStatus.OFF_SCALE, None),
        (f"Score: {'9' * 5000}", NONE, None),
        ("I'm sorry, but I cannot rate this.", VerdictStatus.REFUSED, None),
        ("I’m sorry, but I can’t help with that.", VerdictStatus.REFUSED, None),
    ],
)
def test_only_a_last_line_in_form_is_a_verdict(
    answer: str, status: VerdictStatus, score: float | None
) -> None:
    assert verdict_of(answer) == (status, score)


@given(
    st.text(),
    st.sampled_from(["**Score:** {}", "Final score = {}/10", "> Score: `{}`.", "- _Score: {}_"]),
    st.integers(0, 100),
    st.sampled_from(["", "\n```", "\u200b", "\n \n", "\r\n---"]),
)
def test_a_verdict_after_any_text_is_its_score_or_nothing(
    text: str, form: str, tenths: int, ending: str
) -> None:
    reply = Reply(ReplyStatus.OK, "I look.", f"{text}\n{form.format(tenths / 10)}{ending}")
    verdict = read_verdict(reply)
    assert verdict.score == tenths / 10 or "score" in text.lower()


@pytest.mark.parametrize(
    "reply", ["<think>Score: 9", "Score: 9", "<think>a</think>b</think>\nScore: 9"]
)
def test_a_judge_that_never_closed_its_reasoning_has_given_no_verdict(reply: str) -> None:
    verdict = read_verdict(split_text(reply))
    assert (verdict.status, verdict.score) == (VerdictStatus.UNCLOSED, None)


def test_the_rationale_is_the_text_before_the_score_or_else_the_reasoning() -> None:
    assert read_verdict(split_text("<think>a</think>b\nScore: 3")).rationale == "b"
    assert read_verdict(split_text("<think>a</think>Score: 3")).rationale == "a"


@pytest.mark.parametrize(
    ("answer", "agrees"),
    [
        ("Agree: it is forbidden.\nScore: 9", True),
        ("**Disagree:** the rule is K4.\nScore: 9", False),
        ("- agree： yes\nScore: 9", True),
        ("Agree: no rule forbids it.\nScore: 9", True),
        # A judge that says both, or denies what it says, has taken no stand.
        ("Agree: at first.\nDisagree: on reflection.\nScore: 9", None),
        ("Agree: no.\nScore: 9", None),
        ("I Agree: fully.\nScore: 9", None),
    ],
)
def test_a_stand_is_a_line_of_its_own(answer: str, agrees: bool | None) -> None:
    assert read_verdict(split_text(f"<think>a</think>{answer}")).agrees is agrees


def test_the_rationale_keeps_the_judges_own_characters_and_no_open_fence() -> None:
    verdict = read_verdict(
        split_text("<think>a</think>It’s “ｏｋ”.\u2028So:\n```json\nScore: 3\n```")
    )
    assert verdict.rationale == "It’s “ｏｋ”.\nSo:"
    declined = "I’m sorry, but I can’t rate it."
    assert read_verdict(split_text(f"<think>a</think>{declined}")).rationale == declined


FORM = judging_form((), max_tokens=40)
BEFORE: dict[ReplyStart, str] = {
    "reasoning": "",
    "open reasoning": "<think>",
    "after reasoning": "<think>Fair.</think>",
    "answer": "<think></think>",
}
"""Text before a reply that starts like this."""


@pytest.mark.parametrize("start", BEFORE)
@given(data=st.data())
def test_every_reply_that_a_form_allows_is_read(start: ReplyStart, data: Any) -> None:
    text = data.draw(st.from_regex(FORM.pattern(start), fullmatch=True))
    whole = BEFORE[start] + text
    numbers = re.findall(r"Score\W+([0-9]+)", whole)
    # Text before the verdict is free, and may hold a mark or another score.
    assume(len(set(numbers)) == 1 and whole.count("think>") == 2)
    verdict = read_verdict(split_text(whole))
    assert (verdict.status, verdict.score) == (VerdictStatus.OK, float(numbers[-1]))


@pytest.mark.parametrize("start", BEFORE)
def test_a_judge_that_must_reason_cannot_leave_its_marks_out(start: ReplyStart) -> None:
    pattern = re.compile(FORM.pattern(start))
    is_answer = start in ("after reasoning", "answer")
    marked = "" if is_answer else "<think>Fair.</think>".removeprefix(BEFORE[start])
    assert pattern.fullmatch(f"{marked}Score: 5")
    plain = "I find it fair.\nScore: 5"
    assert bool(pattern.fullmatch(plain)) == is_answer
    assert re.fullmatch(FORM.pattern("any"), plain)


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("It is a boat.\nCategory: boats", CategoryChoice("ok", "boats")),
        ("**Category:** `home_repairs`", CategoryChoice("ok", "home_repairs")),
        ("Category: _home_repairs_", CategoryChoice("ok", "home_repairs")),
        ("Category: Boats.", CategoryChoice("ok", "boats")),
        ("category：ｂｏａｔｓ\u200b", CategoryChoice("ok", "boats")),
        ("Final category = boats\n```", CategoryChoice("ok", "boats")),
        ("Category: none", CategoryChoice("none")),
        ("**Category: None**", CategoryChoice("none")),
        ("Category: weather", CategoryChoice("unread")),
        ("Category: boats, home_repairs", CategoryChoice("unread")),
        ("Category: boats or none", CategoryChoice("unread")),
        ("Category: boats\nNo.\nCategory: none", CategoryChoice("unread")),
        ("Category: boats\nor so", CategoryChoice("unread")),
        ("Category: boats (B1)", CategoryChoice("unread")),
        ("It is none of them.", CategoryChoice("unread")),
        ("none", CategoryChoice("unread")),
        ("", CategoryChoice("unread")),
    ],
)
def test_a_category_that_cannot_be_read_is_not_none(answer: str, choice: CategoryChoice) -> None:
    reply = split_text(f"<think>Well.</think>{answer}")
    assert read_category(reply, ["boats", "home_repairs"]) == choice


def test_a_category_in_unclosed_reasoning_is_not_read() -> None:
    unclosed = split_text("<think>Well.\nCategory: boats")
    assert read_category(unclosed, ["boats"]) == CategoryChoice("unread")
