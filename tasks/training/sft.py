"""checkpoints ← examples: supervised fine-tuning on reasoning and answer, without the spec.

The examples and a share of capability data are tokenised once, into Parquet with their labels, in
flat memory; TRL trains on exactly those rows. A row that cannot be learned whole is counted with
its reason, and never cut.
"""

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from specs.prompts import Message
from tasks import Config
from tasks.engine.chat_template import Chat, ChatError, ChatTemplate, Encoded
from tasks.paths import LocatedFile, find, places
from tasks.training.checkpoint import Outcome
from tasks.training.trainer import (
    BestBy,
    DataError,
    DataFigures,
    Job,
    TrainError,
    TrainingConfig,
    fit,
)
from tasks.training.worker import EarlyStop, run_trainer, set_up
from warehouse.catalog import connect, look_up, stream
from warehouse.home import Home

_BEST = BestBy("loss", "min")
_BATCH_ROWS = 2_000
_ROWS_PER_FILE = 100_000
_COUNTS = ("num_prompt_tokens", "num_reasoning_tokens", "num_answer_tokens")
_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        *(pa.field(name, pa.int32(), nullable=False) for name in _COUNTS),
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("labels", pa.list_(pa.int32()), nullable=False),
    ]
)


class CapabilityConfig(Config):
    """Data without policies, so that the model keeps the abilities it had."""

    path: LocatedFile
    """JSONL or Parquet file with a column messages, whose last turn is the assistant's and has the
    keys content and reasoning_content."""
    share: float = Field(0.2, gt=0, lt=1)
    """Share of these rows among all rows."""


