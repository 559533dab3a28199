"""A server's reply → samples: reasoning and answer by the rule of all replies, tokens as told.

Only the tokens of a whole reply are told, of all its samples together. They are shared out by the
lengths of the texts, so that the shares add up to what was paid; what is not told stays unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from specs.replies import Marks, Reply, ReplyStatus, reply_of, split_text
from tasks.engine.requests import Sample

FILTERED = "the server's content filter withheld the reply, or a part of it"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a reply, as the server told them; None for what it did not tell."""

    prompt: int | None = None
    cached: int | None = None
    """Of those of the prompt, the ones that the prefix cache served."""
    output: int | None = None
    """Of all samples together, reasoning included."""
    reasoning: int | None = None
    """Of those of the output, the ones of the reasoning."""

    @classmethod
    def of(cls, reply: Any) -> "Tokens":
        """Returns the usage of a chat completion."""
        usage = getattr(reply, "usage", None)
        prompt, output = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        total = _count(usage, "total_tokens")
        if prompt is not None and output is not None and total is not None:
            # Some providers leave the reasoning, which is paid for, to the total alone.
            output = max(output, total - prompt)
        cached = _count(getattr(usage, "prompt_tokens_details", None), "cached_tokens")
        return cls(
            prompt=prompt,
            cached=min(cached, prompt) if cached is not None and prompt is not None else cached,
            output=output,
            reasoning=_count(getattr(usage, "completion_tokens_details", None), "reasoning_tokens"),
        )

    @property
    def is_told(self) -> bool:
        """True if the server told what is paid for."""
        return self.prompt is not None and self.output is not None


def _count(part: Any, name: str) -> int | None:
    value = getattr(part, name, None)
    return value if isinstance(value, int) and value >= 0 else None


def samples_of(
    choices: Sequence[Any], tokens: Tokens, *, marks: Marks, reasons: bool
) -> list[Sample]:
    """Returns a sample for each choice of a chat completion.

    `reasons` is false for a model whose whole reply is its answer; `marks` are those around its
    reasoning where the server leaves that in the text.
    """
    replies = [split_message(choice.message, marks=marks, reasons=reasons) for choice in choices]
    return [
        Sample(
            reply,
            finish_reason=choice.finish_reason,
            num_prompt_tokens=tokens.prompt,
            num_cached_tokens=tokens.cached,
            num_output_tokens=None if tokens.output is None else _num_tokens(reply),
            fault="filtered" if choice.finish_reason == "content_filter" else None,
            reason=FILTERED if choice.finish_reason == "content_filter" else None,
        )
        for choice, reply in zip(choices, _with_tokens(replies, tokens), strict=True)
    ]


def split_message(message: Any, *, marks: Marks, reasons: bool) -> Reply:
    """Returns reasoning and answer of a message: from the field that the server put the reasoning
    in, under either of its names, or else by the marks in the text."""
    content = _text(message, "content") or _text(message, "refusal")
    reasoning = _text(message, "reasoning") or _text(message, "reasoning_content")
    if reasoning.strip():
        # With the marks put back, a mark within a field is found like one in any reply.
        return split_text(f"{marks.opening}{reasoning}{marks.closing}{content}", marks=marks)
    if reasons:
        return split_text(content, marks=marks)
    answer = marks.bare(content)
    if marks.any_in(answer):
        return Reply(ReplyStatus.MALFORMED, "", "")
    return reply_of("", answer)


def _text(message: Any, name: str) -> str:
    value = getattr(message, name, None)
    return value if isinstance(value, str) else ""


def _num_tokens(reply: Reply) -> int:
    return reply.num_reasoning_tokens + reply.num_answer_tokens


def _with_tokens(replies: Sequence[Reply], tokens: Tokens) -> list[Reply]:
    """Returns the replies with the tokens of their parts."""
    if tokens.output is None:
        return list(replies)
    reasoning = [len(reply.reasoning) for reply in replies]
    answers = [len(reply.answer) for reply in replies]
    # Servers that leave the reasoning in the text count none as such.
    if tokens.reasoning is None or (tokens.reasoning == 0 and any(reasoning)):
        counts = shares(tokens.output, [*reasoning, *answers])
    else:
        told = min(tokens.reasoning, tokens.output)
        counts = [*shares(told, reasoning), *shares(tokens.output - told, answers)]
    return [
        replace(reply, num_reasoning_tokens=in_reasoning, num_answer_tokens=in_answer)
        for reply, in_reasoning, in_answer in zip(
            replies, counts[: len(replies)], counts[len(replies) :], strict=True
        )
    ]


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Returns whole shares of a total, in proportion to the weights; equal ones without weights.

    10, [1, 2] → [3, 7]
    """
    if not any(weights):
        weights = [1] * len(weights)
    whole, taken, so_far = sum(weights), 0, 0
    counts = []
    for weight in weights:
        so_far += weight
        upto = total * so_far // whole
        counts.append(upto - taken)
        taken = upto
    return counts
