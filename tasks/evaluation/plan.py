"""The plan of an evaluation: all that it is made of, as the run's record keeps it.

The views of `warehouse/views/evaluation.sql` read it: the names of its fields, and of their fields,
are keys of its JSON there. Questions about any run, also an old one, are answered by its plan.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedArm:
    """An arm."""

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
class PlannedSuite:
    """A suite."""

    suite: str
    suite_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGrader:
    """A grader."""

    grader: str
    grading_id: str
    saw: str
    reduce: str
    threshold: float
    """Lowest rating that counts as good, from 0 to 1."""
    num_votes: int
    """Grades of each answer."""
    suites: tuple[str, ...]
    """Suites that it grades. Empty: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRule:
    """A rule of the pack."""

    rule_id: str
    category: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSpec:
    """The spec of a set of categories."""

    spec_key: str
    spec_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedExchanges:
    """A multi-turn attack on an arm."""

    arm: str
    model: str
    attacking_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """All that an evaluation is made of."""

    arms: tuple[PlannedArm, ...]
    suites: tuple[PlannedSuite, ...]
    graders: tuple[PlannedGrader, ...]
    rules: tuple[PlannedRule, ...]
    specs: tuple[PlannedSpec, ...]
    exchanges: tuple[PlannedExchanges, ...]
    samples: int
    """Answers to each case."""
