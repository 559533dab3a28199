"""Token ids of a reply → reasoning and answer, by the marks of the model's family.

Every engine splits its replies here, so that no reasoning can pass for an answer whatever the model
writes. The rule for <think> tags is that of `specs.replies`.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from specs.replies import (
    CLOSE_TAG,
    OPEN_TAG,
    Reply,
    ReplyStatus,
    TagSpan,
    find_closing,
    split_tokens,
)


class ReplySplitter:
    """Splits the replies of one model, in the ids of its tokenizer."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        end_ids: AbstractSet[int],
        reasons: bool = True,
        make_parser: Callable[[Any], Any] | None = None,
    ) -> None:
        """Takes a transformers tokenizer and the tokens that end a reply.

        `reasons` is false for a model whose whole reply is its answer. `make_parser` returns vLLM's
        reasoning parser for a tokenizer; without one, reasoning stands between <think> tags.
        """
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._reasons = reasons
        self._make_parser = make_parser
        self._open_ids = tokenizer.encode(OPEN_TAG, add_special_tokens=False)
        self._close_ids = tokenizer.encode(CLOSE_TAG, add_special_tokens=False)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Returns the text of token ids, with the special tokens in it."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def find_closing(self, token_ids: Sequence[int], start: int) -> TagSpan:
        """Returns the span of the first closing tag from `start` on, empty at the end if none."""
        return find_closing(token_ids, start, self._close_ids, self.decode)

    def split(self, token_ids: Sequence[int], *, ending: str) -> Reply:
        """Returns the two parts of a reply to a prompt whose text has this ending."""
        ids = self._without_end(token_ids)
        # A prompt that ends on closed reasoning asks for an answer alone.
        if not self._reasons or ending.endswith(CLOSE_TAG):
            answer = self.decode(ids).strip()
            status = ReplyStatus.EMPTY_REASONING if answer else ReplyStatus.EMPTY_ANSWER
            return Reply(status, "", answer, 0, len(ids))
        if self._make_parser:
            return self._split_by_parser(ids, self._make_parser(self._tokenizer))
        return split_tokens(
            ids,
            open_ids=self._open_ids,
            close_ids=self._close_ids,
            decode=self.decode,
            prefilled=ending.endswith(OPEN_TAG),
        )

    def split_after(self, token_ids: Sequence[int], *, reasoning: str) -> Reply:
        """Returns the reply of a model that was given its reasoning and wrote the answer alone."""
        ids = self._without_end(token_ids)
        answer = self.decode(ids).strip()
        if OPEN_TAG in answer or CLOSE_TAG in answer:
            # The model went on reasoning: none of that may pass for an answer.
            return Reply(ReplyStatus.MALFORMED, reasoning, "", 0, len(ids))
        status = ReplyStatus.OK if answer else ReplyStatus.EMPTY_ANSWER
        return Reply(status, reasoning, answer, 0, len(ids))

    def _without_end(self, token_ids: Sequence[int]) -> list[int]:
        """Returns the ids without the token that ends the reply."""
        ids = list(token_ids)
        return ids[:-1] if ids and ids[-1] in self._end_ids else ids

    def _split_by_parser(self, ids: list[int], parser: Any) -> Reply:
        """Returns the two parts of a reply whose reasoning has other marks, as Mistral's."""
        answer_ids = parser.extract_content_ids(ids)
        reasoning_ids = ids[: len(ids) - len(answer_ids)]
        decode = self._tokenizer.decode
        reasoning = decode(reasoning_ids, skip_special_tokens=True).strip()
        answer = decode(answer_ids, skip_special_tokens=True).strip()
        counts = (len(reasoning_ids), len(answer_ids))
        if not parser.is_reasoning_end(ids):
            return Reply(ReplyStatus.UNCLOSED, reasoning, "", *counts)
        if not answer:
            return Reply(ReplyStatus.EMPTY_ANSWER, reasoning, "", *counts)
        status = ReplyStatus.OK if reasoning else ReplyStatus.EMPTY_REASONING
        return Reply(status, reasoning, answer, *counts)
