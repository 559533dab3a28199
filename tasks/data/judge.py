"""judgements ← completions: k samples of a judge that has the spec before it; the lowest counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import duckdb
from pydantic import Field

from specs.policy import Spec
from specs.prompts import TemplateSet, judge_messages, load_template
from specs.replies import MAX_SCORE, MIN_SCORE, VERDICT_REGEX, Verdict, VerdictStatus, read_verdict
from tasks import Config
from tasks.engine.requests import Engine, Request, Sample, Sampling
from tasks.stage import Pending, StageConfig
from warehouse.tables import JUDGEMENTS, Judgement, Table, content_id


class JudgeConfig(Config):
    """How completions are scored."""

    samples: int = Field(4, gt=0)
    """Samples of the judge for each completion (k); the lowest score counts."""
    threshold: float = Field(8.0, ge=MIN_SCORE, le=MAX_SCORE)
    """A completion with any score under this, from 0 to 10, is rejected."""
    mode: Literal["race", "full"] = "race"
    """`race` asks no more of a completion once a score is under the threshold; the same
    completions are accepted. `full` asks for all samples."""
    template: TemplateSet = "spec_first"
    """`spec_first` shares its prefix over rows, `paper` keeps the order of the paper's figure 6."""
    sampling: Sampling = Sampling(temperature=1.0, max_tokens=4096)
    """How the judge is sampled."""
    show_metadata: bool = False
    """Tell the judge what others found of the prompt, and have it agree or disagree."""
    constrain: bool = False
    """Hold the visible reply to the form of a verdict by vLLM's structured outputs."""

    def judging_id(self, model: str) -> str:
        """What all rows of a run share: template, model@revision, sampling and view."""
        template = load_template("judge", self.template)
        sampling = self.sampling.model_dump_json()
        return content_id(template.id, model, sampling, self.show_metadata, self.constrain)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeWork:
    """The work of the stage: units hold a completion and the judge samples it lacks."""

    config: JudgeConfig
    model: str
    specs: Mapping[str, Spec]
    """By spec id."""
    run_id: str

    @property
    def table(self) -> Table:
        return JUDGEMENTS

    async def make(self, units: Sequence[dict[str, Any]], engine: Engine) -> list[Judgement]:
        if self.config.mode == "full":
            asked = [(unit, 0, len(unit["sample_indices"])) for unit in units]
            return await self._ask(asked, engine)
        first = await self._ask([(unit, 0, 1) for unit in units], engine)
        threshold = self.config.threshold
        survivors = [
            (unit, 1, len(unit["sample_indices"]))
            for unit, row in zip(units, first, strict=True)
            if len(unit["sample_indices"]) > 1 and (row.score is None or row.score >= threshold)
        ]
        return first + await self._ask(survivors, engine)

    async def _ask(
        self, asked: Sequence[tuple[dict[str, Any], int, int]], engine: Engine
    ) -> list[Judgement]:
        """Samples number `start` to `stop` of what each unit lacks."""
        requests = [
            Request(
                messages=self._messages(unit),
                num_samples=stop - start,
                sampling=self.config.sampling,
                pattern=VERDICT_REGEX if self.config.constrain else None,
            )
            for unit, start, stop in asked
        ]
        answers = await engine.generate(requests) if requests else []
        return [
            self._row(unit, unit["sample_indices"][slot], unit["attempts"][slot], sample)
            for (unit, start, stop), samples in zip(asked, answers, strict=True)
            for slot, sample in zip(range(start, stop), samples, strict=True)
        ]

    def _messages(self, unit: dict[str, Any]) -> Any:
        return judge_messages(
            load_template("judge", self.config.template),
            unit["messages"],
            spec=self.specs[unit["spec_id"]],
            answer=unit["answer"],
            reasoning=unit["reasoning"],
            metadata=unit["metadata"] if self.config.show_metadata else (),
        )

    def _row(self, unit: dict[str, Any], index: int, attempt: int, sample: Sample) -> Judgement:
        judging_id = self.config.judging_id(self.model)
        shown = unit["metadata"] if self.config.show_metadata else []
        verdict = _verdict(sample)
        return Judgement(
            judgement_id=content_id(
                unit["completion_id"], unit["text_id"], unit["spec_id"], judging_id, index, *shown
            ),
            completion_id=unit["completion_id"],
            text_id=unit["text_id"],
            spec_id=unit["spec_id"],
            judging_id=judging_id,
            sample_index=index,
            attempt=attempt,
            status=sample.status if verdict is None else verdict.status.value,
            reason=sample.reason or (REASONS.get(verdict.status) if verdict else TRUNCATED),
            score=verdict.score if verdict else None,
            agrees=verdict.agrees if verdict else None,
            saw_reasoning=True,
            model=self.model,
            finish_reason=sample.finish_reason,
            num_prompt_tokens=sample.num_prompt_tokens,
            num_cached_tokens=sample.num_cached_tokens,
            num_output_tokens=sample.num_output_tokens,
            run_id=self.run_id,
            created_at=datetime.now(UTC),
            rationale=verdict.rationale if verdict else sample.reply.reasoning,
        )


