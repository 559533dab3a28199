"""examples → tokens with labels on reasoning and answer, or the answer alone; documents → tokens.

The examples of a frozen set, and a share of capability data, are written once as Parquet, in flat
memory. A row that cannot be learned whole is counted with its reason, and never cut; a document,
of which every token is learned, is cut into pieces.
"""

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from specs.prompts import Message
from tasks.data.documents import Documents, LearnedDocument
from tasks.engine.chat_template import Chat, ChatError, ChatTemplate, Encoded
from tasks.engine.neutral import Neutraliser
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
    with _written_whole(folder) as partial:
        writer = _RowWriter(partial)
        tokeniser = _ChatTokeniser(chats, data, writer)
        if data.replay:
            _add_new_and_replayed(tokeniser, connection, data.set_id, data.replay)
        else:
            tokeniser.add("examples", _stream(connection, "chosen_examples", set_id=data.set_id))
        if data.capability:
            share, chats_read = data.capability_share, partial / "capability"
            writer.left_out.update(write_chats(data.capability, chats_read))
            most = round(writer.num_rows * share / (1 - share))
            rows = _stream(connection, "capability_chats", path=str(chats_read))
            tokeniser.add("capability", rows, most=most)
            chats_read.unlink()
        figures = writer.close()
        if not figures.num_rows:
            raise DataError(
                f"set {data.set_id} has no row to learn from: {figures.left_out or 'it is empty'}; "
                "run precept refresh, or raise sft.max_length"
            )
    return _read(folder)


def tokenise_documents(
    documents: Documents, tokenizer: Any, *, max_length: int, folder: Path
) -> Tokenised:
    """Writes documents as rows of at most `max_length` tokens, all of which are learned, into a
    folder, which appears whole or not at all.

    The last row of each ends on the tokenizer's eos token. Special tokens in a text are broken. A
    folder that is there is read, not written again. Raises DataError if there is no eos token.
    """
    if folder.exists():
        return _read(folder)
    neutral, end = Neutraliser(tokenizer), tokenizer.eos_token_id
    if end is None:
        raise DataError(
            f"tokenizer of {tokenizer.name_or_path} has no eos_token, and midtrain ends documents "
            "with it; set eos_token in its tokenizer_config.json"
        )
    with _written_whole(folder) as partial:
        writer = _RowWriter(partial)
        writer.left_out.update(documents.left_out)
        by_kind: dict[str, list[TokenisedRow]] = defaultdict(list)
        for document in documents.learned:
            ids = tokenizer(neutral(document.text), verbose=False).input_ids
            if ids[-1:] != [end]:
                ids = [*ids, end]
            # A row's first token is not predicted, so it is the last one of the row before.
            starts = range(0, max(len(ids) - 1, 1), max_length - 1)
            pieces = (ids[start : start + max_length] for start in starts)
            by_kind[document.kind] += (_all_learned(document, piece) for piece in pieces)
        for kind, rows in by_kind.items():
            writer.write(kind, rows)
        writer.close()
    return _read(folder)


@contextmanager
def _written_whole(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that gets its name when all is written."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    partial.rename(folder)


def _add_new_and_replayed(
    tokeniser: "_ChatTokeniser",
    connection: duckdb.DuckDBPyConnection,
    set_id: str,
    replay: Replay,
) -> None:
    """Writes the examples that the checkpoint has not learned, and a share of those that it has.

    Raises DataError if there are none of the former.
    """
    sets = {"set_id": set_id, "learned_set": replay.learned_set}
    tokeniser.add("examples", _stream(connection, "new_examples", **sets))
    num_new = tokeniser.writer.sources["examples"]
    if not num_new:
        raise DataError(
            f"set {set_id} has no example that the checkpoint has not learned; leave sft.replay "
            "out to learn the whole set again"
        )
    most = round(num_new * replay.share / (1 - replay.share))
    if most:
        tokeniser.add("replay", _stream(connection, "learned_examples", **sets), most=most)


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


def _all_learned(document: LearnedDocument, ids: list[int]) -> TokenisedRow:
    """Returns a row without a prompt; its tokens count as those of an answer."""
    return TokenisedRow(
        row_id=document.document_id,
        source=document.kind,
        num_prompt_tokens=0,
        num_reasoning_tokens=0,
        num_answer_tokens=len(ids),
        input_ids=ids,
        labels=ids,
    )


class _RowWriter:
    """Writes tokenised rows into Parquet files, a batch at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_rows = self.num_tokens = 0
        self.sources: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self._file: pq.ParquetWriter | None = None

    def write(self, source: str, rows: Sequence[TokenisedRow]) -> None:
        """Writes a batch of rows of one source."""
        # A new file once this one is full.
        full = self.num_rows // _ROWS_PER_FILE != (self.num_rows + len(rows)) // _ROWS_PER_FILE
        if self._file is None or full:
            self._end_file()
            path = self.folder / f"part-{self.num_rows:012}.parquet"
            self._file = pq.ParquetWriter(path, _SCHEMA, compression="zstd")
        columns = {name: [getattr(row, name) for row in rows] for name in _SCHEMA.names}
        self._file.write_table(pa.Table.from_pydict(columns, schema=_SCHEMA))
        self.num_rows += len(rows)
        self.num_tokens += sum(len(row.input_ids) for row in rows)
        self.sources[source] += len(rows)

    def close(self) -> DataFigures:
        """Ends the file that is being written, if any; stores and returns the counts of rows."""
        self._end_file()
        figures = DataFigures(
            num_rows=self.num_rows,
            num_tokens=self.num_tokens,
            sources=dict(self.sources),
            left_out=dict(self.left_out),
        )
        facts = json.dumps(asdict(figures))
        (self.folder / "facts.json").write_text(facts, encoding="utf-8")
        return figures

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


@dataclass(frozen=True, slots=True)
class _ChatTokeniser:
    """Tokenises chats and writes those that can be learned."""

    chats: ChatTemplate
    data: SftData
    writer: _RowWriter

    def add(
        self, source: str, batches: Iterable[Sequence[LearnedChat]], *, most: int | None = None
    ) -> None:
        """Writes the rows that can be learned; at most `most` of them, if it is given."""
        for batch in batches:
            rows = self._tokenise(source, batch)
            if most is not None:
                rows = rows[: most - self.writer.sources[source]]
            if rows:
                self.writer.write(source, rows)
            if self.writer.sources[source] == most:
                return

    def _tokenise(self, source: str, batch: Sequence[LearnedChat]) -> list[TokenisedRow]:
        """Returns the rows that can be learned whole; counts the others."""
        is_alone = self.data.learn_on == "answer" and source != "capability"
        chats = [
            Chat(row.messages, None if is_alone else row.reasoning, row.answer) for row in batch
        ]
        rows = []
        for row, encoded in zip(batch, self.chats.encode_all(chats), strict=True):
            if fault := self._fault(encoded):
                self.writer.left_out[fault] += 1
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
        if len(encoded.input_ids) > self.data.max_length:
            return f"longer than {self.data.max_length} tokens"
        return None
