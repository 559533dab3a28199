"""completions, judgements ← traces: the rows of traces and of the scores that came with them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import duckdb
import pyarrow as pa

from specs.reasoning import find_citations
from tasks.data.traces import GivenScore, TraceCandidate, TraceConfig
from warehouse.catalog import materialise
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS, JUDGEMENTS, Completion, Judgement, content_id, text_id

WANTED = pa.schema(
    [
        ("completion_id", pa.string()),
        ("prompt_id", pa.string()),
        ("judging_id", pa.string()),
        ("is_to_judge", pa.bool_()),
    ]
)
"""Columns of the traces that a run wants. `judging_id` is null if the recipe's judge judges them;
`is_to_judge` is true of those that it judges and that were not stored before."""


class TraceScores:
    """The scores that rows give to each trace, before any row is stored."""

    def __init__(self) -> None:
        self._scores: dict[tuple[bytes, str | None], tuple[GivenScore, ...]] = {}
        self._disputed: set[bytes] = set()

    def add(self, trace: TraceCandidate, source: TraceConfig) -> None:
        """Notes the scores of one more row; those of other judges are compared with their own."""
        before = self._scores.setdefault((trace.digest, source.judging_id), trace.scores)
        if before != trace.scores:
            self._disputed.add(trace.digest)
            lowest = tuple(map(_lower, before, trace.scores))
            self._scores[trace.digest, source.judging_id] = lowest

    def of(self, trace: TraceCandidate, source: TraceConfig) -> tuple[GivenScore, ...]:
        """Returns the scores of a trace; of rows that disagree, the lowest of each criterion."""
        return self._scores.get((trace.digest, source.judging_id), trace.scores)

    def is_disputed(self, trace: TraceCandidate) -> bool:
        """Returns whether rows give a trace different scores."""
        return trace.digest in self._disputed


def _lower(one: GivenScore, other: GivenScore) -> GivenScore:
    """Returns the lower of two scores; one that could not be read comes before any."""
    if one.score is None or other.score is None:
        return one if one.score is None else other
    return min(one, other, key=lambda given: given.score or 0.0)


class _StoredScore(NamedTuple):
    """The latest score of a criterion in the warehouse."""

    attempt: int
    score: GivenScore


@dataclass(frozen=True, slots=True)
class TraceStore:
    """Writes the traces that the warehouse lacks, and the scores that are new or changed."""

    home: Home
    connection: duckdb.DuckDBPyConnection
    rule_ids: Sequence[str]
    """Rules of the pack, which reasoning may cite."""
    run_id: str

    def store(self, traces: Sequence[TraceCandidate], source: TraceConfig) -> tuple[pa.Table, int]:
        """Writes what is new of some traces; returns the rows of `WANTED` and the number of new
        traces."""
        ids = pa.table({"completion_id": [trace.completion_id for trace in traces]})
        known = self._known_traces(ids)
        new = [trace for trace in traces if trace.completion_id not in known]
        if source.judging_id:
            write_shard(self.home, JUDGEMENTS, list(self._judgements(traces, ids, source)))
        write_shard(self.home, COMPLETIONS, [self._completion(trace, source) for trace in new])
        wanted = [
            {
                "completion_id": trace.completion_id,
                "prompt_id": trace.prompt_id,
                "judging_id": source.judging_id,
                "is_to_judge": not source.judging_id
                and trace.status == "ok"
                and trace.completion_id not in known,
            }
            for trace in traces
        ]
        return pa.Table.from_pylist(wanted, schema=WANTED), len(new)

    def _known_traces(self, ids: pa.Table) -> set[str]:
        rows = self._relation("known_traces").join(
            self.connection.from_arrow(ids), "completion_id", how="semi"
        )
        return {completion_id for (completion_id,) in rows.fetchall()}

    def _known_scores(self, ids: pa.Table, judging_id: str) -> Mapping[str, _StoredScore]:
        rows = self._relation("known_scores").join(
            self.connection.from_arrow(ids), "completion_id", how="semi"
        )
        return {
            name: _StoredScore(attempt, GivenScore(*given))
            for _, name, judging, attempt, *given in rows.fetchall()
            if judging == judging_id
        }

    def _relation(self, name: str) -> duckdb.DuckDBPyRelation:
        """Returns a lookup as a table that is read once, not again for each batch."""
        tables = self.connection.sql("SELECT table_name FROM duckdb_tables() WHERE temporary")
        if (name,) in tables.fetchall():
            return self.connection.table(name)
        return materialise(self.connection, name)

    def _completion(self, trace: TraceCandidate, source: TraceConfig) -> Completion:
        cited = find_citations(trace.reasoning, rule_ids=self.rule_ids)
        return Completion(
            completion_id=trace.completion_id,
            text_id=text_id(trace.reasoning, trace.answer),
            prompt_id=trace.prompt_id,
            spec_id=None,
            generation_id=source.generation_id,
            sample_index=0,
            attempt=0,
            status=trace.status,
            reason=trace.reason,
            finish_reason=None,
            model=source.model,
            num_prompt_tokens=0,
            num_cached_tokens=0,
            num_reasoning_tokens=0,
            num_answer_tokens=0,
            cited=list(cited.known),
            cited_unknown=list(cited.unknown),
            run_id=self.run_id,
            created_at=datetime.now(UTC),
            answer=trace.answer,
            reasoning=trace.reasoning,
        )

    def _judgements(
        self, traces: Sequence[TraceCandidate], ids: pa.Table, source: TraceConfig
    ) -> Iterator[Judgement]:
        """Yields the scores that are not stored as the traces have them."""
        judging_id = source.judging_id or ""
        known = self._known_scores(ids, judging_id)
        for trace in traces:
            text = text_id(trace.reasoning, trace.answer)
            for index, (criterion, given) in enumerate(
                zip(source.named_criteria, trace.scores, strict=True)
            ):
                name = content_id(trace.completion_id, text, judging_id, index)
                stored = known.get(name)
                if stored and stored.score == given:
                    continue
                yield Judgement(
                    judgement_id=name,
                    completion_id=trace.completion_id,
                    prompt_id=trace.prompt_id,
                    text_id=text,
                    spec_id=None,
                    judging_id=judging_id,
                    criterion=criterion,
                    sample_index=index,
                    attempt=stored.attempt + 1 if stored else 0,
                    status=given.status,
                    reason=given.reason,
                    score=given.score,
                    agrees=None,
                    saw_reasoning=True,
                    model=source.judge or "",
                    finish_reason=None,
                    num_prompt_tokens=0,
                    num_cached_tokens=0,
                    num_output_tokens=0,
                    run_id=self.run_id,
                    created_at=datetime.now(UTC),
                    rationale="",
                )
