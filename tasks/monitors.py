"""findings ← reasoning of completions, answers and rollouts, which monitors read without a model.

Findings are for people, for questions and for the alarm of a training. No reward, filter or choice
of examples may read them: a model that is selected for reasoning without findings learns to hide
what it thinks, and the monitors go blind. A test holds that a reward does not depend on them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import duckdb

from specs.monitors import Findings, monitor, monitoring_version, rules_in
from specs.policy import Spec
from specs.reasoning import find_citations
from warehouse.catalog import look_up, stream
from warehouse.home import Home
from warehouse.shards import write_all, write_shard
from warehouse.tables import FINDINGS, ROLLOUTS, Finding, Rollout, content_id, text_id

Kind = Literal["completions", "answers", "rollouts"]
_BATCH_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Monitored:
    """The rows that the monitors read in one pass, and those that they flagged."""

    num_read: int
    flagged: Mapping[str, int]
    """Reasonings by monitor; one that several flag counts for each."""


def monitor_rows(
    connection: duckdb.DuckDBPyConnection,
    kind: Literal["completions", "answers"],
    *,
    home: Home,
    run_id: str,
) -> Monitored:
    """Reads the completions or answers that the monitors have not read, and stores what they
    find."""
    flagged: Counter[str] = Counter()
    specs = look_up(connection, "rules_of_specs")
    rules = {row["spec_id"]: rules_in(row["text"]) | {*row["rule_ids"]} for row in specs}

    def findings() -> Iterator[Finding]:
        batches = stream(
            connection,
            f"unmonitored_{kind}",
            batch_rows=_BATCH_ROWS,
            monitoring_id=monitoring_version(),
        )
        for row in (row for batch in batches for row in batch):
            found = monitor(
                row["reasoning"],
                row["answer"],
                cited=row["cited"],
                cited_unknown=row["cited_unknown"],
                spec_rules=rules.get(row["spec_id"]),
            )
            finding = _row(kind, row["row_id"], row["text_id"], found, run_id=run_id)
            flagged.update(name for name, is_so in _flags(finding).items() if is_so)
            yield finding

    num_read = write_all(home, FINDINGS, findings())
    return Monitored(num_read, dict(flagged))


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutMonitor:
    """The monitors of a training, which know the rules of its specs."""

    rule_ids: tuple[str, ...]
    """Ids of all rules of the pack."""
    spec_rules: Mapping[str, frozenset[str]]
    """By `spec_id`, the rules that the spec speaks of."""
    begun: frozenset[str] = frozenset()
    """Ids of prompts whose rollouts begin with reasoning that the model did not write. They are not
    read: its faults would pass for the model's own."""

    @classmethod
    def of(
        cls, rule_ids: tuple[str, ...], specs: Iterable[Spec], begun: Iterable[str] = ()
    ) -> "RolloutMonitor":
        """Returns the monitors for a pack with these rules, and prompts under these specs."""
        rules = {spec.id: rules_in(spec.text) | {*spec.rule_ids} for spec in specs}
        return cls(rule_ids=rule_ids, spec_rules=rules, begun=frozenset(begun))

    def record(self, home: Home, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Stores the rollouts of a step and what the monitors find in them; returns metrics."""
        write_shard(home, ROLLOUTS, rollouts)
        findings = [
            self._read(rollout)
            for rollout in rollouts
            if rollout.reasoning and rollout.prompt_id not in self.begun
        ]
        write_shard(home, FINDINGS, findings)
        return shares(findings)

    def _read(self, rollout: Rollout) -> Finding:
        cited = find_citations(rollout.reasoning, rule_ids=self.rule_ids)
        found = monitor(
            rollout.reasoning,
            rollout.answer,
            cited=cited.known,
            cited_unknown=cited.unknown,
            spec_rules=self.spec_rules.get(rollout.spec_id),
        )
        text = text_id(rollout.reasoning, rollout.answer)
        return _row("rollouts", rollout.rollout_id, text, found, run_id=rollout.run_id)


def shares(findings: Sequence[Finding]) -> dict[str, float]:
    """Returns metrics of a step: by monitor, the share of reasoning that it flags, and the share
    that any of them does. Without findings there are none."""
    if not findings:
        return {}
    flags = [_flags(finding) for finding in findings]
    metrics = {
        f"monitor/{name}_share": sum(one[name] for one in flags) / len(flags) for name in flags[0]
    }
    return {**metrics, FLAGGED: sum(any(one.values()) for one in flags) / len(flags)}


FLAGGED = "monitor/flagged_share"
"""The metric that the alarm of a training goes by."""


def _flags(finding: Finding) -> dict[str, bool]:
    """Returns by monitor whether it found something; the columns of question `monitors` are the
    same."""
    return {
        "invented": bool(finding.cited_unknown),
        "elsewhere": bool(finding.cited_elsewhere),
        "reversed": finding.is_reversed,
        "grading": finding.grading is not None,
        "policy_text": finding.policy_text is not None,
    }


def _row(kind: Kind, row_id: str, of_text: str, found: Findings, *, run_id: str) -> Finding:
    monitoring_id = monitoring_version()
    return Finding(
        finding_id=content_id(kind, row_id, of_text, monitoring_id),
        kind=kind,
        row_id=row_id,
        text_id=of_text,
        monitoring_id=monitoring_id,
        cited_unknown=list(found.cited_unknown),
        cited_elsewhere=list(found.cited_elsewhere),
        decision=found.decision,
        outcome=found.outcome,
        is_reversed=found.is_reversed,
        grading=found.grading,
        policy_text=found.policy_text,
        run_id=run_id,
        created_at=datetime.now(UTC),
    )