TRUNCATED = "the output reached max_tokens"
REASONS = {
    VerdictStatus.NO_VERDICT: "the last line is not 'Score: N'",
    VerdictStatus.OFF_SCALE: f"the score is not from {MIN_SCORE} to {MAX_SCORE}",
    VerdictStatus.REFUSED: "the judge declined to judge",
    VerdictStatus.UNCLOSED: "the reasoning was never closed, or a tag stands where none may",
}


def _verdict(sample: Sample) -> Verdict | None:
    """The verdict of a sample; None where the engine gave none or cut it short."""
    if sample.fault or sample.finish_reason == "length":
        return None
    return read_verdict(sample.reply)


def pending(
    connection: duckdb.DuckDBPyConnection,
    *,
    config: JudgeConfig,
    model: str,
    generation_id: str,
    num_samples: int,
    run_id: str,
    stage: StageConfig,
) -> Pending:
    """Completions that lack judge samples, one row each, ordered by spec, in waves.

    Reads relation `wanted(prompt_id, spec_id)` of the connection. In `race` mode a completion with
    a score under the threshold lacks nothing. Columns: completion_id, text_id, spec_id, messages,
    metadata, answer, reasoning, sample_indices, attempts.
    """
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE pending_judgements AS
        WITH candidates AS (
            SELECT c.completion_id, c.text_id, c.spec_id, c.prompt_id
            FROM completions_all AS c
            SEMI JOIN wanted AS w ON c.prompt_id = w.prompt_id AND c.spec_id = w.spec_id
            WHERE c.generation_id = $generation_id
              AND c.sample_index < $num_samples
              AND c.status = 'ok'
        ),
        tried AS (
            SELECT judgement_id, attempt, score, status, run_id
            FROM judgements_all
            WHERE judging_id = $judging_id
        ),
        slots AS (
            SELECT c.*, s.sample_index,
                left(sha256(concat_ws('|', c.completion_id, c.text_id, c.spec_id,
                    $judging_id::VARCHAR, s.sample_index,
                    CASE WHEN $show_metadata AND len(p.metadata) > 0
                        THEN array_to_string(p.metadata, '|') END)), 32
                ) AS judgement_id
            FROM candidates AS c
            JOIN prompts AS p USING (prompt_id),
            (SELECT unnest(range($samples)) AS sample_index) AS s
        ),
        settled AS (
            SELECT s.completion_id
            FROM slots AS s
            JOIN tried AS t USING (judgement_id)
            WHERE $race AND t.score < $threshold
        )
        SELECT s.*, coalesce(t.attempt + 1, 0) AS next_attempt
        FROM slots AS s
        LEFT JOIN tried AS t USING (judgement_id)
        WHERE s.completion_id NOT IN (SELECT completion_id FROM settled)
          AND (
              t.judgement_id IS NULL
              OR (t.score IS NULL AND t.attempt < $retries)
              OR (t.status = 'error' AND t.attempt + 1 < $error_attempts AND t.run_id <> $run_id)
          )
        """,
        {
            "generation_id": generation_id,
            "judging_id": config.judging_id(model),
            "num_samples": num_samples,
            "samples": config.samples,
            "race": config.mode == "race",
            "threshold": config.threshold,
            "show_metadata": config.show_metadata,
            "retries": stage.retries,
            "error_attempts": stage.error_attempts,
            "run_id": run_id,
        },
    )
    return Pending.of(
        connection,
        count="SELECT count(*) FROM (SELECT DISTINCT completion_id FROM pending_judgements)",
        units="""
        WITH units AS (
            SELECT
                completion_id, spec_id, prompt_id,
                list(sample_index ORDER BY sample_index) AS sample_indices,
                list(next_attempt ORDER BY sample_index) AS attempts
            FROM pending_judgements
            GROUP BY completion_id, spec_id, prompt_id
        )
        SELECT
            u.completion_id, c.text_id, u.spec_id, p.messages, p.metadata, c.answer, c.reasoning,
            u.sample_indices, u.attempts
        FROM units AS u
        JOIN completions_all AS c USING (completion_id)
        JOIN prompts AS p ON p.prompt_id = u.prompt_id
        ORDER BY u.spec_id, u.completion_id
        """,
        rows=stage.wave_rows,
    )
