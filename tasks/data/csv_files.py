"""CSV and TSV → records by the columns of their header, and the lines before it."""

import csv
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from tasks.data.columns import top_column
from tasks.data.files import File, faults_named, kind_of, open_text
from tasks.data.json_documents import too_long
from tasks.data.sources import USUAL_COLUMNS, SourceConfig

_HEADER_LINES = 100
"""Lines in which a header is looked for."""


@dataclass(slots=True)
class Lines:
    """The lines of a file, one at a time; a row that is too long is refused before it is whole."""

    file: IO[str]
    path: object
    max_bytes: int
    number: int = 0
    """Lines so far."""
    row_line: int = 1
    """First line of the row."""
    row_bytes: int = 0
    """Bytes of the row so far."""

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        longest = self.max_bytes + len("\r\n")
        line = self.file.readline(longest + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.row_bytes += len(line.encode("utf-8", "surrogatepass"))
        if self.row_bytes > longest:
            raise too_long(self.path, self.row_line, self.max_bytes)
        return line

    def end_row(self) -> None:
        """Lets the next line begin a row."""
        self.row_line, self.row_bytes = self.number + 1, 0


def csv_rows(path: File, source: SourceConfig) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the rows below the header, each with its first line; one that does not fit the header
    is empty."""
    records = _records(path, source)
    header = _header(records, path)
    for line, record in records:
        fits = len(record) == len(header)
        yield line, dict(zip(header, record, strict=True)) if fits else {}


def csv_columns(path: File, source: SourceConfig) -> list[str]:
    """Returns the columns of the header."""
    return _header(_records(path, source), path)


def lines_before_header(path: File, source: SourceConfig) -> int | None:
    """Returns the lines before the first one with every column that a source names, or with one of
    the usual ones; None if there is none near the top, or the file is no CSV."""
    if kind_of(path) not in (".csv", ".tsv"):
        return None
    named = set(map(top_column, source.columns))
    usual = set() if source.text_columns else set(USUAL_COLUMNS)
    with faults_named(path), open_text(path, newline="") as file:
        for number, line in enumerate(itertools.islice(file, _HEADER_LINES)):
            names = set(next(csv.reader([line], delimiter=_delimiter(path, source)), ()))
            if named <= names and (not usual or usual & names):
                return number
    return None


def require_unique(columns: Sequence[str], where: str) -> None:
    """Raises ValueError if a table has a column twice: it does not say which one counts."""
    repeated = next((name for name in columns if columns.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"{where}: column {repeated!r} stands twice; rename one of them")


def _delimiter(path: File, source: SourceConfig) -> str:
    return source.delimiter or ("\t" if kind_of(path) == ".tsv" else ",")


def _records(path: File, source: SourceConfig) -> Iterator[tuple[int, list[str]]]:
    """Yields the records of a CSV file, each with its first line; the first one is the header."""
    # The lines that are fed to the reader have a limit of their own.
    csv.field_size_limit(sys.maxsize)
    with open_text(path, newline="") as file:
        lines = Lines(file, path, source.max_row_bytes)
        for _ in itertools.islice(lines, source.skip_lines):
            lines.end_row()
        # Strict: otherwise a quote that is never closed swallows the rest of the file.
        reader = csv.reader(lines, strict=True, delimiter=_delimiter(path, source))
        try:
            for record in reader:
                if record:
                    yield lines.row_line, record
                lines.end_row()
        except csv.Error as error:
            raise ValueError(
                f"{path}:{lines.number}: not CSV ({error}); quote the field and double the quotes "
                "inside it, or set delimiter if other characters separate the columns"
            ) from error


def _header(records: Iterator[tuple[int, list[str]]], path: File) -> list[str]:
    """Returns the names in the first record; raises ValueError if one stands twice."""
    line, header = next(records, (1, list[str]()))
    names = [name or f"column_{number}" for number, name in enumerate(header, 1)]
    require_unique(names, f"{path}:{line}")
    return names
