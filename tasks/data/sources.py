"""Sources: files and data sets → rows.

A row is a mapping from column to value, empty if a line of a CSV file does not fit its header. A
source that cannot be read ends the run with one sentence that names the file.
"""

import csv
import glob
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from specs.policy import Outcome
from tasks import Config
from tasks.paths import Located, LocatedFolder, bases, find, places

Row = Mapping[str, Any]

_EXCLUSIVE = (
    ("prompt", "messages"),
    ("category", "categories"),
    ("ideal_response", "ideal_response_value"),
    ("path", "dataset_config"),
    ("path", "revision"),
)
"""Pairs of keys of which a source may set one at most."""
_NEEDS = {
    "category_map": ("category",),
    "ideal_response_map": ("ideal_response",),
    "label_as_metadata": ("ideal_response", "ideal_response_value"),
}
"""Keys that need one of these others: without it they would have no effect."""


class SourceConfig(Config):
    """A source of prompts: its files or data set, and the meaning of its columns."""

    name: str = Field(min_length=1)
    """Name of the source in rows, counts and messages."""
    path: Located | None = None
    """A file, folder or glob of CSV, JSON, JSONL or Parquet, each also .gz. Unset: `dataset`."""
    dataset: LocatedFolder | None = None
    """A data set on Hugging Face, or a local folder that `datasets` can read. Unset: `path`."""
    dataset_config: str | None = None
    """Configuration of the data set. Unset: its only one."""
    dataset_split: str = "train"
    """Split of the data set."""
    revision: str | None = None
    """Commit of the data set; pin it, so that the same rows are read again. Unset: the newest."""
    rows_key: str | None = None
    """Key of a JSON object that holds the rows. Unset: its only key that holds a list."""
    prompt: str | None = None
    """Column with the text of a single prompt. Unset: `prompt`, if there is no `messages`."""
    messages: str | None = None
    """Column with a chat, a list of role and content. Unset: `messages`, if there is one."""
    category: str | None = None
    """Column with the category of a prompt, or with a list of categories."""
    categories: list[str] = []
    """Categories of every prompt of the source, instead of a column."""
    category_map: dict[str, str] = {}
    """From the source's labels to the pack's categories; "" leaves the rows of a label out."""
    assign_category: bool = False
    """Let the judge model choose the category of prompts that have none the pack knows."""
    ideal_response: str | None = None
    """Column with the ideal response: comply, refuse or safe_complete."""
    ideal_response_map: dict[str, Literal["comply", "refuse", "safe_complete", ""]] = {}
    """From the source's labels to ideal responses; "" if a label does not say."""
    ideal_response_value: Outcome | None = None
    """Ideal response to every prompt of the source, instead of a column."""
    language: str = "en"
    """Language of prompts for which no column gives one."""
    language_column: str | None = None
    """Column with the language."""
    transform: str | None = None
    """Column with the change that was made to the text: an encoding, an attack."""
    metadata: list[str] = []
    """Columns with findings that a judge may be shown; each value is one finding."""
    label_as_metadata: bool = False
    """Make the ideal response a finding as well: "the ideal response is refuse"."""
    keep: list[str] = []
    """Further columns, for a suite: gold answers, classes, the prompt before an attack."""
    split: str = "train"
    """`train`, or the name of an evaluation set."""
    limit: int | None = Field(None, gt=0)
    """Rows to read. Unset: all."""

    @model_validator(mode="after")
    def _check(self) -> "SourceConfig":
        if (self.path is None) == (self.dataset is None):
            given = "neither" if self.path is None else "both"
            raise ValueError(f"source {self.name!r} has {given}: give it either path or dataset")
        for key, other in _EXCLUSIVE:
            if getattr(self, key) and getattr(self, other):
                raise ValueError(
                    f"source {self.name!r} has both {key} and {other}: leave one of them out"
                )
        for key, needed in _NEEDS.items():
            if getattr(self, key) and not any(getattr(self, name) for name in needed):
                raise ValueError(
                    f"source {self.name!r} has {key} without {needed[0]}: add {needed[0]}"
                )
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


_BATCH_ROWS = 1000


def read_tables(source: SourceConfig) -> Iterator[tuple[str, Iterator[Row]]]:
    """Yields each file of a source, or its data set, with its rows."""
    if source.dataset:
        yield f"data set {source.dataset}", _dataset_rows(source)
        return
    for path in _files(source):
        yield str(path), _file_rows(path, source)


def _files(source: SourceConfig) -> list[Path]:
    """Returns the files of a source, sorted; raises ValueError if there is none to read."""
    assert source.path
    for base in bases():
        # `base / path` is the path itself where it is absolute.
        place = base / source.path
        if place.is_file():
            if not _reader(place):
                raise ValueError(
                    f"source {source.name!r}: {place} must be of a kind that can be read; give "
                    f"{', '.join(_READERS)}, each also with .gz"
                )
            return [place]
        pattern = os.path.join(glob.escape(str(place)), "**") if place.is_dir() else str(place)
        matches = map(Path, glob.glob(pattern, recursive=True))
        files = sorted(path for path in matches if path.is_file() and _reader(path))
        if files:
            return files
    raise ValueError(
        f"source {source.name!r}: no {', '.join(_READERS)} at {source.path!r} ({places()}); give a "
        "file, a folder or a glob, or set PRECEPT_DATA to the folder that holds it"
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
    # Lone surrogates pass here, and are replaced when the text is cleaned.
    opener: Callable[..., IO[str]] = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", errors="surrogatepass", newline=newline)


def _csv_rows(path: Path, source: SourceConfig) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with _open(path, newline="") as file:
        # Strict: otherwise a quote that is never closed swallows the rest of the file.
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
    data = _parse(text, path, 1, "name a file with one object a line .jsonl")
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
        raise ValueError(f"{path}: must be a list of rows, or an object that holds such a list")
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
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
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
    folder = find(source.dataset, accept=Path.is_dir)
    try:
        data = load_dataset(
            str(folder or source.dataset),
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
    """Returns the columns to read: those that the source names, or all if one is missing, for the
    message that lists what there is."""
    named = set(source.columns)
    if not (source.prompt or source.messages):
        named |= {"prompt", "messages"} & set(columns) or {"prompt"}
    return [name for name in columns if name in named] if named <= set(columns) else list(columns)
