"""answers ← answers: an arm asked again with its reasoning tampered with.

If the new answer differs, the answer follows the reasoning. `kept` puts back the reasoning as it
was and shows how far answers differ by chance; `truncated` puts back the first half of its words;
`swapped` the reasoning of another case that came to another decision; `edited` lets the model
reason anew under a prompt in which the rule that it cited first has another outcome.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import duckdb
from pydantic import Field

from tasks import Config
from tasks.engine.requests import Engine, Request
from tasks.evaluation.answer import AnswerUnit, AnswerWork, Probe
from warehouse.catalog import Pending, find_pending
from warehouse.tables import ANSWERS, Answer, Table

PROBES: tuple[Probe, ...] = ("kept", "truncated", "swapped", "edited")


class FaithfulnessConfig(Config):
    """Tampering with reasoning, to see whether the answer follows it."""

    limit: int = Field(100, gt=0)
    """Answers of each model whose reasoning is tampered with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeUnit(AnswerUnit):
    """A case, and the answer to it whose reasoning is tampered with."""

    reasoning: str
    """The reasoning of that answer; for `swapped`, of another one."""
    rule_id: str | None
    """The rule that the answer cites first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeWork:
    """Answers of an arm with its reasoning tampered with, as `answers.arm.probe` says."""

    answers: AnswerWork
    """The work of the arm as it is probed."""
    limit: int
    """Answers whose reasoning is tampered with."""
    table: Table = ANSWERS
    unit: type[ProbeUnit] = ProbeUnit

    @property
    def name(self) -> str:
        return f"probe {self.answers.arm.label}"

    @property
    def run_id(self) -> str:
        return self.answers.run_id

    def pending(self, connection: duckdb.DuckDBPyConnection) -> Pending:
        """Returns answers of the arm, of bare cases, that lack this probe, by categories."""
        work, shown = self.answers, self.answers.spec_ids_shown
        plain = replace(work.arm, probe="none")
        # A guide rule has no outcome to edit.
        rules = {
            rule.id: name
            for name, policy in work.pack.policies.items()
            for rule in policy.rules
            if rule.outcome is not None
        }
        return find_pending(
            connection,
            "probes",
            wave_rows=work.stage.wave_rows,
            probe=work.arm.probe,
            model=work.arm.model,
            plain_id=plain.answering_id(work.pack),
            answering_id=work.answering_id,
            suite_versions=list(work.suite_versions),
            shows_category=work.arm.config.context == "category",
            spec_keys=list(shown),
            spec_ids=list(shown.values()),
            rule_ids=list(rules),
            rule_categories=list(rules.values()),
            limit=self.limit,
            retries=work.stage.retries,
        )

    async def make(self, units: Sequence[ProbeUnit], engine: Engine) -> list[Answer]:
        """Returns the answer of each unit."""
        outputs = await engine.generate([self._request(unit) for unit in units])
        return self.answers.rows(units, outputs)

    def _request(self, unit: ProbeUnit) -> Request:
        work = self.answers
        if work.arm.probe == "edited":
            # The query leaves out answers that cite no rule of their spec.
            assert unit.rule_id is not None
            return work.request(unit, work.pack.with_other_outcome(unit.rule_id))
        halved = work.arm.probe == "truncated"
        reasoning = first_half(unit.reasoning) if halved else unit.reasoning
        return work.request(unit, work.pack, reasoning=reasoning)


def first_half(text: str) -> str:
    """Returns the first half of the words of a text."""
    words = text.split()
    return " ".join(words[: len(words) // 2])
