"""answers ← a model and cases: what it answers, and how it came to it.

An arm is a model asked in one way: with or without policies in its prompt, with or without a limit
to its reasoning, or with its reasoning tampered with. Rows have deterministic ids, so that an
evaluation that is run again asks only what is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import duckdb
import pyarrow as pa
from pydantic import Field

from specs.policy import Pack, Spec
from specs.prompts import Message, generator_messages, load_template
from specs.reasoning import find_citations, find_decision
from specs.replies import Reply, ReplyStatus
from tasks import Config
from tasks.engine.requests import Engine, Request, Sample, Sampling
from warehouse.catalog import Pending
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import ANSWERS, Answer, Table, content_id, text_id

Context = Literal["none", "summary", "category"]
Probe = Literal["none", "kept", "truncated", "swapped", "edited"]
PROBES: tuple[Probe, ...] = ("kept", "truncated", "swapped", "edited")


class AnswerConfig(Config):
    """How a model is asked."""

    samples: int = Field(1, gt=0)
    """Answers to each case."""
    sampling: Sampling = Sampling()
    """How the model is sampled."""
    context: Context = "none"
    """What of the policies stands in the prompt: nothing, the summary of all, or that of the
    prompt's category in full."""
    budget: int | None = Field(None, ge=0)
    """Most tokens of reasoning; none: as many as the model likes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A model that is asked in one way."""

    name: str
    """What tables call it; arms of the same name are other seeds of one training."""
    model: str
    """`name@revision`."""
    checkpoint_id: str | None
    seed: int | None
    config: AnswerConfig
    probe: Probe = "none"

    @property
    def label(self) -> str:
        """What progress and figures call it: its name with its seed and its probe."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.name}{seed}" if self.probe == "none" else f"{self.name}{seed}, {self.probe}"

    def answering_id(self, pack: Pack) -> str:
        """What all answers of the arm share: sampling, context, budget and probe."""
        config = self.config
        shown = [] if config.context == "none" else [load_template("generator", "spec_first").id]
        if config.context == "summary":
            shown.append(pack.spec([], detail="summary").id)
        return content_id(
            config.sampling.identity, config.context, config.budget, self.probe, *shown
        )

    def spec(self, pack: Pack, categories: Sequence[str]) -> Spec | None:
        """What stands in the prompt of a case of these categories; None where nothing does."""
        if self.config.context == "none":
            return None
        if self.config.context == "summary":
            return pack.spec([], detail="summary")
        return pack.spec_for(categories)


RECORDED = "recorded"
"""The model of answers that came with their suite."""


def store_recorded(
    connection: duckdb.DuckDBPyConnection,
    recorded: Mapping[str, str],
    *,
    arm: Arm,
    pack: Pack,
    home: Home,
    run_id: str,
) -> int:
    """Commits the answers that came with a suite and are not there; returns how many."""
    answering_id = arm.answering_id(pack)
    known = {row[0] for row in connection.execute("SELECT answer_id FROM answers").fetchall()}
    rows = []
    for case_id, text in recorded.items():
        if answer_id(case_id, arm.model, answering_id, 0) not in known:
            sample = Sample(Reply(ReplyStatus.OK, "", text))
            rows.append(_row(arm, pack, case_id, [], answering_id, 0, 0, sample, run_id))
    write_shard(home, ANSWERS, rows)
    return len(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerWork:
    """The work of the stage: units hold a case and the sample indices it lacks."""

    arm: Arm
    pack: Pack
    run_id: str

    @property
    def table(self) -> Table:
        return ANSWERS

    async def make(self, units: Sequence[dict[str, Any]], engine: Engine) -> list[Answer]:
        requests = [
            Request(
                messages=self._messages(unit),
                num_samples=len(unit["sample_indices"]),
                sampling=self.arm.config.sampling,
                budget=self.arm.config.budget,
                reasoning=unit["reasoning"],
                raw=not unit["sanitised"],
            )
            for unit in units
        ]
        made = await engine.generate(requests)
        answering_id = self.arm.answering_id(self.pack)
        return [
            _row(
                self.arm,
                self.pack,
                unit["case_id"],
                unit["categories"],
                answering_id,
                index,
                attempt,
                sample,
                self.run_id,
            )
            for unit, samples in zip(units, made, strict=True)
            for index, attempt, sample in zip(
                unit["sample_indices"], unit["attempts"], samples, strict=True
            )
        ]

    def _messages(self, unit: dict[str, Any]) -> list[Message]:
        messages: list[Message] = unit["messages"]
        pack = self.pack.with_other_outcome(unit["edited"]) if unit["edited"] else self.pack
        spec = self.arm.spec(pack, unit["categories"])
        if spec is None:
            return messages
        filled = generator_messages(load_template("generator", "spec_first"), messages, spec=spec)
        # What forges structure must reach the model as it is here too.
        return filled if unit["sanitised"] else [*filled[:-1], messages[-1]]


def _row(
    arm: Arm,
    pack: Pack,
    case_id: str,
    categories: Sequence[str],
    answering_id: str,
    index: int,
    attempt: int,
    sample: Sample,
    run_id: str,
) -> Answer:
    reply = sample.reply
    spec = arm.spec(pack, categories)
    own = spec.id if spec and arm.config.context == "category" else None
    cited = find_citations(reply.reasoning, rule_ids=pack.rule_ids)
    # Who was given no time to think has answered all the same.
    status = "ok" if sample.status == "empty_reasoning" else sample.status
    return Answer(
        answer_id=answer_id(case_id, arm.model, answering_id, index, own),
        text_id=text_id(reply.reasoning, reply.answer),
        case_id=case_id,
        checkpoint_id=arm.checkpoint_id,
        model=arm.model,
        answering_id=answering_id,
        context=arm.config.context,
        spec_id=spec.id if spec else None,
        budget=arm.config.budget,
        probe=arm.probe,
        sample_index=index,
        attempt=attempt,
        status=status,
        reason=sample.reason,
        finish_reason=sample.finish_reason,
        decision=find_decision(reply.reasoning),
        cited=list(cited.known),
        cited_unknown=list(cited.unknown),
        closed_by_force=sample.closed_by_force,
        num_prompt_tokens=sample.num_prompt_tokens,
        num_reasoning_tokens=reply.num_reasoning_tokens,
        num_answer_tokens=reply.num_answer_tokens,
        run_id=run_id,
        created_at=datetime.now(UTC),
        answer=reply.answer,
        reasoning=reply.reasoning,
    )


def answer_id(
    case_id: str, model: str, answering_id: str, index: int, spec_id: str | None = None
) -> str:
    """What names one answer; `spec_id` is that of its category, where it was shown that."""
    return content_id(case_id, model, answering_id, index, spec_id or "")


def pending(
    connection: duckdb.DuckDBPyConnection,
    arm: Arm,
    pack: Pack,
    *,
    suite_versions: Sequence[str],
    retries: int,
    wave_rows: int,
) -> Pending:
    """Cases of these suites that lack answers of an arm, one row each, by category.

    Columns: case_id, spec_id (the categories: what is alike goes together), messages, categories,
    sanitised, reasoning, edited, sample_indices, attempts.
    """
    keys = connection.execute(
        "SELECT DISTINCT array_to_string(categories, '+') FROM cases "
        "WHERE list_contains(?, suite_version)",
        [list(suite_versions)],
    ).fetchall()
    in_full = keys if arm.config.context == "category" else []
    register_specs(connection, {key: pack.spec_for(key.split("+")).id for (key,) in in_full})
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE pending_answers AS
        WITH asked AS (
            SELECT DISTINCT case_id, array_to_string(categories, '+') AS spec_key
            FROM cases
            WHERE list_contains($versions, suite_version)
        ),
        slots AS (
            SELECT
                c.case_id, c.spec_key, s.sample_index,
                left(sha256(concat_ws('|', c.case_id, $model::VARCHAR, $answering_id::VARCHAR,
                    s.sample_index, coalesce(p.spec_id, ''))), 32) AS answer_id
            FROM asked AS c
            LEFT JOIN specs_shown AS p USING (spec_key),
            (SELECT unnest(range($samples)) AS sample_index) AS s
        )
        -- Suites may share a case; what is the same answer is made once.
        SELECT DISTINCT ON (s.answer_id) s.*, coalesce(a.attempt + 1, 0) AS next_attempt
        FROM slots AS s
        LEFT JOIN answers AS a USING (answer_id)
        WHERE a.answer_id IS NULL OR (a.status = 'error' AND a.attempt < $retries)
        ORDER BY s.answer_id, s.spec_key
        """,
        {
            "model": arm.model,
            "answering_id": arm.answering_id(pack),
            "versions": list(suite_versions),
            "samples": arm.config.samples,
            "retries": retries,
        },
    )
    return Pending.of(
        connection,
        count="SELECT count(*) FROM (SELECT DISTINCT case_id, spec_key FROM pending_answers)",
        units="""
        WITH units AS (
            SELECT
                case_id, spec_key,
                list(sample_index ORDER BY sample_index) AS sample_indices,
                list(next_attempt ORDER BY sample_index) AS attempts
            FROM pending_answers
            GROUP BY case_id, spec_key
        )
        SELECT
            u.case_id, u.spec_key AS spec_id, c.messages,
            list_filter(string_split(u.spec_key, '+'), lambda name: name <> '') AS categories,
            c.sanitised, NULL::VARCHAR AS reasoning, NULL::VARCHAR AS edited,
            u.sample_indices, u.attempts
        FROM units AS u
        JOIN (SELECT DISTINCT ON (case_id) * FROM cases) AS c USING (case_id)
        ORDER BY spec_id, u.case_id
        """,
        rows=wave_rows,
    )


def register_specs(connection: duckdb.DuckDBPyConnection, shown: Mapping[str, str]) -> None:
    """Makes relation `specs_shown(spec_key, spec_id)` of specs by categories joined with `+`."""
    columns = {
        "spec_key": pa.array(list(shown), pa.string()),
        "spec_id": pa.array(list(shown.values()), pa.string()),
    }
    connection.register("specs_shown", pa.table(columns))
