"""Completion in the shell of `precept sql`: names of the catalog, of DuckDB and of questions."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import duckdb
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from flows.reading import question_folders
from warehouse.definitions import described
from warehouse.questions import list_questions
from warehouse.session import Session, Words

_WORD = re.compile(r"[\w.\\?]+$")


class CatalogCompleter(Completer):
    """Completes the word before the cursor, with what is likeliest first.

    Columns of the tables that a statement names come before all others; after `.ask` stand the
    questions, and after `.schema` and `.tables` the tables and views.
    """

    def __init__(self, session: Session, commands: Sequence[str]) -> None:
        self._session = session
        self._commands = sorted(commands)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        """Yields the names that begin with the word before the cursor; none if the warehouse or a
        question cannot be read, which the statement itself is told."""
        with suppress(ValueError, OSError, duckdb.Error):
            yield from self._names(document)

    def _names(self, document: Document) -> Iterator[Completion]:
        match = _WORD.search(document.text_before_cursor)
        word = match[0] if match else ""
        line = document.text_before_cursor.lstrip()
        if line.startswith((".", "\\")) and line == word:
            yield from _matching(word, self._commands, "command")
        elif line.startswith(".ask "):
            names = [one.name for one in list_questions(question_folders(None))]
            yield from _matching(word, names, "question")
        elif line.startswith((".schema ", ".tables ")):
            yield from _matching(word, list(described()), "table")
        else:
            yield from _of_statement(document.text, word, self._session.words())


def _of_statement(text: str, word: str, words: Words) -> Iterator[Completion]:
    """Yields the names that may stand in a statement, each once."""
    named = [name for name in words.columns if re.search(rf"\b{re.escape(name)}\b", text, re.I)]
    owner, dot, start = word.rpartition(".")
    if dot:
        # `c.` of an alias: any table that is named may be meant.
        tables = [owner.lower()] if owner.lower() in words.columns else named
        yield from _matching(start, _columns(words, tables), "column")
        return
    seen: set[str] = set()
    groups: list[tuple[str, Iterable[str]]] = [
        ("column", _columns(words, named)),
        ("table", words.columns),
        ("keyword", words.keywords),
        ("function", words.functions),
    ]
    for kind, names in groups:
        for completion in _matching(word, names, kind):
            if completion.text not in seen:
                seen.add(completion.text)
                yield completion


def _columns(words: Words, tables: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for table in tables for name in words.columns[table]))


def _matching(start: str, names: Iterable[str], kind: str) -> Iterator[Completion]:
    low = start.lower()
    for name in names:
        if name.lower().startswith(low):
            # A keyword is written as the user began it.
            text = name.lower() if kind == "keyword" and start == low and start else name
            yield Completion(text, start_position=-len(start), display_meta=kind)
