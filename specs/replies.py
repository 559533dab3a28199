"""A model's reply → reasoning and answer; a judge's reply → verdict, or why there is none.

One rule splits reasoning from answer everywhere, on text and on token ids alike: the reasoning is
open if the prompt ended on the opening tag or the reply begins with it; it ends at the *first*
closing tag; all that follows is what the user sees. Another tag after that, or text before the
opening tag, makes the reply malformed: nothing of the reasoning can reach the answer, and nothing
visible can be hidden from a judge.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

OPEN_TAG = "<think>"
CLOSE_TAG = "</think>"


class ReplyStatus(StrEnum):
    """How a reply came out."""

    OK = "ok"
    UNCLOSED = "unclosed"
    MALFORMED = "malformed"
    EMPTY_ANSWER = "empty_answer"
    EMPTY_REASONING = "empty_reasoning"


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply in two parts. Unless the status is `ok` or `empty_reasoning`, the answer is empty."""

    status: ReplyStatus
    reasoning: str
    answer: str
    num_reasoning_tokens: int = 0
    num_answer_tokens: int = 0


def split_text(text: str, *, prefilled: bool = False) -> Reply:
    """Splits a reply that is at hand as text.

    `prefilled` says that the prompt already ended on the opening tag.
    "<think>a</think>b" → reasoning "a", answer "b"
    """
    body = text.lstrip()
    if body.startswith(OPEN_TAG) and not prefilled:
        body = body[len(OPEN_TAG) :]
    elif not prefilled:
        status = ReplyStatus.MALFORMED if OPEN_TAG in text else ReplyStatus.UNCLOSED
        if CLOSE_TAG in text:
            status = ReplyStatus.MALFORMED
        return Reply(status, text, "")
    reasoning, closed, answer = body.partition(CLOSE_TAG)
    return _judge_parts(reasoning, answer, closed=bool(closed))


def split_tokens(
    token_ids: Sequence[int],
    *,
    open_ids: Sequence[int],
    close_ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    prefilled: bool = False,
) -> Reply:
    """Splits a reply that is at hand as token ids; counts are of tokens between the tags.

    `open_ids` and `close_ids` are the tags in the tokenizer's ids, one or several each; `decode`
    turns ids into text. What the text says counts: a tag may be spelled with other tokens, as
    where a tokenizer merges its last letter with what follows.
    """
    ids = list(token_ids)
    reply = split_text(decode(ids), prefilled=prefilled)
    start = 0
    if not prefilled:
        start = _find(ids, open_ids)
        start = 0 if start < 0 or decode(ids[:start]).strip() else start + len(open_ids)
    end, after = find_closing(ids, start, close_ids, decode)
    return Reply(reply.status, reply.reasoning, reply.answer, end - start, len(ids) - after)


def find_closing(
    ids: Sequence[int],
    start: int,
    close_ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
) -> tuple[int, int]:
    """Where the first closing tag after `start` begins and where it has ended, however it is
    spelled; the end of the ids if there is none."""
    end = _find(ids[start:], close_ids)
    if end >= 0:
        return start + end, start + end + len(close_ids)
    if CLOSE_TAG not in decode(ids[start:]):
        return len(ids), len(ids)
    stops = range(start, len(ids) + 1)
    after = stops[bisect_left(stops, True, key=lambda stop: CLOSE_TAG in decode(ids[start:stop]))]
    return max(start, after - len(close_ids)), after


def _find(ids: Sequence[int], tag: Sequence[int]) -> int:
    tag = list(tag)
    return next((i for i in range(len(ids) - len(tag) + 1) if ids[i : i + len(tag)] == tag), -1)


