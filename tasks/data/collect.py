"""prompts ← candidates of the sources: deduplicated, decontaminated, and what is new stored.

Every row of a source is counted once: kept, or by the reason that it is not. What the sources say
of a prompt may change: the row is then written again as its next revision, and the newest counts.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import Field

from specs.policy import Pack
from specs.prompts import assign_messages, load_template
from specs.replies import read_category
from tasks import Config
from tasks.data.candidates import Candidate, read_source, short
from tasks.data.duplicates import Evaluations, NearDuplicates
from tasks.data.sources import SourceConfig
from tasks.engine.requests import Engine, Request, Sample, Sampling
from tasks.stage import StageConfig
from warehouse.catalog import Pending, find_pending, look_up, materialise
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import PROMPTS, Prompt, Table, Turn, content_id

ROWS_PER_SHARD = 20_000
_CHARACTERS_PER_SHARD = 100_000_000


class CollectConfig(Config):
    """How prompts are cleaned."""

    near_duplicate_threshold: float | None = Field(0.9, gt=0, le=1)
    """Leave out a prompt whose last message is this like an earlier one's after the same messages
    (Jaccard over runs of 5 words, estimated); none: keep near duplicates."""
    decontaminate: list[SourceConfig] = []
    """Evaluation sets: a prompt that is in one, or shares 13 words in a row, is left out."""


@dataclass(slots=True)
class Counts:
    """What became of a source's rows; all but `stored` add up to `read`."""

    read: int = 0
    kept: int = 0
    to_assign: int = 0
    """Rows whose category the judge model is still to choose."""
    unassigned: int = 0
    """Rows for which it found none before."""
    exact_duplicates: int = 0
    near_duplicates: int = 0
    contaminated: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    """Rows that cannot be used, by reason."""
    stored: int = 0
    """Rows written, because they are new or say something new."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What the sources hold."""

    prompts: pa.Table
    """Columns prompt_id and categories, as first seen; categories are null where they are still
    to be assigned."""
    unassigned: pa.Table
    """Units of the prompts that the judge model is to choose a category for."""
    counts: dict[str, Counts]
    """By source."""
    evaluations: dict[str, Counts]
    """By evaluation set: how many rows were read, kept to compare with, and bad."""


def collect(
    sources: Sequence[SourceConfig],
    *,
    config: CollectConfig,
    pack_categories: Sequence[str],
    home: Home,
    connection: duckdb.DuckDBPyConnection,
    progress: Callable[[int], None] = lambda num_rows: None,
) -> Collected:
    """Reads the sources and stores the prompts of which the warehouse does not say the same.

    `connection` shows the warehouse before; `progress` is told how many rows were read since it
    was last told. Raises ValueError where a source cannot be read or has labels that the pack
    does not know.
    """
    for source in sources:
        _check_categories(source, pack_categories)
    run = _Collecting(config, pack_categories, home, connection, progress)
    for source in sources:
        run.add(source)
    return run.result()


