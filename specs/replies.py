"""A model's reply → reasoning and answer; a judge's reply → a verdict, or why there is none.

One rule splits reasoning from answer everywhere, on text and on token ids alike, whichever marks a
model's family puts around its reasoning: reasoning is open if the prompt ended on the opening mark
or the reply begins with it; it ends at the *first* closing mark; everything after that is shown to
the user. Another mark after it, or text before the opening mark, makes the reply malformed: no
reasoning can reach the answer, and nothing visible can be hidden from a judge.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from specs.characters import is_blank
from specs.lines import begins_line, read_ending
from specs.policy import NO_CATEGORY
from specs.refusals import declines

OPEN_TAG = "<think>"
CLOSE_TAG = "</think>"


@dataclass(frozen=True, slots=True)
class Marks:
    """The text that a family of models puts around its reasoning."""

    opening: str
    closing: str
    strays: tuple[str, ...] = ()
    """Further text that stands in no part of a reply, as the mark of another channel."""
    around_answer: tuple[str, str] = ("", "")
    """Text that a family puts around an answer, which is no part of it."""

    def any_in(self, text: str) -> bool:
        """Returns whether a text holds any mark: this family's, or a <think> tag."""
        return any(mark in text for mark in (self.opening, self.closing, *self.strays, *_TAGS))

    def bare(self, answer: str) -> str:
        """Returns an answer without white space and the text that the family puts around it."""
        before, after = self.around_answer
        answer = answer.strip()
        if after and answer.startswith(before) and answer.endswith(after):
            answer = answer.removeprefix(before).removesuffix(after).strip()
        return answer


_TAGS = (OPEN_TAG, CLOSE_TAG)
THINK = Marks(OPEN_TAG, CLOSE_TAG)
"""The marks of most families."""


class ReplyStatus(StrEnum):
    """The form of a reply; `ok` and `empty_reasoning` have an answer."""

    OK = "ok"
    UNCLOSED = "unclosed"
    MALFORMED = "malformed"
    EMPTY_ANSWER = "empty_answer"
    EMPTY_REASONING = "empty_reasoning"


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply in two parts. The answer is empty unless the status is `ok` or `empty_reasoning`."""

    status: ReplyStatus
    reasoning: str
    answer: str
    num_reasoning_tokens: int = 0
    num_answer_tokens: int = 0

    @property
    def has_answer(self) -> bool:
        """True if the reply has an answer, with reasoning or without."""
        return self.status in (ReplyStatus.OK, ReplyStatus.EMPTY_REASONING)


def split_text(text: str, *, marks: Marks = THINK, prefilled: bool = False) -> Reply:
    """Splits a reply given as text; `prefilled` if the prompt ended on the opening mark.

    "<think>a</think>b" → reasoning "a", answer "b"
    """
    body = text.lstrip()
    if body.startswith(marks.opening) and not prefilled:
        body = body[len(marks.opening) :]
    elif not prefilled:
        status = ReplyStatus.MALFORMED if marks.any_in(text) else ReplyStatus.UNCLOSED
        return Reply(status, text, "")
    reasoning, closing, answer = body.partition(marks.closing)
    return _reply(reasoning, answer, marks, closed=bool(closing))


def split_tokens(
    token_ids: Sequence[int],
    *,
    open_ids: Sequence[int],
    close_ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    marks: Marks = THINK,
    prefilled: bool = False,
) -> Reply:
    """Splits a reply given as token ids, and counts the tokens between the marks.

    `open_ids` and `close_ids` are the marks in the tokenizer's ids, one or several each; `decode`
    turns ids into text. The text decides: a mark may be spelled with other tokens, as when a
    tokenizer merges its last letter with the text after it.
    """
    ids = list(token_ids)
    reply = split_text(decode(ids), marks=marks, prefilled=prefilled)
    start = 0
    if not prefilled:
        start = _find(ids, open_ids)
        start = 0 if start < 0 or decode(ids[:start]).strip() else start + len(open_ids)
    closing = find_closing(ids, start, close_ids, decode, closing=marks.closing)
    return Reply(
        reply.status,
        reply.reasoning,
        reply.answer,
        num_reasoning_tokens=closing.start - start,
        num_answer_tokens=len(ids) - closing.stop,
    )


class TagSpan(NamedTuple):
    """The indices at which a mark's tokens start and stop."""

    start: int
    stop: int


