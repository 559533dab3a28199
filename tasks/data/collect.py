"""prompts ← candidates of the sources: deduplicated, decontaminated, and what is new stored.

Traces are sources too: their prompts go the same way, and their replies become completions.

Every row of a source is counted once: kept, or by the reason that it is not. The sources are read
twice, because a row's labels count only together with those of all other rows of the same prompt.
What the sources say of a prompt may change: the row is then written again as its next revision,
and the newest counts.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import duckdb
import pyarrow as pa
from pydantic import Field

from specs.prompts import Message
from tasks import Config
from tasks.data.candidates import Candidate, NoteTaker, Read, SourceNotes, read_source
from tasks.data.categories import MAP_LABELS, require_pack_categories, unknown_labels
from tasks.data.collected import PROMPTS_SCHEMA, UNASSIGNED_SCHEMA, Collected, Origin
from tasks.data.conflicts import ConflictLog, Label, Labels
from tasks.data.counts import Counts, usable
from tasks.data.duplicates import Evaluations, NearDuplicates
from tasks.data.prompt_rows import assign_unit, prompt_row
from tasks.data.sources import SourceConfig
from tasks.data.trace_rows import WANTED, TraceScores, TraceStore
from tasks.data.traces import TraceCandidate, TraceConfig, read_traces, scores_text
from warehouse.catalog import materialise
from warehouse.home import Home
from warehouse.shards import ROWS_PER_SHARD, write_shard
from warehouse.tables import PROMPTS, Prompt

_CHARACTERS_PER_SHARD = 100_000_000


class CollectConfig(Config):
    """Cleaning of prompts: duplicates, contamination and conflicts."""

    near_duplicate_threshold: float | None = Field(0.9, gt=0, le=1)
    """Likeness from which a prompt is a near duplicate of an earlier one: the estimated Jaccard
    index of the 5-word runs of the two last messages. Prompts whose earlier messages differ are
    never alike. Unset: near duplicates are kept."""
    decontaminate: list[SourceConfig] = []
    """Evaluation sets; a prompt that is in one, or shares 13 words in a row with it, is left
    out. Words are what the language has for words, also where it is written without spaces."""
    conflicts: Literal["leave_out", "join"] = "leave_out"
    """Prompts of which rows give different categories or ideal responses, in one source or in
    several, and traces of which rows give different scores: `leave_out` keeps none of their rows;
    `join` keeps the prompt with all the categories, and without an ideal response if that is
    disputed, and the trace with the lowest scores. They are counted and named either way."""


_NO_ORIGIN = Origin()


def collect(
    sources: Sequence[SourceConfig],
    *,
    config: CollectConfig,
    pack_categories: Sequence[str],
    home: Home,
    connection: duckdb.DuckDBPyConnection,
    origin: Origin = _NO_ORIGIN,
) -> Collected:
    """Reads the sources, stores prompts that are new or whose labels changed, and new traces.

    `connection` shows the warehouse before. Sources of traces come last, so that a prompt which
    another source has too is asked. Raises ValueError if a source cannot be read or has labels that
    the pack does not know.
    """
    for source in sources:
        _check_categories(source, pack_categories)
    run = _Collecting(config, pack_categories, home, connection, origin)
    run.has_traces = any(isinstance(source, TraceConfig) for source in sources)
    for source in config.decontaminate:
        run.read_labels(source, run.held_out)
    for source in sources:
        run.read_labels(source, run.labels)
    for source in config.decontaminate:
        run.hold_out(source)
    for source in sources:
        run.add(source)
    return run.result()


def _check_categories(source: SourceConfig, pack_categories: Sequence[str]) -> None:
    """Raises ValueError if the recipe itself names a category that the pack lacks, or none."""
    require_pack_categories(source, pack_categories)
    if not (source.category or source.categories or source.assign_category):
        raise ValueError(
            f"source {source.name!r} has no categories: give it category (a column), "
            "categories (for every row) or assign_category"
        )


@dataclass(frozen=True, slots=True)
class _Stored:
    """The newest row of a prompt in the warehouse, without its messages."""

    revision: int
    version: str
    status: str
    categories: list[str]
    assigning_id: str | None


class _Collecting:
    """The state of one run of `collect`."""

    def __init__(
        self,
        config: CollectConfig,
        pack_categories: Sequence[str],
        home: Home,
        connection: duckdb.DuckDBPyConnection,
        origin: Origin,
    ) -> None:
        self.config = config
        self.assigning_id = origin.assigning_id
        self.pack_categories = pack_categories
        self.home = home
        self.connection = connection
        # Read once: a query for each batch would read the whole table again.
        self.stored_prompts = materialise(connection, "known_prompts")
        self.evaluations = Evaluations()
        self.evaluation_counts: dict[str, Counts] = {}
        self.notes: dict[str, SourceNotes] = {}
        threshold = config.near_duplicate_threshold
        self.near_duplicates = NearDuplicates(threshold) if threshold else None
        # Bytes, because millions of ids may be held: their digits would take more memory.
        self.seen: set[bytes] = set()
        self.labels = Labels()
        self.held_out = Labels()
        self.conflicts = ConflictLog()
        self.counts: dict[str, Counts] = {}
        self.prompts: list[pa.Table] = []
        self.unassigned: list[pa.Table] = []
        self.has_traces = False
        self.trace_store = TraceStore(home, connection, origin.rule_ids, origin.run_id)
        self.trace_scores = TraceScores()
        self.traces: list[pa.Table] = []
        # Of prompts, while there are traces: those that passed, and the outcome of their row.
        self.passed: set[bytes] = set()
        self.outcomes: dict[bytes, str] = {}

    def read_labels(self, source: SourceConfig, labels: Labels) -> None:
        """Reads what a source says of its prompts; raises ValueError if it cannot be used.

        Labels that the pack lacks are told after the last row, with the number of their rows.
        """
        unknown: Counter[str] = Counter()
        for candidate in _read_of(source)(source, []):
            if candidate.fault:
                continue
            if isinstance(candidate, TraceCandidate) and isinstance(source, TraceConfig):
                self.trace_scores.add(candidate, source)
            if labels is self.labels and not source.assign_category:
                foreign = (
                    name for name in candidate.categories if name not in self.pack_categories
                )
                unknown.update(foreign)
            labels.add(bytes.fromhex(candidate.prompt_id), self._label(candidate))
        if unknown:
            remedy = f"{MAP_LABELS} or set assign_category"
            raise ValueError(unknown_labels(source, unknown, self.pack_categories, remedy=remedy))

    def hold_out(self, source: SourceConfig) -> None:
        """Reads an evaluation set, whose prompts are then left out of the sources."""
        outcomes: Counter[str] = Counter()
        seen: set[str] = set()
        reader = NoteTaker(source)
        for candidate in reader.candidates():
            if candidate.fault:
                outcomes[candidate.fault] += 1
                continue
            self._log_conflict(candidate)
            outcomes["exact_duplicates" if candidate.prompt_id in seen else "kept"] += 1
            seen.add(candidate.prompt_id)
            self.evaluations.add(candidate.messages)
        self.evaluation_counts[source.name] = usable(source, Counts.of(outcomes))
        self._note(f"decontaminate {source.name}", reader.notes)

    def add(self, source: SourceConfig) -> None:
        """Reads a source, stores what is new of it and counts its rows."""
        outcomes: Counter[str] = Counter()
        num_stored = 0
        reader = NoteTaker(source)
        rows = reader.candidates(_read_of(source))
        for batch in _batches(self._choose(source, rows, outcomes)):
            num_stored += self._store(batch, source, outcomes)
        self.counts[source.name] = usable(source, Counts.of(outcomes, stored=num_stored))
        self._note(source.name, reader.notes)

    def _note(self, name: str, notes: SourceNotes) -> None:
        if str(notes):
            self.notes[name] = notes

    def result(self) -> Collected:
        return Collected(
            prompts=pa.concat_tables([PROMPTS_SCHEMA.empty_table(), *self.prompts]),
            traces=pa.concat_tables([WANTED.empty_table(), *self.traces]),
            unassigned=pa.concat_tables([UNASSIGNED_SCHEMA.empty_table(), *self.unassigned]),
            counts=self.counts,
            evaluations=self.evaluation_counts,
            conflicts=self.conflicts.summary(),
            notes=self.notes,
        )

    def _choose(
        self, source: SourceConfig, candidates: Iterable[Candidate], outcomes: Counter[str]
    ) -> Iterator[Candidate]:
        """Yields the candidates to keep, with all that rows say of their prompts; counts the
        outcomes of the others."""
        for candidate in candidates:
            reason = self._reason_to_leave_out(candidate, source)
            if reason:
                outcomes[reason] += 1
                continue
            # A file that grows while it is read may have rows that were not there before.
            label = self.labels.of(bytes.fromhex(candidate.prompt_id)) or self._label(candidate)
            categories = list(label.categories)
            yield replace(candidate, categories=categories, ideal_response=label.ideal_response)

    def _reason_to_leave_out(self, candidate: Candidate, source: SourceConfig) -> str | None:
        """Returns the outcome of a candidate that is not kept, or None; remembers its prompt."""
        if candidate.fault:
            return candidate.fault
        if not candidate.categories and not source.assign_category:
            return "no_category"
        digest = bytes.fromhex(candidate.prompt_id)
        trace = candidate if isinstance(candidate, TraceCandidate) else None
        self._log_conflict(candidate)
        is_disputed = trace is not None and self.trace_scores.is_disputed(trace)
        if is_disputed and trace:
            self.conflicts.add(trace.prompt_id, scores_text(trace.scores), trace.place)
        is_disputed |= self.labels.is_disputed(digest)
        if self.config.conflicts == "leave_out" and is_disputed:
            return "conflicting"
        # Another trace of a prompt is none of its duplicates.
        row = trace.digest if trace else digest
        if row in self.seen:
            return "exact_duplicates"
        self.seen.add(row)
        if trace and digest in self.passed:
            return None
        reason = self._likeness(candidate)
        if self.has_traces and not reason:
            self.passed.add(digest)
        return reason

    def _likeness(self, candidate: Candidate) -> str | None:
        """Returns the outcome of a prompt that is like others, or None; remembers it."""
        if self.evaluations.share(candidate.messages):
            return "contaminated"
        if self.near_duplicates and self.near_duplicates.has(candidate.messages):
            return "near_duplicates"
        return None

    def _label(self, candidate: Candidate) -> Label:
        """Returns what a row says of its prompt, in the pack's words."""
        known = (name for name in candidate.categories if name in self.pack_categories)
        return Label(tuple(sorted(known)), candidate.ideal_response)

    def _log_conflict(self, candidate: Candidate) -> None:
        """Notes a row if sources and evaluation sets do not agree on its prompt."""
        digest = bytes.fromhex(candidate.prompt_id)
        said, held_out = self.labels.of(digest), self.held_out.of(digest)
        if (
            self.labels.is_disputed(digest)
            or self.held_out.is_disputed(digest)
            or (said and held_out and said.contradicts(held_out))
        ):
            self.conflicts.add(candidate.prompt_id, self._label(candidate), candidate.place)

    def _store(
        self, batch: Sequence[Candidate], source: SourceConfig, outcomes: Counter[str]
    ) -> int:
        """Writes the new rows of a batch as one shard of a table and returns their number.

        Notes the prompts that the run wants, and those that the judge has yet to assign.
        """
        if isinstance(source, TraceConfig):
            return self._store_traces(batch, source, outcomes)
        return self._store_prompts(batch, source, outcomes)

    def _store_traces(
        self, batch: Sequence[Candidate], source: TraceConfig, outcomes: Counter[str]
    ) -> int:
        """Writes the new traces of a batch, and those of their prompts that are new; returns the
        number of the traces."""
        first = {
            digest: trace
            for trace in reversed(batch)
            if (digest := bytes.fromhex(trace.prompt_id)) not in self.outcomes
        }
        self._store_prompts(list(reversed(first.values())), source, Counter())
        traces = []
        for trace in batch:
            outcome = self.outcomes[bytes.fromhex(trace.prompt_id)]
            outcomes[outcome] += 1
            if outcome != "unassigned" and isinstance(trace, TraceCandidate):
                traces.append(replace(trace, scores=self.trace_scores.of(trace, source)))
        wanted, num_stored = self.trace_store.store(traces, source)
        self.traces.append(wanted)
        return num_stored

    def _store_prompts(
        self, batch: Sequence[Candidate], source: SourceConfig, outcomes: Counter[str]
    ) -> int:
        """Writes the new prompts of a batch and returns their number."""
        ids = [candidate.prompt_id for candidate in batch]
        stored = self._stored(ids)
        is_asked = not isinstance(source, TraceConfig)
        new_rows: list[Prompt] = []
        units = []
        prompts = []
        for prompt_id, candidate in zip(ids, batch, strict=True):
            before = stored.get(prompt_id)
            categories = self._categories(candidate, before)
            row = prompt_row(
                candidate,
                source,
                categories=categories or [],
                revision=before.revision + 1 if before else 0,
                assigning_id=before.assigning_id if before and not candidate.categories else None,
            )
            if categories is None:
                units.append(assign_unit(row, self.pack_categories))
            elif before is None or before.version != row.version:
                new_rows.append(row)
            if categories != []:
                prompts.append(
                    {"prompt_id": prompt_id, "categories": categories, "is_asked": is_asked}
                )
            outcomes[_outcome(categories)] += 1
            if self.has_traces:
                self.outcomes[bytes.fromhex(prompt_id)] = _outcome(categories)
        write_shard(self.home, PROMPTS, new_rows)
        self.unassigned.append(pa.Table.from_pylist(units, schema=UNASSIGNED_SCHEMA))
        self.prompts.append(pa.Table.from_pylist(prompts, schema=PROMPTS_SCHEMA))
        return len(new_rows)

    def _stored(self, prompt_ids: Sequence[str]) -> dict[str, _Stored]:
        ids = self.connection.from_arrow(pa.table({"prompt_id": pa.array(prompt_ids, pa.string())}))
        rows = self.stored_prompts.join(ids, "prompt_id", how="semi").fetchall()
        return {prompt_id: _Stored(*columns) for prompt_id, *columns in rows}

    def _categories(self, candidate: Candidate, before: _Stored | None) -> list[str] | None:
        """Returns the categories of the source, else those that the judge chose before.

        None: the judge has yet to choose. Empty: it found none.
        """
        if candidate.categories:
            return candidate.categories
        if before is None:
            return None
        if before.categories:
            is_current = all(name in self.pack_categories for name in before.categories)
            return before.categories if is_current else None
        is_asked_alike = self.assigning_id in (None, before.assigning_id)
        return [] if before.status == "unassigned" and is_asked_alike else None


def _read_of(source: SourceConfig) -> Read:
    """Returns what reads the rows of a source, those of traces with their replies."""
    return read_traces if isinstance(source, TraceConfig) else read_source


def _outcome(categories: list[str] | None) -> str:
    """Returns the outcome of a row that is neither bad nor left out."""
    if categories is None:
        return "to_assign"
    return "kept" if categories else "unassigned"


def _batches(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """Yields candidates in batches of a shard, limited by rows and by characters."""
    batch: list[Candidate] = []
    num_characters = 0
    for candidate in candidates:
        batch.append(candidate)
        num_characters += sum(map(_num_characters, candidate.messages))
        if len(batch) == ROWS_PER_SHARD or num_characters >= _CHARACTERS_PER_SHARD:
            yield batch
            batch, num_characters = [], 0
    if batch:
        yield batch


def _num_characters(message: Message) -> int:
    return len(message["content"]) + len(message.get("tool_calls") or "")
