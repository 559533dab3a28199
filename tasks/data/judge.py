"""judgements ← completions: k samples of a judge that has the spec before it; the lowest counts.

A judgement is about a text: completions of one prompt and spec with equal texts share it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import duckdb
from pydantic import Field, model_validator

from specs.criteria import judging_form, judging_template
from specs.policy import Spec
from specs.prompts import Message, judge_messages
from specs.replies import (
    FORM_VERSION,
    MAX_SCORE,
    MIN_SCORE,
    ReplyForm,
    Verdict,
    VerdictStatus,
    read_verdict,
)
from specs.template import DEFAULT_SET, Template, TemplateKind, load_template
from tasks import Config, require_own_names
from tasks.engine.requests import TRUNCATED, Engine, Request, Sample, Sampling
from tasks.paths import LocatedTemplates
from tasks.stage import StageConfig
from warehouse.catalog import Pending, find_pending
from warehouse.tables import JUDGEMENTS, CriterionScore, Judgement, Table, content_id


class JudgeConfig(Config):
    """Scoring of completions by the judge."""

    samples: int = Field(4, gt=0)
    """Judge samples per completion (k); the lowest score counts. Completions of a prompt with equal
    texts share theirs."""
    threshold: float = Field(8.0, ge=MIN_SCORE, le=MAX_SCORE)
    """Lowest accepted score, from 0 to 10; a completion with any score under it is rejected."""
    mode: Literal["race", "full"] = "race"
    """`race` asks for no more samples of a completion after a score under the threshold, and
    accepts the same completions; `full` asks for all samples."""
    template: LocatedTemplates = DEFAULT_SET
    """Template set `spec_first`, `paper`, `safeguard` or `harbour`, or a folder of your own, for
    all that the judge model is asked, by graders as well; of a list, the first that has a template
    counts."""
    criteria: list[str] = []
    """Criteria that each judge sample scores, of which the lowest counts: `compliance`,
    `citations`, `reasoning`, `helpfulness`, `correctness`, or some of your own in the template
    folder. Empty: one score of the completion as a whole. Graders have criteria of their own, and
    the reward of RL is one score."""
    sampling: Sampling = Sampling(temperature=1.0, max_tokens=4096)
    """Sampling of the judge."""
    show_metadata: bool = False
    """Show the judge the findings of others on the prompt, and have it agree or disagree."""
    constrain: bool = True
    """Hold a reply to the form of a verdict, its reasoning between its marks where the model
    reasons, by vLLM's structured outputs."""

    @model_validator(mode="after")
    def _check(self) -> "JudgeConfig":
        require_own_names("criteria", self.criteria)
        template = self.judging_template
        if self.show_metadata and "metadata" not in template.placeholders:
            raise ValueError(
                f"show_metadata is true and template {template.name} has no {{{{metadata}}}}; add "
                "it, or set show_metadata = false"
            )
        return self

    def form(self, criteria: Sequence[str]) -> ReplyForm | None:
        """Returns the form of replies that score these criteria; None if replies are free."""
        if not self.constrain:
            return None
        return judging_form(criteria, max_tokens=self.sampling.max_tokens)

    def judging_id(self, model: str) -> str:
        """Returns the hash of what all judgements of a run share: template, model@revision,
        sampling and what the judge is shown."""
        return judging_id_of(self.judging_template, self, model)

    def jury_id(self, models: Sequence[str]) -> str:
        """Returns the hash of what all judgements of a jury share, in whatever order its judges
        come; of one judge, its `judging_id`."""
        if len(models) == 1:
            return self.judging_id(models[0])
        return content_id("jury", *self.judging_ids(models))

    def judging_ids(self, models: Sequence[str]) -> list[str]:
        """Returns the `judging_id` of each judge, sorted."""
        return sorted(map(self.judging_id, models))

    @property
    def judging_template(self) -> Template:
        """The template by which completions are judged, with the criteria in it."""
        return judging_template(self.template, self.criteria)

    def template_of(self, kind: TemplateKind) -> Template:
        """Returns a template by which the judge model is asked."""
        return load_template(kind, self.template)


def judging_id_of(template: Template, config: JudgeConfig, model: str) -> str:
    """Returns the hash of what all judgements of one template, configuration and model share."""
    metadata = "between marks" if config.show_metadata else False
    form = config.constrain and FORM_VERSION
    return content_id(template.id, model, config.sampling.identity, metadata, form)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgementUnit:
    """A text of one or several completions, and the judge samples that it lacks."""

    block_key: str
    """The spec id."""
    prompt_id: str
    text_id: str
    spec_id: str
    messages: list[Message]
    metadata: list[str]
    """Findings of others on the prompt."""
    reasoning: str
    answer: str
    sample_indices: list[int]
    attempts: list[int]
    """The attempt that each of these samples would be; from 0."""


