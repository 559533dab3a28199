"""examples → tokens with labels on reasoning and answer, or on the answer alone.

The examples of a frozen set, and a share of capability data, are written once as Parquet, in flat
memory. A row that cannot be learned whole is counted with its reason, and never cut.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from specs.prompts import Message
from tasks.engine.chat_template import Chat, ChatError, ChatTemplate, Encoded
from tasks.training.capability import write_chats
from tasks.training.trainer import DataError, DataFigures
from warehouse.catalog import look_up, stream

COUNTS = ("num_prompt_tokens", "num_reasoning_tokens", "num_answer_tokens")
"""The columns whose sum is the length of a row in tokens."""

_BATCH_ROWS = 2_000
_ROWS_PER_FILE = 100_000
_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        *(pa.field(name, pa.int32(), nullable=False) for name in COUNTS),
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("labels", pa.list_(pa.int32()), nullable=False),
    ]
)


LearnOn = Literal["all", "answer"]
"""The part of a reply that a training teaches."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Examples that a training repeats, because the checkpoint it continues from has learned
    them."""

    learned_set: str
    """The set that the checkpoint has learned."""
    share: float
    """Share of repeated examples among all examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SftData:
    """The rows that a fine-tuning learns from."""

    set_id: str
    """The frozen set of examples."""
    max_length: int
    """Longest row in tokens."""
    capability: Path | None = None
    """The file of capability data, if any is mixed in."""
    capability_share: float = 0.0
    """Share of its rows among all rows."""
    replay: Replay | None = None
    """Unset: all examples of the set are learned."""
    learn_on: LearnOn = "all"
    """The part of examples that is learned; of capability data, all is."""

    @property
    def fingerprint(self) -> str:
        """The hash of the set's id, of the content of the capability file, of what is repeated and
        of the part that is learned."""
        digest = hashlib.sha256(self.set_id.encode())
        if self.capability:
            with self.capability.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        if self.replay:
            digest.update(f"replay {self.replay.share} of {self.replay.learned_set}".encode())
        if self.learn_on != "all":
            digest.update(f"learn on {self.learn_on}".encode())
        return digest.hexdigest()[:32]


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


def tokenise(
    connection: duckdb.DuckDBPyConnection, chats: ChatTemplate, data: SftData, folder: Path
) -> Tokenised:
    """Writes the rows that can be learned into a folder, which appears whole or not at all.

    A folder that is there is read, not written again. Raises DataError if no row can be learned, or
    if a prompt still holds its spec.
    """
    if folder.exists():
        return _read(folder)
    _require_no_spec(connection, data.set_id)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    writer = _RowWriter(partial, chats, data.max_length, data.learn_on)
    if data.replay:
        _add_new_and_replayed(writer, connection, data.set_id, data.replay)
    else:
        writer.add("examples", _stream(connection, "chosen_examples", set_id=data.set_id))
    if data.capability:
        share, chats_read = data.capability_share, partial / "capability"
        writer.left_out.update(write_chats(data.capability, chats_read))
        most = round(writer.num_rows * share / (1 - share))
        rows = _stream(connection, "capability_chats", path=str(chats_read))
        writer.add("capability", rows, most=most)
        chats_read.unlink()
    writer.close()
    figures = writer.figures
    if not figures.num_rows:
        raise DataError(
            f"set {data.set_id} has no row to learn from: {figures.left_out or 'it is empty'}; run "
            "precept refresh, or raise sft.max_length"
        )
    (partial / "facts.json").write_text(json.dumps(asdict(figures)), encoding="utf-8")
    partial.rename(folder)
    return _read(folder)


def _add_new_and_replayed(
    writer: "_RowWriter", connection: duckdb.DuckDBPyConnection, set_id: str, replay: Replay
) -> None:
    """Writes the examples that the checkpoint has not learned, and a share of those that it has.

    Raises DataError if there are none of the former.
    """
    sets = {"set_id": set_id, "learned_set": replay.learned_set}
    writer.add("examples", _stream(connection, "new_examples", **sets))
    num_new = writer.sources["examples"]
    if not num_new:
        raise DataError(
            f"set {set_id} has no example that the checkpoint has not learned; leave sft.replay "
            "out to learn the whole set again"
        )
    most = round(num_new * replay.share / (1 - replay.share))
    if most:
        writer.add("replay", _stream(connection, "learned_examples", **sets), most=most)


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

    def __init__(
        self, folder: Path, chats: ChatTemplate, max_length: int, learn_on: LearnOn
    ) -> None:
        self.folder, self.chats, self.max_length = folder, chats, max_length
        self.learn_on = learn_on
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
        is_alone = self.learn_on == "answer" and source != "capability"
        chats = [
            Chat(row.messages, None if is_alone else row.reasoning, row.answer) for row in batch
        ]
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
