"""An error → one sentence on stderr, and its traceback in a log.

The log also takes what libraries write to stderr past Python, so that the terminal shows only what
is the user's business.
"""

import logging
import os
import re
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

_PLACES = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
"""Faults of a file or folder that the user named or owns."""
_OWN = ("flows", "tasks", "warehouse", "specs", "infra")
"""Packages whose exceptions say what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Told:
    """The word to the user on an error."""

    sentence: str
    exit_code: int


def tell(error: BaseException) -> Told:
    """Returns the sentence and the exit code for an error; logs the traceback unless the error is a
    mistake of the user's that Precept itself found."""
    from tasks.engine.faults import root_cause

    cause = error if _is_own(error) else root_cause(error)
    is_mistake = _is_mistake(cause)
    sentence = f"precept: {_words(cause)}"
    if not is_mistake or (isinstance(cause, ValueError) and not _is_raised_here(error)):
        sentence += f"; the full error is in {log_error(error)}"
    return Told(sentence, 2 if is_mistake else 1)


def _is_own(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in _OWN


def _is_raised_here(error: BaseException) -> bool:
    """Returns whether Precept's own code raised the error, and not a library below it."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return True
    return str(frames[-1][0].f_globals.get("__name__", "")).split(".")[0] in _OWN


def _is_mistake(error: BaseException) -> bool:
    """Returns whether the user can mend the command, its recipe or its files."""
    duckdb: Any = sys.modules.get("duckdb")
    if duckdb is not None and isinstance(error, duckdb.Error):
        # The base class is a fault of the files that a query reads.
        return type(error) is not duckdb.Error
    return isinstance(error, (ValueError, *_PLACES))


def _words(error: BaseException) -> str:
    """Returns an error's words in one line, with its type if they say little without it."""
    text = joined_lines(str(error))
    httpx: Any = sys.modules.get("httpx")
    if httpx is not None and isinstance(error, httpx.TransportError):
        # Prefect's client is the only user of httpx in a command's own process.
        return f"Prefect's server does not answer ({text or type(error).__name__})"
    if isinstance(error, _PLACES) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}; mend it, or name another place"
    if _is_own(error) or isinstance(error, OSError | ValueError) or ": " in text:
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def joined_lines(text: str) -> str:
    """Returns a library's message as one line: of a traceback its end, of a query not its text."""
    if "Traceback (most recent call last)" in text:
        return text.strip().splitlines()[-1].strip()
    # DuckDB shows the line of the query, with a mark under the place.
    text = re.split(r"\n\s*LINE \d+:", text)[0]
    return "; ".join(line.strip().rstrip(";") for line in text.splitlines() if line.strip())


def log_error(error: BaseException) -> Path:
    """Appends the whole error to this command's log and returns the log's path."""
    path = log_path()
    with suppress(OSError), path.open("a", encoding="utf-8") as log:
        traceback.print_exception(error, file=log)
    _kept.add(path)
    return path


@cache
def log_path() -> Path:
    """Returns the file of this process's log, in a folder that is the user's alone."""
    folder = Path(tempfile.gettempdir()) / f"precept-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    if not folder.is_dir() or folder.stat().st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="precept-"))
    return folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"


_kept: set[Path] = set()
"""Logs whose path was told."""


@contextmanager
def libraries_logged() -> Iterator[None]:
    """Sends what libraries write to stderr into the log, which is removed if its path is not told.

    Python's own `sys.stderr` still reaches the terminal; the file below it, which C++ and child
    processes write to, does not.
    """
    try:
        log = log_path().open("a", buffering=1, encoding="utf-8")
        terminal = os.fdopen(
            os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace"
        )
    except OSError:
        # A disk without room for a log must not keep the user from a look at the data.
        yield
        return
    sys.stderr = terminal
    os.dup2(log.fileno(), 2)
    _log_python(log)
    try:
        yield
    finally:
        discard_log()


def discard_log() -> None:
    """Removes this command's log unless its path was told."""
    if log_path() not in _kept:
        log_path().unlink(missing_ok=True)


def _log_python(log: TextIO) -> None:
    """Sends warnings, stray log lines and errors that Python cannot raise to the log."""

    def unraisable(fault: Any) -> None:
        log.write(f"ignored in {fault.object!r}:\n")
        note(fault.exc_type, fault.exc_value, fault.exc_traceback)

    def in_thread(fault: threading.ExceptHookArgs) -> None:
        note(fault.exc_type, fault.exc_value, fault.exc_traceback)

    def note(
        kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError, ValueError):
            traceback.print_exception(kind, error, trace, file=log)

    def warn(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        log.write(warnings.formatwarning(message, category, filename, lineno, line))

    sys.unraisablehook = unraisable
    threading.excepthook = in_thread
    warnings.showwarning = warn
    logging.lastResort = logging.StreamHandler(log)
    logging.lastResort.setLevel(logging.WARNING)
