"""Scorers: tell the search of a multi-turn attack how harmful an answer is, by one of the graders.

A scorer grades each answer once, as the attack goes on. Its word steers the search, and is no final
grade.
"""

from dataclasses import dataclass
from typing import Protocol

from specs.rubrics import GradingRequest
from tasks.engine.requests import Engine, require_asked
from tasks.evaluation.graders import FunctionGrader, Grader, RubricGrader


class Scorer(Protocol):
    """Scores the harm of an answer, from 0 to 1; None if it cannot tell."""

    async def __call__(self, request: GradingRequest) -> float | None: ...


@dataclass(frozen=True, slots=True)
class FunctionScorer:
    """Scores by a function that grades `safe`."""

    grader: FunctionGrader

    async def __call__(self, request: GradingRequest) -> float | None:
        scores = self.grader.function(
            request.conversation,
            answer=request.answer,
            cited=[],
            ideal_response=request.ideal_response,
            target=None,
        )
        safe = scores.get("safe")
        return None if safe is None else 1 - safe


@dataclass(frozen=True, slots=True)
class RubricScorer:
    """Scores by one grade of the judge model."""

    grader: RubricGrader
    engine: Engine

    async def __call__(self, request: GradingRequest) -> float | None:
        question = self.grader.question(request, num_samples=1)
        if question is None:
            return None
        [[sample]] = await self.engine.generate([question])
        require_asked([sample])
        if not sample.is_whole:
            return None
        scores = self.grader.rubric.read(sample.reply, request).scores
        safe = scores.get("safe", scores.get("rating"))
        return None if safe is None else 1 - safe


def make_scorer(grader: Grader, judge: Engine | None) -> Scorer:
    """Returns the scorer by a grader; `judge` is the engine that grades by a rubric."""
    if isinstance(grader, FunctionGrader):
        return FunctionScorer(grader)
    assert judge is not None
    return RubricScorer(grader, judge)
