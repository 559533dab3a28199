"""The way of commands to a warehouse, and of its rows to the user.

A place that is no warehouse is told before anything else is done. What lies there and is not read
is told on stderr, once a command.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pyarrow as pa

from flows import show, terminal
from warehouse.answers import write
from warehouse.catalog import LOG, QuestionError
from warehouse.characters import one_line
from warehouse.home import Home, has_warehouse, make_home, require_warehouse
from warehouse.upkeep import damage_named

Format = Literal["table", "json", "csv", "parquet"]


@contextmanager
def reading(home: Home) -> Iterator[Home]:
    """Yields a warehouse to read; raises HomeError without one, ShardError for a damaged shard."""
    require_warehouse(home)
    with told_once(), damage_named(home):
        yield home


@contextmanager
def writing(home: Home) -> Iterator[Home]:
    """Yields a place for a warehouse, made if need be; raises HomeError if it cannot be."""
    make_home(home)
    with told_once():
        yield home


@contextmanager
def planning(home: Home) -> Iterator[Home]:
    """Yields a place that need not hold a warehouse yet, and says so if it holds none."""
    if not has_warehouse(home):
        terminal.line(
            f"precept: there is no warehouse at {home.url} yet: all is counted as new", err=True
        )
    with told_once():
        yield home


class _Shown(logging.Formatter):
    """Writes a sentence on one line, with control characters made visible."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


@contextmanager
def told_once() -> Iterator[None]:
    """Prints what the warehouse logs on stderr, each sentence once, however often it is opened."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Shown("precept: %(message)s"))
    told: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        size = len(told)
        told.add(record.getMessage())
        return len(told) > size

    handler.addFilter(is_new)
    propagates, LOG.propagate = LOG.propagate, False
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.propagate = propagates


def chosen_format(kind: Format, *, as_json: bool) -> Format:
    """Returns the format of --format or --json; raises QuestionError if they contradict."""
    if as_json and kind not in ("table", "json"):
        raise QuestionError(f"--json and --format {kind} contradict each other; give one of them")
    return "json" if as_json else kind


def print_rows(rows: pa.RecordBatchReader, kind: Format) -> None:
    """Prints rows; Parquet goes to a file or a pipe only."""
    if kind == "table":
        show.table(rows.read_all())
        return
    if kind == "parquet" and sys.stdout.isatty():
        raise QuestionError(
            "Parquet is no text for a terminal; send it to a file: --format parquet > rows.parquet"
        )
    sys.stdout.flush()
    write(rows, sys.stdout.buffer, kind)
    sys.stdout.buffer.flush()


def wants_shell(argument: str | None, file: str | None) -> bool:
    """Returns True if no query is given and a person sits at the terminal to write some."""
    if argument is not None or file is not None or sys.stdin is None:
        return False
    return sys.stdin.isatty() and sys.stdout.isatty()


def question_folders(recipe: str | None) -> list[Path]:
    """Returns the folders beside which a user's own questions may lie: the recipe's, if one is
    named, and the working folder.

    Raises QuestionError if there is no such recipe.
    """
    if recipe is None:
        return [Path()]
    path = Path(recipe)
    if not path.is_file():
        raise QuestionError(f"no recipe at {recipe}; give the file beside which queries lie")
    return [path.parent, Path()]


def query_of(argument: str | None, file: str | None) -> str:
    """Returns the query that was given as an argument, in a file, or on stdin.

    Raises QuestionError if there is none, or more than one.
    """
    if argument not in (None, "-") and file is not None:
        raise QuestionError("a query and a file of one were given; give one of them")
    if file not in (None, "-"):
        return _file_text(str(file))
    if argument not in (None, "-"):
        return str(argument)
    if sys.stdin is None or sys.stdin.isatty():
        raise QuestionError(
            'no query was given; run precept sql "from completions limit 5", precept sql -f FILE, '
            "or send the query in by a pipe"
        )
    return sys.stdin.read()


def _file_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise QuestionError(f"query file {path} cannot be read: {cause}") from error
