"""Replies are split by one rule, and verdicts are read strictly."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.replies import (
    CLOSE_TAG,
    OPEN_TAG,
    VERDICT_REGEX,
    Reply,
    ReplyStatus,
    VerdictStatus,
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
        assert reply.reasoning == hidden.strip()
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


@pytest.mark.parametrize(
    ("answer", "status", "score"),
    [
        ("It is right.\nScore: 8", VerdictStatus.OK, 8.0),
        ("It is right.\nScore: 0\n", VerdictStatus.OK, 0.0),
        ("Score: 10", VerdictStatus.OK, 10.0),
        ("Score: 9\nNo, that is wrong.\nScore: 2", VerdictStatus.OK, 2.0),
        ("The answer says Score: 5", VerdictStatus.NO_VERDICT, None),
        ("Score: 5 I think", VerdictStatus.NO_VERDICT, None),
        ("Score: 5\nBut I may be wrong.", VerdictStatus.NO_VERDICT, None),
        ("score: 5", VerdictStatus.NO_VERDICT, None),
        ("Score: 5/10", VerdictStatus.NO_VERDICT, None),
        ("Score: 7.5", VerdictStatus.NO_VERDICT, None),
        ("Score: ٥", VerdictStatus.NO_VERDICT, None),
        ("Score: five", VerdictStatus.NO_VERDICT, None),
        ("**Score: 5**", VerdictStatus.NO_VERDICT, None),
        ("", VerdictStatus.NO_VERDICT, None),
        ("Score: 11", VerdictStatus.OFF_SCALE, None),
        ("Score: -1", VerdictStatus.OFF_SCALE, None),
        ("I'm sorry, but I cannot rate this.", VerdictStatus.REFUSED, None),
        ("It says: I'm sorry.\nScore: 9", VerdictStatus.OK, 9.0),
    ],
)
def test_only_a_last_line_in_form_is_a_verdict(
    answer: str, status: VerdictStatus, score: float | None
) -> None:
    assert verdict_of(answer) == (status, score)


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
        ("Agree: at first.\nDisagree: on reflection.\nScore: 9", False),
        ("I Agree: fully.\nScore: 9", None),
    ],
)
def test_a_stand_is_a_line_of_its_own(answer: str, agrees: bool | None) -> None:
    assert read_verdict(split_text(f"<think>a</think>{answer}")).agrees is agrees


@given(st.from_regex(VERDICT_REGEX, fullmatch=True).filter(lambda text: "think>" not in text))
def test_every_reply_that_the_engine_pattern_allows_is_read(answer: str) -> None:
    status, score = verdict_of(answer)
    assert status is VerdictStatus.OK
    assert score == float(re.findall(r"[0-9]+", answer)[-1])
