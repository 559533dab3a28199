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
    """Cleaning of prompts: duplicates and contamination."""

    near_duplicate_threshold: float | None = Field(0.9, gt=0, le=1)
    """Likeness from which a prompt is a near duplicate of an earlier one: the Jaccard index over runs
    of 5 words of the last message, estimated, after the same messages. Unset: all are kept."""
    decontaminate: list[SourceConfig] = []
    """Evaluation sets; a prompt that is in one, or shares 13 words in a row with it, is left out."""


@dataclass(slots=True)
class Counts:
    """Rows of a source by what became of them; all but `stored` add up to `read`."""

    read: int = 0
    kept: int = 0
    to_assign: int = 0
    """Rows whose category the judge model has yet to choose."""
    unassigned: int = 0
    """Rows for which the judge model found no category before."""
    exact_duplicates: int = 0
    near_duplicates: int = 0
    contaminated: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    """Rows that cannot be used, by reason."""
    stored: int = 0
    """Rows written because the prompt or its labels are new."""


@dataclass(frozen=True, slots=True)
class Collected:
    """The prompts of the sources."""

    prompts: pa.Table
    """Columns prompt_id and categories, in the order of the sources; categories are null until they
    are assigned."""
    unassigned: pa.Table
    """Columns block_key and prompt: prompts whose category the judge model has yet to choose."""
    counts: dict[str, Counts]
    """By source."""
    evaluations: dict[str, Counts]
    """By evaluation set: rows that were read, kept to compare with, and bad."""


def collect(
    sources: Sequence[SourceConfig],
    *,
    config: CollectConfig,
    pack_categories: Sequence[str],
    home: Home,
    connection: duckdb.DuckDBPyConnection,
    progress: Callable[[int], None] = lambda num_rows: None,
) -> Collected:
    """Reads the sources and stores prompts that are new or whose labels changed.

    `connection` shows the warehouse before; `progress` takes the number of rows read since its last
    call. Raises ValueError if a source cannot be read or has labels that the pack does not know.
    """
    for source in sources:
        _check_categories(source, pack_categories)
    run = _Collecting(config, pack_categories, home, connection, progress)
    for source in sources:
        run.add(source)
    return run.result()


def _check_categories(source: SourceConfig, pack_categories: Sequence[str]) -> None:
    """Raises ValueError if the recipe itself names a category that the pack lacks."""
    targets = [target for target in source.category_map.values() if target]
    for key, named in (("categories", source.categories), ("category_map", targets)):
        unknown = next((name for name in named if name not in pack_categories), None)
        if unknown:
            raise ValueError(
                f"source {source.name!r}: {key} names {unknown!r}, which is not a category of the "
                f"pack; use {', '.join(pack_categories)}"
            )
    if not (source.category or source.categories or source.assign_category):
        raise ValueError(
            f"source {source.name!r} has no categories: give it category (a column), "
            "categories (for every row) or assign_category"
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """The newest row of a prompt in the warehouse."""

    revision: int
    version: str
    status: str
    categories: list[str]


class _Collecting:
    """The state of one run of `collect`."""

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
        """Yields the candidates to keep, with their ids; counts the others."""
        unknown: Counter[str] = Counter()
        for candidate in read_source(source):
            counts.read += 1
            self.progress(1)
            foreign = [name for name in candidate.categories if name not in self.pack_categories]
            prompt_id = candidate.prompt_id
            digest = bytes.fromhex(prompt_id)
            if candidate.fault:
                _count(counts.bad, candidate.fault)
            elif foreign and not source.assign_category:
                unknown.update(foreign)
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
        """Writes the new rows of a batch as one shard, and notes the prompts that the run wants."""
        known = self._known([prompt_id for prompt_id, _ in batch])
        rows: list[Prompt] = []
        units: list[dict[str, Any]] = []
        kept: list[dict[str, Any]] = []
        for prompt_id, candidate in batch:
            before = known.get(prompt_id)
            categories = self._categories(candidate, before)
            row = _row(prompt_id, candidate, source, categories or [], before)
            if categories is None:
                counts.to_assign += 1
                units.append(_unit(row, self.pack_categories))
            elif before is None or before.version != row.version:
                rows.append(row)
            kept.append({"prompt_id": prompt_id, "categories": categories})
            counts.kept += bool(categories)
            counts.unassigned += categories == []
        write_shard(self.home, PROMPTS, rows)
        counts.stored += len(rows)
        self.unassigned.append(pa.Table.from_pylist(units, schema=_UNASSIGNED))
        self.prompts.append(
            pa.Table.from_pylist([row for row in kept if row["categories"] != []], schema=_WANTED)
        )

    def _categories(self, candidate: Candidate, before: _Known | None) -> list[str] | None:
        """Returns the source's categories, else the judge's earlier choice; None if it must choose."""
        categories = [name for name in candidate.categories if name in self.pack_categories]
        if categories:
            return categories
        if before is None or before.status == "error":
            return None
        is_current = all(name in self.pack_categories for name in before.categories)
        return before.categories if is_current else None

    def _known(self, prompt_ids: Sequence[str]) -> dict[str, _Known]:
        ids = self.connection.from_arrow(pa.table({"prompt_id": pa.array(prompt_ids, pa.string())}))
        rows = self.known_prompts.join(ids, "prompt_id", how="semi").fetchall()
        return {prompt_id: _Known(*columns) for prompt_id, *columns in rows}


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1


def _check_usable(source: SourceConfig, counts: Counts) -> None:
    """Raises ValueError if every row of a source is bad: its columns are probably misnamed."""
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
    """Yields candidates in batches of a shard, limited by rows and by characters."""
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
    """Returns the row with the hash of its labels."""
    labels = (
        row.categories,
        row.ideal_response,
        row.source,
        row.split,
        row.language,
        row.transform,
        row.metadata,
    )
    return replace(row, version=content_id(json.dumps(labels, ensure_ascii=False)))


def _unit(row: Prompt, pack_categories: Sequence[str]) -> dict[str, Any]:
    """Returns a prompt for the judge to sort; all share the summaries of the pack as a prefix."""
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
    """The category of prompts that have none, chosen by the judge model.

    Every outcome is a row: without a category if the judge found none or its choice cannot be read,
    and with the engine's fault if it could not be asked.
    """

    pack: Pack
    stage: StageConfig
    run_id: str
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=4096))
    """Sampling of the judge."""
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
    """Returns the prompts that a run wants: columns prompt_id and categories.

    Prompts for which the judge found no category, or could not be asked, are not among them.
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
