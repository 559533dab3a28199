"""The catalog at one moment, held in memory so that a question about a million rows is quick.

The views of a catalog find the current rows of a warehouse anew for each query, from the shards:
right for one question, too slow for a page that asks ten at every click. A snapshot asks them once
and keeps all but the texts as tables of schema `app`. Each session of the page has a connection
of its own, on which temporary views hide those of the catalog: the named questions run unchanged,
about the completions that the session's filters leave. Texts are read from the shards, one page
of rows at a time.
"""

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from warehouse.app.filters import Filters
from warehouse.catalog import QuestionError, fork, open_catalog, query_text, read
from warehouse.definitions import raw_query
from warehouse.home import Home
from warehouse.shards import list_shards
from warehouse.tables import REVIEWS

_FOLDER = Path(__file__).parent
_TABLES = (
    "completions_all",
    "judgements_all",
    "prompts_all",
    "completions",
    "votes",
    "verdicts",
    "judge_spreads",
    "jury_votes",
    "category_drift",
    "rows",
)
"""Tables of a snapshot, each after those that it is made from."""
_PASSING = ("completions_all", "judgements_all")
"""Tables that others are made from and that no question needs afterwards."""
_COUNTING = {"acceptance_by_category", "citations", "judge_spread", "jury"}
"""Questions that join by ids and tell none, so that numbers may stand for them."""
_FIRST_QUESTIONS = ("funnel", "acceptance_by_category")
_FIRST_QUERIES = ("options", "totals", "scores")
"""Questions and queries of the page's first view, before any filter is chosen."""
_MOST_ANSWERS = 256
"""Answers that a snapshot keeps; each is one page of rows at most."""


class Snapshot:
    """The rows of a warehouse at one moment, for any number of sessions."""

    def __init__(self, home: Home) -> None:
        """Reads the warehouse: every column of its current rows but the texts."""
        self.home = home
        self.read_at = datetime.now(UTC)
        self._connection = open_catalog(home).connection
        # Rows need no order, and are gathered faster without one.
        self._connection.execute("SET preserve_insertion_order = false")
        builder = fork(self._connection)
        # Ids of few values take a byte in place of fifty.
        builder.execute("ATTACH ':memory:' AS app (COMPRESS)")
        for name in _TABLES:
            builder.execute(f"CREATE TABLE app.{name} AS {_statement('tables', name)}")
            # The views that are read next are then made from this table.
            builder.execute(f"CREATE TEMP VIEW {name} AS FROM app.{name}")
        for name in _PASSING:
            builder.execute(f"DROP VIEW temp.{name}")
            builder.execute(f"DROP TABLE app.{name}")
        builder.execute("CHECKPOINT app")
        builder.close()
        self._answers: dict[Any, pa.Table] = {}
        self._lock = threading.Lock()
        # Every session begins with these: they are answered before there is one.
        first = self.session()
        for question in _FIRST_QUESTIONS:
            first.ask(question)
        for query in _FIRST_QUERIES:
            first.table(query)

    def session(self) -> "Session":
        """Returns a connection with filters of its own."""
        return Session(self, fork(self._connection))

    def ask(self, question: str) -> pa.Table:
        """Returns the answer to a named question about all rows, texts included."""
        answer = self.remembered(question)
        if answer is None:
            connection = fork(self._connection)
            try:
                answer = read(connection, query_text(question)).to_arrow_table()
            finally:
                connection.close()
            self.remember(question, answer)
        return answer

    def remembered(self, key: Any) -> pa.Table | None:
        """Returns an answer that some session was given before, or None."""
        with self._lock:
            return self._answers.get(key)

    def remember(self, key: Any, answer: pa.Table) -> None:
        """Keeps an answer for later sessions; the oldest one gives way."""
        with self._lock:
            self._answers[key] = answer
            if len(self._answers) > _MOST_ANSWERS:
                self._answers.pop(next(iter(self._answers)))


