"""evaluations ← answers: grades, by functions and by rubrics.

Every grade is a row. One that could not be read has null scores and is asked for again within a
budget.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from specs.prompts import Message
from specs.replies import Reply, ReplyStatus
from specs.rubrics import UNASKED_GRADE, GradingRequest, RubricGrade
from tasks.engine.requests import Engine, Sample
from tasks.evaluation.answer import RECORDED
from tasks.evaluation.graders import FunctionGrader, Grader, RubricGrader
from tasks.stage import StageConfig
from warehouse.catalog import Pending, find_pending
from warehouse.home import Home
from warehouse.shards import write_all
from warehouse.tables import EVALUATIONS, Evaluation, Score, Table, content_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmAnswers:
    """The answers of one arm that are graded."""

    model: str
    """`name@revision`."""
    answering_id: str
    samples: int
    """Answers to each case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeUnit:
    """An answer and the grades that it lacks."""

    block_key: str
    """The `spec_key` of its case's categories."""
    answer_id: str
    text_id: str
    grading_context_id: str
    original: list[Message]
    """The chat before any attack."""
    categories: list[str]
    ideal_response: str | None
    target: str | None
    """The gold answer, or what people said of this one."""
    model: str
    """The model that answered."""
    answer: str
    reasoning: str
    cited: list[str]
    sample_indices: list[int]
    attempts: list[int]
    """The attempt that each of these grades would be; from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """The scores that an answer gets, or why it gets none."""

    status: str
    """`ok`, or the reason that the grade could not be had, as of judgements."""
    scores: Mapping[str, float | None]
    """From 0 to 1."""
    reason: str | None = None
    """The fault, in words."""
    num_output_tokens: int | None = 0
    rationale: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeWork:
    """Grades of the answers of arms in suites, by one grader."""

    grader: Grader
    spec_ids: Mapping[str, str]
    """By `spec_key`, the id of the full spec of every set of categories among the cases."""
    arms: tuple[ArmAnswers, ...]
    suite_versions: tuple[str, ...]
    stage: StageConfig
    run_id: str
    table: Table = EVALUATIONS
    unit: type[GradeUnit] = GradeUnit

    @property
    def name(self) -> str:
        return f"grade {self.grader.config.name}"

    @property
    def spec_ids_shown(self) -> Mapping[str, str]:
        """The specs that tell grades of one `grading_id` apart, as in `spec_ids`."""
        shows_spec = isinstance(self.grader, RubricGrader) and self.grader.shows_spec
        return self.spec_ids if shows_spec else {}

    def pending(self, connection: duckdb.DuckDBPyConnection) -> Pending:
        """Returns the answers that lack grades, by categories."""
        shown = self.spec_ids_shown
        return find_pending(
            connection,
            "evaluations",
            wave_rows=self.stage.wave_rows,
            grading_id=self.grader.grading_id,
            samples=self.grader.config.samples,
            models=[arm.model for arm in self.arms],
            answering_ids=[arm.answering_id for arm in self.arms],
            num_answers=[arm.samples for arm in self.arms],
            suite_versions=list(self.suite_versions),
            spec_keys=list(shown),
            spec_ids=list(shown.values()),
            retries=self.stage.retries,
        )

    async def make(self, units: Sequence[GradeUnit], engine: Engine) -> list[Evaluation]:
        """Returns a row for every grade that the units lack."""
        if isinstance(self.grader, FunctionGrader):
            grades = [[grade_by_function(self.grader, unit)] for unit in units]
        else:
            grades = await _grade_by_rubric(self.grader, units, engine)
        return [
            self.row(unit, slot, grade)
            for unit, of_unit in zip(units, grades, strict=True)
            for slot, grade in enumerate(of_unit)
        ]

    def row(self, unit: GradeUnit, slot: int, grade: Grade) -> Evaluation:
        """Returns the row of the grade that the unit lacks in this slot."""
        grader, index = self.grader, unit.sample_indices[slot]
        rubric_grader = grader if isinstance(grader, RubricGrader) else None
        spec_id = self.spec_ids_shown.get(unit.block_key)
        return Evaluation(
            evaluation_id=content_id(
                unit.answer_id,
                unit.text_id,
                grader.grading_id,
                index,
                spec_id or "",
                unit.grading_context_id,
            ),
            answer_id=unit.answer_id,
            text_id=unit.text_id,
            grading_id=grader.grading_id,
            grader=grader.config.name,
            saw=grader.config.saw,
            sample_index=index,
            attempt=unit.attempts[slot],
            status=grade.status,
            reason=grade.reason,
            model=rubric_grader.model if rubric_grader else None,
            template_id=rubric_grader.rubric.template.id if rubric_grader else None,
            spec_id=spec_id,
            grading_context_id=unit.grading_context_id,
            scores=[Score(name=name, value=value) for name, value in grade.scores.items()],
            num_output_tokens=grade.num_output_tokens,
            run_id=self.run_id,
            created_at=datetime.now(UTC),
            rationale=grade.rationale,
        )


def grade_without_engine(work: GradeWork, connection: duckdb.DuckDBPyConnection, home: Home) -> int:
    """Makes what is pending of a grader that is a function, in this process; returns the number
    of rows."""
    grader = work.grader
    assert isinstance(grader, FunctionGrader)

    def rows() -> Iterator[Evaluation]:
        for wave in work.pending(connection):
            for row in wave.to_pylist():
                unit = GradeUnit(**row)
                yield work.row(unit, 0, grade_by_function(grader, unit))

    return write_all(home, EVALUATIONS, rows())


def grade_by_function(grader: FunctionGrader, unit: GradeUnit) -> Grade:
    """Returns the grade of an answer by a function; a fault of the function is an error of the
    answer."""
    if grader.config.function == "gold" and unit.model != RECORDED:
        reason = "people have graded the answers that came with the suite, and no others"
        return Grade(status="error", scores={}, reason=reason)
    try:
        scores = grader.function(
            unit.original,
            answer=unit.answer,
            cited=unit.cited,
            ideal_response=unit.ideal_response,
            target=unit.target,
        )
    except Exception as error:  # one answer that a grader cannot read must not cost the others
        reason = f"{grader.config.function}: {type(error).__name__}: {error}"
        return Grade(status="error", scores={}, reason=reason)
    return Grade(status="ok", scores=scores)


async def _grade_by_rubric(
    grader: RubricGrader, units: Sequence[GradeUnit], engine: Engine
) -> list[list[Grade]]:
    """Returns the grades that each unit lacks, by the judge model."""
    requests = [_request(grader, unit) for unit in units]
    questions = [
        grader.question(request, num_samples=len(unit.sample_indices))
        for request, unit in zip(requests, units, strict=True)
    ]
    # Reasoning that speaks of no policy is graded without a question.
    asked = [question for question in questions if question is not None]
    outputs = iter(await engine.generate(asked) if asked else [])
    return [
        [_of_rubric(UNASKED_GRADE)] * len(unit.sample_indices)
        if question is None
        else [_read(grader, request, sample) for sample in next(outputs)]
        for unit, request, question in zip(units, requests, questions, strict=True)
    ]


def _request(grader: RubricGrader, unit: GradeUnit) -> GradingRequest:
    return GradingRequest(
        conversation=unit.original,
        answer=unit.answer,
        reasoning=unit.reasoning if grader.config.saw != "answer" else None,
        ideal_response=unit.ideal_response,
        categories=unit.categories,
    )


def _read(grader: RubricGrader, request: GradingRequest, sample: Sample) -> Grade:
    """Returns the grade that a sample of the judge model gives."""
    if sample.is_whole:
        return _of_rubric(grader.rubric.read(sample.reply, request), sample)
    # The names of the scores depend on the request: a reply without a verdict has them, all null.
    nothing = grader.rubric.read(Reply(ReplyStatus.UNCLOSED, "", ""), request)
    unread = RubricGrade(sample.status, nothing.scores, sample.reply.reasoning)
    return _of_rubric(unread, sample)


def _of_rubric(grade: RubricGrade, sample: Sample | None = None) -> Grade:
    return Grade(
        status=grade.status,
        scores=grade.scores,
        reason=sample.reason if sample else None,
        num_output_tokens=sample.num_output_tokens if sample else 0,
        rationale=grade.rationale,
    )