def _check_categories(source: SourceConfig, pack_categories: Sequence[str]) -> None:
    """Raises ValueError where the recipe itself names a category that the pack lacks."""
    targets = [target for target in source.category_map.values() if target]
    for key, named in (("categories", source.categories), ("category_map", targets)):
        unknown = next((name for name in named if name not in pack_categories), None)
        if unknown:
            raise ValueError(
                f"source {source.name!r}: {key} names {unknown!r}, which the pack has not; use "
                f"{', '.join(pack_categories)}"
            )
    if not (source.category or source.categories or source.assign_category):
        raise ValueError(
            f"source {source.name!r} says nothing of categories: give it category (a column), "
            "categories (for every row) or assign_category"
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """What the warehouse says of a prompt."""

    revision: int
    version: str
    status: str
    categories: list[str]


class _Collecting:
    """One run of `collect`: what it has seen so far."""

    def __init__(
        self,
        config: CollectConfig,
        pack_categories: Sequence[str],
        home: Home,
        connection: duckdb.DuckDBPyConnection,
        progress: Callable[[int], None],
    ) -> None:
        self.pack_categories = pack_categories
        self.home = home
        self.connection = connection
        self.progress = progress
        self.counts: dict[str, Counts] = {}
        self.seen: set[bytes] = set()
        self.evaluation_counts: dict[str, Counts] = {}
        self.evaluations = Evaluations()
        for source in config.decontaminate:
            self._hold_out(source)
        threshold = config.near_duplicate_threshold
        self.near = NearDuplicates(threshold) if threshold else None
        self.prompts: list[pa.Table] = []
        self.unassigned: list[pa.Table] = []
        # Read once: a query for each batch would read the whole table again.
        self.known_prompts = materialise(connection, "known_prompts")

    def add(self, source: SourceConfig) -> None:
        counts = self.counts[source.name] = Counts()
        for batch in _batches(self._choose(source, counts)):
            self._store(batch, source, counts)
        _check_usable(source, counts)

    def result(self) -> Collected:
        return Collected(
            prompts=pa.concat_tables([_WANTED.empty_table(), *self.prompts]),
            unassigned=pa.concat_tables([_UNASSIGNED.empty_table(), *self.unassigned]),
            counts=self.counts,
            evaluations=self.evaluation_counts,
        )

    def _hold_out(self, source: SourceConfig) -> None:
        counts = self.evaluation_counts[source.name] = Counts()
        for candidate in read_source(source):
            counts.read += 1
            if candidate.fault:
                _count(counts.bad, candidate.fault)
            else:
                counts.kept += 1
                self.evaluations.add(candidate.messages)
        _check_usable(source, counts)

    def _choose(self, source: SourceConfig, counts: Counts) -> Iterator[tuple[str, Candidate]]:
        """Candidates that are wanted, with their ids; counts the others."""
        unknown: Counter[str] = Counter()
        for candidate in read_source(source):
            counts.read += 1
            self.progress(1)
            strange = [one for one in candidate.categories if one not in self.pack_categories]
            prompt_id = candidate.prompt_id
            digest = bytes.fromhex(prompt_id)
            if candidate.fault:
                _count(counts.bad, candidate.fault)
            elif strange and not source.assign_category:
                unknown.update(strange)
            elif not candidate.categories and not source.assign_category:
                _count(counts.bad, "no_category")
            elif digest in self.seen:
                counts.exact_duplicates += 1
            else:
                self.seen.add(digest)
                if self.evaluations.share(candidate.messages):
                    counts.contaminated += 1
                elif self.near and self.near.has(candidate.messages):
                    counts.near_duplicates += 1
                else:
                    yield prompt_id, candidate
        if unknown:
            raise ValueError(self._unknown_categories(source, unknown))

    def _unknown_categories(self, source: SourceConfig, unknown: Counter[str]) -> str:
        (label, num_rows), *others = unknown.most_common()
        more = f" (and {len(others)} more labels)" if others else ""
        return (
            f"source {source.name!r}: category {short(label)} of {num_rows} rows{more} is not in "
            f"the pack, which has {', '.join(self.pack_categories)}; map it in category_map "
            '("" leaves its rows out) or set assign_category'
        )

    def _store(
        self, batch: Sequence[tuple[str, Candidate]], source: SourceConfig, counts: Counts
    ) -> None:
        """Writes what is new of a batch as one shard, and notes what the run wants."""
        known = self._known([prompt_id for prompt_id, _ in batch])
        rows: list[Prompt] = []
        units: list[dict[str, Any]] = []
        wanted: list[dict[str, Any]] = []
        for prompt_id, candidate in batch:
            before = known.get(prompt_id)
            categories = self._categories(candidate, before)
            row = _row(prompt_id, candidate, source, categories or [], before)
            if categories is None:
                counts.to_assign += 1
                units.append(_unit(row, self.pack_categories))
            elif before is None or before.version != row.version:
                rows.append(row)
            wanted.append({"prompt_id": prompt_id, "categories": categories})
            counts.kept += bool(categories)
            counts.unassigned += categories == []
        write_shard(self.home, PROMPTS, rows)
        counts.stored += len(rows)
        self.unassigned.append(pa.Table.from_pylist(units, schema=_UNASSIGNED))
        self.prompts.append(
            pa.Table.from_pylist([one for one in wanted if one["categories"] != []], schema=_WANTED)
        )

    def _categories(self, candidate: Candidate, before: _Known | None) -> list[str] | None:
        """The source's, else what the judge chose before; None where it is still to choose."""
        named = [one for one in candidate.categories if one in self.pack_categories]
        if named:
            return named
        settled = before is not None and before.status != "error"
        if before and settled and all(one in self.pack_categories for one in before.categories):
            return before.categories
        return None

    def _known(self, prompt_ids: Sequence[str]) -> dict[str, _Known]:
        ids = self.connection.from_arrow(pa.table({"prompt_id": pa.array(prompt_ids, pa.string())}))
        rows = self.known_prompts.join(ids, "prompt_id", how="semi").fetchall()
        return {prompt_id: _Known(*columns) for prompt_id, *columns in rows}


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1


def _check_usable(source: SourceConfig, counts: Counts) -> None:
    """Raises ValueError where every row of a source is bad: then the source is, or its columns."""
    faults = {reason: number for reason, number in counts.bad.items() if reason != "left_out"}
    if sum(faults.values()) == counts.read:
        reasons = ", ".join(f"{reason} {number}" for reason, number in faults.items())
        raise ValueError(
            f"source {source.name!r}: none of its {counts.read} rows can be used ({reasons}); "
            "check which columns it names"
        )


def _batches(
    candidates: Iterable[tuple[str, Candidate]],
) -> Iterator[list[tuple[str, Candidate]]]:
    """Candidates by the shard, as many as fit into memory."""
    batch: list[tuple[str, Candidate]] = []
    characters = 0
    for prompt_id, candidate in candidates:
        batch.append((prompt_id, candidate))
        characters += sum(len(message["content"]) for message in candidate.messages)
        if len(batch) == ROWS_PER_SHARD or characters >= _CHARACTERS_PER_SHARD:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


_WANTED = pa.schema([("prompt_id", pa.string()), ("categories", pa.list_(pa.string()))])
_UNASSIGNED = pa.schema(
    [("block_key", pa.string()), ("prompt", pa.struct(list(PROMPTS.schema.remove_metadata())))]
)


def _row(
    prompt_id: str,
    candidate: Candidate,
    source: SourceConfig,
    categories: list[str],
    before: _Known | None,
) -> Prompt:
    return _versioned(
        Prompt(
            prompt_id=prompt_id,
            categories=categories,
            status="ok" if categories else "unassigned",
            ideal_response=candidate.ideal_response,
            source=source.name,
            split=source.split,
            language=candidate.language,
            transform=candidate.transform,
            metadata=candidate.metadata,
            revision=before.revision + 1 if before else 0,
            created_at=datetime.now(UTC),
            messages=[Turn(**message) for message in candidate.messages],
        )
    )


def _versioned(row: Prompt) -> Prompt:
    """The row with the hash of what it says of its prompt."""
    said = (
        row.categories,
        row.ideal_response,
        row.source,
        row.split,
        row.language,
        row.transform,
        row.metadata,
    )
    return replace(row, version=content_id(json.dumps(said, ensure_ascii=False)))


def _unit(row: Prompt, pack_categories: Sequence[str]) -> dict[str, Any]:
    """Returns a prompt for the judge to sort; all of them share the summaries of the pack."""
    return {"block_key": content_id(*pack_categories), "prompt": asdict(row)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignUnit:
    """A prompt without a category."""

    block_key: str
    """The same for all prompts of a pack."""
    prompt: dict[str, Any]
    """The row of `prompts` that lacks a category."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignWork:
    """The work of the stage: units hold a prompt that lacks a category, which a judge chooses.

    Whatever comes of it is a row: without a category where the judge found none or its choice
    cannot be read, and with the engine's fault where it could not be asked.
    """

    pack: Pack
    stage: StageConfig
    run_id: str
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=4096))
    """How the judge is sampled."""
    name: str = "assign"
    table: Table = PROMPTS
    unit: type[AssignUnit] = AssignUnit

    def pending(self, connection: duckdb.DuckDBPyConnection) -> Pending:
        """Returns the prompts of relation `unassigned` that the judge has not been asked about
        since they were collected."""
        return find_pending(connection, "prompts", wave_rows=self.stage.wave_rows)

    async def make(self, units: Sequence[AssignUnit], engine: Engine) -> list[Prompt]:
        template = load_template("assign", "spec_first")
        summaries = self.pack.spec([], detail="summary")
        requests = [
            Request(
                messages=assign_messages(
                    template,
                    unit.prompt["messages"],
                    spec=summaries,
                    categories=list(self.pack.policies),
                ),
                num_samples=1,
                sampling=self.sampling,
            )
            for unit in units
        ]
        outputs = await engine.generate(requests)
        return [self._row(unit, sample) for unit, (sample,) in zip(units, outputs, strict=True)]

    def _row(self, unit: AssignUnit, sample: Sample) -> Prompt:
        category = None
        if sample.is_whole:
            category = read_category(sample.reply, list(self.pack.policies))
        changes = {
            "categories": [category] if category else [],
            "status": sample.fault or ("ok" if category else "unassigned"),
            "created_at": datetime.now(UTC),
            "messages": [Turn(**turn) for turn in unit.prompt["messages"]],
        }
        return _versioned(Prompt(**(unit.prompt | changes)))


def assigned(collected: Collected, connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """What the run wants: prompt_id and categories, with those that the judge has chosen.

    Prompts that it found no category for, or could not be asked about, are not among them.
    """
    connection.register("unassigned", collected.unassigned)
    rows = look_up(connection, "assigned_prompts")
    by_id = {row["prompt_id"]: row["categories"] for row in rows}
    tables = [_WANTED.empty_table()]
    for batch in collected.prompts.to_batches(max_chunksize=ROWS_PER_SHARD):
        prompts = [
            {**row, "categories": row["categories"] or by_id.get(row["prompt_id"])}
            for row in batch.to_pylist()
        ]
        kept = [row for row in prompts if row["categories"]]
        tables.append(pa.Table.from_pylist(kept, schema=_WANTED))
    return pa.concat_tables(tables)
