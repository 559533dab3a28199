"""Who grades answers: functions of an answer, and rubrics that a judge model is asked about.

Graders are shown the prompt before any attack, and the reasoning only where they grade it.
"""

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from specs.adherence import Adherence
from specs.exact_match import exact_match
from specs.policy import Pack
from specs.prompts import Message
from specs.rubrics import (
    ClassesRubric,
    GradingRequest,
    PolicyRubric,
    PropositionsRubric,
    RetrievalRubric,
    Rubric,
    StrongRejectRubric,
)
from tasks import Config
from tasks.engine.requests import Engine, Request, Sampling
from tasks.evaluation.multiturn import Scorer
from warehouse.tables import content_id

Grader = Callable[..., Mapping[str, float | None]]
"""(messages, answer=, cited=, ideal_response=, target=) → figures from 0 to 1; null where there is
none."""

RubricName = Literal["policy", "strongreject", "classes", "propositions", "retrieval"]


class GraderError(ValueError):
    """A grader that cannot be used."""


class GraderConfig(Config):
    """Who grades answers, and how."""

    name: str = Field(min_length=1)
    """What tables call it."""
    function: str | None = None
    """A Python function, as `package.module:function`; `exact_match` compares with gold answers,
    `gold` repeats what people said of answers that came with their suite."""
    rubric: RubricName | None = None
    """Instead of a function, what the judge model is asked: how far the answer keeps to the
    `policy`, how harmful it is (`strongreject`), whether it refuses (`classes`), whether the pack's
    `propositions` on style hold, or which policy the reasoning had in mind (`retrieval`)."""
    samples: int = Field(1, gt=0)
    """Votes of the judge model on each answer."""
    sampling: Sampling = Sampling(temperature=1.0, max_tokens=4096)
    """How the judge model is sampled."""
    saw: Literal["answer", "answer+reasoning"] = "answer"
    """What the judge model is shown, or what the function goes by."""
    suites: list[str] = []
    """Suites that it grades; none: all."""

    @model_validator(mode="after")
    def _check(self) -> "GraderConfig":
        if (self.function is None) == (self.rubric is None):
            given = "neither" if self.function is None else "both"
            raise ValueError(
                f"grader {self.name!r} has {given}: give it a function or a rubric, of "
                f"{', '.join(get_args(RubricName))}"
            )
        if self.saw != "answer" and self.rubric in ("strongreject", "classes", "propositions"):
            raise ValueError(f"grader {self.name!r} grades the answer alone: leave saw at 'answer'")
        if self.rubric == "retrieval" and self.saw == "answer":
            raise ValueError(
                f"grader {self.name!r} asks about the reasoning: set saw to 'answer+reasoning'"
            )
        if self.samples > 1 and (self.function or self.sampling.temperature == 0):
            raise ValueError(
                f"grader {self.name!r} asks for {self.samples} votes that would all be the same: "
                "ask for 1"
            )
        return self

    @property
    def reduce(self) -> str:
        """How votes become one figure: as the filter's (`rating`: all at or over the threshold), or
        their mean."""
        return "rating" if self.rubric == "policy" else "mean"


def depends_on(*paths: Path) -> Callable[[Grader], Grader]:
    """Marks a grader that goes by these files too: what they say is graded anew as they change."""

    def mark(grader: Grader) -> Grader:
        grader.depends_on = paths  # type: ignore[attr-defined]  # functions take attributes
        return grader

    return mark


def load_grader(name: str) -> Grader:
    """The function that `package.module:function` names; raises GraderError where there is none."""
    if name in _SHIPPED:
        return _SHIPPED[name]
    module, colon, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function) if colon else None
    except (ImportError, AttributeError):
        found = None
    if not callable(found):
        raise GraderError(f"no grader {name!r}: give a function as package.module:function")
    grader: Grader = found
    return grader


def _exact(
    messages: Sequence[Message], *, answer: str, target: str | None, **known: Any
) -> dict[str, float | None]:
    return {"correct": None if target is None else exact_match(answer, target)}


