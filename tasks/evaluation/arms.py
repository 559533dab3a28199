"""The arms of an evaluation and its plan: which models are asked what, and who grades them."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedArm:
    """An arm as the views over an evaluation read it."""

    position: int
    """Place in tables; arms of one name, which are other seeds, share it."""
    arm: str
    seed: int | None
    model: str
    checkpoint_id: str | None
    answering_id: str
    context: str
    budget: int | None
    probe: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGrader:
    """A grader as the views over an evaluation read it."""

    grader: str
    grading_id: str
    saw: str
    reduce: str
    threshold: float
    """Lowest rating that counts as good, from 0 to 1."""
    num_votes: int
    """Grades per answer."""
    suites: tuple[str, ...]
    """Suites that it grades; empty for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """All that an evaluation is made of; `views/evaluation.sql` reads it from the run's record."""

    arms: tuple[PlannedArm, ...]
    specs: tuple[dict[str, str], ...]
    suites: tuple[dict[str, str], ...]
    graders: tuple[PlannedGrader, ...]
    rules: tuple[dict[str, str], ...]
    samples: int
    exchanges: tuple[dict[str, Any], ...]
