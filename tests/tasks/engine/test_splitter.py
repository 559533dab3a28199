"""Replies in token ids are split so that no reasoning can pass for an answer."""

from collections.abc import Sequence
from typing import Any

import pytest

from specs.replies import Marks, Reply, ReplyStart, ReplyStatus
from tasks.engine.splitter import ReplySplitter

PIECES = ["<think>", "</think>", "[BEGIN]", "[END]", "a ", "b ", "</s>", "<s>"]
END_IDS = {PIECES.index("</s>")}


class Tokenizer:
    """A tokenizer whose tokens are `PIECES`, of which all in brackets are special."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [PIECES.index(text)]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool) -> str:
        pieces = [PIECES[token] for token in token_ids]
        kept = [p for p in pieces if not (skip_special_tokens and p[0] in "[<")]
        return "".join(kept)


BRACKETS = Marks("[BEGIN]", "[END]")
"""The marks of a family that has tokens of its own."""


def tokens(*pieces: str) -> list[int]:
    return [PIECES.index(piece) for piece in pieces]


def splitter(**options: Any) -> ReplySplitter:
    return ReplySplitter(Tokenizer(), end_ids=END_IDS, **options)


def test_reply_is_split_between_the_tags_and_its_tokens_are_counted() -> None:
    ids = tokens("<think>", "a ", "b ", "</think>", "b ", "</s>")
    assert splitter().split(ids, ending="") == Reply(ReplyStatus.OK, "a b", "b", 2, 1)
    # The prompt has opened the reasoning.
    reply = splitter().split(ids[1:], ending="assistant\n<think>")
    assert reply == Reply(ReplyStatus.OK, "a b", "b", 2, 1)


def test_token_that_ends_a_reply_is_no_part_of_the_answer() -> None:
    ids = tokens("<think>", "a ", "</think>", "b ", "<s>", "</s>")
    assert splitter().split(ids, ending="").answer == "b <s>"


@pytest.mark.parametrize("options", [{"reasons": False}, {}])
def test_whole_reply_is_the_answer_if_no_reasoning_is_asked_for(options: dict[str, Any]) -> None:
    ending = "" if options else "<think></think>"
    reply = splitter(**options).split(tokens("a ", "b "), ending=ending)
    assert reply == Reply(ReplyStatus.EMPTY_REASONING, "", "a b", 0, 2)
    empty = splitter(**options).split(tokens("</s>"), ending=ending)
    assert empty.status is ReplyStatus.EMPTY_ANSWER


@pytest.mark.parametrize(
    ("ending", "options", "start"),
    [
        ("assistant\n", {}, "reasoning"),
        ("assistant\n<think>\n", {}, "open reasoning"),
        ("assistant\n<think>\n\n</think>\n\n", {}, "answer"),
        ("assistant\n", {"reasons": False}, "answer"),
        ("assistant\n[BEGIN]", {"marks": BRACKETS}, "open reasoning"),
    ],
)
def test_prompt_tells_what_its_reply_begins_with(
    ending: str, options: dict[str, Any], start: ReplyStart
) -> None:
    assert splitter(**options).start_after(ending) == start


def test_model_that_was_given_its_reasoning_writes_the_answer_alone() -> None:
    reply = splitter().split_after(tokens("a ", "</s>"), reasoning="given")
    assert reply == Reply(ReplyStatus.OK, "given", "a", 0, 1)
    empty = splitter().split_after(tokens("</s>"), reasoning="given")
    assert empty.status is ReplyStatus.EMPTY_ANSWER


def test_reasoning_that_goes_on_after_a_given_one_is_not_an_answer() -> None:
    for ids in (tokens("<think>", "a "), tokens("a ", "</think>", "b ")):
        reply = splitter().split_after(ids, reasoning="given")
        assert (reply.status, reply.answer) == (ReplyStatus.MALFORMED, "")


def test_reply_is_split_between_the_marks_of_its_family() -> None:
    bracketed = splitter(marks=BRACKETS)
    whole = bracketed.split(tokens("[BEGIN]", "a ", "[END]", "b ", "</s>"), ending="")
    assert whole == Reply(ReplyStatus.OK, "a", "b", 1, 1)
    opened = bracketed.split(tokens("a ", "[END]", "b "), ending="assistant\n[BEGIN]\n")
    assert opened == Reply(ReplyStatus.OK, "a", "b", 1, 1)
    for ids, status in [
        (tokens("[BEGIN]", "a "), ReplyStatus.UNCLOSED),
        (tokens("a "), ReplyStatus.UNCLOSED),
        (tokens("[BEGIN]", "a ", "[END]", "</s>"), ReplyStatus.EMPTY_ANSWER),
        (tokens("[BEGIN]", "[END]", "b "), ReplyStatus.EMPTY_REASONING),
        # Visible text before the mark, two blocks, marks left in a part, tags of other families.
        (tokens("a ", "[BEGIN]", "a ", "[END]", "b "), ReplyStatus.MALFORMED),
        (tokens("a ", "[END]", "b "), ReplyStatus.MALFORMED),
        (tokens("[BEGIN]", "a ", "[END]", "b ", "[BEGIN]", "a ", "[END]"), ReplyStatus.MALFORMED),
        (tokens("[BEGIN]", "a ", "[END]", "b ", "[END]"), ReplyStatus.MALFORMED),
        (tokens("[BEGIN]", "a ", "[BEGIN]", "[END]", "b "), ReplyStatus.MALFORMED),
        (tokens("[BEGIN]", "a ", "[END]", "<think>", "b ", "</think>"), ReplyStatus.MALFORMED),
        (tokens("<think>", "a ", "</think>", "b "), ReplyStatus.MALFORMED),
    ]:
        reply = bracketed.split(ids, ending="")
        assert (reply.status, bool(reply.answer)) == (status, reply.has_answer)


@pytest.mark.parametrize("options", [{"reasons": False}, {}, {"marks": BRACKETS}])
def test_reasoning_of_a_model_that_was_to_answer_alone_is_no_answer(
    options: dict[str, Any],
) -> None:
    ending = "[BEGIN][END]" if "marks" in options else "<think></think>"
    reply = splitter(**options).split(tokens("<think>", "a ", "</think>", "b "), ending=ending)
    assert (reply.status, reply.answer) == (ReplyStatus.MALFORMED, "")


def test_closing_tag_is_found_from_a_start_on() -> None:
    ids = tokens("</think>", "a ", "</think>", "b ")
    assert splitter().find_closing(ids, 1) == (2, 3)
    assert splitter().find_closing(ids, 3) == (4, 4)
