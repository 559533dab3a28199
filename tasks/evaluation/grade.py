"""evaluations ← answers: votes of graders. Every vote is a row; one that could not be read has no
score and is asked for again within a budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
from pydantic import Field, model_validator

from specs.replies import Reply, ReplyStatus
from specs.rubrics import UNASKED_GRADE, GradingRequest, PolicyRubric, Rubric, RubricGrade
from tasks import Config
from tasks.engine.requests import Engine, Request, Sample
from tasks.evaluation.answer import RECORDED, AnswerConfig, register_specs
from tasks.evaluation.graders import Grader, GraderConfig, load_grader
from tasks.evaluation.multiturn import MultiturnConfig
from warehouse.catalog import Pending
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import EVALUATIONS, Evaluation, Score, Table, content_id

_ROWS_A_SHARD = 20_000


class FaithfulnessConfig(Config):
    """Whether reasoning leads to the answer, or only goes before it."""

    limit: int = Field(100, gt=0)
    """Answers of each model whose reasoning is tampered with."""


class EvaluateConfig(AnswerConfig):
    """How models are evaluated."""

    suites: list[str] = Field(min_length=1)
    """Suites to ask: names of shipped ones, or TOML files."""
    graders: list[GraderConfig] = Field(min_length=1)
    """Who grades the answers."""
    limit: int | None = Field(None, gt=0)
    """Prompts of each suite; none: all."""
    faithfulness: FaithfulnessConfig | None = None
    """Tamper with reasoning, and see whether the answer follows; none: leave it."""
    converse: MultiturnConfig | None = None
    """Attack over several turns as well; none: ask once."""

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        names = [grader.name for grader in self.graders]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two graders are named {twice!r}: give each its own name")
        if self.converse and self.converse.grader not in names:
            raise ValueError(
                f"converse.grader {self.converse.grader!r} is none of {', '.join(names)}"
            )
        if self.converse and self.converse.suite not in self.suites:
            raise ValueError(
                f"converse.suite {self.converse.suite!r} is none of {', '.join(self.suites)}"
            )
        if self.samples > 1 and self.sampling.temperature == 0:
            raise ValueError(
                f"evaluate.sampling.temperature is 0 with {self.samples} samples, which would all "
                "be the same: raise the temperature or ask for 1 sample"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeWork:
    """The work of the stage: units hold an answer and the votes it lacks."""

    config: GraderConfig
    rubric: Rubric
    grading_id: str
    model: str
    run_id: str

    @property
    def table(self) -> Table:
        return EVALUATIONS

    async def make(self, units: Sequence[dict[str, Any]], engine: Engine) -> list[Evaluation]:
        shown = [self.rubric.messages(self._request(unit)) for unit in units]
        requests = [
            Request(
                messages=messages,
                num_samples=len(unit["sample_indices"]),
                sampling=self.config.sampling,
            )
            for unit, messages in zip(units, shown, strict=True)
            if messages
        ]
        made = iter(await engine.generate(requests) if requests else [])
        return [
            self._row(unit, index, attempt, sample)
            for unit, messages in zip(units, shown, strict=True)
            for index, attempt, sample in zip(
                unit["sample_indices"],
                unit["attempts"],
                next(made) if messages else [None] * len(unit["sample_indices"]),
                strict=True,
            )
        ]

    def _request(self, unit: Mapping[str, Any]) -> GradingRequest:
        return GradingRequest(
            conversation=unit["original"],
            answer=unit["answer"],
            reasoning=unit["reasoning"] if self.config.saw != "answer" else None,
            ideal_response=unit["ideal_response"],
            categories=unit["categories"],
        )

    def _row(
        self, unit: dict[str, Any], index: int, attempt: int, sample: Sample | None
    ) -> Evaluation:
        if sample is None:
            graded: RubricGrade | None = UNASKED_GRADE
            sample = Sample(Reply(ReplyStatus.OK, "", ""))
        elif sample.fault or sample.finish_reason == "length":
            graded = None
        else:
            graded = self.rubric.read(sample.reply, self._request(unit))
        spec_id = (
            self.rubric.spec(unit["categories"]).id
            if isinstance(self.rubric, PolicyRubric)
            else None
        )
        return _vote(
            unit["answer_id"],
            unit["text_id"],
            self.grading_id,
            index,
            grader=self.config.name,
            saw=self.config.saw,
            attempt=attempt,
            status=graded.status if graded else sample.status,
            reason=sample.reason,
            model=self.model,
            template_id=self.rubric.template.id,
            spec_id=spec_id,
            grading_context_id=unit["grading_context_id"],
            scores=graded.scores if graded else self._unread(unit),
            num_output_tokens=sample.num_output_tokens,
            run_id=self.run_id,
            rationale=graded.rationale if graded else sample.reply.reasoning,
        )

    def _unread(self, unit: Mapping[str, Any]) -> Mapping[str, float | None]:
        """The rubric's scores, all of them null."""
        nothing = Reply(ReplyStatus.UNCLOSED, "", "")
        return self.rubric.read(nothing, self._request(unit)).scores


def _vote(
    answer_id: str,
    text_id: str,
    grading_id: str,
    index: int,
    *,
    scores: Mapping[str, float | None],
    **values: Any,
) -> Evaluation:
    return Evaluation(
        evaluation_id=evaluation_id(
            answer_id, text_id, grading_id, index, values["spec_id"], values["grading_context_id"]
        ),
        answer_id=answer_id,
        text_id=text_id,
        grading_id=grading_id,
        sample_index=index,
        scores=[Score(name=name, value=value) for name, value in scores.items()],
        created_at=datetime.now(UTC),
        **values,
    )


