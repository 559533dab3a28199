"""answers ← cases: the answers of a model that is asked in one way, an arm.

The ways differ in how much of the policies stands in the prompt, in how long the model may reason,
in whether it revises its answer (`refine.py`), and in whether its reasoning is tampered with
(`probes.py`). Ids are deterministic, so an evaluation that runs again makes only the answers that
are missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import duckdb
from pydantic import Field

from specs.policy import Pack, Spec
from specs.prompts import Message, generator_messages
from specs.reasoning import find_citations, find_decision
from specs.replies import Reply, ReplyStatus
from specs.template import DEFAULT_SET, Template, load_template
from tasks import Config
from tasks.engine.requests import Engine, Request, Sample, Sampling
from tasks.refine import Drafts, Refiner
from tasks.stage import StageConfig
from warehouse.catalog import Pending, find_pending, look_up
from warehouse.home import Home
from warehouse.shards import write_all
from warehouse.tables import ANSWERS, Answer, Table, content_id, text_id

Context = Literal["none", "summary", "category"]
Probe = Literal["none", "kept", "truncated", "swapped", "edited"]


class AnswerConfig(Config):
    """The way a model is asked."""

    samples: int = Field(1, gt=0)
    """Answers to each case."""
    sampling: Sampling = Sampling()
    """Sampling of the model."""
    context: Context = "none"
    """Policies in the prompt: `none`, the `summary` of all, or the prompt's `category` in full."""
    budget: int | None = Field(None, ge=0)
    """Limit of the reasoning in tokens. Unset: as long as the model likes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A model that is asked in one way."""

    name: str
    """Name in tables; arms of one name are the seeds of one training."""
    model: str
    """`name@revision`."""
    checkpoint_id: str | None
    seed: int | None
    config: AnswerConfig
    probe: Probe = "none"
    template: Template = field(default_factory=partial(load_template, "generator", DEFAULT_SET))
    """Shows the model the policies of its context, if it has one."""
    refiner: Refiner | None = None
    """Has the model revise its answers. None: the first answer counts."""

    @property
    def label(self) -> str:
        """The arm's name with its seed and its probe, as progress and figures show it."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.name}{seed}" if self.probe == "none" else f"{self.name}{seed}, {self.probe}"

    def answering_id(self, pack: Pack) -> str:
        """Returns the hash of what all answers of the arm share: sampling, context, budget, probe
        and refinement settings."""
        shown = [] if self.config.context == "none" else [self.template.id]
        if self.config.context == "summary":
            shown.append(pack.spec([], detail="summary").id)
        return self.answering_id_of(shown)

    def answering_id_of(self, shown: Sequence[str]) -> str:
        """Returns that hash; `shown` are the ids of what the prompts have beside the case, such as
        the template and the summary of the policies."""
        config = self.config
        refined = [self.refiner.identity] if self.refiner else []
        return content_id(
            config.sampling.identity, config.context, config.budget, self.probe, *shown, *refined
        )

    @property
    def shows_category(self) -> bool:
        """True if the model is shown the policies of a case's categories in full, in the prompt or
        for a critique: their spec is then part of the id of an answer."""
        criticised = self.refiner is not None and self.refiner.config.rules != "none"
        return self.config.context == "category" or criticised

    def spec(self, pack: Pack, categories: Sequence[str]) -> Spec | None:
        """Returns the spec in the prompt of a case of these categories; None if there is none."""
        if self.config.context == "none":
            return None
        if self.config.context == "summary":
            return pack.spec([], detail="summary")
        return pack.spec_for(categories)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerUnit:
    """A case and the samples that it lacks."""

    block_key: str
    """The `spec_key` of its categories."""
    case_id: str
    messages: list[Message]
    categories: list[str]
    sanitised: bool
    """True if special tokens in the messages are broken."""
    sample_indices: list[int]
    attempts: list[int]
    """The attempt that each of these samples would be; from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerWork:
    """Answers of one arm to the cases of suites."""

    arm: Arm
    pack: Pack
    spec_ids: Mapping[str, str]
    """By `spec_key`, the id of the full spec of every set of categories among the cases."""
    suite_versions: tuple[str, ...]
    stage: StageConfig
    run_id: str
    table: Table = ANSWERS
    unit: type[AnswerUnit] = AnswerUnit

    @property
    def name(self) -> str:
        return f"answer {self.arm.label}"

    @property
    def answering_id(self) -> str:
        return self.arm.answering_id(self.pack)

    @property
    def spec_ids_shown(self) -> Mapping[str, str]:
        """The specs that tell answers of one `answering_id` apart, as in `spec_ids`."""
        return self.spec_ids if self.arm.shows_category else {}

    def pending(self, connection: duckdb.DuckDBPyConnection) -> Pending:
        """Returns the cases that lack answers, by categories."""
        shown = self.spec_ids_shown
        return find_pending(
            connection,
            "answers",
            wave_rows=self.stage.wave_rows,
            model=self.arm.model,
            answering_id=self.answering_id,
            samples=self.arm.config.samples,
            suite_versions=list(self.suite_versions),
            spec_keys=list(shown),
            spec_ids=list(shown.values()),
            retries=self.stage.retries,
        )

    async def make(self, units: Sequence[AnswerUnit], engine: Engine) -> list[Answer]:
        """Returns an answer for every sample that the units lack."""
        outputs = await engine.generate([self.request(unit, self.pack) for unit in units])
        if self.arm.refiner:
            outputs = await self._refined(self.arm.refiner, units, outputs, engine)
        return self.rows(units, outputs)

    async def _refined(
        self,
        refiner: Refiner,
        units: Sequence[AnswerUnit],
        outputs: Sequence[Sequence[Sample]],
        engine: Engine,
    ) -> list[list[Sample]]:
        """Returns the samples of each unit after their revision."""
        drafts = [
            Drafts(
                key=unit.case_id,
                messages=unit.messages,
                spec=self.pack.spec_for(unit.categories),
                indices=unit.sample_indices,
                samples=samples,
            )
            for unit, samples in zip(units, outputs, strict=True)
        ]
        refined = await refiner.refined(drafts, engine)
        return [[_with_all_tokens(sample) for sample in samples] for samples in refined]

    def request(self, unit: AnswerUnit, pack: Pack, *, reasoning: str | None = None) -> Request:
        """Returns what the engine is asked, with specs of `pack`; `reasoning` is put before the
        answer."""
        request = answer_request(
            self.arm,
            unit.messages,
            spec=self.arm.spec(pack, unit.categories),
            sanitised=unit.sanitised,
            num_samples=len(unit.sample_indices),
        )
        return replace(request, reasoning=reasoning)

    def rows(
        self, units: Sequence[AnswerUnit], outputs: Sequence[Sequence[Sample]]
    ) -> list[Answer]:
        """Returns the rows of the samples that the units lack."""
        answering_id = self.answering_id
        return [
            self._row(unit, slot, sample, answering_id=answering_id)
            for unit, samples in zip(units, outputs, strict=True)
            for slot, sample in enumerate(samples)
        ]

    def _row(self, unit: AnswerUnit, slot: int, sample: Sample, *, answering_id: str) -> Answer:
        """Returns the row of the sample that the unit lacks in this slot."""
        arm, reply = self.arm, sample.reply
        index = unit.sample_indices[slot]
        spec = arm.spec(self.pack, unit.categories)
        if arm.shows_category:
            spec = self.pack.spec_for(unit.categories)
        # Answers under other full specs share their answering_id; the summary is a part of it.
        own = spec.id if spec and arm.shows_category else ""
        cited = find_citations(reply.reasoning, rule_ids=self.pack.rule_ids)
        return Answer(
            answer_id=content_id(unit.case_id, arm.model, answering_id, index, own),
            text_id=text_id(reply.reasoning, reply.answer),
            case_id=unit.case_id,
            checkpoint_id=arm.checkpoint_id,
            model=arm.model,
            answering_id=answering_id,
            context=arm.config.context,
            spec_id=spec.id if spec else None,
            budget=arm.config.budget,
            probe=arm.probe,
            sample_index=index,
            attempt=unit.attempts[slot],
            status=answer_status(sample),
            reason=sample.reason,
            finish_reason=sample.finish_reason,
            decision=find_decision(reply.reasoning),
            cited=list(cited.known),
            cited_unknown=list(cited.unknown),
            closed_by_force=sample.closed_by_force,
            num_prompt_tokens=sample.num_prompt_tokens,
            num_reasoning_tokens=sample.num_reasoning_tokens,
            num_answer_tokens=sample.num_answer_tokens,
            run_id=self.run_id,
            created_at=datetime.now(UTC),
            answer=reply.answer,
            reasoning=reply.reasoning,
        )