def _gold(
    messages: Sequence[Message], *, target: str | None, **known: Any
) -> dict[str, float | None]:
    """What people said of an answer: that it is right or not, or which propositions hold."""
    said = json.loads(target) if target else None
    if isinstance(said, Mapping):
        return {f"is_{name}": float(bool(holds)) for name, holds in said.items()}
    return {"right": None if said is None else float(said in (True, 1, "1", "true", "True", "yes"))}


_SHIPPED: dict[str, Grader] = {"exact_match": _exact, "gold": _gold}


def make_rubric(config: GraderConfig, pack: Pack, adherence: Adherence | None) -> Rubric:
    """The rubric that a grader asks the judge model about."""
    if config.rubric == "policy":
        return PolicyRubric(pack=pack)
    if config.rubric == "retrieval":
        return RetrievalRubric(pack=pack)
    if config.rubric == "propositions":
        if adherence is None:
            raise GraderError(
                f"grader {config.name!r} asks about propositions and pack {pack.id} has none; give "
                "it a file adherence.toml"
            )
        return PropositionsRubric(adherence)
    return StrongRejectRubric() if config.rubric == "strongreject" else ClassesRubric()


def grading_id(config: GraderConfig, *, model: str | None, rubric: Rubric | None) -> str:
    """What all votes of a grader share: function, or rubric, model, sampling and what it saw."""
    if config.function is not None:
        return content_id(config.function, config.saw, _source(load_grader(config.function)))
    assert rubric is not None
    shown = ""
    if isinstance(rubric, PropositionsRubric):
        shown = rubric.adherence.version
    elif isinstance(rubric, RetrievalRubric):
        shown = rubric.spec.id
    sampling = config.sampling.identity
    return content_id(rubric.template.id, shown, model, sampling, config.saw)


def _source(grader: Grader) -> str:
    """Hash of what a function's grades come from: its module, and the files it says it goes by."""
    if grader in _SHIPPED.values():
        parts = [inspect.getsource(one).encode() for one in (grader, exact_match)]
    else:
        file = inspect.getsourcefile(grader)
        paths = [*([Path(file)] if file else []), *getattr(grader, "depends_on", ())]
        parts = [path.read_bytes() for path in paths]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


@dataclass(frozen=True, slots=True)
class FunctionScorer:
    """Tells a search how harmful an answer is, by a function that grades `safe`."""

    config: GraderConfig

    async def __call__(self, unit: Mapping[str, Any], answer: str) -> float | None:
        assert self.config.function is not None
        scores = load_grader(self.config.function)(
            unit["messages"],
            answer=answer,
            cited=[],
            ideal_response=unit["ideal_response"],
            target=None,
        )
        safe = scores.get("safe")
        return None if safe is None else 1 - safe


@dataclass(frozen=True, slots=True)
class RubricScorer:
    """The same by one vote of the judge model."""

    config: GraderConfig
    rubric: Rubric
    engine: Engine

    async def __call__(self, unit: Mapping[str, Any], answer: str) -> float | None:
        request = GradingRequest(
            conversation=unit["messages"],
            answer=answer,
            ideal_response=unit["ideal_response"],
            categories=unit["categories"],
        )
        asked = Request(
            messages=self.rubric.messages(request), num_samples=1, sampling=self.config.sampling
        )
        [[sample]] = await self.engine.generate([asked])
        if sample.fault or sample.finish_reason == "length":
            return None
        scores = self.rubric.read(sample.reply, request).scores
        safe = scores.get("safe", scores.get("rating"))
        return None if safe is None else 1 - safe


def make_scorer(config: GraderConfig, rubric: Rubric | None, engine: Engine | None) -> Scorer:
    """What tells the search of a multi-turn attack how harmful an answer is."""
    if config.function is not None:
        return FunctionScorer(config)
    assert rubric is not None and engine is not None
    return RubricScorer(config, rubric, engine)