def evaluation_id(
    answer_id: str,
    text_id: str,
    grading_id: str,
    index: int,
    spec_id: str | None,
    grading_context_id: str,
) -> str:
    """What names one vote."""
    return content_id(answer_id, text_id, grading_id, index, spec_id or "", grading_context_id)


_UNGRADED = """
    CREATE OR REPLACE TEMP TABLE ungraded AS
    WITH asked AS (
        SELECT DISTINCT ON (a.answer_id, c.grading_context_id)
            a.answer_id, a.text_id, c.grading_context_id, array_to_string(c.categories, '+') AS spec_key,
            c.original, c.categories, c.ideal_response, c.target
        FROM answers AS a
        JOIN cases AS c USING (case_id)
        JOIN arms_to_grade AS m ON m.model = a.model AND m.answering_id = a.answering_id
        WHERE a.status = 'ok' AND list_contains($versions, c.suite_version)
          AND a.sample_index < m.samples
    ),
    slots AS (
        SELECT
            a.*, s.sample_index,
            left(sha256(concat_ws('|', a.answer_id, a.text_id, $grading_id::VARCHAR, s.sample_index,
                coalesce(p.spec_id, ''), a.grading_context_id)), 32) AS evaluation_id
        FROM asked AS a
        LEFT JOIN specs_shown AS p USING (spec_key),
        (SELECT unnest(range($samples)) AS sample_index) AS s
    )
    SELECT s.*, coalesce(e.attempt + 1, 0) AS next_attempt
    FROM slots AS s
    LEFT JOIN evaluations AS e USING (evaluation_id)
    WHERE e.evaluation_id IS NULL OR (e.status <> 'ok' AND e.attempt < $retries)
"""

_UNITS = """
    WITH units AS (
        SELECT
            answer_id, grading_context_id,
            list(sample_index ORDER BY sample_index) AS sample_indices,
            list(next_attempt ORDER BY sample_index) AS attempts
        FROM ungraded
        GROUP BY ALL
    )
    SELECT
        u.answer_id, a.text_id, u.grading_context_id, c.spec_key AS spec_id, c.original, c.categories,
        c.ideal_response, c.target, a.model, a.answer, a.reasoning, a.cited, u.sample_indices,
        u.attempts
    FROM units AS u
    JOIN (SELECT DISTINCT ON (answer_id, grading_context_id) * FROM ungraded) AS c USING (answer_id, grading_context_id)
    JOIN answers AS a USING (answer_id)
    ORDER BY spec_id, u.answer_id
"""


def pending(
    connection: duckdb.DuckDBPyConnection,
    config: GraderConfig,
    *,
    grading_id: str,
    spec_ids: Mapping[str, str],
    suite_versions: Sequence[str],
    retries: int,
    wave_rows: int,
) -> Pending:
    """Answers that lack votes of a grader, one row each, by category.

    `spec_ids` says by categories (joined with `+`) which spec the grader is shown. Reads relation
    `arms_to_grade(model, answering_id, samples)` of the connection. Columns: answer_id, text_id,
    grading_context_id, spec_id, original, categories, ideal_response, target, model, answer, reasoning, cited,
    sample_indices, attempts.
    """
    register_specs(connection, spec_ids)
    connection.execute(
        _UNGRADED,
        {
            "grading_id": grading_id,
            "versions": list(suite_versions),
            "samples": config.samples,
            "retries": retries,
        },
    )
    count = "SELECT count(DISTINCT answer_id) FROM ungraded"
    return Pending.of(connection, count=count, units=_UNITS, rows=wave_rows)


def _graded(
    grader: Grader, config: GraderConfig, unit: Mapping[str, Any]
) -> tuple[Mapping[str, float | None], str | None]:
    """What a function says of an answer, or why it says nothing."""
    if config.function == "gold" and unit["model"] != RECORDED:
        return {}, "people have graded the answers that came with the suite, and no others"
    try:
        scores = grader(
            unit["original"],
            answer=unit["answer"],
            cited=unit["cited"],
            ideal_response=unit["ideal_response"],
            target=unit["target"],
        )
    except Exception as error:  # one answer that a grader cannot read is no reason to lose others
        return {}, f"{config.function}: {type(error).__name__}: {error}"
    return scores, None


def grade_by_function(
    units: Pending, config: GraderConfig, *, grading_id: str, home: Home, run_id: str
) -> int:
    """Grades answers by a function, and commits its votes; returns how many."""
    assert config.function is not None
    grader = load_grader(config.function)
    rows: list[Evaluation] = []
    num_rows = 0
    for wave in units:
        for unit in wave.to_pylist():
            scores, fault = _graded(grader, config, unit)
            rows.append(
                _vote(
                    unit["answer_id"],
                    unit["text_id"],
                    grading_id,
                    0,
                    grader=config.name,
                    saw=config.saw,
                    attempt=unit["attempts"][0],
                    status="error" if fault else "ok",
                    reason=fault,
                    model=None,
                    template_id=None,
                    spec_id=None,
                    grading_context_id=unit["grading_context_id"],
                    scores=scores,
                    num_output_tokens=0,
                    run_id=run_id,
                    rationale="",
                )
            )
            if len(rows) == _ROWS_A_SHARD:
                write_shard(home, EVALUATIONS, rows)
                num_rows, rows = num_rows + len(rows), []
    write_shard(home, EVALUATIONS, rows)
    return num_rows + len(rows)