def find_closing(
    ids: Sequence[int],
    start: int,
    close_ids: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    *,
    closing: str = CLOSE_TAG,
) -> TagSpan:
    """Returns the span of the first closing mark from `start` on, however it is spelled; an empty
    span at the end of the ids if there is none."""
    place = _find(ids[start:], close_ids)
    if place >= 0:
        return TagSpan(start + place, start + place + len(close_ids))
    if closing not in decode(ids[start:]):
        return TagSpan(len(ids), len(ids))
    # Once the mark is complete, it stays in every longer text: the first such stop can be bisected.
    stops = range(start, len(ids) + 1)
    stop = stops[bisect_left(stops, True, key=lambda stop: closing in decode(ids[start:stop]))]
    return TagSpan(max(start, stop - len(close_ids)), stop)


def _find(ids: Sequence[int], mark: Sequence[int]) -> int:
    mark = list(mark)
    places = range(len(ids) - len(mark) + 1) if mark else ()
    return next((i for i in places if ids[i : i + len(mark)] == mark), -1)


def _reply(reasoning: str, answer: str, marks: Marks, *, closed: bool) -> Reply:
    if not closed:
        status = ReplyStatus.MALFORMED if marks.any_in(reasoning) else ReplyStatus.UNCLOSED
        return Reply(status, reasoning, "")
    answer = marks.bare(answer)
    if marks.any_in(reasoning) or marks.any_in(answer):
        return Reply(ReplyStatus.MALFORMED, reasoning, "")
    return reply_of(reasoning, answer)


def reply_of(reasoning: str, answer: str) -> Reply:
    """Returns the reply of these two parts; a part that shows nothing to a reader is empty.

    The other part is kept as it is but for white space at its ends.
    """
    reasoning, answer = reasoning.strip(), answer.strip()
    if is_blank(reasoning):
        reasoning = ""
    if is_blank(answer):
        return Reply(ReplyStatus.EMPTY_ANSWER, reasoning, "")
    status = ReplyStatus.OK if reasoning else ReplyStatus.EMPTY_REASONING
    return Reply(status, reasoning, answer)


class VerdictStatus(StrEnum):
    """The form of a judge's reply; only `ok` has a score."""

    OK = "ok"
    NO_VERDICT = "no_verdict"
    OFF_SCALE = "off_scale"
    REFUSED = "refused"
    UNCLOSED = "unclosed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict in a judge's reply. The score is None unless the status is `ok`, never 0."""

    status: VerdictStatus
    score: float | None
    """From 0 to 10; of several criteria, the lowest."""
    rationale: str
    agrees: bool | None = None
    """The judge's stand on the finding of another AI. None: it took none."""
    criteria: Mapping[str, float] = field(default_factory=dict)
    """The score of each criterion; empty if the judge was asked for one score alone."""


MIN_SCORE, MAX_SCORE = 0, 10
_SCORE = r"(-?[0-9]+(?:\.[0-9]+)?)(?: ?/ ?10| out of 10| ?\((?:/ ?|out of )10\))?"
_DENIAL = re.compile(r"(?:no|false)\b *(?:[,;.]|$)", re.IGNORECASE)


FORM_VERSION = 3
"""Version of the forms that judges' replies are held to, in the ids of what they decide. Raised
whenever a judge that is held to one may reply otherwise."""
_CHARACTERS_PER_TOKEN = 3
_TOKENS_PER_LINE = 24

ReplyStart = Literal["reasoning", "open reasoning", "after reasoning", "answer", "any"]
"""Beginning of the text that is held to a form: reasoning after its mark; reasoning that the prompt
opened; the answer that follows reasoning which the engine keeps apart; the answer of a model that
does not reason; `any`: reasoning or answer, whichever the model chooses."""


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """The lines that a judge's reply ends on, for engines with structured outputs."""

    lines: tuple[str, ...]
    """Each is a name, a colon and a pattern of values: "Score: (10|[0-9])"."""
    max_tokens: int
    """The longest reply, in tokens."""

    def pattern(self, start: ReplyStart) -> str:
        """Returns the regular expression of a whole reply that begins like this.

        A judge may set a line in bold, as a heading or a list: a pattern at odds with a model's
        habits would only make it write on until it is cut. Reasoning that must stand before the
        answer is opened and closed, since a reply without its marks cannot be read. An explanation
        may follow. No more of both is allowed than leaves a judge that would never stop the tokens
        for the lines, at three characters a token: two thirds of the room are for reasoning.
        Reasoning that the engine keeps apart may take more: it is held to no length. No part begins
        with a mark; one in its middle is not ruled out, and makes the reply malformed.
        """
        tolerant = []
        for line in self.lines:
            name, _, values = line.partition(": ")
            tolerant.append(
                rf"(#{{1,6}} |- )?(\*\*)?{name}(\*\*)?:(\*\*)? (\*\*)?{values}(\*\*)?\.?(\*\*)?"
            )
        # A class, since xgrammar takes a second for each token to count `(.|\n)`.
        room = max(_CHARACTERS_PER_TOKEN * (self.max_tokens - _TOKENS_PER_LINE * len(tolerant)), 3)
        explained = rf"([^<\s][\s\S]{{0,{room // 3}}}\n)?"
        opened = rf"([^<\s][\s\S]{{0,{room * 2 // 3}}})?{CLOSE_TAG}\s{{0,2}}{explained}"
        reasoned = rf"{OPEN_TAG}\s{{0,2}}{opened}"
        plain = rf"([^<\s][\s\S]{{0,{room}}}\n)?"
        starts = {
            "reasoning": reasoned,
            "open reasoning": opened,
            "after reasoning": explained,
            "answer": plain,
            "any": f"({reasoned}|{plain})",
        }
        ending = r"\n{1,2}".join(tolerant)
        return rf"\s{{0,2}}{starts[start]}{ending}\n?"


