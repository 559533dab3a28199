"""completions ← prompts: n samples of a writer that has spec(category) before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
from pydantic import Field

from specs.policy import Spec
from specs.prompts import TemplateSet, generator_messages, load_template
from specs.reasoning import find_citations
from tasks import Config
from tasks.engine.requests import Engine, Request, Sample, Sampling
from tasks.stage import Pending, StageConfig
from warehouse.tables import COMPLETIONS, Completion, Table, content_id, text_id


class GenerateConfig(Config):
    """What the generator is asked for."""

    samples: int = Field(4, gt=0)
    """Completions for each prompt."""
    template: TemplateSet = "spec_first"
    """`spec_first` shares its prefix over rows, `paper` keeps the order of the paper's figure 5."""
    sampling: Sampling = Sampling()
    """How the generator is sampled."""

    def generation_id(self, model: str) -> str:
        """What all rows of a run share: template, model@revision, sampling."""
        template = load_template("generator", self.template)
        return content_id(template.id, model, self.sampling.model_dump_json())


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateWork:
    """The work of the stage: units hold a prompt and the sample indices it lacks."""

    config: GenerateConfig
    model: str
    specs: Mapping[str, Spec]
    """By spec id."""
    all_rule_ids: tuple[str, ...]
    run_id: str

    @property
    def table(self) -> Table:
        return COMPLETIONS

    async def make(self, units: Sequence[dict[str, Any]], engine: Engine) -> list[Completion]:
        template = load_template("generator", self.config.template)
        requests = [
            Request(
                messages=generator_messages(
                    template, unit["messages"], spec=self.specs[unit["spec_id"]]
                ),
                num_samples=len(unit["sample_indices"]),
                sampling=self.config.sampling,
            )
            for unit in units
        ]
        answers = await engine.generate(requests)
        return [
            self._row(unit, index, attempt, sample)
            for unit, samples in zip(units, answers, strict=True)
            for index, attempt, sample in zip(
                unit["sample_indices"], unit["attempts"], samples, strict=True
            )
        ]

    def _row(self, unit: dict[str, Any], index: int, attempt: int, sample: Sample) -> Completion:
        generation_id = self.config.generation_id(self.model)
        reply = sample.reply
        cited = find_citations(reply.reasoning, rule_ids=self.all_rule_ids)
        return Completion(
            completion_id=content_id(unit["prompt_id"], unit["spec_id"], generation_id, index),
            text_id=text_id(reply.reasoning, reply.answer),
            prompt_id=unit["prompt_id"],
            spec_id=unit["spec_id"],
            generation_id=generation_id,
            sample_index=index,
            attempt=attempt,
            status=sample.status,
            reason=sample.reason or REASONS.get(sample.status),
            finish_reason=sample.finish_reason,
            model=self.model,
            num_prompt_tokens=sample.num_prompt_tokens,
            num_cached_tokens=sample.num_cached_tokens,
            num_reasoning_tokens=reply.num_reasoning_tokens,
            num_answer_tokens=reply.num_answer_tokens,
            cited=list(cited.known),
            cited_unknown=list(cited.unknown),
            run_id=self.run_id,
            created_at=datetime.now(UTC),
            answer=reply.answer,
            reasoning=reply.reasoning,
        )


REASONS = {
    "truncated": "the output reached max_tokens",
    "unclosed": "the reasoning was never closed",
    "malformed": "a reasoning tag stands where none may",
    "empty_answer": "nothing follows the reasoning",
    "empty_reasoning": "the model gave no reasoning",
}


def pending(
    connection: duckdb.DuckDBPyConnection,
    *,
    config: GenerateConfig,
    model: str,
    run_id: str,
    stage: StageConfig,
) -> Pending:
    """Prompts that lack samples, one row a prompt, ordered by spec, in waves.

    Reads relation `wanted(prompt_id, spec_id)` of the connection. Columns: prompt_id, spec_id,
    messages, sample_indices, attempts.
    """
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE pending_completions AS
        WITH slots AS (
            SELECT
                w.prompt_id, w.spec_id, s.sample_index,
                left(sha256(concat_ws('|', w.prompt_id, w.spec_id, $generation_id::VARCHAR,
                    s.sample_index)), 32) AS completion_id
            FROM wanted AS w
            SEMI JOIN prompts USING (prompt_id),
            (SELECT unnest(range($samples)) AS sample_index) AS s
        ),
        tried AS (
            SELECT
                completion_id,
                max(attempt) AS attempt,
                max_by(run_id, attempt) AS run_id,
                bool_or(status <> 'error') AS is_final
            FROM completions_raw
            WHERE generation_id = $generation_id
            GROUP BY completion_id
        )
        SELECT s.prompt_id, s.spec_id, s.sample_index, coalesce(t.attempt + 1, 0) AS attempt
        FROM slots AS s
        LEFT JOIN tried AS t USING (completion_id)
        WHERE t.completion_id IS NULL
            OR (NOT t.is_final AND t.attempt < $retries)
            OR (NOT t.is_final AND t.attempt + 1 < $error_attempts AND t.run_id <> $run_id)
        """,
        {
            "generation_id": config.generation_id(model),
            "samples": config.samples,
            "retries": stage.retries,
            "error_attempts": stage.error_attempts,
            "run_id": run_id,
        },
    )
    return Pending.of(
        connection,
        count="SELECT count(*) FROM (SELECT DISTINCT prompt_id, spec_id FROM pending_completions)",
        units="""
        WITH units AS (
            SELECT
                prompt_id, spec_id,
                list(sample_index ORDER BY sample_index) AS sample_indices,
                list(attempt ORDER BY sample_index) AS attempts
            FROM pending_completions
            GROUP BY prompt_id, spec_id
        )
        SELECT u.prompt_id, u.spec_id, p.messages, u.sample_indices, u.attempts
        FROM units AS u
        JOIN prompts AS p USING (prompt_id)
        ORDER BY u.spec_id, u.prompt_id
        """,
        rows=stage.wave_rows,
    )
