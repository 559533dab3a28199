"""evaluations ← a model and a suite: answers without any spec, graded.

A suite is a file of prompts; a grader is a function that says what an answer is worth. Rows have
deterministic ids, so that an evaluation that is run again makes only what is missing.
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import Field

from specs.prompts import Message
from specs.replies import find_citations
from tasks import Config
from tasks.engine import Engine, Request, Sample, Sampling
from tasks.sources import Candidate
from tasks.stage import Pending
from warehouse.tables import EVALUATIONS, Evaluation, Score, Table, content_id

Grader = Callable[..., Mapping[str, float | None]]
"""(messages, answer=, cited=, ideal_response=) → figures from 0 to 1; null where there is none."""


class EvaluateConfig(Config):
    """How a model is evaluated."""

    grader: str
    """A Python function that grades an answer, as `package.module:function`."""
    samples: int = Field(1, gt=0)
    """Answers to each prompt."""
    sampling: Sampling = Sampling()
    """How the model is sampled."""

    @property
    def evaluating_id(self) -> str:
        """What all rows of an evaluation share: sampling and grader."""
        return content_id(self.sampling.model_dump_json(), self.grader)


class GraderError(ValueError):
    """A grader that cannot be used."""


def load_grader(name: str) -> Grader:
    """The function that `package.module:function` names; raises GraderError where there is none."""
    module, colon, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function) if colon else None
    except (ImportError, AttributeError):
        found = None
    if not callable(found):
        raise GraderError(f"no grader {name!r}: give a function as package.module:function")
    grader: Grader = found
    return grader


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Prompts that models are evaluated on, all with a fixed version."""

    name: str
    version: str
    """Hash of the prompts and what is said of them."""
    prompts: tuple[Candidate, ...]

    @classmethod
    def of(cls, name: str, prompts: Sequence[Candidate]) -> "Suite":
        """The suite of these prompts."""
        said = [
            (p.messages, p.categories, p.ideal_response, p.language, p.transform) for p in prompts
        ]
        return cls(name=name, version=content_id(json.dumps(said)), prompts=tuple(prompts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """The work of the stage: units hold a prompt and the sample indices it lacks."""

    config: EvaluateConfig
    suite: str
    suite_version: str
    model: str
    checkpoint_id: str | None
    all_rule_ids: tuple[str, ...]
    run_id: str

    @property
    def table(self) -> Table:
        return EVALUATIONS

    async def make(self, units: Sequence[dict[str, Any]], engine: Engine) -> list[Evaluation]:
        grader = load_grader(self.config.grader)
        requests = [
            Request(
                messages=unit["messages"],
                num_samples=len(unit["sample_indices"]),
                sampling=self.config.sampling,
            )
            for unit in units
        ]
        answers = await engine.generate(requests)
        return [
            self._row(unit, index, attempt, sample, grader)
            for unit, samples in zip(units, answers, strict=True)
            for index, attempt, sample in zip(
                unit["sample_indices"], unit["attempts"], samples, strict=True
            )
        ]

    def _row(
        self, unit: dict[str, Any], index: int, attempt: int, sample: Sample, grader: Grader
    ) -> Evaluation:
        reply = sample.reply
        messages: list[Message] = unit["messages"]
        cited = find_citations(reply.reasoning, rule_ids=self.all_rule_ids).known
        scores = (
            {}
            if sample.fault
            else grader(
                messages,
                answer=reply.answer,
                cited=list(cited),
                ideal_response=unit["ideal_response"],
            )
        )
        return Evaluation(
            evaluation_id=evaluation_id(
                self.config, self.model, self.suite_version, unit["prompt_id"], index
            ),
            checkpoint_id=self.checkpoint_id,
            model=self.model,
            suite=self.suite,
            suite_version=self.suite_version,
            evaluating_id=self.config.evaluating_id,
            prompt_id=unit["prompt_id"],
            sample_index=index,
            attempt=attempt,
            categories=unit["categories"],
            ideal_response=unit["ideal_response"],
            language=unit["language"],
            transform=unit["transform"],
            status=sample.status,
            reason=sample.reason,
            grader=self.config.grader,
            scores=[Score(name=name, value=value) for name, value in scores.items()],
            cited=list(cited),
            num_reasoning_tokens=reply.num_reasoning_tokens,
            num_answer_tokens=reply.num_answer_tokens,
            run_id=self.run_id,
            created_at=datetime.now(UTC),
            answer=reply.answer,
            reasoning=reply.reasoning,
        )


def evaluation_id(
    config: EvaluateConfig, model: str, suite_version: str, prompt_id: str, index: int
) -> str:
    """What names one graded answer."""
    return content_id(model, suite_version, prompt_id, config.evaluating_id, index)


def pending(
    connection: duckdb.DuckDBPyConnection,
    suite: Suite,
    *,
    config: EvaluateConfig,
    model: str,
    retries: int,
    wave_rows: int,
) -> Pending:
    """Prompts of a suite that lack graded answers of a model, one row each.

    Columns: prompt_id, spec_id (the category: what is alike goes together), messages, categories,
    ideal_response, language, transform, sample_indices, attempts.
    """
    tried = dict(
        connection.execute(
            "SELECT evaluation_id, CASE WHEN status = 'error' THEN attempt + 1 ELSE $retries + 1 "
            "END FROM evaluations WHERE model = $model AND suite_version = $version",
            {"model": model, "version": suite.version, "retries": retries},
        ).fetchall()
    )
    units = []
    for prompt in suite.prompts:
        attempts = {
            index: tried.get(
                evaluation_id(config, model, suite.version, prompt.prompt_id, index), 0
            )
            for index in range(config.samples)
        }
        lacking = {index: count for index, count in attempts.items() if count <= retries}
        if lacking:
            units.append(
                {
                    "prompt_id": prompt.prompt_id,
                    "spec_id": "+".join(prompt.categories),
                    "messages": [dict(message) for message in prompt.messages],
                    "categories": list(prompt.categories),
                    "ideal_response": prompt.ideal_response,
                    "language": prompt.language,
                    "transform": prompt.transform,
                    "sample_indices": list(lacking),
                    "attempts": list(lacking.values()),
                }
            )
    units.sort(key=lambda unit: (unit["spec_id"], unit["prompt_id"]))
    waves = (
        pa.Table.from_pylist(units[start : start + wave_rows])
        for start in range(0, len(units), wave_rows)
    )
    return Pending(len(units), waves)
