"""completions ← prompts: n samples of a generator that has spec(category) before it.

For comparison, the spec can be left out, or the generator can revise its own answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import duckdb
from pydantic import Field

from specs.policy import Rule, Spec
from specs.prompts import Message, generator_messages
from specs.reasoning import find_citations
from specs.template import DEFAULT_SET, Template, load_template
from tasks import Config
from tasks.engine.requests import TRUNCATED, Engine, Request, Sample, Sampling
from tasks.paths import LocatedTemplates
from tasks.refine import Drafts, RefineConfig, Refiner
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
    context: Literal["category", "none"] = "category"
    """Policies shown to the generator: the prompt's `category` in full, or `none`, as a baseline.
    The judge sees them either way."""
    refine: RefineConfig | None = None
    """Critique and revision of each completion by the generator; the last revision is kept. Unset:
    completions are not revised."""

    def generation_id(self, model: str) -> str:
        """Returns the hash of what all completions of a run share: template, model@revision,
        sampling, context and refinement settings."""
        template = load_template("generator", self.template)
        return generation_id_of(template, self, model, refiner=self.refiner({}))

    def messages(
        self, template: Template, messages: Sequence[Message], *, spec: Spec
    ) -> list[Message]:
        """Returns what the generator is shown of a prompt by its template."""
        if self.context == "none":
            return list(messages)
        return generator_messages(template, messages, spec=spec)

    def refiner(self, rules: Mapping[str, Rule]) -> Refiner | None:
        """Returns what revises completions, with the rules of the pack; None if nothing does."""
        if self.refine is None:
            return None
        return Refiner.of(self.refine, self.sampling, rules=rules, templates=self.template)


def generation_id_of(
    template: Template, config: GenerateConfig, model: str, *, refiner: Refiner | None
) -> str:
    """Returns the hash of what all completions of one template, configuration, model and refiner
    share."""
    shown = template.id if config.context == "category" else "no policies"
    refined = [refiner.identity] if refiner else []
    return content_id(shown, model, config.sampling.identity, *refined)


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
    rules: Mapping[str, Rule]
    """The rules of the pack by their ids."""
    run_id: str
    name: str = "generate"
    table: Table = COMPLETIONS
    unit: type[CompletionUnit] = CompletionUnit
    template: Template = field(init=False)
    """Read where the work is planned, as those of the refiner are: the machine of an engine may
    lack their files."""
    _refiner: Refiner | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", load_template("generator", self.config.template))
        object.__setattr__(self, "_refiner", self.config.refiner(self.rules))

    @property
    def generation_id(self) -> str:
        return generation_id_of(self.template, self.config, self.model, refiner=self._refiner)

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
                messages=self.config.messages(
                    self.template, unit.messages, spec=self.specs[unit.spec_id]
                ),
                num_samples=len(unit.sample_indices),
                sampling=self.config.sampling,
            )
            for unit in units
        ]
        outputs = await engine.generate(requests)
        if self._refiner:
            outputs = await self._refined(self._refiner, units, outputs, engine)
        return [
            self._row(unit, slot, sample)
            for unit, samples in zip(units, outputs, strict=True)
            for slot, sample in enumerate(samples)
        ]

    async def _refined(
        self,
        refiner: Refiner,
        units: Sequence[CompletionUnit],
        outputs: Sequence[Sequence[Sample]],
        engine: Engine,
    ) -> list[list[Sample]]:
        """Returns the samples of each unit after their revision."""
        drafts = [
            Drafts(
                key=unit.prompt_id,
                messages=unit.messages,
                spec=self.specs[unit.spec_id],
                indices=unit.sample_indices,
                samples=samples,
            )
            for unit, samples in zip(units, outputs, strict=True)
        ]
        return await refiner.refined(drafts, engine)

    def _row(self, unit: CompletionUnit, slot: int, sample: Sample) -> Completion:
        """Returns the row of the sample that the unit lacks in this slot."""
        index = unit.sample_indices[slot]
        reply = sample.reply
        cited = find_citations(reply.reasoning, rule_ids=tuple(self.rules))
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
