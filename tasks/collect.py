"""prompts ← sources: files and data sets read, checked, deduplicated, and what is new stored.

A source that cannot be used stops the run with one sentence; a row that cannot be used is counted
by its reason. What the sources say of a prompt may change: the row is then written again as its
next revision, and the newest counts.
"""

import csv
import glob
import gzip
import io
import itertools
import json
import os
import re
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from specs.policy import Outcome, Pack
from specs.prompts import Message, assign_messages, load_template
from specs.replies import read_category
from tasks import Config
from tasks.engine import PROJECT, Engine, Request, Sample, Sampling
from tasks.stage import Pending
from warehouse.shards import Home, write_shard
from warehouse.tables import PROMPTS, Prompt, Table, Turn, content_id

ROWS_PER_SHARD = 20_000
_CHARACTERS_PER_SHARD = 100_000_000


class SourceConfig(Config):
    """Where prompts come from, and which column says what of them."""

    name: str = Field(min_length=1)
    """Names the source in rows, counts and messages."""
    path: str | None = None
    """CSV, JSON, JSONL or Parquet, each also .gz: a file, a folder or a glob, relative to the
    working folder or to Precept's own."""
    dataset: str | None = None
    """Instead of a path, a data set on Hugging Face or a local folder that `datasets` can read."""
    dataset_config: str | None = None
    """Configuration of the data set, where it has several."""
    dataset_split: str = "train"
    """Split of the data set."""
    revision: str | None = None
    """Commit of the data set; pin it, so that the same rows are read again."""
    rows_key: str | None = None
    """Key of a JSON object that holds the rows; none: the only one that holds a list."""
    prompt: str | None = None
    """Column with a single prompt's text; none: `prompt`, where there is no column `messages`."""
    messages: str | None = None
    """Column with a chat, a list of role and content; none: `messages`, where there is one."""
    category: str | None = None
    """Column with the category, or a list of categories, of a prompt."""
    categories: list[str] = []
    """Instead of a column, the categories of every prompt of the source."""
    category_map: dict[str, str] = {}
    """From the source's labels to the pack's categories; "" leaves a label's rows out."""
    assign_category: bool = False
    """Let the judge model choose the category of prompts that have none the pack knows."""
    ideal_response: str | None = None
    """Column with the ideal response: comply, refuse or safe_complete."""
    ideal_response_map: dict[str, Literal["comply", "refuse", "safe_complete", ""]] = {}
    """From the source's labels to ideal responses; "" where a label says nothing of it."""
    ideal_response_value: Outcome | None = None
    """Instead of a column, the ideal response to every prompt of the source."""
    language: str = "en"
    """Language of the prompts, where no column says it."""
    language_column: str | None = None
    """Column with the language."""
    transform: str | None = None
    """Column that says how the text was changed (an encoding, an attack)."""
    metadata: list[str] = []
    """Columns with findings that a judge may be shown; each value is one finding."""
    label_as_metadata: bool = False
    """Make the ideal response a finding as well: "the ideal response is refuse"."""
    split: str = "train"
    """`train`, or the name of an evaluation set."""
    limit: int | None = Field(None, gt=0)
    """Rows to read; none: all."""

    @model_validator(mode="after")
    def _check(self) -> "SourceConfig":
        if (self.path is None) == (self.dataset is None):
            given = "neither" if self.path is None else "both"
            raise ValueError(f"source {self.name!r} has {given}: give it either path or dataset")
        pairs: list[tuple[str, Any, str, Any]] = [
            ("prompt", self.prompt, "messages", self.messages),
            ("category", self.category, "categories", self.categories),
            ("ideal_response", self.ideal_response, "ideal_response_value", self._fixed_response),
            ("path", self.path, "dataset_config", self.dataset_config),
            ("path", self.path, "revision", self.revision),
        ]
        for one, first, other, second in pairs:
            if first and second:
                raise ValueError(
                    f"source {self.name!r} has both {one} and {other}: leave one of them out"
                )
        needs: list[tuple[str, Any, str, Any]] = [
            ("category_map", self.category_map, "category", self.category),
            ("ideal_response_map", self.ideal_response_map, "ideal_response", self.ideal_response),
            (
                "label_as_metadata",
                self.label_as_metadata,
                "ideal_response",
                self.ideal_response or self._fixed_response,
            ),
        ]
        for one, first, other, second in needs:
            if first and not second:
                raise ValueError(f"source {self.name!r} has {one} without {other}: add {other}")
        return self

    @property
    def _fixed_response(self) -> str | None:
        return self.ideal_response_value.value if self.ideal_response_value else None

    @property
    def columns(self) -> list[str]:
        """The columns that the source must have."""
        named = (
            self.prompt,
            self.messages,
            self.category,
            self.ideal_response,
            self.language_column,
            self.transform,
            *self.metadata,
        )
        return [name for name in named if name]


