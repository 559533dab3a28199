"""Traces: reasoning and answers that were made elsewhere, and scores that came with them.

A source of traces is a source of prompts whose rows also hold a reply. The product's splitter reads
every reply, so a trace in whatever layout is held to the form of a completion: one that is not in
that form is kept as a row with its fault.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from pydantic import Field, model_validator

from specs.replies import (
    CLOSE_TAG,
    MAX_SCORE,
    MIN_SCORE,
    OPEN_TAG,
    Reply,
    ReplyStatus,
    VerdictStatus,
    split_text,
)
from tasks.data.candidates import Candidate, read_source, short
from tasks.data.chats import BadRowError, has_calls, is_missing, read_content, read_text
from tasks.data.generate import REASONS
from tasks.data.json_documents import written_value
from tasks.data.judge import REASONS as UNREAD
from tasks.data.sources import SourceConfig
from warehouse.tables import TracePlan, content_id, text_id

_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Keys of a chat's turn that hold its reasoning."""
_NUMBER = re.compile(r"\s*(?P<number>-?[0-9]+(?:\.[0-9]+)?)(?: ?/ ?10)?\s*")
MISSING = "missing"
"""Status of a score that a trace does not have."""


class TraceConfig(SourceConfig):
    """Traces: completions that were made elsewhere. A source of prompts whose rows also hold
    reasoning and answer, and the scores of a judge if there are any. Without `response`,
    `reasoning` and `answer`, the last turn of a chat is the trace."""

    model: str = Field(min_length=1)
    """Label of the model that made the traces, such as `deepseek-ai/DeepSeek-R1`. It is part of
    their ids."""
    response: str | None = None
    """Column with the whole reply, whose reasoning stands between <think> tags. Unset: `reasoning`
    and `answer`, or the last turn of the chat."""
    reasoning: str | None = None
    """Column with the reasoning; it may have its <think> tags. Unset: `response`."""
    answer: str | None = None
    """Column with the answer. Unset: `response`."""
    prefilled: bool = False
    """Replies lack the opening <think> tag, because the chat template of the model that made them
    ends on it."""
    scores: str | list[str] | None = None
    """Column with the scores of a judge: a list in the order of `criteria`, a table from criteria
    to scores, also as text in the manner of JSON or Python, or one score; or several columns, one a
    criterion. Scores are from 0 to 10, as 8 or "8/10", and the lowest counts. Unset: the recipe's
    judge judges the traces."""
    criteria: list[str] = []
    """Names of the criteria of `scores`; a trace that lacks a score for one is unjudged. Empty: the
    names of the columns in `scores`."""
    judge: str | None = Field(None, min_length=1)
    """Name of the judge that gave `scores`, such as `gpt-4o`."""

    @model_validator(mode="after")
    def _check_reply(self) -> "TraceConfig":
        if bool(self.reasoning) != bool(self.answer):
            given, lacking = ("reasoning", "answer") if self.reasoning else ("answer", "reasoning")
            raise ValueError(f"traces {self.name!r} have {given} without {lacking}: add {lacking}")
        if self.response and self.answer:
            raise ValueError(
                f"traces {self.name!r} have both response and answer: leave one of them out"
            )
        if (self.prompt or self.turns) and not (self.response or self.answer):
            raise ValueError(
                f"traces {self.name!r} have no reply: name its column in response, or its two "
                "columns in reasoning and answer"
            )
        return self

    @model_validator(mode="after")
    def _check_scores(self) -> "TraceConfig":
        for key, other in (("scores", "judge"), ("judge", "scores"), ("criteria", "scores")):
            if getattr(self, key) and not getattr(self, other):
                raise ValueError(f"traces {self.name!r} have {key} without {other}: add {other}")
        if isinstance(self.scores, list) and len(self.scores) != len(self.named_criteria):
            raise ValueError(
                f"traces {self.name!r} have {len(self.scores)} columns in scores and "
                f"{len(self.criteria)} criteria: name one criterion a column"
            )
        repeated = [one for one in self.named_criteria if self.named_criteria.count(one) > 1]
        if repeated:
            raise ValueError(
                f"traces {self.name!r} have criterion {repeated[0]!r} twice: give each its own name"
            )
        return self

    @property
    def score_columns(self) -> list[str]:
        """The columns with scores."""
        return [self.scores] if isinstance(self.scores, str) else list(self.scores or [])

    @property
    def named_criteria(self) -> list[str]:
        """The criteria of the scores, in their order."""
        return self.criteria or self.score_columns

    @property
    def kept_columns(self) -> list[str]:
        """The columns whose values candidates carry."""
        named = (self.response, self.reasoning, self.answer, *self.score_columns)
        return list(dict.fromkeys([*self.keep, *(name for name in named if name)]))

    @property
    def generation_id(self) -> str:
        """Hash of what all traces of one model share: its label."""
        return content_id("trace", self.model)

    @property
    def judging_id(self) -> str | None:
        """Hash of what all scores of one judge share: its name and the criteria; None without
        scores."""
        return content_id("scores", self.judge, *self.named_criteria) if self.judge else None

    @property
    def plan(self) -> TracePlan:
        """The record of which traces and scores a run wanted."""
        return TracePlan(
            generation_id=self.generation_id,
            judging_id=self.judging_id,
            num_judgements=len(self.named_criteria) if self.judge else None,
        )