class SftConfig(TrainingConfig):
    """How a model is fine-tuned on examples."""

    not_defining: ClassVar[dict[str, Any]] = {"workers": True, "capability": {"path"}}

    epochs: float = Field(3.0, gt=0)
    """Passes over the rows."""
    max_length: int = Field(8192, gt=0)
    """Longest row in tokens; longer rows are left out and counted."""
    capability: CapabilityConfig | None = None
    """Capability data to mix in. Unset: examples alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedChat:
    """A prompt with the reply to learn, as the lookups give it."""

    row_id: str
    """Hash of what it says, or the completion's id."""
    messages: list[Message]
    reasoning: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenisedRow:
    """A chat in tokens; its fields are the columns that TRL and the order of rows need."""

    row_id: str
    source: str
    num_prompt_tokens: int
    num_reasoning_tokens: int
    num_answer_tokens: int
    input_ids: list[int]
    labels: list[int]
    """-100 on the prompt, the ids on reasoning and answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenised:
    """The tokenised rows of a training."""

    files: list[str]
    figures: DataFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class SftTraining:
    """Fine-tuning on a frozen set of examples."""

    config: SftConfig
    set_id: str
    capability: Path | None
    """The file of capability data."""
    fingerprint: str
    home: Home
    name: str = "sft"
    best: BestBy = _BEST

    @classmethod
    def of(cls, set_id: str, *, config: SftConfig, home: Home) -> "SftTraining":
        """Returns the training on a set; raises DataError if the capability file is missing."""
        capability = _capability_file(config.capability)
        return cls(
            config=config,
            set_id=set_id,
            capability=capability,
            fingerprint=fingerprint(set_id, capability),
            home=home,
        )

    @property
    def num_gpus(self) -> int:
        return self.config.workers.num_gpus

    def train(self, job: Job) -> Outcome:
        """Tokenises the rows, unless an earlier attempt has, and fine-tunes on them."""
        rows = tokenise(
            connect(self.home),
            ChatTemplate(job.load_tokenizer(), chat_template_kwargs=job.chat_template_kwargs),
            training=self,
            folder=Path(job.folder) / "data",
        )
        return Outcome(fit(_loop, job, rows), rows.figures)


def _capability_file(config: CapabilityConfig | None) -> Path | None:
    """Returns the file of capability data, if the recipe names one."""
    if config is None:
        return None
    file = find(config.path, accept=Path.is_file)
    if file is None:
        raise DataError(
            f"sft.capability.path: no file {config.path} ({places()}); give a JSONL or Parquet "
            "file of chats"
        )
    return file


def fingerprint(set_id: str, capability: Path | None) -> str:
    """Returns the hash of the data: the frozen set and the content of the capability file."""
    digest = hashlib.sha256(set_id.encode())
    if capability:
        with capability.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def tokenise(
    connection: duckdb.DuckDBPyConnection,
    chats: ChatTemplate,
    *,
    training: SftTraining,
    folder: Path,
) -> Tokenised:
    """Writes the rows of a training into a folder, which appears whole or not at all.

    A folder that is there is read, not written again. Raises DataError if no row can be learned, or
    if a prompt still holds its spec.
    """
    if folder.exists():
        return _read(folder)
    config, set_id = training.config, training.set_id
    _require_no_spec(connection, set_id)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    writer = _RowWriter(partial, chats, config.max_length)
    writer.add("examples", _stream(connection, "chosen_examples", set_id=set_id))
    if training.capability and config.capability:
        path, share = str(training.capability), config.capability.share
        _require_reasoning(connection, path)
        most = round(writer.sources["examples"] * share / (1 - share))
        writer.add("capability", _stream(connection, "capability_chats", path=path), most=most)
    writer.close()
    figures = writer.figures
    if not figures.num_rows:
        raise DataError(
            f"set {set_id} has no row to learn from: {figures.left_out or 'it is empty'}; run "
            "precept refresh, or raise sft.max_length"
        )
    (partial / "facts.json").write_text(json.dumps(asdict(figures)), encoding="utf-8")
    partial.rename(folder)
    return _read(folder)


def _read(folder: Path) -> Tokenised:
    figures = DataFigures(**json.loads((folder / "facts.json").read_text(encoding="utf-8")))
    return Tokenised(files=sorted(map(str, folder.glob("*.parquet"))), figures=figures)


def _require_no_spec(connection: duckdb.DuckDBPyConnection, set_id: str) -> None:
    """Raises DataError if a turn of a prompt holds the spec that its completion was made under."""
    [row] = look_up(connection, "prompts_with_spec", set_id=set_id)
    if row["num_prompts"]:
        raise DataError(
            f"{row['num_prompts']} prompts of set {set_id} hold their spec: the model would not "
            "learn it by heart; take the policy out of the prompts of your source"
        )


def _require_reasoning(connection: duckdb.DuckDBPyConnection, path: str) -> None:
    """Raises DataError if a file of chats has no place for reasoning."""
    rows = look_up(connection, "capability_type", path=path)
    if not rows or "reasoning_content" not in rows[0]["column_type"]:
        raise DataError(
            f"{path} has no column messages whose turns have content and reasoning_content; give "
            "sft.capability.path such a file"
        )


def _stream(
    connection: duckdb.DuckDBPyConnection, lookup: str, **parameters: Any
) -> Iterator[list[LearnedChat]]:
    """Yields the chats of a lookup in batches; a row that was written twice comes once."""
    # Only the ids are remembered, in 16 bytes each: a million texts would not fit in memory.
    seen: set[bytes] = set()
    for rows in stream(connection, lookup, batch_rows=_BATCH_ROWS, **parameters):
        fresh = []
        for row in rows:
            key = bytes.fromhex(row["row_id"])
            if key not in seen:
                seen.add(key)
                fresh.append(LearnedChat(**row))
        yield fresh


class _RowWriter:
    """Tokenises chats into Parquet files, a batch at a time."""

    def __init__(self, folder: Path, chats: ChatTemplate, max_length: int) -> None:
        self.folder, self.chats, self.max_length = folder, chats, max_length
        self.num_rows = self.num_tokens = 0
        self.sources: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self._file: pq.ParquetWriter | None = None

    @property
    def figures(self) -> DataFigures:
        """Counts of the rows written and left out so far."""
        return DataFigures(
            num_rows=self.num_rows,
            num_tokens=self.num_tokens,
            sources=dict(self.sources),
            left_out=dict(self.left_out),
        )

    def add(
        self, source: str, batches: Iterable[Sequence[LearnedChat]], *, most: int | None = None
    ) -> None:
        """Writes the rows that can be learned; at most `most` of them, if it is given."""
        for batch in batches:
            rows = self._tokenise(source, batch)
            if most is not None:
                rows = rows[: most - self.sources[source]]
            if rows:
                self._write(source, rows)
            if self.sources[source] == most:
                return

    def _tokenise(self, source: str, batch: Sequence[LearnedChat]) -> list[TokenisedRow]:
        """Returns the rows that can be learned whole; counts the others."""
        chats = [Chat(row.messages, row.reasoning, row.answer) for row in batch]
        rows = []
        for row, encoded in zip(batch, self.chats.encode_all(chats), strict=True):
            if fault := self._fault(encoded):
                self.left_out[fault] += 1
            elif isinstance(encoded, Encoded):
                rows.append(
                    TokenisedRow(
                        row_id=row.row_id,
                        source=source,
                        num_prompt_tokens=encoded.num_prompt_tokens,
                        num_reasoning_tokens=encoded.num_reasoning_tokens,
                        num_answer_tokens=encoded.num_answer_tokens,
                        input_ids=encoded.input_ids,
                        labels=encoded.labels,
                    )
                )
        return rows

    def _fault(self, encoded: Encoded | ChatError) -> str | None:
        """Returns why a chat cannot be learned whole, or None."""
        if isinstance(encoded, ChatError):
            return str(encoded)
        if len(encoded.input_ids) > self.max_length:
            return f"longer than {self.max_length} tokens"
        return None

    def _write(self, source: str, rows: Sequence[TokenisedRow]) -> None:
        # A new file once this one is full.
        full = self.num_rows // _ROWS_PER_FILE != (self.num_rows + len(rows)) // _ROWS_PER_FILE
        if self._file is None or full:
            self.close()
            path = self.folder / f"part-{self.num_rows:012}.parquet"
            self._file = pq.ParquetWriter(path, _SCHEMA, compression="zstd")
        columns = {name: [getattr(row, name) for row in rows] for name in _SCHEMA.names}
        self._file.write_table(pa.Table.from_pydict(columns, schema=_SCHEMA))
        self.num_rows += len(rows)
        self.num_tokens += sum(len(row.input_ids) for row in rows)
        self.sources[source] += len(rows)

    def close(self) -> None:
        """Ends the file that is being written, if any."""
        if self._file is not None:
            self._file.close()
        self._file = None


def learning_order(lengths: Sequence[int], config: SftConfig) -> list[int]:
    """Returns the indices of the rows in the order they are learned, over all epochs.

    Each epoch is a shuffle of its own in which rows of like length share a batch: less padding.
    `lengths` are the tokens of each row. The order follows from the seed alone, not from a
    sampler's state, so that a training that resumes finds it again.
    """
    rng = random.Random(config.seed)
    num_learned = round(len(lengths) * config.epochs)
    chosen: list[int] = []
    while len(chosen) < num_learned:
        rows = list(range(len(lengths)))
        rng.shuffle(rows)
        window = 50 * config.batch_size
        batches = []
        for start in range(0, len(rows), window):
            longest_first = sorted(rows[start : start + window], key=lambda row: -lengths[row])
            batches += [
                longest_first[first : first + config.batch_size]
                for first in range(0, len(longest_first), config.batch_size)
            ]
        rng.shuffle(batches)
        chosen += [row for batch in batches for row in batch]
    return chosen[:num_learned]


def _loop(job: Job, tokenised: Tokenised) -> None:
    """Fine-tunes in one worker."""
    set_up(job)
    import datasets
    from trl import SFTConfig as Arguments
    from trl import SFTTrainer

    config = job.config
    assert isinstance(config, SftConfig)
    rows = datasets.load_dataset(
        "parquet",
        data_files=tokenised.files,
        split="train",
        cache_dir=str(Path(job.folder) / "cache"),
    )
    if len(rows) != tokenised.figures.num_rows:
        raise TrainError(
            f"{len(rows)} of {tokenised.figures.num_rows} rows reached the worker; run the same "
            "command again"
        )
    lengths = [sum(counts) for counts in zip(*(rows[name] for name in _COUNTS), strict=True)]
    # Rows that have input_ids and labels are passed on as they are: TRL renders no template.
    learned = rows.select_columns(["input_ids", "labels"]).select(learning_order(lengths, config))
    arguments = Arguments(
        **{
            **job.trl_arguments(),
            # All epochs stand in the order already.
            "num_train_epochs": 1,
            "train_sampling_strategy": "sequential",
            "max_length": config.max_length,
            # Packed rows see each other unless the attention keeps them apart; CPU's does not.
            "packing": False,
            "logging_steps": 1,
        }
    )
    trainer = SFTTrainer(
        model=job.model,
        args=arguments,
        train_dataset=learned,
        processing_class=job.load_tokenizer(),
        peft_config=job.peft_config(),
    )
    # TRL drops rows that it finds nothing to learn in, without a word.
    if len(trainer.train_dataset) != len(learned):
        raise TrainError(
            f"{len(trainer.train_dataset)} of {len(learned)} rows reached the trainer: TRL took "
            "the others out"
        )
    run_trainer(trainer, job, EarlyStop())
