"""completions ← prompts: n samples of a generator that has spec(category) before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb
from pydantic import Field

from specs.policy import Spec
from specs.prompts import Message, generator_messages
from specs.reasoning import find_citations
from specs.template import DEFAULT_SET, Template, load_template
from tasks import Config
from tasks.engine.requests import TRUNCATED, Engine, Request, Sample, Sampling
from tasks.paths import LocatedTemplates
from tasks.stage import StageConfig
from warehouse.catalog import Pending, find_pending
from warehouse.tables import COMPLETIONS, Completion, Table, content_id, text_id


class GenerateConfig(Config):
    """Number, template and sampling of completions."""

    samples: int = Field(4, gt=0)
    """Completions per prompt."""
    template: LocatedTemplates = DEFAULT_SET
    """Template set `spec_first`, `paper` or `harbour`, or a folder with a generator.md of your own;
    of a list, the first that has the template counts."""
    sampling: Sampling = Sampling()
    """Sampling of the generator."""

    def generation_id(self, model: str) -> str:
        """Returns the hash of what all completions of a run share: template, model@revision and
        sampling."""
        return generation_id_of(load_template("generator", self.template), self.sampling, model)


def generation_id_of(template: Template, sampling: Sampling, model: str) -> str:
    """Returns the hash of what all completions of one template, sampling and model share."""
    return content_id(template.id, model, sampling.identity)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionUnit:
    """A prompt and the samples that it lacks."""

    block_key: str
    """The spec id."""
    prompt_id: str
    spec_id: str
    messages: list[Message]
    sample_indices: list[int]
    attempts: list[int]
    """The attempt that each of these samples would be; from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateWork:
    """Completions for the prompts of relation `wanted(prompt_id, spec_id)`."""

    config: GenerateConfig
    stage: StageConfig
    model: str
    """`name@revision` of the generator."""
    specs: Mapping[str, Spec]
    """The specs by their ids."""
    all_rule_ids: tuple[str, ...]
    run_id: str
    name: str = "generate"
    table: Table = COMPLETIONS
    unit: type[CompletionUnit] = CompletionUnit
    template: Template = field(init=False)
    """Read where the work is planned: the machine of an engine may lack its file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", load_template("generator", self.config.template))

    @property
    def generation_id(self) -> str:
        return generation_id_of(self.template, self.config.sampling, self.model)

    def pending(self, connection: duckdb.DuckDBPyConnection) -> Pending:
        """Returns the prompts that lack samples, by spec."""
        return find_pending(
            connection,
            "completions",
            wave_rows=self.stage.wave_rows,
            generation_id=self.generation_id,
            samples=self.config.samples,
            retries=self.stage.retries,
            error_attempts=self.stage.error_attempts,
            run_id=self.run_id,
        )

    async def make(self, units: Sequence[CompletionUnit], engine: Engine) -> list[Completion]:
        """Returns a completion for every sample that the units lack."""
        requests = [
            Request(
                messages=generator_messages(
                    self.template, unit.messages, spec=self.specs[unit.spec_id]
                ),
                num_samples=len(unit.sample_indices),
                sampling=self.config.sampling,
            )
            for unit in units
        ]
        outputs = await engine.generate(requests)
        return [
            self._row(unit, slot, sample)
            for unit, samples in zip(units, outputs, strict=True)
            for slot, sample in enumerate(samples)
        ]

    def _row(self, unit: CompletionUnit, slot: int, sample: Sample) -> Completion:
        """Returns the row of the sample that the unit lacks in this slot."""
        index = unit.sample_indices[slot]
        reply = sample.reply
        cited = find_citations(reply.reasoning, rule_ids=self.all_rule_ids)
        return Completion(
            completion_id=content_id(unit.prompt_id, unit.spec_id, self.generation_id, index),
            text_id=text_id(reply.reasoning, reply.answer),
            prompt_id=unit.prompt_id,
            spec_id=unit.spec_id,
            generation_id=self.generation_id,
            sample_index=index,
            attempt=unit.attempts[slot],
            status=sample.status,
            reason=sample.reason or REASONS.get(sample.status),
            finish_reason=sample.finish_reason,
            model=self.model,
            num_prompt_tokens=sample.num_prompt_tokens,
            num_cached_tokens=sample.num_cached_tokens,
            num_reasoning_tokens=sample.num_reasoning_tokens,
            num_answer_tokens=sample.num_answer_tokens,
            cited=list(cited.known),
            cited_unknown=list(cited.unknown),
            run_id=self.run_id,
            created_at=datetime.now(UTC),
            answer=reply.answer,
            reasoning=reply.reasoning,
        )


REASONS = {
    "truncated": TRUNCATED,
    "unclosed": "the reasoning was never closed",
    "malformed": "a reasoning tag stands where none may",
    "empty_answer": "nothing follows the reasoning",
    "empty_reasoning": "the model gave no reasoning",
}
"""Why a completion with this status cannot be used."""