class CollectConfig(Config):
    """How prompts are cleaned."""

    near_duplicate_threshold: float | None = Field(0.9, gt=0, le=1)
    """Leave out a prompt whose last message is this like an earlier one's after the same messages
    (Jaccard over runs of 5 words, estimated); none: keep near duplicates."""
    decontaminate: list[SourceConfig] = []
    """Evaluation sets: a prompt that is in one, or shares 13 words in a row, is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One row of a source as it was read."""

    messages: list[Message]
    categories: list[str]
    """Sorted; labels that the source does not map stand as they are."""
    ideal_response: str | None = None
    language: str = "en"
    transform: str | None = None
    metadata: list[str] = field(default_factory=list)
    fault: str | None = None
    """Why the row cannot be used: unreadable_row, empty_prompt, not_text, not_a_chat,
    unknown_role, not_on_user_turn, left_out."""

    @property
    def prompt_id(self) -> str:
        """Hash of the canonical messages."""
        return content_id(_canonical(self.messages))


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
    to_assign: pa.Table
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
    for key, named in (("categories", source.categories), ("category_map", _targets(source))):
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


def _targets(source: SourceConfig) -> list[str]:
    return [target for target in source.category_map.values() if target]


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
        self.evaluations = _Evaluations(config.decontaminate)
        threshold = config.near_duplicate_threshold
        self.near = _NearDuplicates(threshold) if threshold else None
        self.prompts: list[pa.Table] = []
        self.to_assign: list[pa.Table] = []
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE known_prompts AS "
            "SELECT prompt_id, revision, version, status, categories FROM prompts_all"
        )

    def add(self, source: SourceConfig) -> None:
        counts = self.counts[source.name] = Counts()
        for batch in _batches(self._choose(source, counts)):
            self._store(batch, source, counts)
        _check_usable(source, counts)

    def result(self) -> Collected:
        self.connection.execute("DROP TABLE known_prompts")
        return Collected(
            prompts=pa.concat_tables([_WANTED.empty_table(), *self.prompts]),
            to_assign=pa.concat_tables([_UNITS.empty_table(), *self.to_assign]),
            counts=self.counts,
            evaluations=self.evaluations.counts,
        )

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
            f"source {source.name!r}: category {_short(label)} of {num_rows} rows{more} is not in "
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
        self.to_assign.append(pa.Table.from_pylist(units, schema=_UNITS))
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
        asked = pa.table({"prompt_id": pa.array(prompt_ids, pa.string())})
        self.connection.register("asked_prompts", asked)
        found = self.connection.execute(
            "SELECT prompt_id, revision, version, status, categories "
            "FROM known_prompts SEMI JOIN asked_prompts USING (prompt_id)"
        ).fetchall()
        self.connection.unregister("asked_prompts")
        return {prompt_id: _Known(*rest) for prompt_id, *rest in found}


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1


