"""Token ids of a reply → reasoning and answer, by the marks of the model's family.

Every engine splits its replies here, so that no reasoning can pass for an answer whatever the model
writes. The rule is that of `specs.replies`.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from specs.characters import is_blank
from specs.replies import (
    THINK,
    Marks,
    Reply,
    ReplyStart,
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
        marks: Marks = THINK,
    ) -> None:
        """Takes a transformers tokenizer and the tokens that end a reply.

        `reasons` is false for a model whose whole reply is its answer. `marks` are those of its
        family.
        """
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._reasons = reasons
        self._marks = marks
        self._open_ids = tokenizer.encode(marks.opening, add_special_tokens=False)
        self._close_ids = tokenizer.encode(marks.closing, add_special_tokens=False)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Returns the text of token ids, with the special tokens in it."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def find_closing(self, token_ids: Sequence[int], start: int) -> TagSpan:
        """Returns the span of the first closing mark from `start` on, empty at the end if none."""
        closing = self._marks.closing
        return find_closing(token_ids, start, self._close_ids, self.decode, closing=closing)

    def start_after(self, ending: str) -> ReplyStart:
        """Returns the beginning of a reply to a prompt whose text has this ending."""
        ending = ending.rstrip()
        # A prompt that ends on closed reasoning asks for an answer alone.
        if not self._reasons or ending.endswith(self._marks.closing):
            return "answer"
        return "open reasoning" if ending.endswith(self._marks.opening.rstrip()) else "reasoning"

    def split(self, token_ids: Sequence[int], *, ending: str) -> Reply:
        """Returns the two parts of a reply to a prompt whose text has this ending."""
        ids, start = self._without_end(token_ids), self.start_after(ending)
        if start == "answer":
            return self._answer_alone(ids, "", ReplyStatus.EMPTY_REASONING)
        return split_tokens(
            ids,
            open_ids=self._open_ids,
            close_ids=self._close_ids,
            decode=self.decode,
            marks=self._marks,
            prefilled=start == "open reasoning",
        )

    def split_after(self, token_ids: Sequence[int], *, reasoning: str) -> Reply:
        """Returns the reply of a model that was given its reasoning and wrote the answer alone."""
        return self._answer_alone(self._without_end(token_ids), reasoning, ReplyStatus.OK)

    def _answer_alone(self, ids: list[int], reasoning: str, status: ReplyStatus) -> Reply:
        """Returns a reply without reasoning of its own; `status` is that of an answer."""
        answer = self._marks.bare(self.decode(ids))
        if self._marks.any_in(answer):
            # The model went on reasoning: none of that may pass for an answer.
            return Reply(ReplyStatus.MALFORMED, reasoning, "", 0, len(ids))
        if is_blank(answer):
            status, answer = ReplyStatus.EMPTY_ANSWER, ""
        return Reply(status, reasoning, answer, 0, len(ids))

    def _without_end(self, token_ids: Sequence[int]) -> list[int]:
        """Returns the ids without the token that ends the reply."""
        ids = list(token_ids)
        return ids[:-1] if ids and ids[-1] in self._end_ids else ids