class _Slots(NamedTuple):
    """Some of the samples that a unit lacks: its slots from `start` up to `stop`."""

    unit: JudgementUnit
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeWork:
    """Judgements of the completions of relation `wanted(prompt_id, spec_id)`."""

    config: JudgeConfig
    stage: StageConfig
    model: str
    """`name@revision` of the judge."""
    generation_id: str
    num_completions: int
    """Completions per prompt that are judged."""
    specs: Mapping[str, Spec]
    """The specs by their ids."""
    run_id: str
    jury: Sequence[str] = ()
    """`name@revision` of all judges of a jury. Empty: this one judges alone."""
    table: Table = JUDGEMENTS
    unit: type[JudgementUnit] = JudgementUnit
    template: Template = field(init=False)
    """Read where the work is planned: the machine of an engine may lack its file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", self.config.judging_template)

    @property
    def name(self) -> str:
        return f"judge {self.model}" if self.jury else "judge"

    @property
    def judging_id(self) -> str:
        return self._judging_id(self.model)

    def _judging_id(self, model: str) -> str:
        return judging_id_of(self.template, self.config, model)

    def pending(self, connection: duckdb.DuckDBPyConnection) -> Pending:
        """Returns the texts that lack judge samples, by spec, each once.

        In a race a score of another judge of the jury settles a text as well.
        """
        is_race = self.config.mode == "race"
        jury = {self.model, *(self.jury if is_race else ())}
        return find_pending(
            connection,
            "judgements",
            wave_rows=self.stage.wave_rows,
            generation_id=self.generation_id,
            judging_id=self.judging_id,
            jury=sorted(map(self._judging_id, jury)),
            num_completions=self.num_completions,
            samples=self.config.samples,
            race=is_race,
            threshold=self.config.threshold,
            show_metadata=self.config.show_metadata,
            retries=self.stage.retries,
            error_attempts=self.stage.error_attempts,
            run_id=self.run_id,
        )

    async def make(self, units: Sequence[JudgementUnit], engine: Engine) -> list[Judgement]:
        """Returns a judgement for every sample that the units lack and the race asks for.

        In a race one sample of each unit comes first; the rest are asked for only if it passed,
        and share its prefix in the engine's cache.
        """
        if self.config.mode == "full":
            return await self._ask(
                [_Slots(unit, 0, len(unit.sample_indices)) for unit in units], engine
            )
        first = await self._ask([_Slots(unit, 0, 1) for unit in units], engine)
        survivors = [
            _Slots(unit, 1, len(unit.sample_indices))
            for unit, row in zip(units, first, strict=True)
            if len(unit.sample_indices) > 1
            and (row.score is None or row.score >= self.config.threshold)
        ]
        return first + await self._ask(survivors, engine)

    async def _ask(self, slots: Sequence[_Slots], engine: Engine) -> list[Judgement]:
        """Returns the judgements of these slots, in order."""
        form = self.config.form(self.config.criteria)
        requests = [
            Request(
                messages=self._messages(unit),
                num_samples=stop - start,
                sampling=self.config.sampling,
                form=form,
            )
            for unit, start, stop in slots
        ]
        outputs = await engine.generate(requests) if requests else []
        return [
            self._row(unit, slot, sample)
            for (unit, start, stop), samples in zip(slots, outputs, strict=True)
            for slot, sample in zip(range(start, stop), samples, strict=True)
        ]

    def _messages(self, unit: JudgementUnit) -> list[Message]:
        return judge_messages(
            self.template,
            unit.messages,
            spec=self.specs[unit.spec_id],
            answer=unit.answer,
            reasoning=unit.reasoning,
            metadata=unit.metadata if self.config.show_metadata else (),
        )

    def _row(self, unit: JudgementUnit, slot: int, sample: Sample) -> Judgement:
        """Returns the row of the sample that the unit lacks in this slot."""
        index = unit.sample_indices[slot]
        shown = unit.metadata if self.config.show_metadata else []
        verdict = self._verdict(sample)
        return Judgement(
            judgement_id=content_id(
                unit.prompt_id, unit.text_id, unit.spec_id, self.judging_id, index, *shown
            ),
            completion_id=None,
            prompt_id=unit.prompt_id,
            text_id=unit.text_id,
            spec_id=unit.spec_id,
            judging_id=self.judging_id,
            sample_index=index,
            attempt=unit.attempts[slot],
            status=sample.status if verdict is None else verdict.status.value,
            reason=sample.reason or (self._reason(verdict.status) if verdict else TRUNCATED),
            score=verdict.score if verdict else None,
            criteria=[
                CriterionScore(criterion=name, score=score)
                for name, score in (verdict.criteria if verdict else {}).items()
            ],
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

    def _verdict(self, sample: Sample) -> Verdict | None:
        """Returns the verdict of a sample, or None if the engine gave none or cut it short."""
        return read_verdict(sample.reply, self.config.criteria) if sample.is_whole else None

    def _reason(self, status: VerdictStatus) -> str | None:
        """Returns why a reply has no score; None if it has one."""
        if self.config.criteria and status is VerdictStatus.NO_VERDICT:
            return _NOT_ALL_CRITERIA
        return REASONS.get(status)


REASONS = {
    VerdictStatus.NO_VERDICT: "the last line is not 'Score: N', or another line differs from it",
    VerdictStatus.OFF_SCALE: f"the score is not from {MIN_SCORE} to {MAX_SCORE}",
    VerdictStatus.REFUSED: "the judge declined to judge",
    VerdictStatus.UNCLOSED: "the reasoning was never closed, or a tag stands where none may",
}
_NOT_ALL_CRITERIA = (
    "the last lines are not a score of each criterion, or another line differs from one of them"
)