def _short(text: object) -> str:
    """A value as it may stand in a message: never a whole prompt that a wrong column held."""
    shown = str(text)
    return repr(shown if len(shown) <= 60 else shown[:57] + "…")


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
_UNITS = pa.schema([*PROMPTS.schema.remove_metadata(), ("spec_id", pa.string())])


def _row(
    prompt_id: str,
    candidate: Candidate,
    source: SourceConfig,
    categories: list[str],
    before: _Known | None,
) -> Prompt:
    return Prompt(
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
        version=_version(
            categories,
            candidate.ideal_response,
            source.name,
            source.split,
            candidate.language,
            candidate.transform,
            candidate.metadata,
        ),
        created_at=datetime.now(UTC),
        messages=[Turn(**message) for message in candidate.messages],
    )


def _version(*said: object) -> str:
    return content_id(json.dumps(said, ensure_ascii=False))


def _unit(row: Prompt, pack_categories: Sequence[str]) -> dict[str, Any]:
    """A prompt for the judge to sort; all of them share the summaries of the pack."""
    unit = {name: getattr(row, name) for name in PROMPTS.schema.names}
    turns = [{"role": turn.role, "content": turn.content} for turn in row.messages]
    return {**unit, "messages": turns, "spec_id": content_id(*pack_categories)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """The work of the stage: units hold a prompt that lacks a category, which a judge chooses.

    Whatever comes of it is a row: without a category where the judge found none or its choice
    cannot be read, and with the engine's fault where it could not be asked.
    """

    pack: Pack
    run_id: str
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=4096))
    """How the judge is sampled."""

    @property
    def table(self) -> Table:
        return PROMPTS

    async def make(self, units: Sequence[dict[str, Any]], engine: Engine) -> list[Prompt]:
        template = load_template("assign", "spec_first")
        summaries = self.pack.spec([], detail="summary")
        requests = [
            Request(
                messages=assign_messages(
                    template, unit["messages"], spec=summaries, categories=list(self.pack.policies)
                ),
                num_samples=1,
                sampling=self.sampling,
            )
            for unit in units
        ]
        answers = await engine.generate(requests)
        return [self._row(unit, sample) for unit, (sample,) in zip(units, answers, strict=True)]

    def _row(self, unit: dict[str, Any], sample: Sample) -> Prompt:
        found = None
        if not sample.fault and sample.finish_reason != "length":
            found = read_category(sample.reply, list(self.pack.policies))
        columns = {name: unit[name] for name in PROMPTS.schema.names}
        columns["categories"] = [found] if found else []
        columns["status"] = sample.fault or ("ok" if found else "unassigned")
        columns["version"] = _version(
            columns["categories"],
            unit["ideal_response"],
            unit["source"],
            unit["split"],
            unit["language"],
            unit["transform"],
            unit["metadata"],
        )
        columns["created_at"] = datetime.now(UTC)
        columns["messages"] = [Turn(**turn) for turn in unit["messages"]]
        return Prompt(**columns)