def read_verdict(reply: Reply, criteria: Sequence[str] = ()) -> Verdict:
    """Reads the last line `Score: N` of a judge's answer, N from 0 to 10, or `{"score": N}`; of
    several criteria a last line each, such as `Compliance: N`, in any order.

    A score elsewhere in the text is not a verdict, and neither are two that differ. A reply without
    a verdict is `refused` if it declines to judge, and `no_verdict` otherwise; one that lacks the
    line of a criterion has no score at all.
    """
    agrees = _stand(reply.answer)
    forms = dict.fromkeys(criteria or ["score"], _SCORE)
    ending = read_ending(reply.answer, forms, same=float) if reply.has_answer else None
    if ending is None:
        nothing = unread(reply)
        return Verdict(nothing.status, None, nothing.rationale, agrees)
    rationale = ending.before or reply.reasoning.strip()
    scores = {name: float(ending.values[name]) for name in forms}
    # "-0" is a sign too many, and no score.
    signed = any(value.startswith("-") for value in ending.values.values())
    if signed or not all(MIN_SCORE <= score <= MAX_SCORE for score in scores.values()):
        return Verdict(VerdictStatus.OFF_SCALE, None, rationale, agrees)
    by_criterion = scores if criteria else {}
    return Verdict(VerdictStatus.OK, min(scores.values()), rationale, agrees, by_criterion)


def _stand(answer: str) -> bool | None:
    """Returns the stand that lines of an answer begin with; None if there is none, or if they
    contradict each other or themselves."""
    stands: set[bool | None] = set()
    for name in ("agree", "disagree"):
        for reason in begins_line(answer, name):
            stands.add(None if _DENIAL.match(reason) else name == "agree")
    return stands.pop() if len(stands) == 1 else None


@dataclass(frozen=True, slots=True)
class Unread:
    """The reason why a judge's reply has no verdict."""

    status: VerdictStatus
    rationale: str


def unread(reply: Reply) -> Unread:
    """Returns why a reply whose last lines cannot be read has no verdict."""
    if reply.status is ReplyStatus.EMPTY_ANSWER:
        return Unread(VerdictStatus.NO_VERDICT, reply.reasoning.strip())
    if not reply.has_answer:
        return Unread(VerdictStatus.UNCLOSED, reply.reasoning.strip())
    status = VerdictStatus.REFUSED if declines(reply.answer) else VerdictStatus.NO_VERDICT
    return Unread(status, reply.answer.strip())


@dataclass(frozen=True, slots=True)
class CategoryChoice:
    """A judge's choice among categories."""

    status: Literal["ok", "none", "unread"]
    """`ok`; `none` if the judge found that no category fits; `unread` if its reply names none of
    them, or several, or was never finished."""
    category: str | None = None
    """The category; None unless the status is `ok`."""


def read_category(reply: Reply, categories: Sequence[str]) -> CategoryChoice:
    """Reads the last line `Category: id` or `Category: none` of a judge's answer."""
    names = {name.casefold(): name for name in categories}
    form = {"category": _names_of(names)}
    ending = read_ending(reply.answer, form) if reply.has_answer else None
    if ending is None:
        return CategoryChoice("unread")
    category = names.get(ending.values["category"].casefold())
    return CategoryChoice("ok", category) if category else CategoryChoice("none")


def category_line(categories: Sequence[str]) -> str:
    """Returns the pattern of the line that chooses one of these categories, or none."""
    return f"Category: ({_names_of(categories)})"


def category_form(categories: Sequence[str], *, max_tokens: int) -> ReplyForm:
    """Returns the form of a judge's reply that ends on such a line."""
    return ReplyForm((category_line(categories),), max_tokens)


def _names_of(categories: Iterable[str]) -> str:
    """Returns the pattern of a category's name, or of the word for none."""
    return "|".join(map(re.escape, [*categories, NO_CATEGORY]))
