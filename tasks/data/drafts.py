"""drafts ← rules: prompts on both sides of a rule's line, written by a model or a function."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import duckdb
from pydantic import Field, field_validator

from specs.angles import Angle
from specs.policy import Pack, Rule, Spec
from specs.prompts import Message, fill_messages
from specs.refusals import declines
from specs.template import DEFAULT_SET, Template, load_template
from tasks import Config
from tasks.data.candidates import messages_id, read_chat, short
from tasks.data.chats import BadRowError, read_text
from tasks.data.generate import REASONS
from tasks.engine.requests import TRUNCATED, Engine, Request, Sample, Sampling
from tasks.paths import find_function
from tasks.stage import StageConfig
from warehouse.catalog import Pending, find_pending
from warehouse.tables import DRAFTS, Draft, Table, Turn, content_id


class DraftFunction(Protocol):
    """Writes a prompt in place of a model."""

    def __call__(self, pack: Pack, angle: Angle, *, sample_index: int) -> Sequence[Message] | None:
        """Returns a chat that ends on a user turn, the same for the same arguments; None if there
        is none to write at this angle."""
        ...


class FillConfig(Config):
    """Prompts that `precept policies fill` has written for rules that few prompts exercise."""

    floor: int = Field(5, gt=0)
    """Prompts that every rule is to have."""
    function: str | None = None
    """A Python function that writes them, as `package.module:function`; its name is hashed into the
    ids of drafts. Unset: the generator writes them, by template `fill` of `generate.template`."""
    sampling: Sampling = Sampling(temperature=1.0)
    """Sampling of the generator as it writes prompts."""

    @field_validator("sampling")
    @classmethod
    def _check_sampling(cls, sampling: Sampling) -> Sampling:
        if sampling.temperature == 0:
            raise ValueError(
                "temperature is 0, so that all drafts at one place would be the same: raise it"
            )
        return sampling

    @field_validator("function")
    @classmethod
    def _check_function(cls, name: str | None) -> str | None:
        if name is not None:
            find_function(name)
        return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An angle with its rule, and the spec that the writer is shown."""

    angle: Angle
    rule: Rule
    spec: Spec

    @property
    def id(self) -> str:
        """Hash of the spec and of all that the writer is told of the angle."""
        angle = self.angle
        near = [angle.near_id] if angle.near_id else []
        right = angle.ideal_response or ""
        return content_id(self.spec.id, angle.rule_id, angle.side, right, angle.text, *near)


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftUnit:
    """An angle and the drafts that it lacks."""

    block_key: str
    """The spec id."""
    angle_id: str
    sample_indices: list[int]
    attempts: list[int]
    """The attempt that each of these drafts would be; from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftWork:
    """Drafts for relation `wanted_drafts(angle_id, spec_id, sample_index)`."""

    config: FillConfig
    stage: StageConfig
    pack: Pack
    places: Mapping[str, Place]
    """By the ids of their angles."""
    model: str
    """`name@revision` of the generator."""
    run_id: str
    template: Template = field(default_factory=lambda: load_template("fill", DEFAULT_SET))
    name: str = "draft"
    table: Table = DRAFTS
    unit: type[DraftUnit] = DraftUnit

    @property
    def writer(self) -> str:
        """`name@revision` of the model that writes, or the name of the function."""
        return self.config.function or self.model

    @property
    def drafting_id(self) -> str:
        """Hash of what all drafts share: template, model and sampling, or the function's name."""
        if self.config.function:
            return content_id(self.config.function)
        return content_id(self.template.id, self.model, self.config.sampling.identity)

    def pending(self, connection: duckdb.DuckDBPyConnection) -> Pending:
        """Returns the angles that lack drafts, by spec."""
        return find_pending(
            connection,
            "drafts",
            wave_rows=self.stage.wave_rows,
            drafting_id=self.drafting_id,
            retries=self.stage.retries,
            error_attempts=self.stage.error_attempts,
            run_id=self.run_id,
        )

    async def make(self, units: Sequence[DraftUnit], engine: Engine) -> list[Draft]:
        """Returns the drafts that the units lack, written by the engine's model."""
        requests = [self._request(unit) for unit in units]
        outputs = await engine.generate(requests)
        return [
            self._row(unit, slot, _read(sample), sample)
            for unit, samples in zip(units, outputs, strict=True)
            for slot, sample in enumerate(samples)
        ]

    def make_by_function(self, units: Sequence[DraftUnit]) -> list[Draft]:
        """Returns the drafts that the units lack, written by the function of the configuration."""
        write: DraftFunction = find_function(self.config.function or "")
        drafts = []
        for unit in units:
            angle = self.places[unit.angle_id].angle
            for slot, index in enumerate(unit.sample_indices):
                read = _call(write, self.pack, angle, sample_index=index)
                drafts.append(self._row(unit, slot, read, None))
        return drafts

    def _request(self, unit: DraftUnit) -> Request:
        place = self.places[unit.angle_id]
        return Request(
            messages=fill_messages(self.template, place.angle, spec=place.spec, rule=place.rule),
            num_samples=len(unit.sample_indices),
            sampling=self.config.sampling,
        )

    def _row(self, unit: DraftUnit, slot: int, read: "_Read", sample: Sample | None) -> Draft:
        """Returns the row of the draft that the unit lacks in this slot."""
        place, index = self.places[unit.angle_id], unit.sample_indices[slot]
        angle = place.angle
        return Draft(
            draft_id=content_id(unit.angle_id, self.drafting_id, index),
            drafting_id=self.drafting_id,
            angle_id=unit.angle_id,
            spec_id=place.spec.id,
            rule_id=angle.rule_id,
            category=angle.category,
            side=angle.side,
            ideal_response=angle.ideal_response,
            near_id=angle.near_id,
            sample_index=index,
            attempt=unit.attempts[slot],
            status=read.status,
            reason=read.reason,
            model=self.writer,
            prompt_id=messages_id(read.messages) if read.messages else None,
            num_prompt_tokens=sample.num_prompt_tokens if sample else 0,
            num_cached_tokens=sample.num_cached_tokens if sample else 0,
            num_output_tokens=sample.num_output_tokens if sample else 0,
            run_id=self.run_id,
            created_at=datetime.now(UTC),
            angle=angle.text,
            messages=[Turn(**message) for message in read.messages],
        )