def pending(
    collected: Collected, connection: duckdb.DuckDBPyConnection, *, wave_rows: int = 100_000
) -> Pending:
    """Prompts of this run that the judge has not been asked about since they were collected."""
    connection.register("units_to_assign", collected.to_assign)
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE pending_assignments AS
        SELECT u.prompt_id
        FROM units_to_assign AS u
        ANTI JOIN prompts_raw AS p ON p.prompt_id = u.prompt_id AND p.revision >= u.revision
        """
    )
    return Pending.of(
        connection,
        count="SELECT count(*) FROM pending_assignments",
        units="FROM units_to_assign SEMI JOIN pending_assignments USING (prompt_id)",
        rows=wave_rows,
    )


def assigned(collected: Collected, connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """What the run wants: prompt_id and categories, with those that the judge has chosen.

    Prompts that it found no category for, or could not be asked about, are not among them.
    """
    connection.register("units_to_assign", collected.to_assign)
    chosen = connection.execute(
        """
        SELECT p.prompt_id, p.categories
        FROM prompts_all AS p
        JOIN units_to_assign AS u ON p.prompt_id = u.prompt_id AND p.revision >= u.revision
        """
    ).fetchall()
    by_id = dict(chosen)
    tables = [_WANTED.empty_table()]
    for batch in collected.prompts.to_batches(max_chunksize=ROWS_PER_SHARD):
        rows = [
            {**row, "categories": row["categories"] or by_id.get(row["prompt_id"])}
            for row in batch.to_pylist()
        ]
        kept = [row for row in rows if row["categories"]]
        tables.append(pa.Table.from_pylist(kept, schema=_WANTED))
    return pa.concat_tables(tables)


# Likeness. Text is compared in lower case and without marks of form; how two texts are alike is
# asked in two ways: decontamination looks at words only, so that it rather drops too much, near
# duplicates at every sign, since "3 + 5" and "3 - 5" are not the same question.

_IDEOGRAPHIC = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_IDEOGRAPHIC}]|[^\W{_IDEOGRAPHIC}]+|[^\w\s]")
"""A word, a sign, or one letter of a script that is written without spaces."""


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def _canonical(messages: Sequence[Message]) -> str:
    return json.dumps(messages, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class _NearDuplicates:
    """Prompts seen so far, as MinHash signatures in bands.

    Takes about 6 kB of memory a prompt. What shares a band is compared by its whole signature.
    """

    _NUM_HASHES = 128
    _NUM_WORDS = 5

    def __init__(self, threshold: float) -> None:
        import numpy
        from datasketch import MinHash, MinHashLSH

        self._numpy = numpy
        self._blank = MinHash(num_perm=self._NUM_HASHES)
        self._threshold = threshold
        # Bands that miss few pairs at the threshold; the pairs below it that they let through
        # are sorted out by the signatures. Above 0.95 there would be but one band, which is none.
        self._bands = MinHashLSH(
            threshold=min(threshold, 0.95), num_perm=self._NUM_HASHES, weights=(0.05, 0.95)
        )
        self._signatures: list[Any] = []

    def has(self, messages: Sequence[Message]) -> bool:
        """Whether a prompt like this one was seen; if not, it is from now on."""
        signature = self._blank.copy()
        shingles = self._shingles(messages)
        # In pieces, because every value takes a kilobyte while it is hashed.
        for start in range(0, len(shingles), 4096):
            signature.update_batch(shingles[start : start + 4096])
        values = signature.hashvalues.astype(self._numpy.uint32)
        for index in self._bands.query(signature):
            if (self._signatures[index] == values).mean() >= self._threshold:
                return True
        self._bands.insert(len(self._signatures), signature)
        self._signatures.append(values)
        return False

    def _shingles(self, messages: Sequence[Message]) -> list[bytes]:
        # A long system prompt or history that many rows share must not make them alike, so
        # what stands before the last message is part of every run of words.
        *before, last = messages
        context = content_id(_canonical(before))
        tokens = _tokens(last["content"])
        starts = range(max(1, len(tokens) - self._NUM_WORDS + 1))
        runs = {" ".join(tokens[start : start + self._NUM_WORDS]) for start in starts}
        return [f"{context} {run}".encode() for run in runs]


class _Evaluations:
    """The prompts of evaluation sets, which must not be collected."""

    _NUM_WORDS = 13

    def __init__(self, sources: Sequence[SourceConfig]) -> None:
        self.counts: dict[str, Counts] = {}
        self._exact: set[int] = set()
        self._runs: set[int] = set()
        for source in sources:
            counts = self.counts[source.name] = Counts()
            for candidate in read_source(source):
                counts.read += 1
                if candidate.fault:
                    _count(counts.bad, candidate.fault)
                    continue
                counts.kept += 1
                turns = _user_turns(candidate.messages)
                self._exact.add(hash(tuple(itertools.chain(*turns))))
                self._runs.update(itertools.chain(*map(self._hashed_runs, turns)))
            _check_usable(source, counts)

    def share(self, messages: Sequence[Message]) -> bool:
        """Whether what the user says is in an evaluation set, wholly or 13 words in a row."""
        if not self._exact:
            return False
        turns = _user_turns(messages)
        whole = (tuple(itertools.chain(*turns)), *map(tuple, turns))
        if any(hash(words) in self._exact for words in whole):
            return True
        return any(run in self._runs for words in turns for run in self._hashed_runs(words))

    def _hashed_runs(self, words: Sequence[str]) -> Iterator[int]:
        for start in range(len(words) - self._NUM_WORDS + 1):
            yield hash(tuple(words[start : start + self._NUM_WORDS]))


def _user_turns(messages: Sequence[Message]) -> list[list[str]]:
    """The words of each user turn; its signs where it has no word."""
    turns = (_tokens(one["content"]) for one in messages if one["role"] == "user")
    return [[token for token in turn if token[0].isalnum()] or turn for turn in turns]


# Rows → candidates.

_ROLES = ("user", "assistant", "system", "tool")
_UNSAFE = re.compile("[\ud800-\udfff\x00]")
_HEAD_ROWS = 1000

Row = Mapping[str, Any]


class _BadRow(ValueError):
    """A row that cannot be used; the text is the reason it is counted by."""


def read_source(source: SourceConfig) -> Iterator[Candidate]:
    """The rows of a source; one that cannot be used has a fault and no messages.

    Raises ValueError where the source cannot be read, lacks a column, has an ideal response that
    it does not map, or has no rows.
    """
    num_rows = 0
    for where, rows in _tables(source):
        head = list(itertools.islice(rows, _HEAD_ROWS))
        if not head:
            continue
        text_column = _text_column(source, where, head)
        for row in itertools.chain(head, rows):
            if num_rows == source.limit:
                return
            num_rows += 1
            yield _candidate(row, source, text_column)
    if num_rows == 0:
        place = source.path or source.dataset
        raise ValueError(f"source {source.name!r}: no rows in {place}; give it some or remove it")


def _text_column(source: SourceConfig, where: str, head: Sequence[Row]) -> str:
    """The column with the chat or the prompt; raises ValueError where a column is missing."""
    columns = list(dict.fromkeys(itertools.chain(*head)))
    known = f"its columns are {', '.join(map(str, columns)) or 'none'}"
    missing = next((name for name in source.columns if name not in columns), None)
    if missing:
        raise ValueError(
            f"source {source.name!r}: {where} has no column {missing!r}; {known}: name one of them"
        )
    choices = (source.messages, source.prompt)
    found = next((name for name in choices if name), None)
    found = found or next((name for name in ("messages", "prompt") if name in columns), None)
    if not found:
        raise ValueError(
            f"source {source.name!r}: {where} has neither a column 'messages' nor 'prompt'; "
            f"{known}: say which in prompt or messages"
        )
    return found


def _candidate(row: Row, source: SourceConfig, text_column: str) -> Candidate:
    is_chat = source.messages is not None or (source.prompt is None and text_column == "messages")
    try:
        if not row:
            raise _BadRow("unreadable_row")
        value = row.get(text_column)
        messages = _chat(value) if is_chat else [_message("user", value)]
        if messages[-1]["role"] != "user":
            raise _BadRow("not_on_user_turn")
        if not messages[-1]["content"].strip():
            raise _BadRow("empty_prompt")
        categories = _categories(row, source)
    except _BadRow as fault:
        return Candidate(messages=[], categories=[], fault=str(fault))
    ideal_response = _ideal_response(row, source)
    metadata = [text for column in source.metadata for text in _texts(row.get(column))]
    if source.label_as_metadata and ideal_response:
        metadata.append(f"the ideal response is {ideal_response}")
    language = _texts(row.get(source.language_column)) if source.language_column else []
    transform = _texts(row.get(source.transform)) if source.transform else []
    return Candidate(
        messages=messages,
        categories=categories,
        ideal_response=ideal_response,
        language=language[0] if language else source.language,
        transform=transform[0] if transform else None,
        metadata=metadata,
    )


def _chat(value: object) -> list[Message]:
    """A chat as it stands in a row: a list of role and content, or the same as JSON text."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _BadRow("not_a_chat") from None
    if not value:
        raise _BadRow("empty_prompt")
    if not isinstance(value, list):
        raise _BadRow("not_a_chat")
    messages = []
    for turn in value:
        if not isinstance(turn, Mapping):
            raise _BadRow("not_a_chat")
        messages.append(_message(turn.get("role"), turn.get("content")))
    return messages