@dataclass(frozen=True, slots=True)
class GivenScore:
    """A score that came with a trace, or the reason that it cannot be used."""

    status: str
    """`ok`, `missing`, `off_scale` or `no_verdict`."""
    score: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceCandidate(Candidate):
    """A row of a source of traces: a prompt and its reply, or a fault."""

    status: str
    """`ok`, or a fault of the reply (a `ReplyStatus`)."""
    reason: str | None
    """The fault in words; None without one."""
    reasoning: str
    """The reasoning; of a malformed reply, all its text."""
    answer: str
    completion_id: str
    scores: tuple[GivenScore, ...]
    """One a criterion; empty if the source has none."""

    @property
    def digest(self) -> bytes:
        """The id in half the memory."""
        return bytes.fromhex(self.completion_id)


def read_traces(
    source: TraceConfig, files_without_rows: list[str] | None = None
) -> Iterator[Candidate]:
    """Yields the rows of a source of traces, as `read_source` does.

    A row whose prompt or reply cannot be read is a `Candidate` with a fault, all others are a
    `TraceCandidate`.
    """
    for candidate in read_source(source, files_without_rows):
        if candidate.fault:
            yield candidate
            continue
        try:
            yield _with_reply(candidate, source)
        except BadRowError as fault:
            place = candidate.place
            yield Candidate(messages=[], categories=[], place=place, fault=str(fault))


def _with_reply(candidate: Candidate, source: TraceConfig) -> TraceCandidate:
    reply, reason = _read_reply(candidate, source)
    status = reply.status.value
    prompt_id, text = candidate.prompt_id, text_id(reply.reasoning, reply.answer)
    # Two faults may leave the same text: what was never closed, and what has an empty answer.
    faults = () if reply.status is ReplyStatus.OK else (status,)
    values = {field.name: getattr(candidate, field.name) for field in fields(Candidate)}
    if not (source.response or source.answer):
        # The last turn is the trace: nothing of the chat was left off.
        values["answer_left_off"] = False
    return TraceCandidate(
        **values,
        status=status,
        reason=reason,
        reasoning=reply.reasoning,
        answer=reply.answer,
        completion_id=content_id("trace", prompt_id, source.model, text, *faults),
        scores=read_scores(candidate.kept, source),
    )


def _read_reply(candidate: Candidate, source: TraceConfig) -> tuple[Reply, str | None]:
    """Returns the reply of a row and the reason that it is not in the form of a completion."""
    text = _reply_text(candidate, source)
    reply = split_text(text, prefilled=source.prefilled and not text.lstrip().startswith(OPEN_TAG))
    reason = REASONS.get(reply.status.value)
    if OPEN_TAG not in text and not source.prefilled:
        reason = f"no reasoning stands between {OPEN_TAG} tags"
        if CLOSE_TAG in text:
            reason = f"no {OPEN_TAG} opens the reasoning; set prefilled if the prompt ended on it"
    if reply.status is ReplyStatus.MALFORMED:
        # The parts of such a reply cannot be told apart, so that nothing of it is left out.
        reply = Reply(reply.status, text.strip(), "")
    return reply, reason