NOTHING = "the function has nothing to write at this angle"
DECLINED = "the model declined to write it"
_ENCLOSED = re.compile(
    r'"([^"]+)"|[“„]([^“”„]+)[“”]|«([^«»]+)»|「([^「」]+)」|`([^`]+)`', re.DOTALL
)
_FIRST_SENTENCE = re.compile(r"(?<=[.!?])\s|\n")


@dataclass(frozen=True, slots=True)
class _Read:
    """An output as a prompt, or the reason that it is none."""

    status: str
    reason: str | None = None
    messages: Sequence[Message] = ()


def _call(write: DraftFunction, pack: Pack, angle: Angle, *, sample_index: int) -> _Read:
    """Returns the prompt that a function wrote; whatever else it does is the fault of one draft."""
    try:
        chat = write(pack, angle, sample_index=sample_index)
    except Exception as error:
        return _Read("error", f"{type(error).__name__}: {error}")
    if chat is None:
        return _Read("empty_answer", NOTHING)
    # As a source reads it, so that both come to the same prompt.
    messages = read_chat(chat)
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        return _Read("error", f"{short(chat)} is no chat that ends on a user turn")
    return _Read("ok", messages=messages)


def is_declined(text: str) -> bool:
    """Returns True if the first sentence of a reply declines to write what was asked for."""
    return declines(_FIRST_SENTENCE.split(text, 1)[0])


def _read(sample: Sample) -> _Read:
    """Returns the prompt that a model wrote, without quotation marks around the whole of it."""
    if sample.status != "ok" or not sample.reply.has_answer:
        return _Read(sample.status, sample.reason or FAULTS.get(sample.status))
    text = sample.reply.answer.strip()
    if is_declined(text):
        return _Read("refused", DECLINED)
    if enclosed := _ENCLOSED.fullmatch(text):
        text = next(filter(None, enclosed.groups())).strip()
    try:
        # As a source reads it, so that both come to the same prompt.
        content = read_text(text)
    except BadRowError as fault:
        return _Read("empty_answer", str(fault))
    if not content.strip():
        return _Read("empty_answer", FAULTS["empty_answer"])
    return _Read("ok", messages=[{"role": "user", "content": content}])


FAULTS = {**REASONS, "truncated": TRUNCATED}
"""Why there is no text in an output with this status."""