def _message(role: object, content: object) -> Message:
    if role not in _ROLES:
        raise _BadRow("unknown_role")
    if content is None:
        raise _BadRow("empty_prompt")
    if not isinstance(content, str):
        raise _BadRow("not_text")
    return {"role": str(role), "content": _clean(content)}


def _clean(text: str) -> str:
    """Text that every file and tokenizer takes: half characters and NUL become U+FFFD."""
    return _UNSAFE.sub("\ufffd", text).replace("\r\n", "\n")


def _texts(value: object) -> list[str]:
    """What a column says, as text: nothing, one value, or each of a list."""
    values = value if isinstance(value, list) else [value]
    texts = (_clean(str(one)).strip() for one in values if one is not None)
    return [text for text in texts if text]


def _categories(row: Row, source: SourceConfig) -> list[str]:
    if not source.category:
        return sorted(set(source.categories))
    labels = _texts(row.get(source.category))
    mapped = {source.category_map.get(label, label) for label in labels}
    if mapped == {""}:
        raise _BadRow("left_out")
    return sorted(mapped - {""})


def _ideal_response(row: Row, source: SourceConfig) -> str | None:
    if not source.ideal_response:
        return source.ideal_response_value.value if source.ideal_response_value else None
    labels = _texts(row.get(source.ideal_response))
    if not labels:
        return None
    outcome = source.ideal_response_map.get(labels[0], labels[0])
    if outcome and outcome not in tuple(Outcome):
        raise ValueError(
            f"source {source.name!r}: ideal response {_short(labels[0])} is none of "
            f"{', '.join(Outcome)}; map it in ideal_response_map"
        )
    return outcome or None


