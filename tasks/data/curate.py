"""examples ← accepted completions: a frozen, fingerprinted set that TRL can train on.

Every accepted completion gets a row: chosen, or left out with the reason. The spec is not in the
rows, and reasoning that points at it ("the policy above") is left out.

People have the last word on whether a completion is good: one that they reject is no example, and
one that they accept is, whatever the judge said. They have none on what a training row needs: a
completion that dangles or lacks its citation is left out all the same, and of a prompt no more are
kept than the recipe says, those that people accept first.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
from pydantic import Field

from specs.policy import spec_key
from specs.prompts import Message
from specs.reasoning import find_dangling
from tasks import Config
from warehouse.catalog import look_up
from warehouse.home import Home
from warehouse.shards import write_all
from warehouse.tables import EXAMPLES, AssistantTurn, Example, Turn, content_id


class CurateConfig(Config):
    """Choice of training rows among the accepted completions."""

    best_of: int = Field(1, gt=0)
    """Completions kept per prompt: those with the highest lowest score."""
    require_citation: bool = True
    """Leave out reasoning that cites no rule that exists."""
    allow_unknown_citations: bool = False
    """Keep reasoning that also cites rules that do not exist."""
    max_group_ratio: float | None = Field(None, ge=1)
    """Largest group of category and ideal response, as a multiple of the smallest. Unset: groups
    keep their sizes."""


@dataclass(frozen=True, slots=True)
class Curated:
    """A frozen set of examples."""

    set_id: str
    num_chosen: int
    num_left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedCompletion:
    """A completion that passed the judge or people, with its prompt and its scores."""

    completion_id: str
    text_id: str
    prompt_id: str
    spec_id: str
    cited: list[str]
    cited_unknown: list[str]
    answer: str
    reasoning: str
    categories: list[str]
    ideal_response: str | None
    messages: list[Message]
    judging_id: str
    min_score: float
    scores: list[float]
    accepted: bool
    """True if the judge accepted it."""
    review_verdict: str | None
    """`accepted`, `rejected`, `disputed` or `unsure`; None if nobody has reviewed it."""


def curate(
    connection: duckdb.DuckDBPyConnection,
    *,
    config: CurateConfig,
    home: Home,
    judging_id: str,
    run_id: str,
) -> Curated:
    """Freezes the accepted completions of view `wanted_completions` as a set of examples.

    The view `verdicts` says which the judge accepts, by the threshold and k of this run, and the
    view `reviewed` which people do. The same completions under the same settings are the same set,
    which is not written again; reviews that change what is in a set make another one of it.
    """
    rows = look_up(
        connection,
        "accepted_completions",
        run_id=run_id,
        judging_id=judging_id,
    )
    accepted = [AcceptedCompletion(**row) for row in rows]
    reasons = _reasons(accepted, config)
    num_chosen = sum(reason in CHOSEN for reason in reasons.values())
    # The words of the reasons are hashed: to reword one is to make another set.
    texts = {row.completion_id: row.text_id for row in accepted}
    lines = [f"{name} {texts[name]} {reasons[name]}" for name in sorted(reasons)]
    # Scores that came with traces may change, and are not those of this judge.
    given = [row for row in accepted if row.judging_id != judging_id]
    lines += sorted(
        f"{row.completion_id} {row.judging_id} {json.dumps(row.scores)}" for row in given
    )
    fingerprint = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    set_id = content_id(config.identity, judging_id, fingerprint)
    [stored] = look_up(connection, "set_size", set_id=set_id)
    if stored["num_rows"] != len(accepted):
        examples = (
            _example(row, reasons[row.completion_id], set_id=set_id, run_id=run_id)
            for row in accepted
        )
        write_all(home, EXAMPLES, examples)
    return Curated(set_id, num_chosen, len(accepted) - num_chosen)


def _example(row: AcceptedCompletion, reason: str, *, set_id: str, run_id: str) -> Example:
    reply = AssistantTurn(role="assistant", content=row.answer, reasoning_content=row.reasoning)
    return Example(
        set_id=set_id,
        completion_id=row.completion_id,
        prompt_id=row.prompt_id,
        status="chosen" if reason in CHOSEN else "left_out",
        reason=reason,
        categories=row.categories,
        ideal_response=row.ideal_response,
        spec_id=row.spec_id,
        score=row.min_score,
        scores=row.scores,
        cited=row.cited,
        run_id=run_id,
        created_at=datetime.now(UTC),
        prompt=[Turn(**turn) for turn in row.messages],
        completion=[reply],
    )


_BEST, _REVIEWED = "best of n", "reviewed: accepted"
CHOSEN = (_BEST, _REVIEWED)
"""The reasons of completions that are trained on; the second is of those that people accept and the
judge does not."""


def _reasons(accepted: Sequence[AcceptedCompletion], config: CurateConfig) -> dict[str, str]:
    """Returns by completion id the reason that it is chosen or left out.

    `accepted` lists the completions of a prompt from the best to the worst.
    """
    reasons: dict[str, str] = {}
    num_kept: dict[str, int] = defaultdict(int)
    groups: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for row in accepted:
        fault = _fault(row, config)
        if not fault and num_kept[row.prompt_id] >= config.best_of:
            fault = "not_best"
        if not fault:
            num_kept[row.prompt_id] += 1
            groups[spec_key(row.categories), row.ideal_response].append(row.completion_id)
        reasons[row.completion_id] = fault or (_BEST if row.accepted else _REVIEWED)
    if config.max_group_ratio and groups:
        largest = int(min(map(len, groups.values())) * config.max_group_ratio)
        for members in groups.values():
            # In the order of ids, which are hashes: a fair draw that is the same every time.
            for completion_id in sorted(members)[largest:]:
                reasons[completion_id] = "balance"
    return reasons


def _fault(row: AcceptedCompletion, config: CurateConfig) -> str | None:
    """Returns the reason that a completion must not be trained on, or None."""
    if row.review_verdict in ("rejected", "disputed"):
        return f"reviewed: {row.review_verdict}"
    if config.require_citation and not row.cited:
        return "uncited"
    if row.cited_unknown and not config.allow_unknown_citations:
        return "cites_unknown"
    has_system_message = any(turn["role"] == "system" for turn in row.messages)
    if find_dangling(row.reasoning, has_system_message=has_system_message):
        return "dangling"
    if find_dangling(row.answer, in_answer=True):
        return "dangling"
    return None
