"""checkpoints ← examples: supervised fine-tuning on reasoning and answer, without the spec.

The examples, and a share of capability data, are tokenised once into Parquet with their labels, in
flat memory; what TRL trains on is exactly those rows. A row that cannot be learned whole is counted
with its reason and never dropped silently.
"""

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from tasks import Config
from tasks.engine.chat_template import Chat, ChatError, ChatTemplate, Encoded
from tasks.training.trainer import (
    DataError,
    EarlyStop,
    Finished,
    Job,
    TrainError,
    TrainingConfig,
    fit,
    prepare,
    run,
)

_ROWS_AT_ONCE = 2_000
_ROWS_PER_FILE = 100_000
_COUNTS = ("num_prompt_tokens", "num_reasoning_tokens", "num_answer_tokens")

SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("num_prompt_tokens", pa.int32(), nullable=False),
        pa.field("num_reasoning_tokens", pa.int32(), nullable=False),
        pa.field("num_answer_tokens", pa.int32(), nullable=False),
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("labels", pa.list_(pa.int32()), nullable=False),
    ]
)
"""A tokenised row: labels are -100 on the prompt, the ids on reasoning and answer."""


class CapabilityConfig(Config):
    """Data without policy, so that the model keeps what it could do."""

    path: str
    """JSONL or Parquet with a column messages whose last turn is the assistant's, with the keys
    content and reasoning_content."""
    share: float = Field(0.2, gt=0, lt=1)
    """Share of these rows in the whole."""


class SftConfig(TrainingConfig):
    """How a model is fine-tuned on examples."""

    epochs: float = Field(3.0, gt=0)
    """Times that each row is learned from."""
    max_length: int = Field(8192, gt=0)
    """Longest row in tokens; what is longer is left out and counted."""
    capability: CapabilityConfig | None = None
    """Capability data to mix in; none: examples alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenised:
    """What a training learns from, and what of it could not be used."""

    files: list[str]
    num_rows: int
    num_tokens: int
    sources: dict[str, int]
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that cannot be learned whole, by reason."""