# Files and data sets → rows. A row is a mapping; an empty one stands for a row that does not fit
# its header.


def _tables(source: SourceConfig) -> Iterator[tuple[str, Iterator[Row]]]:
    """Each file, or the data set, with its rows."""
    if source.dataset:
        yield f"data set {source.dataset}", _dataset_rows(source)
        return
    for path in _files(source):
        yield str(path), _file_rows(path, source)


def _files(source: SourceConfig) -> list[Path]:
    assert source.path
    wanted = os.path.expanduser(source.path)
    for base in (Path.cwd(), PROJECT):
        place = base / wanted
        if place.is_file():
            if not _reader(place):
                raise ValueError(
                    f"source {source.name!r}: {place} is of no kind that can be read; give "
                    f"{', '.join(_READERS)}, each also with .gz"
                )
            return [place]
        pattern = os.path.join(glob.escape(wanted), "**") if place.is_dir() else wanted
        found = [base / match for match in glob.glob(pattern, root_dir=base, recursive=True)]
        files = sorted(path for path in found if path.is_file() and _reader(path))
        if files:
            return files
    raise ValueError(
        f"source {source.name!r}: no {', '.join(_READERS)} at {source.path!r} in {Path.cwd()} or "
        f"{PROJECT}; give a file, a folder or a glob"
    )


def _reader(path: Path) -> Callable[[Path, SourceConfig], Iterator[Row]] | None:
    return _READERS.get(Path(path.name.lower().removesuffix(".gz")).suffix)