def _with_all_tokens(sample: Sample) -> Sample:
    """Returns a refined sample in which all tokens but its answer's count as reasoning."""
    if sample.num_output_tokens is None:
        return sample
    num_reasoning = max(0, sample.num_output_tokens - sample.reply.num_answer_tokens)
    return replace(sample, reply=replace(sample.reply, num_reasoning_tokens=num_reasoning))


def answer_request(
    arm: Arm, messages: Sequence[Message], *, spec: Spec | None, sanitised: bool, num_samples: int
) -> Request:
    """Returns what the engine is asked for a case; `spec` is what stands in the prompt, if any."""
    return Request(
        messages=_messages(arm.template, messages, spec, sanitised=sanitised),
        num_samples=num_samples,
        sampling=arm.config.sampling,
        budget=arm.config.budget,
        raw=not sanitised,
    )


def _messages(
    template: Template, messages: Sequence[Message], spec: Spec | None, *, sanitised: bool
) -> list[Message]:
    if spec is None:
        return list(messages)
    filled = generator_messages(template, messages, spec=spec)
    if sanitised:
        return filled
    # Filling breaks special tokens, and an attack that forges structure needs them whole, in each
    # of its turns. System messages have joined ours, which is the first.
    turns = [message for message in messages if message["role"] != "system"]
    return [*filled[: len(filled) - len(turns)], *turns]


def answer_status(sample: Sample) -> str:
    """Returns the status of an answer; one without reasoning counts, as a budget of 0 allows."""
    return "ok" if sample.status == ReplyStatus.EMPTY_REASONING else sample.status


RECORDED = "recorded"
"""The model of answers that came with their suite."""


def store_recorded(
    connection: duckdb.DuckDBPyConnection,
    home: Home,
    recorded: Mapping[str, str],
    *,
    work: AnswerWork,
) -> int:
    """Stores the answers, by case id, that came with a suite; returns how many were new."""
    units = [
        AnswerUnit(
            block_key="",
            case_id=case_id,
            messages=[],
            categories=[],
            sanitised=True,
            sample_indices=[0],
            attempts=[0],
        )
        for case_id in recorded
    ]
    samples = [[Sample(Reply(ReplyStatus.OK, "", text))] for text in recorded.values()]
    stored = {row["answer_id"] for row in look_up(connection, "answer_ids", model=work.arm.model)}
    rows = [row for row in work.rows(units, samples) if row.answer_id not in stored]
    return write_all(home, ANSWERS, rows)