def fingerprint(config: SftConfig, set_id: str, capability: str | None) -> str:
    """The data of a training: the frozen set and the content of the capability file."""
    digest = hashlib.sha256(set_id.encode())
    if capability:
        with open(capability, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def tokenise(
    connection: duckdb.DuckDBPyConnection,
    chats: ChatTemplate,
    *,
    config: SftConfig,
    set_id: str,
    capability: str | None,
    folder: Path,
) -> Tokenised:
    """Writes the rows of a set, and its share of capability data, as tokens with labels.

    A folder that is already there whole is read, not written again. Raises DataError where
    nothing can be learned from, or a prompt still holds its spec.
    """
    if folder.exists():
        return _read(folder)
    _check_no_spec(connection, set_id)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    writer = _Writer(partial, chats, config.max_length)
    writer.add("examples", _examples(connection, set_id))
    if capability and config.capability:
        share = config.capability.share
        wanted = round(writer.sources["examples"] * share / (1 - share))
        writer.add("capability", _capability(connection, capability), most=wanted)
    writer.close()
    if not writer.num_rows:
        raise DataError(
            f"no row to learn from in set {set_id}: {dict(writer.left_out) or 'it is empty'}; run "
            "precept refresh, or raise sft.max_length"
        )
    facts = {
        "num_rows": writer.num_rows,
        "num_tokens": writer.num_tokens,
        "sources": dict(writer.sources),
        "left_out": dict(writer.left_out),
    }
    (partial / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    partial.rename(folder)
    return _read(folder)


def _read(folder: Path) -> Tokenised:
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return Tokenised(files=sorted(map(str, folder.glob("*.parquet"))), **facts)


class _Writer:
    """Tokenised rows into Parquet files, a batch at a time."""

    def __init__(self, folder: Path, chats: ChatTemplate, max_length: int) -> None:
        self.folder, self.chats, self.max_length = folder, chats, max_length
        self.num_rows = self.num_tokens = 0
        self.sources: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self._file: pq.ParquetWriter | None = None

    def add(
        self,
        source: str,
        batches: Iterable[Sequence[dict[str, Any]]],
        *,
        most: int | None = None,
    ) -> None:
        """Writes the rows that can be learned; `most` of them, where that is given."""
        for batch in batches:
            chats = [Chat(one["messages"], one["reasoning"], one["answer"]) for one in batch]
            found = zip(batch, self.chats.encode_all(chats), strict=True)
            rows = [row for row in (self._row(source, *pair) for pair in found) if row]
            if most is not None:
                rows = rows[: most - self.sources[source]]
            if not rows:
                continue
            if self._file is None or self.num_rows // _ROWS_PER_FILE != (
                (self.num_rows + len(rows)) // _ROWS_PER_FILE
            ):
                self.close()
                path = self.folder / f"part-{self.num_rows:012}.parquet"
                self._file = pq.ParquetWriter(path, SCHEMA, compression="zstd")
            self._file.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
            self.num_rows += len(rows)
            self.num_tokens += sum(len(row["input_ids"]) for row in rows)
            self.sources[source] += len(rows)
            if self.sources[source] == most:
                return

    def _row(
        self, source: str, one: dict[str, Any], encoded: Encoded | ChatError
    ) -> dict[str, Any] | None:
        if isinstance(encoded, ChatError):
            self.left_out[str(encoded)] += 1
            return None
        if len(encoded.input_ids) > self.max_length:
            self.left_out[f"longer than {self.max_length} tokens"] += 1
            return None
        return {
            "row_id": one["row_id"],
            "source": source,
            "num_prompt_tokens": encoded.num_prompt_tokens,
            "num_reasoning_tokens": encoded.num_reasoning_tokens,
            "num_answer_tokens": encoded.num_answer_tokens,
            "input_ids": encoded.input_ids,
            "labels": encoded.labels,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def _check_no_spec(connection: duckdb.DuckDBPyConnection, set_id: str) -> None:
    """Raises DataError where a turn of a prompt holds the spec it was made under."""
    [(count,)] = connection.execute(
        """
        SELECT count(*)
        FROM examples_raw AS e
        JOIN specs AS s USING (spec_id)
        WHERE e.set_id = $set_id
          AND list_bool_or(list_transform(e.prompt, lambda turn: contains(turn.content, s.text)))
        """,
        {"set_id": set_id},
    ).fetchall()
    if count:
        raise DataError(
            f"{count} prompts of set {set_id} hold their spec: the model would not learn it by "
            "heart; take the policy out of the prompts of your source"
        )


def _examples(connection: duckdb.DuckDBPyConnection, set_id: str) -> Iterator[list[dict[str, Any]]]:
    yield from _batches(
        connection,
        """
        SELECT
            completion_id AS row_id,
            prompt AS messages,
            completion[1].reasoning_content AS reasoning,
            completion[1].content AS answer
        FROM examples_raw
        WHERE set_id = $set_id AND status = 'chosen'
        """,
        {"set_id": set_id},
    )


def _capability(connection: duckdb.DuckDBPyConnection, path: str) -> Iterator[list[dict[str, Any]]]:
    """The rows of a file of chats, in the order of the hash of what they say."""
    values = {"source": f"FROM '{path.replace(chr(39), chr(39) * 2)}'"}
    columns = connection.sql("SELECT * FROM query($source) LIMIT 0", params=values)
    kind = str(dict(zip(columns.columns, columns.types, strict=True)).get("messages"))
    if "reasoning_content" not in kind:
        raise DataError(
            f"{path} has no column messages whose turns have content and reasoning_content; give "
            "sft.capability.path such a file"
        )
    yield from _batches(
        connection,
        """
        SELECT
            left(sha256(messages::JSON::VARCHAR), 32) AS row_id,
            messages[:-2] AS messages,
            coalesce(messages[-1].reasoning_content, '') AS reasoning,
            coalesce(messages[-1].content, '') AS answer
        FROM query($source)
        ORDER BY row_id
        """,
        values,
    )


def _batches(
    connection: duckdb.DuckDBPyConnection, sql: str, values: dict[str, Any]
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a query, a batch at a time; what was written twice comes once."""
    seen: set[bytes] = set()
    for batch in connection.sql(sql, params=values).to_arrow_reader(_ROWS_AT_ONCE):
        fresh = []
        for row in batch.to_pylist():
            key = bytes.fromhex(row["row_id"])
            if key not in seen:
                seen.add(key)
                fresh.append(row)
        yield fresh


def train(job: Job, data: Tokenised) -> Finished:
    """Fine-tunes on the rows; a training that was killed goes on from its last checkpoint."""
    return fit(_loop, job, files=data.files, num_rows=data.num_rows)


def order(lengths: Sequence[int], config: SftConfig) -> list[int]:
    """The rows in the order they are learned from, over all epochs.

    Each epoch is a shuffle of its own in which rows of like length share a batch: less padding.
    A training that goes on finds the same order, which is why no sampler draws it.
    """
    rng = random.Random(config.seed)
    wanted = round(len(lengths) * config.epochs)
    chosen: list[int] = []
    while len(chosen) < wanted:
        rows = list(range(len(lengths)))
        rng.shuffle(rows)
        window = 50 * config.batch_size
        batches = [
            some[first : first + config.batch_size]
            for start in range(0, len(rows), window)
            for some in [sorted(rows[start : start + window], key=lambda row: -lengths[row])]
            for first in range(0, len(some), config.batch_size)
        ]
        rng.shuffle(batches)
        chosen += [row for batch in batches for row in batch]
    return chosen[:wanted]


def _loop(settings: dict[str, Any]) -> None:
    """What each worker does."""
    job: Job = settings["job"]
    prepare(job)
    import datasets
    from transformers import AutoTokenizer
    from trl import SFTConfig as Arguments
    from trl import SFTTrainer

    config = job.config
    assert isinstance(config, SftConfig)
    rows = datasets.load_dataset(
        "parquet",
        data_files=settings["files"],
        split="train",
        cache_dir=str(Path(job.folder) / "cache"),
    )
    if len(rows) != settings["num_rows"]:
        raise TrainError(f"{len(rows)} of {settings['num_rows']} rows reached the worker")
    lengths = [sum(counts) for counts in zip(*(rows[name] for name in _COUNTS), strict=True)]
    learned = rows.select_columns(["input_ids", "labels"]).select(order(lengths, config))
    arguments = Arguments(
        **{
            **job.arguments(),
            "num_train_epochs": 1,
            "train_sampling_strategy": "sequential",
            "max_length": config.max_length,
            "packing": False,
            "logging_steps": 1,
        }
    )
    trainer = SFTTrainer(
        model=job.model,
        args=arguments,
        train_dataset=learned,
        processing_class=AutoTokenizer.from_pretrained(job.model, revision=job.revision),
        peft_config=job.adapters(),
    )
    if len(trainer.train_dataset) != len(learned):
        raise TrainError(f"{len(trainer.train_dataset)} of {len(learned)} rows reached the trainer")
    run(trainer, job, EarlyStop())