def _file_rows(path: Path, source: SourceConfig) -> Iterator[Row]:
    reader = _reader(path)
    assert reader
    try:
        yield from reader(path, source)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error}); fetch it again") from error


def _open(path: Path, *, newline: str | None = None) -> IO[str]:
    # Half characters are let through here, to be replaced where the text is cleaned.
    opener: Callable[..., IO[str]] = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", errors="surrogatepass", newline=newline)


def _csv_rows(path: Path, source: SourceConfig) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with _open(path, newline="") as file:
        # Strict, because a quote that is never closed would else swallow the rest of the file.
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            for record in filter(None, reader):
                fits = len(record) == len(header)
                yield dict(zip(header, record, strict=True)) if fits else {}
        except csv.Error as error:
            raise ValueError(
                f"{path}:{reader.line_num}: not CSV ({error}); quote the field, and double the "
                "quotes inside it"
            ) from error


def _jsonl_rows(path: Path, source: SourceConfig) -> Iterator[Row]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                row = _parse(line.strip(), path, number, "write one object a line")
                if not isinstance(row, dict):
                    raise ValueError(f"{path}:{number}: not an object; write one object a line")
                yield row


def _json_rows(path: Path, source: SourceConfig) -> Iterator[Row]:
    with _open(path) as file:
        text = file.read()
    if not text.strip():
        return
    data = _parse(text, path, 1, "a file with one object a line is to be named .jsonl")
    if isinstance(data, dict):
        keys = [key for key, value in data.items() if isinstance(value, list)]
        key = source.rows_key or (keys[0] if len(keys) == 1 else None)
        if key not in keys:
            raise ValueError(
                f"{path}: {len(keys)} keys of the object hold lists ({', '.join(keys) or 'none'}); "
                "say in rows_key which holds the rows"
            )
        data = data[key]
    if not isinstance(data, list):
        raise ValueError(f"{path}: neither a list of rows nor an object that has one; write one")
    for number, row in enumerate(data, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: row {number} is not an object; write rows as objects")
        yield row


def _parse(text: str, path: Path, line: int, remedy: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}"
        raise ValueError(f"{where}: not JSON ({error.msg}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}:{line}: not JSON ({error}); {remedy}") from error


def _parquet_rows(path: Path, source: SourceConfig) -> Iterator[Row]:
    packed = path.suffix.lower() == ".gz"
    try:
        file = pq.ParquetFile(io.BytesIO(gzip.decompress(path.read_bytes())) if packed else path)
        columns = _needed(file.schema_arrow.names, source)
        for batch in file.iter_batches(batch_size=_HEAD_ROWS, columns=columns):
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise ValueError(f"{path}: not Parquet ({error}); fetch or write it again") from error


_READERS: dict[str, Callable[[Path, SourceConfig], Iterator[Row]]] = {
    ".csv": _csv_rows,
    ".json": _json_rows,
    ".jsonl": _jsonl_rows,
    ".parquet": _parquet_rows,
}


def _dataset_rows(source: SourceConfig) -> Iterator[Row]:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    assert source.dataset
    folders = [base / source.dataset for base in (Path.cwd(), PROJECT)]
    place = next((str(folder) for folder in folders if folder.is_dir()), source.dataset)
    try:
        data = load_dataset(
            place,
            source.dataset_config,
            split=source.dataset_split,
            revision=source.revision,
        )
    except (OSError, ValueError, DatasetsError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"source {source.name!r}: data set {source.dataset!r} cannot be read ({first}); check "
            "its id, dataset_config, dataset_split and revision, and that it can be reached"
        ) from error
    yield from data.select_columns(_needed(data.column_names, source))


def _needed(columns: Sequence[str], source: SourceConfig) -> list[str]:
    """The columns to read: those the source names, or all where one of them is missing."""
    named = set(source.columns)
    if not (source.prompt or source.messages):
        named |= {"prompt", "messages"} & set(columns) or {"prompt"}
    return [name for name in columns if name in named] if named <= set(columns) else list(columns)