def _reply_text(candidate: Candidate, source: TraceConfig) -> str:
    """Returns the reply of a row as one text with its marks; raises BadRowError if it has none."""
    kept = candidate.kept
    if source.response:
        return _text(kept[source.response])
    if source.reasoning and source.answer:
        return _joined(_text(kept[source.reasoning]), _text(kept[source.answer]))
    if len(candidate.left_off) != 1:
        raise BadRowError("several_answers" if candidate.left_off else "no_answer")
    [turn] = candidate.left_off
    if has_calls(turn):
        raise BadRowError("calls_tools")
    reasoning = next((turn[key] for key in _REASONING_KEYS if turn.get(key)), None)
    answer = _text(read_content(turn))
    return answer if reasoning is None else _joined(_text(reasoning), answer)


def _text(value: object) -> str:
    """Returns a value as text, empty without one; raises BadRowError if it is anything else."""
    return "" if is_missing(value) or value == [] else read_text(value)


def _joined(reasoning: str, answer: str) -> str:
    """Returns reasoning and answer as one reply, of which either may hold marks that are wrong."""
    bare = reasoning.strip()
    if bare.startswith(OPEN_TAG) and bare.endswith(CLOSE_TAG):
        bare = bare.removeprefix(OPEN_TAG).removesuffix(CLOSE_TAG)
    return f"{OPEN_TAG}{bare}{CLOSE_TAG}{answer}"


def read_scores(values: Mapping[str, Any], source: TraceConfig) -> tuple[GivenScore, ...]:
    """Returns the score of each criterion of a row, or why it has none."""
    criteria = source.named_criteria
    if isinstance(source.scores, list):
        return tuple(map(_score, (values[name] for name in source.scores), criteria))
    if source.scores is None:
        return ()
    given = _decoded(values[source.scores])
    if isinstance(given, Mapping):
        return tuple(_score(given.get(name), name) for name in criteria)
    scores = given if isinstance(given, list) else [given]
    if len(scores) > len(criteria):
        count = f"the trace has {len(scores)} scores for {len(criteria)} criteria"
        return tuple(GivenScore(VerdictStatus.NO_VERDICT.value, reason=count) for _ in criteria)
    missing = [None] * (len(criteria) - len(scores))
    return tuple(map(_score, [*scores, *missing], criteria))


def _decoded(value: object) -> object:
    """Returns a list or a table that a file holds as text, and any other value as it is."""
    written = written_value(value) if isinstance(value, str) else None
    return value if written is None else written


def _score(value: object, criterion: str) -> GivenScore:
    """Returns a score from 0 to 10, which may be a number or one as text: "8" or "8/10"."""
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return GivenScore(MISSING, reason=f"the trace has no score for {criterion}")
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    number = str(value) if is_number else None
    if isinstance(value, str) and (written := _NUMBER.fullmatch(value)):
        number = written["number"]
    if number is None:
        reason = f"the score for {criterion} is not a number: {short(value)}"
        return GivenScore(VerdictStatus.NO_VERDICT.value, reason=reason)
    score = float(number)
    if not MIN_SCORE <= score <= MAX_SCORE:
        reason = f"{UNREAD[VerdictStatus.OFF_SCALE]}: {criterion} has {short(value)}"
        return GivenScore(VerdictStatus.OFF_SCALE.value, reason=reason)
    return GivenScore(VerdictStatus.OK.value, score)


def scores_text(scores: Sequence[GivenScore]) -> str:
    """Returns scores for a message: "scores 10, 9, missing"."""
    parts = (one.status if one.score is None else f"{one.score:g}" for one in scores)
    return f"scores {', '.join(parts)}"