class Session:
    """Questions about the completions that filters leave; one thread at a time may ask."""

    def __init__(self, snapshot: Snapshot, connection: duckdb.DuckDBPyConnection) -> None:
        self.snapshot = snapshot
        self.connection = connection
        self.filters = Filters()
        self._searched = ""
        self._keys = ""
        self._show("session")

    def choose(self, filters: Filters) -> None:
        """Narrows all questions to the completions that filters leave."""
        if filters == self.filters:
            return
        # A search reads every text, so later filters must not repeat it.
        if filters.text and filters.text != self._searched:
            self._make("found", {"text": filters.text})
            self._searched = filters.text
        self._make("chosen", filters.parameters())
        self.filters = filters

    def ask(self, question: str) -> pa.Table:
        """Returns the answer to a named question about the chosen completions."""
        keys = "by_number" if question in _COUNTING else "by_id"
        return self._answer(f"question {question}", query_text(question), {}, keys)

    def table(self, name: str, /, **parameters: Any) -> pa.Table:
        """Returns the rows of one of the page's own queries; lists are given as tuples."""
        key = (name, tuple(sorted(parameters.items())))
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in parameters.items()
        }
        return self._answer(key, _statement("queries", name), values)

    def rows(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        """Returns the rows of one of the page's own queries as dictionaries."""
        return list(self.table(name, **parameters).to_pylist())

    def rule_texts(self, rules: Sequence[str]) -> dict[str, str]:
        """Returns the texts of rules by their ids, as the latest specs have them."""
        rows = self.rows("rule_texts", rules=tuple(rules))
        return {row["rule_id"]: row["rule_text"] for row in rows}

    def see_reviews(self) -> None:
        """Has queries read the reviews of this moment, some of them later than the snapshot."""
        home = self.snapshot.home
        paths = [home.pattern(path) for path in list_shards(home, REVIEWS)]
        with _shards_there():
            self.connection.execute(
                f"CREATE OR REPLACE TEMP VIEW reviews_raw AS {raw_query(paths, REVIEWS)}"
            )

    def catalog(self) -> duckdb.DuckDBPyConnection:
        """Returns the connection for lookups of the catalog, about the chosen completions."""
        self._use("by_id")
        return self.connection

    def _answer(
        self, key: Any, query: str, parameters: Mapping[str, Any], keys: str = "by_id"
    ) -> pa.Table:
        key = (key, self.filters)
        answer = self.snapshot.remembered(key)
        if answer is None:
            self._use(keys)
            with _shards_there():
                answer = read(self.connection, query, dict(parameters)).to_arrow_table()
            self.snapshot.remember(key, answer)
        return answer

    def _use(self, keys: str) -> None:
        """Makes the views that have ids for keys, or numbers."""
        if keys != self._keys:
            self._show(keys)
            self._keys = keys

    def _show(self, name: str) -> None:
        for statement in re.split(r"\n{2,}", _statement("views", name)):
            self.connection.execute(statement)

    def _make(self, name: str, parameters: Mapping[str, Any]) -> None:
        with _shards_there():
            self.connection.execute(
                f"CREATE OR REPLACE TEMP TABLE {name} AS {_statement('queries', name)}",
                dict(parameters),
            )


@contextlib.contextmanager
def _shards_there() -> Iterator[None]:
    """Raises QuestionError for a shard that is gone, as after a compaction, or damaged."""
    try:
        yield
    except duckdb.IOException as error:
        raise QuestionError(
            "files of the warehouse were merged or set aside since they were read: press Read again"
        ) from error
    except duckdb.InvalidInputException as error:
        raise QuestionError(
            "a file of the warehouse is damaged: run precept doctor --mend, then press Read again"
        ) from error


def _statement(folder: str, name: str) -> str:
    """Returns the SQL of a file of this folder, without its semicolon."""
    text = (_FOLDER / folder / f"{name}.sql").read_text(encoding="utf-8")
    return text.rstrip().removesuffix(";")