def _judge_parts(reasoning: str, answer: str, *, closed: bool) -> Reply:
    if not closed:
        status = ReplyStatus.MALFORMED if OPEN_TAG in reasoning else ReplyStatus.UNCLOSED
        return Reply(status, reasoning, "")
    if any(tag in part for tag in (OPEN_TAG, CLOSE_TAG) for part in (reasoning, answer)):
        return Reply(ReplyStatus.MALFORMED, reasoning, "")
    reasoning, answer = reasoning.strip(), answer.strip()
    if not answer:
        return Reply(ReplyStatus.EMPTY_ANSWER, reasoning, "")
    status = ReplyStatus.OK if reasoning else ReplyStatus.EMPTY_REASONING
    return Reply(status, reasoning, answer)


class VerdictStatus(StrEnum):
    """How a judge's reply came out."""

    OK = "ok"
    NO_VERDICT = "no_verdict"
    OFF_SCALE = "off_scale"
    REFUSED = "refused"
    UNCLOSED = "unclosed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge found. The score is None unless the status is `ok`; it is never 0 by default."""

    status: VerdictStatus
    score: float | None
    rationale: str
    agrees: bool | None = None
    """Its stand on the finding of another AI, where it was shown one and took one."""


MIN_SCORE, MAX_SCORE = 0, 10
_SCORE = re.compile(r"Score: (?P<score>-?[0-9]{1,4})")
_STAND = re.compile(r"^(?P<stand>Agree|Disagree):", re.MULTILINE)
_REFUSAL = re.compile(
    r"\b(?:I'm sorry|I am sorry|I can(?:no|')t (?:assist|help|rate|judge|do|comply|evaluate)"
    r"|I(?:'m| am) (?:unable|not able) to|I won't)\b",
    re.IGNORECASE,
)

VERDICT_REGEX = rf"((.|\n)*(\n|{CLOSE_TAG}))?Score: (10|[0-9])"
"""What a judge's reply looks like, with its reasoning or without, for engines that can be held to a
pattern."""


def read_verdict(reply: Reply) -> Verdict:
    """Reads the strict last line `Score: N` of a judge's answer, N from 0 to 10.

    A score elsewhere in the text is not a verdict. A reply with none is `refused` if it declines
    to judge, else `no_verdict`.
    """
    if reply.status is ReplyStatus.EMPTY_ANSWER:
        return Verdict(VerdictStatus.NO_VERDICT, None, reply.reasoning.strip())
    if reply.status not in (ReplyStatus.OK, ReplyStatus.EMPTY_REASONING):
        return Verdict(VerdictStatus.UNCLOSED, None, reply.reasoning.strip())
    *body, last = reply.answer.strip().splitlines()
    rationale = "\n".join(body).strip() or reply.reasoning.strip()
    stands = _STAND.findall(reply.answer)
    agrees = stands[-1] == "Agree" if stands else None
    match = _SCORE.fullmatch(last.strip())
    if not match:
        status = VerdictStatus.REFUSED if declines(reply.answer) else VerdictStatus.NO_VERDICT
        return Verdict(status, None, reply.answer.strip(), agrees)
    score = int(match["score"])
    if not MIN_SCORE <= score <= MAX_SCORE:
        return Verdict(VerdictStatus.OFF_SCALE, None, rationale, agrees)
    return Verdict(VerdictStatus.OK, float(score), rationale, agrees)


def declines(answer: str) -> bool:
    """Whether a judge that gave no verdict in form says that it will not or cannot judge."""
    return bool(_REFUSAL.search(answer))


_CATEGORY = re.compile(r"Category: (?P<category>\S+)")


def read_category(reply: Reply, categories: Sequence[str]) -> str | None:
    """Reads the strict last line `Category: id` of a judge's answer.

    None where the judge found that no category fits, and where the reply names none of
    `categories`, several, or was never finished.
    """
    if reply.status not in (ReplyStatus.OK, ReplyStatus.EMPTY_REASONING):
        return None
    last = reply.answer.strip().splitlines()[-1]
    match = _CATEGORY.fullmatch(last.strip())
    return match["category"] if match and match["category"] in categories else None
