"""Files and data sets → candidates: every row of a source as it was read.

A source that cannot be used stops the run with one sentence; a row that cannot be used becomes a
candidate that bears the reason.
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
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from specs.policy import Outcome
from specs.prompts import Message
from tasks import Config
from tasks.paths import PROJECT
from warehouse.tables import content_id


class SourceConfig(Config):
    """Where prompts come from, and which column says what of them."""

    name: str = Field(min_length=1)
    """Names the source in rows, counts and messages."""
    path: str | None = None
    """CSV, JSON, JSONL or Parquet, each also .gz: a file, a folder or a glob, relative to the
    working folder, to Precept's own or to `$PRECEPT_DATA`."""
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
    keep: list[str] = []
    """Further columns, which a suite reads: gold answers, classes, the prompt before an attack."""
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
            (
                "ideal_response",
                self.ideal_response,
                "ideal_response_value",
                self.ideal_response_value,
            ),
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
                self.ideal_response or self.ideal_response_value,
            ),
        ]
        for one, first, other, second in needs:
            if first and not second:
                raise ValueError(f"source {self.name!r} has {one} without {other}: add {other}")
        return self

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
            *self.keep,
        )
        return [name for name in named if name]


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
    kept: Mapping[str, Any] = field(default_factory=dict)
    """Values of the columns that the source was to keep."""
    fault: str | None = None
    """Why the row cannot be used: unreadable_row, empty_prompt, not_text, not_a_chat,
    unknown_role, not_on_user_turn, left_out."""

    @property
    def prompt_id(self) -> str:
        """Hash of the canonical messages."""
        return messages_id(self.messages)


def messages_id(messages: Sequence[Message]) -> str:
    """Hash of the canonical messages: the same for a chat however a file writes it."""
    return content_id(
        json.dumps(messages, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    )


def short(text: object) -> str:
    """A value as it may stand in a message: never a whole prompt that a wrong column held."""
    shown = str(text)
    return repr(shown if len(shown) <= 60 else shown[:57] + "…")


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
        kept={name: row.get(name) for name in source.keep},
    )


def read_chat(value: object) -> list[Message] | None:
    """A chat in a column that was kept: a list of messages, or a user's text; None where none."""
    try:
        return [_message("user", value)] if isinstance(value, str) else _chat(value)
    except _BadRow:
        return None


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
            f"source {source.name!r}: ideal response {short(labels[0])} is none of "
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
    data = os.environ.get("PRECEPT_DATA")
    bases = [Path.cwd(), PROJECT, *([Path(data)] if data else [])]
    for base in bases:
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
        f"source {source.name!r}: no {', '.join(_READERS)} at {source.path!r} in "
        f"{' or '.join(map(str, bases))}; give a file, a folder or a glob, or set PRECEPT_DATA to "
        "the folder that holds it"
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
